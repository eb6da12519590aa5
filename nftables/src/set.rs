//! Sets and maps: what they are declared as, what is in them, and how they print.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use super::owned::write_range;
use super::rule::Verdict;
use super::value::{DataType, Name, Tuple, Value, concatenation};
use weft_netlink::Family;

/// What a set is, apart from its elements.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Declaration {
    /// The family of its table.
    pub family: Family,
    /// The name of its table.
    pub table: Name,
    /// Its own name.
    pub name: Name,
    /// The types of its key.
    pub key: Vec<DataType>,
    /// What it holds for a key.
    pub kind: SetKind,
    /// A remark for people, which nft prints; at most 127 bytes, no `"`.
    pub comment: Option<&'static str>,
}

/// What a set holds for a key.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum SetKind {
    /// Nothing: a key is in it or not.
    Set,
    /// Nothing; the kernel counts the packets for which a key was looked up and found. What it counted is read by
    /// [`Client::counters`](super::Client::counters) alone.
    CountingSet,
    /// A verdict. The kernel validates the whole table when such an element changes.
    VerdictMap,
    /// Values of these types.
    DataMap(Vec<DataType>),
    /// Nothing; a key is a range in each of its several fields.
    RangeSet,
    /// Values of these types; a key is a range in each of its several fields.
    RangeMap(Vec<DataType>),
    /// Values of these types. Packets write its elements, which expire; so many at most. What is in it is never planned
    /// nor read.
    ExpiringMap(Vec<DataType>, u32),
    /// Nothing. Packets write its elements, which expire; so many at most. What is in it is never planned nor read.
    ExpiringSet(u32),
}

/// What a map holds for one key.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Data {
    /// Nothing: the element is of a plain set.
    None,
    /// A verdict.
    Verdict(Verdict),
    /// One value, or several.
    Tuple(Tuple),
}

/// A key and what the set holds for it. The key of a set of ranges is made by [`Tuple::range`].
pub type Element = (Tuple, Data);

/// A set or map and its elements.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Set {
    /// What it is.
    pub declaration: Arc<Declaration>,
    /// What is in it.
    pub elements: BTreeMap<Tuple, Data>,
}

impl Declaration {
    /// `ip weft frontends`, as commands name it.
    pub(super) fn path(&self) -> String {
        format!("{} {} {}", self.family, self.table, self.name)
    }

    /// `set` or `map`.
    pub(super) fn noun(&self) -> &'static str {
        match self.kind {
            SetKind::Set | SetKind::CountingSet | SetKind::RangeSet | SetKind::ExpiringSet(_) => "set",
            SetKind::VerdictMap | SetKind::DataMap(_) | SetKind::RangeMap(_) | SetKind::ExpiringMap(..) => {
                "map"
            }
        }
    }

    /// The types of its data, where it has data of types.
    pub(super) fn data_types(&self) -> &[DataType] {
        match &self.kind {
            SetKind::DataMap(types) | SetKind::RangeMap(types) | SetKind::ExpiringMap(types, _) => types,
            SetKind::Set
            | SetKind::CountingSet
            | SetKind::VerdictMap
            | SetKind::RangeSet
            | SetKind::ExpiringSet(_) => &[],
        }
    }

    /// Whether its keys are ranges.
    pub(super) fn has_ranges(&self) -> bool {
        matches!(self.kind, SetKind::RangeSet | SetKind::RangeMap(_))
    }

    /// Whether it can be declared with the number of its elements: the kernel keeps ranges otherwise.
    pub(super) fn can_be_sized(&self) -> bool {
        matches!(self.kind, SetKind::Set | SetKind::VerdictMap | SetKind::DataMap(_))
    }

    /// Whether it must be declared by `typeof`, for want of a name of one of its types.
    pub(super) fn is_typeof(&self) -> bool {
        self.key.contains(&DataType::Integer) || self.data_types().contains(&DataType::Integer)
    }

    /// Its clauses as between the braces of a declaration, each ended by `end`, where it takes so many elements; 0 for any
    /// number.
    pub(super) fn write_clauses(
        &self,
        f: &mut fmt::Formatter<'_>,
        begin: &str,
        end: &str,
        room: u32,
    ) -> fmt::Result {
        let is_typeof = self.is_typeof();
        let names = |types: &[DataType]| -> Vec<String> {
            let name = |kind: &DataType| if is_typeof { typeof_name(*kind).into() } else { kind.to_string() };
            types.iter().map(name).collect()
        };
        write!(f, "{begin}{} ", if is_typeof { "typeof" } else { "type" })?;
        concatenation(f, names(&self.key))?;
        match &self.kind {
            SetKind::Set | SetKind::CountingSet | SetKind::RangeSet | SetKind::ExpiringSet(_) => {}
            SetKind::VerdictMap => f.write_str(" : verdict")?,
            SetKind::DataMap(types) | SetKind::RangeMap(types) | SetKind::ExpiringMap(types, _) => {
                f.write_str(" : ")?;
                concatenation(f, names(types))?;
            }
        }
        f.write_str(end)?;
        if room > 0 {
            write!(f, "{begin}size {room}{end}")?;
        }
        if self.has_ranges() {
            write!(f, "{begin}flags interval{end}")?;
        }
        if self.kind == SetKind::CountingSet {
            write!(f, "{begin}counter{end}")?;
        }
        if let SetKind::ExpiringMap(_, size) | SetKind::ExpiringSet(size) = self.kind {
            write!(f, "{begin}size {size}{end}{begin}flags dynamic,timeout{end}")?;
        }
        match self.comment {
            Some(comment) => write!(f, "{begin}comment \"{comment}\"{end}"),
            None => Ok(()),
        }
    }

    /// One element of it, which prints as nft writes it.
    pub fn element<'a>(&'a self, key: &'a Tuple, data: &'a Data) -> impl fmt::Display + 'a {
        Printed(self, key, data)
    }

    /// One element as nft writes it.
    pub(super) fn write_element(&self, f: &mut fmt::Formatter<'_>, key: &Tuple, data: &Data) -> fmt::Result {
        match self.has_ranges() {
            false => write_tuple(f, key, &self.key)?,
            true => write_range(f, key, &self.key)?,
        }
        match data {
            Data::None => Ok(()),
            Data::Verdict(verdict) => write!(f, " : {verdict}"),
            Data::Tuple(tuple) => {
                f.write_str(" : ")?;
                write_tuple(f, tuple, self.data_types())
            }
        }
    }
}

