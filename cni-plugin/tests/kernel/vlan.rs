//! VLANs, on a kernel that tells them apart: where the running one does not, on Debian's in a virtual machine.
//! Also what the plugin says on a kernel that cannot.

use std::net::{IpAddr, SocketAddr};
use std::process::Command;

use serde_json::{Value, json};
use weft_netlink::netns::Namespace;
use weft_testkit::virtual_machine::Machine;

use crate::node::{Node, Pod, address, serve, talk};

/// The name of the test below, by which the other kernel runs it.
const THIS: &str = "vlan::vlans_are_networks_of_their_own";
/// What the other kernel says when all went well.
const PASSED: &str = "the VLANs of this kernel are as they should be";
/// What the test needs of the other kernel.
const MACHINE: Machine<'static> = Machine {
    modules: &["bridge", "veth"],
    programs: &["sh", "ip", "bridge", "ping", env!("CARGO_BIN_EXE_weft-cni")],
    ..Machine::BARE
};

fn filters_vlans(node: &Node) -> bool {
    let add = ["link", "add", "probe", "type", "bridge", "vlan_filtering", "1"];
    let ip = || Command::new("ip").args(add).output();
    node.namespace.run(ip).unwrap().unwrap().status.success()
}

/// A bridge between whose ports the kernel forwards by itself, without a gateway.
fn plain(node: &Node, subnet: &str) -> Value {
    let mut config = node.config(&[subnet]);
    for option in ["portIsolation", "isGateway", "isDefaultGateway"] {
        config[option] = false.into();
    }
    config
}

fn answers(from: &Namespace, to: IpAddr) -> bool {
    let ping = || Command::new("ping").args(["-c1", "-W1", &to.to_string()]).output();
    from.run(ping).unwrap().unwrap().status.success()
}

/// The VLANs of a link as `bridge` prints them: number and flags.
fn vlans(node: &Node, link: &str) -> Value {
    let text = node.run("bridge", &["-j", "vlan", "show", "dev", link]);
    serde_json::from_str::<Value>(&text).unwrap()[0]["vlans"].take()
}

fn host_end(node: &Node, pod: &Pod) -> String {
    let peer = pod.link().unwrap().peer.unwrap();
    node.links().into_iter().find(|link| link.index == peer).unwrap().name
}

#[test]
fn a_kernel_without_them_is_told_with_the_option_and_its_value() {
    let node = Node::new();
    if filters_vlans(&node) {
        return vlans_are_networks_of_their_own();
    }
    for (option, value, words) in
        [("vlan", json!(5), "vlan 5"), ("vlanTrunk", json!([{"minID": 7, "maxID": 9}]), "vlanTrunk [(7, 9)]")]
    {
        for gateway in [false, true] {
            let mut config = plain(&node, "10.244.1.0/24");
            config["isGateway"] = gateway.into();
            config[option] = value.clone();
            let error = node.call("ADD", &node.pod("c1"), &config).unwrap_err();
            let msg =
                format!("option {words}: the kernel lacks VLAN filtering (CONFIG_BRIDGE_VLAN_FILTERING)");
            assert_eq!((&error["code"], &error["msg"]), (&json!(2), &json!(msg)));
            assert!(node.veths().is_empty() && node.reserved().is_empty());
        }
    }
}

#[test]
fn vlans_are_networks_of_their_own() {
    if !filters_vlans(&Node::new()) {
        return on_a_kernel_that_filters_vlans();
    }
    pods_of_one_vlan_reach_each_other_only();
    a_trunk_takes_tagged_frames_and_its_own();
    the_gateway_of_a_vlan_serves_its_pods_only();
    println!("{PASSED}");
}

fn pods_of_one_vlan_reach_each_other_only() {
    let node = Node::new();
    let in_vlan = |vlan: u16, preserve: bool| {
        let mut config = plain(&node, "10.244.1.0/24");
        config["vlan"] = vlan.into();
        config["preserveDefaultVlan"] = preserve.into();
        config
    };
    let [one, two, other, both] = ["c1", "c2", "c3", "c4"].map(|id| node.pod(id));
    node.add(&one, &in_vlan(5, false));
    let [second, third] =
        [(&two, 5), (&other, 6)].map(|(pod, vlan)| address(&node.add(pod, &in_vlan(vlan, false)), 0));
    assert!(answers(one.namespace(), second) && !answers(one.namespace(), third));
    let untagged = json!({"vlan": 5, "flags": ["PVID", "Egress Untagged"]});
    assert_eq!(vlans(&node, &host_end(&node, &one)), json!([untagged]));
    node.add(&both, &in_vlan(5, true));
    let default = json!({"vlan": 1, "flags": ["Egress Untagged"]});
    assert_eq!(vlans(&node, &host_end(&node, &both)), json!([default, untagged]));
}

