//! CHECK: whatever of what ADD made is altered, it says so, naming the object (SPEC section 2, "CHECK").

use std::process::Command;

use serde_json::{Value, json};

use crate::node::{Node, Pod};

/// Attaches a pod, sees CHECK pass, alters something and sees it fail with these words. `VETH` in both stands
/// for the host's end of the pair.
fn fails_after(config: impl Fn(&mut Value), alter: &[&str], inside: bool, words: &str) {
    let node = Node::new();
    let (pod, mut whole) = (node.pod("c1"), node.config(&["10.244.1.0/24", "fd00:1::/64"]));
    config(&mut whole);
    whole["prevResult"] = node.add(&pod, &whole);
    assert_eq!(node.call("CHECK", &pod, &whole), Ok(Value::Null), "before {alter:?}");
    let veth = node.veths().into_iter().next().unwrap();
    let alter: Vec<String> = alter.iter().map(|word| word.replace("VETH", &veth)).collect();
    let alter: Vec<&str> = alter.iter().map(String::as_str).collect();
    match inside {
        true => run_inside(&pod, &alter),
        false => drop(node.run(alter[0], &alter[1..])),
    }
    let error = node.call("CHECK", &pod, &whole).expect_err(&format!("after {alter:?}"));
    let expected = format!("container c1: {}", words.replace("VETH", &veth));
    assert_eq!((&error["code"], error["msg"].as_str()), (&json!(102), Some(&*expected)), "after {alter:?}");
}

fn run_inside(pod: &Pod, command: &[&str]) {
    let run = || Command::new(command[0]).args(&command[1..]).status();
    assert!(pod.namespace().run(run).unwrap().unwrap().success(), "{command:?}");
}

/// Ports are open with br_netfilter and isolated without: here the configuration alone is to decide.
fn plain(config: &mut Value) {
    config["portIsolation"] = false.into();
}

#[test]
fn an_altered_port_of_the_bridge_is_told() {
    for (alter, words) in [
        (&["ip", "link", "set", "VETH", "nomaster"][..], "VETH is not a port of bridge cni0"),
        (&["ip", "link", "set", "VETH", "down"], "VETH is down"),
        (&["ip", "link", "set", "VETH", "mtu", "1300"], "VETH has MTU 1300 instead of 1500"),
        (
            &["bridge", "link", "set", "dev", "VETH", "hairpin", "on"],
            "port VETH has hairpin on instead of off",
        ),
        (
            &["bridge", "link", "set", "dev", "VETH", "isolated", "on"],
            "port VETH has isolated on instead of off",
        ),
        (&["ip", "link", "delete", "VETH"], "VETH is gone"),
    ] {
        fails_after(plain, alter, false, words);
    }
    let hairpin = |config: &mut Value| {
        plain(config);
        config["hairpinMode"] = true.into();
    };
    let off = ["bridge", "link", "set", "dev", "VETH", "hairpin", "off"];
    fails_after(hairpin, &off, false, "port VETH has hairpin off instead of on");
    let isolated = |config: &mut Value| {
        config["portIsolation"] = true.into();
        config["isGateway"] = false.into();
        config["isDefaultGateway"] = false.into();
    };
    let off = ["bridge", "link", "set", "dev", "VETH", "isolated", "off"];
    fails_after(isolated, &off, false, "port VETH has isolated off instead of on");
}

#[test]
fn an_altered_bridge_and_settings_without_which_nothing_is_forwarded_are_told() {
    for (alter, words) in [
        (&["ip", "link", "set", "cni0", "down"][..], "bridge cni0 is down"),
        (
            &["ip", "address", "delete", "10.244.1.1/24", "dev", "cni0"],
            "gateway cni0 lacks address 10.244.1.1/24",
        ),
        (
            &["ip", "address", "delete", "fd00:1::1/64", "dev", "cni0"],
            "gateway cni0 lacks address fd00:1::1/64",
        ),
        (&["sysctl", "-w", "net.ipv4.ip_forward=0"], "/proc/sys/net/ipv4/ip_forward is not 1"),
        (
            &["sysctl", "-w", "net.ipv6.conf.all.forwarding=0"],
            "/proc/sys/net/ipv6/conf/all/forwarding is not 1",
        ),
    ] {
        fails_after(plain, alter, false, words);
    }
    let promiscuous = |config: &mut Value| {
        plain(config);
        config["promiscMode"] = true.into();
    };
    fails_after(
        promiscuous,
        &["ip", "link", "set", "cni0", "promisc", "off"],
        false,
        "cni0 is not promiscuous",
    );
}

#[test]
fn a_pinned_address_that_is_gone_is_told() {
    let pinned = |config: &mut Value| {
        plain(config);
        config["macspoofchk"] = true.into();
        config["runtimeConfig"]["mac"] = "02:00:00:00:00:07".into();
    };
    let unlock = ["bridge", "link", "set", "dev", "VETH", "locked", "off"];
    fails_after(pinned, &unlock, false, "VETH accepts frames from any MAC address");
    let forget = ["bridge", "fdb", "del", "02:00:00:00:00:07", "dev", "VETH", "master"];
    fails_after(pinned, &forget, false, "VETH does not accept frames from 02:00:00:00:00:07");
}

#[test]
fn an_altered_interface_inside_is_told_and_what_later_plugins_may_change_is_not() {
    let link_only = |config: &mut Value| {
        plain(config);
        for key in ["ipam", "isGateway", "isDefaultGateway"] {
            config.as_object_mut().unwrap().remove(key);
        }
    };
    fails_after(link_only, &["ip", "link", "set", "eth0", "down"], true, "eth0 is down");
    let address = ["ip", "address", "delete", "10.244.1.2/24", "dev", "eth0"];
    fails_after(plain, &address, true, "eth0 lacks address 10.244.1.2/24");
    let route = ["ip", "route", "delete", "default"];
    fails_after(plain, &route, true, "the route to 0.0.0.0/0 is gone");
    let node = Node::new();
    let (pod, mut config) = (node.pod("c1"), node.config(&["10.244.1.0/24"]));
    config["prevResult"] = node.add(&pod, &config);
    run_inside(&pod, &["ip", "link", "set", "eth0", "mtu", "1400", "promisc", "on"]);
    run_inside(&pod, &["sysctl", "-qw", "net.ipv4.conf.eth0.rp_filter=2"]);
    assert_eq!(node.call("CHECK", &pod, &config), Ok(Value::Null));
}

#[test]
fn a_container_of_which_there_is_nothing_is_unknown() {
    let node = Node::new();
    let (pod, mut config) = (node.pod("c1"), node.config(&["10.244.1.0/24"]));
    config["prevResult"] = node.add(&pod, &config);
    node.del(&pod, &config);
    let error = node.call("CHECK", &pod, &config).unwrap_err();
    let msg = "container c1 is not attached to network weft";
    assert_eq!((&error["code"], &error["msg"]), (&json!(3), &json!(msg)));
}
