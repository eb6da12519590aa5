//! Which nodes may have a load balancer's address: one rule for ARP, Neighbor Discovery and BGP.
//!
//! - Not those that load balancers are not to send to (KEP-1143), nor those that are about to go; unless that
//!   would leave none.
//! - Where a Service has the external traffic policy Local, those with endpoints alone: ready ones; where the
//!   Service has none of these on any node, those that still serve while they end (KEP-1669).

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use weft_types::{Endpoint, NamespacedName, Node, Service, Snapshot, well_known};

/// Whether some Service's addresses depend on where its endpoints are.
pub fn needs_endpoints(services: &Snapshot) -> bool {
    services.services().any(Service::balances_locally)
}

/// The Services of each load balancer address. Several may share one.
pub fn by_address(services: &Snapshot) -> BTreeMap<IpAddr, Vec<&Service>> {
    let mut found: BTreeMap<IpAddr, Vec<&Service>> = BTreeMap::new();
    for service in services.services() {
        for &address in &service.load_balancer_ips {
            found.entry(address).or_default().push(service);
        }
    }
    found
}

/// The nodes that addresses may be on.
#[derive(Clone, Debug)]
pub struct Hosts<'a> {
    open: Vec<&'a Node>,
    slices: Option<&'a Snapshot>,
}

impl<'a> Hosts<'a> {
    /// Of all Nodes, and all EndpointSlices; none of these as long as they are not needed
    /// ([`needs_endpoints`]) or not listed.
    pub fn new(nodes: &'a Snapshot, slices: Option<&'a Snapshot>) -> Hosts<'a> {
        Hosts { open: open(nodes), slices }
    }

    /// The nodes that may have an address of these Services.
    pub fn of(&self, services: &[&Service]) -> Vec<&'a Node> {
        match self.with_endpoints_of_all(services) {
            Some(local) => {
                self.open.iter().filter(|node| local.contains(node.name.as_str())).copied().collect()
            }
            None => self.open.clone(),
        }
    }

    /// The addresses of `services` that a node may have.
    pub fn addresses(&self, node: &str, services: &Snapshot) -> BTreeSet<IpAddr> {
        if !self.open.iter().any(|open| open.name == node) {
            return BTreeSet::new();
        }
        let is_here = |services: &[&Service]| {
            self.with_endpoints_of_all(services).is_none_or(|local| local.contains(node))
        };
        let addresses = by_address(services).into_iter();
        addresses.filter(|(_, services)| is_here(services)).map(|(address, _)| address).collect()
    }

    /// The nodes that have endpoints for all of these Services of which the traffic policy is Local; where no
    /// node that may be chosen has them for all, those that have them for one. None where no Service asks for
    /// that.
    fn with_endpoints_of_all(&self, services: &[&Service]) -> Option<BTreeSet<&'a str>> {
        let local = services.iter().filter(|service| service.balances_locally());
        let sets: Vec<BTreeSet<&str>> = local.map(|service| self.with_endpoints(&service.key)).collect();
        let common = sets.iter().cloned().reduce(|all, next| &all & &next)?;
        let may_be_chosen = self.open.iter().any(|node| common.contains(node.name.as_str()));
        Some(if may_be_chosen { common } else { sets.into_iter().flatten().collect() })
    }

    fn with_endpoints(&self, service: &NamespacedName) -> BTreeSet<&'a str> {
        let nodes = |is_fit: fn(&Endpoint) -> bool| -> BTreeSet<&'a str> {
            let slices = self.slices.into_iter().flat_map(|slices| slices.slices_of(service));
            let endpoints = slices.flat_map(|slice| &slice.endpoints).filter(|endpoint| is_fit(endpoint));
            endpoints.filter_map(|endpoint| endpoint.node.as_deref()).collect()
        };
        let ready = nodes(|endpoint| endpoint.ready);
        if ready.is_empty() { nodes(|endpoint| endpoint.serving && endpoint.terminating) } else { ready }
    }
}

/// The nodes to which load balancers may send. Where every node says that it is none of them, as the only one
/// of a kubeadm cluster does, the label means nothing.
fn open(nodes: &Snapshot) -> Vec<&Node> {
    let is_open = |node: &&Node| node.labels.get(well_known::label::EXCLUDE_FROM_BALANCERS).is_none();
    let open: Vec<&Node> = nodes.nodes().filter(is_open).collect();
    let open = if open.is_empty() { nodes.nodes().collect() } else { open };
    let staying: Vec<&Node> = open.iter().copied().filter(|node| !node.leaving).collect();
    if staying.is_empty() { open } else { staying }
}

#[cfg(test)]
mod tests {
    use weft_types::{ChangeSet, EndpointSlice, Labels, Object, ServiceKind, TrafficPolicy};

    use super::*;

    #[derive(Default)]
    struct World {
        services: Snapshot,
        slices: Snapshot,
        nodes: Snapshot,
    }

    fn put(snapshot: &mut Snapshot, object: Object) {
        snapshot.apply(object, &mut ChangeSet::default());
    }

