//! From hook to hook, as the machine leads a packet; what happens at each hook is the walk's to say.

use std::net::SocketAddr;

use weft_nftables::evaluator::{Facts, Fate, Memory, Walk};
use weft_nftables::{Family, Hook};

use super::teller::Teller;
use super::{Block, Origin, Outcome, Packet, Step, Trace, Tracer};
use crate::error::Error;

/// The bit of a new connection in `ct state`, and that of a rewritten destination in `ct status`
/// (`NF_CT_STATE_BIT`, `IPS_DST_NAT`).
const STATE_NEW: u32 = 8;
const STATUS_DNAT: u32 = 32;

pub(super) fn follow(
    tracer: &Tracer,
    packet: &Packet,
    draw: u32,
    memory: &mut Memory,
) -> Result<Trace, Error> {
    // A packet comes without a mark; sockets that give theirs one are few.
    let facts = Facts { draw: Some(draw), mark: Some(0), ..facts(tracer, packet, packet.destination) };
    let mut walk = tracer.ruleset.follow(Family::of(packet.source), facts);
    walk.memory = std::mem::take(memory);
    let mut teller = Teller::new(tracer, packet);
    let outcome = run(&mut walk, &mut teller);
    let choices = walk.choices;
    *memory = walk.memory;
    let outcome = match outcome {
        Ok(outcome) => outcome,
        Err(lost) => return Err(teller.error(&lost)),
    };
    let Teller { steps, doubts, .. } = teller;
    Ok(Trace { packet: packet.clone(), steps, outcome, choices, doubts })
}

/// Asks other programs' chains about a packet that was led to `to` and is passed on.
pub(super) fn blocks(tracer: &Tracer, packet: &Packet, to: SocketAddr) -> Vec<Block> {
    let (mut blocks, family) = (Vec::new(), Family::of(packet.source));
    for entry in tracer.ruleset.at(family, Hook::Forward) {
        let (table, chain, ..) = entry;
        if tracer.is_own(table) {
            continue;
        }
        let mut teller = Teller::new(tracer, packet);
        let fate = tracer.ruleset.follow(family, facts(tracer, packet, to)).enter(entry, &mut teller);
        if fate.is_ok_and(|fate| fate != Fate::Accepted) {
            let lets_through = teller.doubts.iter().filter(|doubt| !doubt.stops);
            blocks.push(Block {
                table: format!("{} {}", table.family, table.name),
                chain: chain.clone(),
                unless: lets_through.map(ToString::to_string).collect(),
                cause: teller.decided_by.unwrap_or_else(|| "policy drop".to_owned()),
            });
        }
    }
    blocks
}

/// What rules find in the packet once it goes to `to`.
fn facts(tracer: &Tracer, packet: &Packet, to: SocketAddr) -> Facts {
    let is_known = |name: &&weft_nftables::Name| tracer.knows_interfaces && !name.is_empty();
    let came = tracer.interface_to(packet.source).filter(is_known);
    let mut facts = Facts {
        source: Some(packet.source),
        destination: Some(to.ip()),
        protocol: Some(packet.protocol.number()),
        destination_port: Some(to.port()),
        original_destination: Some(packet.destination),
        input: match &packet.origin {
            Origin::Machine => Some(String::new()),
            Origin::Interface(Some(name)) => Some(name.to_string()),
            // What comes from there comes by the interface that leads there.
            Origin::Interface(None) => came.map(ToString::to_string),
        },
        state: Some(STATE_NEW),
        status: Some(if to == packet.destination { 0 } else { STATUS_DNAT }),
        source_is_local: Some(tracer.is_local(packet.source)),
        ..Facts::default()
    };
    tracer.lead(packet, &mut facts);
    facts
}

fn run(walk: &mut Walk<'_>, teller: &mut Teller<'_>) -> Result<Outcome, weft_nftables::evaluator::Lost> {
    let packet = teller.packet;
    let is_own = packet.origin == Origin::Machine;
    let first = if is_own { Hook::Output } else { Hook::Prerouting };
    let mut fate = walk.guided(first, teller)?;
    if fate == Fate::Accepted {
        for hook in route(walk, teller, is_own) {
            // What goes over the loopback interface comes in again.
            if is_own && *hook == Hook::Prerouting {
                walk.facts.input = Some("lo".to_owned());
            }
            fate = walk.guided(*hook, teller)?;
            if fate != Fate::Accepted {
                break;
            }
        }
    }
    let to = walk.facts.destination.zip(walk.facts.destination_port);
    Ok(match fate {
        Fate::Dropped => Outcome::Dropped,
        Fate::Rejected => Outcome::Rejected,
        Fate::Accepted => Outcome::Passed {
            to: to.map_or(packet.destination, |(address, port)| SocketAddr::new(address, port)),
            masqueraded: walk.facts.source != Some(packet.source),
        },
    })
}

/// The hooks that a packet comes to when its destination is settled.
fn route(walk: &Walk<'_>, teller: &mut Teller<'_>, is_own: bool) -> &'static [Hook] {
    let address = walk.facts.destination.unwrap_or(teller.packet.destination.ip());
    let (words, hooks): (_, &[Hook]) = match (is_own, teller.tracer.is_local(address)) {
        (true, true) => ("this machine's own: over lo", &[Hook::Postrouting, Hook::Prerouting, Hook::Input]),
        (true, false) => ("not this machine's: sent", &[Hook::Postrouting]),
        (false, true) => ("this machine's own: taken in", &[Hook::Input]),
        (false, false) => ("not this machine's: passed on", &[Hook::Forward, Hook::Postrouting]),
    };
    teller.steps.push(Step::Route(format!("routing: {address} is {words}")));
    hooks
}
