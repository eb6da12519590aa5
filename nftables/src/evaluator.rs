//! What rules find in a packet, without the kernel: so that a policy is tested without root, and a person is told why a packet
//! does not get through. Nothing is guessed: what is not known is `None`.

use super::expression::Expression;
use super::rule::{Match, Verdict};
use super::value::{Name, Tuple};

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

impl Facts {
    /// What an expression reads of it; `None` where that is not known.
    pub fn bytes(&self, expression: &Expression) -> Option<Vec<u8>> {
        expression.evaluate(self)
    }

    /// What a concatenation reads of it, as the key of a set.
    pub fn key(&self, expressions: &[Expression]) -> Option<Tuple> {
        let mut key = Vec::new();
        for expression in expressions {
            key.extend(self.bytes(expression)?);
            if expressions.len() > 1 {
                key.resize(key.len().next_multiple_of(4), 0);
            }
        }
        Some(Tuple::from_kernel(&key))
    }

    /// Whether a comparison holds; `None` where that is not known, or where a set must be asked.
    pub fn compare(&self, comparison: &Match) -> Option<bool> {
        comparison.holds(&self.bytes(comparison.expression.first()?)?)
    }
}

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
