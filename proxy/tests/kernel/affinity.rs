//! Session affinity in the real kernel: who has affinity to which endpoint, for how long, and what ends it.

use std::net::{IpAddr, SocketAddr};
use std::thread::sleep;
use std::time::{Duration, Instant};

use weft_netlink::netns::Namespace;
use weft_proxy::config::{Config, ProxyMode};
use weft_testkit::world::{World, tcp, udp};
use weft_types::{Family, Object, Protocol, Service, TrafficPolicy};

use crate::of;
use crate::{Cluster, EXTERNAL_V4, NODE_PORT, PROTOCOLS, both_pods_answer, cluster_ip, external, on_nodes};
use crate::{service, slices};

const THREE_HOURS: u64 = 10_800;
/// Of so many connections that are spread over two pods, some reach each.
const CONNECTIONS: usize = 30;

/// The Service with affinity for so many seconds.
pub(crate) fn with_affinity(object: Object, seconds: u64) -> Object {
    let Object::Service(service) = object else { panic!("no Service") };
    Object::Service(Service { affinity: Some(Duration::from_secs(seconds)), ..service })
}

/// The pod that answers over a new connection.
fn pod(protocol: Protocol, from: &Namespace, to: SocketAddr) -> usize {
    let answer = match protocol {
        Protocol::Udp => udp(from, to).unwrap(),
        _ => tcp(from, to),
    };
    answer.split(' ').next().unwrap().parse().unwrap()
}

/// The one pod that answers all of a client's connections.
fn only_pod(protocol: Protocol, from: &Namespace, to: SocketAddr) -> usize {
    let first = pod(protocol, from, to);
    for _ in 1..CONNECTIONS {
        assert_eq!(pod(protocol, from, to), first, "{protocol} {to}");
    }
    first
}

fn node_address(family: Family) -> IpAddr {
    match family {
        Family::V4 => "172.30.0.11".parse().unwrap(),
        Family::V6 => "fd00:30::11".parse().unwrap(),
    }
}

in_every_mode!(a_client_sticks_to_one_endpoint_of_a_service_port_whatever_the_frontend);

fn a_client_sticks_to_one_endpoint_of_a_service_port_whatever_the_frontend(mode: ProxyMode) {
    let world = World::new();
    world.serve(8080);
    let mut cluster = Cluster::new(&world, of(mode));
    cluster.put(
        [with_affinity(external(TrafficPolicy::Cluster), THREE_HOURS)].into_iter().chain(slices(&[1, 2])),
    );
    for family in Family::BOTH {
        let internal = SocketAddr::new(cluster_ip(family), 80);
        let node_port = SocketAddr::new(node_address(family), NODE_PORT);
        for protocol in PROTOCOLS {
            for from in [&world.outside, &world.node, &world.pods[0]] {
                let first = only_pod(protocol, from, internal);
                assert_eq!(only_pod(protocol, from, internal), first);
            }
            let first = only_pod(protocol, &world.outside, internal);
            assert_eq!(only_pod(protocol, &world.outside, node_port), first, "the NodePort");
        }
    }
    let balanced = SocketAddr::new(EXTERNAL_V4[1].parse().unwrap(), 80);
    let internal = SocketAddr::new(cluster_ip(Family::V4), 80);
    assert_eq!(
        only_pod(Protocol::Tcp, &world.outside, balanced),
        only_pod(Protocol::Tcp, &world.outside, internal),
        "the load balancer's address"
    );
}

in_every_mode!(clients_of_an_endpoint_that_leaves_move_and_the_others_stay);

fn clients_of_an_endpoint_that_leaves_move_and_the_others_stay(mode: ProxyMode) {
    let world = World::new();
    world.serve(8080);
    let mut cluster = Cluster::new(&world, of(mode));
    cluster.put([with_affinity(service(), THREE_HOURS)].into_iter().chain(slices(&[1])));
    let to = |family| SocketAddr::new(cluster_ip(family), 80);
    let all = |expected: usize| {
        for family in Family::BOTH {
            for protocol in PROTOCOLS {
                for from in [&world.outside, &world.pods[1]] {
                    assert_eq!(only_pod(protocol, from, to(family)), expected, "{protocol} {family}");
                }
            }
        }
    };
    all(1);
    cluster.put(slices(&[2, 1]));
    all(1);
    cluster.put(slices(&[2]));
    // What the daemon does with UDP flows to an endpoint that left: a client's port may be used again.
    world.node.run(|| crate::run("conntrack", &["-F"])).unwrap();
    all(2);
    // Who came back gets new clients only.
    cluster.put(slices(&[1, 2]));
    all(2);
    cluster.restart();
    all(2);
}

// IPVS keeps a client's affinity for as long as it remembers a connection, two minutes after its end.
in_modes_of_rules!(affinity_ends_when_its_time_is_over_and_each_connection_prolongs_it);