    const READY: (bool, bool, bool) = (true, true, false);
    const STARTING: (bool, bool, bool) = (false, false, false);
    const ENDING: (bool, bool, bool) = (false, true, true);
    const ENDED: (bool, bool, bool) = (false, false, true);

    impl World {
        fn node(&mut self, name: &str, is_excluded: bool, leaving: bool) {
            let label = (well_known::label::EXCLUDE_FROM_BALANCERS, "");
            let labels: Labels = is_excluded.then_some(label).into_iter().collect();
            put(
                &mut self.nodes,
                Object::Node(Node { name: name.into(), labels, leaving, ..Node::default() }),
            );
        }

        fn of(count: u8) -> World {
            let mut world = World::default();
            (1..=count).for_each(|number| world.node(&format!("node{number}"), false, false));
            world
        }

        /// A Service with the address 192.0.2.1.
        fn service(&mut self, name: &str, policy: TrafficPolicy) {
            let key = NamespacedName::new("shop", name);
            let kind = ServiceKind::ClusterIp(vec!["10.96.0.9".parse().unwrap()]);
            let mut service = Service::new(key, kind, Vec::new());
            service.load_balancer_ips = vec!["192.0.2.1".parse().unwrap()];
            service.external_policy = policy;
            put(&mut self.services, Object::Service(service));
        }

        /// Of a Service, on nodes: ready, serving, terminating.
        fn endpoints(&mut self, service: &str, endpoints: &[(&str, (bool, bool, bool))]) {
            let endpoints = endpoints.iter().map(|&(node, (ready, serving, terminating))| Endpoint {
                node: Some(node.into()),
                ready,
                serving,
                terminating,
                ..Endpoint::ready("10.244.0.9".parse().unwrap())
            });
            let key = NamespacedName::new("shop", service);
            let (service, endpoints) = (key.clone(), endpoints.collect());
            let slice = EndpointSlice { key, service, ports: Vec::new(), endpoints };
            put(&mut self.slices, Object::EndpointSlice(slice));
        }

        /// The names of those that may have the address, which each finds by itself, too.
        fn hosts(&self) -> String {
            let hosts = Hosts::new(&self.nodes, Some(&self.slices));
            let services = by_address(&self.services);
            let all = hosts.of(services.values().next().unwrap());
            for node in self.nodes.nodes() {
                let has = !hosts.addresses(&node.name, &self.services).is_empty();
                assert_eq!(has, all.iter().any(|one| one.name == node.name), "{}", node.name);
            }
            let mut names: Vec<&str> = all.iter().map(|node| node.name.as_str()).collect();
            names.sort_unstable();
            names.join(" ")
        }
    }

    #[test]
    fn nodes_that_are_excluded_or_leave_have_no_address_unless_all_are_and_do() {
        let hosts = |nodes: &[(&str, bool, bool)]| {
            let mut world = World::default();
            nodes.iter().for_each(|&(name, is_excluded, leaving)| world.node(name, is_excluded, leaving));
            world.service("web", TrafficPolicy::Cluster);
            world.hosts()
        };
        let (excluded, usual, leaving) =
            (("node1", true, false), ("node2", false, false), ("node3", false, true));
        assert_eq!(hosts(&[excluded, usual, leaving]), "node2");
        assert_eq!(hosts(&[excluded]), "node1", "as kubeadm labels its only node");
        assert_eq!(hosts(&[excluded, ("node2", true, true)]), "node1");
        assert_eq!(hosts(&[leaving]), "node3");
    }

    #[test]
    fn with_policy_local_only_nodes_with_ready_endpoints_have_it_and_with_ending_ones_where_none_is_ready() {
        let mut world = World::of(4);
        world.service("web", TrafficPolicy::Local);
        assert!(needs_endpoints(&world.services));
        assert_eq!(world.hosts(), "", "without endpoints nobody has it");
        let rest = [("node2", STARTING), ("node3", ENDING), ("node4", ENDED)];
        world.endpoints("web", &[&[("node1", READY)], &rest[..]].concat());
        assert_eq!(world.hosts(), "node1");
        world.endpoints("web", &rest);
        assert_eq!(world.hosts(), "node3", "what comes meanwhile is still served");
        // A Service that publishes addresses that are not ready (publishNotReadyAddresses).
        world.endpoints("web", &[("node2", (true, true, true)), ("node3", ENDING)]);
        assert_eq!(world.hosts(), "node2");
        world.service("web", TrafficPolicy::Cluster);
        assert_eq!(world.hosts(), "node1 node2 node3 node4");
    }

    #[test]
    fn services_that_share_an_address_are_served_together_where_that_can_be() {
        let mut world = World::of(3);
        world.service("a", TrafficPolicy::Local);
        world.service("b", TrafficPolicy::Local);
        world.service("c", TrafficPolicy::Cluster);
        world.endpoints("a", &[("node1", READY), ("node2", READY)]);
        world.endpoints("b", &[("node2", READY), ("node3", READY)]);
        assert_eq!(world.hosts(), "node2");
        world.node("node2", true, false);
        assert_eq!(world.hosts(), "node1 node3", "the one that has both may not");
        world.endpoints("b", &[("node3", READY)]);
        assert_eq!(world.hosts(), "node1 node3");
    }
}
