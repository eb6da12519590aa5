//! Comparisons: an expression, an operator and a value. Whatever it compares, a match comes down to bytes
//! that are masked and compared; what those mean is only for the text.

use std::fmt;
use std::net::IpAddr;

use ipnetwork::IpNetwork;
use weft_netlink::attribute::Writer;

use super::lookup::{self, Found};
use super::xt;
use crate::expression::{Expression, XtState};
use crate::register::{DATA_VALUE, bitwise, expression, register};
use crate::value::{DataType, INTERFACE_NAME_LENGTH, Name, Tuple, Value, concatenation};

/// Goes on only where a comparison holds: `ip saddr != 10.244.0.0/16`
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Match {
    /// What is compared: one expression, or for a set perhaps a concatenation of several.
    pub expression: Vec<Expression>,
    /// How.
    pub operator: Operator,
    /// With what.
    pub value: Operand,
}

/// How a match compares (`NFT_CMP_*`). The kernel compares bytes, so that "less" and "more" are meant for
/// what stands in network order: ports and addresses, not marks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operator {
    /// The value, or one of the set, or any of the bits.
    Equal,
    /// Any other (`!=`), or none of the bits.
    NotEqual,
    /// `<`
    Less,
    /// `<=`
    AtMost,
    /// `>`
    Greater,
    /// `>=`
    AtLeast,
}

/// What a match compares with.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Operand {
    /// A constant: `meta l4proto tcp`
    Value(Value),
    /// Any of these bits: `ct state established,related`
    Bits(Value),
    /// The addresses of a network: `ip saddr 10.244.0.0/16`
    Network(IpNetwork),
    /// The name of an interface; a `*` at its end stands for any rest: `iifname "veth*"`
    Name(Name),
    /// What is in a set: `ip saddr @pods`
    Set(Name),
    /// A constant of some bits alone: `meta mark & 0x000000f0 == 0x00000010`, `tcp flags syn / syn,ack`
    Masked {
        /// The bits that count.
        mask: Value,
        /// What they are compared with.
        value: Value,
    },
    /// Bytes, perhaps of some bits alone, of which no more is known.
    Bytes {
        /// The bits that count.
        mask: Option<Vec<u8>>,
        /// What they are compared with.
        bytes: Vec<u8>,
    },
}

/// A comparison as the kernel does it: of so many bytes from the beginning.
pub(crate) struct Comparison {
    pub(crate) mask: Option<Vec<u8>>,
    pub(crate) operator: Operator,
    pub(crate) bytes: Vec<u8>,
}

impl Operator {
    const ALL: [Operator; 6] = [
        Operator::Equal,
        Operator::NotEqual,
        Operator::Less,
        Operator::AtMost,
        Operator::Greater,
        Operator::AtLeast,
    ];

    /// The kernel's number for it.
    pub(crate) fn number(self) -> u32 {
        self as u32
    }

    pub(crate) fn of_number(number: u32) -> Option<Operator> {
        Operator::ALL.get(number as usize).copied()
    }

    /// The contrary.
    fn inverted(self) -> Operator {
        match self {
            Operator::Equal => Operator::NotEqual,
            Operator::NotEqual => Operator::Equal,
            Operator::Less => Operator::AtLeast,
            Operator::AtLeast => Operator::Less,
            Operator::Greater => Operator::AtMost,
            Operator::AtMost => Operator::Greater,
        }
    }

    fn words(self) -> &'static str {
        match self {
            Operator::Equal => "==",
            Operator::NotEqual => "!=",
            Operator::Less => "<",
            Operator::AtMost => "<=",
            Operator::Greater => ">",
            Operator::AtLeast => ">=",
        }
    }
}

impl From<Value> for Operand {
    fn from(value: Value) -> Operand {
        Operand::Value(value)
    }
}

impl From<IpNetwork> for Operand {
    fn from(network: IpNetwork) -> Operand {
        Operand::Network(network)
    }
}

impl From<&str> for Operand {
    fn from(name: &str) -> Operand {
        Operand::Name(name.into())
    }
}

impl From<Name> for Operand {
    fn from(name: Name) -> Operand {
        Operand::Name(name)
    }
}

