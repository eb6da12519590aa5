//! What the maps hold: the proxy's own view of the kernel, kept in step with it by element-only transactions. Pure; it
//! knows nothing of Services.
//!
//! No element is kept here: each follows from the plan of the one Service that has its frontend (`claims.rs`), and what a
//! transaction needs to know is what was planned before and what is now. Only of the sets that several Services put the same
//! element into, it is counted how many do.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use weft_netlink::nft::{Change, Data, Declaration, Element, Family, Name, Transaction, Tuple};

use crate::elements::{Elements, Place};
use crate::layout::{SetName, TABLE, is_on_demand, rules_on_demand};

/// What is known of all elements together.
#[derive(Debug)]
pub struct Ledger {
    declarations: BTreeMap<Place, Arc<Declaration>>,
    /// How many want each element of the sets that are shared.
    shared: HashMap<(Place, Tuple), usize>,
    /// How many elements lead to each chain that is not fixed.
    uses: BTreeMap<(Family, Name), usize>,
}

/// Elements that somebody no longer wants, and elements that somebody wants from now on.
#[derive(Debug, Default)]
pub struct Delta {
    gone: Vec<(Place, Tuple, Data)>,
    come: Vec<(Place, Tuple, Data)>,
}

impl Delta {
    /// Somebody wants these elements instead of those.
    pub fn replace(&mut self, old: Elements, new: Elements) {
        for ((place, key), data) in &old {
            if new.get(&(*place, key.clone())) != Some(data) {
                self.gone.push((*place, key.clone(), data.clone()));
            }
        }
        let come = new.into_iter().filter(|(key, data)| old.get(key) != Some(data));
        self.come.extend(come.map(|((place, key), data)| (place, key, data)));
    }
}

impl Default for Ledger {
    fn default() -> Self {
        let places = Family::BOTH.into_iter().flat_map(|family| SetName::ALL.map(|set| (family, set)));
        let declarations = places.map(|place| (place, Arc::new(place.1.declaration(place.0)))).collect();
        Ledger { declarations, shared: HashMap::new(), uses: BTreeMap::new() }
    }
}

impl Ledger {
    /// The transaction for everything in `delta`: chains first that are needed now, endpoints before what leads to them,
    /// chains last that nothing needs any more.
    pub fn settle(&mut self, mut delta: Delta) -> Transaction {
        delta.gone.retain(|(place, key, _)| !place.1.is_shared() || self.was_last(*place, key));
        delta.come.retain(|(place, key, _)| !place.1.is_shared() || self.is_first(*place, key));
        let before: BTreeSet<(Family, Name)> = self.uses.keys().cloned().collect();
        let changes = differences(delta);
        for ((family, _), (gone, come)) in &changes {
            come.iter().for_each(|(_, data)| self.use_chain(*family, data));
            gone.iter().for_each(|(_, data)| self.leave_chain(*family, data));
        }
        let mut transaction = Transaction::default();
        let added: Vec<_> = self.uses.keys().filter(|chain| !before.contains(chain)).collect();
        self.add_chains(added.into_iter(), &mut transaction);
        for (place, (gone, come)) in changes {
            let declaration = &self.declarations[&place];
            transaction.delete_elements(declaration, gone);
            transaction.add_elements(declaration, come);
        }
        for (family, chain) in before.iter().filter(|chain| !self.uses.contains_key(chain)) {
            transaction.changes.push(Change::DeleteChain((*family, TABLE.into()), chain.clone()));
        }
        transaction
    }

    /// Adds everything to tables that have nothing but their fixed parts.
    pub fn fill(&self, elements: BTreeMap<Place, Vec<Element>>, transaction: &mut Transaction) {
        self.add_chains(self.uses.keys(), transaction);
        for (place, elements) in elements {
            transaction.add_elements(&self.declarations[&place], elements);
        }
    }

    /// The chains of one family that elements lead to, besides the fixed ones.
    pub fn chains(&self, family: Family) -> impl Iterator<Item = &Name> {
        self.uses.keys().filter(move |(of, _)| *of == family).map(|(_, chain)| chain)
    }

