//! Topology hints: clients of this node are led to the endpoints that the cluster means for its node or zone.

use std::net::SocketAddr;

use weft_proxy::config::ProxyMode;
use weft_testkit::world::{World, tcp};
use weft_types::{Family, Hints, Node, Object, Service, TrafficPolicy};

use super::{Cluster, NODE_PORT, both_pods_answer, cluster_ip, on_nodes, service};
use crate::of;

const ZONES: [&str; 2] = ["north", "south"];

/// The own Node, in that zone.
fn node_in(zone: Option<&str>) -> Object {
    let addresses = ["172.30.0.11", "fd00:30::11"].map(|address| address.parse().unwrap()).to_vec();
    let zone = zone.map(str::to_owned);
    Object::Node(Node { name: "node1".into(), addresses, zone, ..Node::default() })
}

/// Both pods: the first is meant for the zone in the north and one node, the second for the south and
/// another.
fn meant_for(nodes: [&str; 2]) -> [Object; 2] {
    Family::BOTH.map(|family| {
        let Object::EndpointSlice(mut slice) = on_nodes(family, &[(1, "node2"), (2, "node3")]) else {
            panic!("no slice")
        };
        for ((endpoint, zone), node) in slice.endpoints.iter_mut().zip(ZONES).zip(nodes) {
            let nodes = Some(node).filter(|node| !node.is_empty()).map(str::to_owned);
            let hints = Hints { nodes: nodes.into_iter().collect(), zones: vec![zone.to_owned()] };
            endpoint.hints = Some(Box::new(hints));
        }
        Object::EndpointSlice(slice)
    })
}

fn only_pod_answers(world: &World, pod: &str) {
    let node_port = SocketAddr::new("172.30.0.11".parse().unwrap(), NODE_PORT);
    let cluster_ips = Family::BOTH.map(|family| SocketAddr::new(cluster_ip(family), 80));
    for to in cluster_ips.into_iter().chain([node_port]) {
        // Evenly spread, none of so many would miss the other pod if it were among the choices.
        for _ in 0..20 {
            assert!(tcp(&world.outside, to).starts_with(pod), "{to}");
        }
    }
}

in_every_mode!(topology_hints_lead_to_the_own_node_or_zone_and_a_change_of_the_nodes_zone_is_followed_live);

fn topology_hints_lead_to_the_own_node_or_zone_and_a_change_of_the_nodes_zone_is_followed_live(
    mode: ProxyMode,
) {
    let world = World::new();
    world.serve(8080);
    let mut cluster = Cluster::new(&world, of(mode));
    let everywhere = || {
        let sources = ["172.30.0.1", "fd00:30::1"];
        for family in Family::BOTH {
            both_pods_answer(|| tcp(&world.outside, SocketAddr::new(cluster_ip(family), 80)), &sources);
        }
    };
    cluster.put([service()].into_iter().chain(meant_for(["node2", "node3"])));
    everywhere();
    cluster.put([node_in(Some("north"))]);
    only_pod_answers(&world, "1");
    cluster.put([node_in(Some("south"))]);
    only_pod_answers(&world, "2");
    cluster.put([node_in(Some("west"))]);
    everywhere();
    cluster.put([node_in(Some("south"))]);
    cluster.put(meant_for(["node1", "node3"]));
    only_pod_answers(&world, "1");
    cluster.put(meant_for(["node1", ""]));
    only_pod_answers(&world, "2");
    cluster.restart();
    only_pod_answers(&world, "2");
}

in_every_mode!(a_local_policy_takes_all_endpoints_of_this_node_whatever_their_hints);

fn a_local_policy_takes_all_endpoints_of_this_node_whatever_their_hints(mode: ProxyMode) {
    let world = World::new();
    world.serve(8080);
    let mut cluster = Cluster::new(&world, of(mode));
    let Object::Service(service) = service() else { panic!("no Service") };
    let service = Service { internal_policy: TrafficPolicy::Local, ..service };
    let slices = meant_for(["node1", "node2"]).map(|object| {
        let Object::EndpointSlice(mut slice) = object else { panic!("no slice") };
        slice.endpoints.iter_mut().for_each(|endpoint| endpoint.node = Some("node1".into()));
        Object::EndpointSlice(slice)
    });
    cluster.put([Object::Service(service), node_in(Some("north"))].into_iter().chain(slices));
    both_pods_answer(|| tcp(&world.outside, SocketAddr::new(cluster_ip(Family::V4), 80)), &["172.30.0.1"]);
}
