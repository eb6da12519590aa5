//! Services that ask for what others have: who was there first keeps it, and traffic tells.

use std::net::SocketAddr;

use weft_proxy::config::{Config, ProxyMode};
use weft_proxy::services::problem::Problem;
use weft_testkit::program::run;
use weft_testkit::world::{Connection, World, is_refused, pod_address, tcp};
use weft_types::{Endpoint, EndpointPort, EndpointSlice, NamespacedName, Object, ObjectKey, Service};
use weft_types::{Protocol, ServiceKind, ServicePort, TrafficPolicy};

use super::{Cluster, Family, NODE_PORT};
use crate::of;

const EXTERNAL: &str = "192.0.2.80";
const FIRST: &str = "10.96.1.1";
const SECOND: &str = "10.96.1.2";

fn name(name: &str) -> NamespacedName {
    NamespacedName::new("shop", name)
}

/// A Service of that age at a ClusterIP and at external addresses, port 80 of TCP, with one pod behind it.
fn service(key: &str, created: i64, cluster_ip: &str, external: &[&str], pod: usize) -> [Object; 2] {
    let port = ServicePort {
        name: "".into(),
        protocol: Protocol::Tcp,
        port: 80.try_into().unwrap(),
        node_port: Some(NODE_PORT.try_into().unwrap()),
    };
    let kind = ServiceKind::ClusterIp(vec![cluster_ip.parse().unwrap()]);
    let external_ips = external.iter().map(|address| address.parse().unwrap()).collect();
    let service = Service { created, external_ips, ..Service::new(name(key), kind, vec![port]) };
    let served = EndpointPort { name: "".into(), protocol: Protocol::Tcp, port: 8080.try_into().unwrap() };
    let slice = EndpointSlice {
        key: name(&format!("{key}-1")),
        service: name(key),
        ports: vec![served],
        endpoints: vec![Endpoint::ready(pod_address(Family::V4, pod))],
    };
    [Object::Service(service), Object::EndpointSlice(slice)]
}

fn at(address: &str, port: u16) -> SocketAddr {
    SocketAddr::new(address.parse().unwrap(), port)
}

