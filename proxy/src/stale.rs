//! Which tracked connections are stale: those that the kernel goes on sending to an endpoint that no longer serves the
//! address that their client knows. Pure; the table of connections is read and cut in `conntrack.rs`.
//!
//! An nf_tables rule sees only the first packet of a connection. A client that goes on sending datagrams from one socket
//! keeps its flow alive for ever, whether there is somebody at the other end or not, and so does one that sent its first
//! datagram before there was a rule. TCP clients learn it from their own timers, and are helped only where that is asked
//! for.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use weft_netlink::conntrack::{Flow, Status};
use weft_types::{
    ChangeSet, Endpoint, EndpointSlice, Family, NamespacedName, Protocol, Service, ServicePort, Snapshot,
};

use crate::endpoints::ServedBy;
use crate::service::Frontend;

/// Those who may go on answering the flows of a frontend.
type Answerers = Arc<BTreeSet<SocketAddr>>;

/// Knows, of every Service with flows to look after, who may go on answering at its frontends.
#[derive(Debug)]
pub struct Register {
    /// Whether TCP connections of endpoints that are gone are stale.
    tcp: bool,
    services: HashMap<Arc<NamespacedName>, Vec<Frontend>>,
    /// Nearly always there is one Service for a frontend; two for a moment, while one takes over from the other.
    claims: HashMap<Frontend, Vec<(Arc<NamespacedName>, Answerers)>>,
}

/// Frontends whose flows are to be looked at, each with those who may go on answering them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Served(HashMap<Frontend, Answerers>);

impl Register {
    /// An empty one. UDP flows always count, TCP connections where `tcp` says so.
    pub fn new(tcp: bool) -> Register {
        Register { tcp, services: HashMap::new(), claims: HashMap::new() }
    }

    /// Takes in what changed, and returns the frontends that may have stale flows by that.
    pub fn update(&mut self, snapshot: &Snapshot, changes: &ChangeSet) -> Served {
        let touched: Vec<Frontend> =
            changes.services.iter().flat_map(|key| self.update_service(snapshot, key)).collect();
        self.served(touched)
    }

    /// All frontends.
    pub fn everything(&self) -> Served {
        self.served(self.claims.keys().copied())
    }

    fn update_service(&mut self, snapshot: &Snapshot, key: &NamespacedName) -> Vec<Frontend> {
        let known = self.services.remove_entry(key);
        let (key, old) = known.unwrap_or_else(|| (Arc::new(key.clone()), Vec::new()));
        let new = snapshot.service(&key).map(|service| self.answered(service, snapshot)).unwrap_or_default();
        let all: BTreeSet<Frontend> = old.iter().chain(new.keys()).copied().collect();
        let mut touched = Vec::new();
        for frontend in all {
            let (before, after) = (self.claim(&frontend, &key, new.get(&frontend)), new.get(&frontend));
            if may_leave_stale_flows(&frontend, before.as_deref(), after.map(Arc::as_ref)) {
                touched.push(frontend);
            }
        }
        if !new.is_empty() {
            self.services.insert(key, new.into_keys().collect());
        }
        touched
    }

    /// Replaces a Service's claim on a frontend, and returns the former one.
    fn claim(
        &mut self,
        frontend: &Frontend,
        key: &Arc<NamespacedName>,
        answerers: Option<&Answerers>,
    ) -> Option<Answerers> {
        let claims = self.claims.entry(*frontend).or_default();
        let at = claims.iter().position(|(owner, _)| owner == key);
        let before = at.map(|at| claims.swap_remove(at).1);
        claims.extend(answerers.map(|answerers| (key.clone(), answerers.clone())));
        if claims.is_empty() {
            self.claims.remove(frontend);
        }
        before
    }

    fn served(&self, frontends: impl IntoIterator<Item = Frontend>) -> Served {
        let served = |frontend| {
            let answerers = match self.claims.get(&frontend).map(Vec::as_slice) {
                Some([(_, only)]) => only.clone(),
                Some(many) => Arc::new(many.iter().flat_map(|(_, some)| some.iter().copied()).collect()),
                None => Answerers::default(),
            };
            (frontend, answerers)
        };
        Served(frontends.into_iter().map(served).collect())
    }

