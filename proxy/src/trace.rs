//! A packet's way through the tables, in user space: so that a policy is tested without root, and so that a
//! person is told why a packet does not get through. What is run are the very values that are sent to the
//! kernel or read from it; there is no second description of what they mean for a Service. Pure, but for
//! `live.rs`.
//!
//! Only the first packet of a connection is followed: all rules of the proxy are asked for that one, and
//! conntrack does with the others as with the first.

use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, SocketAddr};

pub use weft_nftables::evaluator::{Applies, Memory};
use weft_nftables::evaluator::{Facts, Ruleset};
use weft_nftables::{Base, KnownTable, Name, Table, TableKey};
use weft_types::IpNetwork;

use crate::error::Error;
use crate::services::node::NodeConfig;

pub mod live;
mod packet;
mod teller;
mod way;

pub use packet::{Origin, Packet};
pub use teller::Doubt;

/// No rule of the proxy draws among more numbers.
const MOST_DRAWS: u32 = 1 << 16;

/// Tables, and the machine that they are on.
#[derive(Clone, Debug)]
pub struct Tracer {
    ruleset: Ruleset,
    /// Which of the tables are the proxy's own.
    own: BTreeSet<TableKey>,
    addresses: BTreeSet<IpAddr>,
    /// Where networks are, by the name of an interface. Empty where that is not known.
    routes: Vec<(IpNetwork, Name)>,
    /// The interfaces of the routes have the machine's own names.
    knows_interfaces: bool,
}

/// The way of a packet (`SOURCE -> ADDRESS:PORT[/PROTOCOL]`) through these tables alone, on a machine of which
/// no more is known than its Node tells.
///
/// # Errors
/// What of the packet cannot be understood or followed.
pub fn explain(packet: &str, tables: Vec<Table>, node: &NodeConfig) -> Result<String, Error> {
    let packet = Packet::parse(packet, &node.addresses)?;
    let tracer = Tracer::new(tables, node.addresses.iter().copied()).on_node(&node.pod_cidrs);
    tracer.explain(&packet, &Memory::default())
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

/// What becomes of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Outcome {
    /// It goes on.
    Passed {
        /// Where to: another address than it was sent to, if a Service has that one.
        to: SocketAddr,
        /// It gets an address of this machine as its source.
        masqueraded: bool,
    },
    /// It goes nowhere, and the client is told: over TCP by a reset, else by an ICMP "port unreachable".
    Rejected,
    /// It goes nowhere, in silence.
    Dropped,
}

/// One step on the way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// The kernel calls a chain.
    Hook(Name, Base),
    /// A rule is asked.
    Rule {
        /// The chain that it stands in.
        chain: Name,
        /// The rule, in nft's words.
        text: String,
        /// It applies to the packet.
        applies: Applies,
        /// What it found, and why it does not apply.
        notes: Vec<String>,
    },
    /// No rule of a base chain decided: its policy does.
    Policy(&'static str),
    /// The machine decides between two hooks where the packet goes.
    Route(String),
}

/// A packet's way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trace {
    /// The packet, as it came.
    pub packet: Packet,
    /// What happened to it.
    pub steps: Vec<Step>,
    /// What became of it.
    pub outcome: Outcome,
    /// Among how many numbers one was drawn for it; 1 where none was.
    pub choices: u32,
    /// Rules of other programs that may apply, and lead elsewhere.
    pub doubts: Vec<Doubt>,
}

impl Tracer {
    /// Runs these tables, as if on a machine with these addresses besides its loopback ones.
    pub fn new(tables: Vec<Table>, addresses: impl IntoIterator<Item = IpAddr>) -> Tracer {
        Tracer {
            own: tables.iter().map(Table::key).collect(),
            ruleset: Ruleset::new(&tables),
            addresses: addresses.into_iter().collect(),
            routes: Vec::new(),
            knows_interfaces: false,
        }
    }

    /// The same on a machine with these routes.
    pub fn with_routes(self, routes: Vec<(IpNetwork, Name)>) -> Tracer {
        Tracer { routes, knows_interfaces: true, ..self }
    }

    /// The same on the machine of a Node of which no more is known: its pods are at one interface, and all
    /// else is behind another.
    pub fn on_node(self, pod_cidrs: &[IpNetwork]) -> Tracer {
        let everything = ["0.0.0.0/0", "::/0"].into_iter().filter_map(|network| network.parse().ok());
        let pods = pod_cidrs.iter().map(|network| (*network, Name::from("pods")));
        let routes = everything.map(|network| (network, Name::from("uplink"))).chain(pods).collect();
        Tracer { routes, ..self }
    }

    /// The same among the tables of other programs.
    pub fn among(self, foreign: Vec<KnownTable>) -> Tracer {
        Tracer { ruleset: self.ruleset.with(foreign), ..self }
    }

    /// Which chains of other programs stop a packet that was led to `to` and is passed on there.
    pub fn blocks(&self, packet: &Packet, to: SocketAddr) -> Vec<Block> {
        way::blocks(self, packet, to)
    }

