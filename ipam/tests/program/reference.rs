//! Side by side with the reference plugin, and on its folder in both directions.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::mount::umount;
use serde_json::{Value, json};

use crate::network::{Network, OURS, REFERENCE, address, call};

#[test]
fn both_programs_give_the_same_results_and_leave_the_same_files() {
    let ranges =
        json!([[{"subnet": "10.1.0.0/29"}], [{"subnet": "fd00:1::/64", "rangeStart": "fd00:1::10"}]]);
    let (ours, reference) = (Network::new(ranges.clone()), Network::new(ranges));
    for container in ["c1", "c2", "c3"] {
        assert_eq!(
            ours.call(OURS, "ADD", container),
            reference.call(REFERENCE, "ADD", container),
            "{container}"
        );
    }
    assert_eq!(ours.files(), reference.files());
    assert_eq!(ours.call(OURS, "DEL", "c2"), reference.call(REFERENCE, "DEL", "c2"));
    assert_eq!(ours.call(OURS, "ADD", "c4"), reference.call(REFERENCE, "ADD", "c4"));
    assert_eq!(ours.files(), reference.files());
    assert_eq!(ours.files()["10.1.0.2"], "c1\r\neth0");
}

#[test]
fn a_node_can_change_over_and_back() {
    let network = Network::new(json!([[{"subnet": "10.1.0.0/29"}]]));
    assert_eq!(address(&network.call(REFERENCE, "ADD", "c1").unwrap()), "10.1.0.2/29");
    assert_eq!(address(&network.call(OURS, "ADD", "c2").unwrap()), "10.1.0.3/29");
    assert_eq!(address(&network.call(REFERENCE, "ADD", "c3").unwrap()), "10.1.0.4/29");
    for program in [OURS, REFERENCE] {
        for container in ["c1", "c2", "c3"] {
            assert!(network.call(program, "ADD", container).is_err(), "{container} has one already");
        }
    }
    // Each frees what the other gave.
    network.call(OURS, "DEL", "c1").unwrap();
    network.call(REFERENCE, "DEL", "c2").unwrap();
    assert_eq!(network.files().into_keys().collect::<Vec<_>>(), ["10.1.0.4", "last_reserved_ip.0"]);
    let mut checked = network.config.clone();
    checked["prevResult"] = json!({"cniVersion": "1.0.0", "ips": [{"address": "10.1.0.4/29"}]});
    for program in [OURS, REFERENCE] {
        assert_eq!(call(program, "CHECK", "c3", &checked), Ok(Value::Null));
        assert!(call(program, "CHECK", "c1", &checked).is_err());
    }
}

#[test]
fn parallel_calls_give_each_its_own_address() {
    let network = Network::new(json!([[{"subnet": "10.1.0.0/24"}]]));
    let names: Vec<String> = (0..40).map(|number| format!("c{number}")).collect();
    let addresses: BTreeSet<String> = std::thread::scope(|scope| {
        let calls: Vec<_> = names
            .iter()
            .enumerate()
            .map(|(index, name)| {
                let program = if index % 4 == 0 { REFERENCE } else { OURS };
                let network = &network;
                scope.spawn(move || address(&network.call(program, "ADD", name).unwrap()).to_owned())
            })
            .collect();
        calls.into_iter().map(|call| call.join().unwrap()).collect()
    });
    assert_eq!(addresses.len(), names.len());
    assert_eq!(network.files().len(), names.len() + 1);
}

/// A network namespace with a file, gone when dropped.
struct Namespace(PathBuf);

impl Namespace {
    fn new(path: PathBuf) -> Namespace {
        fs::write(&path, "").unwrap();
        let net = format!("--net={}", path.display());
        assert!(Command::new("unshare").args([&net, "true"]).status().unwrap().success());
        Namespace(path)
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = umount(&self.0);
    }
}

/// The reference bridge plugin on a node, with `host-local` out of that folder.
fn bridge(node: &Namespace, pod: &Namespace, plugins: &Path, command: &str, config: &Value) -> Value {
    let container = pod.0.file_name().unwrap();
    let mut child = Command::new("nsenter")
        .arg(format!("--net={}", node.0.display()))
        .arg("/usr/lib/cni/bridge")
        .envs([("CNI_COMMAND", command), ("CNI_IFNAME", "eth0")])
        .env("CNI_CONTAINERID", container)
        .env("CNI_NETNS", &pod.0)
        .env("CNI_PATH", plugins)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(config.to_string().as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let answer = serde_json::from_slice(&output.stdout).unwrap_or_default();
    assert!(output.status.success(), "{command} {container:?}: {answer}");
    answer
}

#[test]
fn the_reference_bridge_runs_it_as_host_local_and_a_node_changes_over_and_back_with_its_pods_running() {
    let network = Network::new(json!([[{"subnet": "10.1.0.0/29"}], [{"subnet": "fd00:1::/64"}]]));
    let folder = network.data_dir.path();
    let (ours, theirs) = (folder.join("plugins"), Path::new("/usr/lib/cni"));
    fs::create_dir(&ours).unwrap();
    symlink(OURS, ours.join("host-local")).unwrap();
    let [node, c1, c2, c3] = ["node", "c1", "c2", "c3"].map(|name| Namespace::new(folder.join(name)));
    let call = |pod, plugins, command: &str, previous: Option<&Value>| {
        let mut config = network.config.clone();
        config["isGateway"] = true.into();
        if let Some(previous) = previous {
            config["prevResult"] = previous.clone();
        }
        bridge(&node, pod, plugins, command, &config)
    };
    let first = call(&c1, theirs, "ADD", None);
    let second = call(&c2, &ours, "ADD", None);
    let third = call(&c3, theirs, "ADD", None);
    let ips = |result: &Value| [0, 1].map(|place| result["ips"][place]["address"].clone());
    assert_eq!(ips(&first), ["10.1.0.2/29", "fd00:1::2/64"]);
    assert_eq!(ips(&second), ["10.1.0.3/29", "fd00:1::3/64"]);
    assert_eq!(ips(&third), ["10.1.0.4/29", "fd00:1::4/64"]);
    for plugins in [&ours, theirs] {
        for (pod, result) in [(&c1, &first), (&c2, &second), (&c3, &third)] {
            call(pod, plugins, "CHECK", Some(result));
        }
    }
    call(&c1, &ours, "DEL", None);
    call(&c2, theirs, "DEL", None);
    call(&c3, &ours, "DEL", None);
    let left: Vec<String> = network.files().into_keys().collect();
    assert_eq!(left, ["last_reserved_ip.0", "last_reserved_ip.1"]);
    assert!(
        !fs::read_dir(network.folder())
            .unwrap()
            .any(|entry| { entry.unwrap().file_name().to_string_lossy().contains('@') })
    );
}
