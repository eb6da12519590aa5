//! Damaged and foreign files, and disks without room.

use std::fs;
use std::io::Write;
use std::process::Stdio;

use nix::mount::{MsFlags, mount, umount};
use serde_json::{Value, json};

use crate::network::{Network, OURS, address, spawn};

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
    assert_eq!(told[2], format!("weft-ipam: {place}/README is not a reservation"));
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
                let names = fs::read_dir(disk.0.path().join("blue")).unwrap();
                let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
                assert_eq!(names.filter(|name| name.starts_with('.')).count(), 1, "the first's mark");
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