    /// The interface by which packets to an address leave.
    pub(crate) fn interface_to(&self, address: IpAddr) -> Option<&Name> {
        let leading = self.routes.iter().filter(|(network, _)| network.contains(address));
        leading.max_by_key(|(network, _)| network.prefix()).map(|(_, interface)| interface)
    }

    /// Follows a packet. `draw` takes the place of every random number; `memory` holds what rules write and
    /// read again.
    ///
    /// # Errors
    /// What a rule asks for and nobody here knows.
    pub fn trace(&self, packet: &Packet, draw: u32, memory: &mut Memory) -> Result<Trace, Error> {
        way::follow(self, packet, draw, memory)
    }

    /// All that may become of a packet, whatever number is drawn. Nothing is remembered.
    ///
    /// # Errors
    /// As of [`Tracer::trace`].
    pub fn outcomes(&self, packet: &Packet, memory: &Memory) -> Result<BTreeSet<Outcome>, Error> {
        let (mut outcomes, mut draw, mut choices) = (BTreeSet::new(), 0, 1);
        while draw < choices {
            let trace = self.trace(packet, draw, &mut memory.clone())?;
            // What is drawn first may decide how much is drawn.
            choices = choices.max(trace.choices.min(MOST_DRAWS));
            outcomes.insert(trace.outcome);
            draw += 1;
        }
        Ok(outcomes)
    }

    /// A packet's way for people to read, with whatever else could become of it.
    ///
    /// # Errors
    /// As of [`Tracer::trace`].
    pub fn explain(&self, packet: &Packet, memory: &Memory) -> Result<String, Error> {
        let trace = self.trace(packet, 0, &mut memory.clone())?;
        let mut text = trace.to_string();
        for other in self.outcomes(packet, memory)?.iter().filter(|outcome| **outcome != trace.outcome) {
            text += &format!("or, as endpoints are chosen at random, it {other}\n");
        }
        Ok(text)
    }

    /// Whether the machine has that address (`RTN_LOCAL`).
    fn is_local(&self, address: IpAddr) -> bool {
        address.is_loopback() || self.addresses.contains(&address)
    }

    /// Whether a table is the proxy's own.
    fn is_own(&self, table: &KnownTable) -> bool {
        self.own.contains(&table.key())
    }

    /// The interfaces that a packet came and leaves by, as far as they are known.
    fn way<'a>(&'a self, packet: &'a Packet, facts: &Facts) -> (Option<&'a Name>, Option<&'a Name>) {
        let came = match &packet.origin {
            Origin::Interface(Some(name)) => Some(name),
            // What comes from there comes by the interface that leads there.
            _ => self.interface_to(packet.source),
        };
        (came, facts.destination.and_then(|to| self.interface_to(to)))
    }

    /// What follows from where a packet goes by now.
    fn lead(&self, packet: &Packet, facts: &mut Facts) {
        let (came, leaves) = self.way(packet, facts);
        let is_local = facts.destination.is_some_and(|to| self.is_local(to));
        facts.destination_is_local = Some(is_local);
        facts.output = leaves.filter(|_| self.knows_interfaces && !is_local).map(ToString::to_string);
        // Where the routes are not known, it is taken to leave by the interface that it came by.
        facts.routed_back = Some(came.zip(leaves).is_none_or(|(came, leaves)| came == leaves));
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Outcome::Passed { to, masqueraded: false } => write!(f, "goes to {to} with its source unchanged"),
            Outcome::Passed { to, masqueraded: true } => {
                write!(f, "goes to {to} with an address of this node as its source")
            }
            Outcome::Rejected => f.write_str("is rejected: the client gets an error at once"),
            Outcome::Dropped => f.write_str("is dropped: the client gets no answer"),
        }
    }
}

impl fmt::Display for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}\n", self.packet)?;
        let mut current = None;
        for step in &self.steps {
            match step {
                Step::Hook(chain, base) => {
                    writeln!(f, "chain {chain} {{ {base} }}")?;
                    current = Some(chain);
                }
                Step::Rule { chain, text, applies, notes } => {
                    if current.replace(chain) != Some(chain) {
                        writeln!(f, "chain {chain}")?;
                    }
                    let mark = match applies {
                        Applies::Yes => "+",
                        Applies::No => "-",
                        Applies::Unknown => "?",
                    };
                    writeln!(f, "  {mark} {text}")?;
                    notes.iter().try_for_each(|note| writeln!(f, "      {note}"))?;
                }
                Step::Policy(policy) => writeln!(f, "  policy {policy}")?,
                Step::Route(text) => writeln!(f, "{text}")?,
            }
        }
        writeln!(f, "\nthe packet {}", self.outcome)?;
        for doubt in &self.doubts {
            writeln!(
                f,
                "not certain: this rule, marked \"?\", may also apply, which cannot be told from here: {doubt}"
            )?;
        }
        Ok(())
    }
}
