//! The plan as nf_tables: one table for each address family, fixed chains, and one element for each row.
//!
//! No element names a chain, so that the kernel validates nothing when one changes: a row that lets traffic
//! through holds `return`, and one that denies it `continue`, with which its rule goes on, to the chain that
//! denies. What leaves a pod is judged first, and then what enters one, as both ends have a say.

pub mod adopt;
mod chains;
mod ranges;
pub mod refused;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use weft_nftables::{
    Change, Data, DataType, Declaration, Element, Family, Field, Observed, Set, SetKind, Table, Transaction,
    Tuple, Value, Verdict, diff,
};

use self::ranges::RangeLists;
use crate::pending;
use crate::plan::{self, ClassId, Delta, Direction, RowChange, RowPorts};

pub use crate::pending::{PENDING, TABLE};

/// The chain that judges what leaves pods; [`ENTERING`] comes after it.
pub const LEAVING: &str = "leaving";
/// The chain that judges what comes to pods.
pub const ENTERING: &str = "entering";
/// How many denied packets a second are logged at the most, for each family and direction.
pub const LOG_RATE: u32 = 200;

/// How much room a set has at the least: in a hash table of fixed size the kernel finds an address sooner.
const ROOM: u32 = 256;
/// The same for the addresses that wait: more than pods start on a node while its agent is away.
const ROOM_TO_WAIT: u32 = 4096;

/// What happens to denied traffic.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Denied {
    /// The sender is told, instead of left waiting.
    pub rejects: bool,
    /// It is logged to that group of nflog, as far as [`LOG_RATE`] lets it.
    pub log_group: Option<u16>,
}

/// The tables of both families, and how changes of the plan change them.
pub struct Ruleset {
    tables: [Table; 2],
    lists: RangeLists,
}

/// The chain that denies what goes that way. Its counter has all such packets.
pub fn denying_chain(direction: Direction) -> &'static str {
    match direction {
        Direction::Ingress => "enter-denied",
        Direction::Egress => "leave-denied",
    }
}

/// What the log says of packets that are denied on that way.
pub fn log_prefix(direction: Direction) -> String {
    format!("{TABLE} {direction}")
}

/// What may come to or leave a pod: the names of maps and sets.
pub(crate) struct Names {
    /// Rows for one port, for protocols, and for all traffic.
    pub(crate) rows: [&'static str; 3],
    /// Who has which list of ranges of ports, and the ranges of each list.
    pub(crate) lists: &'static str,
    pub(crate) ranges: &'static str,
    /// Addresses where nothing passes without a row.
    pub(crate) closed: &'static str,
    /// Addresses where all passes without a row.
    pub(crate) open: &'static str,
}

impl Names {
    pub(crate) fn of(direction: Direction) -> Names {
        match direction {
            Direction::Ingress => Names {
                rows: ["may-enter", "may-enter-protocol", "may-enter-any"],
                lists: "may-enter-list",
                ranges: "may-enter-range",
                closed: "ingress",
                open: "ingress-open",
            },
            Direction::Egress => Names {
                rows: ["may-leave", "may-leave-protocol", "may-leave-any"],
                lists: "may-leave-list",
                ranges: "may-leave-range",
                closed: "egress",
                open: "egress-open",
            },
        }
    }
}

impl Ruleset {
    /// Tables without any policy.
    pub fn new(denied: Denied) -> Ruleset {
        let table = |family| {
            let mut table = Table::new(family, TABLE);
            declare(family, &mut table);
            chains::add(family, denied, &mut table);
            table
        };
        Ruleset { tables: Family::BOTH.map(table), lists: RangeLists::default() }
    }

    /// Does something else about denied traffic. The rows stay.
    pub fn set_denied(&mut self, denied: Denied) {
        for (family, table) in Family::BOTH.into_iter().zip(&mut self.tables) {
            chains::add(family, denied, table);
        }
    }

    /// The tables as they are to be.
    pub fn tables(&self) -> &[Table; 2] {
        &self.tables
    }

    /// What brings the kernel to these tables, where it holds `observed`. Sets that have become too small for
    /// what is planned are made anew.
    pub fn bring(&self, observed: &Observed) -> Transaction {
        let mut transaction = diff(&self.tables, observed);
        transaction.make_room_of(|set| if &*set.name == PENDING { ROOM_TO_WAIT } else { ROOM });
        transaction
    }

