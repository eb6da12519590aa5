//! From the cluster to the tables: what they should hold, and what of that changes when the cluster does. Pure: a
//! snapshot comes in, a transaction goes out; whether it was committed is for `sync.rs`.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::mem::{replace, take};
use std::net::IpAddr;
use std::sync::Arc;

use weft_nftables::{Element, Family, Observed, Set, Table, Transaction, diff};
use weft_types::{ChangeSet, EndpointSlice, Family as AddressFamily, NamespacedName, Service, Snapshot};

use crate::config::{Config, DetectLocal, NodePortAddresses};
use crate::dataplane::nftables::affinity_numbers::Numbers;
use crate::dataplane::nftables::elements::{Adopted, Elements, Place, of_node, of_service, replaced};
use crate::dataplane::nftables::refcounts::{Delta, Ledger};
use crate::dataplane::nftables::ruleset::{self, SetName};
use crate::host_ports::HostPort;
use crate::services::endpoints::Here;
use crate::services::ownership::{Claims, Disputes};
use crate::services::plan::{Frontend, Scope, ServicePlan, Slots, plan};
use crate::services::problem::Problem;

/// What all plans together amount to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// How many Services want endpoints of this node for clients in the cluster, and have some on other nodes only.
    pub without_internal: usize,
    /// The same for clients from outside.
    pub without_external: usize,
    /// Grows whenever the problems of a Service may have changed.
    pub problems: u64,
}

/// Plans, and what was planned so far.
#[derive(Debug)]
pub struct Planner {
    config: Config,
    /// The fixed chains are no longer those of the last update.
    layout_changed: bool,
    /// The zone that the Services are planned for.
    zone: Option<String>,
    /// The node's first address of each family that they are planned for.
    addresses: Vec<IpAddr>,
    services: HashMap<Arc<NamespacedName>, ServicePlan>,
    node: Elements,
    claims: Claims,
    numbers: Numbers,
    /// What keeps part of a Service from being served; nothing of those that are served in full.
    problems: BTreeMap<Arc<NamespacedName>, Vec<Problem>>,
    totals: Totals,
    ledger: Ledger,
    adopted: Adopted,
}

/// What changed of the node itself.
struct Around {
    /// The zone that it stands in.
    moved: bool,
    /// Its addresses.
    readdressed: bool,
    /// The Services whose external addresses are those, or were.
    disputed: BTreeSet<Arc<NamespacedName>>,
}

impl Planner {
    /// A planner that knows of nothing yet.
    pub fn new(config: Config) -> Planner {
        Planner {
            config,
            layout_changed: false,
            zone: None,
            addresses: Vec::new(),
            services: HashMap::new(),
            node: Elements::new(),
            claims: Claims::default(),
            numbers: Numbers::default(),
            problems: BTreeMap::new(),
            totals: Totals::default(),
            ledger: Ledger::default(),
            adopted: Adopted::default(),
        }
    }

    /// Takes over the slots that endpoints have in the kernel, for Services that are not planned yet.
    pub fn adopt(&mut self, observed: &Observed) {
        self.adopted = Adopted::new(observed);
    }

    /// Plans everything for the first time, and returns what that adds to the bare tables.
    pub fn start(&mut self, snapshot: &Snapshot) -> Transaction {
        let mut delta = Delta::default();
        self.update_surroundings(snapshot, &surroundings(snapshot), &mut delta);
        for service in snapshot.services() {
            self.claims.replace(&service.key, Some(service), &mut Disputes::default());
        }
        for (service, slices) in snapshot.services_with_slices() {
            let slices: Vec<&EndpointSlice> = slices.iter().map(|slice| &**slice).collect();
            self.update_service(&service.key, Some((service, &slices)), &mut delta);
        }
        self.ledger.settle(delta)
    }

    /// Plans anew what changed, and returns what that changes in the tables.
    pub fn update(&mut self, snapshot: &Snapshot, changes: &ChangeSet) -> Transaction {
        let mut delta = Delta::default();
        let around = self.update_surroundings(snapshot, changes, &mut delta);
        let concerned = self.update_claims(snapshot, changes);
        // Who may connect to a load balancer's address may depend on those of this node.
        let is_replanned =
            |service: &&Service| around.moved || (around.readdressed && !service.source_ranges.is_empty());
        let all = (around.moved || around.readdressed).then(|| snapshot.services().filter(is_replanned));
        let all = all.into_iter().flatten().map(|service| &service.key);
        let concerned = concerned.iter().chain(&around.disputed);
        let concerned = concerned.map(|name| &**name).chain(&changes.services);
        for key in all.chain(concerned).collect::<BTreeSet<_>>() {
            let slices: Vec<_> = snapshot.slices_of(key).collect();
            let service = snapshot.service(key).map(|service| (service, &slices[..]));
            self.update_service(key, service, &mut delta);
        }
        self.ledger.settle(delta)
    }

