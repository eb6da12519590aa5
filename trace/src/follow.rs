//! From hook to hook, with the routing decisions in between.

use std::net::SocketAddr;

use weft_nftables::evaluator::{Facts, Fate, Guide, Ruleset, Walk};
use weft_nftables::{Family, Hook};

use crate::guide::Teller;
use crate::machine::{Entered, Machine, Packet, Routed};
use crate::{End, Entry, NodeTrace, Question, Step, Tuple};

/// `NF_CT_STATE_BIT`: of a packet that fits no connection, one that belongs to a connection, and one that
/// begins one.
const INVALID: u32 = 1;
const ESTABLISHED: u32 = 2;
const NEW: u32 = 8;
/// The flags of TCP segments that begin a connection, and answer that.
const SYN: u8 = 2;
const SYN_ACK: u8 = 18;
/// `IPPROTO_ICMP`, `IPPROTO_ICMPV6`
const ICMP: u8 = 1;
const ICMPV6: u8 = 58;
/// No Service has more endpoints that are told of.
const MOST_DRAWS: u32 = 1 << 12;

/// Follows a packet through a node.
pub fn follow(question: &Question, node: &str, ruleset: &Ruleset, machine: &mut dyn Machine) -> NodeTrace {
    let mut question = question.clone();
    if question.source.is_unspecified() {
        // Whoever names no source gets the one by which the machine reaches the destination.
        question.source = machine.own_address_to(question.destination).unwrap_or(question.source);
    }
    let question = &question;
    let packet = question.packet();
    let mut trace = NodeTrace {
        node: node.to_owned(),
        came: packet,
        left: packet,
        steps: Vec::new(),
        endpoints: Vec::new(),
        end: End::Unknown { reason: String::new() },
        doubts: Vec::new(),
        notes: Vec::new(),
    };
    let input = match question.entry {
        Entry::Here => None,
        Entry::Pod | Entry::Link => {
            let Entered { device, steps, notes } = machine.entered(question);
            (trace.steps, trace.notes) = (steps, notes);
            match device {
                Ok(device) => Some(device),
                Err(end) => return NodeTrace { end, ..trace },
            }
        }
    };
    let draw = match draws(question, ruleset, machine, input.as_deref(), &mut trace) {
        Ok(draw) => draw,
        Err(end) => return NodeTrace { end, ..trace },
    };
    let facts = facts(question, machine, input.as_deref(), draw);
    let mut teller = Teller::new(machine, &facts);
    let mut walk = start(question, ruleset, facts);
    let ended = Run { question, walk: &mut walk, teller: &mut teller }.run(input.as_deref());
    let (stops, steps, doubts) = (teller.stops.take(), std::mem::take(&mut teller.steps), teller.doubts);
    trace.end = stops.map_or_else(|| ended.unwrap_or_else(|end| end), End::from);
    trace.steps.extend(steps);
    trace.doubts = doubts;
    trace.left = tuple(&walk.facts, &packet);
    settle_source(&mut trace, machine);
    trace
}

/// Which number is to be drawn, so that the packet goes to the endpoint that is asked for; and all that it
/// may go to.
fn draws(
    question: &Question,
    ruleset: &Ruleset,
    machine: &mut dyn Machine,
    input: Option<&str>,
    trace: &mut NodeTrace,
) -> Result<u32, End> {
    if question.answers.is_some() {
        return Ok(0);
    }
    let (mut chosen, mut draw, mut choices) = (None, 0, 1);
    while draw < choices {
        let facts = facts(question, machine, input, draw);
        let mut teller = Teller::new(machine, &facts);
        let mut walk = start(question, ruleset, facts);
        let first = if input.is_none() { Hook::Output } else { Hook::Prerouting };
        if walk.guided(first, &mut teller) == Ok(Fate::Accepted) {
            let left = tuple(&walk.facts, &question.packet());
            let to = SocketAddr::new(left.destination, left.port.unwrap_or_default());
            if (left.destination, left.port) != (question.destination, question.port)
                && !trace.endpoints.contains(&to)
            {
                trace.endpoints.push(to);
            }
            if question.endpoint == Some(to) {
                chosen = chosen.or(Some(draw));
            }
        }
        choices = choices.max(walk.choices.min(MOST_DRAWS));
        draw += 1;
    }
    trace.endpoints.sort();
    match question.endpoint {
        Some(endpoint) if chosen.is_none() => {
            Err(End::Unknown { reason: format!("the node leads nothing to {endpoint} any more") })
        }
        _ => Ok(chosen.unwrap_or_default()),
    }
}

fn start<'a>(question: &Question, ruleset: &'a Ruleset, facts: Facts) -> Walk<'a> {
    let family = family(question);
    match question.answers {
        Some(true) => ruleset.follow_tracked(family, facts),
        _ => ruleset.follow(family, facts),
    }
}

fn family(question: &Question) -> Family {
    Family::of(question.destination)
}

/// What rules find in the packet.
fn facts(question: &Question, machine: &dyn Machine, input: Option<&str>, draw: u32) -> Facts {
    let has_ports = question.port.is_some();
    Facts {
        source: Some(question.source),
        destination: Some(question.destination),
        protocol: Some(question.protocol),
        source_port: question.source_port.or((!has_ports).then_some(0)),
        destination_port: question.port.or((!has_ports).then_some(0)),
        icmp_type: echo(question),
        tcp_flags: Some(if question.answers.is_some() { SYN_ACK } else { SYN }),
        original_destination: None,
        input: Some(input.unwrap_or_default().to_owned()),
        input_address: input.and_then(|device| machine.first_address(device, family(question))),
        output: None,
        priority: Some(0),
        mark: Some(0),
        state: Some(match question.answers {
            None => NEW,
            Some(true) => ESTABLISHED,
            Some(false) => INVALID,
        }),
        status: Some(0),
        connection_mark: Some(0),
        source_is_local: Some(machine.is_local(question.source)),
        destination_is_local: Some(machine.is_local(question.destination)),
        routed_back: None,
        draw: Some(draw),
    }
}