    /// Takes a change of the plan in. Returns what is to be changed in the kernel, if it has had all changes
    /// before.
    pub fn apply(&mut self, delta: &Delta) -> Transaction {
        let mut edits = Edits::default();
        for (address, class) in &delta.peers {
            self.edit(
                *address,
                "peers",
                Tuple::new(&[(*address).into_value()]),
                class.map(class_data),
                &mut edits,
            );
        }
        for (first, last, class) in &delta.networks {
            let key = Tuple::range(&[span((*first).into_value(), (*last).into_value())]);
            self.edit(*first, "networks", key, class.map(class_data), &mut edits);
        }
        for (direction, address, base) in &delta.sides {
            let names = Names::of(*direction);
            let key = Tuple::new(&[(*address).into_value()]);
            let verdict = base.map(|base| base.verdict);
            let closed = (verdict == Some(plan::Verdict::Deny)).then_some(Data::None);
            let open = (verdict == Some(plan::Verdict::Accept)).then_some(Data::None);
            self.edit(*address, names.closed, key.clone(), closed, &mut edits);
            self.edit(*address, names.open, key, open, &mut edits);
        }
        for (_, address, _) in &delta.sides {
            let own = self.is_selected(*address).then_some(Data::None);
            let key = Tuple::new(&[(*address).into_value(); 2]);
            self.edit(*address, "self", key, own, &mut edits);
        }
        let mut places = BTreeSet::new();
        for row in &delta.rows {
            let verdict = row.decision.map(|decision| decision.verdict);
            match row_key(row) {
                Ok((set, key)) => self.edit(row.address, set, key, verdict.map(verdict_data), &mut edits),
                Err(range) => {
                    let place = (row.direction, row.address, row.class);
                    self.lists.set(place, range, verdict);
                    places.insert(place);
                }
            }
        }
        self.apply_lists(places, &mut edits);
        edits.transaction()
    }

    /// Gives places whose ranges of ports changed other lists.
    fn apply_lists(&mut self, places: BTreeSet<ranges::Place>, edits: &mut Edits) {
        let changes = self.lists.follow(places);
        for ((direction, address, class), list) in changes.places {
            let key = Tuple::new(&[address.into_value(), Value::ClassId(class.0)]);
            let data = list.map(|list| class_data(ClassId(list)));
            self.edit(address, Names::of(direction).lists, key, data, edits);
        }
        let gone = changes.gone.into_iter().map(|list| (list, false));
        for (((direction, is_v6, list), ranges), is_new) in
            gone.chain(changes.new.into_iter().map(|list| (list, true)))
        {
            for ((protocol, first, last), verdict) in ranges {
                let one = [Value::ClassId(list), Value::Protocol(protocol.number())].map(Field::One);
                let key = Tuple::range(&[&one[..], &[span(Value::Port(first), Value::Port(last))]].concat());
                let data = is_new.then_some(verdict_data(verdict));
                self.edit_family(is_v6, Names::of(direction).ranges, key, data, edits);
            }
        }
    }

    /// Puts an element in, in place of another one, or takes it out.
    fn edit(&mut self, address: IpAddr, set: &str, key: Tuple, data: Option<Data>, edits: &mut Edits) {
        self.edit_family(address.is_ipv6(), set, key, data, edits);
    }

    fn edit_family(&mut self, is_v6: bool, set: &str, key: Tuple, data: Option<Data>, edits: &mut Edits) {
        let Some(set) = self.tables[usize::from(is_v6)].sets.get_mut(set) else { return };
        let before = match &data {
            Some(data) => set.elements.insert(key.clone(), data.clone()),
            None => set.elements.remove(&key),
        };
        if before != data {
            edits.note(is_v6, &set.declaration, key, before, data);
        }
    }

