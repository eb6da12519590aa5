//! Encoding of transactions as one batch of netlink messages (`linux/netfilter/nf_tables.h`). Elements are
//! packed many to a message, written straight into the batch.

use netlink_packet_core::{NLM_F_APPEND, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REQUEST};

use super::element;
use super::family::TableFamily;
use super::owned::Owned;
use super::rule::Rule;
use super::rule::encode::encode as encode_statements;
use super::set::{Data, Declaration, Detail, Element};
use super::shape::Shape;
use super::table::{Base, TableKey};
use super::transaction::{Change, Transaction};
use super::userdata::{COMMENT, put, put_text};
use super::value::{Name, Tuple};
use weft_netlink::Batch;
use weft_netlink::attribute::Writer;
use weft_types::fnv1a;

/// `NFNL_SUBSYS_NFTABLES`
pub(super) const SUBSYSTEM: u16 = 10;
/// `NFNL_MSG_BATCH_BEGIN`, `NFNL_MSG_BATCH_END`
const BATCH_BEGIN: u16 = 16;
const BATCH_END: u16 = 17;
/// `NFT_TABLE_F_OWNER`: the table belongs to a socket.
pub(super) const TABLE_OWNER: u32 = 2;
/// How many bytes of elements go into one message. Their list is one attribute, whose length has 16 bits.
pub(super) const ELEMENTS_PER_MESSAGE: usize = 60_000;

/// `NFT_MSG_*`
pub(super) mod message {
    pub(crate) const NEW_TABLE: u16 = 0;
    pub(crate) const GET_TABLE: u16 = 1;
    pub(crate) const DEL_TABLE: u16 = 2;
    pub(crate) const NEW_CHAIN: u16 = 3;
    pub(crate) const GET_CHAIN: u16 = 4;
    pub(crate) const DEL_CHAIN: u16 = 5;
    pub(crate) const NEW_RULE: u16 = 6;
    pub(crate) const GET_RULE: u16 = 7;
    pub(crate) const DEL_RULE: u16 = 8;
    pub(crate) const NEW_SET: u16 = 9;
    pub(crate) const GET_SET: u16 = 10;
    pub(crate) const DEL_SET: u16 = 11;
    pub(crate) const NEW_ELEMENTS: u16 = 12;
    pub(crate) const GET_ELEMENTS: u16 = 13;
    pub(crate) const DEL_ELEMENTS: u16 = 14;
    pub(crate) const NEW_GENERATION: u16 = 15;
    pub(crate) const GET_GENERATION: u16 = 16;
    pub(crate) const NEW_FLOWTABLE: u16 = 22;
    pub(crate) const GET_FLOWTABLE: u16 = 23;
    pub(crate) const DEL_FLOWTABLE: u16 = 24;
}

/// Where the numbering of a batch's messages begins: above all numbers that single requests ever reach, so
/// that a late answer to one is not taken for an answer to the other.
pub(super) const FIRST_SEQUENCE: u32 = 1 << 31;

/// A transaction, or a part of one, as the kernel takes it. Its messages are numbered from
/// [`FIRST_SEQUENCE`], in order.
#[derive(Debug, Default)]
pub(super) struct Encoded {
    /// The messages.
    pub(super) batch: Batch,
    /// For every message the index of its change; `None` for the batch's own begin and end.
    pub(super) changes: Vec<Option<usize>>,
}

/// The parts in which a transaction is committed, each of them a batch of its own.
#[derive(Debug)]
pub(super) struct Parts<'a> {
    transaction: &'a Transaction,
    /// How many bytes of messages end a part.
    limit: usize,
    /// The index of the first change that is in no part yet.
    next: usize,
    /// Its elements that are in no part yet, where others are.
    rest: Option<&'a [Element]>,
}

impl<'a> Parts<'a> {
    /// Parts of about that many bytes where the transaction may be committed in parts, and one part where
    /// not.
    pub(super) fn new(transaction: &'a Transaction, limit: usize) -> Parts<'a> {
        let limit = if transaction.only_adds() { limit } else { usize::MAX };
        Parts { transaction, limit, next: 0, rest: None }
    }
}

impl Iterator for Parts<'_> {
    type Item = Encoded;

    fn next(&mut self) -> Option<Encoded> {
        let changes = &self.transaction.changes;
        changes.get(self.next)?;
        let mut encoded = Encoded::default();
        encoded.boundary(BATCH_BEGIN);
        while let Some(change) = changes.get(self.next).filter(|_| encoded.batch.bytes.len() < self.limit) {
            self.rest = match change {
                Change::AddElements(set, elements) => {
                    let rest = self.rest.unwrap_or(elements);
                    encoded.some_elements(self.next, message::NEW_ELEMENTS, NLM_F_CREATE, set, rest)
                }
                other => {
                    encoded.change(self.next, other);
                    None
                }
            };
            self.next += usize::from(self.rest.is_none());
        }
        encoded.boundary(BATCH_END);
        Some(encoded)
    }
}

