//! Whom nodes speak with, and what they tell.

use weft_types::{ChangeSet, Endpoint, EndpointSlice, NamespacedName, Object, ServiceKind, TrafficPolicy};

use super::*;

fn settings() -> Settings {
    Settings {
        asn: 64512,
        routers: vec![(IpAddr::from([172, 30, 0, 1]), 65000)],
        announce: [Kind::LoadBalancers].into(),
        communities: Vec::new(),
        imports: Vec::new(),
        password: None,
        hops: None,
        hold_time: 90,
        restart_time: Some(60),
        port: Some(179),
        reads_objects: false,
        is_mesh: false,
        is_backend: false,
    }
}

fn node(number: u8) -> Node {
    Node {
        name: format!("node{number}"),
        pod_cidrs: vec![format!("10.244.{number}.0/24").parse().unwrap()],
        addresses: vec![IpAddr::from([172, 30, 0, 10 + number])],
        ..Node::default()
    }
}

fn service(name: &str, address: &str, policy: TrafficPolicy) -> Object {
    let kind = ServiceKind::ClusterIp(vec!["10.96.0.7".parse().unwrap()]);
    let mut service = Service::new(NamespacedName::new("shop", name), kind, Vec::new());
    service.load_balancer_ips = vec![address.parse().unwrap()];
    service.external_policy = policy;
    Object::Service(service)
}

/// Of a Service, with an endpoint on a node.
fn slice(service: &str, node: &str, ready: bool) -> Object {
    let endpoint = Endpoint {
        address: IpAddr::from([10, 244, 1, 2]),
        hostname: None,
        node: Some(node.into()),
        ready,
        serving: true,
        terminating: false,
        hints: None,
    };
    let key = NamespacedName::new("shop", service);
    let (service, ports, endpoints) = (key.clone(), Vec::new(), vec![endpoint]);
    Object::EndpointSlice(EndpointSlice { key, service, ports, endpoints })
}

fn snapshot(objects: impl IntoIterator<Item = Object>) -> Snapshot {
    let mut snapshot = Snapshot::default();
    for object in objects {
        snapshot.apply(object, &mut ChangeSet::default());
    }
    snapshot
}

fn told(own: &Node, services: &Snapshot, slices: &Snapshot, settings: &Settings) -> Vec<String> {
    let told = routers(own, services, slices, &Uplink::default(), settings);
    told[0].1.keys().map(ToString::to_string).collect()
}

#[test]
fn routers_are_told_of_addresses_that_this_node_serves() {
    let services = snapshot([
        service("all", "192.0.2.1", TrafficPolicy::Cluster),
        service("here", "192.0.2.2", TrafficPolicy::Local),
        service("there", "192.0.2.3", TrafficPolicy::Local),
        service("starting", "192.0.2.4", TrafficPolicy::Local),
        service("six", "2001:db8::1", TrafficPolicy::Cluster),
    ]);
    let slices = snapshot([
        slice("here", "node1", true),
        slice("there", "node2", true),
        slice("starting", "node1", false),
    ]);
    let told = |own: &Node, settings: &Settings| told(own, &services, &slices, settings);
    assert_eq!(told(&node(1), &settings()), ["192.0.2.1/32", "192.0.2.2/32", "2001:db8::1/128"]);
    let both = Settings { announce: [Kind::LoadBalancers, Kind::PodCidrs].into(), ..settings() };
    assert!(told(&node(1), &both).contains(&"10.244.1.0/24".to_owned()));
    let labels = [(EXCLUDE_FROM_BALANCERS, "")].into_iter().collect();
    let excluded = Node { labels, ..node(1) };
    assert_eq!(told(&excluded, &both), ["10.244.1.0/24"], "its pods stay reachable");
    assert_eq!(told(&Node { leaving: true, ..node(1) }, &settings()), Vec::<String>::new());
}

#[test]
fn nodes_of_a_mesh_tell_each_other_of_their_pods() {
    let cluster = snapshot([1, 2, 3].map(|number| Object::Node(node(number))));
    let settings = Settings { is_mesh: true, is_backend: true, routers: Vec::new(), ..settings() };
    let peers = mesh(&node(1), &cluster, &Uplink::default(), &settings);
    let seen: Vec<_> = peers.iter().map(|(peer, _)| (peer.name.as_str(), peer.address.to_string())).collect();
    let expected = [("node node2", "172.30.0.12"), ("node node3", "172.30.0.13")];
    assert_eq!(seen, expected.map(|(name, address)| (name, address.to_owned())));
    let (peer, told) = &peers[0];
    assert_eq!((peer.source, peer.is_external()), (Some(IpAddr::from([172, 30, 0, 11])), false));
    assert_eq!(told.keys().map(ToString::to_string).collect::<Vec<_>>(), ["10.244.1.0/24"]);
    assert!(mesh(&node(1), &cluster, &Uplink::default(), &super::tests::settings()).is_empty());
}

#[test]
fn a_route_reflector_tells_of_all_pods_and_another_router_of_nothing() {
    let reflector = (IpAddr::from([172, 30, 0, 9]), 64512);
    let mut settings = Settings { is_backend: true, ..settings() };
    settings.routers.push(reflector);
    let nothing = Snapshot::default();
    let peers = routers(&node(1), &nothing, &nothing, &Uplink::default(), &settings);
    let imports: Vec<usize> = peers.iter().map(|(peer, _)| peer.imports.len()).collect();
    assert_eq!(imports, [0, 2]);
    assert!(peers[1].1.contains_key(&"10.244.1.0/24".parse().unwrap()));
}

#[test]
fn a_node_without_an_ipv4_address_has_an_identifier_all_the_same() {
    let six = |name: &str| Node {
        name: name.to_owned(),
        addresses: vec!["fd00::1".parse().unwrap()],
        ..Node::default()
    };
    assert_eq!(router_id(&node(1)), Ipv4Addr::new(172, 30, 0, 11));
    assert!(!router_id(&six("a")).is_unspecified() && router_id(&six("a")) != router_id(&six("b")));
}
