//! What the tables should hold of ours, and what of that changes with each plan that is staged. Pure. Rules
//! are made from the plans whenever they are needed, and not kept.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::mem::take;
use std::sync::Arc;

use weft_nftables::{self as nft, Change, Family, Name, Transaction, digest};
use weft_types::NamespacedName;

use super::layout::{Chain, Portal, Shared, Table, fixed_chains, portals};
use super::rule::Rule;
use super::service::{ServiceRules, rules};
use crate::config::Config;
use crate::dataplane::settings::Settings;
use crate::services::node::NodeConfig;
use crate::services::plan::ServicePlan;
use crate::services::planner::Stage;

/// A chain that is shared, in one family.
pub(super) type SharedChain = (Family, Shared);

/// The rules as they should be.
#[derive(Debug)]
pub struct DesiredRules {
    settings: Settings,
    /// Rules that do not depend on Services are no longer those of the last commit.
    fixed_changed: bool,
    services: HashMap<Arc<NamespacedName>, ServicePlan>,
    /// The Services that were staged since changes were taken the last time, with the plans that they had.
    staged: BTreeMap<Arc<NamespacedName>, ServicePlan>,
}

/// What a commit changes: all but the rules that go from shared chains, which only the kernel's numbers name.
#[derive(Debug, Default)]
pub(super) struct Changes {
    /// The chains that are new, with their rules.
    pub(super) added: Transaction,
    /// What changes of others, behind that.
    pub(super) changed: Transaction,
    /// The digests of rules that go from shared chains.
    pub(super) gone: BTreeMap<SharedChain, Vec<u64>>,
    /// The chains that go, at the end.
    pub(super) deleted: Transaction,
}

impl Stage for DesiredRules {
    fn stage(&mut self, service: &Arc<NamespacedName>, plan: ServicePlan) {
        let known = self.services.remove_entry(service);
        let (key, old) = known.unwrap_or_else(|| (service.clone(), ServicePlan::default()));
        if let Entry::Vacant(vacant) = self.staged.entry(key.clone()) {
            vacant.insert(old);
        }
        if !plan.frontends.is_empty() {
            self.services.insert(key, plan);
        }
    }

    fn stage_node(&mut self, node: &NodeConfig) {
        let before = self.settings.nodeport_addresses();
        let networks = self.settings.follow(node);
        self.fixed_changed |= networks || before != self.settings.nodeport_addresses();
    }
}

impl DesiredRules {
    /// Rules without any Service.
    pub fn new(config: &Config) -> DesiredRules {
        DesiredRules {
            settings: Settings::new(config),
            fixed_changed: false,
            services: HashMap::new(),
            staged: BTreeMap::new(),
        }
    }

    /// Whether rules that do not depend on one Service are no longer those of the last time that changes were
    /// taken, which do not change those.
    pub(super) fn fixed_changed(&self) -> bool {
        self.fixed_changed
    }

    /// Everything is to be compared anyway.
    pub(super) fn forget_changes(&mut self) {
        self.fixed_changed = false;
        self.staged.clear();
    }

    /// What was staged since this was called the last time.
    pub(super) fn take_changes(&mut self) -> Changes {
        self.fixed_changed = false;
        let mut changes = Changes::default();
        let none = ServicePlan::default();
        for (service, old) in take(&mut self.staged) {
            let new = self.services.get(&service).unwrap_or(&none);
            if old != *new {
                let of = |plan| rules(&self.settings, &service, plan);
                changes.replace(of(&old), of(new));
            }
        }
        changes
    }

    /// The Services that have rules, in order.
    pub(super) fn names(&self) -> BTreeSet<Arc<NamespacedName>> {
        self.services.keys().cloned().collect()
    }

    /// The rules of a Service.
    pub(super) fn rules(&self, service: &NamespacedName) -> ServiceRules {
        match self.services.get(service) {
            Some(plan) => rules(&self.settings, service, plan),
            None => ServiceRules::default(),
        }
    }

    /// The chains of a family that do not depend on Services.
    pub(super) fn fixed_chains(&self, family: Family) -> Vec<Chain> {
        fixed_chains(&self.settings, family)
    }

    /// The rules that end a shared chain.
    pub(super) fn last_rules(&self, (family, shared): SharedChain) -> Vec<Rule> {
        shared.last_rules(&self.settings, family)
    }

    /// How many Services have rules.
    pub fn services(&self) -> usize {
        self.services.len()
    }

    /// The plan of a Service.
    pub fn plan(&self, service: &NamespacedName) -> Option<&ServicePlan> {
        self.services.get(service)
    }

    /// This node, as it was staged last.
    pub fn node(&self) -> &NodeConfig {
        &self.settings.node
    }

