//! `counter`: what the kernel counted, by a rule or at the elements of a set (`NFTA_COUNTER_*`). How a set
//! that counts is declared is in `set.rs`.

use super::element::KEY;
use super::register::{DATA_VALUE, EXPR_DATA, EXPR_NAME};
use super::value::Tuple;
use weft_netlink::attribute::{Attributes, Writer};

/// The kernel's name for it.
pub(super) const NAME: &str = "counter";
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

/// Writes a counter that begins at these numbers.
pub(super) fn encode(packets: u64, bytes: u64, data: &mut Writer<'_>) {
    data.bytes(BYTES, &bytes.to_be_bytes());
    data.bytes(PACKETS, &packets.to_be_bytes());
}

/// How many packets were counted, and how many bytes.
pub(super) fn decode(data: &Attributes<'_>) -> Option<(u64, u64)> {
    let number = |kind| data.get(kind)?.try_into().ok().map(u64::from_be_bytes);
    Some((number(PACKETS)?, number(BYTES)?))
}

impl Counter {
    /// Reads an element of the kernel's; `None` where it counts nothing.
    pub(super) fn parse(element: &Attributes<'_>) -> Option<Counter> {
        let expression = element.nested(EXPRESSION);
        expression.string(EXPR_NAME).filter(|name| *name == NAME)?;
        let (packets, bytes) = decode(&expression.nested(EXPR_DATA))?;
        let key = Tuple::from_kernel(element.nested(KEY).get(DATA_VALUE)?);
        Some(Counter { key, packets, bytes })
    }
}
