//! From hook to hook and from chain to chain, as the kernel calls them for the first packet of a connection.

use weft_netlink::nft::{Chain, ChainKind, Family, Hook, Name, Policy, Table, Verdict};

use super::rule::Effect;
use super::{Memory, Origin, Outcome, Packet, Step, Trace, Tracer};
use crate::error::Error;

/// How deep chains may call each other (`NFT_JUMP_STACK_SIZE`): the kernel takes no more, and no circle.
const DEEPEST: usize = 16;

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
            Hook::Forward => None,
        }
    }
}

/// How a chain ends for a packet that some rule decided about.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    Accepted,
    Dropped,
    Rejected,
}

pub(super) fn walk(tracer: &Tracer, packet: &Packet, draw: u32, memory: &mut Memory) -> Result<Trace, Error> {
    let mut walk = Walk {
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
    };
    let outcome = walk.run()?;
    Ok(Trace { packet: packet.clone(), steps: walk.steps, outcome, choices: walk.choices })
}

impl<'a> Walk<'a> {
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
        for (table, name, chain, base) in tracer.called(self.family(), hook) {
            if base.kind == ChainKind::Nat && self.settled.at(hook).is_none_or(|settled| *settled) {
                continue;
            }
            self.steps.push(Step::Hook(name.clone(), base));
            let end = self.chain(table, name, chain, 0)?;
            let end = end.unwrap_or_else(|| self.policy(base.policy));
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

    fn policy(&mut self, policy: Policy) -> End {
        let (word, end) = match policy {
            Policy::Accept => ("accept", End::Accepted),
            Policy::Drop => ("drop", End::Dropped),
        };
        self.steps.push(Step::Policy(word));
        end
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
