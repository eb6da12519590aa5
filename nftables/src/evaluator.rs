//! What rules find in a packet, without the kernel: so that a policy is tested without root, and a person is told why a packet
//! does not get through. Nothing is guessed: what is not known is `None`.

use std::net::{IpAddr, SocketAddr};

use super::expression::Expression;
use super::rule::{Match, Verdict};
use super::value::{Name, Tuple};

mod guide;
mod memory;
mod statement;
mod walk;

pub use guide::{Applies, Doubt, Guide, Lost, Note, Step};
pub use memory::Memory;
pub use walk::{Entry, Fate, Ruleset, Walk};

/// What is known of a packet that begins a connection, and of the machine that it is on.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// Its source address.
    pub source: Option<IpAddr>,
    /// Its destination address, as it is by now.
    pub destination: Option<IpAddr>,
    /// The number of its transport protocol.
    pub protocol: Option<u8>,
    /// Its transport source port.
    pub source_port: Option<u16>,
    /// Its transport destination port, as it is by now.
    pub destination_port: Option<u16>,
    /// The flags of its TCP header.
    pub tcp_flags: Option<u8>,
    /// Where it was sent to before a rule rewrote that.
    pub original_destination: Option<SocketAddr>,
    /// The name of the interface that it came in by; empty where there is none.
    pub input: Option<String>,
    /// The first address of that interface: where `redirect` sends the packet.
    pub input_address: Option<IpAddr>,
    /// The name of the interface that it leaves by.
    pub output: Option<String>,
    /// Its priority.
    pub priority: Option<u32>,
    /// Its mark.
    pub mark: Option<u32>,
    /// Bits of `ct state` (`NF_CT_STATE_BIT`).
    pub state: Option<u32>,
    /// Bits of `ct status` (`IPS_*`).
    pub status: Option<u32>,
    /// The mark of its connection.
    pub connection_mark: Option<u32>,
    /// Its source is an address of this machine.
    pub source_is_local: Option<bool>,
    /// Its destination is an address of this machine.
    pub destination_is_local: Option<bool>,
    /// It would leave by the interface that it came by.
    pub routed_back: Option<bool>,
    /// Says which numbers are drawn: for each the remainder by its modulus; a walk goes on with the quotient.
    pub draw: Option<u32>,
}

impl Facts {
    /// What an expression reads of it; `None` where that is not known.
    pub fn bytes(&self, expression: &Expression) -> Option<Vec<u8>> {
        expression.evaluate(self)
    }

    /// What a concatenation reads of it, as the key of a set.
    pub fn key(&self, expressions: &[Expression]) -> Option<Tuple> {
        let mut key = Vec::new();
        for expression in expressions {
            key.extend(self.bytes(expression)?);
            if expressions.len() > 1 {
                key.resize(key.len().next_multiple_of(4), 0);
            }
        }
        Some(Tuple::from_kernel(&key))
    }

    /// Whether a comparison holds; `None` where that is not known, or where a set must be asked.
    pub fn compare(&self, comparison: &Match) -> Option<bool> {
        comparison.holds(&self.bytes(comparison.expression.first()?)?)
    }
}

/// How a rule ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// With a verdict.
    Verdict(Verdict),
    /// It tells the sender that the packet goes no further.
    Reject,
    /// It rewrites an address and lets the packet through.
    Translate(Name),
    /// What it decides, if anything, is not known.
    Unknown,
}
