//! Two agents on one link, on which what comes from pods' addresses is dropped at first: through the encrypted
//! tunnel, and then directly. Policies and Services hold on both ways. This runs in the virtual machine.

use std::net::{IpAddr, SocketAddr, TcpListener};
use std::time::Duration;

use serde_json::{Value, json};
use weft_netlink::netns::Namespace;
use weft_testkit::namespace::{cable, end, machine, route_by, sh, sh_output};
use weft_testkit::services;
use weft_testkit::wait::eventually;
use weft_testkit::world::Connection;

use crate::daemon::{KEY, NODES, Node, node};

const PODS: &str = "/api/v1/pods";
const NAMESPACES: &str = "/api/v1/namespaces";
const POLICIES: &str = "/apis/networking.k8s.io/v1/networkpolicies";
const CLUSTER_IP: &str = "10.96.0.80";
/// What passes does so at once, even here; what is dropped is silent for ever.
const SILENCE: Duration = Duration::from_millis(1500);

/// Two nodes, each with a pod.
pub(crate) struct Pair {
    pub(crate) nodes: [Node; 2],
    pub(crate) pods: [Namespace; 2],
}

impl Pair {
    pub(crate) fn new() -> Pair {
        let machines = [machine(), machine()];
        let uplink = |number: u8| {
            end(&machines[usize::from(number) - 1], "uplink", [format!("172.30.0.1{number}/24")])
        };
        cable(&uplink(1), &uplink(2));
        let pods = [1, 2].map(|number: usize| {
            let pod = machine();
            let address = |host: u8| [format!("10.244.{number}.{host}/24")];
            cable(&end(&machines[number - 1], "pod", address(1)), &end(&pod, "eth0", address(2)));
            route_by(&pod, [format!("10.244.{number}.1")]);
            pod
        });
        let mut numbers = 1..;
        let nodes = machines.map(|machine| Node::new(numbers.next().unwrap(), machine));
        Pair { nodes, pods }
    }

    fn put(&self, path: &str, object: &Value) {
        self.nodes.iter().for_each(|node| node.server.put(path, object.clone()));
    }

    /// As if both had the same API server: each hears what the other one's Node says.
    fn tell_keys(&self) {
        for (node, other) in [(0, 1), (1, 0)].map(|(node, other)| (&self.nodes[node], &self.nodes[other])) {
            node.until("its key", |node| node.said(KEY).is_some());
            other.server.put(NODES, node.object());
        }
    }

    fn until_by(&self, device: &str) {
        for (node, pod) in self.nodes.iter().zip(["10.244.2.2", "10.244.1.2"]) {
            node.until(&format!("the way to {pod} by {device}"), |node| {
                // Until there is one, the kernel refuses to tell.
                let route = sh_output(&node.namespace, &format!("ip route get {pod}")).stdout;
                String::from_utf8_lossy(&route).contains(&format!("dev {device} "))
            });
        }
    }

    /// Whether the pod of node 1 reaches one of node 2, or a Service, at that port.
    fn reaches(&self, address: &str, port: u16) -> bool {
        let to = SocketAddr::new(address.parse().unwrap(), port);
        Connection::open_within(&self.pods[0], to, SILENCE).is_ok()
    }

    /// What the policy allows passes, at the pod's own address and at the Service's, and nothing else.
    fn assert_policy_holds(&self) {
        for address in ["10.244.2.2", CLUSTER_IP] {
            assert!(self.reaches(address, 80), "{address}");
            assert!(!self.reaches(address, 81), "{address}");
        }
    }
}

fn pod(name: &str, number: u8) -> Value {
    let address = format!("10.244.{number}.2");
    json!({
        "metadata": {"name": name, "namespace": "shop", "uid": name, "labels": {"app": name}},
        "spec": {"nodeName": format!("node{number}")},
        "status": {"phase": "Running", "podIPs": [{"ip": address}]},
    })
}

fn policy() -> Value {
    let from = json!([{"podSelector": {"matchLabels": {"app": "client"}}}]);
    json!({
        "metadata": {"name": "web", "namespace": "shop"},
        "spec": {
            "podSelector": {"matchLabels": {"app": "web"}},
            "ingress": [{"from": from, "ports": [{"protocol": "TCP", "port": 80}]}],
        },
    })
}

#[test]
#[ignore = "runs in the virtual machine"]
fn policies_and_services_hold_through_the_encrypted_tunnel_and_on_the_direct_path() {
    let mut pair = Pair::new();
    // As a cloud's network does, which knows the addresses of nodes only.
    for node in &pair.nodes {
        let rules = "ip rule add pref 10 lookup local && ip rule del pref 0 && ip rule add pref 5 from 10.244.0.0/16 iif uplink blackhole";
        sh(&node.namespace, rules);
    }
    let listen = |port| {
        let any = SocketAddr::new(IpAddr::from([0; 4]), port);
        pair.pods[1].run(|| TcpListener::bind(any)).unwrap().unwrap()
    };
    let listeners = [listen(80), listen(81)];
    (1..=2).for_each(|number| pair.put(NODES, &node(number, None)));
    pair.put(NAMESPACES, &json!({"metadata": {"name": "shop"}}));
    for (name, number) in [("client", 1), ("web", 2)] {
        pair.put(PODS, &pod(name, number));
    }
    for node in &mut pair.nodes {
        node.flags = vec!["--tunnel=wireguard"];
        node.start();
    }
    pair.tell_keys();
    pair.until_by("weft-wg");
    let ports = [80, 81];
    services::lead(&pair.nodes[0].namespace, CLUSTER_IP, &ports, "10.244.2.2");
    eventually("all passes without a policy", || pair.reaches(CLUSTER_IP, 81));
    let seen = listeners[1].accept().unwrap().1;
    assert_eq!(seen.ip(), IpAddr::from([10, 244, 1, 2]), "a pod is seen under its own address");
    let sent = |pair: &Pair| pair.nodes[0].device().peers[0].sent;
    assert!(sent(&pair) > 0);

    pair.put(POLICIES, &policy());
    eventually("the policy is in force", || !pair.reaches("10.244.2.2", 81));
    pair.assert_policy_holds();

    pair.nodes.iter().for_each(|node| drop(sh(&node.namespace, "ip rule del pref 5")));
    pair.until_by("uplink");
    let before = sent(&pair);
    pair.assert_policy_holds();
    assert_eq!(sent(&pair), before, "nothing goes through the tunnel any more");
}
