//! Values in the registers of nf_tables: address families, data types, constants, and set keys made of them.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use weft_netlink::Family;

/// The name of a table, chain or set. Cheap to clone: ten thousand elements may name one chain.
pub type Name = Arc<str>;

/// An interface name as the kernel compares it (`IFNAMSIZ`).
pub(super) const INTERFACE_NAME_LENGTH: usize = 16;

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
    /// A number below 65536 in a register of four bytes, as `numgen` makes it. nft has no name for this type: a set
    /// that uses it is declared with `typeof`.
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
    pub(super) fn len(self) -> usize {
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
    pub(super) fn padded_len(self) -> usize {
        self.len().next_multiple_of(4)
    }

    /// nft's number for it (`enum datatypes`): the kernel keeps it for nft and does not look at it.
    pub(super) fn number(self) -> u32 {
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
    pub(super) fn is_bits(self) -> bool {
        matches!(self, DataType::CtState | DataType::CtStatus | DataType::XtState | DataType::TcpFlags)
    }

    /// Whether some bits of its values may be compared alone.
    pub(super) fn has_masks(self) -> bool {
        self.is_bits() || matches!(self, DataType::Mark | DataType::ClassId)
    }

    /// Whether its values are numbers in the machine's own byte order.
    pub(super) fn is_of_host_order(self) -> bool {
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
    pub(super) fn is_address(self) -> bool {
        matches!(self, DataType::Ipv4Addr | DataType::Ipv6Addr)
    }

    /// The same of a number in network order, as keys of ranges have it.
    pub(super) fn decode_ordered(self, bytes: &[u8]) -> Option<Value> {
        match (self.is_of_host_order(), bytes.first_chunk()) {
            (true, Some(number)) => self.decode(&u32::from_be_bytes(*number).to_ne_bytes()),
            (true, None) => None,
            (false, _) => self.decode(bytes),
        }
    }

    /// The value that stands at the beginning of these bytes; none where they are too few, or of no type of values.
    pub(super) fn decode(self, bytes: &[u8]) -> Option<Value> {
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

/// A constant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Value {
    /// An address.
    Address(IpAddr),
    /// An IP protocol number.
    Protocol(u8),
    /// A port.
    Port(u16),
    /// A number in the machine's own byte order.
    Integer(u32),
    /// The same, as a packet's priority: nft prints its halves.
    ClassId(u32),
    /// A family of packets, by its number (`NFPROTO_*`).
    Family(u8),
    /// A mark.
    Mark(u32),
    /// Whose an address is (`RTN_*`).
    AddressType(u32),
    /// Whether there is something.
    Exists(bool),
    /// What an Ethernet frame carries.
    EtherType(u16),
    /// Flags of a TCP header.
    TcpFlags(u8),
    /// Bits of a connection's state.
    CtState(u32),
    /// Bits of a connection's status.
    CtStatus(u32),
    /// Bits of a connection's state as iptables has them.
    XtState(u32),
}

impl Value {
    /// Whether it stands in a register in the machine's own byte order.
    fn is_of_host_order(self) -> bool {
        match self {
            Value::Integer(_)
            | Value::ClassId(_)
            | Value::Mark(_)
            | Value::AddressType(_)
            | Value::CtState(_)
            | Value::CtStatus(_)
            | Value::XtState(_) => true,
            Value::Address(_)
            | Value::Protocol(_)
            | Value::Port(_)
            | Value::Family(_)
            | Value::Exists(_)
            | Value::EtherType(_)
            | Value::TcpFlags(_) => false,
        }
    }

    /// Appends it as it stands in a register.
    pub(super) fn encode(self, buffer: &mut Vec<u8>) {
        match self {
            Value::Address(IpAddr::V4(address)) => buffer.extend_from_slice(&address.octets()),
            Value::Address(IpAddr::V6(address)) => buffer.extend_from_slice(&address.octets()),
            Value::Protocol(number) | Value::Family(number) | Value::TcpFlags(number) => buffer.push(number),
            Value::Exists(exists) => buffer.push(exists.into()),
            Value::Port(number) | Value::EtherType(number) => {
                buffer.extend_from_slice(&number.to_be_bytes());
            }
            Value::Integer(number)
            | Value::ClassId(number)
            | Value::Mark(number)
            | Value::AddressType(number)
            | Value::CtState(number)
            | Value::CtStatus(number)
            | Value::XtState(number) => {
                buffer.extend_from_slice(&number.to_ne_bytes());
            }
        }
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Address(address) => address.fmt(f),
            Value::Protocol(6) => f.write_str("tcp"),
            Value::Protocol(17) => f.write_str("udp"),
            Value::Protocol(132) => f.write_str("sctp"),
            Value::Protocol(number) => number.fmt(f),
            Value::Port(port) => port.fmt(f),
            Value::Integer(number) => number.fmt(f),
            Value::ClassId(0) => f.write_str("none"),
            Value::ClassId(number) => write!(f, "{:x}:{:x}", number >> 16, number & 0xffff),
            Value::Family(2) => f.write_str("ipv4"),
            Value::Family(10) => f.write_str("ipv6"),
            Value::Family(number) => number.fmt(f),
            Value::Mark(number) => write!(f, "{number:#010x}"),
            Value::AddressType(number) => match ADDRESS_TYPES.get(*number as usize) {
                Some(word) => f.write_str(word),
                None => number.fmt(f),
            },
            Value::Exists(exists) => f.write_str(if *exists { "exists" } else { "missing" }),
            Value::EtherType(number) => match ETHERTYPES.iter().find(|(known, ..)| known == number) {
                Some((_, _, word)) => f.write_str(word),
                None => write!(f, "{number:#06x}"),
            },
            Value::TcpFlags(bits) => words(f, (*bits).into(), &TCP_FLAGS),
            Value::CtState(bits) => words(f, *bits, &CT_STATES),
            Value::CtStatus(bits) => words(f, *bits, &CT_STATUSES),
            Value::XtState(bits) => words(f, *bits, &XT_STATES),
        }
    }
}

/// nft's words for `RTN_*`.
const ADDRESS_TYPES: [&str; 9] = [
    "unspec",
    "unicast",
    "local",
    "broadcast",
    "anycast",
    "multicast",
    "blackhole",
    "unreachable",
    "prohibit",
];
/// nft's words for `NF_CT_STATE_BIT`, and those for what iptables has in its place (`XT_CONNTRACK_STATE_*`).
const CT_STATES: [(u32, &str); 5] =
    [(1, "invalid"), (2, "established"), (4, "related"), (8, "new"), (64, "untracked")];
const XT_STATES: [(u32, &str); 7] = [
    (1, "invalid"),
    (2, "established"),
    (4, "related"),
    (8, "new"),
    (64, "snat"),
    (128, "dnat"),
    (256, "untracked"),
];
/// What the families of packets are as `ETH_P_*`, and nft's words for it.
pub(super) const ETHERTYPES: [(u16, Family, &str); 2] =
    [(0x0800, Family::Ip, "ip"), (0x86dd, Family::Ip6, "ip6")];
/// The flags of a TCP header (RFC 9293, section 3.1).
const TCP_FLAGS: [(u32, &str); 8] =
    [(1, "fin"), (2, "syn"), (4, "rst"), (8, "psh"), (16, "ack"), (32, "urg"), (64, "ecn"), (128, "cwr")];
/// nft's words for `IPS_*`.
const CT_STATUSES: [(u32, &str); 7] = [
    (1, "expected"),
    (2, "seen-reply"),
    (4, "assured"),
    (8, "confirmed"),
    (16, "snat"),
    (32, "dnat"),
    (512, "dying"),
];

/// The words for these bits.
fn words(f: &mut fmt::Formatter<'_>, bits: u32, words: &[(u32, &str)]) -> fmt::Result {
    let known = words.iter().fold(0, |known, (bit, _)| known | bit);
    if bits == 0 || bits & !known != 0 {
        return write!(f, "{bits:#x}");
    }
    let set: Vec<&str> = words.iter().filter(|(bit, _)| bits & bit != 0).map(|(_, word)| *word).collect();
    f.write_str(&set.join(","))
}

/// A set's key, or a map's data: one value or a concatenation, as the kernel has it (every field but the last of a
/// single one padded to four bytes). It knows nothing of its types; the set's declaration does.
#[derive(Clone)]
pub struct Tuple(Bytes);

/// How many bytes stand in the tuple itself: an IPv6 address, a protocol, a port and a number fit.
const SHORT: usize = 30;

/// The bytes of a tuple. A load makes and copies hundreds of thousands; nearly all are short, and so need no allocation.
#[derive(Clone)]
enum Bytes {
    Short(u8, [u8; SHORT]),
    Long(Box<[u8]>),
}

impl Tuple {
    /// A tuple of these values. They must be of the types of the set that it goes into.
    pub fn new(values: &[Value]) -> Tuple {
        let mut bytes = Vec::with_capacity(SHORT);
        for (index, value) in values.iter().enumerate() {
            value.encode(&mut bytes);
            if values.len() > 1 || index > 0 {
                bytes.resize(bytes.len().next_multiple_of(4), 0);
            }
        }
        Tuple::from_kernel(&bytes)
    }

    /// A tuple as the kernel has it in the registers.
    pub fn from_kernel(bytes: &[u8]) -> Tuple {
        let mut short = [0; SHORT];
        match short.get_mut(..bytes.len()) {
            Some(place) => {
                place.copy_from_slice(bytes);
                Tuple(Bytes::Short(bytes.len() as u8, short))
            }
            None => Tuple(Bytes::Long(bytes.into())),
        }
    }

    /// Its bytes in the registers.
    pub fn bytes(&self) -> &[u8] {
        match &self.0 {
            Bytes::Short(length, bytes) => &bytes[..usize::from(*length)],
            Bytes::Long(bytes) => bytes,
        }
    }

    /// The same where the kernel compares ranges: with all numbers in network order.
    pub(super) fn ordered(values: &[Value]) -> Tuple {
        let mut bytes = Vec::with_capacity(SHORT);
        for value in values {
            let start = bytes.len();
            value.encode(&mut bytes);
            if value.is_of_host_order() && cfg!(target_endian = "little") {
                bytes[start..].reverse();
            }
            if values.len() > 1 {
                bytes.resize(bytes.len().next_multiple_of(4), 0);
            }
        }
        Tuple::from_kernel(&bytes)
    }

    /// Its values, read as those types; `None` where it is too short for them.
    pub fn values(&self, types: &[DataType]) -> Option<Vec<Value>> {
        let mut rest = self.bytes();
        let mut values = Vec::with_capacity(types.len());
        for kind in types {
            values.push(kind.decode(rest)?);
            rest = rest.get(kind.padded_len()..).unwrap_or_default();
        }
        Some(values)
    }
}

impl fmt::Debug for Tuple {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Tuple").field(&self.bytes()).finish()
    }
}

impl PartialEq for Tuple {
    fn eq(&self, other: &Tuple) -> bool {
        self.bytes() == other.bytes()
    }
}

impl Eq for Tuple {}

impl PartialOrd for Tuple {
    fn partial_cmp(&self, other: &Tuple) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Tuple {
    fn cmp(&self, other: &Tuple) -> Ordering {
        self.bytes().cmp(other.bytes())
    }
}

impl Hash for Tuple {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.bytes().hash(state);
    }
}

/// How long a tuple of those types is in the kernel.
pub(super) fn tuple_len(types: &[DataType]) -> usize {
    match types {
        [single] => single.len(),
        _ => types.iter().map(|kind| kind.padded_len()).sum(),
    }
}

/// Prints a concatenation as nft does, with ` . ` between its parts.
pub(super) fn concatenation(
    f: &mut fmt::Formatter<'_>,
    parts: impl IntoIterator<Item = impl fmt::Display>,
) -> fmt::Result {
    for (index, part) in parts.into_iter().enumerate() {
        write!(f, "{}{part}", if index == 0 { "" } else { " . " })?;
    }
    Ok(())
}

/// A time as nft prints it: `1h30m`.
pub(super) struct Seconds(pub(super) u64);

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = self.0;
        for (length, unit) in [(86_400, "d"), (3_600, "h"), (60, "m"), (1, "s")] {
            if rest >= length || (unit == "s" && self.0 == 0) {
                write!(f, "{}{unit}", rest / length)?;
            }
            rest %= length;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_concatenation_is_padded_and_a_single_value_is_not() {
        let address = Value::Address("10.96.0.10".parse().unwrap());
        assert_eq!(
            Tuple::new(&[address, Value::Protocol(17), Value::Port(53)]).bytes(),
            [10, 96, 0, 10, 17, 0, 0, 0, 0, 53, 0, 0]
        );
        assert_eq!(Tuple::new(&[Value::Port(53)]).bytes(), [0, 53]);
    }

    #[test]
    fn long_and_short_tuples_compare_by_their_bytes_and_take_no_more_room_than_an_element_may() {
        let bytes: Vec<u8> = (0..64).collect();
        let tuples: Vec<Tuple> = (0..=64).map(|length| Tuple::from_kernel(&bytes[..length])).collect();
        assert!(
            tuples.is_sorted() && tuples.iter().enumerate().all(|(length, it)| it.bytes().len() == length)
        );
        // Hundreds of thousands of elements are held.
        assert_eq!((size_of::<Tuple>(), size_of::<super::super::set::Data>()), (32, 32));
    }

    #[test]
    fn values_read_back_by_their_types() {
        use DataType::*;
        let values = [
            Value::Address("fd00::1".parse().unwrap()),
            Value::Protocol(6),
            Value::Port(443),
            Value::Integer(3),
        ];
        let types = [Ipv6Addr, InetProto, InetService, Integer];
        assert_eq!(Tuple::new(&values).values(&types).as_deref(), Some(&values[..]));
        assert_eq!(Tuple::new(&values).bytes().len(), tuple_len(&types));
        assert_eq!(Tuple::new(&values[..1]).values(&types), None, "too short");
    }
}
