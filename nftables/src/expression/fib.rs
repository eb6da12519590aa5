//! `fib`: what the routes say of a packet's addresses (`NFTA_FIB_*`).

use std::fmt;

use weft_netlink::attribute::{Attributes, Writer};

use super::Kind;
use crate::facts::Facts;
use crate::value::DataType;

/// `NFTA_FIB_F_*`: which address is looked up, with what else, and whether only the existence of a route is
/// asked for.
const SADDR: u32 = 1;
const DADDR: u32 = 2;
const MARK: u32 = 4;
const IIF: u32 = 8;
const OIF: u32 = 16;
const PRESENT: u32 = 32;
/// `NFT_FIB_RESULT_OIF`, `NFT_FIB_RESULT_OIFNAME`, `NFT_FIB_RESULT_ADDRTYPE`
const RESULT_OIF: u32 = 1;
const RESULT_OIFNAME: u32 = 2;
const RESULT_TYPE: u32 = 3;
/// `RTN_UNICAST`, `RTN_LOCAL`
const UNICAST: u32 = 1;
pub(crate) const LOCAL: u32 = 2;

/// A question to the routes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Fib {
    result: u32,
    flags: u32,
}

impl Fib {
    /// The type of the source address: `fib saddr type`
    pub const SADDR_TYPE: Fib = Fib { result: RESULT_TYPE, flags: SADDR };
    /// The type of the destination address: `fib daddr type`
    pub const DADDR_TYPE: Fib = Fib { result: RESULT_TYPE, flags: DADDR };
    /// Whether the packet would leave by the interface that it came by: `fib daddr . iif oif exists`
    pub const ROUTED_BACK: Fib = Fib { result: RESULT_OIF, flags: DADDR | IIF | PRESENT };
}

impl Kind for Fib {
    const NAME: &str = "fib";

    fn data_type(&self) -> DataType {
        match self.result {
            RESULT_TYPE => DataType::AddressType,
            _ if self.flags & PRESENT != 0 => DataType::Boolean,
            RESULT_OIFNAME => DataType::IfName,
            _ => DataType::Bytes,
        }
    }

    fn encode(&self, writer: &mut Writer<'_>) {
        writer.u32(2, self.result);
        writer.u32(3, self.flags);
    }

    fn decode(data: &Attributes<'_>) -> Option<Fib> {
        Some(Fib { result: data.u32(2)?, flags: data.u32(3)? })
    }

    fn evaluate(&self, facts: &Facts) -> Option<Vec<u8>> {
        let kind =
            |is_local: Option<bool>| Some(if is_local? { LOCAL } else { UNICAST }.to_ne_bytes().to_vec());
        match *self {
            Fib::SADDR_TYPE => kind(facts.source_is_local),
            Fib::DADDR_TYPE => kind(facts.destination_is_local),
            Fib::ROUTED_BACK => facts.routed_back.map(|back| vec![u8::from(back)]),
            _ => None,
        }
    }
}

impl fmt::Display for Fib {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words = [(SADDR, "saddr"), (DADDR, "daddr"), (MARK, "mark"), (IIF, "iif"), (OIF, "oif")];
        let asked: Vec<&str> =
            words.iter().filter(|(flag, _)| self.flags & flag != 0).map(|(_, word)| *word).collect();
        let result = match self.result {
            RESULT_OIF => "oif",
            RESULT_OIFNAME => "oifname",
            _ => "type",
        };
        write!(f, "fib {} {result}", asked.join(" . "))
    }
}
