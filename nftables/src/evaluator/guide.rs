//! What a walk tells whoever follows it, and what it asks.

use std::fmt;

use thiserror::Error;

use super::{Decision, Facts};
use crate::expression::Expression;
use crate::known::KnownTable;
use crate::rule::Rule;
use crate::table::{Base, Policy};
use crate::value::Name;

/// Follows a walk. Each answer has a default: nothing is told, nothing is added to the facts, and what is not
/// known ends the walk.
pub trait Guide {
    /// Is told of a step.
    fn step(&mut self, _step: Step<'_>) {}

    /// Is told that the packet goes elsewhere now, and says what follows from that: whether the new
    /// destination is this machine's own, and by which interface the packet leaves.
    fn rewritten(&mut self, _facts: &mut Facts) {}

    /// Is asked what to do where it is not known what a rule does: where the answer is `Ok`, the rule is
    /// taken not to apply.
    ///
    /// # Errors
    /// Ends the walk.
    fn doubt(&mut self, doubt: &Doubt<'_>) -> Result<(), Lost> {
        Err(doubt.lost())
    }
}

/// A guide who takes the defaults.
pub(super) struct Alone;

impl Guide for Alone {}

/// A step of a walk.
#[derive(Clone, Copy, Debug)]
pub enum Step<'a> {
    /// The kernel calls a chain.
    Chain {
        /// Its table.
        table: &'a KnownTable,
        /// Its name.
        chain: &'a Name,
        /// How it is called.
        base: Base,
    },
    /// A rule is asked.
    Rule {
        /// The table that it stands in.
        table: &'a KnownTable,
        /// The chain that it stands in.
        chain: &'a Name,
        /// The rule.
        rule: &'a Rule,
        /// Whether it applies.
        applies: Applies,
        /// What it decides, if it applies.
        decision: Option<&'a Decision>,
        /// What it found and wrote, and why it does not apply.
        notes: &'a [Note],
        /// What is known of the packet behind it.
        facts: &'a Facts,
    },
    /// No rule of a base chain decided: its policy does.
    Policy(&'a KnownTable, Policy),
}

/// Whether a rule applies to a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Applies {
    /// It does.
    Yes,
    /// It does not.
    No,
    /// It asks for something that is not known.
    Unknown,
}

/// What a rule found or did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Note {
    /// The element that a set has for the packet.
    Found(Name, String),
    /// The key of which a set has no element.
    Missing(Name, String),
    /// The packet has something else in place of what this expression is compared with.
    Differs(Expression),
    /// An element was written into a set.
    Wrote(Name, String),
    /// An element was deleted from a set.
    Deleted(Name, String),
}

/// A rule of which it is not known what it does.
#[derive(Clone, Copy, Debug)]
pub struct Doubt<'a> {
    /// The table that it stands in.
    pub table: &'a KnownTable,
    /// The chain that it stands in.
    pub chain: &'a Name,
    /// The rule.
    pub rule: &'a Rule,
    /// What it decides, if it applies.
    pub decision: &'a Decision,
    /// What it asks for and is not known, where that is so.
    pub missing: Option<&'a Expression>,
}

impl Doubt<'_> {
    /// The error that ends a walk there.
    pub fn lost(&self) -> Lost {
        Lost {
            table: format!("{} {}", self.table.family, self.table.name),
            chain: self.chain.clone(),
            rule: self.rule.to_string(),
        }
    }
}

/// Where a packet cannot be followed any further.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("cannot follow the packet: it is not known what `{rule}` in chain {chain} of table {table} does")]
pub struct Lost {
    /// The table: `ip filter`
    pub table: String,
    /// The chain.
    pub chain: Name,
    /// The rule.
    pub rule: String,
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Note::Found(set, element) => write!(f, "@{set}: {element}"),
            Note::Missing(set, key) => write!(f, "@{set} has no {key}"),
            Note::Differs(expression) => write!(f, "{expression} differs"),
            Note::Wrote(set, element) => write!(f, "written to @{set}: {element}"),
            Note::Deleted(set, element) => write!(f, "deleted from @{set}: {element}"),
        }
    }
}