impl Encoded {
    fn boundary(&mut self, kind: u16) {
        self.frame(kind, 0, 0, SUBSYSTEM, None, |_| {});
    }

    fn change(&mut self, index: usize, change: &Change) {
        use message::*;
        match change {
            Change::AddTable(table) => self.push(index, NEW_TABLE, NLM_F_CREATE, table, |_| {}),
            Change::HoldTable(table) => {
                // NFTA_TABLE_FLAGS
                let fill = |writer: &mut Writer<'_>| writer.u32(2, TABLE_OWNER);
                self.push(index, NEW_TABLE, NLM_F_CREATE | NLM_F_EXCL, table, fill);
            }
            Change::DeleteTable(table) => self.push(index, DEL_TABLE, 0, table, |_| {}),
            Change::AddChain(table, name, base) => {
                self.push(index, NEW_CHAIN, NLM_F_CREATE | NLM_F_EXCL, table, |writer| {
                    writer.string(3, name);
                    base.iter().for_each(|base| encode_base(table.0, base, writer));
                });
            }
            Change::DeleteChain(table, name) => {
                self.push(index, DEL_CHAIN, 0, table, |writer| writer.string(3, name));
            }
            Change::FlushChain(table, name) => {
                self.push(index, DEL_RULE, 0, table, |writer| writer.string(2, name));
            }
            Change::AddRule(table, chain, rule) => {
                self.rule(index, NLM_F_CREATE | NLM_F_APPEND, table, chain, rule);
            }
            Change::InsertRule(table, chain, rule) => self.rule(index, NLM_F_CREATE, table, chain, rule),
            Change::DeleteRule(table, chain, handle) => self.delete_rule(index, table, chain, *handle),
            Change::AddFlowtable(table, name, flowtable) => {
                self.push(index, NEW_FLOWTABLE, NLM_F_CREATE | NLM_F_EXCL, table, |writer| {
                    flowtable.encode(name, writer);
                });
            }
            Change::DeleteFlowtable(table, name) => {
                self.push(index, DEL_FLOWTABLE, 0, table, |writer| writer.string(2, name));
            }
            Change::AddSet(set, room) => {
                // The number of a set within its batch, which must be there; rules name it by its name.
                let id = index as u32 + 1;
                self.push(index, NEW_SET, NLM_F_CREATE | NLM_F_EXCL, &table_of(set), |writer| {
                    writer.string(2, &set.name);
                    writer.u32(10, id);
                    Shape::of(set).with_room(*room).encode(writer);
                });
            }
            Change::DeleteSet(table, name) => {
                self.push(index, DEL_SET, 0, table, |writer| writer.string(2, name));
            }
            Change::AddElements(set, elements) => {
                self.elements(index, NEW_ELEMENTS, NLM_F_CREATE, set, elements);
            }
            Change::DeleteElements(set, elements) => self.elements(index, DEL_ELEMENTS, 0, set, elements),
            Change::AddDetailed(set, elements) => {
                self.detailed(index, NEW_ELEMENTS, NLM_F_CREATE, set, elements.iter().cloned());
            }
            Change::AddOwned(set, elements) => {
                self.owned(index, NEW_ELEMENTS, NLM_F_CREATE | NLM_F_EXCL, set, elements);
            }
            Change::DeleteOwned(set, elements) => self.owned(index, DEL_ELEMENTS, 0, set, elements),
        }
    }

    fn rule(&mut self, index: usize, flags: u16, table: &TableKey, chain: &Name, rule: &Rule) {
        self.push(index, message::NEW_RULE, flags, table, |writer| encode_rule(chain, rule, writer));
    }

    fn delete_rule(&mut self, index: usize, table: &TableKey, chain: &Name, handle: u64) {
        // NFTA_RULE_HANDLE
        self.push(index, message::DEL_RULE, 0, table, |writer| {
            writer.string(2, chain);
            writer.bytes(3, &handle.to_be_bytes());
        });
    }

    fn elements(&mut self, index: usize, kind: u16, flags: u16, set: &Declaration, elements: &[Element]) {
        let mut rest = Some(elements);
        while let Some(elements) = rest {
            rest = self.some_elements(index, kind, flags, set, elements);
        }
    }

