//! Tables and chains as plain values, and how they print.

use std::collections::BTreeMap;
use std::fmt;

use super::rule::Rule;
use super::set::{Declaration, Set};
use super::value::Name;
use weft_netlink::Family;

/// A table and everything in it. Prints as a block that `nft -f` accepts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// The packets that it sees.
    pub family: Family,
    /// Its name.
    pub name: Name,
    /// Its chains, by name.
    pub chains: BTreeMap<Name, Chain>,
    /// Its sets and maps, by name.
    pub sets: BTreeMap<Name, Set>,
}

/// A chain.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Chain {
    /// Where packets enter it; a regular chain, which others jump to, has none.
    pub base: Option<Base>,
    /// Its rules, in order.
    pub rules: Vec<Rule>,
}

/// Where in the kernel a base chain is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Base {
    /// What its rules may do.
    pub kind: ChainKind,
    /// Which packets it sees.
    pub hook: Hook,
    /// Its place among the chains of that hook: lower ones come first.
    pub priority: i32,
    /// What becomes of a packet that no rule decides about.
    pub policy: Policy,
}

/// The type of a base chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ChainKind {
    /// Sees every packet.
    Filter,
    /// Sees the first packet of every connection, and may rewrite its addresses.
    Nat,
}

/// A netfilter hook.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Hook {
    /// Every packet that came in.
    Prerouting,
    /// Those for this machine.
    Input,
    /// Those for others.
    Forward,
    /// Those made by this machine.
    Output,
    /// All that leave.
    Postrouting,
}

/// What becomes of a packet that no rule decides about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Policy {
    /// It goes on.
    Accept,
    /// It goes nowhere.
    Drop,
}

/// Where packets have not reached connection tracking yet (`raw`).
pub const PRIORITY_RAW: i32 = -300;
/// Where destinations are rewritten (`dstnat`).
pub const PRIORITY_DSTNAT: i32 = -100;
/// Where packets are filtered (`filter`).
pub const PRIORITY_FILTER: i32 = 0;
/// Where sources are rewritten (`srcnat`).
pub const PRIORITY_SRCNAT: i32 = 100;

impl Table {
    /// An empty table.
    pub fn new(family: Family, name: impl Into<Name>) -> Table {
        Table { family, name: name.into(), chains: BTreeMap::new(), sets: BTreeMap::new() }
    }

    /// Puts a chain in.
    pub fn chain(&mut self, name: impl Into<Name>, base: Option<Base>, rules: Vec<Rule>) {
        self.chains.insert(name.into(), Chain { base, rules });
    }

    /// Puts a set in. Its declaration must name this table.
    pub fn set(&mut self, set: Set) {
        let Declaration { family, table, name, .. } = &*set.declaration;
        debug_assert_eq!((family, table), (&self.family, &self.name));
        self.sets.insert(name.clone(), set);
    }
}

impl Base {
    /// A base chain of type `nat` that lets packets through.
    pub fn nat(hook: Hook, priority: i32) -> Base {
        Base { kind: ChainKind::Nat, hook, priority, policy: Policy::Accept }
    }

    /// A base chain of type `filter` that lets packets through.
    pub fn filter(hook: Hook, priority: i32) -> Base {
        Base { kind: ChainKind::Filter, hook, priority, policy: Policy::Accept }
    }
}

impl ChainKind {
    /// The kernel's and nft's name for it.
    pub(super) fn name(self) -> &'static str {
        match self {
            ChainKind::Filter => "filter",
            ChainKind::Nat => "nat",
        }
    }
}

impl Hook {
    /// All of them.
    pub const ALL: [Hook; 5] =
        [Hook::Prerouting, Hook::Input, Hook::Forward, Hook::Output, Hook::Postrouting];

    /// The kernel's number for it (`NF_INET_*`).
    pub(super) fn number(self) -> u32 {
        match self {
            Hook::Prerouting => 0,
            Hook::Input => 1,
            Hook::Forward => 2,
            Hook::Output => 3,
            Hook::Postrouting => 4,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Hook::Prerouting => "prerouting",
            Hook::Input => "input",
            Hook::Forward => "forward",
            Hook::Output => "output",
            Hook::Postrouting => "postrouting",
        }
    }
}

impl Policy {
    /// The kernel's number for it (`NF_DROP`, `NF_ACCEPT`).
    pub(super) fn number(self) -> u32 {
        match self {
            Policy::Drop => 0,
            Policy::Accept => 1,
        }
    }
}

impl fmt::Display for Base {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (kind, hook) = (self.kind.name(), self.hook.name());
        let policy = match self.policy {
            Policy::Accept => "accept",
            Policy::Drop => "drop",
        };
        write!(f, "type {kind} hook {hook} priority {}; policy {policy};", self.priority)
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "table {} {} {{", self.family, self.name)?;
        let mut separator = "";
        for set in self.sets.values() {
            write!(f, "{separator}{set}")?;
            separator = "\n";
        }
        for (name, chain) in &self.chains {
            writeln!(f, "{separator}\tchain {name} {{")?;
            if let Some(base) = chain.base {
                writeln!(f, "\t\t{base}")?;
            }
            for rule in &chain.rules {
                writeln!(f, "\t\t{rule}")?;
            }
            f.write_str("\t}\n")?;
            separator = "\n";
        }
        f.write_str("}\n")
    }
}
