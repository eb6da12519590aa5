//! Transactions: what is to change in the kernel, in order, all or nothing; and how they print as nft
//! commands.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::sync::Arc;

use super::family::TableFamily;
use super::flowtable::Flowtable;
use super::owned::Owned;
use super::rule::Rule;
use super::set::{Data, Declaration, Detail, Element, Set};
use super::table::{Base, Table, TableKey};
use super::value::{Name, Tuple};

/// How many elements are worth a hash table of their own size.
const MANY: usize = 1000;

/// Room for so many elements and at least half as many again.
fn with_half_more(count: usize) -> u32 {
    (count + count / 2).next_power_of_two().try_into().unwrap_or_default()
}

/// One step of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Adds a table; it may exist.
    AddTable(TableKey),
    /// Adds a table, which must not be there, for as long as the socket is open by which it is added: with
    /// that it goes, however the process ends, and until then nobody else can change it.
    HoldTable(TableKey),
    /// Deletes a table and everything in it. It must exist.
    DeleteTable(TableKey),
    /// Adds a chain, which must not be there.
    AddChain(TableKey, Name, Option<Base>),
    /// Deletes a chain with its rules. Nothing else may name it any more.
    DeleteChain(TableKey, Name),
    /// Deletes all rules of a chain.
    FlushChain(TableKey, Name),
    /// Appends a rule to a chain.
    AddRule(TableKey, Name, Rule),
    /// Puts a rule before all others of a chain.
    InsertRule(TableKey, Name, Rule),
    /// Deletes the rule of a chain that the kernel has given that number ([`super::RuleHead`]).
    DeleteRule(TableKey, Name, u64),
    /// Adds a flowtable, which must not be there.
    AddFlowtable(TableKey, Name, Flowtable),
    /// Deletes a flowtable. No rule may name it any more.
    DeleteFlowtable(TableKey, Name),
    /// Adds a set without elements, which must not be there. It takes that many at most; 0 for as many as
    /// there will be.
    AddSet(Arc<Declaration>, u32),
    /// Deletes a set with its elements. No rule may name it any more.
    DeleteSet(TableKey, Name),
    /// Adds elements. A key that is there already must hold the same.
    AddElements(Arc<Declaration>, Vec<Element>),
    /// The same with what is said of each element besides.
    AddDetailed(Arc<Declaration>, Vec<(Tuple, Data, Detail)>),
    /// Deletes elements, all of which must be there.
    DeleteElements(Arc<Declaration>, Vec<Element>),
    /// Adds elements with their owners, none of which may be there.
    AddOwned(Arc<Declaration>, Vec<Owned>),
    /// Deletes elements by their keys, all of which must be there.
    DeleteOwned(Arc<Declaration>, Vec<Owned>),
}

/// Changes that the kernel applies all together or not at all. Prints as commands that `nft -f` accepts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Transaction {
    /// The steps, in order.
    pub changes: Vec<Change>,
}

impl Transaction {
    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// Whether nothing that is there now goes by it. Then all of its beginnings are of use on their own: they
    /// take nothing from anybody, and what comes first in it does not wait for what comes last.
    pub fn only_adds(&self) -> bool {
        use Change::{
            AddChain, AddDetailed, AddElements, AddFlowtable, AddRule, AddSet, AddTable, InsertRule,
        };
        let adds = |change: &Change| {
            matches!(
                change,
                AddTable(_)
                    | AddChain(..)
                    | AddRule(..)
                    | InsertRule(..)
                    | AddFlowtable(..)
                    | AddSet(..)
                    | AddElements(..)
                    | AddDetailed(..)
            )
        };
        self.changes.iter().all(adds)
    }

    /// The steps that build a whole table.
    pub fn add_table(&mut self, table: &Table) {
        self.changes.push(Change::AddTable(table.key()));
        self.fill_table(table);
    }

    /// The steps that build a whole table that lasts as long as the client that commits them
    /// ([`Change::HoldTable`]).
    pub fn hold_table(&mut self, table: &Table) {
        self.changes.push(Change::HoldTable(table.key()));
        self.fill_table(table);
    }

