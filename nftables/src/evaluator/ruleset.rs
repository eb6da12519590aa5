//! The tables that packets come by, and the state of a packet on its way through them.

use std::collections::BTreeSet;

use weft_netlink::Family;

use super::{Facts, Memory};
use crate::hook::Hook;
use crate::known::KnownTable;
use crate::table::{Base, Chain, TableKey};
use crate::value::Name;

/// Tables that packets come by.
#[derive(Clone, Debug, Default)]
pub struct Ruleset {
    tables: Vec<KnownTable>,
}

/// A chain that packets enter, and how.
pub type Entry<'a> = (&'a KnownTable, &'a Name, &'a Chain, Base);

/// A packet on its way.
#[derive(Clone, Debug)]
pub struct Walk<'a> {
    pub(super) ruleset: &'a Ruleset,
    pub(super) family: Family,
    /// What is known of the packet by now.
    pub facts: Facts,
    /// What packets wrote into maps.
    pub memory: Memory,
    /// In how many ways the numbers could be drawn that were drawn so far; 1 where none was.
    pub choices: u32,
    /// The connection's destination is settled, or its source: no other nat chain is asked
    /// (`nf_nat_initialized`).
    pub(super) settled: [bool; 2],
    pub(super) tracking: Tracking,
    /// Sets into which the packet wrote, or perhaps did: what is in them now is not known.
    pub(super) changed: BTreeSet<(TableKey, Name)>,
}

/// What connection tracking has to do with a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tracking {
    /// It has not seen it yet.
    NotYet,
    Tracked,
    /// It shall not see it.
    Never,
}

impl Ruleset {
    /// These tables, planned or read.
    pub fn new(tables: impl IntoIterator<Item = impl Into<KnownTable>>) -> Ruleset {
        Ruleset { tables: tables.into_iter().map(Into::into).collect() }
    }

    /// The same with more tables.
    pub fn with(mut self, tables: impl IntoIterator<Item = impl Into<KnownTable>>) -> Ruleset {
        self.tables.extend(tables.into_iter().map(Into::into));
        self
    }

    /// The chains that packets of a family enter at a hook, in the kernel's order.
    pub fn at(&self, family: Family, hook: Hook) -> Vec<Entry<'_>> {
        let tables = self.tables.iter().filter(|table| table.family.sees(family));
        let mut chains: Vec<_> = tables
            .flat_map(|table| table.at(hook).map(move |(name, chain, base)| (table, name, chain, base)))
            .collect();
        chains.sort_by_key(|(.., base)| base.priority);
        chains
    }

    /// Follows a packet of a family.
    pub fn follow(&self, family: Family, facts: Facts) -> Walk<'_> {
        Walk {
            ruleset: self,
            family,
            facts,
            memory: Memory::default(),
            choices: 1,
            settled: [false; 2],
            tracking: Tracking::NotYet,
            changed: BTreeSet::new(),
        }
    }

    /// The same for a packet of a connection that is tracked already: what is to be rewritten in it is
    /// settled, and no nat chain is asked.
    pub fn follow_tracked(&self, family: Family, facts: Facts) -> Walk<'_> {
        Walk { settled: [true; 2], ..self.follow(family, facts) }
    }
}
