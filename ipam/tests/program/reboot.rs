//! What a reboot frees, on filesystems of more than one kind.

use std::fs;

use nix::mount::{MsFlags, mount, umount};
use serde_json::{Value, json};

use crate::network::{Network, OURS, REFERENCE, address, call};

/// The marks say what an earlier boot's would. Returns how many there are.
fn reboot(network: &Network) -> usize {
    let entries = fs::read_dir(network.folder()).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let marks: Vec<String> = names.filter(|name| name.contains('@')).collect();
    for name in &marks {
        let (address, rest) = name.split_once('@').unwrap();
        let (_, key) = rest.split_once('-').unwrap();
        let earlier = format!("{address}@00000000000b0075-{key}");
        fs::rename(network.folder().join(name), network.folder().join(earlier)).unwrap();
    }
    marks.len()
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
    assert_eq!(reboot(&network), 5, "ADD marks each record");
    assert_eq!(call(OURS, "STATUS", "", &config), Ok(Value::Null), "or the node would never be ready again");
    config["prevResult"] = json!({"ips": [{"address": "10.1.0.2/29"}]});
    assert_eq!(call(OURS, "CHECK", "c1", &config).unwrap_err()["code"], 102);
    // The container's id may be the same again.
    assert!(call(OURS, "ADD", "c1", &config).is_ok());
    assert_eq!(network.files().len(), 2, "the first ADD clears the folder for every program");
    assert!(network.call(REFERENCE, "ADD", "c6").is_ok());
}

#[test]
fn the_reference_takes_no_notice_of_marks_and_what_it_gave_is_freed_by_the_reboot_after_it_was_seen() {
    let network = Network::new(json!([[{"subnet": "10.1.0.0/29"}]]));
    network.call(OURS, "ADD", "c1").unwrap();
    network.call(OURS, "ADD", "c2").unwrap();
    network.call(REFERENCE, "DEL", "c2").unwrap();
    network.call(REFERENCE, "ADD", "c3").unwrap();
    assert_eq!(reboot(&network), 1, "the reference deletes a record's mark with it, and makes none");
    network.call(OURS, "ADD", "c4").unwrap();
    let held = |id: &str| network.files().into_values().any(|content| content.starts_with(id));
    assert!(held("c3"), "not marked, so it may live");
    assert!(!held("c1"));
    assert_eq!(reboot(&network), 2, "what the reference made is marked by now");
    network.call(OURS, "ADD", "c5").unwrap();
    assert!(held("c5") && !held("c3") && !held("c4"));
}

/// A filesystem in memory without extended attributes, gone when dropped.
struct RamDisk(tempfile::TempDir);

impl RamDisk {
    fn new() -> RamDisk {
        let folder = tempfile::tempdir().unwrap();
        mount(Some("ramfs"), folder.path(), Some("ramfs"), MsFlags::empty(), None::<&str>).unwrap();
        RamDisk(folder)
    }
}

impl Drop for RamDisk {
    fn drop(&mut self) {
        let _ = umount(self.0.path());
    }
}

#[test]
fn a_reboot_frees_on_a_filesystem_without_extended_attributes_too() {
    let disk = RamDisk::new();
    let mut network = Network::new(json!([[{"subnet": "10.1.0.0/30"}]]));
    network.config["ipam"]["dataDir"] = json!(disk.0.path());
    network.call(OURS, "ADD", "c1").unwrap();
    assert!(network.call(OURS, "ADD", "c2").is_err());
    assert_eq!(reboot(&network), 1);
    assert_eq!(address(&network.call(OURS, "ADD", "c2").unwrap()), "10.1.0.2/30");
    network.call(OURS, "DEL", "c2").unwrap();
}
