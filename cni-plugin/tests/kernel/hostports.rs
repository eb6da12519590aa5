//! portMappings: who reaches a pod under a port of the host, whose port it is, and what is left behind.

use std::net::SocketAddr;
use std::process::Command;

use serde_json::{Value, json};
use weft_testkit::wait::eventually;

use crate::node::{Node, Pod, address, serve, talk};
use crate::outside::{NODE, OUTSIDE, ask, at, outside, serve_udp, udp_client};

const SUBNETS: [&str; 2] = ["10.244.1.0/24", "fd00:1::/64"];

/// The agent's configuration, with port 8080 of the host for port 80 of the container, by TCP and UDP.
fn config(node: &Node) -> Value {
    with_port(node, 8080)
}

fn with_port(node: &Node, port: u16) -> Value {
    let mut config = node.config(&SUBNETS);
    let mapping = |protocol| json!({"hostPort": port, "containerPort": 80, "protocol": protocol});
    config["runtimeConfig"] = json!({"portMappings": [mapping("tcp"), mapping("udp")]});
    config
}

/// Makes a pod answer on port 80 of its addresses.
fn answer_in(pod: &Pod, result: &Value, name: &'static str) {
    for place in [0, 1] {
        let server = SocketAddr::new(address(result, place), 80);
        serve(pod.namespace(), server);
        serve_udp(pod.namespace(), server, name);
    }
}

fn ruleset(node: &Node) -> String {
    node.run("nft", &["list", "ruleset"])
}

fn is_reached_from_everywhere(isolated: bool) {
    let node = Node::new();
    let machine = outside(&node);
    let mut config = config(&node);
    config["portIsolation"] = isolated.into();
    let (pod, neighbour) = (node.pod("c1"), node.pod("c2"));
    let result = node.add(&pod, &config);
    answer_in(&pod, &result, "c1");
    config["runtimeConfig"] = json!({});
    node.add(&neighbour, &config);
    for place in [0, 1] {
        let port = at(NODE[place], 8080);
        let seen = talk(machine.namespace(), port).unwrap_or_else(|error| panic!("outside, {port}: {error}"));
        assert_eq!(seen, at(OUTSIDE[place], 0).ip(), "whoever calls keeps the own address");
        let answer = ask(&udp_client(machine.namespace(), port)).unwrap();
        assert_eq!(answer, ("c1".to_owned(), at(OUTSIDE[place], 0).ip()));
        for (from, namespace) in
            [("node", &node.namespace), ("neighbour", neighbour.namespace()), ("itself", pod.namespace())]
        {
            let seen = talk(namespace, port).unwrap_or_else(|error| panic!("{from}, {port}: {error}"));
            assert_ne!(seen, address(&result, place), "{from}");
            let answer = ask(&udp_client(namespace, port));
            assert_eq!(answer.unwrap_or_else(|error| panic!("{from}, udp {port}: {error}")).0, "c1");
        }
    }
    let loopback = at("127.0.0.1", 8080);
    talk(&node.namespace, loopback).unwrap();
    assert_eq!(ask(&udp_client(&node.namespace, loopback)).unwrap().0, "c1");
}

#[test]
fn a_host_port_is_reached_from_everywhere() {
    is_reached_from_everywhere(true);
}

#[test]
fn a_host_port_is_reached_from_everywhere_on_a_plain_bridge() {
    is_reached_from_everywhere(false);
}

#[test]
fn what_the_host_forwards_is_not_captured() {
    let node = Node::new();
    let machine = outside(&node);
    let (owner, other) = (node.pod("c1"), node.pod("c2"));
    let mut config = config(&node);
    node.add(&owner, &config);
    config["runtimeConfig"] = json!({});
    config["ipMasq"] = true.into();
    node.add(&other, &config);
    for place in [0, 1] {
        let server = at(OUTSIDE[place], 8080);
        serve(machine.namespace(), server);
        assert_eq!(talk(other.namespace(), server).unwrap(), at(NODE[place], 0).ip());
    }
}

#[test]
fn a_port_for_one_address_is_not_reached_under_another() {
    let node = Node::new();
    let machine = outside(&node);
    node.run("ip", &["address", "add", "192.0.2.9/24", "dev", "uplink"]);
    let pod = node.pod("c1");
    let mut config = node.config(&SUBNETS);
    let mapping = json!({"hostPort": 8080, "containerPort": 80, "protocol": "tcp", "hostIP": "192.0.2.9"});
    config["runtimeConfig"] = json!({ "portMappings": [mapping] });
    let result = node.add(&pod, &config);
    answer_in(&pod, &result, "c1");
    talk(machine.namespace(), at("192.0.2.9", 8080)).unwrap();
    assert!(talk(machine.namespace(), at(NODE[0], 8080)).is_err());
    node.del(&pod, &config);
    assert_eq!(ruleset(&node), "");
}

#[test]
fn one_port_on_several_addresses_of_the_host_leads_to_a_pod() {
    let node = Node::new();
    let machine = outside(&node);
    node.run("ip", &["address", "add", "192.0.2.9/24", "dev", "uplink"]);
    let pod = node.pod("c1");
    let mut config = node.config(&SUBNETS);
    let mapping = |host| json!({"hostPort": 8080, "containerPort": 80, "protocol": "tcp", "hostIP": host});
    let hosts = ["192.0.2.9", &format!("::ffff:{}", at(NODE[0], 0).ip()), "127.0.0.1"];
    config["runtimeConfig"] = json!({ "portMappings": hosts.map(mapping) });
    let result = node.add(&pod, &config);
    answer_in(&pod, &result, "c1");
    for host in [at("192.0.2.9", 8080), at(NODE[0], 8080)] {
        talk(machine.namespace(), host).unwrap();
    }
    node.del(&pod, &config);
    assert_eq!(ruleset(&node), "");
}