    /// Whether the fixed chains changed since this was asked the last time. What an update returns does not change those.
    pub fn layout_changed(&mut self) -> bool {
        take(&mut self.layout_changed)
    }

    /// Forgets the slots that nobody asked for: all Services are planned.
    pub fn forget_adopted(&mut self) {
        self.adopted = Adopted::default();
    }

    /// The tables without anything that depends on the cluster: what the first update adds to.
    pub fn bare_tables(&self) -> Vec<Table> {
        Family::BOTH.map(|family| ruleset::table(&self.config, family)).into()
    }

    /// Everything that the tables should hold.
    pub fn tables(&self) -> Vec<Table> {
        let mut elements = self.elements();
        Family::BOTH.map(|family| self.table(family, &mut elements)).into()
    }

    /// What makes all of that where there is nothing.
    pub fn fill(&self) -> Transaction {
        let mut transaction = diff(&self.bare_tables(), &Observed::default());
        self.ledger.fill(self.elements(), &mut transaction);
        transaction
    }

    /// How many Services have a place in the tables.
    pub fn services(&self) -> usize {
        self.services.len()
    }

    /// What keeps parts of Services from being served, now.
    pub fn problems(&self) -> &BTreeMap<Arc<NamespacedName>, Vec<Problem>> {
        &self.problems
    }

    /// The Services that have the same numbers as ports of containers at this node's addresses, with what is to be said.
    pub fn hide(&self, host_ports: &[HostPort]) -> impl Iterator<Item = (NamespacedName, Problem)> {
        let is_here = |host_port: &&HostPort| self.addresses.iter().any(|own| host_port.at.contains(own));
        host_ports.iter().filter(is_here).filter_map(|HostPort { number, container, .. }| {
            let service = NamespacedName::clone(self.claims.holder(number)?);
            let is_served = self.services.get(&service).is_some_and(|plan| plan.frontend(number).is_some());
            let problem = match is_served {
                true => Problem::HidesHostPort { frontend: *number, container: *container },
                false => Problem::HiddenByHostPort { frontend: *number, container: *container },
            };
            Some((service, problem))
        })
    }

    /// Whether a Service has the port for its health checks, by the last plan.
    pub fn answers_health_checks(&self, service: &NamespacedName) -> bool {
        self.claims.answers_health_checks(service)
    }

    /// Who has which frontend, now.
    pub fn claims(&self) -> &Claims {
        &self.claims
    }

    /// Which of the node's addresses serve NodePorts.
    pub fn nodeport_addresses(&self) -> &NodePortAddresses {
        &self.config.nodeport_addresses
    }

    /// The node's first address of each family, now.
    pub fn addresses(&self) -> &[IpAddr] {
        &self.addresses
    }

    /// Every frontend that is served, with the Service that has it.
    pub fn frontends(&self) -> impl Iterator<Item = (Frontend, &Arc<NamespacedName>)> {
        self.services
            .iter()
            .flat_map(|(name, plan)| plan.frontends.iter().map(move |plan| (plan.frontend, name)))
    }

    /// What all plans together amount to, now.
    pub fn totals(&self) -> Totals {
        self.totals
    }

    /// The Services that get or lose a frontend because others changed.
    fn update_claims(&mut self, snapshot: &Snapshot, changes: &ChangeSet) -> BTreeSet<Arc<NamespacedName>> {
        let mut disputes = Disputes::default();
        for key in &changes.services {
            self.claims.replace(key, snapshot.service(key), &mut disputes);
        }
        self.claims.settle(disputes)
    }

