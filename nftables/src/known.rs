//! Tables as far as they are known: planned ones, and those that were read from the kernel. In these, what is
//! not understood is named, never an error. Keys of sets stand as the kernel compares them, since their types
//! are the programs' own.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::family::TableFamily;
use super::hook::Hook;
use super::rule::{Statement, Verdict};
use super::set::{Data, Set, SetKind, write_tuple};
use super::table::{Base, Chain, Table, TableKey};
use super::value::{DataType, Name, Tuple, tuple_len, write_range};

/// A table, planned or read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownTable {
    /// The packets that it sees.
    pub family: TableFamily,
    /// Its name.
    pub name: Name,
    /// Its chains, by name.
    pub chains: BTreeMap<Name, Chain>,
    /// The sets that its rules name.
    pub sets: BTreeMap<Name, KnownSet>,
}

/// A set or map of such a table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KnownSet {
    /// The length of its keys, in bytes.
    pub(super) key_len: usize,
    /// Its keys are the ends of ranges.
    pub(super) has_ranges: bool,
    /// The length of each field, where a key is a range in each of several.
    pub(super) fields: Vec<u32>,
    /// How many elements it has, where the kernel tells.
    pub(super) count: Option<u32>,
    /// Its elements; none where they were not read.
    pub(super) elements: Option<Vec<KnownElement>>,
    /// Packets write its elements, which are not here: a [`Memory`](super::evaluator::Memory) holds them.
    pub(super) is_remembered: bool,
}

/// An element of such a set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownElement {
    pub(super) key: Vec<u8>,
    /// Of a range in each of several fields, the last key.
    pub(super) last: Option<Vec<u8>>,
    /// A range ends before it.
    pub(super) ends: bool,
    /// It stands for all keys that no other element has.
    pub(super) catches_all: bool,
    /// What a verdict map holds for it; none where that is another map's data, or not known.
    pub verdict: Option<Verdict>,
    /// What another map holds for it.
    pub(crate) data: Option<Vec<u8>>,
}

/// A planned table as it is once it is in the kernel.
impl From<&Table> for KnownTable {
    fn from(table: &Table) -> KnownTable {
        let Table { family, name, chains, sets, .. } = table;
        let statements = chains.values().flat_map(|chain| &chain.rules).flat_map(|rule| &rule.statements);
        let written: BTreeSet<&Name> = statements.filter_map(Statement::writes).collect();
        let known = |(name, set): (&Name, &Set)| (name.clone(), KnownSet::of(set, written.contains(name)));
        let sets = sets.iter().map(known).collect();
        KnownTable { family: *family, name: name.clone(), chains: chains.clone(), sets }
    }
}

impl KnownTable {
    /// Its family and name.
    pub fn key(&self) -> TableKey {
        (self.family, self.name.clone())
    }

    /// The chains that packets enter at a hook.
    pub fn at(&self, hook: Hook) -> impl Iterator<Item = (&Name, &Chain, Base)> {
        self.chains.iter().filter_map(move |(name, chain)| {
            chain.base.filter(|base| base.hook == hook).map(|base| (name, chain, base))
        })
    }
}

impl KnownSet {
    /// A planned set as it is once it is in the kernel. What packets write into it is not known.
    fn of(set: &Set, is_written: bool) -> KnownSet {
        let Set { declaration, elements, .. } = set;
        let has_ranges = declaration.has_ranges();
        let element = |(key, data): (&Tuple, &Data)| {
            let (first, last) = if has_ranges { key.ends() } else { (key.bytes(), key.bytes()) };
            let (verdict, data) = match data {
                Data::None => (None, None),
                Data::Verdict(verdict) => (Some(verdict.clone()), None),
                Data::Tuple(tuple) => (None, Some(tuple.bytes().to_vec())),
            };
            let (key, last) = (first.to_vec(), has_ranges.then(|| last.to_vec()));
            KnownElement { key, last, ends: false, catches_all: false, verdict, data }
        };
        let is_remembered = matches!(declaration.kind, SetKind::ExpiringMap(..));
        KnownSet {
            key_len: tuple_len(&declaration.key),
            has_ranges,
            fields: if has_ranges { field_lens(&declaration.key) } else { Vec::new() },
            count: None,
            elements: (!is_written && !is_remembered).then(|| elements.iter().map(element).collect()),
            is_remembered,
        }
    }
}

fn field_lens(types: &[DataType]) -> Vec<u32> {
    types.iter().map(|kind| kind.len() as u32).collect()
}