    /// All chains of ours in a table, by name.
    fn chains(&self, family: Family, table: Table) -> BTreeMap<Name, Vec<Rule>> {
        let fixed = self.fixed_chains(family).into_iter().filter(|chain| chain.table == table);
        let mut chains: BTreeMap<Name, Vec<Rule>> = fixed.map(|chain| (chain.name, chain.rules)).collect();
        for shared in Shared::ALL.into_iter().filter(|shared| shared.table() == table) {
            chains.insert(shared.chain().into(), Vec::new());
        }
        for service in self.names() {
            let rules = self.rules(&service);
            for ((of, shared), rules) in rules.shared {
                if of == family && shared.table() == table {
                    chains.entry(shared.chain().into()).or_default().extend(rules);
                }
            }
            let own = rules.chains.into_iter().filter(|((of, _), _)| *of == family && table == Table::Nat);
            chains.extend(own.map(|((_, chain), rules)| (chain, rules)));
        }
        for shared in Shared::ALL.into_iter().filter(|shared| shared.table() == table) {
            let last = self.last_rules((family, shared));
            chains.entry(shared.chain().into()).or_default().extend(last);
        }
        chains
    }

    /// All tables, on a machine that has nothing else in them.
    pub fn tables(&self) -> Vec<nft::Table> {
        let mut tables = Vec::new();
        for family in Family::BOTH {
            for table in Table::ALL {
                let mut planned = nft::Table::new(family, table.name());
                for (chain, base) in table.entries() {
                    let portals = entering(table, chain).map(|portal| portal.rule.encoded(family)).collect();
                    planned.chain(chain, Some(base), portals);
                }
                for (chain, rules) in self.chains(family, table) {
                    planned.chain(chain, None, rules.iter().map(|rule| rule.encoded(family)).collect());
                }
                tables.push(planned);
            }
        }
        tables
    }

    /// All of it as `iptables -S` prints it, on a machine that has nothing else in these tables.
    pub fn render(&self) -> String {
        let mut text = String::new();
        for (family, command) in [(Family::Ip, "iptables"), (Family::Ip6, "ip6tables")] {
            for table in Table::ALL {
                text +=
                    &format!("# {command} -t {} -S\n{}\n", table.name(), self.render_table(family, table));
            }
        }
        text.truncate(text.trim_end().len());
        text + "\n"
    }

    fn render_table(&self, family: Family, table: Table) -> String {
        let chains = self.chains(family, table);
        let mut lines: Vec<String> =
            table.entries().iter().map(|(chain, _)| format!("-P {chain} ACCEPT")).collect();
        lines.extend(chains.keys().map(|chain| format!("-N {chain}")));
        let line = |chain: &str, rule: &Rule| format!("-A {chain} {rule}").trim_end().to_owned();
        for (chain, _) in table.entries() {
            lines.extend(entering(table, chain).map(|portal| line(chain, &portal.rule)));
        }
        lines.extend(chains.iter().flat_map(|(chain, rules)| rules.iter().map(|rule| line(chain, rule))));
        lines.join("\n") + "\n"
    }
}

/// The rules of a chain that lead to ours.
pub(super) fn entering(table: Table, chain: &str) -> impl Iterator<Item = Portal> {
    portals().into_iter().filter(move |portal| portal.table == table && portal.from == chain)
}

impl Changes {
    fn replace(&mut self, old: ServiceRules, new: ServiceRules) {
        for ((family, chain), rules) in &new.chains {
            let key = Table::Nat.key(*family);
            let encoded: Vec<nft::Rule> = rules.iter().map(|rule| rule.encoded(*family)).collect();
            match old.chains.get(&(*family, chain.clone())) {
                Some(before) if before == rules => {}
                Some(_) => {
                    self.changed.changes.push(Change::FlushChain(key.clone(), chain.clone()));
                    self.changed.add_rules(&key, chain, &encoded);
                }
                None => {
                    // All of them before their rules, which name each other.
                    self.added.changes.push(Change::AddChain(key.clone(), chain.clone(), None));
                    self.changed.add_rules(&key, chain, &encoded);
                }
            }
        }
        let none = Vec::new();
        for key in old.shared.keys().chain(new.shared.keys()).collect::<BTreeSet<_>>() {
            let (family, shared) = *key;
            let before = old.shared.get(key).unwrap_or(&none);
            let after = new.shared.get(key).unwrap_or(&none);
            for rule in after.iter().filter(|rule| !before.contains(rule)) {
                let (table, chain) = (shared.table().key(family), shared.chain().into());
                self.changed.changes.push(Change::InsertRule(table, chain, rule.encoded(family)));
            }
            let gone = before.iter().filter(|rule| !after.contains(rule));
            let gone: Vec<u64> = gone.map(|rule| digest(&rule.encoded(family))).collect();
            if !gone.is_empty() {
                self.gone.entry(*key).or_default().extend(gone);
            }
        }
        for (family, chain) in old.chains.keys().filter(|chain| !new.chains.contains_key(chain)) {
            let key = Table::Nat.key(*family);
            // They name each other, too.
            self.changed.changes.push(Change::FlushChain(key.clone(), chain.clone()));
            self.deleted.changes.push(Change::DeleteChain(key, chain.clone()));
        }
    }
}