    fn update_service(
        &mut self,
        key: &NamespacedName,
        service: Option<(&Service, &[&EndpointSlice])>,
        delta: &mut Delta,
    ) {
        let known = self.services.remove_entry(key);
        let (key, old) = known.unwrap_or_else(|| (self.claims.name(key), ServicePlan::default()));
        let previous: &dyn Slots = if old.frontends.is_empty() { &self.adopted } else { &old };
        let affinities = self.numbers.assign(&key, service.map(|(service, _)| service));
        let (mut new, problems) = match service {
            Some((service, slices)) => {
                let (node, zone, addresses) = (&self.config.node, self.zone.as_deref(), &self.addresses);
                let here = Here { node, zone, addresses };
                plan(service, slices, here, &self.claims, &affinities, previous)
            }
            None => Default::default(),
        };
        let has_problems = !problems.is_empty();
        let had_problems = match has_problems {
            true => self.problems.insert(key.clone(), problems).is_some(),
            false => self.problems.remove(&key).is_some(),
        };
        self.totals.problems += u64::from(has_problems || had_problems);
        self.count(&old, &new);
        let (gone, come) = replaced(&old, &new, self.config.service_counters);
        delta.replace(gone, come);
        if !new.frontends.is_empty() {
            new.frontends.shrink_to_fit();
            self.services.insert(key, new);
        }
    }

    fn count(&mut self, old: &ServicePlan, new: &ServicePlan) {
        let Totals { without_internal, without_external, .. } = &mut self.totals;
        for (total, scope) in [(without_internal, Scope::Internal), (without_external, Scope::External)] {
            *total += usize::from(new.lacks_local_endpoints(scope));
            *total -= usize::from(old.lacks_local_endpoints(scope));
        }
    }

    /// Takes over what all Services are planned for.
    fn update_surroundings(&mut self, snapshot: &Snapshot, changes: &ChangeSet, delta: &mut Delta) -> Around {
        let readdressed = changes.nodes.contains(&self.config.node) && self.update_node(snapshot, delta);
        self.update_networks(snapshot, changes);
        let node = snapshot.node(&self.config.node);
        let disputed = self.claims.readdress(node.map(|node| &*node.addresses).unwrap_or_default());
        let moved = renew(&mut self.zone, node.and_then(|node| node.zone.clone()));
        Around { moved, readdressed, disputed }
    }

    /// Returns whether the node's addresses changed.
    fn update_node(&mut self, snapshot: &Snapshot, delta: &mut Delta) -> bool {
        let node = snapshot.node(&self.config.node);
        let primary = AddressFamily::BOTH.map(|family| node.and_then(|node| node.address(family)));
        let primary: Vec<IpAddr> = primary.into_iter().flatten().collect();
        let new = match self.config.nodeport_addresses {
            NodePortAddresses::Networks(_) => Elements::new(),
            NodePortAddresses::Primary => of_node(primary.iter().copied()),
        };
        delta.replace(replace(&mut self.node, new.clone()), new);
        renew(&mut self.addresses, primary)
    }

    /// Takes over the networks that the fixed chains name.
    fn update_networks(&mut self, snapshot: &Snapshot, changes: &ChangeSet) {
        if !changes.service_cidrs.is_empty() {
            let mut networks: Vec<_> =
                snapshot.service_cidrs().flat_map(|(_, networks)| networks).copied().collect();
            networks.sort();
            networks.dedup();
            self.layout_changed |= renew(&mut self.config.service_cidrs, networks);
        }
        if changes.nodes.contains(&self.config.node) {
            let networks =
                snapshot.node(&self.config.node).map(|node| node.pod_cidrs.clone()).unwrap_or_default();
            if self.config.detect_local == DetectLocal::NodeCidr {
                self.layout_changed |= renew(&mut self.config.cluster_cidrs, networks.clone());
            }
            self.layout_changed |= renew(&mut self.config.pod_cidrs, networks);
        }
    }

    /// All elements.
    fn elements(&self) -> BTreeMap<Place, Vec<Element>> {
        let mut elements: BTreeMap<Place, Vec<Element>> = BTreeMap::new();
        let counted = self.config.service_counters;
        let of_services = self.services.values().flat_map(|plan| of_service(plan, counted));
        for (place, key, data) in self.node.clone().into_iter().chain(of_services) {
            elements.entry(place).or_default().push((key, data));
        }
        for (_, elements) in elements.iter_mut().filter(|((_, set), _)| set.is_shared()) {
            elements.sort_unstable();
            elements.dedup();
        }
        elements
    }

    fn table(&self, family: Family, elements: &mut BTreeMap<Place, Vec<Element>>) -> Table {
        let mut table = ruleset::table(&self.config, family);
        for chain in self.ledger.chains(family) {
            table.chain(chain.name(), None, chain.rules(family));
            elements.entry((family, SetName::Choices)).or_default().extend(chain.element());
        }
        for set in SetName::ALL {
            if let Some(Set { elements: planned, .. }) = table.sets.get_mut(set.name()) {
                planned.extend(elements.remove(&(family, set)).into_iter().flatten());
            }
        }
        table
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
