//! Sets and maps: what they are declared as, what is in them, and how they print.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::family::TableFamily;
use super::rule::Verdict;
use super::value::{DataType, Name, Seconds, Tuple, concatenation, write_range};

/// What a set is, apart from its elements.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Declaration {
    /// The family of its table.
    pub family: TableFamily,
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
    /// Nothing; the kernel counts the packets for which a key was looked up and found. What it counted is
    /// read by [`Client::counters`](super::Client::counters) alone.
    CountingSet,
    /// A verdict. The kernel validates the whole table when such an element changes.
    VerdictMap,
    /// Values of these types.
    DataMap(Vec<DataType>),
    /// Nothing; a key is a range in each of its fields.
    /// [`Expression::in_network_order`](super::Expression::in_network_order) reads fields as such a key has
    /// them.
    RangeSet,
    /// Values of these types; a key is a range in each of its fields.
    RangeMap(Vec<DataType>),
    /// A verdict; a key is a range in each of its fields.
    RangeVerdictMap,
    /// What that kind holds, for a time: for so many seconds where an element does not say for how many.
    Timed(Box<SetKind>, Option<u32>),
    /// Values of these types. Packets write its elements, which expire; so many at most. What is in it is
    /// never planned nor read.
    ExpiringMap(Vec<DataType>, u32),
    /// Nothing. Packets write its elements, or a program as it goes; they expire, and are so many at most. What
    /// is in it is never planned nor read.
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
    /// What else is said of some of the elements, by their keys.
    pub details: BTreeMap<Tuple, Detail>,
}

/// What is said of an element besides its key and what the set holds for it.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Detail {
    /// A remark for people, which nft prints; at most 127 bytes, no `"`.
    pub comment: Option<Name>,
    /// It lives for so long from when it is added, where its set does not say so.
    pub timeout: Option<Duration>,
}

impl Detail {
    /// Whether nothing is said.
    pub fn is_empty(&self) -> bool {
        *self == Detail::default()
    }
}

impl SetKind {
    /// The kind apart from how long elements live.
    pub(super) fn plain(&self) -> &SetKind {
        match self {
            SetKind::Timed(kind, _) => kind.plain(),
            kind => kind,
        }
    }
}

impl Declaration {
    /// `ip weft frontends`, as commands name it.
    pub(super) fn path(&self) -> String {
        format!("{} {} {}", self.family, self.table, self.name)
    }

    /// `set` or `map`.
    pub(super) fn noun(&self) -> &'static str {
        if self.is_verdict_map() || !self.data_types().is_empty() { "map" } else { "set" }
    }

    /// The types of its data, where it has data of types.
    pub(super) fn data_types(&self) -> &[DataType] {
        match self.kind.plain() {
            SetKind::DataMap(types) | SetKind::RangeMap(types) | SetKind::ExpiringMap(types, _) => types,
            _ => &[],
        }
    }

    /// Whether it holds verdicts.
    pub(super) fn is_verdict_map(&self) -> bool {
        matches!(self.kind.plain(), SetKind::VerdictMap | SetKind::RangeVerdictMap)
    }

    /// Whether its keys are ranges.
    pub(super) fn has_ranges(&self) -> bool {
        matches!(self.kind.plain(), SetKind::RangeSet | SetKind::RangeMap(_) | SetKind::RangeVerdictMap)
    }

    /// Whether it can be declared with the number of its elements: the kernel keeps ranges otherwise.
    pub(super) fn can_be_sized(&self) -> bool {
        matches!(self.kind, SetKind::Set | SetKind::VerdictMap | SetKind::DataMap(_))
    }

    /// Whether it must be declared by `typeof`, for want of a name of one of its types.
    pub(super) fn is_typeof(&self) -> bool {
        self.key.contains(&DataType::Integer) || self.data_types().contains(&DataType::Integer)
    }

    /// Its clauses as between the braces of a declaration, each ended by `end`, where it takes so many
    /// elements; 0 for any number.
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
        match self.data_types() {
            [] if self.is_verdict_map() => f.write_str(" : verdict")?,
            [] => {}
            types => {
                f.write_str(" : ")?;
                concatenation(f, names(types))?;
            }
        }
        f.write_str(end)?;
        if room > 0 {
            write!(f, "{begin}size {room}{end}")?;
        }
        // That there are timeouts is clear where the usual one is printed.
        let timed = |timeout| matches!(&self.kind, SetKind::Timed(_, it) if it.is_some() == timeout);
        match (self.has_ranges(), timed(false)) {
            (true, true) => write!(f, "{begin}flags interval,timeout{end}")?,
            (true, false) => write!(f, "{begin}flags interval{end}")?,
            (false, true) => write!(f, "{begin}flags timeout{end}")?,
            (false, false) => {}
        }
        if let SetKind::Timed(_, Some(seconds)) = &self.kind {
            write!(f, "{begin}timeout {}{end}", Seconds(u64::from(*seconds)))?;
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
        self.write_detailed(f, key, data, &Detail::default())
    }

    /// The same with what is said of it besides.
    pub(super) fn write_detailed(
        &self,
        f: &mut fmt::Formatter<'_>,
        key: &Tuple,
        data: &Data,
        detail: &Detail,
    ) -> fmt::Result {
        match self.has_ranges() {
            false => write_tuple(f, key, &self.key)?,
            true => write_range(f, key, &self.key)?,
        }
        if let Some(timeout) = detail.timeout {
            write!(f, " timeout {}", Seconds(timeout.as_secs()))?;
        }
        if let Some(comment) = &detail.comment {
            write!(f, " comment \"{comment}\"")?;
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
        DataType::EtherType => "meta protocol",
        DataType::TcpFlags => "tcp flags",
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
        Set { declaration, elements: BTreeMap::new(), details: BTreeMap::new() }
    }

    /// Puts an element in with what is said of it besides.
    pub fn put(&mut self, key: Tuple, data: Data, detail: Detail) {
        if !detail.is_empty() {
            self.details.insert(key.clone(), detail);
        }
        self.elements.insert(key, data);
    }
}

impl fmt::Display for Set {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "\t{} {} {{", self.declaration.noun(), self.declaration.name)?;
        self.declaration.write_clauses(f, "\t\t", "\n", 0)?;
        for (index, (key, data)) in self.elements.iter().enumerate() {
            f.write_str(if index == 0 { "\t\telements = {\n\t\t\t" } else { ",\n\t\t\t" })?;
            let detail = self.details.get(key).cloned().unwrap_or_default();
            self.declaration.write_detailed(f, key, data, &detail)?;
        }
        f.write_str(if self.elements.is_empty() { "\t}\n" } else { "\n\t\t}\n\t}\n" })
    }
}
