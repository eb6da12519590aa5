//! From the cluster to the plans of its Services: what changes when the cluster does. Pure: a snapshot comes
//! in, plans go to whoever carries them out ([`Stage`]); whether they are in the kernel is for `sync.rs`.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use weft_types::{ChangeSet, EndpointSlice, NamespacedName, Service, Snapshot};

use super::host_ports::HostPort;
use super::node::{NodeChanges, NodeConfig, NodeContext};
use super::ownership::{Contested, Ownership};
use super::plan::{Frontend, Scope, ServicePlan};
use super::problem::Problem;

mod service;

/// Who carries plans out.
pub trait Stage {
    /// From the next commit on, a Service has this plan instead of the one before. One that is gone, or of
    /// which nothing can be served, has a plan without frontends.
    fn stage(&mut self, service: &Arc<NamespacedName>, plan: ServicePlan);

    /// From the next commit on, the node is so configured.
    fn stage_node(&mut self, node: &NodeConfig);
}

/// What all plans together amount to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// How many Services want endpoints of this node for clients in the cluster, and have some on other nodes
    /// only.
    pub without_internal: usize,
    /// The same for clients from outside.
    pub without_external: usize,
    /// Grows whenever the problems of a Service may have changed.
    pub problems: u64,
}

/// Plans, and what the plans depend on besides the Service itself. The plans are kept by whoever carries them
/// out.
#[derive(Debug)]
pub struct Planner {
    /// The name of this Node.
    node: String,
    /// The zone that the Services are planned for.
    zone: Option<String>,
    /// This node as it was staged last.
    staged: NodeConfig,
    /// The node's first address of each family.
    addresses: Vec<IpAddr>,
    ownership: Ownership,
    /// What keeps part of a Service from being served; nothing of those that are served in full.
    problems: BTreeMap<Arc<NamespacedName>, Vec<Problem>>,
    /// The Services that lack endpoints of this node, for clients in the cluster and from outside.
    without_local: [BTreeSet<Arc<NamespacedName>>; 2],
    /// How often problems may have changed.
    problem_changes: u64,
}

impl Planner {
    /// A planner for the Node of that name that knows of nothing yet.
    pub fn new(node: impl Into<String>) -> Planner {
        Planner {
            node: node.into(),
            zone: None,
            staged: NodeConfig::default(),
            addresses: Vec::new(),
            ownership: Ownership::default(),
            problems: BTreeMap::new(),
            without_local: Default::default(),
            problem_changes: 0,
        }
    }

    /// Plans everything for the first time.
    pub fn start(&mut self, snapshot: &Snapshot, stage: &mut (impl Stage + ?Sized)) {
        self.update_node(snapshot, &surroundings(snapshot), stage);
        for service in snapshot.services() {
            self.ownership.replace(&service.key, Some(service), &mut Contested::default());
        }
        for (service, slices) in snapshot.services_with_slices() {
            let slices: Vec<&EndpointSlice> = slices.iter().map(|slice| &**slice).collect();
            self.update_service(&service.key, Some((service, &slices)), stage);
        }
    }

    /// Plans anew what changed.
    pub fn update(&mut self, snapshot: &Snapshot, changes: &ChangeSet, stage: &mut (impl Stage + ?Sized)) {
        let node = self.update_node(snapshot, changes, stage);
        let concerned = self.update_ownership(snapshot, changes);
        // Who may connect to a load balancer's address may depend on those of this node.
        let is_replanned =
            |service: &&Service| node.moved || (node.readdressed && !service.source_ranges.is_empty());
        let all = (node.moved || node.readdressed).then(|| snapshot.services().filter(is_replanned));
        let all = all.into_iter().flatten().map(|service| &service.key);
        let concerned = concerned.iter().chain(&node.contested);
        let concerned = concerned.map(|name| &**name).chain(&changes.services);
        for key in all.chain(concerned).collect::<BTreeSet<_>>() {
            let slices: Vec<_> = snapshot.slices_of(key).collect();
            let service = snapshot.service(key).map(|service| (service, &slices[..]));
            self.update_service(key, service, stage);
        }
    }

    /// What keeps parts of Services from being served, now.
    pub fn problems(&self) -> &BTreeMap<Arc<NamespacedName>, Vec<Problem>> {
        &self.problems
    }

