//! Other programs' chains on a packet's way, as far as they can be read. A rule that asks for what is not known is taken not to
//! apply, and noted as a doubt.

use std::fmt;

use weft_nftables::evaluator::{Decision, Ruling};
use weft_nftables::{Chain, ForeignTable, Name, Rule, Verdict};

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

impl fmt::Display for Doubt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.rule)
    }
}

/// `FORWARD of table ip filter`
pub(super) fn label(table: &ForeignTable, chain: &Name) -> Name {
    format!("{chain} of table {} {}", table.family, table.name).into()
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
            let Ruling { decision: Some(decision), is_certain } = table.evaluate(rule, &self.foreign_facts())
            else {
                continue;
            };
            if !is_certain || matches!(decision, Decision::Unknown) {
                self.doubt(table, name, rule, &decision);
                continue;
            }
            self.tell(table, name, rule, Applies::Yes);
            let target = match decision {
                Decision::Verdict(Verdict::Accept) => return Some(End::Accepted),
                Decision::Verdict(Verdict::Drop) => return Some(self.stopped_by(rule, End::Dropped)),
                Decision::Reject => return Some(self.stopped_by(rule, End::Rejected)),
                Decision::Verdict(Verdict::Return) | Decision::Unknown => return None,
                Decision::Translate(how) => return Some(self.rewritten(rule, &how)),
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
}