    /// The frontends of a Service, each with those who may go on answering there.
    fn answered(&self, service: &Service, snapshot: &Snapshot) -> BTreeMap<Frontend, Answerers> {
        let mut answered = BTreeMap::new();
        let ports = || service.ports.iter().filter(|port| self.looks_after(port.protocol));
        if ports().next().is_none() {
            return answered; // As of most Services.
        }
        let served_by = ServedBy::of(snapshot.slices_of(&service.key));
        for port in ports() {
            let answerers = Arc::new(answerers(port, served_by.at(port)));
            for frontend in frontends(service, port) {
                answered.insert(frontend, answerers.clone());
            }
        }
        answered
    }

    fn looks_after(&self, protocol: Protocol) -> bool {
        match protocol {
            Protocol::Udp => true,
            Protocol::Tcp => self.tcp,
            Protocol::Sctp => false,
        }
    }
}

/// Every address and port at which clients may know a Service port.
fn frontends(service: &Service, port: &ServicePort) -> Vec<Frontend> {
    let cluster_ips = service.cluster_ips();
    let of_known_family =
        |address: &&IpAddr| cluster_ips.iter().any(|ip| Family::of(*ip) == Family::of(**address));
    let external = service.external_ips.iter().chain(&service.load_balancer_ips).filter(of_known_family);
    let at = |address: &IpAddr| Frontend::Address(*address, port.protocol, port.port.get());
    let node_ports = port.node_port.into_iter().flat_map(|node_port| {
        let on_node = move |ip: &IpAddr| Frontend::NodePort(Family::of(*ip), port.protocol, node_port.get());
        cluster_ips.iter().map(on_node)
    });
    cluster_ips.iter().chain(external).map(at).chain(node_ports).collect()
}

/// The endpoints of a port, in all families, that may go on answering the flows that they have.
fn answerers<'a>(port: &ServicePort, served: &[(&'a EndpointSlice, u16)]) -> BTreeSet<SocketAddr> {
    let may_go_on = |endpoint: &&Endpoint| match port.protocol {
        // One that shuts down, or is not ready, finishes what it has begun.
        Protocol::Tcp | Protocol::Sctp => true,
        Protocol::Udp => endpoint.serving,
    };
    let of_slice = |&(slice, number): &(&'a EndpointSlice, u16)| {
        let endpoints = slice.endpoints.iter().filter(may_go_on);
        endpoints.map(move |endpoint| SocketAddr::new(endpoint.address, number))
    };
    served.iter().flat_map(of_slice).collect()
}

/// Whether a frontend may have stale flows after that change of those who answer there.
fn may_leave_stale_flows(
    frontend: &Frontend,
    before: Option<&BTreeSet<SocketAddr>>,
    after: Option<&BTreeSet<SocketAddr>>,
) -> bool {
    let is_udp = protocol_of(frontend) == Protocol::Udp;
    match (before, after) {
        (None, None) => false,
        // Datagrams may have come before the rules did.
        (None, Some(_)) => is_udp,
        (Some(_), None) => true,
        (Some(before), Some(after)) => {
            !before.is_subset(after) || is_udp && before.is_empty() && !after.is_empty()
        }
    }
}

impl Served {
    /// Whether there is nothing to look at.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What kinds of flow the frontends have.
    pub fn kinds(&self) -> BTreeSet<(Family, Protocol)> {
        self.0.keys().map(|frontend| (frontend.family(), protocol_of(frontend))).collect()
    }

    /// Takes in what became known later.
    pub fn extend(&mut self, later: Served) {
        self.0.extend(later.0);
    }

    /// Whether a flow was sent to one of the frontends, and is answered by somebody who serves it no longer, or by nobody.
    pub fn is_stale(&self, flow: &Flow) -> bool {
        let Some(protocol) =
            [Protocol::Tcp, Protocol::Udp].into_iter().find(|known| known.number() == flow.protocol)
        else {
            return false;
        };
        let is_translated = flow.status.contains(Status::DESTINATION_NAT);
        // A TCP connection that is not translated never was a Service's.
        if protocol == Protocol::Tcp && !is_translated {
            return false;
        }
        self.answerers(flow, protocol, is_translated)
            .is_some_and(|answerers| !answerers.contains(&flow.reply.source))
    }

    fn answerers(&self, flow: &Flow, protocol: Protocol, is_translated: bool) -> Option<&Answerers> {
        let destination = flow.original.destination;
        let at_address = Frontend::Address(destination.ip(), protocol, destination.port());
        if let Some(answerers) = self.0.get(&at_address) {
            return Some(answerers);
        }
        // What goes out masqueraded to a port of that number elsewhere has nothing to do with this node's ports.
        if !is_translated && flow.status.contains(Status::SOURCE_NAT) {
            return None;
        }
        self.0.get(&Frontend::NodePort(Family::of(destination.ip()), protocol, destination.port()))
    }
}

