//! Traffic policies: whose endpoints clients are led to, and whose address those see.

use std::net::SocketAddr;

use weft_proxy::config::{Config, ProxyMode};
use weft_testkit::world::{Connection, World, is_refused, tcp, udp};
use weft_types::{Family, Object, Service, ServiceKind, TrafficPolicy};

use super::{
    Cluster, EXTERNAL_V4, EXTERNAL_V6, NODE_PORT, both_pods_answer, cluster_ip, external, is_dropped,
};
use super::{name, of, on_nodes, service, slices};

in_every_mode!(
    external_traffic_policy_cluster_leads_external_addresses_to_all_endpoints_with_the_nodes_address
);

fn external_traffic_policy_cluster_leads_external_addresses_to_all_endpoints_with_the_nodes_address(
    mode: ProxyMode,
) {
    let world = World::new();
    world.serve(8080);
    let mut cluster = Cluster::new(&world, of(mode));
    cluster.put([external(TrafficPolicy::Cluster)].into_iter().chain(slices(&[1, 2])));
    for (addresses, sources) in
        [(EXTERNAL_V4, ["10.244.1.1", "10.244.2.1"]), (EXTERNAL_V6, ["fd00:244:1::1", "fd00:244:2::1"])]
    {
        for address in addresses {
            let to = SocketAddr::new(address.parse().unwrap(), 80);
            for from in [&world.outside, &world.node] {
                both_pods_answer(|| tcp(from, to), &sources);
                both_pods_answer(|| udp(from, to).unwrap(), &sources);
            }
        }
    }
}

in_every_mode!(external_traffic_policy_local_keeps_the_clients_address_and_short_circuits_pods_and_the_node);

fn external_traffic_policy_local_keeps_the_clients_address_and_short_circuits_pods_and_the_node(
    mode: ProxyMode,
) {
    let world = World::new();
    world.serve(8080);
    let cluster_cidrs = ["10.244.0.0/16", "fd00:244::/32"].map(|cidr| cidr.parse().unwrap()).to_vec();
    let mut cluster = Cluster::new(&world, Config { cluster_cidrs, ..of(mode) });
    // Pod 2 stands for one of another node.
    cluster.put(
        [external(TrafficPolicy::Local)]
            .into_iter()
            .chain(Family::BOTH.map(|family| on_nodes(family, &[(1, "node1"), (2, "node2")]))),
    );
    let v4 = (EXTERNAL_V4, "172.30.0.11", "1 172.30.0.1", ["10.244.1.1", "10.244.2.1"], "10.244.1.2");
    let v6 =
        (EXTERNAL_V6, "fd00:30::11", "1 fd00:30::1", ["fd00:244:1::1", "fd00:244:2::1"], "fd00:244:1::2");
    for (addresses, node, from_outside, from_node, pod) in [v4, v6] {
        let external = addresses.map(|address| SocketAddr::new(address.parse().unwrap(), 80));
        for to in external.into_iter().chain([SocketAddr::new(node.parse().unwrap(), NODE_PORT)]) {
            // Evenly spread, none of so many would miss pod 2 if it were among the choices.
            for _ in 0..20 {
                assert_eq!(tcp(&world.outside, to), from_outside);
                assert_eq!(udp(&world.outside, to).unwrap(), from_outside);
            }
            if mode == ProxyMode::Ipvs {
                // A virtual server is the same for all.
                assert_eq!(tcp(&world.node, to), format!("1 {}", from_node[0]));
                continue;
            }
            both_pods_answer(|| tcp(&world.node, to), &from_node);
            both_pods_answer(|| tcp(&world.pods[0], to), &[pod, from_node[0]]);
        }
    }
    // Other nodes' endpoints only: silence for those from outside, the others are served.
    cluster.put(Family::BOTH.map(|family| on_nodes(family, &[(2, "node2")])));
    if cluster.is_nftables() {
        let rules = cluster.nft(&["list", "map", "ip", "weft", "local-nodeports"]);
        assert_eq!(rules.matches(&format!("{NODE_PORT} : ffff:0")).count(), 2, "{rules}");
    }
    for to in [
        SocketAddr::new("172.30.0.11".parse().unwrap(), NODE_PORT),
        SocketAddr::new(EXTERNAL_V4[0].parse().unwrap(), 80),
    ] {
        assert!(is_dropped(&world.outside, to));
        assert_eq!(tcp(&world.node, to), "2 10.244.2.1");
        assert_eq!(tcp(&world.pods[0], to), "2 10.244.1.2");
    }
    // No endpoints anywhere.
    cluster.put(slices(&[]));
    let to = SocketAddr::new(EXTERNAL_V4[0].parse().unwrap(), 80);
    // The client outside is sent back by the way that it came, which is all that the kernel tells it for a
    // second.
    let client = if cluster.is_iptables() { &world.pods[0] } else { &world.outside };
    assert!(is_refused(Connection::open(client, to)));
    cluster.restart();
    cluster.put([Object::Service(Service::new(name(), ServiceKind::Headless, Vec::new()))]);
    assert!(!cluster.rules().iter().any(|line| line.contains("192.0.2.") || line.contains("goto local-")));
}

in_every_mode!(internal_traffic_policy_local_uses_only_endpoints_of_this_node);

fn internal_traffic_policy_local_uses_only_endpoints_of_this_node(mode: ProxyMode) {
    let world = World::new();
    world.serve(8080);
    let mut cluster = Cluster::new(&world, of(mode));
    let Object::Service(service) = service() else { panic!() };
    let local = Service { internal_policy: TrafficPolicy::Local, ..service };
    cluster.put(
        [Object::Service(local)]
            .into_iter()
            .chain(Family::BOTH.map(|family| on_nodes(family, &[(1, "node1"), (2, "node2")]))),
    );
    let node_port = SocketAddr::new("172.30.0.11".parse().unwrap(), NODE_PORT);
    for family in Family::BOTH {
        let to = SocketAddr::new(cluster_ip(family), 80);
        for from in [&world.outside, &world.node, &world.pods[1]] {
            for _ in 0..20 {
                assert!(tcp(from, to).starts_with("1 "));
            }
        }
    }
    both_pods_answer(|| tcp(&world.outside, node_port), &["10.244.1.1", "10.244.2.1"]);
    cluster.put([on_nodes(Family::V4, &[(1, "node2"), (2, "node2")])]);
    assert!(is_dropped(&world.pods[1], SocketAddr::new(cluster_ip(Family::V4), 80)));
    both_pods_answer(|| tcp(&world.outside, node_port), &["10.244.1.1", "10.244.2.1"]);
}
