//! From chain to chain, as the kernel calls them for the first packet of a connection: through any tables, planned ones and those
//! that were read, in the order of their priorities. Where it is not known what a rule does, the walk ends, and says so.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use thiserror::Error;
use weft_netlink::Family;

use super::{Decision, Facts, Fits};
use crate::expression::{Ct, Expression, Meta};
use crate::foreign::ForeignTable;
use crate::rule::{Assign, Nat, Rule, Source, Statement, Translation, Verdict};
use crate::table::{Base, Chain, ChainKind, Hook, Policy};
use crate::value::{DataType, Name, Tuple, Value};

/// How deep chains may call each other (`NFT_JUMP_STACK_SIZE`): the kernel takes no more, and no circle.
const DEEPEST: usize = 16;
/// `IPS_SRC_NAT`, `IPS_DST_NAT`, bits of a connection's status.
const STATUS_SNAT: u32 = 16;
const STATUS_DNAT: u32 = 32;

/// Tables that packets come by.
#[derive(Clone, Debug, Default)]
pub struct Ruleset {
    tables: Vec<ForeignTable>,
}

/// What becomes of a packet at a hook.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It goes on.
    Accepted,
    /// It goes nowhere, in silence.
    Dropped,
    /// It goes nowhere, and its sender is told.
    Rejected,
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

/// A packet on its way.
#[derive(Clone, Debug)]
pub struct Walk<'a> {
    ruleset: &'a Ruleset,
    family: Family,
    /// What is known of the packet by now.
    pub facts: Facts,
    /// The connection's destination is settled, or its source: no other nat chain is asked (`nf_nat_initialized`).
    settled: [bool; 2],
}

/// How a rule ends, where it does not go on to the next.
enum End {
    Fate(Fate),
    Return,
    Jump(Name),
    Goto(Name),
}

impl Ruleset {
    /// These tables, planned or read.
    pub fn new(tables: impl IntoIterator<Item = impl Into<ForeignTable>>) -> Ruleset {
        Ruleset { tables: tables.into_iter().map(Into::into).collect() }
    }

    /// The chains that packets of a family enter at a hook, in the kernel's order.
    pub fn at(&self, family: Family, hook: Hook) -> Vec<(&ForeignTable, &Name, &Chain, Base)> {
        let tables = self.tables.iter().filter(|table| table.family.sees(family));
        let mut chains: Vec<_> = tables
            .flat_map(|table| table.at(hook).map(move |(name, chain, base)| (table, name, chain, base)))
            .collect();
        chains.sort_by_key(|(.., base)| base.priority);
        chains
    }

    /// Follows a packet of a family.
    pub fn follow(&self, family: Family, facts: Facts) -> Walk<'_> {
        Walk { ruleset: self, family, facts, settled: [false; 2] }
    }
}

impl Fate {
    fn of(policy: Policy) -> Fate {
        match policy {
            Policy::Accept => Fate::Accepted,
            Policy::Drop => Fate::Dropped,
        }
    }
}

/// What nat chains of a hook settle: the destination (0) or the source (1).
fn settles(hook: Hook) -> Option<usize> {
    match hook {
        Hook::Prerouting | Hook::Output => Some(0),
        Hook::Input | Hook::Postrouting => Some(1),
        Hook::Forward | Hook::Ingress | Hook::Egress => None,
    }
}

impl<'a> Walk<'a> {
    /// Asks the chains of a hook.
    ///
    /// # Errors
    /// Where it is not known what a rule does.
    pub fn hook(&mut self, hook: Hook) -> Result<Fate, Lost> {
        for (table, name, chain, base) in self.ruleset.at(self.family, hook) {
            let is_settled = settles(hook).is_none_or(|which| self.settled[which]);
            if base.kind == ChainKind::Nat && is_settled {
                continue;
            }
            let fate = self.chain(hook, table, name, chain, 0)?.unwrap_or(Fate::of(base.policy));
            if fate != Fate::Accepted {
                return Ok(fate);
            }
        }
        // What no chain wanted to rewrite stays as it is.
        if let Some(which) = settles(hook) {
            self.settled[which] = true;
        }
        Ok(Fate::Accepted)
    }

    /// Asks the rules of a chain; none of them may decide.
    fn chain(
        &mut self,
        hook: Hook,
        table: &'a ForeignTable,
        name: &Name,
        chain: &'a Chain,
        depth: usize,
    ) -> Result<Option<Fate>, Lost> {
        for rule in &chain.rules {
            let lost = || Lost {
                table: format!("{} {}", table.family, table.name),
                chain: name.clone(),
                rule: rule.to_string(),
            };
            let (target, is_jump) = match self.rule(hook, table, rule).ok_or_else(lost)? {
                None => continue,
                Some(End::Fate(fate)) => return Ok(Some(fate)),
                Some(End::Return) => return Ok(None),
                Some(End::Jump(target)) => (target, true),
                Some(End::Goto(target)) => (target, false),
            };
            let called = table.chains.get_key_value(&target).filter(|_| depth < DEEPEST);
            let (target, called) = called.ok_or_else(lost)?;
            let fate = self.chain(hook, table, target, called, depth + 1)?;
            if fate.is_some() || !is_jump {
                return Ok(fate);
            }
        }
        Ok(None)
    }

