//! What the kernel counted at the elements of a set. How such a set is declared is in `set.rs`.

use super::owned::KEY;
use super::rule::encode::{COUNTER, DATA_VALUE, EXPR_DATA, EXPR_NAME};
use super::value::Tuple;
use weft_netlink::attribute::Attributes;

/// `NFTA_SET_ELEM_EXPR`
const EXPRESSION: u16 = 7;
/// `NFTA_COUNTER_BYTES`, `NFTA_COUNTER_PACKETS`
const BYTES: u16 = 1;
const PACKETS: u16 = 2;

/// An element of a counting set, since it was added.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counter {
    /// Its key.
    pub key: Tuple,
    /// For how many packets it was looked up.
    pub packets: u64,
    /// Their bytes, with the IP header.
    pub bytes: u64,
}

impl Counter {
    /// Reads an element of the kernel's; `None` where it counts nothing.
    pub(super) fn parse(element: &Attributes<'_>) -> Option<Counter> {
        let expression = element.nested(EXPRESSION);
        expression.string(EXPR_NAME).filter(|name| *name == COUNTER)?;
        let counted = expression.nested(EXPR_DATA);
        let number = |kind| counted.get(kind)?.try_into().ok().map(u64::from_be_bytes);
        let key = Tuple::from_kernel(element.nested(KEY).get(DATA_VALUE)?);
        Some(Counter { key, packets: number(PACKETS)?, bytes: number(BYTES)? })
    }
}
