//! From chain to chain, as the kernel calls them for the first packet of a connection: through any tables, planned ones and those
//! that were read, in the order of their priorities. What one rule does is in `statement.rs`.

use std::collections::BTreeSet;

use weft_netlink::Family;

use super::guide::Alone;
use super::statement::{Asked, Fits, Place};
use super::{Applies, Decision, Doubt, Facts, Guide, Lost, Memory, Step};
use crate::known::KnownTable;
use crate::rule::{Rule, Statement, Verdict};
use crate::table::{Base, Chain, ChainKind, Hook, Policy};
use crate::transaction::TableKey;
use crate::value::Name;

/// How deep chains may call each other (`NFT_JUMP_STACK_SIZE`): the kernel takes no more, and no circle.
const DEEPEST: usize = 16;
/// Where connection tracking takes a packet up (`NF_IP_PRI_CONNTRACK`).
const PRIORITY_CONNTRACK: i32 = -200;

/// Tables that packets come by.
#[derive(Clone, Debug, Default)]
pub struct Ruleset {
    tables: Vec<KnownTable>,
}

/// A chain that packets enter, and how.
pub type Entry<'a> = (&'a KnownTable, &'a Name, &'a Chain, Base);

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

/// A packet on its way.
#[derive(Clone, Debug)]
pub struct Walk<'a> {
    ruleset: &'a Ruleset,
    pub(super) family: Family,
    /// What is known of the packet by now.
    pub facts: Facts,
    /// What packets wrote into maps.
    pub memory: Memory,
    /// In how many ways the numbers could be drawn that were drawn so far; 1 where none was.
    pub choices: u32,
    /// The connection's destination is settled, or its source: no other nat chain is asked (`nf_nat_initialized`).
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
        self.guided(hook, &mut Alone)
    }

    /// The same with a guide.
    ///
    /// # Errors
    /// Where the guide ends the walk.
    pub fn guided(&mut self, hook: Hook, guide: &mut dyn Guide) -> Result<Fate, Lost> {
        let ruleset = self.ruleset;
        for entry in ruleset.at(self.family, hook) {
            let fate = self.enter(entry, guide)?;
            if fate != Fate::Accepted {
                return Ok(fate);
            }
        }
        self.pass_tracking(hook, i32::MAX);
        // What no chain wanted to rewrite stays as it is.
        if let Some(which) = settles(hook) {
            self.settled[which] = true;
        }
        Ok(Fate::Accepted)
    }

    /// Asks one chain, as the kernel does at its hook.
    ///
    /// # Errors
    /// Where the guide ends the walk.
    pub fn enter(&mut self, entry: Entry<'a>, guide: &mut dyn Guide) -> Result<Fate, Lost> {
        let (table, chain, rules, base) = entry;
        self.pass_tracking(base.hook, base.priority);
        let is_settled = settles(base.hook).is_none_or(|which| self.settled[which]);
        if base.kind == ChainKind::Nat && (is_settled || self.tracking == Tracking::Never) {
            return Ok(Fate::Accepted);
        }
        guide.step(Step::Chain { table, chain, base });
        if let Some(fate) = self.chain(Place { table, chain, base }, rules, 0, guide)? {
            return Ok(fate);
        }
        guide.step(Step::Policy(table, base.policy));
        Ok(Fate::of(base.policy))
    }

    /// Connection tracking sees a packet at the first hooks, before the chains that come behind it.
    fn pass_tracking(&mut self, hook: Hook, priority: i32) {
        let is_before = matches!(hook, Hook::Prerouting | Hook::Output) && priority < PRIORITY_CONNTRACK;
        if !is_before && self.tracking == Tracking::NotYet {
            self.tracking = Tracking::Tracked;
        }
    }

    /// Asks the rules of a chain; none of them may decide.
    fn chain(
        &mut self,
        place: Place<'a>,
        chain: &'a Chain,
        depth: usize,
        guide: &mut dyn Guide,
    ) -> Result<Option<Fate>, Lost> {
        for rule in &chain.rules {
            let Some(decision) = self.rule(place, rule, guide)? else { continue };
            let (target, is_jump) = match &decision {
                Decision::Verdict(Verdict::Accept) | Decision::Translate(_) => {
                    return Ok(Some(Fate::Accepted));
                }
                Decision::Verdict(Verdict::Drop) => return Ok(Some(Fate::Dropped)),
                Decision::Reject => return Ok(Some(Fate::Rejected)),
                Decision::Verdict(Verdict::Return) => return Ok(None),
                Decision::Unknown => continue,
                Decision::Verdict(Verdict::Jump(target)) => (target, true),
                Decision::Verdict(Verdict::Goto(target)) => (target, false),
            };
            let called = place.table.chains.get_key_value(target).filter(|_| depth < DEEPEST);
            let Some((name, called)) = called else {
                guide.doubt(&place.doubt(rule, &decision, None))?;
                continue;
            };
            let fate = self.chain(Place { chain: name, ..place }, called, depth + 1, guide)?;
            if fate.is_some() || !is_jump {
                return Ok(fate);
            }
        }
        Ok(None)
    }

    /// What a rule decides; `None` where the next one is asked.
    fn rule(
        &mut self,
        place: Place<'a>,
        rule: &'a Rule,
        guide: &mut dyn Guide,
    ) -> Result<Option<Decision>, Lost> {
        let mut asked = Asked { place, guide, notes: Vec::new(), missing: None, is_certain: true };
        let (mut fits, mut decision) = (true, None);
        let mut rest = rule.statements.iter();
        while let Some(statement) = rest.next() {
            match self.statement(statement, &mut asked) {
                Fits::Yes => {}
                Fits::Perhaps => asked.is_certain = false,
                // Whatever else is not known of it.
                Fits::No => {
                    fits = false;
                    break;
                }
                // Perhaps it only does not apply; at the end it may decide.
                Fits::Decides(Decision::Unknown)
                    if rest.len() > 0 && !matches!(statement, Statement::Vmap(..)) =>
                {
                    asked.is_certain = false;
                }
                Fits::Decides(decided) => {
                    asked.is_certain &= decided != Decision::Unknown;
                    decision = Some(decided);
                    break;
                }
            }
        }
        let Asked { guide, notes, missing, is_certain, .. } = asked;
        let applies = match (fits, is_certain) {
            (false, _) => Applies::No,
            (true, true) => Applies::Yes,
            (true, false) => Applies::Unknown,
        };
        if let (Some(decision), Applies::Unknown) = (&decision, applies) {
            guide.doubt(&place.doubt(rule, decision, missing.as_ref()))?;
        }
        let Place { table, chain, .. } = place;
        let (notes, facts) = (&notes[..], &self.facts);
        guide.step(Step::Rule { table, chain, rule, applies, decision: decision.as_ref(), notes, facts });
        Ok(decision.filter(|_| applies == Applies::Yes))
    }
}

impl<'a> Place<'a> {
    fn doubt<'d>(
        &'d self,
        rule: &'d Rule,
        decision: &'d Decision,
        missing: Option<&'d crate::expression::Expression>,
    ) -> Doubt<'d> {
        Doubt { table: self.table, chain: self.chain, rule, decision, missing }
    }
}
