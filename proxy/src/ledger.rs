//! Who wants which element, and so what the maps hold: the proxy's own view of the kernel, kept in step with it by
//! element-only transactions. Pure; it knows nothing of Services.
//!
//! Several owners may want one element: two Services with a common endpoint share its hairpin pair, and two that claim
//! one NodePort (which the API server prevents, but not at every moment) are in conflict, which the first by name wins
//! until it goes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use weft_netlink::nft::{Change, Data, Declaration, Element, Family, Name, Transaction, Tuple};
use weft_types::NamespacedName;

use crate::elements::{Elements, Place};
use crate::layout::{SetName, TABLE, pick_rule};

/// Who wants an element.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Owner {
    /// The node itself.
    Node,
    /// A Service.
    Service(Arc<NamespacedName>),
}

/// All elements that anybody wants.
#[derive(Debug)]
pub struct Ledger {
    sets: BTreeMap<Place, Book>,
    /// How many elements lead to each chain that is not fixed.
    uses: BTreeMap<(Family, Name), usize>,
}

/// The claims on one set's elements.
#[derive(Debug)]
struct Book {
    declaration: Arc<Declaration>,
    claims: BTreeMap<Tuple, Claims>,
}

/// Who wants one element, and what they want it to hold. Nearly always there is one owner only.
#[derive(Debug)]
struct Claims(Vec<(Owner, Data)>);

/// Elements that were touched, with what they held before.
#[derive(Debug, Default)]
pub struct Delta(BTreeMap<(Place, Tuple), Option<Data>>);

impl Claims {
    /// What the element holds: the first owner's word.
    fn effective(&self) -> Option<&Data> {
        self.0.iter().min_by_key(|(owner, _)| owner).map(|(_, data)| data)
    }

    fn set(&mut self, owner: &Owner, data: Option<&Data>) {
        self.0.retain(|(claimant, _)| claimant != owner);
        self.0.extend(data.map(|data| (owner.clone(), data.clone())));
    }
}

impl Default for Ledger {
    fn default() -> Self {
        let book = |place: Place| {
            let declaration = Arc::new(place.1.declaration(place.0));
            (place, Book { declaration, claims: BTreeMap::new() })
        };
        let places = Family::BOTH.into_iter().flat_map(|family| SetName::ALL.map(|set| (family, set)));
        Ledger { sets: places.map(book).collect(), uses: BTreeMap::new() }
    }
}

impl Ledger {
    /// Replaces what `owner` wants. What changes by that is noted in `delta`.
    pub fn replace(&mut self, owner: &Owner, old: &Elements, new: &Elements, delta: &mut Delta) {
        for (key, _) in old.iter().filter(|(key, _)| !new.contains_key(key)) {
            self.set(owner, key, None, delta);
        }
        for (key, data) in new.iter().filter(|(key, data)| old.get(key) != Some(data)) {
            self.set(owner, key, Some(data), delta);
        }
    }

    fn set(&mut self, owner: &Owner, (place, key): &(Place, Tuple), data: Option<&Data>, delta: &mut Delta) {
        let Some(book) = self.sets.get_mut(place) else { return };
        let claims = book.claims.entry(key.clone()).or_insert_with(|| Claims(Vec::with_capacity(1)));
        delta.0.entry((*place, key.clone())).or_insert_with(|| claims.effective().cloned());
        claims.set(owner, data);
        if claims.0.is_empty() {
            book.claims.remove(key);
        }
    }

    /// The transaction for everything in `delta`: chains first that are needed now, endpoints before what leads to them,
    /// chains last that nothing needs any more.
    pub fn settle(&mut self, delta: Delta) -> Transaction {
        let before: BTreeSet<(Family, Name)> = self.uses.keys().cloned().collect();
        let mut changes: BTreeMap<Place, (Vec<Element>, Vec<Element>)> = BTreeMap::new();
        for ((place, key), held) in delta.0 {
            let wanted = self.effective(place, &key).cloned();
            if held == wanted {
                continue;
            }
            self.count(place.0, held.as_ref(), wanted.as_ref());
            let (gone, come) = changes.entry(place).or_default();
            gone.extend(held.map(|data| (key.clone(), data)));
            come.extend(wanted.map(|data| (key, data)));
        }
        let mut transaction = Transaction::default();
        for (family, chain) in self.uses.keys().filter(|chain| !before.contains(chain)) {
            let table = (*family, TABLE.into());
            transaction.changes.push(Change::AddChain(table.clone(), chain.clone(), None));
            transaction.add_rules(&table, chain, pick_rule(*family, chain).as_slice());
        }
        for (place, (gone, come)) in changes {
            let declaration = &self.sets[&place].declaration;
            transaction.delete_elements(declaration, gone);
            transaction.add_elements(declaration, come);
        }
        for (family, chain) in before.difference(&self.uses.keys().cloned().collect()) {
            transaction.changes.push(Change::DeleteChain((*family, TABLE.into()), chain.clone()));
        }
        transaction
    }

    /// Counts the elements that lead to a chain.
    fn count(&mut self, family: Family, held: Option<&Data>, wanted: Option<&Data>) {
        if let Some(chain) = picked(family, wanted) {
            *self.uses.entry((family, chain.clone())).or_default() += 1;
        }
        if let Some(chain) = picked(family, held) {
            let key = (family, chain.clone());
            match self.uses.get_mut(&key) {
                Some(count) if *count > 1 => *count -= 1,
                _ => drop(self.uses.remove(&key)),
            }
        }
    }

    fn effective(&self, place: Place, key: &Tuple) -> Option<&Data> {
        self.sets.get(&place)?.claims.get(key)?.effective()
    }

    /// What a set holds.
    pub fn elements(&self, place: Place) -> impl Iterator<Item = Element> {
        let claims = self.sets.get(&place).into_iter().flat_map(|book| &book.claims);
        claims.filter_map(|(key, claims)| Some((key.clone(), claims.effective()?.clone())))
    }

    /// The chains of one family that elements lead to, besides the fixed ones.
    pub fn chains(&self, family: Family) -> impl Iterator<Item = &Name> {
        self.uses.keys().filter(move |(of, _)| *of == family).map(|(_, chain)| chain)
    }
}

/// The chain that an element leads to, unless it is a fixed one.
fn picked(family: Family, data: Option<&Data>) -> Option<&Name> {
    let Some(Data::Verdict(verdict)) = data else { return None };
    verdict.chain().filter(|chain| pick_rule(family, chain).is_some())
}
