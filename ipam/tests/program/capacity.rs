//! Many pods on a node: ranges that are added while they run, and what a call costs among a thousand records.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use serde_json::json;

use crate::network::{Network, OURS, address, fill, traced};

#[test]
fn more_than_254_pods_by_ranges_that_are_added_while_they_run() {
    let mut network = Network::new(json!([[{"subnet": "10.1.0.0/24"}]]));
    network.config["cniVersion"] = "1.1.0".into();
    fill(&network, None, "10.1.0", 2..254);
    let last = network.call(OURS, "ADD", "last").unwrap();
    assert_eq!(address(&last), "10.1.0.254/24");
    let full = network.call(OURS, "ADD", "more").unwrap_err();
    assert_eq!(full["msg"], "no IP addresses available in range set 10.1.0.1-10.1.0.254 of network blue");
    assert_eq!(network.call(OURS, "STATUS", "").unwrap_err()["code"], 50);
    network.config["ipam"]["ranges"] = json!([[{"subnet": "10.1.0.0/24"}, {"subnet": "10.9.0.0/24"}]]);
    assert_eq!(network.call(OURS, "STATUS", ""), Ok(json!(null)));
    let more = network.call(OURS, "ADD", "more").unwrap();
    assert_eq!((address(&more), &more["ips"][0]["gateway"]), ("10.9.0.2/24", &json!("10.9.0.1")));
    assert_eq!(network.files().iter().filter(|(name, _)| name.starts_with("10.1.")).count(), 253);
    // The pods of the first range go on as before.
    network.call(OURS, "DEL", "last").unwrap();
    assert!(!network.files().contains_key("10.1.0.254"));
}

/// System calls by name, without those by which memory is had and the folder is listed.
fn calls(network: &Network, command: &str) -> BTreeMap<String, usize> {
    let mut calls = traced(network, command);
    for name in ["brk", "mmap", "munmap", "mremap", "getdents64"] {
        calls.remove(name);
    }
    calls
}

#[test]
fn a_call_among_a_thousand_records_reads_no_more_files_than_among_none() {
    let network = Network::new(json!([[{"subnet": "10.1.0.0/20"}]]));
    network.call(OURS, "ADD", "c0").unwrap();
    let mark = fs::read_dir(network.folder()).unwrap().map(|entry| entry.unwrap().file_name());
    let mark = mark.map(|name| name.into_string().unwrap()).find(|name| name.contains('@')).unwrap();
    let boot = mark.split(['@', '-']).nth(1).unwrap().to_owned();
    let few = ["ADD", "DEL"].map(|command| calls(&network, command));
    for third in 1..5 {
        fill(&network, Some(&boot), &format!("10.1.{third}"), 0..250);
    }
    // The file of freed addresses is there from the first DEL on.
    calls(&network, "ADD");
    calls(&network, "DEL");
    let many = ["ADD", "DEL"].map(|command| calls(&network, command));
    for (few, many) in few.iter().zip(&many) {
        let (few_files, many_files) = (few["openat"], many["openat"]);
        assert!(many_files <= few_files + 1, "{few:?}\n{many:?}");
        let (few, many): (usize, usize) = (few.values().sum(), many.values().sum());
        assert!(many <= few + 8, "{few} system calls among few records, {many} among a thousand");
    }
}

#[test]
fn the_first_add_after_a_reboot_frees_a_thousand_records_and_remembers_them_at_once() {
    let network = Network::new(json!([[{"subnet": "10.1.0.0/20"}]]));
    fs::create_dir_all(network.folder()).unwrap();
    for third in 1..5 {
        fill(&network, Some("0123456789abcdef"), &format!("10.1.{third}"), 0..250);
    }
    let opened = calls(&network, "ADD")["openat"];
    assert!(opened < 40, "{opened} files opened, so not one for each record");
    assert_eq!(network.files().into_keys().collect::<Vec<_>>(), ["10.1.0.2", "last_reserved_ip.0"]);
    let marks = fs::read_dir(network.folder()).unwrap().map(|entry| entry.unwrap().file_name());
    let marks = marks.filter(|name| name.to_string_lossy().contains('@')).collect::<BTreeSet<_>>();
    assert_eq!(marks.len(), 1);
}