    /// One message of elements. Returns those that it had no room for, if there are any.
    fn some_elements<'a>(
        &mut self,
        index: usize,
        kind: u16,
        flags: u16,
        set: &Declaration,
        mut elements: &'a [Element],
    ) -> Option<&'a [Element]> {
        self.push(index, kind, flags, &table_of(set), |writer| {
            writer.string(2, &set.name);
            writer.nest(3, |writer| elements = encode_elements(elements, set, writer));
        });
        (!elements.is_empty()).then_some(elements)
    }

    /// Elements of which more is said, as few messages as they fit into.
    fn detailed(
        &mut self,
        index: usize,
        kind: u16,
        flags: u16,
        set: &Declaration,
        elements: impl Iterator<Item = (Tuple, Data, Detail)>,
    ) {
        let table = table_of(set);
        let mut elements = elements.peekable();
        while elements.peek().is_some() {
            self.push(index, kind, flags, &table, |writer| {
                writer.string(2, &set.name);
                writer.nest(3, |writer| {
                    let start = writer.0.len();
                    while writer.0.len() - start <= ELEMENTS_PER_MESSAGE {
                        let Some((key, data, detail)) = elements.next() else { break };
                        element::encode(&key, &data, &detail, set, writer);
                    }
                });
            });
        }
    }

    fn owned(&mut self, index: usize, kind: u16, flags: u16, set: &Declaration, elements: &[Owned]) {
        let detailed = elements.iter().map(|owned| {
            let key = if set.has_ranges() { owned.held_key() } else { owned.key.clone() };
            (key, owned.data.clone(), owned.detail())
        });
        self.detailed(index, kind, flags, set, detailed);
    }

    /// One message, which begins with its table's name as all of them do.
    fn push(
        &mut self,
        index: usize,
        kind: u16,
        flags: u16,
        (family, table): &TableKey,
        fill: impl FnOnce(&mut Writer<'_>),
    ) {
        self.frame(SUBSYSTEM << 8 | kind, flags, family.number(), 0, Some(index), |writer| {
            writer.string(1, table);
            fill(writer);
        });
    }

    fn frame(
        &mut self,
        kind: u16,
        flags: u16,
        family: u8,
        resource: u16,
        index: Option<usize>,
        fill: impl FnOnce(&mut Writer<'_>),
    ) {
        let sequence = FIRST_SEQUENCE + self.changes.len() as u32;
        self.changes.push(index);
        let buffer = &mut self.batch.bytes;
        let start = buffer.len();
        buffer.extend_from_slice(&[0; 4]);
        buffer.extend_from_slice(&kind.to_ne_bytes());
        buffer.extend_from_slice(&(flags | NLM_F_REQUEST).to_ne_bytes());
        buffer.extend_from_slice(&sequence.to_ne_bytes());
        buffer.extend_from_slice(&[0; 4]);
        buffer.extend_from_slice(&generic_header(family, resource));
        fill(&mut Writer(buffer));
        let length = (buffer.len() - start) as u32;
        buffer[start..start + 4].copy_from_slice(&length.to_ne_bytes());
    }
}

/// `struct nfgenmsg`: family, version 0 and a resource number.
pub(super) fn generic_header(family: u8, resource: u16) -> [u8; 4] {
    let [high, low] = resource.to_be_bytes();
    [family, 0, high, low]
}

fn table_of(set: &Declaration) -> TableKey {
    (set.family, set.table.clone())
}

/// Of a hook that the family does not have, the kernel hears a number that it refuses.
fn encode_base(family: TableFamily, base: &Base, writer: &mut Writer<'_>) {
    writer.nest(4, |hook| {
        hook.u32(1, family.hook_number(base.hook).unwrap_or(u32::MAX));
        hook.u32(2, base.priority as u32);
        // NFTA_HOOK_DEV
        base.device.iter().for_each(|device| hook.string(3, device.name()));
    });
    writer.u32(5, base.policy.number());
    writer.string(7, base.kind.name());
}

fn encode_rule(chain: &Name, rule: &Rule, writer: &mut Writer<'_>) {
    writer.string(2, chain);
    writer.nest(4, |writer| encode_statements(rule, writer));
    if let Some(protocol) = rule.xt_protocol() {
        // NFTA_RULE_COMPAT: protocol, flags
        writer.nest(5, |writer| {
            writer.u32(1, protocol.into());
            writer.u32(2, 0);
        });
    }
    writer.bytes(7, &rule_userdata(rule));
}

/// The type of our digest in a rule's user data. nft knows 0, the comment, and passes over the others.
pub(super) const RULE_DIGEST: u8 = 0x57;

fn rule_userdata(rule: &Rule) -> Vec<u8> {
    let mut bytes = Vec::new();
    if let Some(comment) = &rule.comment {
        put_text(&mut bytes, COMMENT, comment);
    }
    put(&mut bytes, RULE_DIGEST, &digest(rule).to_be_bytes());
    bytes
}

/// A digest of a rule as it is encoded (64-bit FNV-1a). A rule in the kernel that carries the digest of the
/// planned one is that rule: the kernel gives expressions back in another shape than it took them, which
/// cannot be compared.
pub fn digest(rule: &Rule) -> u64 {
    let mut bytes = Vec::new();
    encode_statements(rule, &mut Writer(&mut bytes));
    bytes.extend_from_slice(rule.comment.as_deref().unwrap_or_default().as_bytes());
    fnv1a(&bytes)
}

/// Writes as many elements as fit into one message, and returns the others.
fn encode_elements<'a>(elements: &'a [Element], set: &Declaration, writer: &mut Writer<'_>) -> &'a [Element] {
    let start = writer.0.len();
    for (index, (key, data)) in elements.iter().enumerate() {
        if writer.0.len() - start > ELEMENTS_PER_MESSAGE {
            return &elements[index..];
        }
        element::encode(key, data, &Detail::default(), set, writer);
    }
    &[]
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::set::SetKind;
    use super::super::value::{DataType, Value};
    use super::*;
    use weft_netlink::Family;
    use weft_netlink::Frames;

    fn transaction(count: u16) -> Transaction {
        let set = Arc::new(Declaration {
            family: Family::Ip.into(),
            table: "weft".into(),
            name: "ports".into(),
            key: vec![DataType::InetService],
            kind: SetKind::Set,
            comment: None,
        });
        let elements = (0..count).map(|port| (Tuple::new(&[Value::Port(port)]), Data::None)).collect();
        Transaction { changes: vec![Change::AddElements(set, elements)] }
    }

    #[test]
    fn elements_are_packed_many_to_a_message_below_the_limit_of_an_attribute() {
        let transaction = transaction(10_000);
        let encoded = Parts::new(&transaction, usize::MAX).next().unwrap();
        let frames: Vec<_> = Frames::new(&encoded.batch.bytes).map(Result::unwrap).collect();
        assert_eq!(frames.len(), 2 + 10_000usize.div_ceil(ELEMENTS_PER_MESSAGE / 16 + 1));
        assert_eq!(frames.len(), encoded.changes.len());
        assert!(frames.iter().all(|frame| frame.payload.len() < 65_536));
        assert_eq!((frames[0].kind, frames[0].payload), (BATCH_BEGIN, &[0u8, 0, 0, 10][..]));
        assert_eq!(encoded.changes[..2], [None, Some(0)]);
    }

    #[test]
    fn what_only_adds_is_committed_in_parts_that_hold_every_element_once() {
        let mut transaction = transaction(30_000);
        let Change::AddElements(set, elements) = transaction.changes[0].clone() else { panic!() };
        transaction.changes.insert(0, Change::AddSet(set.clone(), 0));
        let limit = 2 * ELEMENTS_PER_MESSAGE;
        let parts: Vec<Encoded> = Parts::new(&transaction, limit).collect();
        assert_eq!(parts.len(), 4);
        assert!(parts.iter().all(|part| part.batch.bytes.len() < limit + 65_536));
        let is_boundary =
            |part: &Encoded| (part.changes.first(), part.changes.last()) == (Some(&None), Some(&None));
        assert!(parts.iter().all(is_boundary));
        assert_eq!(parts[0].changes[1..3], [Some(0), Some(1)]);
        let bytes: usize = parts.iter().map(|part| part.batch.bytes.len()).sum();
        assert!(bytes > 30_000 * 16 && bytes < 30_000 * 17, "{bytes} for 30,000 elements of 16 bytes");

        transaction.changes.push(Change::DeleteElements(set, elements[..1].to_vec()));
        assert_eq!(Parts::new(&transaction, limit).count(), 1, "all or nothing");
        assert_eq!(Parts::new(&Transaction::default(), limit).count(), 0);
    }

    #[test]
    fn rules_of_different_meaning_have_different_digests() {
        use super::super::rule::{Statement, Verdict};
        let accept = Rule::new([Statement::Verdict(Verdict::Accept)]);
        let drop = Rule::new([Statement::Verdict(Verdict::Drop)]);
        assert_ne!(digest(&accept), digest(&drop));
        assert_ne!(digest(&accept), digest(&accept.clone().comment("why")));
        assert_eq!(digest(&accept), digest(&accept.clone()));
    }
}
