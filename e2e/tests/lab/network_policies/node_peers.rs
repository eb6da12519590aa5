//! CNP{Admin,Baseline}TierEgressNodePeers of network-policy-api's conformance tests: what pods reach of nodes'
//! addresses, where pods on their host's network answer. SCTP is in the policies' own tests, by sockets of
//! another kernel.

use std::net::SocketAddr;

use serde_json::{Value, json};

use super::block;
use crate::api::collection;
use crate::case::{Case, Peer, echo};
use crate::lab::{Lab, Outcome};
use crate::probe::{BOTH, Via, dropped, served};

/// Ports of the nodes, each with a server for TCP and UDP.
const PORTS: [u16; 3] = [8711, 8712, 8713];
const NAMESPACE: &str = "policy-node-peers";

/// A ClusterNetworkPolicy, deleted when this is dropped: it goes with no namespace.
struct ClusterPolicy<'a> {
    case: &'a Case<'a>,
    name: &'static str,
}

impl<'a> ClusterPolicy<'a> {
    fn new(
        case: &'a Case<'a>,
        name: &'static str,
        tier: &str,
        egress: Value,
    ) -> Result<ClusterPolicy<'a>, String> {
        let pods = json!({"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": NAMESPACE}},
            "podSelector": {"matchLabels": {"app": "client"}}});
        let spec = json!({"tier": tier, "priority": 75, "subject": {"pods": pods}, "egress": egress});
        let object = json!({"apiVersion": "policy.networking.k8s.io/v1alpha2", "kind": "ClusterNetworkPolicy",
            "metadata": {"name": name}, "spec": spec});
        case.api.create(&collection("", "clusternetworkpolicies"), &object)?;
        Ok(ClusterPolicy { case, name })
    }
}

impl Drop for ClusterPolicy<'_> {
    fn drop(&mut self) {
        let path = format!("{}/{}", collection("", "clusternetworkpolicies"), self.name);
        if let Err(error) = self.case.api.delete(&path) {
            eprintln!("lab tests: {error}");
        }
    }
}

/// Nodes with a label that all of them have, at a port or at all.
fn to_nodes(action: &str, labels: Value, protocols: Value) -> Value {
    let mut rule = json!({"action": action, "to": [{"nodes": {"matchLabels": labels}}]});
    if !protocols.is_null() {
        rule["protocols"] = protocols;
    }
    rule
}

/// All nodes and the rest of the world.
fn nothing_else() -> Value {
    let mut rule = to_nodes("Deny", json!({"kubernetes.io/os": "linux"}), Value::Null);
    let all = json!({"networks": ["0.0.0.0/0", "::/0"]});
    rule["to"].as_array_mut().expect("a list just above").push(all);
    rule
}

pub(crate) fn egress_to_nodes(lab: &Lab) -> Outcome {
    let case = Case::new(lab, NAMESPACE)?;
    case.run(PORTS.map(|port| {
        echo(&format!("server-{port}")).port(port).host_network().udp_at(&lab.node_at(2, port)).on("node2")
    }))?;
    let [client] = case.run([echo("client").app("client").on("node1")])?;
    let linux = || json!({"kubernetes.io/os": "linux"});
    let at = |protocol: &str, port: Value| json!([{protocol: {"destinationPort": port}}]);
    let all = Nodes { lab, client: &client };
    all.reached([[true; 2]; 3])?;

    let rules = [
        to_nodes("Accept", linux(), at("tcp", json!({"number": PORTS[0]}))),
        to_nodes("Pass", linux(), at("udp", json!({"number": PORTS[2]}))),
        nothing_else(),
    ];
    let admin = ClusterPolicy::new(&case, "node-and-cidr-as-peers-example", "Admin", json!(rules))?;
    all.reached([[true, false], [false, false], [false, true]])?;
    drop(admin);

    let range = json!({"range": {"start": PORTS[0], "end": PORTS[1]}});
    let rules = [to_nodes("Accept", linux(), at("tcp", range)), nothing_else()];
    let baseline = ClusterPolicy::new(&case, "node-peers-default", "Baseline", json!(rules))?;
    all.reached([[true, false], [true, false], [false, false]])?;
    drop(baseline);

    // Nodes by a label that only one of them has.
    let third = json!({"kubernetes.io/hostname": "node3"});
    let rules = [to_nodes("Accept", third, Value::Null), nothing_else()];
    let _other = ClusterPolicy::new(&case, "node-and-cidr-as-peers-example", "Admin", json!(rules))?;
    all.reached([[false; 2]; 3])
}

/// A pod that may not leave reaches its own node all the same, and another one by a rule for its address.
pub(crate) fn egress_to_the_own_node_and_to_others(lab: &Lab) -> Outcome {
    let case = Case::new(lab, "policy-to-nodes")?;
    let on_host = |number: u8, port: u16| {
        let name = format!("on-node{number}");
        echo(&name).port(port).host_network().udp_at(&lab.node_at(number, port)).on(&format!("node{number}"))
    };
    case.run([on_host(1, 8714), on_host(2, 8715)])?;
    let [client] = case.run([echo("client").app("client").on("node1")])?;
    let reached = |number: u8, port: u16, is_reached: bool| {
        let servers = lab.node_at(number, port);
        let name = format!("node{number}");
        servers.iter().flat_map(|&server| BOTH.map(|via| (via, server))).try_for_each(|(via, server)| {
            match is_reached {
                true => served(&client.netns, via, server, &[&name]),
                false => dropped(&client.netns, via, server),
            }
        })
    };
    let spec = |egress: Value| json!({"podSelector": {"matchLabels": {"app": "client"}}, "policyTypes": ["Egress"], "egress": egress});
    reached(2, 8715, true)?;
    case.create("networkpolicies", &json!({"metadata": {"name": "client"}, "spec": spec(json!([]))}))?;
    reached(2, 8715, false)?;
    reached(1, 8714, true)?;
    let node: Vec<Value> = lab.node_at(2, 0).iter().map(|node| block(node.ip())).collect();
    case.patch("networkpolicies", "client", &json!({"spec": spec(json!([{"to": node}]))}))?;
    reached(2, 8715, true)
}

/// The servers on a node, seen from a pod of another one.
struct Nodes<'a> {
    lab: &'a Lab,
    client: &'a Peer,
}

impl Nodes<'_> {
    /// Waits until each port is reached by TCP and UDP as given.
    fn reached(&self, expected: [[bool; 2]; 3]) -> Outcome {
        for (place, [tcp, udp]) in expected.into_iter().enumerate() {
            for server in self.lab.node_at(2, PORTS[place]) {
                for (via, is_reached) in [(Via::Http, tcp), (Via::Udp, udp)] {
                    self.one(via, server, is_reached)?;
                }
            }
        }
        Ok(())
    }

    fn one(&self, via: Via, server: SocketAddr, is_reached: bool) -> Outcome {
        match is_reached {
            // A pod on its host's network has the host's name.
            true => served(&self.client.netns, via, server, &["node2"]),
            false => dropped(&self.client.netns, via, server),
        }
    }
}
