//! What is in the sets of other programs: keys as the kernel compares them, since their types are the programs' own.

use super::super::element::{KEY, KEY_END};
use super::super::register::{DATA_VALUE, DATA_VERDICT};
use super::super::rule::Verdict;
use super::super::set::{Data, Set, SetKind};
use super::super::shape::read_fields;
use super::super::value::{DataType, Name, Tuple, tuple_len};
use weft_netlink::attribute::Attributes;

/// `NFT_SET_INTERVAL`
const INTERVAL: u32 = 1 << 2;
/// `NFTA_SET_ELEM_FLAGS`: `NFT_SET_ELEM_INTERVAL_END`, `NFT_SET_ELEM_CATCHALL`
const FLAGS: u16 = 3;
const ENDS: u32 = 1;
const CATCH_ALL: u32 = 2;

/// A set or map of another program.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ForeignSet {
    /// The length of its keys, in bytes.
    key_len: usize,
    /// Its keys are the ends of ranges.
    has_ranges: bool,
    /// The length of each field, where a key is a range in each of several.
    fields: Vec<u32>,
    /// How many elements it has, where the kernel tells.
    pub(super) count: Option<u32>,
    /// Its elements; none where they were not read.
    pub(super) elements: Option<Vec<ForeignElement>>,
}

/// An element of such a set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForeignElement {
    key: Vec<u8>,
    /// Of a range in each of several fields, the last key.
    last: Option<Vec<u8>>,
    /// A range ends before it.
    ends: bool,
    /// It stands for all keys that no other element has.
    catches_all: bool,
    /// What a verdict map holds for it; none where that is another map's data, or not known.
    pub verdict: Option<Verdict>,
    /// What another map holds for it.
    pub(crate) data: Option<Vec<u8>>,
}

/// A set without its elements. The kernel may not count those that expire or are ranges.
pub(super) fn header(set: &Attributes<'_>) -> Option<(Name, ForeignSet)> {
    let flags = set.u32(3).unwrap_or_default();
    let found = ForeignSet {
        key_len: set.u32(5).unwrap_or_default() as usize,
        has_ranges: flags & INTERVAL != 0,
        fields: read_fields(&set.nested(9)),
        count: set.u32(20),
        elements: None,
    };
    Some((set.string(2)?.into(), found))
}

pub(super) fn elements(list: &Attributes<'_>) -> Option<Vec<ForeignElement>> {
    let element = |(_, element)| {
        let element = Attributes(element);
        let value = |kind| element.nested(kind).get(DATA_VALUE).map(<[u8]>::to_vec);
        let flags = element.u32(FLAGS).unwrap_or_default();
        ForeignElement {
            key: value(KEY).unwrap_or_default(),
            last: value(KEY_END),
            ends: flags & ENDS != 0,
            catches_all: flags & CATCH_ALL != 0,
            data: element.nested(2).get(DATA_VALUE).map(<[u8]>::to_vec),
            verdict: element.nested(2).get(DATA_VERDICT).and_then(|data| Verdict::decode(&Attributes(data))),
        }
    };
    Some(list.nested(3).map(element).collect())
}

/// A planned set as it is once it is in the kernel. What packets write into it is not known.
impl From<&Set> for ForeignSet {
    fn from(set: &Set) -> ForeignSet {
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
            ForeignElement { key, last, ends: false, catches_all: false, verdict, data }
        };
        let is_written = matches!(declaration.kind, SetKind::ExpiringMap(..) | SetKind::ExpiringSet(_));
        ForeignSet {
            key_len: tuple_len(&declaration.key),
            has_ranges,
            fields: if has_ranges { field_lens(&declaration.key) } else { Vec::new() },
            count: None,
            elements: (!is_written).then(|| elements.iter().map(element).collect()),
        }
    }
}

fn field_lens(types: &[DataType]) -> Vec<u32> {
    types.iter().map(|kind| kind.len() as u32).collect()
}

impl ForeignSet {
    /// The element that the kernel finds for a key, if there is one; none where that is not known.
    pub fn find(&self, key: &[u8]) -> Option<Option<&ForeignElement>> {
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

    /// Whether each field of a key is in the element's range.
    fn holds(&self, element: &ForeignElement, key: &[u8]) -> bool {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn element(key: &[u8], ends: bool) -> ForeignElement {
        ForeignElement { key: key.to_vec(), last: None, ends, catches_all: false, verdict: None, data: None }
    }

    #[test]
    fn a_key_is_found_in_the_range_that_holds_it_and_not_behind_its_end() {
        let elements =
            vec![element(&[5], false), element(&[9], true), element(&[9], false), element(&[12], true)];
        let set =
            ForeignSet { key_len: 1, has_ranges: true, elements: Some(elements), ..ForeignSet::default() };
        let found = |key| set.find(&[key]).unwrap().map(|element| element.key[0]);
        assert_eq!(
            [4, 5, 8, 9, 11, 12, 255].map(found),
            [None, Some(5), Some(5), Some(9), Some(9), None, None]
        );
        assert_eq!(set.find(&[0, 0]), None, "a key of another length");
    }

    #[test]
    fn what_was_not_read_is_not_known() {
        assert_eq!(ForeignSet { key_len: 1, ..ForeignSet::default() }.find(&[1]), None);
    }
}
