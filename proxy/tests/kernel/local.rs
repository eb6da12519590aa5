//! Whose traffic to a ClusterIP gets the node's address: the ways to tell that of pods.

use std::net::SocketAddr;

use weft_proxy::config::{Config, DetectLocal, ProxyMode};
use weft_proxy::sync::Outcome;
use weft_testkit::world::{World, tcp};
use weft_types::{Family, Node, Object, TrafficPolicy};

use super::{Cluster, EXTERNAL_V4, cluster_ip, external, is_dropped, on_nodes, service, slices};
use crate::of;

/// What pod 2 says of clients of its Service: those outside, pod 1 and itself.
fn sources(world: &World, family: Family) -> [String; 3] {
    let to = SocketAddr::new(cluster_ip(family), 80);
    [&world.outside, &world.pods[0], &world.pods[1]].map(|from| {
        let answer = tcp(from, to);
        answer.strip_prefix("2 ").unwrap_or_else(|| panic!("{answer}")).to_owned()
    })
}

/// The node's own addresses towards pod 2.
const NODE: [&str; 2] = ["10.244.2.1", "fd00:244:2::1"];

in_every_mode!(local_traffic_is_told_by_the_bridge_or_by_the_prefix_of_interfaces_that_pods_are_at);

fn local_traffic_is_told_by_the_bridge_or_by_the_prefix_of_interfaces_that_pods_are_at(mode: ProxyMode) {
    let world = World::new();
    world.serve(8080);
    // Both pods are at interfaces whose names begin so, and those outside are not.
    for (interface, pod_1) in [("pod*", ["10.244.1.2", "fd00:244:1::2"]), ("pod2", NODE)] {
        let config = Config { detect_local: DetectLocal::Interface(interface.into()), ..of(mode) };
        let mut cluster = Cluster::new(&world, config);
        cluster.put([service()].into_iter().chain(slices(&[2])));
        for (index, family) in Family::BOTH.into_iter().enumerate() {
            let expected = [NODE[index], pod_1[index], NODE[index]];
            assert_eq!(sources(&world, family), expected, "{interface}");
        }
        // The way past a Local policy is for pods alone, too.
        cluster.put([external(TrafficPolicy::Local), on_nodes(Family::V4, &[(2, "node2")])]);
        let to = SocketAddr::new(EXTERNAL_V4[0].parse().unwrap(), 80);
        assert!(is_dropped(&world.outside, to));
        assert_eq!(is_dropped(&world.pods[0], to), interface == "pod2");
        let rules = cluster.nft(&["-a", "list", "ruleset"]);
        cluster.restart();
        assert_eq!(cluster.nft(&["-a", "list", "ruleset"]), rules, "{interface}");
        world.node.run(super::clean_up).unwrap().unwrap();
    }
}

in_every_mode!(local_traffic_is_told_by_the_nodes_pod_networks_which_are_followed_live);

fn local_traffic_is_told_by_the_nodes_pod_networks_which_are_followed_live(mode: ProxyMode) {
    let world = World::new();
    world.serve(8080);
    let config = Config { detect_local: DetectLocal::NodeCidr, ..of(mode) };
    let mut cluster = Cluster::new(&world, config);
    cluster.put([service()].into_iter().chain(slices(&[2])));
    let unchanged = ["172.30.0.1", "10.244.1.2", NODE[0]];
    assert_eq!(sources(&world, Family::V4), unchanged, "no network is known yet");
    let with = |networks: &[&str]| {
        let addresses = ["172.30.0.11", "fd00:30::11"].map(|address| address.parse().unwrap()).to_vec();
        let pod_cidrs = networks.iter().map(|network| network.parse().unwrap()).collect();
        Object::Node(Node { name: "node1".into(), addresses, pod_cidrs, ..Node::default() })
    };
    assert_eq!(cluster.try_put([with(&["10.244.1.0/24"])]), Outcome::Full);
    assert_eq!(sources(&world, Family::V4), [NODE[0], "10.244.1.2", NODE[0]]);
    assert_eq!(sources(&world, Family::V6), ["fd00:30::1", "fd00:244:1::2", NODE[1]]);
    assert_eq!(cluster.try_put([with(&["10.244.2.0/24", "fd00:244:1::/64"])]), Outcome::Full);
    assert_eq!(sources(&world, Family::V4), [NODE[0]; 3]);
    assert_eq!(sources(&world, Family::V6), [NODE[1], "fd00:244:1::2", NODE[1]]);
    assert_eq!(cluster.try_put([with(&[])]), Outcome::Full);
    assert_eq!(sources(&world, Family::V4), unchanged);
}
