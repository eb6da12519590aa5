//! `payload`: bytes of a header (`NFTA_PAYLOAD_*`).

use std::fmt;
use std::net::IpAddr;

use weft_netlink::Family;
use weft_netlink::attribute::{Attributes, Writer};

use super::{Kind, Row};
use crate::facts::Facts;
use crate::value::DataType;

/// `IPPROTO_TCP`
const TCP: u8 = 6;

/// Where a field is counted from (`enum nft_payload_bases`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Header {
    /// The link layer: `@ll`
    Link,
    /// The network layer: `@nh`
    Network,
    /// The transport layer: `@th`
    Transport,
    /// What the transport carries: `@ih`
    Inner,
}

/// Bytes of a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Payload {
    /// The header.
    pub header: Header,
    /// How many bytes stand before it.
    pub offset: u32,
    /// How many bytes it has. Of an address it may be only the first ones.
    pub length: u32,
}

/// The fields that are known, each with what it finds. A field begins there, and has at most this length.
const FIELDS: [Row<Payload>; 9] = {
    use Header::{Network, Transport};
    const fn at(header: Header, offset: u32, length: u32) -> Payload {
        Payload { header, offset, length }
    }
    [
        (at(Network, 12, 4), "ip saddr", DataType::Ipv4Addr, |facts| v4(facts.source)),
        (at(Network, 16, 4), "ip daddr", DataType::Ipv4Addr, |facts| v4(facts.destination)),
        (at(Network, 9, 1), "ip protocol", DataType::InetProto, |facts| {
            v4(facts.source.or(facts.destination)).and(facts.protocol).map(|number| vec![number])
        }),
        (at(Network, 8, 16), "ip6 saddr", DataType::Ipv6Addr, |facts| v6(facts.source)),
        (at(Network, 24, 16), "ip6 daddr", DataType::Ipv6Addr, |facts| v6(facts.destination)),
        (at(Transport, 0, 2), "th sport", DataType::InetService, |facts| port(facts.source_port)),
        (at(Transport, 2, 2), "th dport", DataType::InetService, |facts| port(facts.destination_port)),
        // What its words are in nft depends on the protocol that the rule matched before.
        (at(Transport, 0, 1), "@th,0,8", DataType::Bytes, |facts| facts.icmp_type.map(|kind| vec![kind])),
        (at(Transport, 13, 1), "tcp flags", DataType::TcpFlags, |facts| {
            facts.tcp_flags.filter(|_| facts.protocol == Some(TCP)).map(|flags| vec![flags])
        }),
    ]
};

fn v4(address: Option<IpAddr>) -> Option<Vec<u8>> {
    match address? {
        IpAddr::V4(address) => Some(address.octets().to_vec()),
        IpAddr::V6(_) => None,
    }
}

fn v6(address: Option<IpAddr>) -> Option<Vec<u8>> {
    match address? {
        IpAddr::V6(address) => Some(address.octets().to_vec()),
        IpAddr::V4(_) => None,
    }
}

fn port(port: Option<u16>) -> Option<Vec<u8>> {
    Some(port?.to_be_bytes().to_vec())
}

impl Payload {
    /// The transport source port.
    pub const SPORT: Payload = Payload { header: Header::Transport, offset: 0, length: 2 };
    /// The transport destination port.
    pub const DPORT: Payload = Payload { header: Header::Transport, offset: 2, length: 2 };

    /// The flags of TCP. The rule must match TCP before: `tcp flags`
    pub const TCP_FLAGS: Payload = Payload { header: Header::Transport, offset: 13, length: 1 };

    /// The family of the header in which a known field stands; `None` of a field of both.
    pub(crate) fn family(&self) -> Option<Family> {
        let (_, words, ..) = self.field()?;
        match words.split(' ').next()? {
            "ip" => Some(Family::Ip),
            "ip6" => Some(Family::Ip6),
            _ => None,
        }
    }

    /// The source address.
    pub fn saddr(family: Family) -> Payload {
        let (offset, length) = match family {
            Family::Ip => (12, 4),
            Family::Ip6 => (8, 16),
        };
        Payload { header: Header::Network, offset, length }
    }

    /// The destination address.
    pub fn daddr(family: Family) -> Payload {
        let (offset, length) = match family {
            Family::Ip => (16, 4),
            Family::Ip6 => (24, 16),
        };
        Payload { header: Header::Network, offset, length }
    }

    /// The field that it is, or of which it is the beginning.
    fn field(self) -> Option<&'static Row<Payload>> {
        let begins = |field: &Payload| field.header == self.header && field.offset == self.offset;
        let of_length = |exact: bool| {
            FIELDS.iter().find(|(field, _, kind, _)| {
                let fits = field.length == self.length
                    || (!exact && kind.is_address() && self.length < field.length);
                begins(field) && fits
            })
        };
        of_length(true).or_else(|| of_length(false))
    }
}

impl Kind for Payload {
    const NAME: &str = "payload";

    fn data_type(&self) -> DataType {
        self.field().map_or(DataType::Bytes, |(_, _, kind, _)| *kind)
    }

    fn len(&self) -> usize {
        self.length as usize
    }

    fn encode(&self, writer: &mut Writer<'_>) {
        writer.u32(2, self.header as u32);
        writer.u32(3, self.offset);
        writer.u32(4, self.length);
    }

    fn decode(data: &Attributes<'_>) -> Option<Payload> {
        let headers = [Header::Link, Header::Network, Header::Transport, Header::Inner];
        // Without a register to fill it writes into the packet.
        data.get(1)?;
        let header = *headers.get(data.u32(2)? as usize)?;
        Some(Payload { header, offset: data.u32(3)?, length: data.u32(4)? })
    }

    fn evaluate(&self, facts: &Facts) -> Option<Vec<u8>> {
        let (_, _, _, find) = self.field()?;
        let mut found = find(facts)?;
        found.truncate(self.len());
        Some(found)
    }
}

impl fmt::Display for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some((_, name, _, _)) = self.field() {
            return f.write_str(name);
        }
        let header = match self.header {
            Header::Link => "ll",
            Header::Network => "nh",
            Header::Transport => "th",
            Header::Inner => "ih",
        };
        write!(f, "@{header},{},{}", 8 * u64::from(self.offset), 8 * u64::from(self.length))
    }
}
