//! Elements that say whose they are: the kernel keeps a remark with an element, which nft prints as its comment. So
//! that many short-lived programs can share a set: each finds its own elements, and takes nobody else's for its own.

use std::fmt;

use ipnetwork::IpNetwork;

use super::element::{KEY, KEY_END, USERDATA, comment, decode_data};
use super::register::DATA_VALUE;
use super::set::{Data, Declaration, Detail};
use super::value::{DataType, Name, Tuple, Value, concatenation};
use weft_netlink::attribute::Attributes;

/// An element with its owner.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Owned {
    /// Its key; of an element of ranges, each field's first value.
    pub key: Tuple,
    /// Of an element of ranges, each field's last value.
    pub end: Option<Tuple>,
    /// What the set holds for it.
    pub data: Data,
    /// Whose it is: at most 127 bytes, no `"`. Empty for an element that nobody has put a name on.
    pub owner: Name,
}

impl Owned {
    /// Whether some key is of both, where both are elements of one set.
    pub fn overlaps(&self, other: &Owned, set: &Declaration) -> bool {
        let (Some(own), Some(others)) = (self.ranges(set), other.ranges(set)) else { return false };
        own.iter().zip(&others).all(|((start, end), (first, last))| start <= last && first <= end)
    }

    /// Whether all keys of the other are this one's too, where both are elements of one set.
    pub fn covers(&self, other: &Owned, set: &Declaration) -> bool {
        let (Some(own), Some(others)) = (self.ranges(set), other.ranges(set)) else { return false };
        own.iter().zip(&others).all(|((start, end), (first, last))| start <= first && last <= end)
    }

    /// The first and last value of each field.
    fn ranges(&self, set: &Declaration) -> Option<Vec<(Value, Value)>> {
        self.held_key().ranges(&set.key)
    }

    /// Its key as that of an element of ranges.
    pub(super) fn held_key(&self) -> Tuple {
        self.key.to(self.end.as_ref().unwrap_or(&self.key))
    }

    pub(super) fn detail(&self) -> Detail {
        Detail { comment: Some(self.owner.clone()), timeout: None }
    }

    /// Prints it as nft does.
    pub(super) fn write(&self, f: &mut fmt::Formatter<'_>, set: &Declaration) -> fmt::Result {
        set.write_detailed(f, &self.held_key(), &self.data, &self.detail())
    }

    /// Reads an element of the kernel's.
    pub(super) fn parse(element: &Attributes<'_>) -> Option<Owned> {
        let tuple = |kind: u16| element.nested(kind).get(DATA_VALUE).map(Tuple::from_kernel);
        let owner = element.get(USERDATA).and_then(comment).unwrap_or_default();
        let data = decode_data(element)?;
        Some(Owned { key: tuple(KEY)?, end: tuple(KEY_END), data, owner: owner.into() })
    }
}

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
pub(super) fn last_of(network: &IpNetwork) -> std::net::IpAddr {
    match network {
        IpNetwork::V4(network) => network.broadcast().into(),
        IpNetwork::V6(network) => network.broadcast().into(),
    }
}

impl Tuple {
    /// The first and the last key of a product of networks and single values: the two ends of an element of ranges.
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

    fn to(&self, last: &Tuple) -> Tuple {
        Tuple::from_kernel(&[self.bytes(), last.bytes()].concat())
    }

    /// The first and the last key of an element of ranges.
    pub(super) fn ends(&self) -> (&[u8], &[u8]) {
        self.bytes().split_at(self.bytes().len() / 2)
    }

    /// The first and last value of each field of such a key.
    pub(super) fn ranges(&self, types: &[DataType]) -> Option<Vec<(Value, Value)>> {
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
pub(super) fn write_range(f: &mut fmt::Formatter<'_>, key: &Tuple, types: &[DataType]) -> fmt::Result {
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
    use super::super::element::encode;
    use super::super::set::SetKind;
    use super::*;
    use weft_netlink::Family;
    use weft_netlink::attribute::Writer;

    fn set() -> Declaration {
        let key = vec![DataType::Ipv4Addr, DataType::InetService];
        let kind = SetKind::RangeMap(vec![DataType::InetService]);
        Declaration {
            family: Family::Ip.into(),
            table: "x".into(),
            name: "y".into(),
            key,
            kind,
            comment: None,
        }
    }

    fn element(network: &str, port: u16) -> Owned {
        let fields = [Field::Network(network.parse().unwrap()), Field::One(Value::Port(port))];
        let (key, end) = Tuple::span(&fields);
        let data = Data::Tuple(Tuple::new(&[Value::Port(80)]));
        Owned { key, end: Some(end), data, owner: "veth1".into() }
    }

    #[test]
    fn elements_overlap_where_all_their_fields_do() {
        let wide = element("10.0.0.0/8", 1);
        assert!(wide.overlaps(&element("10.1.0.0/16", 1), &set()));
        assert!(wide.covers(&element("10.1.0.0/16", 1), &set()));
        assert!(!element("10.1.0.0/16", 1).covers(&wide, &set()));
        assert!(!wide.overlaps(&element("10.1.0.0/16", 2), &set()));
        assert!(!wide.overlaps(&element("11.0.0.0/8", 1), &set()));
    }

    #[test]
    fn an_element_reads_back_as_it_was_written() {
        let element = element("10.0.0.0/8", 1);
        let mut buffer = Vec::new();
        encode(&element.held_key(), &element.data, &element.detail(), &set(), &mut Writer(&mut buffer));
        let buffer = Attributes(&buffer).get(1).unwrap().to_vec();
        assert_eq!(Owned::parse(&Attributes(&buffer)), Some(element));
    }

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