    fn fill_table(&mut self, table: &Table) {
        let key = table.key();
        for (name, flowtable) in &table.flowtables {
            self.changes.push(Change::AddFlowtable(key.clone(), name.clone(), flowtable.clone()));
        }
        for (name, chain) in &table.chains {
            self.changes.push(Change::AddChain(key.clone(), name.clone(), chain.base));
        }
        for set in table.sets.values() {
            self.changes.push(Change::AddSet(set.declaration.clone(), 0));
        }
        for (name, chain) in &table.chains {
            self.add_rules(&key, name, &chain.rules);
        }
        for set in table.sets.values() {
            let elements = set.elements.iter().map(|(key, data)| (key.clone(), data.clone())).collect();
            self.add_elements_of(set, elements);
        }
    }

    /// Gives the sets that it adds, and puts many elements into, room for these and at least half as many
    /// again. For a set of known size the kernel makes the hash table that it needs; any other it makes anew
    /// time and again while the set grows, which doubles the time of a load. One that becomes too small is
    /// refused, and replaced by [`super::diff`].
    pub fn make_room(&mut self) {
        self.give_room(|_, count| if count >= MANY { with_half_more(count) } else { 0 });
    }

    /// The same for every set that it adds, with that much room at the least: in a hash table of fixed size
    /// the kernel finds a key sooner.
    pub fn make_room_of(&mut self, least: impl Fn(&Declaration) -> u32) {
        self.give_room(|set, count| with_half_more(count).max(least(set)));
    }

    /// Gives sets room by how many elements they get.
    fn give_room(&mut self, room_for: impl Fn(&Declaration, usize) -> u32) {
        let mut counts: HashMap<(TableFamily, Name, Name), usize> = HashMap::new();
        for change in &self.changes {
            let (set, count) = match change {
                Change::AddElements(set, elements) => (set, elements.len()),
                Change::AddDetailed(set, elements) => (set, elements.len()),
                _ => continue,
            };
            *counts.entry((set.family, set.table.clone(), set.name.clone())).or_default() += count;
        }
        for change in &mut self.changes {
            if let Change::AddSet(set, room) = change
                && set.can_be_sized()
            {
                let count = counts.get(&(set.family, set.table.clone(), set.name.clone()));
                *room = room_for(set, count.copied().unwrap_or_default());
            }
        }
    }

    /// Appends rules to a chain.
    pub fn add_rules(&mut self, table: &TableKey, chain: &Name, rules: &[Rule]) {
        let add = |rule: &Rule| Change::AddRule(table.clone(), chain.clone(), rule.clone());
        self.changes.extend(rules.iter().map(add));
    }

    /// Adds some elements of a set, with what it says of them.
    pub(super) fn add_elements_of(&mut self, set: &Set, elements: Vec<Element>) {
        let (detailed, plain): (Vec<Element>, Vec<Element>) = match set.details.is_empty() {
            true => (Vec::new(), elements),
            false => elements.into_iter().partition(|(key, _)| set.details.contains_key(key)),
        };
        self.add_elements(&set.declaration, plain);
        if !detailed.is_empty() {
            let detail = |(key, data): Element| {
                let detail = set.details.get(&key).cloned().unwrap_or_default();
                (key, data, detail)
            };
            let detailed = detailed.into_iter().map(detail).collect();
            self.changes.push(Change::AddDetailed(set.declaration.clone(), detailed));
        }
    }

    /// Adds elements, if there are any.
    pub fn add_elements(&mut self, set: &Arc<Declaration>, elements: Vec<Element>) {
        if !elements.is_empty() {
            self.changes.push(Change::AddElements(set.clone(), elements));
        }
    }

    /// Adds elements with their owners, if there are any. What is asked for twice is added once: the kernel
    /// would refuse the whole transaction.
    pub fn add_owned(&mut self, set: &Arc<Declaration>, mut elements: Vec<Owned>) {
        let mut seen = BTreeSet::new();
        elements.retain(|element| seen.insert(element.clone()));
        if !elements.is_empty() {
            self.changes.push(Change::AddOwned(set.clone(), elements));
        }
    }

    /// Deletes elements by their keys, if there are any.
    pub fn delete_owned(&mut self, set: &Arc<Declaration>, elements: Vec<Owned>) {
        if !elements.is_empty() {
            self.changes.push(Change::DeleteOwned(set.clone(), elements));
        }
    }

    /// Deletes elements, if there are any.
    pub fn delete_elements(&mut self, set: &Arc<Declaration>, elements: Vec<Element>) {
        if !elements.is_empty() {
            self.changes.push(Change::DeleteElements(set.clone(), elements));
        }
    }
}

