//! Hostile and malformed Services and EndpointSlices among good ones: whatever they ask for, each packet to a
//! good Service goes where it goes without them.

use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use weft_proxy::trace::{Memory, Packet};
use weft_types::{
    Endpoint, EndpointPort, EndpointSlice, Hints, IpNetwork, NamespacedName, Object, Protocol, Service,
    ServiceKind, ServicePort, TrafficPolicy,
};

use crate::cluster::{Cluster, PROTOCOLS, at, both, in_words, port, two, web, with};

/// Addresses of the good Services, their endpoints, the node and its pods, and such as no Service may have.
const ADDRESSES: [&str; 20] = [
    "10.96.0.80",
    "10.96.0.81",
    "192.0.2.1",
    "192.0.2.2",
    "172.30.0.11",
    "10.244.1.2",
    "10.244.9.9",
    "127.0.0.1",
    "169.254.169.254",
    "0.0.0.0",
    "255.255.255.255",
    "224.0.0.251",
    "fd00:96::80",
    "10.96.0.99",
    "fd00:96::99",
    "2001:db8::1",
    "fd00:30::11",
    "::1",
    "fe80::1",
    "::ffff:10.96.0.80",
];
/// Those that no Service network has.
const ELSEWHERE: [&str; 5] = ["192.0.2.1", "192.0.2.2", "172.30.0.11", "10.244.1.2", "10.244.9.9"];
const NUMBERS: [u16; 7] = [80, 81, 8080, 30080, 30081, 1, 65535];
const RANGES: [&str; 6] =
    ["0.0.0.0/0", "::/0", "127.0.0.0/8", "198.51.100.0/24", "10.0.0.0/8", "10.244.1.5/32"];

fn address() -> impl Strategy<Value = std::net::IpAddr> {
    select(&ADDRESSES[..]).prop_map(|address| address.parse().unwrap())
}

fn name() -> impl Strategy<Value = NamespacedName> {
    // A Service of this name in the other namespace is a good one.
    let names = select(vec![
        "web".to_owned(),
        "a".repeat(300),
        "../../etc".to_owned(),
        "\u{1f4a5} } drop;".to_owned(),
    ]);
    names.prop_map(|name| NamespacedName::new("evil", name))
}

fn policy() -> impl Strategy<Value = TrafficPolicy> {
    select(&[TrafficPolicy::Cluster, TrafficPolicy::Local][..])
}

fn ports() -> impl Strategy<Value = Vec<ServicePort>> {
    let port = (select(&PROTOCOLS[..]), select(&NUMBERS[..]), prop::option::of(select(&NUMBERS[..])));
    vec(port.prop_map(|(protocol, number, node_port)| port_of(protocol, number, node_port)), 0..5)
}

fn port_of(protocol: Protocol, number: u16, node_port: Option<u16>) -> ServicePort {
    ServicePort { name: format!("{protocol}-80").into(), ..port(protocol, number, node_port) }
}

fn affinity() -> impl Strategy<Value = Option<Duration>> {
    select(vec![None, Some(Duration::ZERO), Some(Duration::from_secs(10)), Some(Duration::MAX)])
}

fn ranges() -> impl Strategy<Value = Box<[IpNetwork]>> {
    vec(select(&RANGES[..]).prop_map(|range| range.parse().unwrap()), 0..3).prop_map(Into::into)
}

fn hostile_service() -> impl Strategy<Value = Object> {
    let addresses = || vec(address(), 0..4);
    // The API server gives nobody a ClusterIP that is not of its own networks.
    let cluster_ips = addresses().prop_map(|addresses| {
        let is_elsewhere = |address: &std::net::IpAddr| both(ELSEWHERE).contains(address);
        ServiceKind::ClusterIp(addresses.into_iter().filter(|address| !is_elsewhere(address)).collect())
    });
    let kind = prop_oneof![6 => cluster_ips, 1 => Just(ServiceKind::Headless)];
    let addresses = (addresses(), addresses());
    (name(), kind, ports(), addresses, (policy(), policy()), affinity(), ranges()).prop_map(
        |(key, kind, ports, (external_ips, load_balancer_ips), policies, affinity, source_ranges)| {
            Object::Service(Service {
                external_ips,
                load_balancer_ips,
                internal_policy: policies.0,
                external_policy: policies.1,
                affinity,
                source_ranges,
                created: 1, // Who comes later takes nothing from who was there.
                ..Service::new(key, kind, ports)
            })
        },
    )
}

