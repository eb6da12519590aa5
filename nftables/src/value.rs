//! Values in the registers of nf_tables. Below: their types, the keys of sets that are made of them, and keys
//! that are ranges.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use weft_netlink::Family;

mod data_type;
mod range;
mod tuple;

pub use data_type::DataType;
pub use range::Field;
pub(super) use range::write_range;
pub use tuple::Tuple;
pub(super) use tuple::tuple_len;

/// The name of a table, chain or set. Cheap to clone: ten thousand elements may name one chain.
pub type Name = Arc<str>;

/// An interface name as the kernel compares it (`IFNAMSIZ`).
pub(super) const INTERFACE_NAME_LENGTH: usize = 16;

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
