//! The `weft-ipam` program by the CNI protocol, and side by side with the reference `host-local` of Debian's
//! containernetworking-plugins, on the same folder in both directions.

#![allow(clippy::unwrap_used, reason = "a test stops at the first thing that goes wrong")]

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use nix::mount::{MsFlags, mount, umount};
use rustix::fs::{XattrFlags, getxattr, setxattr};
use serde_json::{Value, json};

const OURS: &str = env!("CARGO_BIN_EXE_weft-ipam");
const REFERENCE: &str = "/usr/lib/cni/host-local";

/// A folder for reservations and a configuration that names it.
struct Network {
    data_dir: tempfile::TempDir,
    config: Value,
}

impl Network {
    fn new(ranges: Value) -> Network {
        let data_dir = tempfile::tempdir().unwrap();
        let config = json!({
            "cniVersion": "1.0.0", "name": "blue", "type": "bridge",
            "ipam": {"type": "host-local", "ranges": ranges, "dataDir": data_dir.path(),
                     "routes": [{"dst": "0.0.0.0/0"}]},
        });
        Network { data_dir, config }
    }

    fn folder(&self) -> PathBuf {
        self.data_dir.path().join("blue")
    }

    /// Name -> content of every reservation and last address: all that the reference knows.
    fn files(&self) -> BTreeMap<String, String> {
        let entries = fs::read_dir(self.folder()).unwrap().map(|entry| entry.unwrap());
        entries
            .map(|entry| {
                (entry.file_name().into_string().unwrap(), fs::read_to_string(entry.path()).unwrap())
            })
            .filter(|(name, _)| name != "lock" && name != "freed")
            .collect()
    }

    fn call(&self, program: &str, command: &str, container: &str) -> Result<Value, Value> {
        call(program, command, container, &self.config)
    }
}

/// What the program prints, as `Ok` where it exits with 0. Nothing is `Null`.
fn call(program: &str, command: &str, container: &str, config: &Value) -> Result<Value, Value> {
    assert!(
        Path::new(program).exists(),
        "{program} is missing; it is in package containernetworking-plugins"
    );
    let output = spawn(program, command, container, config, Stdio::inherit()).wait_with_output().unwrap();
    let mut answer: Value = match output.stdout.as_slice() {
        [] => Value::Null,
        text => serde_json::from_slice(text).unwrap(),
    };
    // Old versions of the reference print one that is empty.
    if let Some(result) = answer.as_object_mut()
        && result.get("dns").is_some_and(|dns| *dns == json!({}))
    {
        result.remove("dns");
    }
    if output.status.success() { Ok(answer) } else { Err(answer) }
}

fn spawn(program: &str, command: &str, container: &str, config: &Value, stderr: Stdio) -> Child {
    let mut child = Command::new(program)
        .env_clear()
        .envs([("CNI_COMMAND", command), ("CNI_CONTAINERID", container), ("CNI_IFNAME", "eth0")])
        .envs([("CNI_NETNS", "/run/netns/none"), ("CNI_PATH", "/usr/lib/cni")])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(stderr)
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(config.to_string().as_bytes()).unwrap();
    child
}

fn address(result: &Value) -> &str {
    result["ips"][0]["address"].as_str().unwrap()
}

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
fn a_full_range_is_one_clear_error_and_nothing_leaks() {
    let network = Network::new(json!([[{"subnet": "10.1.0.0/30"}]]));
    network.call(OURS, "ADD", "c1").unwrap();
    let error = network.call(OURS, "ADD", "c2").unwrap_err();
    assert_eq!(error["msg"], "no IP addresses available in range set 10.1.0.1-10.1.0.2 of network blue");
    assert!(error["details"].as_str().unwrap().contains("add a range to ipam.ranges"), "{error}");
    assert_eq!(network.files().len(), 2);
    network.call(OURS, "DEL", "c1").unwrap();
    network.call(OURS, "DEL", "c1").unwrap();
    assert_eq!(address(&network.call(OURS, "ADD", "c2").unwrap()), "10.1.0.2/30");
}