fn protocol_of(frontend: &Frontend) -> Protocol {
    match frontend {
        Frontend::Address(_, protocol, _) | Frontend::NodePort(_, protocol, _) => *protocol,
    }
}

#[cfg(test)]
mod tests {
    use weft_netlink::conntrack::Tuple;
    use weft_types::{EndpointPort, EndpointSlice, Object, ObjectKey, ServiceKind};

    use super::*;

    const CLUSTER_IP: &str = "10.96.0.10:53";

    fn name(name: &str) -> NamespacedName {
        NamespacedName::new("shop", name)
    }

    fn service(key: &str) -> Object {
        let port = |protocol: Protocol, node_port: u16| ServicePort {
            name: protocol.to_string(),
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
            name: protocol.to_string(),
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

    fn flow(protocol: Protocol, destination: &str, reply: &str, status: Status) -> Flow {
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
        flow(Protocol::Udp, destination, reply, Status::DESTINATION_NAT)
    }

    /// A register and its cluster.
    struct World(Register, Snapshot);

    impl World {
        fn new(tcp: bool) -> World {
            World(Register::new(tcp), Snapshot::default())
        }

        fn put(&mut self, objects: impl IntoIterator<Item = Object>) -> Served {
            let mut changes = ChangeSet::default();
            objects.into_iter().for_each(|object| self.1.apply(object, &mut changes));
            self.0.update(&self.1, &changes)
        }

        fn delete(&mut self, key: ObjectKey) -> Served {
            let mut changes = ChangeSet::default();
            self.1.delete(&key, &mut changes);
            self.0.update(&self.1, &changes)
        }
    }

    #[test]
    fn a_udp_flow_is_stale_when_its_endpoint_no_longer_serves() {
        let mut world = World::new(false);
        world.put([service("dns"), slice("dns", &[("10.244.1.2", true), ("10.244.1.3", true)])]);
        let served = world.put([slice("dns", &[("10.244.1.2", false), ("10.244.1.3", true)])]);
        assert!(served.is_stale(&udp(CLUSTER_IP, "10.244.1.2:5353")));
        assert!(served.is_stale(&udp("172.30.0.11:30053", "10.244.1.2:5353")), "any address at the NodePort");
        assert!(served.is_stale(&udp(CLUSTER_IP, "10.244.1.3:53")), "another port");
        assert!(!served.is_stale(&udp(CLUSTER_IP, "10.244.1.3:5353")));
        assert!(!served.is_stale(&udp("10.96.0.11:53", "10.244.1.2:5353")), "another address");
        assert!(!served.is_stale(&udp("[fd00::1]:30053", "[fd00::2]:53")), "another family");
    }

    #[test]
    fn a_flow_that_came_before_the_rules_is_stale_and_one_to_elsewhere_is_not() {
        let mut world = World::new(false);
        let served = world.put([service("dns"), slice("dns", &[("10.244.1.2", true)])]);
        let untranslated = |destination| flow(Protocol::Udp, destination, destination, Status::default());
        assert!(served.is_stale(&untranslated(CLUSTER_IP)));
        assert!(served.is_stale(&untranslated("172.30.0.11:30053")));
        let outgoing = flow(Protocol::Udp, "192.0.2.1:30053", "192.0.2.1:30053", Status::SOURCE_NAT);
        assert!(!served.is_stale(&outgoing));
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
        assert!(world.0.everything().is_empty() && world.0.services.is_empty());
    }

    #[test]
    fn tcp_counts_only_where_asked_for_and_only_when_the_endpoint_is_gone() {
        let tcp = |reply| flow(Protocol::Tcp, CLUSTER_IP, reply, Status::DESTINATION_NAT);
        for ends_tcp in [false, true] {
            let mut world = World::new(ends_tcp);
            world.put([service("dns"), slice("dns", &[("10.244.1.2", true), ("10.244.1.3", true)])]);
            world.put([slice("dns", &[("10.244.1.3", false)])]);
            let served = world.0.everything();
            assert_eq!(served.is_stale(&tcp("10.244.1.2:5353")), ends_tcp);
            assert!(!served.is_stale(&tcp("10.244.1.3:5353")), "one that shuts down finishes");
            assert!(!served.is_stale(&flow(Protocol::Tcp, CLUSTER_IP, CLUSTER_IP, Status::default())));
        }
    }
}
