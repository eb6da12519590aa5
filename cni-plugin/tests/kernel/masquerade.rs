//! ipMasq: under which address a pod's packets are seen, and what is in the kernel for it.

use std::net::SocketAddr;
use std::process::Command;

use serde_json::Value;

use crate::node::{Node, address, serve, talk};
use crate::outside::{NODE, OUTSIDE, at, outside};

const SUBNETS: [&str; 2] = ["10.244.1.0/24", "fd00:1::/64"];

fn config(node: &Node) -> Value {
    let mut config = node.config(&SUBNETS);
    config["ipMasq"] = true.into();
    config
}

/// What the node's nf_tables hold.
fn ruleset(node: &Node) -> String {
    node.run("nft", &["list", "ruleset"])
}

#[test]
fn a_pod_is_seen_outside_under_the_nodes_address_and_by_its_neighbours_under_its_own() {
    let node = Node::new();
    let machine = outside(&node);
    let (one, two) = (node.pod("c1"), node.pod("c2"));
    let config = config(&node);
    let (first, second) = (node.add(&one, &config), node.add(&two, &config));
    for place in [0, 1] {
        let server = at(OUTSIDE[place], 8080);
        serve(machine.namespace(), server);
        assert_eq!(talk(one.namespace(), server).unwrap(), at(NODE[place], 0).ip());
        let neighbour = SocketAddr::new(address(&second, place), 8080);
        serve(two.namespace(), neighbour);
        assert_eq!(talk(one.namespace(), neighbour).unwrap(), address(&first, place));
        serve(&node.namespace, at(NODE[place], 8081));
        assert_eq!(talk(one.namespace(), at(NODE[place], 8081)).unwrap(), address(&first, place), "the node");
    }
    let previous = |result: &Value| {
        let mut config = config.clone();
        config["prevResult"] = result.clone();
        config
    };
    assert_eq!(node.call("CHECK", &one, &previous(&first)), Ok(Value::Null));
    node.run("nft", &["flush set ip6 weft-cni-masquerade leaving"]);
    let error = node.call("CHECK", &one, &previous(&first)).unwrap_err();
    assert_eq!(error["code"], 102, "{error}");
    assert!(error["msg"].as_str().unwrap().contains("not masqueraded"), "{error}");
}

#[test]
fn a_second_pod_changes_nothing_and_the_last_takes_all_away() {
    let node = Node::new();
    let (mut one, two) = (node.pod("c1"), node.pod("c2"));
    let config = config(&node);
    node.add(&one, &config);
    let before = ruleset(&node);
    assert!(before.contains("10.244.1.0/24 . 0.0.0.0/0"), "{before}");
    node.add(&two, &config);
    assert_eq!(ruleset(&node), before);
    one.vanish();
    node.del(&one, &config);
    assert_eq!(ruleset(&node), before, "the other still needs it");
    node.del(&two, &config);
    assert_eq!(ruleset(&node), "");
}

#[test]
fn an_add_that_fails_leaves_nothing() {
    let node = Node::new();
    let pod = node.pod("c1");
    let made =
        pod.namespace().run(|| Command::new("ip").args(["link", "add", "eth0", "type", "bridge"]).status());
    assert!(made.unwrap().unwrap().success());
    let error = node.call("ADD", &pod, &config(&node)).unwrap_err();
    assert!(error["msg"].as_str().unwrap().contains("eth0"), "{error}");
    assert_eq!(ruleset(&node), "");
}

#[test]
fn switched_off_it_ends_for_new_pods_at_once_and_leaves_nothing() {
    let node = Node::new();
    let machine = outside(&node);
    for (subnet, gateway) in SUBNETS.iter().zip(NODE) {
        let words = ["route", "add", subnet, "via", gateway];
        let added = machine.namespace().run(|| Command::new("ip").args(words).status());
        assert!(added.unwrap().unwrap().success());
    }
    let (on, mut off) = (config(&node), config(&node));
    off["ipMasq"] = false.into();
    let (one, two, three) = (node.pod("c1"), node.pod("c2"), node.pod("c3"));
    node.add(&one, &on);
    let second = node.add(&two, &off);
    for place in [0, 1] {
        let server = at(OUTSIDE[place], 8080);
        serve(machine.namespace(), server);
        assert_eq!(talk(two.namespace(), server).unwrap(), address(&second, place), "its own");
    }
    assert_eq!(ruleset(&node), "");
    node.add(&three, &on);
    for pod in [&one, &two, &three] {
        node.del(pod, &off);
    }
    assert_eq!(ruleset(&node), "", "whatever the configuration says by then");
}

#[test]
fn a_network_that_moves_to_another_bridge_stays_masqueraded() {
    let node = Node::new();
    let (old, mut new) = (config(&node), config(&node));
    new["bridge"] = "cni1".into();
    let (one, two) = (node.pod("c1"), node.pod("c2"));
    node.add(&one, &old);
    node.add(&two, &new);
    node.del(&one, &old);
    assert!(ruleset(&node).contains("10.244.1.0/24 . 0.0.0.0/0 comment \"cni1\""), "{}", ruleset(&node));
    node.del(&two, &new);
    assert_eq!(ruleset(&node), "");
}

#[test]
fn what_a_bridge_that_is_gone_has_left_is_in_nobodys_way() {
    let node = Node::new();
    let wide = |bridge: &str, subnet: &str| {
        let mut config = node.config(&[subnet]);
        config["ipMasq"] = true.into();
        config["bridge"] = bridge.into();
        config
    };
    let (one, two) = (node.pod("c1"), node.pod("c2"));
    node.add(&one, &wide("cni0", "10.244.0.0/16"));
    node.run("ip", &["link", "delete", "cni0"]);
    let config = wide("cni1", "10.244.0.0/24");
    node.add(&two, &config);
    assert!(!ruleset(&node).contains("cni0"), "{}", ruleset(&node));
    node.del(&two, &config);
    assert_eq!(ruleset(&node), "");
}
