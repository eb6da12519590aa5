//! Elements that say whose they are: the kernel keeps a remark with an element, which nft prints as its
//! comment. So that many short-lived programs can share a set: each finds its own elements, and takes nobody
//! else's for its own.

use std::fmt;

use super::element::{KEY, KEY_END, USERDATA, decode_data};
use super::register::DATA_VALUE;
use super::set::{Data, Declaration, Detail};
use super::userdata::comment;
use super::value::{Name, Tuple, Value};
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

#[cfg(test)]
mod tests {
    use super::super::element::encode;
    use super::super::set::SetKind;
    use super::super::value::{DataType, Field};
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
}