impl Match {
    /// The comparison of one expression as the kernel does it; none where a set is asked.
    pub(crate) fn comparison(&self) -> Option<Comparison> {
        let operator = self.operator;
        let whole = |bytes: Vec<u8>| Comparison { mask: None, operator, bytes };
        Some(match &self.value {
            Operand::Set(_) => return None,
            Operand::Value(value) => whole(encoded(*value)),
            Operand::Masked { mask, value } => {
                Comparison { mask: Some(encoded(*mask)), operator, bytes: encoded(*value) }
            }
            Operand::Bits(value) => {
                let mask = encoded(*value);
                let bytes = vec![0; mask.len()];
                Comparison { mask: Some(mask), operator: operator.inverted(), bytes }
            }
            Operand::Network(network) => {
                let mut bytes = encoded(Value::Address(network.network()));
                let length = self.expression.first().map_or(bytes.len(), |expression| expression.len());
                match length < bytes.len() {
                    // Only the octets that count are loaded.
                    true => {
                        bytes.truncate(length);
                        whole(bytes)
                    }
                    false => {
                        let mask = Some(encoded(Value::Address(network.mask())));
                        Comparison { mask, operator, bytes }
                    }
                }
            }
            // A name whole, or only its beginning where a `*` stands for the rest.
            Operand::Name(name) => whole(match name.strip_suffix('*') {
                Some(prefix) => prefix.as_bytes().to_vec(),
                None => {
                    let mut padded = name.as_bytes().to_vec();
                    padded.resize(INTERFACE_NAME_LENGTH, 0);
                    padded
                }
            }),
            Operand::Bytes { mask, bytes } => {
                Comparison { mask: mask.clone(), operator, bytes: bytes.clone() }
            }
        })
    }

    /// Writes the statement: a look-up in a set, or a comparison of what is in the first registers.
    pub(super) fn write(&self, writer: &mut Writer<'_>) {
        if let Operand::Set(set) = &self.value {
            let inverted = self.operator == Operator::NotEqual;
            return lookup::write(&self.expression, set, Found::Match { inverted }, writer);
        }
        if let ([Expression::XtState(_)], Operand::Bits(Value::XtState(bits))) =
            (&self.expression[..], &self.value)
        {
            let info = XtState::info(*bits, self.operator == Operator::NotEqual);
            return xt::write_info("match", "conntrack", XtState::REVISION, &info, writer);
        }
        lookup::load_all(&self.expression, writer);
        let Some(Comparison { mask, operator, bytes }) = self.comparison() else { return };
        mask.iter().for_each(|mask| bitwise(mask, &vec![0; mask.len()], writer));
        expression("cmp", writer, |data| {
            data.u32(1, register(0));
            data.u32(2, operator.number());
            data.nest(3, |data| data.bytes(DATA_VALUE, &bytes));
        });
    }

    /// The match that such a comparison is.
    pub(crate) fn read(expression: Expression, comparison: Comparison) -> Match {
        let Comparison { mask, operator, bytes } = comparison;
        let kind = expression.data_type();
        let is_whole = bytes.len() == expression.len();
        let understood = match (&mask, kind) {
            (Some(mask), _) if kind.is_bits() && bytes.iter().all(|byte| *byte == 0) => {
                kind.decode(mask).map(|bits| (operator.inverted(), Operand::Bits(bits)))
            }
            (Some(mask), _) if kind.is_address() => {
                network(&bytes, mask).map(|network| (operator, Operand::Network(network)))
            }
            (Some(mask), _) if kind.has_masks() && is_whole => {
                let masked = kind.decode(mask).zip(kind.decode(&bytes));
                masked.map(|(mask, value)| (operator, Operand::Masked { mask, value }))
            }
            (None, _) if kind.is_address() && bytes.len() < kind.len() => {
                beginning(kind, &bytes).map(|network| (operator, Operand::Network(network)))
            }
            (None, DataType::IfName) => {
                interface_name(&bytes).map(|name| (operator, Operand::Name(name.into())))
            }
            (None, _) if is_whole => kind.decode(&bytes).map(|value| (operator, Operand::Value(value))),
            _ => None,
        };
        let (operator, value) = understood.unwrap_or((operator, Operand::Bytes { mask, bytes }));
        Match { expression: vec![expression], operator, value }
    }

