//! Options of the bridge that no other test is about, each with what a user notices of it.

use std::net::{IpAddr, SocketAddr};
use std::process::Command;

use serde_json::{Value, json};
use weft_netlink::netns::Namespace;
use weft_netlink::rtnl::{DadState, LinkChange, Mac};
use weft_testkit::namespace::{advertise_router, bare_end, cable};
use weft_testkit::wait::eventually;

use crate::node::{Node, Pod, address, serve, talk};

/// A bridge between whose ports the kernel forwards by itself.
fn plain(node: &Node, option: &str) -> Value {
    let mut config = node.config(&["10.244.1.0/24"]);
    config["portIsolation"] = false.into();
    config[option] = true.into();
    config
}

/// Whether an answer comes within a second.
fn answers(from: &Namespace, to: IpAddr) -> bool {
    let ping = || Command::new("ping").args(["-c1", "-W1", &to.to_string()]).output();
    from.run(ping).unwrap().unwrap().status.success()
}

fn set_mac(pod: &Pod, mac: Mac) {
    let (mut route, link) = (pod.route(), pod.link().unwrap());
    route.change_link(link.index, &LinkChange { mac: Some(mac), ..LinkChange::default() }).unwrap();
}

#[test]
fn with_macspoofchk_a_pod_is_heard_under_its_own_ethernet_address_only() {
    let node = Node::new();
    let gateway: IpAddr = "10.244.1.1".parse().unwrap();
    let (pod, neighbour, config) = (node.pod("c1"), node.pod("c2"), plain(&node, "macspoofchk"));
    let (result, other) = (node.add(&pod, &config), node.add(&neighbour, &config));
    let server = SocketAddr::new(address(&other, 0), 8080);
    serve(neighbour.namespace(), server);
    assert_eq!(talk(pod.namespace(), server).unwrap(), address(&result, 0));
    let (own, others) = [&pod, &neighbour].map(|pod| pod.link().unwrap().mac.unwrap()).into();
    for foreign in [Mac([2, 0, 0, 0, 0, 9]), others] {
        set_mac(&pod, foreign);
        assert!(!answers(pod.namespace(), gateway), "as {foreign}");
        assert!(answers(&node.namespace, address(&other, 0)), "nobody else's frames go astray");
    }
    set_mac(&pod, own);
    assert!(answers(pod.namespace(), gateway));
    // Without it the same passes.
    let (free, config) = (node.pod("c3"), plain(&node, "hairpinMode"));
    node.add(&free, &config);
    set_mac(&free, Mac([2, 0, 0, 0, 0, 9]));
    assert!(answers(free.namespace(), gateway));
}

#[test]
fn with_macspoofchk_a_pod_without_an_ip_address_has_an_ethernet_address_too() {
    let node = Node::new();
    let (pod, mut config) = (node.pod("c1"), plain(&node, "macspoofchk"));
    config.as_object_mut().unwrap().remove("ipam");
    config["prevResult"] = node.add(&pod, &config);
    let mac = pod.link().unwrap().mac.unwrap().to_string();
    let near = node.veths().into_iter().next().unwrap();
    let pinned = node.run("bridge", &["fdb", "show", "dev", &near]);
    assert!(pinned.contains(&format!("{mac} sticky master cni0 static")), "{mac}: {pinned}");
    assert_eq!(node.call("CHECK", &pod, &config), Ok(Value::Null));
    node.run("bridge", &["link", "set", "dev", &near, "locked", "off"]);
    let msg = format!("container c1: {near} accepts frames from any MAC address");
    assert_eq!(node.call("CHECK", &pod, &config).unwrap_err()["msg"], msg);
    node.del(&pod, &config);
    assert!(!node.run("bridge", &["fdb", "show", "br", "cni0"]).contains(&mac));
}

#[test]
fn with_enabledad_an_address_that_a_neighbour_has_is_refused() {
    let node = Node::new();
    let (first, second, mut config) = (node.pod("c1"), node.pod("c2"), plain(&node, "enabledad"));
    config["cniVersion"] = "1.0.0".into();
    config["isGateway"] = false.into();
    config["isDefaultGateway"] = false.into();
    config["ipam"] = json!({"type": "static", "addresses": [{"address": "fd00:9::9/64"}]});
    config["prevResult"] = node.add(&first, &config);
    let link = first.link().unwrap().index;
    assert_eq!(first.route().dad_state(link).unwrap(), DadState::Done, "ADD has waited");
    assert_eq!(node.call("CHECK", &first, &config), Ok(Value::Null));
    config.as_object_mut().unwrap().remove("prevResult");
    // Or its link-local address would be the first's too: both follow from the address.
    config["runtimeConfig"]["mac"] = "02:00:00:00:00:07".into();
    let error = node.call("ADD", &second, &config).unwrap_err();
    let msg = "container c2: address fd00:9::9/64 of eth0 is another's on the link";
    assert_eq!((&error["code"], &error["msg"]), (&json!(11), &json!(msg)));
    assert_eq!((second.link(), node.veths().len()), (None, 1));
}

#[test]
fn with_disable_container_interface_it_stays_down_and_has_no_address() {
    let node = Node::new();
    let (pod, mut config) = (node.pod("c1"), plain(&node, "disableContainerInterface"));
    let error = node.call("ADD", &pod, &config).unwrap_err();
    assert_eq!(error["code"], 7, "{error}");
    assert!(node.reserved().is_empty() && node.veths().is_empty());
    config.as_object_mut().unwrap().remove("ipam");
    config["prevResult"] = node.add(&pod, &config);
    assert!(!pod.link().unwrap().up);
    assert_eq!(node.call("CHECK", &pod, &config), Ok(Value::Null));
    node.del(&pod, &config);
    assert_eq!(pod.link(), None);
}

#[test]
fn with_promisc_mode_the_bridge_receives_all_frames() {
    let node = Node::new();
    node.add(&node.pod("c1"), &plain(&node, "promiscMode"));
    assert!(node.run("ip", &["link", "show", "cni0"]).contains(",PROMISC,"));
}

#[test]
fn a_default_route_of_the_host_that_a_router_advertised_stays() {
    let (node, router) = (Node::new(), Node::new());
    node.run("sysctl", &["-qw", "net.ipv6.conf.all.forwarding=0"]);
    router.run("sysctl", &["-qw", "net.ipv6.conf.default.accept_dad=0"]);
    cable(&bare_end(&node.namespace, "uplink"), &bare_end(&router.namespace, "wire"));
    let has_route = || node.run("ip", &["-6", "route", "show", "default"]).contains("proto ra");
    eventually("a router is heard", || {
        advertise_router(&router.namespace, "wire");
        has_route()
    });
    node.add(&node.pod("c1"), &node.config(&["10.244.1.0/24", "fd00:1::/64"]));
    assert_eq!(node.run("cat", &["/proc/sys/net/ipv6/conf/all/forwarding"]), "1\n");
    assert!(has_route(), "{}", node.run("ip", &["-6", "route"]));
}
