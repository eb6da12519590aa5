//! What a machine says of its own network.

use std::net::IpAddr;

use weft_nftables::Family;

use crate::{Cause, End, Question, Step, Tuple};

/// A packet that is to be routed.
#[derive(Clone, Copy, Debug)]
pub struct Packet<'a> {
    /// Where it comes from.
    pub source: IpAddr,
    /// Where it goes.
    pub destination: IpAddr,
    /// The interface that it came in by; none where this machine makes it.
    pub input: Option<&'a str>,
    /// Its mark.
    pub mark: u32,
}

/// The way that a machine takes for a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Routed {
    /// It is for this machine.
    pub is_local: bool,
    /// The interface.
    pub device: String,
    /// The next hop; none where the destination is on the link.
    pub gateway: Option<IpAddr>,
    /// The routing table.
    pub table: u32,
    /// The largest packet, in bytes.
    pub mtu: u32,
}

/// How a packet comes in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entered {
    /// The interface that rules see; where it does not come in, its end.
    pub device: Result<String, End>,
    /// What happens to the packet until then.
    pub steps: Vec<Step>,
    /// What else there is to know.
    pub notes: Vec<String>,
}

/// A machine: its links, routes and pods.
pub trait Machine {
    /// How a packet comes in that this machine does not make.
    fn entered(&mut self, question: &Question) -> Entered;

    /// Which way a packet takes.
    ///
    /// # Errors
    /// Why it takes none, as an end.
    fn route(&mut self, packet: &Packet<'_>) -> Result<Routed, End>;

    /// The address that a packet to there gets in the place of its source, where that is masqueraded.
    fn own_address_to(&mut self, destination: IpAddr) -> Option<IpAddr>;

    /// Whether an address is this machine's own.
    fn is_local(&self, address: IpAddr) -> bool;

    /// The first address of that family that an interface has.
    fn first_address(&self, device: &str, family: Family) -> Option<IpAddr>;

    /// What becomes of a packet that leaves by that way.
    fn deliver(&mut self, routed: &Routed, packet: &Tuple, question: &Question) -> End;

    /// What becomes of a packet that is for this machine.
    fn take(&mut self, packet: &Tuple, question: &Question) -> End;
}

impl From<Cause> for End {
    fn from(cause: Cause) -> End {
        End::Stops { cause }
    }
}
