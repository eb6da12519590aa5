//! Keys that are ranges: in each field all values from a first one to a last one. Such a key is its first key
//! and its last, one behind the other.

use std::fmt;

use ipnetwork::IpNetwork;

use super::{DataType, Tuple, Value, concatenation};

/// A field of a range, as nft prints it: a value, a network, or two values.
struct Span((Value, Value));

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Span((start, end)) = self;
        if start == end {
            return start.fmt(f);
        }
        match (start, end) {
            (Value::Address(first), Value::Address(last)) => {
                let ends = |prefix: &u8| {
                    let network = IpNetwork::new(*first, *prefix).ok();
                    network.is_some_and(|network| network.network() == *first && last_of(&network) == *last)
                };
                let width = if first.is_ipv4() { 32 } else { 128 };
                match (0..=width).find(ends) {
                    Some(prefix) => write!(f, "{first}/{prefix}"),
                    None => write!(f, "{first}-{last}"),
                }
            }
            _ => write!(f, "{start}-{end}"),
        }
    }
}

/// The last address of a network.
fn last_of(network: &IpNetwork) -> std::net::IpAddr {
    match network {
        IpNetwork::V4(network) => network.broadcast().into(),
        IpNetwork::V6(network) => network.broadcast().into(),
    }
}

impl Tuple {
    /// The first and the last key of a product of networks and single values: the two ends of an element of
    /// ranges.
    pub fn span(fields: &[Field]) -> (Tuple, Tuple) {
        let ends: Vec<(Value, Value)> = fields.iter().map(Field::ends).collect();
        let first: Vec<Value> = ends.iter().map(|(first, _)| *first).collect();
        let last: Vec<Value> = ends.iter().map(|(_, last)| *last).collect();
        (Tuple::ordered(&first), Tuple::ordered(&last))
    }

    /// The key of an element of ranges that is a product of networks and single values.
    pub fn range(fields: &[Field]) -> Tuple {
        let (first, last) = Tuple::span(fields);
        first.to(&last)
    }

    /// The key of the range from this one to that one.
    pub(crate) fn to(&self, last: &Tuple) -> Tuple {
        Tuple::from_kernel(&[self.bytes(), last.bytes()].concat())
    }

    /// The first and the last key of an element of ranges.
    pub(crate) fn ends(&self) -> (&[u8], &[u8]) {
        self.bytes().split_at(self.bytes().len() / 2)
    }

    /// The first and last value of each field of such a key.
    pub(crate) fn ranges(&self, types: &[DataType]) -> Option<Vec<(Value, Value)>> {
        let (first, last) = self.ends();
        let values = |bytes: &[u8]| {
            let mut rest = bytes;
            let mut values = Vec::with_capacity(types.len());
            for kind in types {
                values.push(kind.decode_ordered(rest)?);
                rest = rest.get(kind.padded_len()..).unwrap_or_default();
            }
            Some(values)
        };
        Some(values(first)?.into_iter().zip(values(last)?).collect())
    }
}

/// Prints the key of an element of ranges as nft does.
pub(crate) fn write_range(f: &mut fmt::Formatter<'_>, key: &Tuple, types: &[DataType]) -> fmt::Result {
    match key.ranges(types) {
        Some(ranges) => concatenation(f, ranges.into_iter().map(Span)),
        // Only a key that was made for another set is too short.
        None => write!(f, "{key:?}"),
    }
}

/// A field of an element of ranges.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field {
    /// One value.
    One(Value),
    /// The addresses of a network.
    Network(IpNetwork),
    /// All values from one to another.
    Range(Value, Value),
}

impl Field {
    fn ends(&self) -> (Value, Value) {
        match self {
            Field::One(value) => (*value, *value),
            Field::Range(first, last) => (*first, *last),
            Field::Network(network) => (Value::Address(network.network()), Value::Address(last_of(network))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_print_as_values_networks_or_ranges() {
        let span = |first: &str, last: &str| {
            let address = |text: &str| Value::Address(text.parse().unwrap());
            Span((address(first), address(last))).to_string()
        };
        assert_eq!(span("10.0.0.1", "10.0.0.1"), "10.0.0.1");
        assert_eq!(span("10.0.0.0", "10.0.255.255"), "10.0.0.0/16");
        assert_eq!(span("0.0.0.0", "255.255.255.255"), "0.0.0.0/0");
        assert_eq!(span("10.0.0.1", "10.0.0.9"), "10.0.0.1-10.0.0.9");
        assert_eq!(span("fd00::", "fd00::ffff"), "fd00::/112");
    }
}
