//! Clients are refused at once, however many there were before: TCP by a reset, which no limit of ICMP
//! messages holds back.

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use weft_netlink::netns::Namespace;
use weft_proxy::config::{Config, ProxyMode};
use weft_testkit::program::run;
use weft_testkit::world::{Connection, World, is_refused, pod_address, tcp, udp};
use weft_types::{Family, TrafficPolicy};

use super::{Cluster, EXTERNAL_V4, EXTERNAL_V6, NODE_PORT, cluster_ip, external, service, slices};
use crate::of;

/// Less than a client waits before it sends its first packet again.
const AT_ONCE: Duration = Duration::from_millis(900);

fn at(address: &str, port: u16) -> SocketAddr {
    SocketAddr::new(address.parse().unwrap(), port)
}

#[test]
fn forty_connections_in_a_row_are_refused_without_a_wait_in_both_families() {
    let world = World::new();
    let mut cluster = Cluster::new(&world, Config::default());
    cluster.put([service()]);
    for (family, node) in [(Family::V4, "172.30.0.11"), (Family::V6, "fd00:30::11")] {
        let ip = cluster_ip(family);
        for to in [SocketAddr::new(ip, 80), SocketAddr::new(ip, 81), at(node, NODE_PORT)] {
            for from in [&world.outside, &world.pods[0], &world.node] {
                for count in 1..=40 {
                    let connection = Connection::open_within(from, to, AT_ONCE);
                    assert!(is_refused(connection), "connection {count} to {to}");
                }
            }
        }
    }
    let flows = world.node.run(|| run("conntrack", &["-L", "-p", "tcp"])).unwrap();
    assert!(!flows.contains("10.96.0.80"), "what was refused leaves no entry behind: {flows}");
}

/// Asks an address by ICMP, and returns what the program says.
fn ping(from: &Namespace, to: IpAddr) -> String {
    let ask = || std::process::Command::new("ping").args(["-c1", "-W5", &to.to_string()]).output().unwrap();
    String::from_utf8(from.run(ask).unwrap().stdout).unwrap()
}

/// A world in which the machine outside passes on what is not for it, as a router does, and has the node as
/// its next hop to the external addresses.
fn routed() -> World {
    let world = World::new();
    let forward = || {
        for path in ["ipv4/ip_forward", "ipv6/conf/all/forwarding"] {
            std::fs::write(format!("/proc/sys/net/{path}"), "1").unwrap();
        }
    };
    world.outside.run(forward).unwrap();
    world
}

#[test]
fn an_external_or_load_balancers_address_refuses_ports_that_no_service_has_and_pings_instead_of_bouncing_them()
 {
    let world = routed();
    world.serve(8080);
    let mut cluster = Cluster::new(&world, Config::default());
    cluster.put([external(TrafficPolicy::Cluster)].into_iter().chain(slices(&[1])));
    for address in [EXTERNAL_V4, EXTERNAL_V6].concat() {
        // What a pod sends comes back from the router, and ends then.
        for (from, who) in [(&world.outside, "outside"), (&world.pods[1], "a pod")] {
            assert!(tcp(from, at(address, 80)).starts_with("1 "), "{address}");
            assert!(is_refused(Connection::open(from, at(address, 81))), "TCP {address} from {who}");
            let answer = udp(from, at(address, 81)).map_err(|error| error.kind());
            assert_eq!(answer, Err(ErrorKind::ConnectionRefused), "UDP {address} from {who}");
        }
        let answer = ping(&world.outside, address.parse().unwrap());
        assert!(answer.to_lowercase().contains("port unreachable"), "{answer}");
    }
    let rules = cluster.nft(&["-a", "list", "ruleset"]);
    cluster.restart();
    assert_eq!(cluster.nft(&["-a", "list", "ruleset"]), rules);
}

// In the mode ipvs the node has external addresses, with all their ports.
in_modes_of_rules!(an_external_address_that_is_the_nodes_or_a_pods_or_another_machines_keeps_its_other_ports);

fn an_external_address_that_is_the_nodes_or_a_pods_or_another_machines_keeps_its_other_ports(
    mode: ProxyMode,
) {
    let world = routed();
    world.serve(8080);
    world.serve(22);
    let mut cluster = Cluster::new(&world, of(mode));
    let weft_types::Object::Service(service) = external(TrafficPolicy::Cluster) else { panic!("no Service") };
    let listener = |namespace: &Namespace| namespace.run(|| std::net::TcpListener::bind(":::23").unwrap());
    let _listeners = [&world.node, &world.outside].map(|namespace| listener(namespace).unwrap());
    world.outside.run(|| run("ip", &["address", "add", "192.0.2.1/32", "dev", "lo"])).unwrap();
    let pod = |family| pod_address(family, 1);
    let own = ["172.30.0.11", "fd00:30::11", "192.0.2.1"].map(|address| address.parse().unwrap());
    let external_ips = [own.to_vec(), Family::BOTH.map(pod).to_vec()].concat();
    let service = weft_types::Service { external_ips, ..service };
    cluster.put([weft_types::Object::Service(service)].into_iter().chain(slices(&[1])));
    for family in Family::BOTH {
        for from in [&world.outside, &world.pods[1], &world.node] {
            assert!(tcp(from, SocketAddr::new(pod(family), 22)).starts_with("1 "));
        }
    }
    for node in ["172.30.0.11", "fd00:30::11"] {
        for from in [&world.outside, &world.pods[1], &world.node] {
            assert!(Connection::open(from, at(node, 23)).is_ok(), "{node}");
        }
    }
    for from in [&world.pods[1], &world.node] {
        assert!(Connection::open(from, at("192.0.2.1", 23)).is_ok(), "a machine behind the node's router");
    }
}
