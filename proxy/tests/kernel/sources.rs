//! loadBalancerSourceRanges in the real kernel: whom a load balancer's address is for.

use std::io::ErrorKind;
use std::net::SocketAddr;

use weft_netlink::netns::Namespace;
use weft_proxy::config::{Config, ProxyMode};
use weft_testkit::world::{World, tcp, udp};
use weft_types::{Node, Object, Service, TrafficPolicy};

use crate::of;
use crate::{Cluster, EXTERNAL_V4, EXTERNAL_V6, NODE_PORT, external, is_dropped, slices};

fn restricted(policy: TrafficPolicy, ranges: &[&str]) -> Object {
    let Object::Service(service) = external(policy) else { panic!("no Service") };
    let source_ranges = ranges.iter().map(|range| range.parse().unwrap()).collect();
    Object::Service(Service { source_ranges, ..service })
}

/// Whether a datagram gets no answer, not even a refusal.
fn is_udp_dropped(from: &Namespace, to: SocketAddr) -> bool {
    let socket = from.run(|| std::net::UdpSocket::bind(("::", 0))).unwrap().unwrap();
    let to = match to {
        SocketAddr::V4(to) => SocketAddr::new(to.ip().to_ipv6_mapped().into(), to.port()),
        to => to,
    };
    socket.connect(to).unwrap();
    socket.set_read_timeout(Some(std::time::Duration::from_millis(300))).unwrap();
    socket.send(b"?").unwrap();
    socket.recv(&mut [0; 64]).is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
}

fn at(address: &str, port: u16) -> SocketAddr {
    SocketAddr::new(address.parse().unwrap(), port)
}

in_every_mode!(a_load_balancers_address_drops_those_who_are_in_none_of_its_source_ranges);

fn a_load_balancers_address_drops_those_who_are_in_none_of_its_source_ranges(mode: ProxyMode) {
    let world = World::new();
    world.serve(8080);
    for policy in [TrafficPolicy::Cluster, TrafficPolicy::Local] {
        let cluster_cidrs = ["10.244.0.0/16", "fd00:244::/32"].map(|cidr| cidr.parse().unwrap()).to_vec();
        let mut cluster = Cluster::new(&world, Config { cluster_cidrs, ..of(mode) });
        let pods_only = ["10.244.2.0/24", "fd00:244:2::/64"];
        cluster.put([restricted(policy, &pods_only)].into_iter().chain(slices(&[1])));
        for ([external, balanced], node) in [(EXTERNAL_V4, "172.30.0.11"), (EXTERNAL_V6, "fd00:30::11")] {
            let to = at(balanced, 80);
            assert!(tcp(&world.pods[1], to).starts_with("1 "));
            assert!(udp(&world.pods[1], to).unwrap().starts_with("1 "));
            for kept_away in [&world.outside, &world.pods[0]] {
                assert!(is_dropped(kept_away, to), "{to}");
                assert!(is_udp_dropped(kept_away, to), "{to}");
            }
            // The ranges are the load balancer's only.
            assert!(tcp(&world.outside, at(external, 80)).starts_with("1 "));
            assert!(tcp(&world.outside, at(node, NODE_PORT)).starts_with("1 "));
            assert!(udp(&world.outside, at(node, NODE_PORT)).unwrap().starts_with("1 "));
        }
    }
}

in_every_mode!(source_ranges_change_live_and_those_of_one_family_leave_the_other_open);

fn source_ranges_change_live_and_those_of_one_family_leave_the_other_open(mode: ProxyMode) {
    let world = World::new();
    world.serve(8080);
    let mut cluster = Cluster::new(&world, of(mode));
    let [v4, v6] = [EXTERNAL_V4, EXTERNAL_V6].map(|addresses| at(addresses[1], 80));
    cluster.put([external(TrafficPolicy::Cluster)].into_iter().chain(slices(&[1])));
    let open = cluster.rules();
    let reaches = |to| tcp(&world.outside, to).starts_with("1 ");
    for (ranges, v4_is_open, v6_is_open) in [
        (&["172.30.0.0/16", "172.30.1.0/24"][..], true, true),
        (&["172.31.0.0/16", "fd00:31::/64"], false, false),
        (&["172.30.1.0/24"], false, true),
        (&["172.30.0.1/32", "fd00:31::/64"], true, false),
        (&["172.31.0.0/16", "0.0.0.0/0", "fd00:31::/64", "::/0"], true, true),
        (&["172.31.0.0/16", "fd00::/8"], false, true),
        (&[], true, true),
    ] {
        cluster.put([restricted(TrafficPolicy::Cluster, ranges)]);
        for (to, is_open) in [(v4, v4_is_open), (v6, v6_is_open)] {
            match is_open {
                true => assert!(reaches(to), "{to} {ranges:?}"),
                false => assert!(is_dropped(&world.outside, to), "{to} {ranges:?}"),
            }
        }
        cluster.restart();
    }
    assert_eq!(cluster.rules(), open, "nothing stays of ranges that went");
}

in_every_mode!(what_is_established_goes_on_when_its_client_is_no_longer_allowed);

fn what_is_established_goes_on_when_its_client_is_no_longer_allowed(mode: ProxyMode) {
    let world = World::new();
    world.serve(8080);
    let mut cluster = Cluster::new(&world, of(mode));
    cluster.put([external(TrafficPolicy::Cluster)].into_iter().chain(slices(&[1])));
    let to = at(EXTERNAL_V4[1], 80);
    let mut connection = crate::Connection::open(&world.outside, to).unwrap();
    let answer = connection.ask();
    cluster.put([restricted(TrafficPolicy::Cluster, &["192.0.2.128/25"])]);
    assert_eq!(connection.ask(), answer);
    assert!(is_dropped(&world.outside, to));
}

in_every_mode!(a_node_within_the_ranges_reaches_the_load_balancer_from_its_own_address);

fn a_node_within_the_ranges_reaches_the_load_balancer_from_its_own_address(mode: ProxyMode) {
    let world = World::new();
    world.serve(8080);
    let mut cluster = Cluster::new(&world, of(mode));
    // As load balancers that leave addresses as they are ask for: the node has the address itself.
    let [_, balanced] = EXTERNAL_V4;
    let add = || crate::run("ip", &["address", "add", &format!("{balanced}/32"), "dev", "lo"]);
    world.node.run(add).unwrap();
    let to = at(balanced, 80);
    cluster.put([restricted(TrafficPolicy::Cluster, &["172.30.0.0/24"])].into_iter().chain(slices(&[1])));
    assert!(tcp(&world.node, to).starts_with("1 "), "from {balanced} to itself");
    // A node elsewhere is not in the ranges, and so gets no exception.
    let addresses = vec!["172.31.0.11".parse().unwrap()];
    cluster.try_put([Object::Node(Node { name: "node1".into(), addresses, ..Node::default() })]);
    assert!(is_dropped(&world.node, to));
}
