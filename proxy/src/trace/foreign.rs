//! Other programs' chains on a packet's way, as far as they can be read. A rule that asks for what is not known is taken not to
//! apply, and noted as a doubt.

use std::fmt;

use weft_nftables::evaluator::Facts;
use weft_nftables::{
    Chain, Effect, Expression, ForeignTable, Match, Name, Operand, Operator, Rule, Statement, Verdict,
};

use super::walk::{DEEPEST, End, Walk};
use super::{Applies, Step};

/// A rule of which it is not known whether it applies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Doubt {
    /// The rule, in nft's words as far as they are known.
    pub rule: String,
    /// If it applies, the packet goes no further.
    pub stops: bool,
}

/// What a rule comes to.
enum Ruling {
    Next,
    /// A verdict, or the rewriting of an address; not certain, where something was not known.
    Decides(Decision),
}

enum Decision {
    Verdict(Verdict),
    Reject,
    Rewrite(Name),
    Unknown,
}

impl fmt::Display for Doubt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.rule)
    }
}

/// `FORWARD of table ip filter`
pub(super) fn label(table: &ForeignTable, chain: &Name) -> Name {
    format!("{chain} of table {} {}", table.layer, table.name).into()
}

impl<'a> Walk<'a> {
    /// Asks the rules of a chain; none of them may decide.
    pub(super) fn foreign_chain(
        &mut self,
        table: &'a ForeignTable,
        name: &'a Name,
        chain: &'a Chain,
        depth: usize,
    ) -> Option<End> {
        for rule in &chain.rules {
            let (ruling, certain) = self.foreign_rule(table, rule);
            let Ruling::Decides(decision) = ruling else { continue };
            if !certain || matches!(decision, Decision::Unknown) {
                self.doubt(table, name, rule, &decision);
                continue;
            }
            self.tell(table, name, rule, Applies::Yes);
            let target = match decision {
                Decision::Verdict(Verdict::Accept) => return Some(End::Accepted),
                Decision::Verdict(Verdict::Drop) => return Some(self.stopped_by(rule, End::Dropped)),
                Decision::Reject => return Some(self.stopped_by(rule, End::Rejected)),
                Decision::Verdict(Verdict::Return) | Decision::Unknown => return None,
                Decision::Rewrite(how) => return Some(self.rewritten(rule, &how)),
                Decision::Verdict(Verdict::Goto(target)) => {
                    return self.foreign_called(table, &target, depth);
                }
                Decision::Verdict(Verdict::Jump(target)) => target,
            };
            if let Some(end) = self.foreign_called(table, &target, depth) {
                return Some(end);
            }
        }
        None
    }

    fn foreign_called(&mut self, table: &'a ForeignTable, name: &Name, depth: usize) -> Option<End> {
        let (name, chain) = table.chains.get_key_value(name).filter(|_| depth < DEEPEST)?;
        self.foreign_chain(table, name, chain, depth + 1)
    }

    fn stopped_by(&mut self, rule: &Rule, end: End) -> End {
        self.stopped_by = Some(rule.to_string());
        end
    }

    /// To what address is not known, save where the source is rewritten.
    fn rewritten(&mut self, rule: &Rule, how: &str) -> End {
        match how {
            "masq" | "MASQUERADE" | "SNAT" => self.masqueraded = true,
            _ => self.doubts.push(Doubt { rule: rule.to_string(), stops: true }),
        }
        End::Accepted
    }

    fn doubt(&mut self, table: &ForeignTable, chain: &Name, rule: &Rule, decision: &Decision) {
        let stops = matches!(decision, Decision::Verdict(Verdict::Drop) | Decision::Reject);
        self.doubts.push(Doubt { rule: rule.to_string(), stops });
        self.tell(table, chain, rule, Applies::Unknown);
    }

    fn tell(&mut self, table: &ForeignTable, chain: &Name, rule: &Rule, applies: Applies) {
        let (chain, text) = (label(table, chain), rule.to_string());
        self.steps.push(Step::Rule { chain, text, applies, notes: Vec::new() });
    }

    /// What a rule does, and whether all that it asks for is known.
    fn foreign_rule(&mut self, table: &ForeignTable, rule: &Rule) -> (Ruling, bool) {
        let facts = self.foreign_facts();
        let mut certain = true;
        let mut rest = rule.statements.iter();
        while let Some(statement) = rest.next() {
            let decision = match self.foreign_statement(table, &facts, statement) {
                Fits::Yes => continue,
                Fits::No => return (Ruling::Next, true),
                Fits::Perhaps => {
                    certain = false;
                    continue;
                }
                Fits::Decides(decision) => decision,
            };
            match decision {
                // Perhaps it only does not apply; at the end it may decide.
                Decision::Unknown if rest.len() > 0 && !matches!(statement, Statement::Vmap(..)) => {
                    certain = false;
                }
                Decision::Unknown => return (Ruling::Decides(decision), false),
                decision => return (Ruling::Decides(decision), certain),
            }
        }
        (Ruling::Next, true)
    }

    fn foreign_statement(&self, table: &ForeignTable, facts: &Facts, statement: &Statement) -> Fits {
        match statement {
            Statement::Match(Match { expression, operator, value: Operand::Set(set) }) => Fits::of(
                found(table, facts, expression, set)
                    .map(|found| found.is_some() == (*operator == Operator::Equal)),
            ),
            Statement::Match(comparison) => Fits::of(facts.compare(comparison)),
            Statement::Vmap(key, map) => match found(table, facts, key, map) {
                Some(Some(Some(verdict))) => Fits::Decides(Decision::Verdict(verdict)),
                Some(None) => Fits::Yes,
                _ => Fits::Decides(Decision::Unknown),
            },
            Statement::Verdict(verdict) => Fits::Decides(Decision::Verdict(verdict.clone())),
            Statement::Reject(_) | Statement::Other(_, Effect::Rejects) => Fits::Decides(Decision::Reject),
            Statement::Dnat(..) => Fits::Decides(Decision::Rewrite("nat".into())),
            Statement::Masquerade => Fits::Decides(Decision::Rewrite("masq".into())),
            Statement::Other(how, Effect::Translates) => Fits::Decides(Decision::Rewrite(how.clone())),
            Statement::Limit(_) | Statement::Other(_, Effect::Matches) => Fits::Perhaps,
            Statement::Other(_, Effect::Unknown) => Fits::Decides(Decision::Unknown),
            Statement::Other(_, Effect::Continues)
            | Statement::SetPriority(..)
            | Statement::ResetPriority
            | Statement::Update(..)
            | Statement::Note(..)
            | Statement::Delete(..)
            | Statement::Log(_)
            | Statement::Counter { .. }
            | Statement::FlowAdd(_)
            | Statement::Notrack => Fits::Yes,
        }
    }
}

/// What a statement comes to.
enum Fits {
    Yes,
    No,
    /// What it asks for is not known.
    Perhaps,
    Decides(Decision),
}

impl Fits {
    fn of(known: Option<bool>) -> Fits {
        match known {
            Some(true) => Fits::Yes,
            Some(false) => Fits::No,
            None => Fits::Perhaps,
        }
    }
}

/// What a set has for a key: an element, perhaps with a verdict.
fn found(
    table: &ForeignTable,
    facts: &Facts,
    key: &[Expression],
    set: &Name,
) -> Option<Option<Option<Verdict>>> {
    let key = facts.key(key)?;
    let found = table.sets.get(set)?.find(key.bytes())?;
    Some(found.map(|element| element.verdict.clone()))
}
