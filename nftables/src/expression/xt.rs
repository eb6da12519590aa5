//! `match conntrack` of iptables, where it asks for the state alone (`struct xt_conntrack_mtinfo2` and
//! `_mtinfo3`): so much of it can be followed and written.

use std::fmt;

use weft_netlink::attribute::{Attributes, Writer};

use super::Kind;
use crate::facts::Facts;
use crate::value::DataType;

/// Where `match_flags`, `invert_flags` and `state_mask` stand, and the flag by which the state alone is asked
/// for (`XT_CONNTRACK_STATE`).
const FLAGS: usize = 146;
const INVERTED: usize = 148;
const STATE: usize = 150;
const STATE_ONLY: u16 = 1;
/// The length of `struct xt_conntrack_mtinfo3`.
const LENGTH: usize = 168;
/// `XT_CONNTRACK_STATE_DNAT`, and the bit of `ct status` that it stands for (`IPS_DST_NAT`).
const STATE_DNAT: u32 = 128;
const STATUS_DNAT: u32 = 32;

/// A connection's state with bits for rewritten addresses (`XT_CONNTRACK_STATE_*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct XtState;

impl XtState {
    /// That of `struct xt_conntrack_mtinfo3`.
    pub(crate) const REVISION: u32 = 3;

    /// The structure that asks for these bits, or for none of them.
    pub(crate) fn info(bits: u32, inverted: bool) -> Vec<u8> {
        let mut info = vec![0; LENGTH];
        let mut put = |at: usize, half: u16| info[at..at + 2].copy_from_slice(&half.to_ne_bytes());
        put(FLAGS, STATE_ONLY);
        put(INVERTED, if inverted { STATE_ONLY } else { 0 });
        put(STATE, bits as u16);
        info
    }

    /// The bits that are asked for, and whether they must not be there.
    pub(crate) fn asked(info: &[u8]) -> Option<(u32, bool)> {
        let half = |at: usize| Some(u16::from_ne_bytes(info.get(at..at + 2)?.try_into().ok()?));
        let inverted = half(INVERTED)? & STATE_ONLY != 0;
        (half(FLAGS)? == STATE_ONLY).then(|| half(STATE).map(|bits| (u32::from(bits), inverted)))?
    }
}

impl Kind for XtState {
    const NAME: &str = "match conntrack";

    fn data_type(&self) -> DataType {
        DataType::XtState
    }

    fn encode(&self, _: &mut Writer<'_>) {}

    fn decode(_: &Attributes<'_>) -> Option<XtState> {
        None
    }

    fn evaluate(&self, facts: &Facts) -> Option<Vec<u8>> {
        let rewritten = if facts.status? & STATUS_DNAT != 0 { STATE_DNAT } else { 0 };
        Some((facts.state? | rewritten).to_ne_bytes().to_vec())
    }
}

impl fmt::Display for XtState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ct state")
    }
}