/// The type of a ping, or of its answer (RFC 792, RFC 4443).
fn echo(question: &Question) -> Option<u8> {
    match (question.protocol, question.answers) {
        (ICMP, None) => Some(8),
        (ICMP, Some(_)) => Some(0),
        (ICMPV6, None) => Some(128),
        (ICMPV6, Some(_)) => Some(129),
        _ => None,
    }
}

fn tuple(facts: &Facts, before: &Tuple) -> Tuple {
    Tuple {
        source: facts.source.unwrap_or(before.source),
        source_port: before.source_port.and(facts.source_port.or(before.source_port)),
        destination: facts.destination.unwrap_or(before.destination),
        port: before.port.and(facts.destination_port),
    }
}

/// What is masqueraded gets the address by which the machine reaches the destination.
fn settle_source(trace: &mut NodeTrace, machine: &mut dyn Machine) {
    let destination = trace.left.destination;
    for step in &mut trace.steps {
        if let Step::Source { to, .. } = step {
            *to = to.or_else(|| machine.own_address_to(destination));
            trace.left.source = to.unwrap_or(trace.left.source);
        }
    }
}

/// A packet on its way.
struct Run<'r, 'a, 'm> {
    question: &'r Question,
    walk: &'r mut Walk<'a>,
    teller: &'r mut Teller<'m>,
}

impl Run<'_, '_, '_> {
    fn run(&mut self, input: Option<&str>) -> Result<End, End> {
        match input {
            None => self.made_here(),
            Some(input) => self.came_in(input),
        }
    }

    /// What this machine makes: routed first, and again where a rule leads it elsewhere.
    fn made_here(&mut self) -> Result<End, End> {
        let before = self.packet();
        let routed = self.route(None)?;
        self.walk.facts.output = Some(routed.device.clone());
        self.restore();
        self.hook(Hook::Output)?;
        let routed = if self.packet() == before { routed } else { self.route(None)? };
        self.walk.facts.output = Some(routed.device.clone());
        self.tell(&routed);
        self.hook(Hook::Postrouting)?;
        if !routed.is_local {
            return Ok(self.leaves(&routed));
        }
        (self.walk.facts.input, self.walk.facts.output) = (Some("lo".to_owned()), None);
        self.teller.enter("lo");
        self.hook(Hook::Prerouting)?;
        self.hook(Hook::Input)?;
        Ok(self.taken())
    }

    fn came_in(&mut self, input: &str) -> Result<End, End> {
        self.restore();
        self.teller.rewritten(&mut self.walk.facts);
        self.hook(Hook::Prerouting)?;
        let routed = self.route(Some(input))?;
        self.tell(&routed);
        if routed.is_local {
            self.hook(Hook::Input)?;
            return Ok(self.taken());
        }
        self.walk.facts.output = Some(routed.device.clone());
        self.hook(Hook::Forward)?;
        self.hook(Hook::Postrouting)?;
        Ok(self.leaves(&routed))
    }

    fn hook(&mut self, hook: Hook) -> Result<(), End> {
        match self.walk.guided(hook, self.teller) {
            Ok(Fate::Accepted) => Ok(()),
            // The guide was told by which rule.
            Ok(_) => Err(End::Unknown { reason: format!("it ends at hook {}", hook.name()) }),
            Err(lost) => Err(End::from(lost)),
        }
    }

    fn packet(&self) -> Tuple {
        tuple(&self.walk.facts, &self.question.packet())
    }

    /// An answer is what it was before the packet that it answers was rewritten: its destination at once, and
    /// its source when it leaves, by which nothing is routed or filtered here.
    fn restore(&mut self) {
        let Question { source_becomes, destination_becomes, .. } = *self.question;
        let from = self.packet();
        let facts = &mut self.walk.facts;
        if let Some(to) = destination_becomes {
            (facts.destination, facts.destination_port) = (Some(to.ip()), Some(to.port()));
        }
        let mut to = tuple(&self.walk.facts, &self.question.packet());
        if let Some(source) = source_becomes {
            (to.source, to.source_port) = (source.ip(), Some(source.port()));
        }
        if from != to {
            self.teller.steps.push(Step::Restored { from, to });
        }
    }

    fn route(&mut self, input: Option<&str>) -> Result<Routed, End> {
        let Some(mark) = self.walk.facts.mark else {
            let reason = "a rule sets the packet's mark, which may choose its route, to what is not known";
            return Err(End::Unknown { reason: reason.to_owned() });
        };
        let Tuple { source, destination, .. } = self.packet();
        self.teller.machine.route(&Packet { source, destination, input, mark })
    }

    fn tell(&mut self, routed: &Routed) {
        let Routed { device, gateway, table, mtu, .. } = routed.clone();
        let to = self.packet().destination;
        self.teller.steps.push(Step::Routed { to, device, gateway, table, mtu });
    }

    /// Connection tracking restores the source of an answer last.
    fn restore_source(&mut self) {
        if let Some(source) = self.question.source_becomes {
            (self.walk.facts.source, self.walk.facts.source_port) = (Some(source.ip()), Some(source.port()));
        }
    }

    fn leaves(&mut self, routed: &Routed) -> End {
        self.restore_source();
        let packet = self.packet();
        self.teller.machine.deliver(routed, &packet, self.question)
    }

    fn taken(&mut self) -> End {
        self.restore_source();
        let packet = self.packet();
        self.teller.machine.take(&packet, self.question)
    }
}
