//! What the tables should hold, and what of that changes with each plan that is staged. Pure; whether it was
//! committed is for the data plane.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::mem::{replace, take};
use std::sync::Arc;

use weft_nftables::{Element, Family, Observed, Set, Table, Transaction, diff};
use weft_types::NamespacedName;

use super::affinity_numbers::AffinityNumbers;
use super::counters::Owners;
use super::elements::{Adopted, Elements, Make, Numbered, Place, of_node, of_service, replaced};
use super::refcounts::{Delta, Refcounts};
use super::ruleset::{self, OnDemand, SetName};
use super::slots::{Slots, arrange};
use crate::config::Config;
use crate::dataplane::settings::Settings;
use crate::services::node::NodeConfig;
use crate::services::plan::ServicePlan;
use crate::services::planner::Stage;

/// The tables as they should be.
#[derive(Debug)]
pub struct DesiredTables {
    settings: Settings,
    /// The fixed chains are no longer those of the last commit.
    ruleset_changed: bool,
    /// The plans, with their endpoints in the order of their slots.
    services: HashMap<Arc<NamespacedName>, ServicePlan>,
    numbers: AffinityNumbers,
    node: Elements,
    refcounts: Refcounts,
    adopted: Adopted,
    /// What was staged since changes were taken the last time.
    staged: Delta,
}

impl Stage for DesiredTables {
    fn stage(&mut self, service: &Arc<NamespacedName>, mut plan: ServicePlan) {
        let known = self.services.remove_entry(service);
        let (key, old) = known.unwrap_or_else(|| (service.clone(), ServicePlan::default()));
        let previous: &dyn Slots = if old.frontends.is_empty() { &self.adopted } else { &old };
        arrange(&mut plan, previous);
        let old_numbers = self.numbers.replace(&key, &plan);
        let old = Numbered { plan: &old, numbers: &old_numbers };
        let new = Numbered { plan: &plan, numbers: self.numbers.of(&key) };
        let (gone, come) = replaced(old, new, self.make());
        self.staged.replace(gone, come);
        if !plan.frontends.is_empty() {
            self.services.insert(key, plan);
        }
    }

    fn stage_node(&mut self, node: &NodeConfig) {
        self.ruleset_changed |= self.settings.follow(node);
        let new = of_node(self.settings.nodeport_addresses());
        self.staged.replace(replace(&mut self.node, new.clone()), new);
    }
}

impl DesiredTables {
    /// Tables without any Service.
    pub fn new(config: &Config) -> DesiredTables {
        DesiredTables {
            settings: Settings::new(config),
            ruleset_changed: false,
            services: HashMap::new(),
            numbers: AffinityNumbers::default(),
            node: Elements::new(),
            refcounts: Refcounts::default(),
            adopted: Adopted::default(),
            staged: Delta::default(),
        }
    }

    /// Takes over the slots that endpoints have in the kernel, for Services that are not staged yet.
    pub fn adopt(&mut self, observed: &Observed) {
        self.adopted = Adopted::new(observed);
    }

    /// Forgets the slots that nobody asked for: all Services are staged.
    pub fn forget_adopted(&mut self) {
        self.adopted = Adopted::default();
    }

    /// Whether the fixed chains are no longer those of the last time that changes were taken, which do not
    /// change those.
    pub fn ruleset_changed(&self) -> bool {
        self.ruleset_changed
    }

    /// What was staged since this was called the last time, as changes of the tables.
    pub fn take_changes(&mut self) -> Transaction {
        self.ruleset_changed = false;
        self.refcounts.settle(take(&mut self.staged))
    }

    /// The tables without anything that depends on Services and on the node's addresses: what the first
    /// changes add to.
    pub fn bare_tables(&self) -> Vec<Table> {
        Family::BOTH.map(|family| ruleset::table(&self.settings, family)).into()
    }

    /// Everything that the tables should hold.
    pub fn tables(&self) -> Vec<Table> {
        let mut elements = self.elements();
        Family::BOTH.map(|family| self.table(family, &mut elements)).into()
    }

    /// What makes all of that where there is nothing.
    pub fn fill(&self) -> Transaction {
        let mut transaction = diff(&self.bare_tables(), &Observed::default());
        self.refcounts.fill(self.elements(), &mut transaction);
        transaction
    }

    /// How many Services have a place in the tables.
    pub fn services(&self) -> usize {
        self.services.len()
    }

    /// The plan of a Service, with its endpoints in the order of their slots.
    pub fn plan(&self, service: &NamespacedName) -> Option<&ServicePlan> {
        self.services.get(service)
    }

    /// This node, as it was staged last.
    pub fn node(&self) -> &NodeConfig {
        &self.settings.node
    }

    /// Every frontend that is served, with the Service that has it.
    pub(in crate::dataplane) fn owners(&self) -> Owners {
        let of_service = |(name, plan): (&Arc<NamespacedName>, &ServicePlan)| -> Vec<_> {
            plan.frontends.iter().map(|plan| (plan.frontend, name.clone())).collect()
        };
        self.services.iter().flat_map(of_service).collect()
    }

    /// The plans of all Services.
    pub(in crate::dataplane) fn plans(&self) -> impl Iterator<Item = (&Arc<NamespacedName>, &ServicePlan)> {
        self.services.iter()
    }

    fn make(&self) -> Make {
        Make { counters: self.settings.config.service_counters, balancers: !self.settings.is_ipvs() }
    }

    /// All elements.
    fn elements(&self) -> BTreeMap<Place, Vec<Element>> {
        let mut elements: BTreeMap<Place, Vec<Element>> = BTreeMap::new();
        let make = self.make();
        let of_services = self
            .services
            .iter()
            .flat_map(|(key, plan)| of_service(Numbered { plan, numbers: self.numbers.of(key) }, make));
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
        let mut table = ruleset::table(&self.settings, family);
        for chain in chains(family, elements) {
            table.chain(chain.name(), chain.base(), chain.rules(family));
            elements.entry((family, SetName::Dispatch)).or_default().extend(chain.element());
        }
        for set in SetName::ALL {
            if let Some(Set { elements: planned, .. }) = table.sets.get_mut(set.name()) {
                planned.extend(elements.remove(&(family, set)).into_iter().flatten());
            }
        }
        table
    }
}

/// The chains of one family that elements need, besides the fixed ones.
fn chains(family: Family, elements: &BTreeMap<Place, Vec<Element>>) -> BTreeSet<OnDemand> {
    let of_family = elements.iter().filter(|((of, _), _)| *of == family);
    of_family
        .flat_map(|((_, set), elements)| elements.iter().flat_map(|(_, data)| OnDemand::of(*set, data)))
        .collect()
}
