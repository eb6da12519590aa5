//! What becomes stale by which change.

use weft_netlink::conntrack::{CtStatus, Filter, Flow, TcpState, Tuple};
use weft_types::{
    Endpoint, EndpointPort, EndpointSlice, Object, ObjectKey, Service, ServiceKind, ServicePort,
};

use super::*;
use crate::services::ownership::Contested;

const CLUSTER_IP: &str = "10.96.0.10:53";
const NODE: &str = "172.30.0.11";

fn name(name: &str) -> NamespacedName {
    NamespacedName::new("shop", name)
}

fn service(key: &str) -> Object {
    let port = |protocol: Protocol, node_port: u16| ServicePort {
        name: protocol.lower_case().into(),
        protocol,
        port: 53.try_into().unwrap(),
        node_port: Some(node_port.try_into().unwrap()),
    };
    let ports = vec![port(Protocol::Udp, 30053), port(Protocol::Tcp, 30053)];
    let kind = ServiceKind::ClusterIp(vec!["10.96.0.10".parse().unwrap()]);
    Object::Service(Service::new(name(key), kind, ports))
}

fn slice(service: &str, endpoints: &[(&str, bool)]) -> Object {
    let endpoint = |&(address, serving): &(&str, bool)| Endpoint {
        ready: serving,
        serving,
        terminating: !serving,
        ..Endpoint::ready(IpAddr::V4(address.parse().unwrap()))
    };
    let port = |protocol: Protocol| EndpointPort {
        name: protocol.lower_case().into(),
        protocol,
        port: 5353.try_into().unwrap(),
    };
    Object::EndpointSlice(EndpointSlice {
        key: name(&format!("{service}-1")),
        service: name(service),
        ports: vec![port(Protocol::Udp), port(Protocol::Tcp)],
        endpoints: endpoints.iter().map(endpoint).collect(),
    })
}

fn flow(protocol: Protocol, destination: &str, reply: &str, status: CtStatus) -> Flow {
    let client = "10.244.9.9:4000".parse().unwrap();
    Flow {
        id: 1,
        zone: 0,
        protocol: protocol.number(),
        original: Tuple { source: client, destination: destination.parse().unwrap() },
        reply: Tuple { source: reply.parse().unwrap(), destination: client },
        status,
        tcp_state: None,
    }
}

fn udp(destination: &str, reply: &str) -> Flow {
    flow(Protocol::Udp, destination, reply, CtStatus::DST_NAT)
}

/// A TCP connection whose first packet nobody has answered.
fn opening(destination: &str, reply: &str, status: CtStatus) -> Flow {
    Flow { tcp_state: Some(TcpState::SynSent), ..flow(Protocol::Tcp, destination, reply, status) }
}

/// A register and its cluster.
struct World {
    register: Register,
    snapshot: Snapshot,
    ownership: Ownership,
}

impl World {
    fn new(ends_tcp: bool) -> World {
        let (snapshot, ownership) = (Snapshot::default(), Ownership::default());
        World { register: Register::new(ends_tcp), snapshot, ownership }
    }

    fn put(&mut self, objects: impl IntoIterator<Item = Object>) -> Served {
        let mut changes = ChangeSet::default();
        objects.into_iter().for_each(|object| self.snapshot.apply(object, &mut changes));
        self.update(&changes)
    }

    fn delete(&mut self, key: ObjectKey) -> Served {
        let mut changes = ChangeSet::default();
        self.snapshot.delete(&key, &mut changes);
        self.update(&changes)
    }

    fn update(&mut self, changes: &ChangeSet) -> Served {
        for key in &changes.services {
            self.ownership.replace(key, self.snapshot.service(key), &mut Contested::default());
        }
        let touched = self.register.update(&self.snapshot, changes, &self.ownership);
        self.register.served(&touched, &self.snapshot, &self.ownership, &[NODE.parse().unwrap()])
    }

    fn everything(&self) -> Served {
        self.register.everything(&self.snapshot, &self.ownership, &[NODE.parse().unwrap()])
    }
}

#[test]
fn a_udp_flow_is_stale_when_its_endpoint_no_longer_serves() {
    let mut world = World::new(false);
    world.put([service("dns"), slice("dns", &[("10.244.1.2", true), ("10.244.1.3", true)])]);
    let served = world.put([slice("dns", &[("10.244.1.2", false), ("10.244.1.3", true)])]);
    assert!(served.is_stale(&udp(CLUSTER_IP, "10.244.1.2:5353")));
    assert!(served.is_stale(&udp("172.30.0.11:30053", "10.244.1.2:5353")), "the NodePort");
    assert!(!served.is_stale(&udp("172.30.0.12:30053", "10.244.1.2:5353")), "another node's");
    assert!(served.is_stale(&udp(CLUSTER_IP, "10.244.1.3:53")), "another port");
    assert!(!served.is_stale(&udp(CLUSTER_IP, "10.244.1.3:5353")));
    assert!(!served.is_stale(&udp("10.96.0.11:53", "10.244.1.2:5353")), "another address");
    assert!(!served.is_stale(&udp("[fd00::1]:30053", "[fd00::2]:53")), "another family");
}

