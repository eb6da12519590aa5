//! A packet's way through the tables, in user space: so that a policy is tested without root, and so that a person is told
//! why a packet does not get through. What is run are the very values that are sent to the kernel or read from it; there is
//! no second description of what they mean for a Service. Pure, but for `live.rs`.
//!
//! Only the first packet of a connection is followed: all rules of the proxy are asked for that one, and conntrack does with
//! the others as with the first.

use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, SocketAddr};

use weft_nftables::{Base, Family, ForeignTable, Hook, Name, Table};
use weft_types::IpNetwork;

use crate::error::Error;

mod facts;
mod foreign;
pub mod live;
mod memory;
mod packet;
mod rule;
mod walk;

pub use foreign::Doubt;
pub use memory::Memory;
pub use packet::{FORM, Origin, Packet};
pub use walk::Block;
use walk::Called;

/// Tables, and the machine that they are on.
#[derive(Clone, Debug)]
pub struct Tracer {
    tables: Vec<Table>,
    /// Those of other programs.
    foreign: Vec<ForeignTable>,
    addresses: BTreeSet<IpAddr>,
    /// Where networks are, by the name of an interface. Empty where that is not known.
    routes: Vec<(IpNetwork, Name)>,
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

/// Whether a rule applies to a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Applies {
    /// It does.
    Yes,
    /// It does not.
    No,
    /// It asks for something that is not known here, and is taken not to.
    Unknown,
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
        Tracer { tables, foreign: Vec::new(), addresses: addresses.into_iter().collect(), routes: Vec::new() }
    }

    /// The same on a machine with these routes.
    pub fn with_routes(self, routes: Vec<(IpNetwork, Name)>) -> Tracer {
        Tracer { routes, ..self }
    }

    /// The same on the machine of a Node of which no more is known: its pods are at one interface, and all else is behind
    /// another.
    pub fn on_node(self, pod_cidrs: &[IpNetwork]) -> Tracer {
        let everything = ["0.0.0.0/0", "::/0"].into_iter().filter_map(|network| network.parse().ok());
        let pods = pod_cidrs.iter().map(|network| (*network, Name::from("pods")));
        let routes = everything.map(|network| (network, Name::from("uplink"))).chain(pods).collect();
        self.with_routes(routes)
    }

    /// The same among the tables of other programs.
    pub fn among(self, foreign: Vec<ForeignTable>) -> Tracer {
        Tracer { foreign, ..self }
    }

    /// Which chains of other programs stop a packet that was led to `to` and is passed on there.
    pub fn blocks(&self, packet: &Packet, to: SocketAddr) -> Vec<Block> {
        walk::blocks(self, packet, to)
    }

    /// The interface by which packets to an address leave.
    pub(crate) fn interface_to(&self, address: IpAddr) -> Option<&Name> {
        let leading = self.routes.iter().filter(|(network, _)| network.contains(address));
        leading.max_by_key(|(network, _)| network.prefix()).map(|(_, interface)| interface)
    }

    /// Follows a packet. `draw` takes the place of every random number; `memory` holds what rules write and read again.
    ///
    /// # Errors
    /// What a rule asks for and nobody here knows.
    pub fn trace(&self, packet: &Packet, draw: u32, memory: &mut Memory) -> Result<Trace, Error> {
        walk::walk(self, packet, draw, memory)
    }

    /// All that may become of a packet, whatever number is drawn. Nothing is remembered.
    ///
    /// # Errors
    /// As of [`Tracer::trace`].
    pub fn outcomes(&self, packet: &Packet, memory: &Memory) -> Result<BTreeSet<Outcome>, Error> {
        let choices = self.trace(packet, 0, &mut memory.clone())?.choices;
        let outcome = |draw| Ok(self.trace(packet, draw, &mut memory.clone())?.outcome);
        (0..choices).map(outcome).collect()
    }

    /// A packet's way for people to read, with whatever else could become of it.
    ///
    /// # Errors
    /// As of [`Tracer::trace`].
    pub fn explain(&self, packet: &Packet, memory: &Memory) -> Result<String, Error> {
        let trace = self.trace(packet, 0, &mut memory.clone())?;
        let mut text = trace.to_string();
        for other in self.outcomes(packet, memory)?.iter().filter(|outcome| **outcome != trace.outcome) {
            text += &format!("or, as chance will have it, {other}\n");
        }
        Ok(text)
    }

    /// Whether the machine has that address (`RTN_LOCAL`).
    fn is_local(&self, address: IpAddr) -> bool {
        address.is_loopback() || self.addresses.contains(&address)
    }

    /// The chains that the kernel calls at a hook, in its order.
    fn called(&self, family: Family, hook: Hook) -> Vec<(Called<'_>, Base)> {
        let own = self.tables.iter().filter(|table| table.family == family).flat_map(|table| {
            table
                .chains
                .iter()
                .filter_map(|(name, chain)| Some((Called::Own(table, name, chain), chain.base?)))
        });
        let foreign = self.foreign.iter().filter(|table| table.family.sees(family)).flat_map(|table| {
            table.at(hook).map(|(name, chain, base)| (Called::Foreign(table, name, chain), base))
        });
        let mut called: Vec<_> = own.chain(foreign).filter(|(_, base)| base.hook == hook).collect();
        called.sort_by_key(|(_, base)| base.priority);
        called
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Outcome::Passed { to, masqueraded: false } => {
                write!(f, "goes to {to}, with the source that it has")
            }
            Outcome::Passed { to, masqueraded: true } => {
                write!(f, "goes to {to}, with an address of this machine as its source")
            }
            Outcome::Rejected => f.write_str("is rejected: the client is told at once"),
            Outcome::Dropped => f.write_str("is dropped: the client hears nothing"),
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
                    writeln!(f, "  {} {text}", applies)?;
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
                "not certain: it is not known here whether this applies, which is marked \"?\": {doubt}"
            )?;
        }
        Ok(())
    }
}

impl fmt::Display for Applies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Applies::Yes => "+",
            Applies::No => "-",
            Applies::Unknown => "?",
        })
    }
}