fn a_trunk_takes_tagged_frames_and_its_own() {
    let node = Node::new();
    let mut config = plain(&node, "10.244.1.0/24");
    config["vlanTrunk"] = json!([{"minID": 200, "maxID": 202}, {"id": 300}]);
    let (trunk, both) = (node.pod("c1"), node.pod("c2"));
    node.add(&trunk, &config);
    let tagged = [200, 201, 202, 300].map(|vlan| json!({ "vlan": vlan }));
    let shown = |vlan: u16| {
        let mut shown = vec![json!({"vlan": vlan, "flags": ["PVID", "Egress Untagged"]})];
        shown.extend(tagged.clone());
        Value::from(shown)
    };
    assert_eq!(vlans(&node, &host_end(&node, &trunk)), shown(1));
    config["vlan"] = 100.into();
    node.add(&both, &config);
    assert_eq!(vlans(&node, &host_end(&node, &both)), shown(100));
}

fn the_gateway_of_a_vlan_serves_its_pods_only() {
    let node = Node::new();
    let in_vlan = |vlan: u16, subnet| {
        let mut config = plain(&node, subnet);
        config["name"] = format!("vlan{vlan}").into();
        config["vlan"] = vlan.into();
        config["isDefaultGateway"] = true.into();
        config
    };
    let [one, two] = ["c1", "c2"].map(|id| node.pod(id));
    let (mut first, mut second) = (in_vlan(5, "10.244.5.0/24"), in_vlan(6, "10.244.6.0/24"));
    first["prevResult"] = node.add(&one, &first);
    second["prevResult"] = node.add(&two, &second);
    let interfaces = first["prevResult"]["interfaces"].as_array().unwrap();
    let names: Vec<&str> = interfaces.iter().map(|interface| interface["name"].as_str().unwrap()).collect();
    assert_eq!((names[0], names[2], names[3]), ("cni0", "eth0", "cni0.5"));
    assert_eq!(first["prevResult"]["ips"][0]["interface"], 2);
    assert!(
        node.route()
            .addresses(Some(node.route().link("cni0").unwrap().index))
            .unwrap()
            .iter()
            .all(|address| !address.address.is_ipv4())
    );
    // Within the VLAN, from it to the other by the host, and from the host.
    let (own, other): (IpAddr, IpAddr) = ("10.244.5.1".parse().unwrap(), address(&second["prevResult"], 0));
    assert!(answers(one.namespace(), own) && answers(&node.namespace, address(&first["prevResult"], 0)));
    serve(two.namespace(), SocketAddr::new(other, 8080));
    assert_eq!(
        talk(one.namespace(), SocketAddr::new(other, 8080)).unwrap(),
        address(&first["prevResult"], 0)
    );
    // Another pod of the VLAN makes no second gateway, and CHECK knows both.
    let third = node.pod("c3");
    first.as_object_mut().unwrap().remove("prevResult");
    first["prevResult"] = node.add(&third, &first);
    assert_eq!(node.call("CHECK", &third, &first), Ok(Value::Null));
    assert_eq!(node.call("CHECK", &two, &second), Ok(Value::Null));
    let port = host_end(&node, &two);
    for (change, what) in [
        (["add", "vid", "1"], "is a member of VLAN 1"),
        (["del", "vid", "6"], "has no frames without a tag in VLAN 6"),
    ] {
        node.run("bridge", &[&["vlan", change[0], "dev", &port], &change[1..]].concat());
        let error = node.call("CHECK", &two, &second).unwrap_err();
        assert_eq!(error["msg"], format!("container c2: port {port} {what}"));
        node.run("bridge", &["vlan", "del", "dev", &port, "vid", "1"]);
    }
    for (pod, config) in [(&one, &first), (&two, &second), (&third, &first)] {
        node.del(pod, config);
    }
    let gateways = node.veths().into_iter().filter(|name| name.starts_with("cni0.")).count();
    assert_eq!((gateways, node.veths().len()), (2, 4), "as the bridge, the gateways stay");
}

/// Runs the test above once more.
fn on_a_kernel_that_filters_vlans() {
    let said = MACHINE.run(&format!("--exact {THIS} --nocapture"));
    assert!(said.contains(PASSED), "{said}");
}