#[test]
fn a_malformed_configuration_names_the_field() {
    let error = |ranges: Value| Network::new(ranges).call(OURS, "ADD", "c1").unwrap_err();
    let decode = error(json!([[{"subnet": "10.1.0.0/99"}]]));
    assert_eq!(decode["code"], 6);
    assert!(decode["msg"].as_str().unwrap().contains("ranges[0][0].subnet"), "{decode}");
    let config = error(json!([[{"subnet": "10.1.0.7/24"}]]));
    assert_eq!(config["code"], 7);
    assert!(
        config["msg"].as_str().unwrap().starts_with("network blue: ipam.ranges[0][0].subnet: "),
        "{config}"
    );
}

#[test]
fn parallel_calls_give_each_its_own_address() {
    let network = Network::new(json!([[{"subnet": "10.1.0.0/24"}]]));
    let names: Vec<String> = (0..40).map(|number| format!("c{number}")).collect();
    let addresses: std::collections::BTreeSet<String> = std::thread::scope(|scope| {
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

#[test]
fn garbage_collection_keeps_what_is_valid_and_status_tells_when_all_is_given() {
    let network = Network::new(json!([[{"subnet": "10.1.0.0/29"}]]));
    let mut config = network.config.clone();
    config["cniVersion"] = "1.1.0".into();
    for container in ["c1", "c2", "c3", "c4"] {
        assert_eq!(call(OURS, "STATUS", "", &config), Ok(Value::Null));
        call(OURS, "ADD", container, &config).unwrap();
    }
    // An empty record, as a crash of the reference plugin leaves it, is free to be given.
    fs::write(network.folder().join("10.1.0.6"), "").unwrap();
    assert_eq!(call(OURS, "STATUS", "", &config), Ok(Value::Null));
    assert_eq!(address(&call(OURS, "ADD", "c5", &config).unwrap()), "10.1.0.6/29");
    assert_eq!(call(OURS, "STATUS", "", &config).unwrap_err()["code"], 50);
    config["cni.dev/valid-attachments"] = json!([{"containerID": "c2", "ifname": "eth0"}]);
    assert_eq!(call(OURS, "GC", "", &config), Ok(Value::Null));
    assert_eq!(network.files().into_keys().collect::<Vec<_>>(), ["10.1.0.3", "last_reserved_ip.0"]);
    assert_eq!(call(OURS, "STATUS", "", &config), Ok(Value::Null));
}

/// The mark says what an earlier boot's would.
fn reboot(network: &Network) {
    for name in network.files().into_keys().filter(|name| !name.starts_with("last")) {
        let mut found = [0u8; 64];
        let length = getxattr(network.folder().join(&name), "user.weft.boot", &mut found[..]);
        assert_eq!(length.expect("ADD marks each record"), 36, "a boot id");
        reboot_marked(network, &name);
    }
}

#[test]
fn a_reboot_frees_what_was_given_before_it() {
    let network = Network::new(json!([[{"subnet": "10.1.0.0/29"}]]));
    let mut config = network.config.clone();
    config["cniVersion"] = "1.1.0".into();
    for container in ["c1", "c2", "c3", "c4", "c5"] {
        call(OURS, "ADD", container, &config).unwrap();
    }
    assert_eq!(call(OURS, "STATUS", "", &config).unwrap_err()["code"], 50);
    reboot(&network);
    assert_eq!(call(OURS, "STATUS", "", &config), Ok(Value::Null), "or the node would never be ready again");
    config["prevResult"] = json!({"ips": [{"address": "10.1.0.2/29"}]});
    assert_eq!(call(OURS, "CHECK", "c1", &config).unwrap_err()["code"], 102);
    // The container's id may be the same again.
    assert!(call(OURS, "ADD", "c1", &config).is_ok());
    assert_eq!(network.files().len(), 2, "the first ADD clears the folder for every program");
    assert!(network.call(REFERENCE, "ADD", "c6").is_ok());
}

#[test]
fn the_reference_takes_no_notice_of_marks_and_what_it_gave_stays_given() {
    let network = Network::new(json!([[{"subnet": "10.1.0.0/29"}]]));
    network.call(OURS, "ADD", "c1").unwrap();
    network.call(OURS, "ADD", "c2").unwrap();
    network.call(OURS, "DEL", "c2").unwrap();
    assert!(network.folder().join("freed").exists());
    network.call(REFERENCE, "ADD", "c3").unwrap();
    reboot_marked(&network, "10.1.0.2");
    network.call(OURS, "ADD", "c4").unwrap();
    let held: Vec<String> = network.files().into_values().collect();
    assert!(held.iter().any(|content| content.starts_with("c3")), "not marked, so it may live: {held:?}");
    assert!(!held.iter().any(|content| content.starts_with("c1")), "{held:?}");
}

fn reboot_marked(network: &Network, address: &str) {
    let path = network.folder().join(address);
    setxattr(&path, "user.weft.boot", b"the boot before", XattrFlags::REPLACE).unwrap();
}

#[test]
fn damaged_and_foreign_files_are_told_on_standard_error() {
    let network = Network::new(json!([[{"subnet": "10.1.0.0/29"}]]));
    fs::create_dir_all(network.folder().join("10.1.0.2")).unwrap();
    fs::write(network.folder().join("10.1.0.3"), "?!").unwrap();
    fs::write(network.folder().join("README"), "mine").unwrap();
    let child = spawn(OURS, "ADD", "c1", &network.config, Stdio::piped());
    let output = child.wait_with_output().unwrap();
    let result: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(address(&result), "10.1.0.4/29", "the first that is free for certain");
    let mut told: Vec<String> =
        String::from_utf8(output.stderr).unwrap().lines().map(str::to_owned).collect();
    told.sort();
    let place = network.folder().display().to_string();
    assert_eq!(told.len(), 3, "{told:?}");
    assert!(told[0].starts_with(&format!("weft-ipam: {place}/10.1.0.2 cannot be read")), "{told:?}");
    assert!(told[1].starts_with(&format!("weft-ipam: {place}/10.1.0.3 names no container")), "{told:?}");
    assert_eq!(told[2], format!("weft-ipam: {place}/README is no reservation"));
    network.call(OURS, "DEL", "c1").unwrap();
}

/// A small disk, gone when dropped.
struct Disk(tempfile::TempDir);

impl Disk {
    fn new() -> Disk {
        let folder = tempfile::tempdir().unwrap();
        mount(Some("tmpfs"), folder.path(), Some("tmpfs"), MsFlags::empty(), Some("size=64k")).unwrap();
        Disk(folder)
    }

    /// Leaves so many pages free.
    fn fill(&self, free: usize) {
        let path = self.0.path().join("ballast");
        let mut file = fs::File::create(&path).unwrap();
        while file.write_all(&[0; 4096]).is_ok() {}
        let length = file.metadata().unwrap().len();
        file.set_len(length - 4096 * free as u64).unwrap();
    }

    fn make_room(&self) {
        fs::remove_file(self.0.path().join("ballast")).unwrap();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = umount(self.0.path());
    }
}

#[test]
fn a_full_disk_is_a_clear_error_that_loses_nothing() {
    let (mut refused, mut given) = (0, 0);
    for free in 0..5 {
        let disk = Disk::new();
        let mut network = Network::new(json!([[{"subnet": "10.1.0.0/29"}]]));
        network.config["ipam"]["dataDir"] = json!(disk.0.path());
        network.call(OURS, "ADD", "c1").unwrap();
        disk.fill(free);
        let record = || fs::read_to_string(disk.0.path().join("blue/10.1.0.3"));
        match network.call(OURS, "ADD", "c2") {
            Ok(_) => {
                given += 1;
                assert_eq!(record().unwrap(), "c2\r\neth0");
            }
            Err(error) => {
                refused += 1;
                assert_eq!(error["code"], 5);
                assert!(error["msg"].as_str().unwrap().contains("No space left on device"), "{error}");
                assert!(error["details"].as_str().unwrap().contains("its disk not full"), "{error}");
                assert!(record().is_err(), "an address that nobody was told of");
                assert!(!disk.0.path().join("blue/.unfinished").exists());
            }
        }
        let first = fs::read_to_string(disk.0.path().join("blue/10.1.0.2"));
        assert_eq!(first.unwrap(), "c1\r\neth0", "{free} pages free");
        // The disk is full still.
        network.call(OURS, "DEL", "c1").unwrap();
        network.call(OURS, "DEL", "c2").unwrap();
        disk.make_room();
        assert!(network.call(OURS, "ADD", "c3").is_ok());
    }
    assert!(
        refused > 0 && given > 0,
        "{refused} refused, {given} given: the disk was filled to the brim and not"
    );
}
