//! What is long, and what is many: names, ports of a bridge, containers that are gone.

use serde_json::{Value, json};
use weft_netlink::netns::Namespace;
use weft_netlink::rtnl::{LinkChange, RtnetlinkClient, Veth, VethEnd};

use crate::node::{Node, answer};

/// Pairs as the plugin makes them, both ends on the host, named after their number and with that note.
fn pairs(node: &Node, number: usize, master: Option<u32>, alias: impl Fn(usize) -> Option<String>) {
    let make = || {
        let (mut route, own) = (RtnetlinkClient::open().unwrap(), Namespace::current().unwrap());
        for number in 0..number {
            let end = |name: String| VethEnd { name, mac: None, mtu: None };
            let (near, far) = (end(format!("veth{number}")), end(format!("peer{number}")));
            let pair = Veth { host: near, host_group: 0, host_up: true, master, peer: far };
            let link = route.add_veth(&pair, std::os::fd::AsFd::as_fd(&own)).unwrap();
            let alias = alias(number);
            route.change_link(link.index, &LinkChange { alias, ..LinkChange::default() }).unwrap();
        }
    };
    node.namespace.run(make).unwrap();
}

#[test]
fn container_ids_and_network_names_may_be_long() {
    let node = Node::new();
    for (network, id) in [("weft".to_owned(), "c".repeat(245)), ("n".repeat(253), "c1".to_owned())] {
        let mut config = node.config(&["10.244.1.0/24"]);
        config["name"] = network.clone().into();
        let pod = node.pod("c1");
        let netns = pod.netns.to_string_lossy().into_owned();
        let program = env!("CARGO_BIN_EXE_weft-cni");
        let call =
            |command: &str, config: &Value| answer(node.spawn_program(program, command, &id, &netns, config));
        call("ADD", &config).unwrap();
        let mut other = config.clone();
        other["name"] = "other".into();
        assert_eq!(call("GC", &other), Ok(Value::Null));
        assert_eq!(node.veths().len(), 1, "it is another network's");
        config["cni.dev/valid-attachments"] = json!([{"containerID": id, "ifname": "eth0"}]);
        assert_eq!(call("GC", &config), Ok(Value::Null));
        assert_eq!(node.veths().len(), 1, "it is valid");
        config["cni.dev/valid-attachments"] = json!([]);
        assert_eq!(call("GC", &config), Ok(Value::Null));
        assert!(node.veths().is_empty());
        call("ADD", &config).unwrap();
        assert_eq!(call("DEL", &config), Ok(Value::Null));
        assert!(node.veths().is_empty());
    }
}

#[test]
fn names_in_which_linux_would_put_a_number_are_refused() {
    let node = Node::new();
    let pod = node.pod("c1");
    let mut config = node.config(&["10.244.1.0/24"]);
    config["bridge"] = "br%d".into();
    let error = node.call("ADD", &pod, &config).unwrap_err();
    assert!(error["code"] == 7 && error["msg"].as_str().unwrap().contains("br%d"), "{error}");
    config["bridge"] = "cni0".into();
    let netns = pod.netns.to_string_lossy();
    let variables =
        [("CNI_COMMAND", "ADD"), ("CNI_CONTAINERID", "c1"), ("CNI_IFNAME", "eth%d"), ("CNI_NETNS", &*netns)];
    let stdin = config.to_string();
    let error =
        answer(node.spawn_in(env!("CARGO_BIN_EXE_weft-cni"), &variables, stdin.as_bytes())).unwrap_err();
    assert!(error["code"] == 4 && error["msg"].as_str().unwrap().contains("eth%d"), "{error}");
    assert!(node.links().iter().all(|link| link.name == "lo"));
}

#[test]
fn a_bridge_without_a_free_port_is_told_in_words_and_by_status() {
    let node = Node::new();
    node.run("ip", &["link", "add", "cni0", "up", "type", "bridge"]);
    let bridge = node.route().link("cni0").unwrap().index;
    pairs(&node, 1023, Some(bridge), |_| None);
    let (pod, config) = (node.pod("c1"), node.config(&["10.244.1.0/24"]));
    let error = node.call("ADD", &pod, &config).unwrap_err();
    let words = "bridge cni0 already has 1023 ports, the most that Linux allows";
    assert_eq!((&error["code"], &error["msg"]), (&json!(101), &json!(words)));
    assert!(pod.link().is_none() && node.reserved().is_empty());
    let error = node.call("STATUS", &pod, &config).unwrap_err();
    assert_eq!((&error["code"], &error["msg"]), (&json!(50), &json!(words)));
    node.run("ip", &["link", "delete", "veth7"]);
    assert_eq!(node.call("STATUS", &pod, &config), Ok(Value::Null));
    node.add(&pod, &config);
}

#[test]
fn garbage_of_hundreds_of_pods_is_collected_at_once() {
    let node = Node::new();
    let config = node.config(&["10.244.0.0/22"]);
    let pod = node.pod("c1");
    node.add(&pod, &config);
    let bridge = node.route().link("cni0").unwrap().index;
    pairs(&node, 512, Some(bridge), |number| Some(format!("weft/gone{number}/eth0")));
    let mut gc = config.clone();
    gc["cni.dev/valid-attachments"] = json!([{"containerID": "c1", "ifname": "eth0"}]);
    assert_eq!(node.call("GC", &pod, &gc), Ok(Value::Null));
    assert_eq!(node.veths().len(), 1, "the pod that is there");
    assert_eq!(node.call("DEL", &pod, &config), Ok(Value::Null));
}