impl Change {
    /// What it does, in a few words, however many elements it has.
    pub fn summary(&self) -> String {
        match self {
            Change::AddElements(set, elements) => {
                format!("add {} element(s) to {} {}", elements.len(), set.noun(), set.path())
            }
            Change::DeleteElements(set, elements) => {
                format!("delete {} element(s) of {} {}", elements.len(), set.noun(), set.path())
            }
            Change::AddDetailed(set, elements) => {
                format!("add {} element(s) to {} {}", elements.len(), set.noun(), set.path())
            }
            Change::AddOwned(set, elements) => {
                format!("add {} element(s) to {} {}", elements.len(), set.noun(), set.path())
            }
            Change::DeleteOwned(set, elements) => {
                format!("delete {} element(s) of {} {}", elements.len(), set.noun(), set.path())
            }
            other => other.to_string(),
        }
    }
}

impl fmt::Display for Transaction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.changes.iter().try_for_each(|change| writeln!(f, "{change}"))
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Change::AddTable((family, table)) => write!(f, "add table {family} {table}"),
            Change::HoldTable((family, table)) => write!(f, "add table {family} {table} {{ flags owner; }}"),
            Change::DeleteTable((family, table)) => write!(f, "delete table {family} {table}"),
            Change::AddChain((family, table), name, None) => write!(f, "add chain {family} {table} {name}"),
            Change::AddChain((family, table), name, Some(base)) => {
                write!(f, "add chain {family} {table} {name} {{ {} }}", base.text(*family))
            }
            Change::DeleteChain((family, table), name) => write!(f, "delete chain {family} {table} {name}"),
            Change::FlushChain((family, table), name) => write!(f, "flush chain {family} {table} {name}"),
            Change::AddRule((family, table), chain, rule) => {
                write!(f, "add rule {family} {table} {chain} {}", rule.text(*family))
            }
            Change::InsertRule((family, table), chain, rule) => {
                write!(f, "insert rule {family} {table} {chain} {}", rule.text(*family))
            }
            Change::DeleteRule((family, table), chain, handle) => {
                write!(f, "delete rule {family} {table} {chain} handle {handle}")
            }
            Change::AddFlowtable((family, table), name, flowtable) => {
                write!(f, "add flowtable {family} {table} {name} {{")?;
                flowtable.write_clauses(f, " ", ";")?;
                f.write_str(" }")
            }
            Change::DeleteFlowtable((family, table), name) => {
                write!(f, "delete flowtable {family} {table} {name}")
            }
            Change::AddSet(set, room) => {
                write!(f, "add {} {} {{", set.noun(), set.path())?;
                set.write_clauses(f, " ", ";", *room)?;
                f.write_str(" }")
            }
            Change::DeleteSet((family, table), name) => write!(f, "delete set {family} {table} {name}"),
            Change::AddElements(set, elements) => write_elements(f, "add", set, elements),
            Change::DeleteElements(set, elements) => write_elements(f, "delete", set, elements),
            Change::AddDetailed(set, elements) => write_detailed(f, set, elements),
            Change::AddOwned(set, elements) => write_owned(f, "add", set, elements),
            Change::DeleteOwned(set, elements) => write_owned(f, "delete", set, elements),
        }
    }
}

fn write_elements(
    f: &mut fmt::Formatter<'_>,
    verb: &str,
    set: &Declaration,
    elements: &[Element],
) -> fmt::Result {
    write!(f, "{verb} element {} {{", set.path())?;
    for (index, (key, data)) in elements.iter().enumerate() {
        f.write_str(if index == 0 { " " } else { ", " })?;
        set.write_element(f, key, data)?;
    }
    f.write_str(" }")
}

fn write_detailed(
    f: &mut fmt::Formatter<'_>,
    set: &Declaration,
    elements: &[(Tuple, Data, Detail)],
) -> fmt::Result {
    write!(f, "add element {} {{", set.path())?;
    for (index, (key, data, detail)) in elements.iter().enumerate() {
        f.write_str(if index == 0 { " " } else { ", " })?;
        set.write_detailed(f, key, data, detail)?;
    }
    f.write_str(" }")
}

fn write_owned(f: &mut fmt::Formatter<'_>, verb: &str, set: &Declaration, elements: &[Owned]) -> fmt::Result {
    write!(f, "{verb} element {} {{", set.path())?;
    for (index, element) in elements.iter().enumerate() {
        f.write_str(if index == 0 { " " } else { ", " })?;
        element.write(f, set)?;
    }
    f.write_str(" }")
}