    /// The Services that have the same numbers as ports of containers at this node's addresses, with what is
    /// to be said. The function tells whether a Service is served at a frontend.
    pub fn host_port_conflicts<'a>(
        &'a self,
        host_ports: &'a [HostPort],
        is_served: impl Fn(&NamespacedName, &Frontend) -> bool + 'a,
    ) -> impl Iterator<Item = (NamespacedName, Problem)> + 'a {
        let is_here = |host_port: &&HostPort| self.addresses.iter().any(|own| host_port.at.contains(own));
        host_ports.iter().filter(is_here).filter_map(move |HostPort { number, container, .. }| {
            let service = NamespacedName::clone(self.ownership.owner(number)?);
            let problem = match is_served(&service, number) {
                true => Problem::HidesHostPort { frontend: *number, container: *container },
                false => Problem::HiddenByHostPort { frontend: *number, container: *container },
            };
            Some((service, problem))
        })
    }

    /// Whether a Service has the port for its health checks, by the last plan.
    pub fn answers_health_checks(&self, service: &NamespacedName) -> bool {
        self.ownership.answers_health_checks(service)
    }

    /// Which Service has which frontend, now.
    pub fn ownership(&self) -> &Ownership {
        &self.ownership
    }

    /// The node's first address of each family, now.
    pub fn addresses(&self) -> &[IpAddr] {
        &self.addresses
    }

    /// What all plans together amount to, now.
    pub fn totals(&self) -> Totals {
        let [without_internal, without_external] = self.without_local.each_ref().map(BTreeSet::len);
        Totals { without_internal, without_external, problems: self.problem_changes }
    }

    /// The Services that get or lose a frontend because others changed.
    fn update_ownership(
        &mut self,
        snapshot: &Snapshot,
        changes: &ChangeSet,
    ) -> BTreeSet<Arc<NamespacedName>> {
        let mut contested = Contested::default();
        for key in &changes.services {
            self.ownership.replace(key, snapshot.service(key), &mut contested);
        }
        self.ownership.affected(contested)
    }

    fn update_service(
        &mut self,
        key: &NamespacedName,
        service: Option<(&Service, &[&EndpointSlice])>,
        stage: &mut (impl Stage + ?Sized),
    ) {
        let key = self.ownership.name(key);
        let (plan, problems) = match service {
            Some((service, slices)) => {
                let (node, zone, addresses) = (&*self.node, self.zone.as_deref(), &*self.addresses);
                service::plan(service, slices, NodeContext { node, zone, addresses }, &self.ownership)
            }
            None => Default::default(),
        };
        let has_problems = !problems.is_empty();
        let had_problems = match has_problems {
            true => self.problems.insert(key.clone(), problems).is_some(),
            false => self.problems.remove(&key).is_some(),
        };
        self.problem_changes += u64::from(has_problems || had_problems);
        for (without, scope) in self.without_local.iter_mut().zip([Scope::Internal, Scope::External]) {
            match plan.lacks_local_endpoints(scope) {
                true => drop(without.insert(key.clone())),
                false => drop(without.remove(&key)),
            }
        }
        stage.stage(&key, plan);
    }

    /// Takes over what all Services are planned for.
    fn update_node(
        &mut self,
        snapshot: &Snapshot,
        changes: &ChangeSet,
        stage: &mut (impl Stage + ?Sized),
    ) -> NodeChanges {
        let node = snapshot.node(&self.node);
        let is_changed = changes.nodes.contains(&self.node);
        let mut readdressed = false;
        if is_changed || !changes.service_cidrs.is_empty() {
            let config = NodeConfig::new(node, snapshot.service_cidrs().flat_map(|(_, networks)| networks));
            readdressed = renew(&mut self.addresses, config.primary_addresses());
            if self.staged != config {
                stage.stage_node(&config);
                self.staged = config;
            }
        }
        let contested = self.ownership.readdress(node.map(|node| &*node.addresses).unwrap_or_default());
        let moved = renew(&mut self.zone, node.and_then(|node| node.zone.clone()));
        NodeChanges { moved, readdressed, contested }
    }
}

/// Puts a value in place of another one. Returns whether they differ.
fn renew<T: PartialEq>(held: &mut T, new: T) -> bool {
    let differ = *held != new;
    *held = new;
    differ
}

/// Everything in a snapshot, as if it had just come.
pub fn everything(snapshot: &Snapshot) -> ChangeSet {
    let services = snapshot.services().map(|service| service.key.clone()).collect();
    ChangeSet { services, ..surroundings(snapshot) }
}

/// Everything but the Services.
fn surroundings(snapshot: &Snapshot) -> ChangeSet {
    ChangeSet {
        nodes: snapshot.nodes().map(|node| node.name.clone()).collect(),
        namespaces: snapshot.namespaces().map(str::to_owned).collect(),
        service_cidrs: snapshot.service_cidrs().map(|(name, _)| name.to_owned()).collect(),
        ..ChangeSet::default()
    }
}
