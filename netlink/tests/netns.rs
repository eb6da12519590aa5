//! Network namespaces: made, entered and left. Runs as root.

#![allow(clippy::unwrap_used, reason = "a test stops at the first thing that goes wrong")]

use std::fs;
use std::os::unix::fs::MetadataExt;

use weft_netlink::netns::Namespace;

fn inode() -> u64 {
    fs::metadata("/proc/thread-self/ns/net").unwrap().ino()
}

#[test]
fn work_runs_inside_and_the_caller_stays_outside() {
    let outside = inode();
    let namespace = Namespace::temporary().unwrap();
    let inside = namespace.run(inode).unwrap();
    assert_ne!(inside, outside);
    assert_eq!(inode(), outside);
}

#[test]
fn a_panic_inside_reaches_the_caller_who_is_still_outside() {
    let outside = inode();
    let namespace = Namespace::temporary().unwrap();
    let caught = std::panic::catch_unwind(|| namespace.run(|| panic!("inside")));
    assert!(caught.is_err());
    assert_eq!(inode(), outside);
}

#[test]
fn a_pinned_namespace_opens_by_its_file_until_removed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("new/blue");
    let created = Namespace::create(&path).unwrap();
    let opened = Namespace::open(&path).unwrap();
    assert!(created.run(|| opened.is_current()).unwrap().unwrap());
    assert!(!created.is_current().unwrap() && Namespace::current().unwrap().is_current().unwrap());
    assert!(Namespace::create(&path).is_err(), "a second of the same name");
    Namespace::remove(&path).unwrap();
    assert!(Namespace::open(&path).unwrap_err().is_missing());
    assert!(!path.exists());
}

#[test]
fn a_temporary_namespace_opens_by_its_path() {
    let namespace = Namespace::temporary().unwrap();
    let opened = Namespace::open(namespace.path()).unwrap();
    assert!(namespace.run(|| opened.is_current()).unwrap().unwrap());
}

/// Whatever the machine's own settings are, which a new namespace takes over.
#[test]
fn a_temporary_namespace_has_a_kernel_s_own_settings() {
    let read = |name: &str| fs::read_to_string(format!("/proc/sys/net/{name}")).unwrap();
    let outer = Namespace::temporary().unwrap();
    let settings = ["ipv4/ip_forward", "ipv4/conf/default/rp_filter", "ipv6/conf/default/disable_ipv6"];
    let seen = outer.run(|| settings.map(read)).unwrap();
    assert_eq!(seen, ["0\n", "0\n", "0\n"]);
}