    /// How a rule ends; `None` inside where the next one is asked, and outside where that is not known.
    fn rule(&mut self, hook: Hook, table: &ForeignTable, rule: &Rule) -> Option<Option<End>> {
        // A rule that does not apply for whatever reason is one that does not apply.
        let mut is_certain = true;
        for statement in &rule.statements {
            let decision = match (statement, table.statement(&self.facts, statement)) {
                (_, Fits::No) => return Some(None),
                (Statement::Assign(assign), _) if is_certain => match self.assign(table, assign)? {
                    true => continue,
                    false => return Some(None),
                },
                (_, Fits::Yes) => continue,
                (_, Fits::Perhaps) => {
                    is_certain = false;
                    continue;
                }
                (_, Fits::Decides(decision)) => decision,
            };
            if !is_certain {
                return None;
            }
            return Some(Some(match decision {
                Decision::Verdict(Verdict::Accept) => End::Fate(Fate::Accepted),
                Decision::Verdict(Verdict::Drop) => End::Fate(Fate::Dropped),
                Decision::Verdict(Verdict::Return) => End::Return,
                Decision::Verdict(Verdict::Jump(chain)) => End::Jump(chain),
                Decision::Verdict(Verdict::Goto(chain)) => End::Goto(chain),
                Decision::Reject => End::Fate(Fate::Rejected),
                Decision::Translate(_) => {
                    let Statement::Nat(nat) = statement else { return None };
                    match self.translate(hook, table, nat)? {
                        true => End::Fate(Fate::Accepted),
                        false => return Some(None),
                    }
                }
                Decision::Unknown => return None,
            }));
        }
        // Perhaps it wrote something.
        let writes = rule.statements.iter().any(|it| matches!(it, Statement::Assign(_)));
        (is_certain || !writes).then_some(None)
    }

    /// The bytes that a map holds for a concatenation; `None` inside where it holds none.
    fn data(&self, table: &ForeignTable, key: &[Expression], map: &Name) -> Option<Option<Vec<u8>>> {
        let key = self.facts.key(key)?;
        match table.sets.get(map)?.find(key.bytes())? {
            Some(element) => Some(Some(element.data.clone()?)),
            None => Some(None),
        }
    }

    /// Writes what a rule writes. Whether the rule goes on.
    fn assign(&mut self, table: &ForeignTable, assign: &Assign) -> Option<bool> {
        let number = |bytes: Vec<u8>| bytes.try_into().ok().map(u32::from_ne_bytes);
        let value = match &assign.source {
            Source::Value(value) => number(Tuple::new(&[*value]).bytes().to_vec())?,
            Source::Expression(read) => number(self.facts.bytes(read)?)?,
            Source::Bits { of, mask, flipped } => number(self.facts.bytes(of)?)? & mask ^ flipped,
            Source::Map(key, map) => match self.data(table, key, map)? {
                Some(bytes) => number(bytes)?,
                None => return Some(false),
            },
        };
        match assign.target {
            Expression::Meta(Meta::PRIORITY) => self.facts.priority = Some(value),
            Expression::Meta(Meta::MARK) => self.facts.mark = Some(value),
            Expression::Ct(Ct::MARK) => self.facts.connection_mark = Some(value),
            _ => {}
        }
        Some(true)
    }

    /// Rewrites an address. Whether the rule applies.
    fn translate(&mut self, hook: Hook, table: &ForeignTable, nat: &Nat) -> Option<bool> {
        match nat {
            Nat::Destination(family, to) => {
                let Some((address, port)) = self.translation(table, *family, to)? else { return Some(false) };
                self.set_destination(address, port);
            }
            Nat::Source(family, to) => {
                let Some((address, port)) = self.translation(table, *family, to)? else { return Some(false) };
                self.facts.source = Some(address);
                self.facts.source_port = port.or(self.facts.source_port);
                self.settle_source();
            }
            Nat::Masquerade { .. } => {
                // Which address that is the routes decide.
                self.facts.source = None;
                self.facts.source_port = None;
                self.settle_source();
            }
            Nat::Redirect { port } if hook == Hook::Output => {
                let loopback = match self.family {
                    Family::Ip => Ipv4Addr::LOCALHOST.into(),
                    Family::Ip6 => Ipv6Addr::LOCALHOST.into(),
                };
                self.set_destination(loopback, *port);
            }
            // To the first address of the interface.
            Nat::Redirect { .. } => return None,
        }
        Some(true)
    }

    fn translation(
        &self,
        table: &ForeignTable,
        family: Family,
        to: &Translation,
    ) -> Option<Option<(IpAddr, Option<u16>)>> {
        let address = DataType::address(family);
        let (key, map, has_port) = match to {
            Translation::To(address, port) => return Some(Some((*address, *port))),
            Translation::Map(key, map) => (key, map, true),
            Translation::AddressMap(key, map) => (key, map, false),
        };
        let Some(bytes) = self.data(table, key, map)? else { return Some(None) };
        let Value::Address(to) = address.decode(&bytes)? else { return None };
        let port = bytes.get(address.padded_len()..).and_then(|rest| rest.first_chunk());
        Some(Some((to, port.filter(|_| has_port).map(|port| u16::from_be_bytes(*port)))))
    }

    /// The kernel notes a rewritten destination only where it differs.
    fn set_destination(&mut self, address: IpAddr, port: Option<u16>) {
        let facts = &mut self.facts;
        let before = (facts.destination, facts.destination_port);
        if let (None, (Some(address), Some(port))) = (facts.original_destination, before) {
            facts.original_destination = Some(SocketAddr::new(address, port));
        }
        facts.destination = Some(address);
        facts.destination_port = port.or(facts.destination_port);
        if before != (facts.destination, facts.destination_port) {
            facts.status = facts.status.map(|status| status | STATUS_DNAT);
            facts.routed_back = None;
            // Which addresses are the machine's own is not known here.
            facts.destination_is_local = address.is_loopback().then_some(true);
        }
        self.settled[0] = true;
    }

    fn settle_source(&mut self) {
        self.facts.status = self.facts.status.map(|status| status | STATUS_SNAT);
        self.settled[1] = true;
    }
}
