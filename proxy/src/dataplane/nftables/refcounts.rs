//! What the maps hold: the proxy's own view of the kernel, kept in step with it by element-only transactions.
//! Pure; it knows nothing of Services.
//!
//! No element is kept here: each follows from the plan of the one Service that has its frontend
//! (`services/ownership.rs`), and what a transaction needs to know is what was planned before and what is
//! now. Only of the sets that several Services put the same element into, it is counted how many do.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use weft_nftables::{Change, Data, Declaration, Element, Family, Transaction, Tuple};

use super::elements::{Elements, Place};
use super::ruleset::{OnDemand, SetName, TABLE};

/// What is known of all elements together.
#[derive(Debug)]
pub(super) struct Refcounts {
    declarations: BTreeMap<Place, Arc<Declaration>>,
    /// How many want each element of the sets that are shared.
    shared: HashMap<(Place, Tuple), usize>,
    /// How many elements need each chain that is not fixed.
    uses: BTreeMap<(Family, OnDemand), usize>,
}

/// For each set, elements that somebody no longer wants, and elements that somebody wants from now on.
#[derive(Debug, Default)]
pub(super) struct Delta(BTreeMap<Place, (Vec<Element>, Vec<Element>)>);

impl Delta {
    /// Somebody no longer wants those elements, and wants these. What is among both stays.
    pub(super) fn replace(&mut self, gone: Elements, come: Elements) {
        let (mut gone, mut come) = (gone.into_iter().peekable(), come.into_iter().peekable());
        loop {
            match (gone.peek(), come.peek()) {
                (Some(old), Some(new)) if old == new => drop((gone.next(), come.next())),
                (Some(old), new) if new.is_none_or(|new| old < new) => {
                    self.put(gone.next(), |(gone, _)| gone)
                }
                (_, Some(_)) => self.put(come.next(), |(_, come)| come),
                _ => return,
            }
        }
    }

    fn put(
        &mut self,
        element: Option<(Place, Tuple, Data)>,
        side: impl Fn(&mut (Vec<Element>, Vec<Element>)) -> &mut Vec<Element>,
    ) {
        if let Some((place, key, data)) = element {
            side(self.0.entry(place).or_default()).push((key, data));
        }
    }
}

impl Default for Refcounts {
    fn default() -> Self {
        let places = Family::BOTH.into_iter().flat_map(|family| SetName::ALL.map(|set| (family, set)));
        let declarations = places.map(|place| (place, Arc::new(place.1.declaration(place.0)))).collect();
        Refcounts { declarations, shared: HashMap::new(), uses: BTreeMap::new() }
    }
}

impl Refcounts {
    /// The transaction for everything in `delta`: chains first that are needed now, endpoints before what
    /// leads to them, chains last that nothing needs any more.
    pub(super) fn settle(&mut self, mut delta: Delta) -> Transaction {
        for (place, (gone, come)) in &mut delta.0 {
            if place.1.is_shared() {
                gone.retain(|(key, _)| self.was_last(*place, key));
                come.retain(|(key, _)| self.is_first(*place, key));
            }
            without_common(gone, come);
        }
        let before: BTreeSet<(Family, OnDemand)> = self.uses.keys().copied().collect();
        for (place, (gone, come)) in &delta.0 {
            come.iter().for_each(|(_, data)| self.use_chain(*place, data));
            gone.iter().for_each(|(_, data)| self.leave_chain(*place, data));
        }
        let mut transaction = Transaction::default();
        self.add_chains(self.uses.keys().filter(|chain| !before.contains(chain)), &mut transaction);
        for (place, (gone, come)) in delta.0 {
            let declaration = &self.declarations[&place];
            transaction.delete_elements(declaration, gone);
            transaction.add_elements(declaration, come);
        }
        for (family, chain) in before.into_iter().filter(|chain| !self.uses.contains_key(chain)) {
            let element = chain.element().into_iter().collect();
            transaction.delete_elements(&self.declarations[&(family, SetName::Dispatch)], element);
            transaction.changes.push(Change::DeleteChain((family.into(), TABLE.into()), chain.name()));
        }
        transaction
    }

    /// Adds everything to tables that have nothing but their fixed parts.
    pub(super) fn fill(&self, elements: BTreeMap<Place, Vec<Element>>, transaction: &mut Transaction) {
        self.add_chains(self.uses.keys(), transaction);
        for (place, elements) in elements {
            transaction.add_elements(&self.declarations[&place], elements);
        }
    }

    fn add_chains<'a>(
        &self,
        chains: impl Iterator<Item = &'a (Family, OnDemand)>,
        transaction: &mut Transaction,
    ) {
        for (family, chain) in chains {
            let (table, name) = (((*family).into(), TABLE.into()), chain.name());
            transaction.changes.push(Change::AddChain(table.clone(), name.clone(), chain.base()));
            transaction.add_rules(&table, &name, &chain.rules(*family));
            let element = chain.element().into_iter().collect();
            transaction.add_elements(&self.declarations[&(*family, SetName::Dispatch)], element);
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

    fn use_chain(&mut self, (family, set): Place, data: &Data) {
        for chain in OnDemand::of(set, data) {
            *self.uses.entry((family, chain)).or_default() += 1;
        }
    }

    fn leave_chain(&mut self, (family, set): Place, data: &Data) {
        for key in OnDemand::of(set, data).map(|chain| (family, chain)) {
            match self.uses.get_mut(&key) {
                Some(count) if *count > 1 => *count -= 1,
                _ => drop(self.uses.remove(&key)),
            }
        }
    }
}

/// Takes out what one Service had and another has now, and holds the same.
fn without_common(gone: &mut Vec<Element>, come: &mut Vec<Element>) {
    if gone.is_empty() || come.is_empty() {
        return;
    }
    gone.sort_unstable();
    come.sort_unstable();
    let stays: BTreeSet<Element> =
        gone.iter().filter(|element| come.binary_search(element).is_ok()).cloned().collect();
    gone.retain(|element| !stays.contains(element));
    come.retain(|element| !stays.contains(element));
}

#[cfg(test)]
mod tests {
    use weft_nftables::Value;

    use super::*;

    fn hairpin(last: u8) -> Elements {
        let address = Value::Address([10, 244, 1, last].into());
        vec![((Family::Ip, SetName::Hairpins), Tuple::new(&[address; 2]), Data::None)]
    }

    fn settle(refcounts: &mut Refcounts, steps: [(Elements, Elements); 2]) -> Vec<String> {
        let mut delta = Delta::default();
        steps.into_iter().for_each(|(old, new)| delta.replace(old, new));
        refcounts.settle(delta).changes.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_shared_element_goes_with_the_last_who_wants_it() {
        let (mut refcounts, none) = (Refcounts::default(), Elements::new);
        let element = "element ip weft hairpins { 10.244.1.7 . 10.244.1.7 }";
        let both = [(none(), hairpin(7)), (none(), hairpin(7))];
        assert_eq!(settle(&mut refcounts, both), [format!("add {element}")]);
        let one_goes_and_one_stays = [(hairpin(7), none()), (hairpin(7), hairpin(7))];
        assert_eq!(settle(&mut refcounts, one_goes_and_one_stays), [""; 0]);
        let handed_over = [(none(), hairpin(7)), (hairpin(7), none())];
        assert_eq!(settle(&mut refcounts, handed_over), [""; 0]);
        let last_goes = [(hairpin(7), none()), (none(), none())];
        assert_eq!(settle(&mut refcounts, last_goes), [format!("delete {element}")]);
    }
}
