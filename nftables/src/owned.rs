//! Elements that say whose they are: the kernel keeps a remark with an element, which nft prints as its comment. So
//! that many short-lived programs can share a set: each finds its own elements, and takes nobody else's for its own.

use std::fmt;

use ipnetwork::IpNetwork;

use super::encode::ELEMENTS_PER_MESSAGE;
use super::rule::encode::DATA_VALUE;
use super::set::{Data, Declaration, write_tuple};
use super::shape::put;
use super::value::{DataType, Name, Tuple, Value, concatenation};
use weft_netlink::attribute::{Attributes, Writer};

/// `NFTNL_UDATA_SET_ELEM_COMMENT`
const COMMENT: u8 = 0;
/// `NFTA_SET_ELEM_KEY`, `_DATA`, `_USERDATA`, `_KEY_END`
pub(super) const KEY: u16 = 1;
const DATA: u16 = 2;
const USERDATA: u16 = 6;
pub(super) const KEY_END: u16 = 10;

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

    /// Prints it as nft does.
    pub(super) fn write(&self, f: &mut fmt::Formatter<'_>, set: &Declaration) -> fmt::Result {
        write_range(f, &self.held_key(), &set.key)?;
        write!(f, " comment \"{}\"", self.owner)?;
        match &self.data {
            Data::None => Ok(()),
            Data::Verdict(verdict) => write!(f, " : {verdict}"),
            Data::Tuple(tuple) => {
                f.write_str(" : ")?;
                write_tuple(f, tuple, set.data_types())
            }
        }
    }

    /// Reads an element of the kernel's.
    pub(super) fn parse(element: &Attributes<'_>) -> Option<Owned> {
        let tuple = |kind| element.nested(kind).get(DATA_VALUE).map(Tuple::from_kernel);
        let owner = element.get(USERDATA).and_then(comment).unwrap_or_default();
        let data = tuple(DATA).map_or(Data::None, Data::Tuple);
        Some(Owned { key: tuple(KEY)?, end: tuple(KEY_END), data, owner: owner.into() })
    }

    fn encode(&self, writer: &mut Writer<'_>) {
        let value = |writer: &mut Writer<'_>, kind: u16, tuple: &Tuple| {
            writer.nest(kind, |writer| writer.bytes(DATA_VALUE, tuple.bytes()));
        };
        value(writer, KEY, &self.key);
        self.end.iter().for_each(|end| value(writer, KEY_END, end));
        if let Data::Tuple(tuple) = &self.data {
            value(writer, DATA, tuple);
        }
        let mut userdata = Vec::new();
        put(&mut userdata, COMMENT, &[self.owner.as_bytes(), &[0]].concat());
        writer.bytes(USERDATA, &userdata);
    }
}

/// Writes as many elements as fit into one message, and returns the others.
pub(super) fn encode<'a>(elements: &'a [Owned], writer: &mut Writer<'_>) -> &'a [Owned] {
    let start = writer.0.len();
    for (index, element) in elements.iter().enumerate() {
        if writer.0.len() - start > ELEMENTS_PER_MESSAGE {
            return &elements[index..];
        }
        writer.nest(1, |writer| element.encode(writer));
    }
    &[]
}

/// Walks the user data of an element, or of a rule: type, length, value.
pub(super) fn comment(mut userdata: &[u8]) -> Option<&str> {
    while let [kind, length, rest @ ..] = userdata {
        let (value, rest) = rest.split_at_checked(usize::from(*length))?;
        if *kind == COMMENT {
            return std::str::from_utf8(value.strip_suffix(&[0]).unwrap_or(value)).ok();
        }
        userdata = rest;
    }
    None
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
        (Tuple::new(&first), Tuple::new(&last))
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
        let values = |bytes| Tuple::from_kernel(bytes).values(types);
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
}

impl Field {
    fn ends(&self) -> (Value, Value) {
        match self {
            Field::One(value) => (*value, *value),
            Field::Network(network) => (Value::Address(network.network()), Value::Address(last_of(network))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::set::SetKind;
    use super::*;
    use weft_netlink::Family;

    fn set() -> Declaration {
        let key = vec![DataType::Ipv4Addr, DataType::InetService];
        let kind = SetKind::RangeMap(vec![DataType::InetService]);
        Declaration { family: Family::Ip, table: "x".into(), name: "y".into(), key, kind, comment: None }
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
        element.encode(&mut Writer(&mut buffer));
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
