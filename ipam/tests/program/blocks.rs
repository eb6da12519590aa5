//! Blocks of addresses: a node's agent writes down which it has, and calls go by that at once.

use std::process::Stdio;

use ipnetwork::IpNetwork;
use serde_json::{Value, json};
use weft_ipam::Blocks;

use crate::network::{Network, OURS, address, fill, spawn};

/// A network by blocks, of which there are none yet.
fn network() -> Network {
    let mut network = Network::new(json!([]));
    let path = Blocks::path(network.data_dir.path(), "blue");
    network.config["cniVersion"] = "1.1.0".into();
    network.config["ipam"]["blocks"] = path.to_str().unwrap().into();
    network
}

fn write(network: &Network, blocks: &[&str], missing: Option<&str>) {
    let blocks: Vec<IpNetwork> = blocks.iter().map(|text| text.parse().unwrap()).collect();
    let blocks = Blocks { is_incomplete: blocks.is_empty(), blocks, missing: missing.map(str::to_owned) };
    blocks.write(&Blocks::path(network.data_dir.path(), "blue"), &network.folder()).unwrap();
}

#[test]
fn without_a_block_nobody_gets_an_address_and_status_says_why() {
    let network = network();
    let status = network.call(OURS, "STATUS", "").unwrap_err();
    assert_eq!(
        (&status["code"], &status["msg"]),
        (&json!(50), &json!("network blue has no block of addresses on this node"))
    );
    assert!(status["details"].as_str().unwrap().contains("weft-agent"), "{status}");
    write(&network, &[], Some("the cluster CIDR is exhausted"));
    let refused = network.call(OURS, "ADD", "c1").unwrap_err();
    assert_eq!(
        (&refused["code"], &refused["details"]),
        (&json!(11), &json!("the cluster CIDR is exhausted"))
    );
    assert_eq!(network.call(OURS, "DEL", "c1"), Ok(Value::Null));
}

#[test]
fn an_add_on_a_full_node_waits_for_the_next_block() {
    let network = network();
    write(&network, &["10.1.0.0/29"], None);
    fill(&network, None, "10.1.0", 2..7);
    let waiting = spawn(OURS, "ADD", "more", &network.config, Stdio::inherit());
    write(&network, &["10.1.0.0/29", "10.1.0.64/29"], None);
    let answer: Value = serde_json::from_slice(&waiting.wait_with_output().unwrap().stdout).unwrap();
    assert_eq!((address(&answer), &answer["ips"][0]["gateway"]), ("10.1.0.66/29", &json!("10.1.0.65")));
}

#[test]
fn a_full_node_that_gets_no_block_says_why() {
    let network = network();
    write(&network, &["10.1.0.0/29"], Some("the cluster CIDR 10.1.0.0/24 has no free /29"));
    fill(&network, None, "10.1.0", 2..7);
    let status = network.call(OURS, "STATUS", "").unwrap_err();
    assert_eq!(status["msg"], "no IP addresses available in the blocks 10.1.0.1-10.1.0.6 of network blue");
    assert_eq!(status["details"], "the cluster CIDR 10.1.0.0/24 has no free /29");
}

#[test]
fn a_block_that_is_taken_away_gives_no_address_any_more_and_its_containers_can_go() {
    let network = network();
    write(&network, &["10.1.0.0/29", "10.1.0.64/29"], None);
    assert_eq!(address(&network.call(OURS, "ADD", "c1").unwrap()), "10.1.0.2/29");
    write(&network, &["10.1.0.64/29"], None);
    assert_eq!(address(&network.call(OURS, "ADD", "c2").unwrap()), "10.1.0.66/29");
    network.call(OURS, "DEL", "c1").unwrap();
    assert!(!network.files().contains_key("10.1.0.2"));
}
