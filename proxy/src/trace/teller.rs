//! Writes down what a walk tells, and decides where it may go on without knowing: in the proxy's own tables
//! nowhere, and in those of other programs everywhere. Of other programs' chains only what decides is shown.

use std::fmt;

use weft_nftables::evaluator::{Applies, Decision, Doubt as Unknown, Facts, Guide, Lost, Note, Step as Told};
use weft_nftables::{Base, Ct, Expression, Fib, KnownTable, Name, Policy, Tuple, Verdict};

use super::{Packet, Step, Tracer};
use crate::error::Error;

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

/// Whoever follows a packet's walk.
pub(super) struct Teller<'a> {
    pub(super) tracer: &'a Tracer,
    /// The packet as it came.
    pub(super) packet: &'a Packet,
    pub(super) steps: Vec<Step>,
    /// What is not known of other programs' rules.
    pub(super) doubts: Vec<Doubt>,
    /// The last rule that decided something.
    pub(super) decided_by: Option<String>,
    /// Another program's chain of which nothing was shown yet.
    silent: Option<(Name, Base)>,
    /// Why the walk ends.
    problem: Option<String>,
}

impl<'a> Teller<'a> {
    pub(super) fn new(tracer: &'a Tracer, packet: &'a Packet) -> Teller<'a> {
        let (steps, doubts) = (Vec::new(), Vec::new());
        Teller { tracer, packet, steps, doubts, decided_by: None, silent: None, problem: None }
    }

    /// What ended the walk.
    pub(super) fn error(self, lost: &Lost) -> Error {
        let rule = format!("the rule `{}` of chain {}", lost.rule, lost.chain);
        Error::Trace { rule, problem: self.problem.unwrap_or_else(|| lost.to_string()) }
    }

    fn show_silent(&mut self) {
        self.steps.extend(self.silent.take().map(|(chain, base)| Step::Hook(chain, base)));
    }

    /// The chain's name as it is shown.
    fn label(&self, table: &KnownTable, chain: &Name) -> Name {
        match self.tracer.is_own(table) {
            true => chain.clone(),
            false => format!("{chain} of table {} {}", table.family, table.name).into(),
        }
    }

    /// A note in words.
    fn words(&self, note: &Note, facts: &Facts) -> String {
        let Note::Differs(expression) = note else { return note.to_string() };
        let not_local = |address: Option<std::net::IpAddr>| {
            let address = address.map_or_else(|| "it".to_owned(), |address| address.to_string());
            format!("{address} is not an address of this machine")
        };
        match expression {
            Expression::Ct(Ct::STATUS) => "the destination was not rewritten".to_owned(),
            // A first packet begins a connection, which is never invalid.
            Expression::Ct(Ct::STATE) => "it begins a connection".to_owned(),
            Expression::Fib(Fib::DADDR_TYPE) => not_local(facts.destination),
            Expression::Fib(Fib::SADDR_TYPE) => not_local(facts.source),
            Expression::Fib(Fib::ROUTED_BACK) => {
                let (came, leaves) = self.tracer.way(self.packet, facts);
                let name = |name: Option<&Name>| name.map_or_else(|| "nowhere".to_owned(), Name::to_string);
                format!("it came by {} and leaves by {}", name(came), name(leaves))
            }
            &Expression::IIFNAME => format!("iifname is {:?}", facts.input.as_deref().unwrap_or_default()),
            _ => {
                let bytes = facts.bytes(expression).unwrap_or_default();
                let value = Tuple::from_kernel(&bytes).values(&[expression.data_type()]);
                let value = value.and_then(|values| values.first().copied());
                value.map_or_else(|| format!("{expression} is {bytes:?}"), |v| format!("{expression} is {v}"))
            }
        }
    }
}

impl Guide for Teller<'_> {
    fn step(&mut self, step: Told<'_>) {
        match step {
            Told::Chain { table, chain, base } => {
                self.silent = Some((self.label(table, chain), base));
                if self.tracer.is_own(table) {
                    self.show_silent();
                }
            }
            Told::Rule { table, chain, rule, applies, decision, notes, facts } => {
                let is_own = self.tracer.is_own(table);
                if !is_own && (decision.is_none() || applies == Applies::No) {
                    return;
                }
                self.show_silent();
                if applies == Applies::Yes && decision.is_some() {
                    self.decided_by = Some(rule.to_string());
                }
                let notes = notes.iter().filter(|_| is_own).map(|note| self.words(note, facts)).collect();
                let (chain, text) = (self.label(table, chain), rule.to_string());
                self.steps.push(Step::Rule { chain, text, applies, notes });
            }
            Told::Policy(_, policy) => {
                self.decided_by = None;
                if policy == Policy::Drop {
                    self.show_silent();
                }
                if self.silent.take().is_none() {
                    self.steps.push(Step::Policy(policy.name()));
                }
            }
        }
    }

    fn rewritten(&mut self, facts: &mut Facts) {
        self.tracer.lead(self.packet, facts);
    }

    fn doubt(&mut self, doubt: &Unknown<'_>) -> Result<(), Lost> {
        if self.tracer.is_own(doubt.table) {
            self.problem = Some(problem(doubt));
            return Err(doubt.lost());
        }
        // Where a packet is led elsewhere, it does not come to where it is said to go.
        let stops = matches!(
            doubt.decision,
            Decision::Verdict(Verdict::Drop) | Decision::Reject | Decision::Translate(_)
        );
        self.doubts.push(Doubt { rule: doubt.rule.to_string(), stops });
        Ok(())
    }
}

/// Why it is not known what a rule does, and what to do.
fn problem(doubt: &Unknown<'_>) -> String {
    match doubt.missing {
        Some(&Expression::IIFNAME) => {
            "it asks for the interface; add \"via INTERFACE\" to the packet".to_owned()
        }
        Some(&Expression::OIFNAME) => "by which interface packets leave is not known here".to_owned(),
        Some(expression) => format!("{expression} is not known here"),
        None => match doubt.decision {
            Decision::Verdict(Verdict::Jump(chain) | Verdict::Goto(chain))
                if !doubt.table.chains.contains_key(chain) =>
            {
                format!("it leads to a chain {chain}, which is not there")
            }
            _ => "what it does is not known here".to_owned(),
        },
    }
}