fn hostile_endpoint() -> impl Strategy<Value = Endpoint> {
    let node = select(vec![None, Some("node1".into()), Some("\"; drop".into())]);
    (address(), node, any::<[bool; 4]>()).prop_map(|(address, node, [ready, serving, terminating, hint])| {
        Endpoint {
            ready,
            serving,
            terminating,
            node,
            hints: hint.then(|| Box::new(Hints { nodes: vec!["node1".into()], zones: vec![String::new()] })),
            ..Endpoint::ready(address)
        }
    })
}

fn hostile_slice() -> impl Strategy<Value = Object> {
    let serves = (select(&PROTOCOLS[..]), select(&NUMBERS[..])).prop_map(|(protocol, number)| EndpointPort {
        port: number.try_into().unwrap(),
        ..crate::cluster::serves(protocol, 80)
    });
    (name(), name(), vec(serves, 0..4), vec(hostile_endpoint(), 0..5)).prop_map(
        |(key, service, ports, endpoints)| {
            Object::EndpointSlice(EndpointSlice { key, service, ports, endpoints })
        },
    )
}

/// `shop/web` with two endpoints, and `shop/empty` with none.
fn good() -> impl Strategy<Value = Vec<Object>> {
    (policy(), policy(), affinity(), ranges()).prop_map(
        |(internal_policy, external_policy, affinity, source_ranges)| {
            let empty =
                at(NamespacedName::new("shop", "empty"), "10.96.0.81", [port(Protocol::Tcp, 80, None)]);
            let web = Service { internal_policy, external_policy, affinity, source_ranges, ..web() };
            [with(web, two()), with(empty, Vec::new())].concat()
        },
    )
}

/// What becomes of packets from everywhere to all that the good Services have.
fn outcomes(cluster: &Cluster) -> Vec<(Packet, String)> {
    let tracer = cluster.tracer();
    let mut outcomes = Vec::new();
    for (address, number) in [
        ("10.96.0.80", 80),
        ("10.96.0.80", 81),
        ("10.96.0.81", 80),
        ("172.30.0.11", 30080),
        ("192.0.2.1", 80),
        ("192.0.2.2", 80),
    ] {
        for client in ["10.244.1.5", "10.244.1.2", "172.30.0.1", "172.30.0.11"] {
            for (destination, source) in both([address]).into_iter().zip(both([client])) {
                for protocol in ["tcp", "udp"] {
                    let destination = std::net::SocketAddr::new(destination, number);
                    let packet = cluster.packet(&format!("{source} -> {destination}/{protocol}"));
                    let all = tracer.outcomes(&packet, &Memory::default()).unwrap();
                    let words: Vec<String> = all.iter().map(|outcome| in_words(&packet, outcome)).collect();
                    outcomes.push((packet, words.join(", ")));
                }
            }
        }
    }
    outcomes
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn hostile_and_malformed_objects_harm_no_other_service(
        good in good(), services in vec(hostile_service(), 1..4), slices in vec(hostile_slice(), 0..4),
    ) {
        let alone = outcomes(&Cluster::new(good.clone()));
        let among = outcomes(&Cluster::new([services, slices, good].concat()));
        for (alone, among) in alone.into_iter().zip(among) {
            prop_assert_eq!(alone, among);
        }
    }
}

#[test]
fn a_later_external_address_does_not_take_a_node_port_of_another_service() {
    let attacker = Service {
        external_ips: both(["172.30.0.11"]),
        created: 1,
        ..at(NamespacedName::new("evil", "web"), "10.96.0.99", [port(Protocol::Tcp, 30080, None)])
    };
    let leads = "10.244.1.2:8080 masqueraded, 10.244.2.2:8080 masqueraded";
    let mut cluster = Cluster::new(with(web(), two()));
    cluster.put([Object::Service(attacker)]);
    cluster.expect(&[
        ("172.30.0.1 -> 172.30.0.11:30080/tcp", leads),
        ("10.244.1.5 -> 10.96.0.99:30080/tcp", "rejected"),
    ]);
}
