//! What rules find in a packet, without the kernel: so that a policy is tested without root, and a person is
//! told why a packet does not get through. Nothing is guessed: what is not known is `None`.

use super::rule::Verdict;
use super::value::Name;

mod guide;
mod memory;
mod ruleset;
mod statement;
mod walk;

pub use super::facts::Facts;
pub use guide::{Applies, Doubt, Guide, Lost, Note, Step};
pub use memory::Memory;
pub use ruleset::{Entry, Ruleset, Walk};
pub use walk::Fate;

/// How a rule ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// With a verdict.
    Verdict(Verdict),
    /// It tells the sender that the packet goes no further.
    Reject,
    /// It rewrites an address and lets the packet through.
    Translate(Name),
    /// What it decides, if anything, is not known.
    Unknown,
}
