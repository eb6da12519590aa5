//! What is in the sets of other programs.

use super::super::element::{KEY, KEY_END};
use super::super::known::{KnownElement, KnownSet};
use super::super::register::{DATA_VALUE, DATA_VERDICT};
use super::super::rule::Verdict;
use super::super::shape::read_fields;
use super::super::value::Name;
use weft_netlink::attribute::Attributes;

/// `NFT_SET_INTERVAL`
const INTERVAL: u32 = 1 << 2;
/// `NFTA_SET_ELEM_FLAGS`: `NFT_SET_ELEM_INTERVAL_END`, `NFT_SET_ELEM_CATCHALL`
const FLAGS: u16 = 3;
const ENDS: u32 = 1;
const CATCH_ALL: u32 = 2;

/// A set without its elements. The kernel may not count those that expire or are ranges.
pub(super) fn header(set: &Attributes<'_>) -> Option<(Name, KnownSet)> {
    let flags = set.u32(3).unwrap_or_default();
    let found = KnownSet {
        key_len: set.u32(5).unwrap_or_default() as usize,
        has_ranges: flags & INTERVAL != 0,
        fields: read_fields(&set.nested(9)),
        count: set.u32(20),
        elements: None,
        is_remembered: false,
    };
    Some((set.string(2)?.into(), found))
}

pub(super) fn elements(list: &Attributes<'_>) -> Option<Vec<KnownElement>> {
    let element = |(_, element)| {
        let element = Attributes(element);
        let value = |kind| element.nested(kind).get(DATA_VALUE).map(<[u8]>::to_vec);
        let flags = element.u32(FLAGS).unwrap_or_default();
        KnownElement {
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