/// An element of a set.
struct Printed<'a>(&'a Declaration, &'a Tuple, &'a Data);

impl fmt::Display for Printed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.write_element(f, self.1, self.2)
    }
}

/// An expression of that type, which stands for it in a `typeof` declaration.
fn typeof_name(kind: DataType) -> &'static str {
    match kind {
        DataType::Ipv4Addr => "ip daddr",
        DataType::Ipv6Addr => "ip6 daddr",
        DataType::InetProto => "meta l4proto",
        DataType::InetService => "th dport",
        DataType::Integer => "numgen random mod 65536",
        DataType::ClassId => "meta priority",
        DataType::IfName => "iifname",
        DataType::NfProto => "meta nfproto",
        DataType::Mark => "meta mark",
        DataType::AddressType => "fib daddr type",
        DataType::Boolean => "fib daddr . iif oif",
        DataType::CtState | DataType::XtState => "ct state",
        DataType::CtStatus => "ct status",
        DataType::Bytes => "integer",
    }
}

pub(super) fn write_tuple(f: &mut fmt::Formatter<'_>, tuple: &Tuple, types: &[DataType]) -> fmt::Result {
    match tuple.values(types) {
        Some(values) => concatenation(f, values),
        // Only a key that was made for another set is too short.
        None => write!(f, "{tuple:?}"),
    }
}

impl Set {
    /// A set without elements.
    pub fn new(declaration: Arc<Declaration>) -> Set {
        Set { declaration, elements: BTreeMap::new() }
    }

    /// The element that the kernel finds for a key: in a set of ranges the one whose ranges hold each of its fields.
    pub fn find(&self, key: &Tuple) -> Option<(&Tuple, &Data)> {
        if !self.declaration.has_ranges() {
            return self.elements.get_key_value(key);
        }
        let types = &self.declaration.key;
        let values = key.values(types)?;
        let holds = |ranges: Vec<(Value, Value)>| {
            ranges.iter().zip(&values).all(|((first, last), value)| first <= value && value <= last)
        };
        self.elements.iter().find(|(held, _)| held.ranges(types).is_some_and(holds))
    }
}

impl fmt::Display for Set {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "\t{} {} {{", self.declaration.noun(), self.declaration.name)?;
        self.declaration.write_clauses(f, "\t\t", "\n", 0)?;
        for (index, (key, data)) in self.elements.iter().enumerate() {
            f.write_str(if index == 0 { "\t\telements = {\n\t\t\t" } else { ",\n\t\t\t" })?;
            self.declaration.write_element(f, key, data)?;
        }
        f.write_str(if self.elements.is_empty() { "\t}\n" } else { "\n\t\t}\n\t}\n" })
    }
}