    /// Whether any policy says something about an address.
    fn is_selected(&self, address: IpAddr) -> bool {
        let table = &self.tables[usize::from(address.is_ipv6())];
        let key = Tuple::new(&[address.into_value()]);
        let holds = |set: &str| table.sets.get(set).is_some_and(|set| set.elements.contains_key(&key));
        Direction::BOTH.map(Names::of).iter().any(|names| holds(names.closed) || holds(names.open))
    }
}

/// Elements that go and come, by their sets.
#[derive(Default)]
struct Edits {
    by_set: BTreeMap<(bool, Arc<str>), Edit>,
}

struct Edit {
    declaration: Arc<Declaration>,
    gone: Vec<Element>,
    new: Vec<Element>,
}

impl Edits {
    fn note(
        &mut self,
        is_v6: bool,
        declaration: &Arc<Declaration>,
        key: Tuple,
        before: Option<Data>,
        after: Option<Data>,
    ) {
        let place = (is_v6, declaration.name.clone());
        let edit = self.by_set.entry(place).or_insert_with(|| Edit {
            declaration: declaration.clone(),
            gone: Vec::new(),
            new: Vec::new(),
        });
        edit.gone.extend(before.map(|data| (key.clone(), data)));
        edit.new.extend(after.map(|data| (key, data)));
    }

    /// What goes first, as networks may be cut anew.
    fn transaction(self) -> Transaction {
        let (mut transaction, mut new) = (Transaction::default(), Vec::new());
        for Edit { declaration, gone, new: elements } in self.by_set.into_values() {
            if !gone.is_empty() {
                transaction.changes.push(Change::DeleteElements(declaration.clone(), gone));
            }
            if !elements.is_empty() {
                new.push(Change::AddElements(declaration, elements));
            }
        }
        transaction.changes.extend(new);
        transaction
    }
}

/// The set of a row, and its key; for a range of ports, the range.
fn row_key(row: &RowChange) -> Result<(&'static str, Tuple), (weft_types::Protocol, u16, u16)> {
    let [exact, protocol, any] = Names::of(row.direction).rows;
    let (address, class) = (row.address.into_value(), Value::ClassId(row.class.0));
    let number = |protocol: weft_types::Protocol| Value::Protocol(protocol.number());
    Ok(match row.ports {
        RowPorts::Exact(it, port) => (exact, Tuple::new(&[address, class, number(it), Value::Port(port)])),
        RowPorts::Range(it, first, last) => return Err((it, first, last)),
        RowPorts::Protocol(it) => (protocol, Tuple::new(&[address, class, number(it)])),
        RowPorts::Any => (any, Tuple::new(&[address, class])),
    })
}

fn verdict_data(verdict: plan::Verdict) -> Data {
    Data::Verdict(match verdict {
        plan::Verdict::Accept => Verdict::Return,
        plan::Verdict::Deny => Verdict::Continue,
    })
}

fn span(first: Value, last: Value) -> Field {
    if first == last { Field::One(first) } else { Field::Range(first, last) }
}

fn class_data(class: ClassId) -> Data {
    Data::Tuple(Tuple::new(&[Value::ClassId(class.0)]))
}

trait IntoValue {
    fn into_value(self) -> Value;
}

impl IntoValue for IpAddr {
    fn into_value(self) -> Value {
        Value::Address(self)
    }
}

/// The sets and maps of a table, without elements.
fn declare(family: Family, table: &mut Table) {
    use DataType::{ClassId, InetProto, InetService};
    let address = DataType::address(family);
    let key = (table.family, table.name.clone());
    let mut add = |name: &str, types: &[DataType], kind: SetKind| {
        let declaration = Declaration {
            family: key.0,
            table: key.1.clone(),
            name: name.into(),
            key: types.to_vec(),
            kind,
            comment: None,
        };
        table.set(Set::new(Arc::new(declaration)));
    };
    add("peers", &[address], SetKind::DataMap(vec![ClassId]));
    add("networks", &[address], SetKind::RangeMap(vec![ClassId]));
    add("self", &[address, address], SetKind::Set);
    let whole = [address, ClassId, InetProto, InetService];
    for names in Direction::BOTH.map(Names::of) {
        let [exact, protocol, any] = names.rows;
        add(exact, &whole, SetKind::VerdictMap);
        add(names.lists, &whole[..2], SetKind::DataMap(vec![ClassId]));
        add(names.ranges, &whole[1..], SetKind::RangeVerdictMap);
        add(protocol, &whole[..3], SetKind::VerdictMap);
        add(any, &whole[..2], SetKind::VerdictMap);
        add(names.closed, &[address], SetKind::Set);
        add(names.open, &[address], SetKind::Set);
    }
    // Its elements are the plugin's: they are neither planned nor taken out here.
    table.set(Set::new(pending::declaration(family)));
    table.set(Set::new(refused::declaration(family)));
}
