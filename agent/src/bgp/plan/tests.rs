//! Whom nodes speak with, and what they tell.

use weft_types::{ChangeSet, Object};

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

fn snapshot(objects: impl IntoIterator<Item = Object>) -> Snapshot {
    let mut snapshot = Snapshot::default();
    for object in objects {
        snapshot.apply(object, &mut ChangeSet::default());
    }
    snapshot
}

fn told(settings: &Settings) -> Vec<String> {
    let here = ["192.0.2.1", "2001:db8::1"].map(|text| text.parse().unwrap()).into();
    let told = routers(&node(1), &here, &Uplink::default(), settings);
    told[0].1.keys().map(ToString::to_string).collect()
}

#[test]
fn routers_are_told_of_the_kinds_of_addresses_that_were_asked_for() {
    let lb = ["192.0.2.1/32", "2001:db8::1/128"];
    assert_eq!(told(&settings()), lb);
    let of = |kinds: &[Kind]| told(&Settings { announce: kinds.iter().copied().collect(), ..settings() });
    assert_eq!(of(&[Kind::PodCidrs]), ["10.244.1.0/24"]);
    assert_eq!(of(&[Kind::LoadBalancers, Kind::PodCidrs]), ["10.244.1.0/24", lb[0], lb[1]]);
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
    let peers = routers(&node(1), &BTreeSet::new(), &Uplink::default(), &settings);
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