#[test]
fn a_taken_port_is_refused_with_both_names_and_the_first_keeps_it() {
    let node = Node::new();
    let config = config(&node);
    let (first, second) = (node.pod("c1"), node.pod("c2"));
    node.add(&first, &config);
    let before = ruleset(&node);
    let error = node.call("ADD", &second, &config).unwrap_err();
    assert_eq!(
        (&error["code"], &error["msg"]),
        (&json!(104), &json!("container c2: host port 8080/tcp is already mapped to weft/c1/eth0"))
    );
    assert_eq!((ruleset(&node), node.veths().len(), node.reserved().len()), (before, 1, 2));
}

#[test]
fn check_names_what_is_gone() {
    let node = Node::new();
    let mut config = config(&node);
    let pod = node.pod("c1");
    config["prevResult"] = node.add(&pod, &config);
    assert_eq!(node.call("CHECK", &pod, &config), Ok(Value::Null));
    node.run("nft", &["flush map ip weft-cni-hostports hostports"]);
    let error = node.call("CHECK", &pod, &config).unwrap_err();
    assert!(error["code"] == 102 && error["msg"].as_str().unwrap().contains("host port"), "{error}");
    node.run("nft", &["delete table ip weft-cni-hostports"]);
    let error = node.call("CHECK", &pod, &config).unwrap_err();
    assert!(error["msg"].as_str().unwrap().contains("rules of portMappings"), "{error}");
    node.del(&pod, &config);
    assert_eq!(ruleset(&node), "");
}

#[test]
fn del_of_a_vanished_pod_leaves_nothing_and_takes_nothing_from_its_successor() {
    let node = Node::new();
    let machine = outside(&node);
    let config = config(&node);
    let (mut old, mut new) = (node.pod("c1"), node.pod("c2"));
    node.add(&old, &config);
    old.vanish();
    let is_old = |alias: &String| alias.contains("/c1/");
    let is_gone = || !node.links().into_iter().filter_map(|link| link.alias).any(|alias| is_old(&alias));
    eventually("the veth goes with the namespace", is_gone);
    let result = node.add(&new, &config);
    answer_in(&new, &result, "c2");
    node.del(&old, &config);
    for port in NODE.map(|address| at(address, 8080)) {
        talk(machine.namespace(), port).unwrap();
    }
    new.vanish();
    node.del(&new, &config);
    assert_eq!(ruleset(&node), "");
}

#[test]
fn a_udp_client_that_keeps_its_port_follows_it_from_pod_to_pod() {
    let node = Node::new();
    let machine = outside(&node);
    let (old, new, other) = (node.pod("c1"), node.pod("c2"), node.pod("c3"));
    let config = config(&node);
    // Connections are tracked all the time.
    node.add(&other, &with_port(&node, 9090));
    let clients = NODE.map(|address| udp_client(machine.namespace(), at(address, 8080)));
    let result = node.add(&old, &config);
    answer_in(&old, &result, "c1");
    for client in &clients {
        assert_eq!(ask(client).unwrap().0, "c1");
    }
    node.del(&old, &config);
    for client in &clients {
        assert!(ask(client).is_err(), "nobody has the port");
    }
    let result = node.add(&new, &config);
    answer_in(&new, &result, "c2");
    for client in &clients {
        assert_eq!(ask(client).unwrap().0, "c2");
    }
}

#[test]
fn garbage_collection_frees_the_ports_of_pods_that_are_not_valid() {
    let node = Node::new();
    let (stale, valid) = (node.pod("c1"), node.pod("c2"));
    let (mut first, second) = (with_port(&node, 8080), with_port(&node, 9090));
    node.add(&valid, &second);
    let before = ruleset(&node);
    node.add(&stale, &first);
    assert_ne!(ruleset(&node), before);
    first["cni.dev/valid-attachments"] = json!([{"containerID": "c2", "ifname": "eth0"}]);
    assert_eq!(node.call("GC", &stale, &first), Ok(Value::Null));
    assert_eq!(ruleset(&node), before);
    first["cni.dev/valid-attachments"] = json!([]);
    assert_eq!(node.call("GC", &stale, &first), Ok(Value::Null));
    assert_eq!(ruleset(&node), "");
}

/// A mapping of 127.0.0.1 has the kernel route its packets, which it otherwise never does for those of
/// others.
#[test]
fn a_pod_does_not_reach_what_listens_on_the_hosts_loopback() {
    let node = Node::new();
    node.run("ip", &["link", "set", "lo", "up"]);
    let pod = node.pod("c1");
    node.add(&pod, &config(&node));
    pod.namespace()
        .run(|| {
            std::fs::write("/proc/sys/net/ipv4/conf/eth0/route_localnet", "1").unwrap();
            let route = ["route", "add", "127.0.0.1", "via", "10.244.1.1"];
            assert!(Command::new("ip").args(route).status().unwrap().success());
        })
        .unwrap();
    let secret = at("127.0.0.1", 7777);
    serve(&node.namespace, secret);
    assert!(talk(pod.namespace(), secret).is_err());
    node.run("nft", &["flush chain ip weft-cni-hostports martians"]);
    talk(pod.namespace(), secret).expect("nothing else keeps it away");
}