impl KnownSet {
    /// The element that the kernel finds for a key, if there is one; none where that is not known.
    pub fn find(&self, key: &[u8]) -> Option<Option<&KnownElement>> {
        let elements = self.elements.as_deref()?;
        if key.len() != self.key_len {
            return None;
        }
        let found = match (self.has_ranges, self.fields.is_empty()) {
            (false, _) => elements.iter().find(|element| !element.catches_all && element.key == key),
            (true, false) => elements.iter().find(|element| self.holds(element, key)),
            (true, true) => {
                let at_most = elements.iter().filter(|element| !element.catches_all && *element.key <= *key);
                // Where one range ends another may begin.
                at_most.max_by_key(|element| (&element.key, !element.ends)).filter(|element| !element.ends)
            }
        };
        Some(found.or_else(|| elements.iter().find(|element| element.catches_all)))
    }

    /// The keys of a set without ranges, as far as its elements are known.
    pub fn keys(&self) -> impl Iterator<Item = Tuple> {
        self.elements.iter().flatten().map(|element| Tuple::from_kernel(&element.key))
    }

    /// Whether each field of a key is in the element's range.
    fn holds(&self, element: &KnownElement, key: &[u8]) -> bool {
        let last = element.last.as_ref().unwrap_or(&element.key);
        let mut start = 0;
        !element.catches_all
            && self.fields.iter().all(|length| {
                let field = start..start + *length as usize;
                start += length.next_multiple_of(4) as usize;
                let of = |bytes: &[u8]| bytes.get(field.clone()).map(<[u8]>::to_vec);
                of(&element.key) <= of(key) && of(key) <= of(last)
            })
    }
}

/// An element as nft prints it, with the types that rules have for its key and its data.
pub(super) struct Printed<'a> {
    pub(super) key: &'a [u8],
    /// Of a range, the last key.
    pub(super) last: Option<&'a [u8]>,
    pub(super) types: &'a [DataType],
    pub(super) verdict: Option<&'a Verdict>,
    pub(super) data: Option<(&'a [u8], &'a [DataType])>,
}

impl fmt::Display for Printed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.last {
            Some(last) => {
                write_range(f, &Tuple::from_kernel(&[self.key, last].concat()), self.types)?;
            }
            None => write_tuple(f, &Tuple::from_kernel(self.key), self.types)?,
        }
        if let Some(verdict) = self.verdict {
            write!(f, " : {verdict}")?;
        }
        if let Some((data, types)) = self.data.filter(|(_, types)| !types.is_empty()) {
            f.write_str(" : ")?;
            write_tuple(f, &Tuple::from_kernel(data), types)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{Declaration, Expression, Family, Operator, Rule};

    fn element(key: &[u8], ends: bool) -> KnownElement {
        KnownElement { key: key.to_vec(), last: None, ends, catches_all: false, verdict: None, data: None }
    }

    #[test]
    fn a_key_is_found_in_the_range_that_holds_it_and_not_behind_its_end() {
        let elements =
            vec![element(&[5], false), element(&[9], true), element(&[9], false), element(&[12], true)];
        let set = KnownSet { key_len: 1, has_ranges: true, elements: Some(elements), ..KnownSet::default() };
        let found = |key| set.find(&[key]).unwrap().map(|element| element.key[0]);
        assert_eq!(
            [4, 5, 8, 9, 11, 12, 255].map(found),
            [None, Some(5), Some(5), Some(9), Some(9), None, None]
        );
        assert_eq!(set.find(&[0, 0]), None, "a key of another length");
    }

    #[test]
    fn what_was_not_read_is_not_known() {
        assert_eq!(KnownSet { key_len: 1, ..KnownSet::default() }.find(&[1]), None);
    }

    #[test]
    fn a_planned_set_is_empty_unless_packets_write_into_it() {
        let mut table = Table::new(Family::Ip, "t");
        for name in ["told", "learnt"] {
            let declaration = Declaration {
                family: table.family,
                table: table.name.clone(),
                name: name.into(),
                key: vec![DataType::InetProto],
                kind: SetKind::ExpiringSet(8),
                comment: None,
            };
            table.set(Set::new(Arc::new(declaration)));
        }
        let learn = Statement::note(vec![Expression::L4PROTO], 60, "learnt".into());
        let look_up = Statement::lookup(vec![Expression::L4PROTO], Operator::Equal, "told".into());
        table.chain("c", None, vec![Rule::new([learn]), Rule::new([look_up])]);
        let known = KnownTable::from(&table);
        let found = |name: &str| known.sets[name].find(&[6]);
        assert_eq!((found("told"), found("learnt")), (Some(None), None));
    }
}
