//! `ipam.type: dhcp` on a bridge that has an uplink, with Debian's plugin and daemon `dhcp` and dnsmasq. (The
//! agent's daemon speaks the same: `dhcp/tests/kernel`.)

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};
use weft_testkit::namespace::{Namespace, bare_end, cable, end, machine, sh};
use weft_testkit::wait::eventually;

use crate::node::Node;

/// A program that ends with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn start(namespace: &Namespace, program: &str, arguments: &[String]) -> Running {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    Running(namespace.run(|| command.spawn()).unwrap().unwrap())
}

/// A node whose bridge leads to a network with a DHCP server.
struct Lan {
    node: Node,
    leases: PathBuf,
    socket: PathBuf,
    _network: Namespace,
    _programs: [Running; 2],
}

impl Lan {
    fn new() -> Lan {
        let (node, network) = (Node::new(), machine());
        cable(&bare_end(&node.namespace, "uplink"), &end(&network, "lan0", ["10.7.0.1/24"]));
        node.run(
            "sh",
            &["-c", "ip link add lan type bridge && ip link set lan up && ip link set uplink master lan"],
        );
        let (leases, socket) = (node.folder.path().join("leases"), node.folder.path().join("dhcp.sock"));
        let usual = "--keep-in-foreground --port=0 --conf-file=/dev/null --pid-file= --user=root --bind-interfaces \
                     --listen-address=10.7.0.1 --no-ping --dhcp-range=10.7.0.50,10.7.0.99,2m";
        let file = format!("--dhcp-leasefile={}", leases.display());
        let options: Vec<String> = usual.split_whitespace().map(str::to_owned).chain([file]).collect();
        let server = start(&network, "/usr/sbin/dnsmasq", &options);
        let options = ["daemon".to_owned(), "-socketpath".to_owned(), socket.display().to_string()];
        let daemon = start(&node.namespace, "/usr/lib/cni/dhcp", &options);
        eventually("server and daemon run", || leases.exists() && socket.exists());
        Lan { node, leases, socket, _network: network, _programs: [server, daemon] }
    }

    fn config(&self) -> Value {
        json!({
            "cniVersion": "1.0.0", "name": "lan", "type": "weft-cni", "bridge": "lan", "macspoofchk": true,
            "ipam": {"type": "dhcp", "daemonSocketPath": self.socket},
        })
    }

    fn held(&self) -> String {
        fs::read_to_string(&self.leases).unwrap()
    }
}

#[test]
fn a_container_on_a_bridge_with_an_uplink_has_an_address_of_the_networks_server() {
    let lan = Lan::new();
    let (pod, config) = (lan.node.pod("c1"), lan.config());
    let result = lan.node.add(&pod, &config);
    let leased = result["ips"][0]["address"].as_str().unwrap().trim_end_matches("/24").to_owned();
    assert!(lan.held().contains(&leased), "{}", lan.held());
    assert_eq!(
        (&result["ips"][0]["interface"], &result["ips"][0]["gateway"]),
        (&2.into(), &"10.7.0.1".into())
    );
    let mac = pod.link().unwrap().mac.unwrap().to_string();
    assert_eq!(
        (&result["interfaces"][2]["name"], &result["interfaces"][2]["mac"]),
        (&"eth0".into(), &mac.into())
    );
    assert_eq!(result["interfaces"][0]["name"], "lan");
    sh(pod.namespace(), "ping -c1 -W5 10.7.0.1");
    assert_eq!(pod.gateways(), ["10.7.0.1".parse::<std::net::IpAddr>().unwrap()]);
    let mut checked = config.clone();
    checked["prevResult"] = result;
    assert_eq!(lan.node.call("CHECK", &pod, &checked), Ok(Value::Null));
    lan.node.del(&pod, &config);
    eventually("the server has the address back", || lan.held().is_empty());
    assert_eq!(lan.node.veths().into_iter().collect::<Vec<_>>(), ["uplink"]);
    lan.node.del(&pod, &config);
}

#[test]
fn what_fails_after_the_container_is_connected_leaves_nothing() {
    let lan = Lan::new();
    let pod = lan.node.pod("c1");
    let mut config = lan.config();
    config["ipam"]["daemonSocketPath"] = "/nonexistent".into();
    let error = lan.node.call("ADD", &pod, &config).unwrap_err();
    assert!(error["msg"].as_str().unwrap().contains("error dialing DHCP daemon"), "{error}");
    assert!(pod.link().is_none());
    let mut config = lan.config();
    config["isGateway"] = true.into();
    let error = lan.node.call("ADD", &pod, &config).unwrap_err();
    let expected = "network lan: option isGateway: the DHCP server's network has a gateway of its own; leave it out with ipam.type dhcp";
    assert_eq!((&error["code"], &error["msg"]), (&7.into(), &expected.into()));
    assert_eq!(lan.node.veths().into_iter().collect::<Vec<_>>(), ["uplink"]);
}
