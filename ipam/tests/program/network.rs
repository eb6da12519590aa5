//! A network's folder and configuration, and calls of the two programs on it, for the tests beside.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};

pub(crate) const OURS: &str = env!("CARGO_BIN_EXE_weft-ipam");
pub(crate) const REFERENCE: &str = "/usr/lib/cni/host-local";

/// A folder for reservations and a configuration that names it.
pub(crate) struct Network {
    pub(crate) data_dir: tempfile::TempDir,
    pub(crate) config: Value,
}

impl Network {
    pub(crate) fn new(ranges: Value) -> Network {
        let data_dir = tempfile::tempdir().unwrap();
        let config = json!({
            "cniVersion": "1.0.0", "name": "blue", "type": "bridge",
            "ipam": {"type": "host-local", "ranges": ranges, "dataDir": data_dir.path(),
                     "routes": [{"dst": "0.0.0.0/0"}]},
        });
        Network { data_dir, config }
    }

    pub(crate) fn folder(&self) -> PathBuf {
        // A test may have put it elsewhere.
        Path::new(self.config["ipam"]["dataDir"].as_str().unwrap()).join("blue")
    }

    /// Name -> content of every reservation and last address: all that the reference knows.
    pub(crate) fn files(&self) -> BTreeMap<String, String> {
        let entries = fs::read_dir(self.folder()).unwrap().map(|entry| entry.unwrap());
        entries
            .map(|entry| {
                (entry.file_name().into_string().unwrap(), fs::read_to_string(entry.path()).unwrap())
            })
            .filter(|(name, _)| name != "lock" && name != "freed" && !name.starts_with('.'))
            .collect()
    }

    pub(crate) fn call(&self, program: &str, command: &str, container: &str) -> Result<Value, Value> {
        call(program, command, container, &self.config)
    }
}

/// What the program prints, as `Ok` where it exits with 0. Nothing is `Null`.
pub(crate) fn call(program: &str, command: &str, container: &str, config: &Value) -> Result<Value, Value> {
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

pub(crate) fn spawn(program: &str, command: &str, container: &str, config: &Value, stderr: Stdio) -> Child {
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

pub(crate) fn address(result: &Value) -> &str {
    result["ips"][0]["address"].as_str().unwrap()
}

/// Records of containers: with marks of that boot, or without as the reference makes them.
pub(crate) fn fill(network: &Network, boot: Option<&str>, prefix: &str, hosts: std::ops::Range<u32>) {
    fs::create_dir_all(network.folder()).unwrap();
    for host in hosts {
        let (name, content) = (format!("{prefix}.{host}"), format!("filled-{prefix}-{host}\r\neth0"));
        fs::write(network.folder().join(&name), content).unwrap();
        if let Some(boot) = boot {
            let mark = format!(".{name}@{boot}-{host:016x}");
            fs::hard_link(network.folder().join(&name), network.folder().join(mark)).unwrap();
        }
    }
}

/// The program for container `c1` under strace with these arguments. Whether it succeeded.
pub(crate) fn strace(network: &Network, command: &str, arguments: &[&str]) -> bool {
    let mut child = Command::new("strace")
        .args(["-f", "-qq"])
        .args(arguments)
        .arg(OURS)
        .envs([("CNI_COMMAND", command), ("CNI_CONTAINERID", "c1"), ("CNI_IFNAME", "eth0")])
        .env("CNI_NETNS", "/run/netns/none")
        // With it the loader alone makes some hundred calls.
        .env_remove("LD_LIBRARY_PATH")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .expect("strace is installed");
    // It may have been killed already.
    let _ = child.stdin.take().unwrap().write_all(network.config.to_string().as_bytes());
    child.wait().unwrap().success()
}

/// How often it makes which system call, for container `c1`.
pub(crate) fn traced(network: &Network, command: &str) -> BTreeMap<String, usize> {
    let log = network.data_dir.path().join("strace");
    assert!(strace(network, command, &["-o", log.to_str().unwrap()]));
    let mut calls = BTreeMap::new();
    for line in fs::read_to_string(log).unwrap().lines() {
        // PID NAME(ARGUMENTS) = RESULT
        let name = line.split_whitespace().nth(1).and_then(|call| call.split_once('('));
        if let Some((name, _)) = name {
            *calls.entry(name.to_owned()).or_default() += 1;
        }
    }
    calls
}