fn reasons(cluster: &Cluster<'_>, key: &str) -> Vec<&'static str> {
    let problems = cluster.sync.problems().get(&name(key));
    problems.into_iter().flatten().map(Problem::reason).collect()
}

in_every_mode!(the_older_of_two_services_has_an_external_address_and_node_port_and_the_other_when_it_goes);

fn the_older_of_two_services_has_an_external_address_and_node_port_and_the_other_when_it_goes(
    mode: ProxyMode,
) {
    let world = World::new();
    world.serve(8080);
    let mut cluster = Cluster::new(&world, of(mode));
    // The younger one comes first, and has them until the older one appears.
    cluster.put(service("a-younger", 2, FIRST, &[EXTERNAL], 1));
    let disputed = [at(EXTERNAL, 80), at("172.30.0.11", NODE_PORT)];
    let pod_at = |to: SocketAddr| tcp(&world.outside, to).split(' ').next().unwrap().to_owned();
    assert_eq!(disputed.map(pod_at), ["1", "1"]);
    cluster.put(service("b-older", 1, SECOND, &[EXTERNAL], 2));
    assert_eq!(disputed.map(pod_at), ["2", "2"]);
    assert_eq!(pod_at(at(FIRST, 80)), "1", "what nobody else asks for is served");
    assert_eq!(reasons(&cluster, "a-younger"), ["FrontendTaken"; 2]);
    assert_eq!(reasons(&cluster, "b-older"), [""; 0]);
    cluster.restart();
    assert_eq!(disputed.map(pod_at), ["2", "2"]);
    cluster.delete(ObjectKey::Service(name("b-older")));
    assert_eq!(disputed.map(pod_at), ["1", "1"]);
    assert!(cluster.sync.problems().is_empty());
}

in_every_mode!(an_external_address_takes_no_traffic_to_another_services_cluster_ip);

fn an_external_address_takes_no_traffic_to_another_services_cluster_ip(mode: ProxyMode) {
    let world = World::new();
    world.serve(8080);
    let mut cluster = Cluster::new(&world, of(mode));
    cluster.put(service("attacker", 1, FIRST, &[SECOND], 1));
    assert!(tcp(&world.outside, at(SECOND, 80)).starts_with("1 "), "nobody has that ClusterIP yet");
    let [Object::Service(mut victim), slice] = service("victim", 2, SECOND, &[], 2) else { panic!() };
    victim.ports[0].port = 443.try_into().unwrap();
    cluster.put([Object::Service(victim), slice]);
    for from in [&world.outside, &world.pods[0], &world.node] {
        assert!(tcp(from, at(SECOND, 443)).starts_with("2 "));
        if !cluster.is_iptables() {
            assert!(is_refused(Connection::open(from, at(SECOND, 80))), "the victim has no such port");
        }
    }
    assert_eq!(reasons(&cluster, "attacker"), ["FrontendTaken"]);
    cluster.delete(ObjectKey::Service(name("victim")));
    assert!(tcp(&world.outside, at(SECOND, 80)).starts_with("1 "));
}

in_every_mode!(loopback_link_local_and_unspecified_endpoints_get_nothing_and_harm_nobody);

fn loopback_link_local_and_unspecified_endpoints_get_nothing_and_harm_nobody(mode: ProxyMode) {
    let world = World::new();
    world.serve(8080);
    let mut cluster = Cluster::new(&world, of(mode));
    let [hostile, Object::EndpointSlice(mut slice)] = service("hostile", 1, FIRST, &["127.0.0.1"], 1) else {
        panic!()
    };
    let forbidden = ["127.0.0.1", "169.254.169.254", "0.0.0.0", "224.0.0.1"];
    slice.endpoints = forbidden.map(|address| Endpoint::ready(address.parse().unwrap())).to_vec();
    cluster.put([hostile, Object::EndpointSlice(slice)].into_iter().chain(service("web", 2, SECOND, &[], 2)));
    assert!(is_refused(Connection::open(&world.pods[0], at(FIRST, 80))));
    assert!(tcp(&world.pods[0], at(SECOND, 80)).starts_with("2 "));
    assert_eq!(reasons(&cluster, "hostile"), ["ForbiddenAddress", "ForbiddenEndpoints"]);
    let rules = cluster.nft(&["list", "ruleset"]);
    for address in forbidden {
        assert!(!rules.contains(address), "{address}");
    }
}

in_modes_of_rules!(a_service_with_absurd_numbers_is_cut_short_and_the_others_are_served);

fn a_service_with_absurd_numbers_is_cut_short_and_the_others_are_served(mode: ProxyMode) {
    let world = World::new();
    world.serve(8080);
    let mut cluster = Cluster::new(&world, of(mode));
    let [Object::Service(mut absurd), Object::EndpointSlice(mut slice)] = service("absurd", 1, FIRST, &[], 1)
    else {
        panic!()
    };
    let port = |number: u16| ServicePort {
        name: "".into(),
        protocol: Protocol::Tcp,
        port: number.try_into().unwrap(),
        node_port: None,
    };
    absurd.ports = (1..=u16::MAX).map(port).collect();
    let address = |last: u8| Endpoint::ready([10, 244, 1, last].into());
    slice.endpoints = (1..=250).map(address).collect();
    cluster.put([Object::Service(absurd), Object::EndpointSlice(slice)]);
    cluster.put(service("web", 2, SECOND, &[], 2));
    assert!(tcp(&world.pods[0], at(SECOND, 80)).starts_with("2 "));
    // 251 elements a port, and 100,000 in all.
    let problems = cluster.sync.problems().get(&name("absurd"));
    assert_eq!(problems, Some(&vec![Problem::TooLarge { ports: 65535 - 398 }]));
}

in_every_mode!(a_node_port_is_not_served_where_an_older_service_is_asked_for_its_health);

fn a_node_port_is_not_served_where_an_older_service_is_asked_for_its_health(mode: ProxyMode) {
    let world = World::new();
    world.serve(8080);
    let mut cluster = Cluster::new(&world, of(mode));
    cluster.put(service("ports", 2, FIRST, &[], 1));
    assert!(tcp(&world.outside, at("172.30.0.11", NODE_PORT)).starts_with("1 "));
    let [Object::Service(mut checked), slice] = service("checked", 1, SECOND, &[], 2) else { panic!() };
    checked.ports[0].node_port = None;
    checked.health_check_port = NODE_PORT.try_into().ok();
    checked.external_policy = TrafficPolicy::Local;
    cluster.put([Object::Service(checked), slice]);
    assert!(
        is_refused(Connection::open(&world.outside, at("172.30.0.11", NODE_PORT))),
        "nobody answers checks here"
    );
    assert!(tcp(&world.pods[0], at(FIRST, 80)).starts_with("1 "), "the rest of it is served");
    let problems = cluster.sync.problems()[&name("ports")].iter().map(Problem::to_string);
    let told = format!(
        "NodePort {NODE_PORT} (tcp, IPv4) is not served for this Service: Service shop/checked has it as its healthCheckNodePort"
    );
    assert_eq!(problems.collect::<Vec<_>>(), [told]);
    assert!(cluster.sync.answers_health_checks(&name("checked")));
    cluster.delete(ObjectKey::Service(name("checked")));
    assert!(tcp(&world.outside, at("172.30.0.11", NODE_PORT)).starts_with("1 "));
}

/// What maps ports of the host to containers, as the CNI plugin and `portmap` do.
const HOST_PORTS: &str = "
    add table ip hostports
    add chain ip hostports prerouting { type nat hook prerouting priority dstnat; }
    add rule ip hostports prerouting fib daddr type local tcp dport { 30080, 30090 } dnat to 10.244.2.2:8080
    add chain ip hostports output { type nat hook output priority -100; }
    add rule ip hostports output fib daddr type local tcp dport { 30080, 30090 } dnat to 10.244.2.2:8080
";

#[test]
fn a_node_port_is_before_a_host_port_of_the_same_number_whichever_came_first() {
    let world = World::new();
    world.serve(8080);
    let host_ports = || world.node.run(|| run("nft", &[HOST_PORTS])).unwrap();
    for proxy_is_first in [false, true] {
        if !proxy_is_first {
            host_ports();
        }
        let mut cluster = Cluster::new(&world, Config::default());
        cluster.put(service("web", 1, FIRST, &[], 1));
        if proxy_is_first {
            host_ports();
        }
        for from in [&world.outside, &world.node, &world.pods[0]] {
            let pod_at = |port| tcp(from, at("172.30.0.11", port)).split(' ').next().unwrap().to_owned();
            assert_eq!([NODE_PORT, 30090].map(pod_at), ["1", "2"], "the proxy is first: {proxy_is_first}");
        }
        world.node.run(|| run("nft", &["flush ruleset"])).unwrap();
    }
}
