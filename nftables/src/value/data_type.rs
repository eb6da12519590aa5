//! The types that nft gives to keys and data of sets.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};

use weft_netlink::Family;

use super::{INTERFACE_NAME_LENGTH, Value};

/// The type of one field of a set's key or of a map's data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DataType {
    /// `ipv4_addr`
    Ipv4Addr,
    /// `ipv6_addr`
    Ipv6Addr,
    /// `inet_proto`: an IP protocol number.
    InetProto,
    /// `inet_service`: a port.
    InetService,
    /// A number below 65536 in a register of four bytes, as `numgen` makes it. nft has no name for this type:
    /// a set that uses it is declared with `typeof`.
    Integer,
    /// `classid`: a number of four bytes, as a packet's priority is one.
    ClassId,
    /// `ifname`: an interface's name.
    IfName,
    /// `nf_proto`: a family of packets.
    NfProto,
    /// `mark`
    Mark,
    /// `fib_addrtype`: whose an address is.
    AddressType,
    /// `boolean`: whether there is something.
    Boolean,
    /// `ether_type`
    EtherType,
    /// `tcp_flag`: bits.
    TcpFlags,
    /// `ct_state`: bits.
    CtState,
    /// `ct_status`: bits.
    CtStatus,
    /// The bits of a connection's state as iptables has them; nft has no such type.
    XtState,
    /// Of no type that is known here.
    Bytes,
}

impl DataType {
    /// The type of a family's addresses.
    pub fn address(family: Family) -> DataType {
        match family {
            Family::Ip => DataType::Ipv4Addr,
            Family::Ip6 => DataType::Ipv6Addr,
        }
    }

    /// Its length in bytes, without padding.
    pub(crate) fn len(self) -> usize {
        match self {
            DataType::InetProto | DataType::NfProto | DataType::Boolean | DataType::TcpFlags => 1,
            DataType::InetService | DataType::EtherType => 2,
            DataType::Ipv4Addr
            | DataType::Integer
            | DataType::ClassId
            | DataType::Mark
            | DataType::AddressType
            | DataType::CtState
            | DataType::CtStatus
            | DataType::XtState
            | DataType::Bytes => 4,
            DataType::Ipv6Addr => 16,
            DataType::IfName => INTERFACE_NAME_LENGTH,
        }
    }

    /// Its length in a concatenation, where every field begins at a register.
    pub(crate) fn padded_len(self) -> usize {
        self.len().next_multiple_of(4)
    }

    /// nft's number for it (`enum datatypes`): the kernel keeps it for nft and does not look at it.
    pub(crate) fn number(self) -> u32 {
        match self {
            DataType::NfProto => 2,
            DataType::Integer | DataType::XtState | DataType::Bytes => 4,
            DataType::EtherType => 10,
            DataType::TcpFlags => 15,
            DataType::Mark => 19,
            DataType::CtState => 26,
            DataType::CtStatus => 28,
            DataType::AddressType => 38,
            DataType::Boolean => 39,
            DataType::IfName => 41,
            DataType::Ipv4Addr => 7,
            DataType::Ipv6Addr => 8,
            DataType::InetProto => 12,
            DataType::InetService => 13,
            DataType::ClassId => 23,
        }
    }

    /// Whether its values are sets of bits.
    pub(crate) fn is_bits(self) -> bool {
        matches!(self, DataType::CtState | DataType::CtStatus | DataType::XtState | DataType::TcpFlags)
    }

    /// Whether some bits of its values may be compared alone.
    pub(crate) fn has_masks(self) -> bool {
        self.is_bits() || matches!(self, DataType::Mark | DataType::ClassId)
    }

    /// Whether its values are numbers in the machine's own byte order.
    pub(crate) fn is_of_host_order(self) -> bool {
        matches!(
            self,
            DataType::CtState
                | DataType::CtStatus
                | DataType::XtState
                | DataType::Integer
                | DataType::ClassId
                | DataType::Mark
                | DataType::AddressType
        )
    }

    /// Whether its values are addresses.
    pub(crate) fn is_address(self) -> bool {
        matches!(self, DataType::Ipv4Addr | DataType::Ipv6Addr)
    }

    /// The same of a number in network order, as keys of ranges have it.
    pub(crate) fn decode_ordered(self, bytes: &[u8]) -> Option<Value> {
        match (self.is_of_host_order(), bytes.first_chunk()) {
            (true, Some(number)) => self.decode(&u32::from_be_bytes(*number).to_ne_bytes()),
            (true, None) => None,
            (false, _) => self.decode(bytes),
        }
    }

    /// The value that stands at the beginning of these bytes; none where they are too few, or of no type of
    /// values.
    pub(crate) fn decode(self, bytes: &[u8]) -> Option<Value> {
        let number = || bytes.first_chunk().map(|bytes| u32::from_ne_bytes(*bytes));
        Some(match self {
            DataType::NfProto => Value::Family(*bytes.first()?),
            DataType::Boolean => Value::Exists(*bytes.first()? != 0),
            DataType::Mark => Value::Mark(number()?),
            DataType::AddressType => Value::AddressType(number()?),
            DataType::EtherType => Value::EtherType(u16::from_be_bytes(*bytes.first_chunk()?)),
            DataType::TcpFlags => Value::TcpFlags(*bytes.first()?),
            DataType::CtState => Value::CtState(number()?),
            DataType::CtStatus => Value::CtStatus(number()?),
            DataType::XtState => Value::XtState(number()?),
            DataType::IfName | DataType::Bytes => return None,
            DataType::Ipv4Addr => Value::Address(Ipv4Addr::from(*bytes.first_chunk::<4>()?).into()),
            DataType::Ipv6Addr => Value::Address(Ipv6Addr::from(*bytes.first_chunk::<16>()?).into()),
            DataType::InetProto => Value::Protocol(*bytes.first()?),
            DataType::InetService => Value::Port(u16::from_be_bytes(*bytes.first_chunk()?)),
            DataType::Integer => Value::Integer(u32::from_ne_bytes(*bytes.first_chunk()?)),
            DataType::ClassId => Value::ClassId(u32::from_ne_bytes(*bytes.first_chunk()?)),
        })
    }
}

impl fmt::Display for DataType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            DataType::Ipv4Addr => "ipv4_addr",
            DataType::Ipv6Addr => "ipv6_addr",
            DataType::InetProto => "inet_proto",
            DataType::InetService => "inet_service",
            DataType::Integer => "integer",
            DataType::ClassId => "classid",
            DataType::IfName => "ifname",
            DataType::NfProto => "nf_proto",
            DataType::Mark => "mark",
            DataType::AddressType => "fib_addrtype",
            DataType::Boolean => "boolean",
            DataType::EtherType => "ether_type",
            DataType::TcpFlags => "tcp_flag",
            DataType::CtState => "ct_state",
            DataType::CtStatus => "ct_status",
            DataType::XtState | DataType::Bytes => "integer",
        })
    }
}
