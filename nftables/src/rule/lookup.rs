//! `lookup`: what a set or a map holds for a concatenation (`NFTA_LOOKUP_*`). A match, a verdict map and
//! whatever takes a value from a map are made of it.

use weft_netlink::attribute::{Attributes, Writer};

use crate::expression::Expression;
use crate::register::{VERDICT_REGISTER, expression, register};
use crate::value::Name;

/// `NFT_LOOKUP_F_INV`
const INVERTED: u32 = 1;

/// Where what a map holds goes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// Nowhere: it is asked whether the set has the key, or that it has not.
    Match { inverted: bool },
    /// It is the rule's verdict.
    Verdict,
    /// Into a register.
    Register(u32),
}

/// Loads a concatenation at the beginning of the register file. Returns where it ends.
pub(super) fn load_all(key: &[Expression], writer: &mut Writer<'_>) -> usize {
    let end = key.iter().map(Expression::padded_len).sum();
    let mut target = 0;
    for part in key {
        part.load(target, end, writer);
        target += part.padded_len();
    }
    end
}

/// Loads a key, and looks it up.
pub(super) fn write(key: &[Expression], set: &str, found: Found, writer: &mut Writer<'_>) {
    load_all(key, writer);
    expression("lookup", writer, |data| {
        data.string(1, set);
        data.u32(2, register(0));
        match found {
            Found::Register(target) => data.u32(3, target),
            Found::Verdict => data.u32(3, VERDICT_REGISTER),
            Found::Match { inverted: true } => data.u32(5, INVERTED),
            Found::Match { inverted: false } => {}
        }
    });
}

/// The set that is asked, the register in which the key begins, and where the answer goes to.
pub(super) fn read(data: &Attributes<'_>) -> Option<(Name, u32, Found)> {
    let found = match data.u32(3) {
        None => Found::Match { inverted: data.u32(5).unwrap_or_default() & INVERTED != 0 },
        Some(VERDICT_REGISTER) => Found::Verdict,
        Some(register) => Found::Register(register),
    };
    Some((data.string(1)?.into(), data.u32(2)?, found))
}