#[test]
fn a_flow_that_came_before_the_rules_is_stale_and_one_to_elsewhere_is_not() {
    let mut world = World::new(false);
    let served = world.put([service("dns"), slice("dns", &[("10.244.1.2", true)])]);
    let untranslated = |destination| flow(Protocol::Udp, destination, destination, CtStatus::default());
    assert!(served.is_stale(&untranslated(CLUSTER_IP)));
    assert!(served.is_stale(&untranslated("172.30.0.11:30053")));
    assert!(!served.is_stale(&untranslated("192.0.2.1:30053")));
}

#[test]
fn the_table_is_not_read_when_nothing_can_have_become_stale() {
    let mut world = World::new(true);
    world.put([service("dns"), slice("dns", &[("10.244.1.2", true)])]);
    assert!(world.put([slice("dns", &[("10.244.1.2", true), ("10.244.1.3", true)])]).is_empty());
    assert!(!world.put([slice("dns", &[])]).is_empty(), "endpoints went");
    assert!(!world.put([slice("dns", &[("10.244.1.2", true)])]).is_empty(), "the first one came");
}

#[test]
fn all_flows_of_a_service_that_is_gone_are_stale_unless_another_has_its_address() {
    let mut world = World::new(false);
    world.put([service("old"), slice("old", &[("10.244.1.2", true)])]);
    world.put([service("new"), slice("new", &[("10.244.1.3", true)])]);
    let served = world.delete(ObjectKey::Service(name("old")));
    assert!(served.is_stale(&udp(CLUSTER_IP, "10.244.1.2:5353")));
    assert!(!served.is_stale(&udp(CLUSTER_IP, "10.244.1.3:5353")));
    let served = world.delete(ObjectKey::Service(name("new")));
    assert!(served.is_stale(&udp(CLUSTER_IP, "10.244.1.3:5353")));
    assert!(world.everything().is_empty() && world.register.services.is_empty());
}

#[test]
fn tcp_counts_only_where_asked_for_and_only_when_the_endpoint_is_gone() {
    let open = CtStatus::DST_NAT | CtStatus::SEEN_REPLY;
    let tcp = |reply| flow(Protocol::Tcp, CLUSTER_IP, reply, open);
    for ends_tcp in [false, true] {
        let mut world = World::new(ends_tcp);
        world.put([service("dns"), slice("dns", &[("10.244.1.2", true), ("10.244.1.3", true)])]);
        world.put([slice("dns", &[("10.244.1.3", false)])]);
        let served = world.everything();
        assert_eq!(served.is_stale(&tcp("10.244.1.2:5353")), ends_tcp);
        assert!(!served.is_stale(&tcp("10.244.1.3:5353")), "one that shuts down finishes");
        assert!(!served.is_stale(&flow(Protocol::Tcp, CLUSTER_IP, CLUSTER_IP, CtStatus::SEEN_REPLY)));
    }
}

#[test]
fn an_unanswered_syn_is_stale_whose_destination_becomes_a_frontend_or_whose_endpoint_goes() {
    let mut world = World::new(false);
    let served = world.put([service("dns"), slice("dns", &[("10.244.1.2", true)])]);
    let untranslated = |destination| opening(destination, destination, CtStatus::default());
    assert!(served.is_stale(&untranslated(CLUSTER_IP)));
    assert!(served.is_stale(&untranslated("172.30.0.11:30053")));
    assert!(!served.is_stale(&untranslated("192.0.2.1:53")), "elsewhere");
    let to = |endpoint| opening(CLUSTER_IP, endpoint, CtStatus::DST_NAT);
    let served = world.put([slice("dns", &[("10.244.1.3", true)])]);
    assert!(served.is_stale(&to("10.244.1.2:5353")));
    assert!(!served.is_stale(&to("10.244.1.3:5353")), "under way to one that is there");
    let midst = Flow { tcp_state: Some(TcpState::Established), ..untranslated(CLUSTER_IP) };
    assert!(!served.is_stale(&midst), "one direction of an open connection passes elsewhere");
    assert!(world.put([slice("dns", &[("10.244.1.3", true), ("10.244.1.4", true)])]).is_empty());
    let init = flow(Protocol::Sctp, CLUSTER_IP, CLUSTER_IP, CtStatus::default());
    assert!(!served.is_stale(&init), "no Service has that port for SCTP");
}

