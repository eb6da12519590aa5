//! Blocks of addresses: an agent that claims them, gives them up, and goes on where it left off.

use std::collections::BTreeSet;
use std::fs;

use serde_json::{Value, json};

use crate::{Machine, NODES, node};

mod race;

pub(crate) const BLOCKS: &str = "/apis/weft.internal/v1/ipamblocks";
const FLAGS: &[&str] = &["--ipam", "blocks", "--block-mask-size-ipv4", "29", "--block-grace", "1"];

fn machine() -> Machine {
    let mut machine = Machine::new();
    machine.flags = FLAGS;
    machine.install_plugin();
    machine.server.put(NODES, bare(1));
    machine
}

/// A Node without a pod CIDR.
pub(crate) fn bare(number: u8) -> Value {
    let mut node = node(number);
    node["spec"] = json!({});
    node["metadata"]["uid"] = format!("uid-of-node{number}").into();
    node
}

pub(crate) fn block(name: &str, cidr: &str, node: &str) -> Value {
    let spec = json!({"cidr": cidr, "node": node, "nodeUID": format!("uid-of-{node}"), "claim": "x"});
    json!({"metadata": {"name": name, "uid": name}, "spec": spec})
}

/// The blocks that the API server knows as a Node's.
fn claimed(machine: &Machine, node: &str) -> BTreeSet<String> {
    let all = machine.server.objects(BLOCKS).into_iter().filter(|block| block["spec"]["node"] == node);
    all.map(|block| block["spec"]["cidr"].as_str().unwrap().to_owned()).collect()
}

/// The blocks that the plugin gives addresses of.
fn served(machine: &Machine) -> BTreeSet<String> {
    let text = fs::read(machine.path("networks/.blocks/weft")).unwrap_or_default();
    let file: Value = serde_json::from_slice(&text).unwrap_or_default();
    let blocks = file["blocks"].as_array().into_iter().flatten();
    blocks.map(|block| block.as_str().unwrap().to_owned()).collect()
}

fn one(blocks: &BTreeSet<String>) -> String {
    blocks.first().unwrap().clone()
}

/// Reserves every address that the block has for pods.
fn fill(machine: &Machine, block: &str) -> Vec<String> {
    let block: weft_types::IpNetwork = block.parse().unwrap();
    let addresses: Vec<String> = block.iter().skip(2).take(5).map(|address| address.to_string()).collect();
    addresses.iter().for_each(|address| machine.reserve(address, "c"));
    addresses
}

#[test]
fn a_node_without_a_pod_cidr_claims_a_block_and_routes_lead_to_those_of_others() {
    let mut machine = machine();
    machine.server.put(NODES, bare(2));
    machine.server.put(BLOCKS, block("theirs", "10.244.9.0/29", "node2"));
    machine.start();
    machine.until("a block", |machine| {
        served(machine).len() == 1 && served(machine) == claimed(machine, "node1")
    });
    machine.until("the configuration", |machine| machine.conflist().exists());
    let conflist: Value = serde_json::from_slice(&fs::read(machine.conflist()).unwrap()).unwrap();
    let ipam = &conflist["plugins"][0]["ipam"];
    assert!(ipam["blocks"].as_str().unwrap().ends_with("/networks/.blocks/weft"), "{ipam}");
    assert_eq!(ipam.get("ranges"), None, "a new block changes nothing here");
    machine.until("a route", |machine| machine.routes() == ["10.244.9.0/29 via 172.30.0.12"]);
    machine.until("readiness", |machine| machine.ask("/readyz").0 == "200");
    let own = one(&served(&machine));
    assert!(machine.sh("nft list ruleset").contains(&format!("ip saddr {own} masquerade")));
    assert!(machine.ask("/metrics").1.contains("weft_agent_ipam_addresses_free 5\n"));
    let known: Value = serde_json::from_str(&machine.ask("/ipam").1).unwrap();
    assert_eq!(known["blocks"], json!([{"cidr": own, "usable": 5}]));

    machine.server.delete(NODES, "node2");
    machine.until("a lost node's block given up", |machine| claimed(machine, "node2").is_empty());
    machine.until("no route", |machine| machine.routes().is_empty());
}

#[test]
fn a_full_node_claims_another_block_and_gives_up_what_is_empty_for_long() {
    let mut machine = machine();
    machine.start();
    machine.until("a block", |machine| served(machine).len() == 1);
    let addresses = fill(&machine, &one(&served(&machine)));
    machine.until("another", |machine| {
        served(machine).len() == 2 && served(machine) == claimed(machine, "node1")
    });
    for address in addresses {
        fs::remove_file(machine.path("networks/weft").join(address)).unwrap();
    }
    machine.until("one given up", |machine| {
        claimed(machine, "node1").len() == 1 && served(machine) == claimed(machine, "node1")
    });
}

#[test]
fn a_killed_agent_goes_on_with_its_blocks_also_while_the_api_server_is_away() {
    let mut machine = machine();
    machine.start();
    machine.until("a block", |machine| served(machine).len() == 1);
    let before = served(&machine);
    machine.kill();
    machine.server.stop();
    machine.start();
    machine.until("an agent", |machine| machine.log().matches("starting").count() == 2);
    assert_eq!(served(&machine), before);
    let Machine { namespace, server, .. } = &mut machine;
    namespace.run(|| server.restart()).unwrap();
    machine.until("readiness", |machine| machine.ask("/readyz").0 == "200");
    assert_eq!((served(&machine), claimed(&machine, "node1")), (before.clone(), before));
}

#[test]
fn what_an_agent_claimed_before_it_died_is_not_lost() {
    let mut machine = machine();
    let mut claimed_before = block("10.244.7.0-29", "10.244.7.0/29", "node1");
    claimed_before["spec"]["claim"] = "an agent that died before it wrote the file".into();
    machine.server.put(BLOCKS, claimed_before);
    machine.start();
    machine.until("the block", |machine| served(machine).contains("10.244.7.0/29"));
    assert_eq!(claimed(&machine, "node1").len(), 1, "no second one");
    let object = &machine.server.objects(BLOCKS)[0];
    assert!(!object["spec"]["claim"].as_str().unwrap().contains("died"), "vouched for: {object}");
}

#[test]
fn a_block_that_another_node_turns_out_to_have_is_given_up_at_once() {
    let mut machine = machine();
    machine.server.put(NODES, bare(2));
    machine.start();
    machine.until("a block", |machine| served(machine).len() == 1);
    let cidr = one(&served(&machine));
    let name = machine.server.objects(BLOCKS)[0]["metadata"]["name"].as_str().unwrap().to_owned();
    machine.server.put(BLOCKS, block(&name, &cidr, "node2"));
    machine.until("another block", |machine| {
        let served = served(machine);
        served.len() == 1 && !served.contains(&cidr) && served == claimed(machine, "node1")
    });
}

#[test]
fn a_cluster_cidr_without_a_free_block_is_named() {
    let mut machine = machine();
    machine.server.put(NODES, bare(2));
    machine.server.put(BLOCKS, block("all", "10.244.0.0/16", "node2"));
    machine.start();
    let told = "the cluster CIDR 10.244.0.0/16 has no free block of /29 left for Node node1: 1 blocks are claimed by 1 Nodes";
    machine.until("a word", |machine| machine.log().contains(told));
    let (status, body) = machine.ask("/readyz");
    assert!(status == "503" && body.contains(told), "{status} {body}");
    let events = "/apis/events.k8s.io/v1/namespaces/default/events";
    machine.until("an event", |machine| {
        machine.server.objects(events).iter().any(|event| event["reason"] == "ClusterCIDRExhausted")
    });
}
