//! What the kernel holds, as far as it can be compared with a plan; and what a transaction makes of it.
//! Reading it from the kernel is in `client.rs`.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use thiserror::Error;

use super::encode::{TABLE_OWNER, digest};
use super::family::TableFamily;
use super::flowtable::Flowtable;
use super::set::{Data, Declaration, Detail, Element, Set};
use super::shape::Shape;
use super::table::{Base, ChainKind, Device, Policy, Table, TableKey};
use super::transaction::{Change, Transaction};
use super::value::{Name, Tuple};

/// What the kernel holds of the tables that were asked for; those that it does not have are missing here too.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Observed {
    /// The tables.
    pub tables: BTreeMap<TableKey, ObservedTable>,
}

/// A table of the kernel.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ObservedTable {
    /// `NFT_TABLE_F_*`: dormant, for instance. A planned table has none.
    pub flags: u32,
    /// Its chains.
    pub chains: BTreeMap<Name, ObservedChain>,
    /// Its named sets and maps.
    pub sets: BTreeMap<Name, ObservedSet>,
    /// Its flowtables.
    pub flowtables: BTreeMap<Name, Flowtable>,
}

/// A chain of the kernel.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ObservedChain {
    /// What of a base chain can be compared.
    pub base: Option<ObservedBase>,
    /// The digest that each of its rules carries; `None` for a rule that this crate did not write.
    pub rules: Vec<Option<u64>>,
}

/// A base chain of the kernel, in the kernel's words and numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObservedBase {
    /// `filter`, `nat`, `route`
    pub kind: String,
    /// Its hook by the number that its family has for it.
    pub hook: u32,
    /// Its place among the chains of that hook.
    pub priority: i32,
    /// `NF_ACCEPT` or `NF_DROP`
    pub policy: u32,
    /// The device, where it sees the packets of one.
    pub device: Option<String>,
}

/// A set or map of the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObservedSet {
    /// Its declaration.
    pub shape: Shape,
    /// Its elements.
    pub elements: BTreeMap<Tuple, Data>,
    /// What else is said of some of them.
    pub details: BTreeMap<Tuple, Detail>,
}

/// Why the kernel would refuse a transaction.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("the kernel would refuse to {0}")]
pub struct Refused(pub String);

impl ObservedBase {
    /// What the kernel shows of it in a table of that family.
    pub(super) fn of(family: TableFamily, base: &Base) -> ObservedBase {
        ObservedBase {
            kind: base.kind.name().to_owned(),
            hook: family.hook_number(base.hook).unwrap_or(u32::MAX),
            priority: base.priority,
            policy: base.policy.number(),
            device: base.device.map(|device| device.name().to_owned()),
        }
    }

    /// The same in the words of a plan; `None` where no plan has such a chain.
    pub fn planned(&self, family: TableFamily) -> Option<Base> {
        let kind = ChainKind::of_name(&self.kind)?;
        let hook = family.hook(self.hook)?;
        let device = self.device.as_deref().map(|name| Device::new(name).ok_or(())).transpose().ok()?;
        let policies = [Policy::Drop, Policy::Accept];
        let policy = policies.into_iter().find(|policy| policy.number() == self.policy)?;
        Some(Base { kind, hook, priority: self.priority, policy, device })
    }
}

impl Observed {
    /// What the kernel shows once it holds these tables.
    pub fn of(tables: &[Table]) -> Observed {
        let of = |table: &Table| (table.key(), ObservedTable::of(table));
        Observed { tables: tables.iter().map(of).collect() }
    }

    /// Does what the kernel does with a transaction: a model, for tests of those who plan them. What it does
    /// not check is whether the chains and sets that are named in rules and verdicts exist.
    ///
    /// # Errors
    /// What the kernel refuses: deleting what is not there, or adding what is there and differs. Unlike the
    /// kernel, it leaves the changes before it applied.
    pub fn apply(&mut self, transaction: &Transaction) -> Result<(), Refused> {
        transaction
            .changes
            .iter()
            .try_for_each(|change| self.apply_change(change).ok_or_else(|| Refused(change.summary())))
    }