    fn add_chains<'a>(
        &self,
        chains: impl Iterator<Item = &'a (Family, Name)>,
        transaction: &mut Transaction,
    ) {
        for (family, chain) in chains {
            let table = (*family, TABLE.into());
            transaction.changes.push(Change::AddChain(table.clone(), chain.clone(), None));
            transaction.add_rules(&table, chain, &rules_on_demand(*family, chain));
        }
    }

    fn was_last(&mut self, place: Place, key: &Tuple) -> bool {
        let key = (place, key.clone());
        match self.shared.get_mut(&key) {
            Some(count) if *count > 1 => {
                *count -= 1;
                false
            }
            _ => self.shared.remove(&key).is_some(),
        }
    }

    fn is_first(&mut self, place: Place, key: &Tuple) -> bool {
        let count = self.shared.entry((place, key.clone())).or_default();
        *count += 1;
        *count == 1
    }

    fn use_chain(&mut self, family: Family, data: &Data) {
        if let Some(chain) = picked(data) {
            *self.uses.entry((family, chain.clone())).or_default() += 1;
        }
    }

    fn leave_chain(&mut self, family: Family, data: &Data) {
        let Some(chain) = picked(data) else { return };
        let key = (family, chain.clone());
        match self.uses.get_mut(&key) {
            Some(count) if *count > 1 => *count -= 1,
            _ => drop(self.uses.remove(&key)),
        }
    }
}

/// By set, what must go and what must come; nothing of what one had and another has now, and holds the same.
fn differences(delta: Delta) -> BTreeMap<Place, (Vec<Element>, Vec<Element>)> {
    let Delta { mut gone, mut come } = delta;
    gone.sort_unstable();
    come.sort_unstable();
    let mut changes: BTreeMap<Place, (Vec<Element>, Vec<Element>)> = BTreeMap::new();
    for element in gone.iter().filter(|element| come.binary_search(element).is_err()) {
        let (place, key, data) = element.clone();
        changes.entry(place).or_default().0.push((key, data));
    }
    come.retain(|element| gone.binary_search(element).is_err());
    for (place, key, data) in come {
        changes.entry(place).or_default().1.push((key, data));
    }
    changes
}

/// The chain that an element leads to, unless it is a fixed one.
fn picked(data: &Data) -> Option<&Name> {
    let Data::Verdict(verdict) = data else { return None };
    verdict.chain().filter(|chain| is_on_demand(chain))
}

#[cfg(test)]
mod tests {
    use weft_netlink::nft::Value;

    use super::*;

    fn hairpin(last: u8) -> Elements {
        let address = Value::Address([10, 244, 1, last].into());
        Elements::from([(((Family::Ip, SetName::Hairpins), Tuple::new(&[address; 2])), Data::None)])
    }

    fn settle(ledger: &mut Ledger, steps: [(Elements, Elements); 2]) -> Vec<String> {
        let mut delta = Delta::default();
        steps.into_iter().for_each(|(old, new)| delta.replace(old, new));
        ledger.settle(delta).changes.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_shared_element_goes_with_the_last_who_wants_it() {
        let (mut ledger, none) = (Ledger::default(), Elements::new);
        let element = "element ip weft hairpins { 10.244.1.7 . 10.244.1.7 }";
        let both = [(none(), hairpin(7)), (none(), hairpin(7))];
        assert_eq!(settle(&mut ledger, both), [format!("add {element}")]);
        let one_goes_and_one_stays = [(hairpin(7), none()), (hairpin(7), hairpin(7))];
        assert_eq!(settle(&mut ledger, one_goes_and_one_stays), [""; 0]);
        let handed_over = [(none(), hairpin(7)), (hairpin(7), none())];
        assert_eq!(settle(&mut ledger, handed_over), [""; 0]);
        let last_goes = [(hairpin(7), none()), (none(), none())];
        assert_eq!(settle(&mut ledger, last_goes), [format!("delete {element}")]);
    }
}
