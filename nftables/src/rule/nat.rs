//! Rules that rewrite addresses: `nat`, `masq` and `redir` (`NFTA_NAT_*`, `NFTA_MASQ_*`, `NFTA_REDIR_*`).

use std::fmt;
use std::net::IpAddr;

use weft_netlink::Family;
use weft_netlink::attribute::{Attributes, Writer};

use super::lookup::{self, Found};
use crate::expression::Expression;
use crate::register::{DATA_VALUE, expression, immediate, register};
use crate::value::{DataType, Name, Tuple, Value, concatenation};

/// `NFT_NAT_SNAT`, `NFT_NAT_DNAT`
const SNAT: u32 = 0;
const DNAT: u32 = 1;
/// Flags that only say what is given (`NF_NAT_RANGE_MAP_IPS`, `NF_NAT_RANGE_PROTO_SPECIFIED`).
const GIVEN: u32 = 1 | 2;
/// `NF_NAT_RANGE_PROTO_RANDOM_FULLY`
const FULLY_RANDOM: u32 = 1 << 4;

/// Rewrites an address, for all packets of the connection, and lets the packet through.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Nat {
    /// The destination: `dnat ip to 10.0.0.1:80`
    Destination(Family, Translation),
    /// The source: `snat ip to 10.0.0.1`
    Source(Family, Translation),
    /// The source, to an address of the outgoing interface: `masquerade`
    Masquerade {
        /// Its port is chosen at random: `fully-random`
        is_fully_random: bool,
    },
    /// The destination, to this machine: `redirect to :8080`
    Redirect {
        /// To that port.
        port: Option<u16>,
    },
}

/// What an address becomes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Translation {
    /// An address, and perhaps a port, that stand in the rule.
    To(IpAddr, Option<u16>),
    /// What a map holds for a concatenation: an address and a port.
    Map(Vec<Expression>, Name),
    /// The same with a map of addresses alone.
    AddressMap(Vec<Expression>, Name),
}

/// What is in a register that a translation reads.
pub(super) enum Read {
    Constant(Vec<u8>),
    /// What a map holds for a key.
    Found(Vec<Expression>, Name),
}

impl Nat {
    pub(super) fn write(&self, writer: &mut Writer<'_>) {
        match self {
            Nat::Destination(family, to) => to.write(DNAT, *family, writer),
            Nat::Source(family, to) => to.write(SNAT, *family, writer),
            Nat::Masquerade { is_fully_random } => expression("masq", writer, |data| {
                if *is_fully_random {
                    data.u32(1, FULLY_RANDOM);
                }
            }),
            Nat::Redirect { port } => {
                port.iter().for_each(|port| constant(0, Value::Port(*port), writer));
                expression("redir", writer, |data| port.iter().for_each(|_| data.u32(1, register(0))));
            }
        }
    }

    /// The statement of an expression of that name; `None` where not all of it is known. `held` tells what is
    /// in a register.
    pub(super) fn read(name: &str, data: &Attributes<'_>, held: impl Fn(u32) -> Option<Read>) -> Option<Nat> {
        match name {
            "masq" if data.get(2).is_none() => match data.u32(1).unwrap_or_default() {
                0 => Some(Nat::Masquerade { is_fully_random: false }),
                FULLY_RANDOM => Some(Nat::Masquerade { is_fully_random: true }),
                _ => None,
            },
            "redir" if data.u32(3).unwrap_or_default() & !GIVEN == 0 && is_single(data, 1) => {
                let port =
                    data.u32(1).map(|register| port(held(register)?)).map_or(Some(None), |it| it.map(Some));
                Some(Nat::Redirect { port: port? })
            }
            "nat" if data.u32(7).unwrap_or_default() & !GIVEN == 0 => {
                let family =
                    Family::BOTH.into_iter().find(|family| data.u32(2) == Some(family.number().into()))?;
                let to = Translation::read(data, family, held)?;
                match data.u32(1)? {
                    DNAT => Some(Nat::Destination(family, to)),
                    SNAT => Some(Nat::Source(family, to)),
                    _ => None,
                }
            }
            _ => None,
        }
    }