    fn apply_change(&mut self, change: &Change) -> Option<()> {
        match change {
            Change::AddTable(table) => drop(self.tables.entry(table.clone()).or_default()),
            Change::HoldTable(table) => {
                let held = ObservedTable { flags: TABLE_OWNER, ..ObservedTable::default() };
                insert_new(&mut self.tables, table.clone(), held)?;
            }
            Change::DeleteTable(table) => drop(self.tables.remove(table)?),
            Change::AddChain(table, name, base) => {
                let base = base.as_ref().map(|base| ObservedBase::of(table.0, base));
                let chain = ObservedChain { base, rules: Vec::new() };
                insert_new(&mut self.tables.get_mut(table)?.chains, name.clone(), chain)?;
            }
            Change::DeleteChain(table, name) => drop(self.tables.get_mut(table)?.chains.remove(name)?),
            Change::FlushChain(table, name) => self.chain(table, name)?.rules.clear(),
            Change::AddRule(table, name, rule) => self.chain(table, name)?.rules.push(Some(digest(rule))),
            Change::InsertRule(table, name, rule) => {
                self.chain(table, name)?.rules.insert(0, Some(digest(rule)));
            }
            // Which rule has that number only the kernel knows.
            Change::DeleteRule(..) => return None,
            Change::AddFlowtable(table, name, flowtable) => {
                insert_new(&mut self.tables.get_mut(table)?.flowtables, name.clone(), flowtable.clone())?;
            }
            Change::DeleteFlowtable(table, name) => {
                drop(self.tables.get_mut(table)?.flowtables.remove(name)?);
            }
            Change::AddSet(set, room) => {
                let shape = Shape::of(set).with_room(*room);
                let (elements, details) = (BTreeMap::new(), BTreeMap::new());
                let observed = ObservedSet { shape, elements, details };
                let table = self.tables.get_mut(&(set.family, set.table.clone()))?;
                insert_new(&mut table.sets, set.name.clone(), observed)?;
            }
            Change::DeleteSet(table, name) => drop(self.tables.get_mut(table)?.sets.remove(name)?),
            Change::AddElements(set, elements) => add(&mut self.set(set)?.elements, elements)?,
            Change::AddDetailed(set, elements) => {
                let held = self.set(set)?;
                for (key, data, detail) in elements {
                    add(&mut held.elements, &[(key.clone(), data.clone())])?;
                    held.details.insert(key.clone(), detail.clone());
                }
            }
            Change::AddOwned(set, elements) => {
                let held = self.set(set)?;
                for element in elements {
                    insert_new(&mut held.elements, element.held_key(), element.data.clone())?;
                    held.details.insert(element.held_key(), element.detail());
                }
            }
            Change::DeleteOwned(set, elements) => {
                let held = self.set(set)?;
                elements.iter().try_for_each(|element| held.remove(&element.held_key()))?;
            }
            Change::DeleteElements(set, elements) => {
                let held = self.set(set)?;
                elements.iter().try_for_each(|(key, _)| held.remove(key))?;
            }
        }
        Some(())
    }

    fn chain(&mut self, table: &TableKey, name: &Name) -> Option<&mut ObservedChain> {
        self.tables.get_mut(table)?.chains.get_mut(name)
    }

    fn set(&mut self, set: &Declaration) -> Option<&mut ObservedSet> {
        self.tables.get_mut(&(set.family, set.table.clone()))?.sets.get_mut(&set.name)
    }
}

fn insert_new<K: Ord, T>(map: &mut BTreeMap<K, T>, name: K, value: T) -> Option<()> {
    match map.entry(name) {
        Entry::Vacant(vacant) => {
            vacant.insert(value);
            Some(())
        }
        Entry::Occupied(_) => None,
    }
}

fn add(held: &mut BTreeMap<Tuple, Data>, elements: &[Element]) -> Option<()> {
    for (key, data) in elements {
        if held.entry(key.clone()).or_insert_with(|| data.clone()) != data {
            return None;
        }
    }
    Some(())
}

impl ObservedTable {
    /// Whether it goes with the socket by which it was made ([`Change::HoldTable`]).
    pub fn is_held(&self) -> bool {
        self.flags & TABLE_OWNER != 0
    }

    fn of(table: &Table) -> ObservedTable {
        let chains = table.chains.iter().map(|(name, chain)| {
            let rules = chain.rules.iter().map(|rule| Some(digest(rule))).collect();
            let base = chain.base.as_ref().map(|base| ObservedBase::of(table.family, base));
            (name.clone(), ObservedChain { base, rules })
        });
        let sets = table.sets.iter().map(|(name, set)| (name.clone(), ObservedSet::of(set)));
        let flowtables = table.flowtables.clone();
        ObservedTable { flags: 0, chains: chains.collect(), sets: sets.collect(), flowtables }
    }
}

impl ObservedSet {
    fn of(set: &Set) -> ObservedSet {
        let (elements, details) = (set.elements.clone(), set.details.clone());
        ObservedSet { shape: Shape::of(&set.declaration), elements, details }
    }

    fn remove(&mut self, key: &Tuple) -> Option<()> {
        self.details.remove(key);
        self.elements.remove(key).map(drop)
    }
}
