//! From ADD to DEL, and everything that a lease lives through in between.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use serde_json::{Value, json};
use weft_testkit::wait::eventually;

use crate::network::Network;

/// Of dnsmasq, whose leases last two minutes at least.
const SHORT: [&str; 2] = ["--dhcp-option-force=58,2s", "--dhcp-option-force=59,5s"];

fn address(result: &Value) -> String {
    result["ips"][0]["address"].as_str().unwrap().trim_end_matches("/24").to_owned()
}

#[test]
fn a_container_has_a_servers_address_from_add_to_del() {
    let network = Network::new();
    let routes = "--dhcp-option=121,0.0.0.0/0,10.7.0.9,10.8.0.0/16,10.7.0.8,10.9.0.0/16,0.0.0.0";
    let server = network.dnsmasq("10.7.0.1", &[routes]);
    let pod = network.pod("c1");
    let result = network.add(&pod);
    let leased = address(&result);
    assert!(pod.addresses().contains(&format!("inet {leased}/24")), "{}", pod.addresses());
    for route in ["default via 10.7.0.9", "10.8.0.0/16 via 10.7.0.8", "10.9.0.0/16 dev eth0"] {
        assert!(pod.routes().contains(route), "{route}: {}", pod.routes());
    }
    let lease = server.leases();
    // The client's identifier: its kind, 0, and the reference daemon's text.
    assert!(lease.contains(&format!("{leased} web 00:63:31:2f:6c:61:6e")), "{lease}");
    assert_eq!(network.files(), ["lan:c1:eth0"]);
    let file = network.path("leases/lan:c1:eth0");
    assert_eq!(fs::metadata(file).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(network.daemon().leases(), 1);
    // Of the IPAM plugin alone: Debian's macvlan does not know a route on the link again.
    let mut config = network.config();
    (config["type"], config["prevResult"]) = ("dhcp".into(), result);
    assert_eq!(network.call("CHECK", &pod, &config), Ok(Value::Null));
    assert_eq!(server.said("DHCPDISCOVER"), 1, "CHECK asks for no other");
    network.del(&pod);
    eventually("the server has the address back", || server.leases().is_empty());
    assert!(network.files().is_empty() && network.daemon().leases() == 0);
    network.del(&pod);
}

#[test]
fn the_servers_gateway_is_the_default_route_and_the_metric_is_the_configurations() {
    let network = Network::new();
    let server = network.dnsmasq("10.7.0.1", &[]);
    let pod = network.pod("c1");
    let mut config = network.config();
    config["ipam"]["provide"] = json!([{"option": "vendor-class-identifier", "value": "weft-pod"}]);
    config["ipam"]["request"] = json!([{"skipDefault": true}, {"option": "subnet-mask"}, {"option": "3"}]);
    let result = network.call("ADD", &pod, &config).unwrap();
    assert_eq!(result["routes"], json!([{"dst": "0.0.0.0/0", "gw": "10.7.0.1"}]));
    assert_eq!(result["ips"][0]["gateway"], "10.7.0.1");
    assert!(server.log().contains("vendor class: weft-pod"), "{}", server.log());
    assert!(server.log().contains("requested options: 1:netmask, 3:router\n"), "{}", server.log());
}

#[test]
fn a_lease_is_renewed_and_taken_over_by_another_server() {
    let network = Network::new();
    let server = network.dnsmasq("10.7.0.1", &SHORT);
    let pod = network.pod("c1");
    let leased = address(&network.add(&pod));
    eventually("it is renewed", || server.said("DHCPACK") >= 3);
    assert_eq!(server.said("DHCPDISCOVER"), 1);
    drop(server);
    let other = network.dnsmasq("10.7.0.2", &SHORT);
    eventually("any server is asked", || other.leases().contains(&leased));
    assert_eq!(other.said("DHCPDISCOVER"), 0, "{}", other.log());
    eventually("it is renewed there", || other.said("DHCPACK") >= 2);
    network.del(&pod);
    eventually("it has the address back", || other.leases().is_empty());
}

#[test]
fn busyboxs_server_with_leases_of_seconds_is_renewed_too() {
    let network = Network::new();
    let server = network.udhcpd(8);
    let pod = network.pod("c1");
    let leased = address(&network.add(&pod));
    eventually("it is renewed", || server.said(&format!("sending ACK to {leased}")) >= 3);
    assert_eq!(network.daemon().leases(), 1);
    network.del(&pod);
    assert!(network.files().is_empty());
}

#[test]
fn an_agent_that_starts_anew_goes_on_with_the_leases_of_the_one_before() {
    let mut network = Network::new();
    let server = network.dnsmasq("10.7.0.1", &[]);
    let (pod, mut other) = (network.pod("c1"), network.pod("c2"));
    let result = network.add(&pod);
    let leased = address(&result);
    network.add(&other);
    network.kill();
    assert_eq!(network.files(), ["lan:c1:eth0", "lan:c2:eth0"]);
    let acknowledged = server.said("DHCPACK");
    // A machine with a way to the server, as its own interface has an address.
    weft_testkit::namespace::sh(&network.host, "ip address add 10.7.0.200/24 dev eth0");
    other.vanish();
    network.start();
    eventually("the lease is renewed", || server.said("DHCPACK") > acknowledged);
    assert_eq!(server.said("DHCPDISCOVER"), 2, "of the two ADD: {}", server.log());
    eventually("the address of the other is given back", || server.leases().lines().count() == 1);
    assert_eq!(network.files(), ["lan:c1:eth0"]);
    let mut config = network.config();
    config["prevResult"] = result;
    assert_eq!(network.call("CHECK", &pod, &config), Ok(Value::Null));
    assert!(pod.addresses().contains(&leased));
    network.del(&pod);
    eventually("the server has the address back", || server.leases().is_empty());
}

#[test]
fn a_container_that_goes_without_del_gives_its_address_back() {
    let network = Network::new();
    let server = network.dnsmasq("10.7.0.1", &[]);
    let mut pod = network.pod("c1");
    network.add(&pod);
    weft_testkit::namespace::sh(&network.host, "ip address add 10.7.0.200/24 dev eth0");
    pod.vanish();
    eventually("it is noticed", || network.files().is_empty());
    eventually("the server is told", || server.leases().is_empty());
    eventually("it is forgotten", || network.daemon().leases() == 0);
}

#[test]
fn a_lease_that_no_server_prolongs_ends_and_the_interface_is_set_down() {
    let network = Network::new();
    let server = network.udhcpd(4);
    let pod = network.pod("c1");
    network.add(&pod);
    drop(server);
    eventually("it is told", || !network.daemon().problems().is_empty());
    let problems = network.daemon().problems();
    assert!(problems[0].contains("container c1: interface eth0 lost its DHCP lease"), "{problems:?}");
    let link = weft_testkit::namespace::sh(pod.namespace.as_ref().unwrap(), "ip -o link show dev eth0");
    assert!(!link.contains(",UP"), "{link}");
    let mut config = network.config();
    config["prevResult"] = json!({});
    let error = network.call("CHECK", &pod, &config).unwrap_err();
    assert!(error["msg"].as_str().is_some(), "{error}");
    network.del(&pod);
    assert!(network.daemon().problems().is_empty() && network.files().is_empty());
}

#[test]
fn silence_is_told_with_container_and_interface() {
    let mut network = Network::new();
    network.kill();
    network.patience = Duration::from_secs(2);
    network.start();
    let pod = network.pod("c1");
    let error = network.call("ADD", &pod, &network.config()).unwrap_err();
    let expected =
        "container c1: interface eth0: no DHCP server answered within 2 s; is there a server on its link";
    assert!(error["msg"].as_str().unwrap().contains(expected), "{error}");
    assert!(network.files().is_empty());
    network.del(&pod);
}
