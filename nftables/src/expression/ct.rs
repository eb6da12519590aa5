//! `ct`: what connection tracking knows of a packet's connection (`NFTA_CT_*`).

use std::fmt;
use std::net::IpAddr;

use weft_netlink::Family;
use weft_netlink::attribute::{Attributes, Writer};

use super::{Kind, Row};
use crate::facts::Facts;
use crate::value::DataType;

/// A key of `ct` by the kernel's number (`enum nft_ct_keys`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Ct {
    key: u32,
    /// Of the original direction (`IP_CT_DIR_ORIGINAL`), or of the reply's; none where the key knows no
    /// direction.
    direction: Option<u8>,
}

/// The keys that are known: their words, their types, and what each finds.
const KEYS: [Row<Ct>; 6] = [
    (Ct::STATE, "ct state", DataType::CtState, |facts| number(facts.state)),
    (Ct::STATUS, "ct status", DataType::CtStatus, |facts| number(facts.status)),
    (Ct::MARK, "ct mark", DataType::Mark, |facts| number(facts.connection_mark)),
    (Ct::ORIGINAL_DPORT, "ct original proto-dst", DataType::InetService, |facts| {
        facts.original_destination.map(|destination| destination.port().to_be_bytes().to_vec())
    }),
    (Ct::original(20), "ct original ip daddr", DataType::Ipv4Addr, |facts| {
        match facts.original_destination?.ip() {
            IpAddr::V4(address) => Some(address.octets().to_vec()),
            IpAddr::V6(_) => None,
        }
    }),
    (Ct::original(22), "ct original ip6 daddr", DataType::Ipv6Addr, |facts| {
        match facts.original_destination?.ip() {
            IpAddr::V6(address) => Some(address.octets().to_vec()),
            IpAddr::V4(_) => None,
        }
    }),
];

fn number(number: Option<u32>) -> Option<Vec<u8>> {
    Some(number?.to_ne_bytes().to_vec())
}

impl Ct {
    /// What a packet is to its connection: `ct state`
    pub const STATE: Ct = Ct { key: 0, direction: None };
    /// What was done to a connection: `ct status`
    pub const STATUS: Ct = Ct { key: 2, direction: None };
    /// A connection's mark: `ct mark`
    pub const MARK: Ct = Ct { key: 3, direction: None };
    /// The port that the connection's first packet was sent to: `ct original proto-dst`
    pub const ORIGINAL_DPORT: Ct = Ct::original(12);

    const fn original(key: u32) -> Ct {
        Ct { key, direction: Some(0) }
    }

    /// The address that the connection's first packet was sent to.
    pub fn original_daddr(family: Family) -> Ct {
        match family {
            Family::Ip => Ct::original(20),
            Family::Ip6 => Ct::original(22),
        }
    }

    fn known(self) -> Option<&'static Row<Ct>> {
        KEYS.iter().find(|(ct, ..)| *ct == self)
    }
}

impl Kind for Ct {
    const NAME: &str = "ct";
    /// `NFTA_CT_SREG`
    const WRITTEN_FROM: Option<u16> = Some(4);

    fn data_type(&self) -> DataType {
        self.known().map_or(DataType::Bytes, |(_, _, kind, _)| *kind)
    }

    fn encode(&self, writer: &mut Writer<'_>) {
        writer.u32(2, self.key);
        self.direction.iter().for_each(|direction| writer.u8(3, *direction));
    }

    fn decode(data: &Attributes<'_>) -> Option<Ct> {
        Some(Ct { key: data.u32(2)?, direction: data.get(3).and_then(|bytes| bytes.first().copied()) })
    }

    fn evaluate(&self, facts: &Facts) -> Option<Vec<u8>> {
        let (_, _, _, find) = self.known()?;
        find(facts)
    }
}

impl fmt::Display for Ct {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.known() {
            Some((_, words, _, _)) => f.write_str(words),
            None => write!(f, "ct {}", self.key),
        }
    }
}
