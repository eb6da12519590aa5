//! Debian's plugin macvlan with `ipam.type: weft-ipam`, as docs/cni.md shows it: two containers on
//! the host's link reach each other, and DEL frees their addresses.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use weft_testkit::namespace::{Namespace, bare_end, cable, machine, sh};

/// A host with a link, and its folder of reservations.
struct Host {
    namespace: Namespace,
    /// The other end of the link.
    _network: Namespace,
    folder: tempfile::TempDir,
}

impl Host {
    fn new() -> Host {
        let (namespace, network) = (machine(), machine());
        cable(&bare_end(&namespace, "eth1"), &bare_end(&network, "wire"));
        Host { namespace, _network: network, folder: tempfile::tempdir().unwrap() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn config(&self) -> Value {
        json!({
            "cniVersion": "1.0.0", "name": "lan", "type": "macvlan", "master": "eth1",
            "ipam": {
                "type": "weft-ipam", "dataDir": self.path("networks"),
                "ranges": [[{"subnet": "192.0.2.0/24", "rangeStart": "192.0.2.128", "rangeEnd": "192.0.2.191"}]],
            },
        })
    }

    fn call(&self, command: &str, id: &str, config: &Value) -> Value {
        let own = Path::new(env!("CARGO_BIN_EXE_weft-ipam")).parent().unwrap().display().to_string();
        let mut process = Command::new("/usr/lib/cni/macvlan");
        process.env("CNI_COMMAND", command).env("CNI_CONTAINERID", id).env("CNI_IFNAME", "eth0");
        process.env("CNI_NETNS", self.path(id)).env("CNI_PATH", format!("/usr/lib/cni:{own}"));
        process.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = self.namespace.run(|| process.spawn()).unwrap().unwrap();
        child.stdin.take().unwrap().write_all(config.to_string().as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        let answer = serde_json::from_slice(&output.stdout).unwrap_or_default();
        assert!(output.status.success(), "{command} {id}: {answer}");
        answer
    }

    fn reserved(&self) -> Vec<String> {
        let entries =
            fs::read_dir(self.path("networks/lan")).unwrap().map(|entry| entry.unwrap().file_name());
        let names = entries.map(|name| name.into_string().unwrap());
        let mut addresses: Vec<String> = names.filter(|name| name.starts_with("192.")).collect();
        addresses.sort();
        addresses
    }
}

#[test]
fn containers_on_a_link_of_the_host_have_addresses_of_wefts_ipam() {
    let host = Host::new();
    let config = host.config();
    let pods = ["c1", "c2"].map(|id| Namespace::create(host.path(id)).unwrap());
    for (id, address) in [("c1", "192.0.2.128/24"), ("c2", "192.0.2.129/24")] {
        let result = host.call("ADD", id, &config);
        assert_eq!(result["ips"][0]["address"], address);
        let mut checked = config.clone();
        checked["prevResult"] = result;
        host.call("CHECK", id, &checked);
    }
    sh(&pods[0], "ping -c1 -W5 192.0.2.129");
    assert_eq!(host.reserved(), ["192.0.2.128", "192.0.2.129"]);
    for id in ["c1", "c2", "c1"] {
        host.call("DEL", id, &config);
    }
    assert!(host.reserved().is_empty());
    for id in ["c1", "c2"] {
        Namespace::remove(host.path(id)).unwrap();
    }
}
