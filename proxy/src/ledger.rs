//! Who wants which element, and so what the maps hold: the proxy's own view of the kernel, kept in step with it by
//! element-only transactions. Pure; it knows nothing of Services.
//!
//! Several owners may want one element: two Services with a common endpoint share its hairpin pair, and two that claim
//! one NodePort (which the API server prevents, but not at every moment) are in conflict, which the first by name wins
//! until it goes.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use weft_netlink::nft::{Change, Data, Declaration, Element, Family, Name, Transaction, Tuple};
use weft_types::NamespacedName;

use crate::elements::{Elements, Place};
use crate::layout::{SetName, TABLE, pick_rule, picks};

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

/// Who wants one element, and what they want it to hold. The first owner's word counts. Nearly always there is one
/// owner only, for whom no list is made: there are as many claims as elements.
#[derive(Debug)]
struct Claims {
    first: (Owner, Data),
    /// In the order of the owners.
    others: Box<[(Owner, Data)]>,
}

/// Elements that were touched, with what they held before. One that was touched twice is here twice: the first counts.
#[derive(Debug, Default)]
pub struct Delta(Vec<(Place, Tuple, Option<Data>)>);

impl Claims {
    fn new(owner: &Owner, data: &Data) -> Claims {
        Claims { first: (owner.clone(), data.clone()), others: Box::default() }
    }

    /// What the element holds.
    fn effective(&self) -> &Data {
        &self.first.1
    }

    /// The claims once `owner` wants this, or nothing; `None` where nobody wants anything any more.
    fn set(self, owner: &Owner, data: Option<&Data>) -> Option<Claims> {
        let mut all = self.others.into_vec();
        all.insert(0, self.first);
        all.retain(|(claimant, _)| claimant != owner);
        if let Some(data) = data {
            let place = all.partition_point(|(claimant, _)| claimant < owner);
            all.insert(place, (owner.clone(), data.clone()));
        }
        let others = all.split_off(all.len().min(1));

        all.pop().map(|first| Claims { first, others: others.into_boxed_slice() })
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
        match (book.claims.entry(key.clone()), data) {
            (Entry::Vacant(vacant), Some(data)) => {
                delta.0.push((*place, key.clone(), None));
                vacant.insert(Claims::new(owner, data));
            }
            (Entry::Vacant(_), None) => {}
            (Entry::Occupied(occupied), data) => {
                let (key, claims) = occupied.remove_entry();
                delta.0.push((*place, key.clone(), Some(claims.effective().clone())));
                if let Some(claims) = claims.set(owner, data) {
                    book.claims.insert(key, claims);
                }
            }
        }
    }

    /// The transaction for everything in `delta`: chains first that are needed now, endpoints before what leads to them,
    /// chains last that nothing needs any more.
    pub fn settle(&mut self, mut delta: Delta) -> Transaction {
        // Stable: of what was touched twice, the first touch stays.
        delta.0.sort_by(|(place, key, _), (other, than, _)| (place, key).cmp(&(other, than)));
        delta.0.dedup_by(|(place, key, _), (other, than, _)| (place, key) == (other, than));
        let before: BTreeSet<(Family, Name)> = self.uses.keys().cloned().collect();
        let mut changes: BTreeMap<Place, (Vec<Element>, Vec<Element>)> = BTreeMap::new();
        for (place, key, held) in delta.0 {
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
        if let Some(chain) = picked(wanted) {
            *self.uses.entry((family, chain.clone())).or_default() += 1;
        }
        if let Some(chain) = picked(held) {
            let key = (family, chain.clone());
            match self.uses.get_mut(&key) {
                Some(count) if *count > 1 => *count -= 1,
                _ => drop(self.uses.remove(&key)),
            }
        }
    }

    fn effective(&self, place: Place, key: &Tuple) -> Option<&Data> {
        self.sets.get(&place)?.claims.get(key).map(Claims::effective)
    }

    /// What a set holds.
    pub fn elements(&self, place: Place) -> impl Iterator<Item = Element> {
        let claims = self.sets.get(&place).into_iter().flat_map(|book| &book.claims);
        claims.map(|(key, claims)| (key.clone(), claims.effective().clone()))
    }

    /// The chains of one family that elements lead to, besides the fixed ones.
    pub fn chains(&self, family: Family) -> impl Iterator<Item = &Name> {
        self.uses.keys().filter(move |(of, _)| *of == family).map(|(_, chain)| chain)
    }
}

/// The chain that an element leads to, unless it is a fixed one.
fn picked(data: Option<&Data>) -> Option<&Name> {
    let Some(Data::Verdict(verdict)) = data else { return None };
    verdict.chain().filter(|chain| picks(chain).is_some())
}
