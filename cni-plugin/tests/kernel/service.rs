//! Services between the pods of one bridge: what is DNATed on the way there must come back through the host,
//! with br_netfilter and without.

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use serde_json::Value;

use crate::node::{Node, Pod, address, serve, talk};

/// A service address that leads to `backend`, with masquerade only for a pod that reaches itself, in nft's
/// words.
fn add_service(node: &Node, family: &str, service: SocketAddr, backend: SocketAddr) {
    let (from, to) = (service.ip(), backend.ip());
    let port = service.port();
    node.run(
        "nft",
        &[&format!(
            "table {family} test {{
            chain pre {{ type nat hook prerouting priority dstnat;
                {family} daddr {from} tcp dport {port} dnat to {backend}; }}
            chain post {{ type nat hook postrouting priority srcnat;
                {family} saddr {to} {family} daddr {to} masquerade; }}
        }}"
        )],
    );
}

struct Cluster {
    node: Node,
    client: Pod,
    backend: Pod,
    results: [Value; 2],
}

/// Two pods, and a service of each family that the second is behind.
fn cluster(isolated: bool, bridge_netfilter: &str) -> Cluster {
    let node = Node::new();
    for family in ["iptables", "ip6tables"] {
        let setting = format!("/proc/sys/net/bridge/bridge-nf-call-{family}");
        if Path::new(&setting).exists() {
            node.namespace.run(|| fs::write(&setting, bridge_netfilter)).unwrap().unwrap();
        }
    }
    let mut config = node.config(&["10.244.1.0/24", "fd00:1::/64"]);
    config["portIsolation"] = isolated.into();
    let (client, backend) = (node.pod("c1"), node.pod("c2"));
    let results = [node.add(&client, &config), node.add(&backend, &config)];
    for (place, family, service) in services() {
        let target = SocketAddr::new(address(&results[1], place), 8080);
        serve(backend.namespace(), target);
        add_service(&node, family, service, target);
    }
    Cluster { node, client, backend, results }
}

fn services() -> [(usize, &'static str, SocketAddr); 2] {
    let at = |text: &str| SocketAddr::new(text.parse::<IpAddr>().unwrap(), 80);
    [(0, "ip", at("10.96.0.1")), (1, "ip6", at("fd96::1"))]
}

fn a_pod_reaches_its_neighbour(bridge_netfilter: &str) {
    let cluster = cluster(true, bridge_netfilter);
    for (place, family, service) in services() {
        let seen =
            talk(cluster.client.namespace(), service).unwrap_or_else(|error| panic!("{family}: {error}"));
        assert_eq!(seen, address(&cluster.results[0], place), "under its own address");
    }
    // Nobody is told of a shorter way that leads around the host.
    let counters = cluster.node.run("cat", &["/proc/net/snmp"]);
    let icmp: Vec<&str> = counters.lines().filter(|line| line.starts_with("Icmp:")).collect();
    let column = icmp[0].split_whitespace().position(|name| name == "OutRedirects").unwrap();
    assert_eq!(icmp[1].split_whitespace().nth(column), Some("0"));
}

fn a_pod_reaches_itself(bridge_netfilter: &str) {
    let cluster = cluster(true, bridge_netfilter);
    for (place, family, service) in services() {
        let seen =
            talk(cluster.backend.namespace(), service).unwrap_or_else(|error| panic!("{family}: {error}"));
        assert_ne!(seen, address(&cluster.results[1], place), "{family}: masqueraded");
    }
}

#[test]
fn through_a_service_without_bridge_netfilter() {
    a_pod_reaches_its_neighbour("0");
    a_pod_reaches_itself("0");
}

/// The same where the module is loaded, as Docker has it. Where it is not, nothing can be switched on.
#[test]
fn through_a_service_with_bridge_netfilter() {
    a_pod_reaches_its_neighbour("1");
    a_pod_reaches_itself("1");
}

#[test]
fn without_bridge_netfilter_nothing_crosses_the_bridge_around_the_host() {
    let cluster = cluster(true, "0");
    let ports = cluster.node.links().into_iter().filter(|link| link.kind.as_deref() == Some("veth"));
    for port in ports {
        let settings = cluster.node.route().bridge_port(port.index).unwrap().unwrap();
        assert!(settings.isolated, "{}", port.name);
    }
    cluster.node.run("nft", &["add table ip fence; add chain ip fence forward { type filter hook forward priority 0; policy drop; }"]);
    let backend = SocketAddr::new(address(&cluster.results[1], 0), 8080);
    assert!(
        talk(cluster.client.namespace(), backend).is_err(),
        "a policy on the host holds between its pods"
    );
}

/// Why the agent's configuration isolates the ports: on a plain bridge the answer goes around the host and is
/// nobody's.
#[test]
fn on_a_plain_bridge_the_answer_of_a_neighbour_gets_lost() {
    let cluster = cluster(false, "0");
    let (_, _, service) = services()[0];
    assert!(talk(cluster.client.namespace(), service).is_err());
}
