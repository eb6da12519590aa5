//! From hook to hook and from chain to chain, as the kernel calls them for the first packet of a connection.

use std::net::SocketAddr;

use weft_nftables::{Base, Chain, ChainKind, Family, ForeignTable, Hook, Name, Policy, Table, Verdict};

use super::rule::Effect;
use super::{Doubt, Memory, Origin, Outcome, Packet, Step, Trace, Tracer};
use crate::error::Error;

/// How deep chains may call each other (`NFT_JUMP_STACK_SIZE`): the kernel takes no more, and no circle.
pub(super) const DEEPEST: usize = 16;

/// A packet on its way.
pub(super) struct Walk<'a> {
    pub(super) tracer: &'a Tracer,
    pub(super) memory: &'a mut Memory,
    /// The packet as it is by now.
    pub(super) packet: Packet,
    /// What it was when it came: conntrack's original direction.
    pub(super) original: &'a Packet,
    /// `skb->priority`
    pub(super) priority: u32,
    /// It gets an address of the way out as its source. Which one the routes decide: later rules see the old one here.
    pub(super) masqueraded: bool,
    /// It is this machine's own and for it, and so comes in again through the loopback interface.
    pub(super) looped: bool,
    /// The connection's destination is settled, or its source: no other nat chain is asked for it (`nf_nat_initialized`).
    pub(super) settled: Settled,
    pub(super) draw: u32,
    pub(super) choices: u32,
    pub(super) steps: Vec<Step>,
    /// What is not known of other programs' rules.
    pub(super) doubts: Vec<Doubt>,
    /// The rule of another program that stopped the packet.
    pub(super) stopped_by: Option<String>,
}

/// A chain that the kernel calls.
#[derive(Clone, Copy)]
pub(super) enum Called<'a> {
    Own(&'a Table, &'a Name, &'a Chain),
    Foreign(&'a ForeignTable, &'a Name, &'a Chain),
}

/// A chain of another program that lets a packet go no further.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Block {
    /// Its table: `ip filter`.
    pub table: String,
    /// Its name.
    pub chain: Name,
    /// The rule, or its policy.
    pub cause: String,
    /// Rules of which it is not known whether they let the packet through.
    pub unless: Vec<String>,
}

#[derive(Clone, Copy, Default)]
pub(super) struct Settled {
    pub(super) destination: bool,
    pub(super) source: bool,
}

impl Settled {
    /// What nat chains of a hook decide about: nothing where there can be none.
    fn at(&mut self, hook: Hook) -> Option<&mut bool> {
        match hook {
            Hook::Prerouting | Hook::Output => Some(&mut self.destination),
            Hook::Input | Hook::Postrouting => Some(&mut self.source),
            Hook::Forward | Hook::Ingress | Hook::Egress => None,
        }
    }
}

/// How a chain ends for a packet that some rule decided about.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    Accepted,
    Dropped,
    Rejected,
}

pub(super) fn walk(tracer: &Tracer, packet: &Packet, draw: u32, memory: &mut Memory) -> Result<Trace, Error> {
    let mut walk = Walk::new(tracer, packet, draw, memory);
    let outcome = walk.run()?;
    let Walk { steps, choices, doubts, .. } = walk;
    Ok(Trace { packet: packet.clone(), steps, outcome, choices, doubts })
}

/// Asks other programs' chains about a packet that was led to `to` and is passed on.
pub(super) fn blocks(tracer: &Tracer, packet: &Packet, to: SocketAddr) -> Vec<Block> {
    let mut memory = Memory::default();
    let mut walk = Walk::new(tracer, packet, 0, &mut memory);
    walk.packet.destination = to;
    let mut blocks = Vec::new();
    for (called, base) in tracer.called(walk.family(), Hook::Forward) {
        let Called::Foreign(table, name, chain) = called else { continue };
        (walk.doubts, walk.stopped_by) = (Vec::new(), None);
        let end = walk.foreign_chain(table, name, chain, 0).unwrap_or(End::of(base.policy));
        if end != End::Accepted {
            let lets_through = walk.doubts.iter().filter(|doubt| !doubt.stops);
            blocks.push(Block {
                table: format!("{} {}", table.family, table.name),
                chain: name.clone(),
                cause: walk.stopped_by.take().unwrap_or_else(|| "policy drop".to_owned()),
                unless: lets_through.map(ToString::to_string).collect(),
            });
        }
    }
    blocks
}

impl End {
    fn of(policy: Policy) -> End {
        match policy {
            Policy::Accept => End::Accepted,
            Policy::Drop => End::Dropped,
        }
    }
}

