//! Elements of sets and maps as the kernel has them (`NFTA_SET_ELEM_*`).
//!
//! A range over several fields is one element with two keys. Where keys have one field, a range is two
//! elements: the first of it, and the first behind it, which is marked as an end.

use std::collections::BTreeMap;
use std::time::Duration;

use super::register::{DATA_VALUE, DATA_VERDICT};
use super::rule::Verdict;
use super::set::{Data, Declaration, Detail};
use super::userdata::{COMMENT, comment, put_text};
use super::value::{Name, Tuple};
use weft_netlink::attribute::{Attributes, Writer};

/// `NFTA_SET_ELEM_KEY`, `_DATA`, `_FLAGS`, `_TIMEOUT`, `_USERDATA`, `_KEY_END`
pub(super) const KEY: u16 = 1;
const DATA: u16 = 2;
pub(super) const FLAGS: u16 = 3;
const TIMEOUT: u16 = 4;
pub(super) const USERDATA: u16 = 6;
pub(super) const KEY_END: u16 = 10;
/// `NFT_SET_ELEM_INTERVAL_END`
pub(super) const INTERVAL_END: u32 = 1;
/// `NFTA_LIST_ELEM`
const LIST_ELEM: u16 = 1;

/// What is in a set, and what is said of its elements.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Contents {
    pub(super) elements: BTreeMap<Tuple, Data>,
    pub(super) details: BTreeMap<Tuple, Detail>,
}

/// Writes an element of a set.
pub(super) fn encode(key: &Tuple, data: &Data, detail: &Detail, set: &Declaration, writer: &mut Writer<'_>) {
    let value = |writer: &mut Writer<'_>, kind, bytes: &[u8]| {
        writer.nest(kind, |writer| writer.bytes(DATA_VALUE, bytes));
    };
    let has_ranges = set.has_ranges();
    let is_split = has_ranges && set.key.len() == 1;
    writer.nest(LIST_ELEM, |element| {
        match has_ranges {
            false => value(element, KEY, key.bytes()),
            true => value(element, KEY, key.ends().0),
        }
        if has_ranges && !is_split {
            value(element, KEY_END, key.ends().1);
        }
        match data {
            Data::None => {}
            Data::Tuple(tuple) => value(element, DATA, tuple.bytes()),
            Data::Verdict(verdict) => element.nest(DATA, |writer| {
                writer.nest(DATA_VERDICT, |writer| verdict.encode(writer));
            }),
        }
        if let Some(timeout) = detail.timeout {
            element.bytes(TIMEOUT, &(timeout.as_millis() as u64).to_be_bytes());
        }
        if let Some(comment) = &detail.comment {
            let mut userdata = Vec::new();
            put_text(&mut userdata, COMMENT, comment);
            element.bytes(USERDATA, &userdata);
        }
    });
    // What ends with the last of all keys has no end.
    if let Some(behind) = is_split.then(|| next(key.ends().1)).flatten() {
        writer.nest(LIST_ELEM, |element| {
            value(element, KEY, &behind);
            element.u32(FLAGS, INTERVAL_END);
        });
    }
}

/// The number behind that one, both in network order.
fn next(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut next = bytes.to_vec();
    for byte in next.iter_mut().rev() {
        *byte = byte.wrapping_add(1);
        if *byte != 0 {
            return Some(next);
        }
    }
    None
}

/// The number before that one.
fn previous(bytes: &[u8]) -> Vec<u8> {
    let mut previous = bytes.to_vec();
    for byte in previous.iter_mut().rev() {
        *byte = byte.wrapping_sub(1);
        if *byte != u8::MAX {
            break;
        }
    }
    previous
}

/// An element as the kernel dumps it.
#[derive(Clone, Debug)]
pub(super) struct Dumped {
    key: Tuple,
    data: Data,
    detail: Detail,
    is_end: bool,
}

/// What an element holds.
pub(super) fn decode_data(element: &Attributes<'_>) -> Option<Data> {
    let data = element.nested(DATA);
    Some(match (data.get(DATA_VALUE), data.get(DATA_VERDICT)) {
        (Some(value), _) => Data::Tuple(Tuple::from_kernel(value)),
        (None, Some(verdict)) => Data::Verdict(Verdict::decode(&Attributes(verdict))?),
        (None, None) => Data::None,
    })
}

pub(super) fn decode(element: &Attributes<'_>) -> Option<Dumped> {
    // Only a catch-all element, which nothing here ever adds, has no key.
    let value = |kind| element.nested(kind).get(DATA_VALUE).unwrap_or_default();
    let milliseconds =
        element.get(TIMEOUT).and_then(|bytes| Some(u64::from_be_bytes(bytes.try_into().ok()?)));
    let detail = Detail {
        comment: element.get(USERDATA).and_then(comment).map(Name::from),
        timeout: milliseconds.filter(|it| *it > 0).map(Duration::from_millis),
    };
    Some(Dumped {
        key: Tuple::from_kernel(&[value(KEY), value(KEY_END)].concat()),
        data: decode_data(element)?,
        detail,
        is_end: element.u32(FLAGS).unwrap_or_default() & INTERVAL_END != 0,
    })
}

/// What dumped elements are in a set, where perhaps each range is two of them.
pub(super) fn collect(has_split_ranges: bool, dumped: Vec<Dumped>) -> Contents {
    let mut contents = Contents::default();
    let dumped = if has_split_ranges { joined(dumped) } else { dumped };
    for Dumped { key, data, detail, .. } in dumped {
        if !detail.is_empty() {
            contents.details.insert(key.clone(), detail);
        }
        contents.elements.insert(key, data);
    }
    contents
}

/// Ranges of their two halves.
fn joined(mut dumped: Vec<Dumped>) -> Vec<Dumped> {
    // Where one range ends another may begin.
    dumped.sort_by(|one, other| (&one.key, !one.is_end).cmp(&(&other.key, !other.is_end)));
    let mut ranges: Vec<Dumped> = Vec::new();
    let mut open: Option<Dumped> = None;
    for half in dumped {
        if let Some(begun) = open.take() {
            ranges.push(begun.until(&previous(half.key.bytes())));
        }
        open = (!half.is_end).then_some(half);
    }
    if let Some(begun) = open {
        let last = vec![u8::MAX; begun.key.bytes().len()];
        ranges.push(begun.until(&last));
    }
    ranges
}

impl Dumped {
    fn until(self, last: &[u8]) -> Dumped {
        let key = Tuple::from_kernel(&[self.key.bytes(), last].concat());
        Dumped { key, ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn half(key: u8, is_end: bool) -> Dumped {
        let (data, detail) = (Data::None, Detail::default());
        Dumped { key: Tuple::from_kernel(&[0, key]), data, detail, is_end }
    }

    #[test]
    fn ranges_are_joined_of_their_halves_in_whatever_order_these_come() {
        let dumped = vec![half(9, false), half(5, false), half(9, true), half(12, true), half(200, false)];
        let ranges: Vec<Vec<u8>> = joined(dumped).iter().map(|it| it.key.bytes().to_vec()).collect();
        assert_eq!(ranges, [[0, 5, 0, 8], [0, 9, 0, 11], [0, 200, 255, 255]]);
    }

    #[test]
    fn numbers_of_bytes_carry() {
        assert_eq!(next(&[0, 255]), Some(vec![1, 0]));
        assert_eq!(next(&[255, 255]), None);
        assert_eq!(previous(&[1, 0]), [0, 255]);
    }
}