    /// The map that it asks, and with which key.
    pub(crate) fn map(&self) -> Option<(&[Expression], &Name)> {
        match self {
            Nat::Destination(_, Translation::Map(key, map) | Translation::AddressMap(key, map))
            | Nat::Source(_, Translation::Map(key, map) | Translation::AddressMap(key, map)) => {
                Some((key, map))
            }
            _ => None,
        }
    }
}

/// The last of a range is the first, which is in that attribute.
fn is_single(data: &Attributes<'_>, first: u16) -> bool {
    data.u32(first + 1).is_none_or(|last| data.u32(first) == Some(last))
}

fn constant(at: usize, value: Value, writer: &mut Writer<'_>) {
    immediate(register(at), writer, |data| data.bytes(DATA_VALUE, Tuple::new(&[value]).bytes()));
}

fn port(read: Read) -> Option<u16> {
    match read {
        Read::Constant(bytes) => Some(u16::from_be_bytes(*bytes.first_chunk()?)),
        Read::Found(..) => None,
    }
}

impl Translation {
    fn write(&self, kind: u32, family: Family, writer: &mut Writer<'_>) {
        let behind = DataType::address(family).padded_len();
        let has_port = match self {
            Translation::To(address, port) => {
                constant(0, Value::Address(*address), writer);
                port.iter().for_each(|port| constant(behind, Value::Port(*port), writer));
                port.is_some()
            }
            Translation::Map(key, map) | Translation::AddressMap(key, map) => {
                lookup::write(key, map, Found::Register(register(0)), writer);
                matches!(self, Translation::Map(..))
            }
        };
        expression("nat", writer, |data| {
            data.u32(1, kind);
            data.u32(2, family.number().into());
            data.u32(3, register(0)); // NFTA_NAT_REG_ADDR_MIN
            if has_port {
                data.u32(5, register(behind)); // NFTA_NAT_REG_PROTO_MIN
            }
        });
    }

    fn read(
        data: &Attributes<'_>,
        family: Family,
        held: impl Fn(u32) -> Option<Read>,
    ) -> Option<Translation> {
        if !is_single(data, 3) || !is_single(data, 5) {
            return None;
        }
        match held(data.u32(3)?)? {
            Read::Found(key, map) if data.get(5).is_some() => Some(Translation::Map(key, map)),
            Read::Found(key, map) => Some(Translation::AddressMap(key, map)),
            Read::Constant(bytes) => {
                let Value::Address(address) = DataType::address(family).decode(&bytes)? else { return None };
                let port = match data.u32(5) {
                    Some(register) => Some(port(held(register)?)?),
                    None => None,
                };
                Some(Translation::To(address, port))
            }
        }
    }
}

impl fmt::Display for Translation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Translation::To(address, None) => address.fmt(f),
            Translation::To(IpAddr::V4(address), Some(port)) => write!(f, "{address}:{port}"),
            Translation::To(IpAddr::V6(address), Some(port)) => write!(f, "[{address}]:{port}"),
            Translation::Map(key, map) | Translation::AddressMap(key, map) => {
                concatenation(f, key)?;
                write!(f, " map @{map}")
            }
        }
    }
}

impl fmt::Display for Nat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Nat::Destination(family, to) => write!(f, "dnat {family} to {to}"),
            Nat::Source(family, to) => write!(f, "snat {family} to {to}"),
            Nat::Masquerade { is_fully_random: true } => f.write_str("masquerade fully-random"),
            Nat::Masquerade { is_fully_random: false } => f.write_str("masquerade"),
            Nat::Redirect { port: None } => f.write_str("redirect"),
            Nat::Redirect { port: Some(port) } => write!(f, "redirect to :{port}"),
        }
    }
}