impl<'a> Walk<'a> {
    fn new(tracer: &'a Tracer, packet: &'a Packet, draw: u32, memory: &'a mut Memory) -> Walk<'a> {
        Walk {
            tracer,
            memory,
            packet: packet.clone(),
            original: packet,
            priority: 0,
            masqueraded: false,
            looped: false,
            settled: Settled::default(),
            draw,
            choices: 1,
            steps: Vec::new(),
            doubts: Vec::new(),
            stopped_by: None,
        }
    }

    pub(super) fn family(&self) -> Family {
        Family::of(self.packet.source)
    }

    fn run(&mut self) -> Result<Outcome, Error> {
        let is_own = self.packet.origin == Origin::Machine;
        if let Some(outcome) = self.hook(if is_own { Hook::Output } else { Hook::Prerouting })? {
            return Ok(outcome);
        }
        for hook in self.route(is_own) {
            self.looped = is_own && *hook != Hook::Postrouting;
            if let Some(outcome) = self.hook(*hook)? {
                return Ok(outcome);
            }
        }
        Ok(Outcome::Passed { to: self.packet.destination, masqueraded: self.masqueraded })
    }

    /// The hooks that a packet comes to when its destination is settled.
    fn route(&mut self, is_own: bool) -> &'static [Hook] {
        let address = self.packet.destination.ip();
        let is_local = self.tracer.is_local(address);
        let (words, hooks): (_, &[Hook]) = match (is_own, is_local) {
            // Over the loopback interface, where it comes in again.
            (true, true) => {
                ("this machine's own: over lo", &[Hook::Postrouting, Hook::Prerouting, Hook::Input])
            }
            (true, false) => ("not this machine's: sent", &[Hook::Postrouting]),
            (false, true) => ("this machine's own: taken in", &[Hook::Input]),
            (false, false) => ("not this machine's: passed on", &[Hook::Forward, Hook::Postrouting]),
        };
        self.steps.push(Step::Route(format!("routing: {address} is {words}")));
        hooks
    }

    fn hook(&mut self, hook: Hook) -> Result<Option<Outcome>, Error> {
        let tracer = self.tracer;
        for (called, base) in tracer.called(self.family(), hook) {
            if base.kind == ChainKind::Nat && self.settled.at(hook).is_none_or(|settled| *settled) {
                continue;
            }
            let end = match called {
                Called::Own(table, name, chain) => {
                    self.steps.push(Step::Hook(name.clone(), base));
                    self.chain(table, name, chain, 0)?.unwrap_or_else(|| self.policy(base.policy))
                }
                Called::Foreign(table, name, chain) => self.foreign_hook(table, name, chain, base),
            };
            match end {
                End::Accepted => {}
                End::Dropped => return Ok(Some(Outcome::Dropped)),
                End::Rejected => return Ok(Some(Outcome::Rejected)),
            }
        }
        // What no chain wanted to rewrite stays as it is.
        if let Some(settled) = self.settled.at(hook) {
            *settled = true;
        }
        Ok(None)
    }

    /// Of other programs' chains only those are shown that have something to say.
    fn foreign_hook(&mut self, table: &'a ForeignTable, name: &'a Name, chain: &'a Chain, base: Base) -> End {
        let start = self.steps.len();
        let end = self.foreign_chain(table, name, chain, 0);
        if self.steps.len() > start || (end.is_none() && base.policy == Policy::Drop) {
            self.steps.insert(start, Step::Hook(super::foreign::label(table, name), base));
            return end.unwrap_or_else(|| self.policy(base.policy));
        }
        end.unwrap_or(End::of(base.policy))
    }

    fn policy(&mut self, policy: Policy) -> End {
        self.steps.push(Step::Policy(match policy {
            Policy::Accept => "accept",
            Policy::Drop => "drop",
        }));
        End::of(policy)
    }

    /// Asks the rules of a chain; none of them may decide.
    fn chain(
        &mut self,
        table: &'a Table,
        name: &'a Name,
        chain: &'a Chain,
        depth: usize,
    ) -> Result<Option<End>, Error> {
        for rule in &chain.rules {
            let target = match self.rule(table, name, rule)? {
                Effect::Next | Effect::Mismatch => continue,
                Effect::Reject => return Ok(Some(End::Rejected)),
                Effect::Verdict(Verdict::Accept) => return Ok(Some(End::Accepted)),
                Effect::Verdict(Verdict::Drop) => return Ok(Some(End::Dropped)),
                Effect::Verdict(Verdict::Return) => return Ok(None),
                Effect::Verdict(Verdict::Goto(target)) => return self.called(table, &target, name, depth),
                Effect::Verdict(Verdict::Jump(target)) => target,
            };
            if let Some(end) = self.called(table, &target, name, depth)? {
                return Ok(Some(end));
            }
        }
        Ok(None)
    }

    fn called(
        &mut self,
        table: &'a Table,
        name: &Name,
        from: &Name,
        depth: usize,
    ) -> Result<Option<End>, Error> {
        let refuse = |problem: String| Error::Trace { rule: format!("chain {from}"), problem };
        if depth == DEEPEST {
            return Err(refuse(format!("chains call each other more than {DEEPEST} deep")));
        }
        let known = table.chains.get_key_value(name);
        let (name, chain) =
            known.ok_or_else(|| refuse(format!("it leads to a chain {name}, which is not there")))?;
        self.chain(table, name, chain, depth + 1)
    }
}
