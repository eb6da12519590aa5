//! Writes down what a walk through rules tells, and answers what it asks.

use std::net::{IpAddr, SocketAddr};

use weft_nftables::evaluator::{self, Applies, Decision, Facts, Guide, Lost};
use weft_nftables::{Hook, KnownTable, Name, Policy, Verdict};

use crate::machine::{Machine, Packet};
use crate::{Cause, Chain, Doubt, End, Step};

/// How the names of Weft's own tables begin. Of these all is known, or something is wrong.
const OWN: &str = "weft";

/// Whoever follows a packet through rules.
pub(crate) struct Teller<'m> {
    pub(crate) machine: &'m mut dyn Machine,
    pub(crate) steps: Vec<Step>,
    pub(crate) doubts: Vec<Doubt>,
    /// Why the packet goes no further.
    pub(crate) stops: Option<Cause>,
    /// The chain that the kernel called last, and at which hook.
    called: Option<(Hook, String)>,
    /// The packet's ends behind the last rule.
    ends: (Option<IpAddr>, Option<SocketAddr>),
    input: Option<String>,
}

impl<'m> Teller<'m> {
    pub(crate) fn new(machine: &'m mut dyn Machine, facts: &Facts) -> Teller<'m> {
        Teller {
            machine,
            steps: Vec::new(),
            doubts: Vec::new(),
            stops: None,
            called: None,
            ends: ends(facts),
            input: facts.input.clone(),
        }
    }

    /// The packet comes in by another interface now.
    pub(crate) fn enter(&mut self, device: &str) {
        self.input = Some(device.to_owned());
    }

    fn place(&self, table: &KnownTable, chain: &Name, rule: Option<String>) -> Chain {
        let hook = self.called.as_ref().map_or("", |(hook, _)| hook.name());
        let table = format!("{} {}", table.family, table.name);
        Chain { hook: hook.to_owned(), table, chain: chain.to_string(), rule }
    }

    /// A rule decided.
    fn decided(&mut self, chain: Chain, decision: &Decision, facts: &Facts) {
        let before = std::mem::replace(&mut self.ends, ends(facts));
        let now = self.ends;
        match decision {
            Decision::Verdict(Verdict::Drop) => self.stops = Some(Cause::Dropped(chain)),
            Decision::Reject => self.stops = Some(Cause::Rejected(chain)),
            Decision::Verdict(Verdict::Accept) => self.steps.push(Step::Passed(chain)),
            Decision::Translate(_) => self.steps.push(match (before, now) {
                ((_, Some(from)), (_, Some(to))) if from != to => Step::Destination { chain, from, to },
                ((Some(from), _), (to, _)) if to != Some(from) => Step::Source { chain, from, to },
                _ => Step::Passed(chain),
            }),
            Decision::Verdict(_) | Decision::Unknown => {}
        }
    }
}

fn ends(facts: &Facts) -> (Option<IpAddr>, Option<SocketAddr>) {
    let to = facts.destination.map(|to| SocketAddr::new(to, facts.destination_port.unwrap_or_default()));
    (facts.source, to)
}

impl Guide for Teller<'_> {
    fn step(&mut self, step: evaluator::Step<'_>) {
        match step {
            evaluator::Step::Chain { chain, base, .. } => self.called = Some((base.hook, chain.to_string())),
            evaluator::Step::Rule { table, chain, rule, applies, decision, facts, .. } => {
                if let (Applies::Yes, Some(decision)) = (applies, decision) {
                    let place = self.place(table, chain, Some(rule.to_string()));
                    self.decided(place, decision, facts);
                }
            }
            evaluator::Step::Policy(table, policy) => {
                let chain = self.called.as_ref().map(|(_, chain)| chain.clone()).unwrap_or_default();
                let place = self.place(table, &chain.into(), None);
                match policy {
                    Policy::Accept => self.steps.push(Step::Passed(place)),
                    Policy::Drop => self.stops = Some(Cause::Dropped(place)),
                }
            }
        }
    }

    fn rewritten(&mut self, facts: &mut Facts) {
        let Some(destination) = facts.destination else { return };
        let is_local = self.machine.is_local(destination);
        facts.destination_is_local = Some(is_local);
        let input = self.input.as_deref().filter(|input| !input.is_empty());
        let Some(source) = facts.source else { return };
        let packet = Packet { source, destination, input, mark: facts.mark.unwrap_or_default() };
        let routed = self.machine.route(&packet).ok();
        let device = routed.filter(|routed| !routed.is_local).map(|routed| routed.device);
        facts.routed_back = Some(device.is_some() && device.as_deref() == input);
        if input.is_none() {
            facts.output = if is_local { Some("lo".to_owned()) } else { device };
        }
    }

    fn doubt(&mut self, doubt: &evaluator::Doubt<'_>) -> Result<(), Lost> {
        if doubt.table.name.starts_with(OWN) {
            return Err(doubt.lost());
        }
        // Where a packet is led elsewhere, it does not come to where it is said to go.
        let stops = !matches!(doubt.decision, Decision::Verdict(Verdict::Accept | Verdict::Return));
        let chain = self.place(doubt.table, doubt.chain, Some(doubt.rule.to_string()));
        self.doubts.push(Doubt { chain, stops });
        Ok(())
    }
}

impl From<Lost> for End {
    fn from(lost: Lost) -> End {
        End::Unknown { reason: lost.to_string() }
    }
}