#[test]
fn a_port_of_another_service_with_a_node_ports_number_is_left_alone() {
    let mut world = World::new(false);
    let own_port = |key: &str, address: &str| {
        let port = ServicePort {
            name: "udp".into(),
            protocol: Protocol::Udp,
            port: 30053.try_into().unwrap(),
            node_port: None,
        };
        let kind = ServiceKind::ClusterIp(vec![address.parse().unwrap()]);
        Service::new(name(key), kind, vec![port])
    };
    // At the same number: one at an address of its own, one at an address of the node.
    let at_node = Service { external_ips: vec![NODE.parse().unwrap()], ..own_port("b", "10.96.0.12") };
    world.put([Object::Service(at_node), slice("b", &[("10.244.1.9", true)])]);
    world.put([Object::Service(own_port("c", "10.96.0.13")), slice("c", &[("10.244.1.9", true)])]);
    world.put([service("dns"), slice("dns", &[("10.244.1.2", true)])]);
    let served = world.put([slice("dns", &[("10.244.1.3", true)])]);
    assert!(!served.is_stale(&udp("10.96.0.13:30053", "10.244.1.9:5353")));
    assert!(!served.is_stale(&udp("172.30.0.11:30053", "10.244.1.9:5353")));
    assert!(served.is_stale(&udp("172.30.0.11:30053", "10.244.1.2:5353")), "of whoever had it before");
}

#[test]
fn an_endpoint_that_shuts_down_and_serves_no_longer_is_left_where_others_serve_and_kept_where_none_do() {
    let mut world = World::new(false);
    world.put([service("dns"), slice("dns", &[("10.244.1.2", true)])]);
    let alone = world.put([slice("dns", &[("10.244.1.2", false)])]);
    assert!(!alone.is_stale(&udp(CLUSTER_IP, "10.244.1.2:5353")), "nobody else serves");
    let served = world.put([slice("dns", &[("10.244.1.2", false), ("10.244.1.3", true)])]);
    assert!(served.is_stale(&udp(CLUSTER_IP, "10.244.1.2:5353")));
    let both = [("10.244.1.2", true), ("10.244.1.3", true)];
    world.put([slice("dns", &both)]);
    let served = world.put([slice("dns", &[("10.244.1.2", true), ("10.244.1.3", false)])]);
    assert!(served.is_stale(&udp(CLUSTER_IP, "10.244.1.3:5353")));
    assert!(!served.is_stale(&udp(CLUSTER_IP, "10.244.1.2:5353")));
}

#[test]
fn flows_to_an_endpoint_that_comes_while_others_are_looked_at_are_spared() {
    let mut world = World::new(false);
    world.put([service("dns"), slice("dns", &[("10.244.1.2", true), ("10.244.1.3", true)])]);
    let mut served = world.put([slice("dns", &[("10.244.1.3", true)])]);
    let fresh = udp(CLUSTER_IP, "10.244.1.4:5353");
    assert!(served.is_stale(&fresh));
    let mut changes = ChangeSet::default();
    world.snapshot.apply(slice("dns", &[("10.244.1.3", true), ("10.244.1.4", true)]), &mut changes);
    served.expect(&world.register.coming(&world.snapshot, &changes));
    assert!(!served.is_stale(&fresh));
    assert!(served.is_stale(&udp(CLUSTER_IP, "10.244.1.2:5353")));
}

#[test]
fn little_is_read_where_little_is_to_be_looked_at() {
    let mut world = World::new(false);
    let served = world.put([service("dns"), slice("dns", &[("10.244.1.2", true)])]);
    let of = |protocol: Protocol| Filter { protocol: Some(protocol.number()), ..Filter::default() };
    let at_address = |address: &str| Filter {
        destination: Some(address.parse().unwrap()),
        port: Some(53),
        ..of(Protocol::Udp)
    };
    let mut readings = served.readings();
    readings.sort_by_key(|(_, filter)| (filter.protocol, filter.port));
    assert_eq!(
        readings,
        [
            (Family::V4, Filter { without: CtStatus::SEEN_REPLY, ..of(Protocol::Tcp) }),
            (Family::V4, at_address("10.96.0.10")),
            (Family::V4, Filter { port: Some(30053), ..of(Protocol::Udp) }),
        ]
    );
    assert!(served.is_urgent(), "UDP is among it");
}

#[test]
fn node_ports_stay_the_nodes_when_frontends_without_any_are_looked_at_with_them() {
    let mut world = World::new(false);
    world.put([service("dns"), slice("dns", &[("10.244.1.2", true), ("10.244.1.3", true)])]);
    let mut served = world.put([slice("dns", &[("10.244.1.3", true)])]);
    let Object::Service(plain) = service("plain") else { unreachable!() };
    let kind = ServiceKind::ClusterIp(vec!["10.96.0.20".parse().unwrap()]);
    let ports = plain.ports.into_iter().map(|port| ServicePort { node_port: None, ..port }).collect();
    served.extend(world.put([Object::Service(Service::new(name("plain"), kind, ports))]));
    assert!(served.is_stale(&udp("172.30.0.11:30053", "10.244.1.2:5353")));
    assert!(served.is_stale(&udp("10.96.0.20:53", "10.244.1.2:5353")));
}
