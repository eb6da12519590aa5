//! From chain to chain, as the kernel calls them for the first packet of a connection: through any tables,
//! planned ones and those that were read, in the order of their priorities. What one rule does is in
//! `statement.rs`.

use super::guide::Alone;
use super::ruleset::{Entry, Tracking, Walk};
use super::statement::{Asked, Fits, Place};
use super::{Applies, Decision, Doubt, Guide, Lost, Step};
use crate::hook::Hook;
use crate::rule::{Rule, Statement, Verdict};
use crate::table::{Chain, ChainKind, Policy};

/// How deep chains may call each other (`NFT_JUMP_STACK_SIZE`): the kernel takes no more, and no circle.
const DEEPEST: usize = 16;
/// Where connection tracking takes a packet up (`NF_IP_PRI_CONNTRACK`).
const PRIORITY_CONNTRACK: i32 = -200;

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
                Decision::Verdict(Verdict::Continue) | Decision::Unknown => continue,
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