    /// Whether it holds for what the expression found; none where a set must be asked.
    pub(crate) fn holds(&self, found: &[u8]) -> Option<bool> {
        let Comparison { mask, operator, bytes } = self.comparison()?;
        let mut found = found.get(..bytes.len())?.to_vec();
        for (byte, mask) in found.iter_mut().zip(mask.unwrap_or_default()) {
            *byte &= mask;
        }
        Some(match operator {
            Operator::Equal => found == bytes,
            Operator::NotEqual => found != bytes,
            Operator::Less => found < bytes,
            Operator::AtMost => found <= bytes,
            Operator::Greater => found > bytes,
            Operator::AtLeast => found >= bytes,
        })
    }
}

fn encoded(value: Value) -> Vec<u8> {
    Tuple::new(&[value]).bytes().to_vec()
}

fn ip(octets: &[u8]) -> Option<IpAddr> {
    let four = <[u8; 4]>::try_from(octets).map(IpAddr::from);
    four.or_else(|_| <[u8; 16]>::try_from(octets).map(IpAddr::from)).ok()
}

fn network(address: &[u8], mask: &[u8]) -> Option<IpNetwork> {
    IpNetwork::with_netmask(ip(address)?, ip(mask)?).ok()
}

/// The network of which these are the first octets.
fn beginning(kind: DataType, bytes: &[u8]) -> Option<IpNetwork> {
    let mut padded = bytes.to_vec();
    padded.resize(kind.len(), 0);
    let prefix = 8 * u8::try_from(bytes.len()).ok()?;
    IpNetwork::new(ip(&padded)?, prefix).ok()
}

/// A name as the kernel compares it: padded where all of it counts, and without an end where only its
/// beginning does.
fn interface_name(constant: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(constant).ok()?;
    Some(match text.trim_end_matches('\0') {
        name if name.len() < text.len() => name.to_owned(),
        prefix => format!("{prefix}*"),
    })
}

impl fmt::Display for Operator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Operator::Equal => Ok(()),
            other => write!(f, "{} ", other.words()),
        }
    }
}

impl fmt::Display for Match {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        concatenation(f, &self.expression)?;
        let is_swapped = self.expression.first().is_some_and(|read| read.data_type().is_of_host_order());
        let hex = |bytes| Hex { bytes, is_swapped: is_swapped && cfg!(target_endian = "little") };
        if let Operand::Bytes { mask: Some(mask), bytes } = &self.value {
            return write!(f, " & 0x{} {} 0x{}", hex(mask), self.operator.words(), hex(bytes));
        }
        let operator = self.operator;
        let is_bits = self.expression.first().is_some_and(|read| read.data_type().is_bits());
        match &self.value {
            // A flag alone is asked for as one bit among others.
            Operand::Value(value) if is_bits && operator == Operator::Equal => write!(f, " == {value}"),
            Operand::Value(value) => write!(f, " {operator}{value}"),
            Operand::Masked { mask, value } if is_bits => write!(f, " {operator}{value} / {mask}"),
            Operand::Masked { mask, value } => write!(f, " & {mask} {} {value}", operator.words()),
            Operand::Bits(bits) if operator == Operator::NotEqual => write!(f, " ! {bits}"),
            Operand::Bits(bits) => write!(f, " {operator}{bits}"),
            Operand::Network(network) => write!(f, " {operator}{network}"),
            Operand::Name(name) => write!(f, " {operator}\"{name}\""),
            Operand::Set(set) => write!(f, " {operator}@{set}"),
            Operand::Bytes { bytes, .. } => write!(f, " {operator}0x{}", hex(bytes)),
        }
    }
}

/// Bytes as one number.
struct Hex<'a> {
    bytes: &'a [u8],
    /// The last byte comes first.
    is_swapped: bool,
}

impl fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = self.bytes.to_vec();
        if self.is_swapped {
            bytes.reverse();
        }
        bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}