fn affinity_ends_when_its_time_is_over_and_each_connection_prolongs_it(mode: ProxyMode) {
    let world = World::new();
    world.serve(8080);
    let mut cluster = Cluster::new(&world, of(mode));
    cluster.put([with_affinity(service(), 1)].into_iter().chain(slices(&[1])));
    let to = SocketAddr::new(cluster_ip(Family::V4), 80);
    assert_eq!(pod(Protocol::Tcp, &world.outside, to), 1);
    cluster.put(slices(&[1, 2]));
    let start = Instant::now();
    while start.elapsed() < Duration::from_millis(2500) {
        assert_eq!(pod(Protocol::Tcp, &world.outside, to), 1);
        sleep(Duration::from_millis(100));
    }
    let remembered = || cluster.nft(&["list", "map", "ip", "weft", "affinity"]).contains("172.30.0.1 .");
    assert!(!cluster.is_nftables() || remembered());
    let deadline = Instant::now() + Duration::from_secs(60);
    while pod(Protocol::Tcp, &world.outside, to) == 1 {
        if !cluster.is_nftables() {
            // Lists of clients are not cleared until a client comes by, which prolongs its own time.
            sleep(Duration::from_millis(2100));
        }
        while cluster.is_nftables() && remembered() {
            assert!(Instant::now() < deadline, "nothing ever ends");
            sleep(Duration::from_millis(20));
        }
    }
}

in_every_mode!(affinity_is_switched_on_and_off_live_and_forgotten_with_its_service);

fn affinity_is_switched_on_and_off_live_and_forgotten_with_its_service(mode: ProxyMode) {
    let world = World::new();
    world.serve(8080);
    let mut cluster = Cluster::new(&world, of(mode));
    cluster.put([service()].into_iter().chain(slices(&[1, 2])));
    let before = cluster.rules();
    let clients = ["172.30.0.1", "fd00:30::1"];
    for family in Family::BOTH {
        let to = SocketAddr::new(cluster_ip(family), 80);
        for seconds in [THREE_HOURS, 30] {
            cluster.put([with_affinity(service(), seconds)]);
            // A client that happens on a port of an earlier one would be of its flow.
            world.node.run(|| crate::run("conntrack", &["-F"])).unwrap();
            for protocol in PROTOCOLS {
                only_pod(protocol, &world.outside, to);
            }
            cluster.put([service()]);
            both_pods_answer(|| tcp(&world.outside, to), &clients);
            both_pods_answer(|| udp(&world.outside, to).unwrap(), &clients);
        }
    }
    for family in ["ip", "ip6"].into_iter().filter(|_| cluster.is_nftables()) {
        cluster.nft(&["flush", "map", family, "weft", "affinity"]);
    }
    assert_eq!(cluster.rules(), before);
}

in_every_mode!(a_pod_that_sticks_to_itself_reaches_itself);

fn a_pod_that_sticks_to_itself_reaches_itself(mode: ProxyMode) {
    let world = World::new();
    world.serve(8080);
    let mut cluster = Cluster::new(&world, of(mode));
    cluster.put([with_affinity(service(), THREE_HOURS)].into_iter().chain(slices(&[1])));
    for (family, hairpin) in [(Family::V4, "10.244.1.1"), (Family::V6, "fd00:244:1::1")] {
        let to = SocketAddr::new(cluster_ip(family), 80);
        for _ in 0..3 {
            assert_eq!(tcp(&world.pods[0], to), format!("1 {hairpin}"));
            assert_eq!(udp(&world.pods[0], to).unwrap(), format!("1 {hairpin}"));
        }
    }
}

in_every_mode!(under_an_external_policy_local_clients_from_outside_stick_to_endpoints_of_this_node);

fn under_an_external_policy_local_clients_from_outside_stick_to_endpoints_of_this_node(mode: ProxyMode) {
    let world = World::new();
    world.serve(8080);
    let cluster_cidrs = ["10.244.0.0/16", "fd00:244::/32"].map(|cidr| cidr.parse().unwrap()).to_vec();
    let mut cluster = Cluster::new(&world, Config { cluster_cidrs, ..of(mode) });
    cluster.put(
        [with_affinity(external(TrafficPolicy::Local), THREE_HOURS)]
            .into_iter()
            .chain(Family::BOTH.map(|family| on_nodes(family, &[(1, "node1"), (2, "node1")]))),
    );
    for family in Family::BOTH {
        let node_port = SocketAddr::new(node_address(family), NODE_PORT);
        let first = only_pod(Protocol::Tcp, &world.outside, node_port);
        let nodes = [(first, "node2"), (3 - first, "node1")];
        cluster.put([on_nodes(family, &nodes)]);
        assert_eq!(only_pod(Protocol::Tcp, &world.outside, node_port), 3 - first);
        cluster.put([on_nodes(family, &[(1, "node1"), (2, "node1")])]);
    }
}

in_every_mode!(an_endpoint_on_the_node_itself_is_remembered_too);

fn an_endpoint_on_the_node_itself_is_remembered_too(mode: ProxyMode) {
    let world = World::new();
    world.serve(8080);
    let listener = world.node.run(|| std::net::TcpListener::bind("172.30.0.11:8080")).unwrap().unwrap();
    listener.set_nonblocking(true).unwrap();
    let mut cluster = Cluster::new(&world, of(mode));
    let Object::EndpointSlice(mut slice) = on_nodes(Family::V4, &[(1, "node1")]) else { panic!() };
    slice.endpoints[0].address = "172.30.0.11".parse().unwrap();
    cluster.put([with_affinity(service(), THREE_HOURS), Object::EndpointSlice(slice)]);
    let to = SocketAddr::new(cluster_ip(Family::V4), 80);
    let connect = || world.outside.run(|| std::net::TcpStream::connect(to)).unwrap().unwrap();
    connect();
    if cluster.is_nftables() {
        assert!(cluster.nft(&["list", "map", "ip", "weft", "affinity"]).contains("172.30.0.1 ."));
    }
    // The priority that carries numbers between rules is the packet's own again: the node connects to its own
    // endpoint.
    world.node.run(|| std::net::TcpStream::connect(to)).unwrap().unwrap();
}
