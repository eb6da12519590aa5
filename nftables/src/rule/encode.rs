//! Encoding of a rule's statements as the kernel's expressions: small programs over registers, in the shape in which
//! nft writes them, so that nft reads them back as the statements they were.

use weft_netlink::Family;
use weft_netlink::attribute::Writer;

use super::{Comparison, Match, Operand, Operator, Rule, Statement, Verdict};
use crate::expression::Expression;
use crate::hash::{HASH_MODULUS, HASH_SEED};
use crate::value::DataType;

/// `NFTA_LIST_ELEM`: one expression of a rule.
const LIST_ELEM: u16 = 1;
/// The name of the expression that counts.
pub(crate) const COUNTER: &str = "counter";
/// `NFTA_EXPR_NAME`, `NFTA_EXPR_DATA`
pub(crate) const EXPR_NAME: u16 = 1;
pub(crate) const EXPR_DATA: u16 = 2;
/// `NFTA_DATA_VALUE`, `NFTA_DATA_VERDICT`
pub(crate) const DATA_VALUE: u16 = 1;
pub(crate) const DATA_VERDICT: u16 = 2;
/// `NFTA_VERDICT_CODE`, `NFTA_VERDICT_CHAIN`
pub(crate) const VERDICT_CODE: u16 = 1;
pub(crate) const VERDICT_CHAIN: u16 = 2;
/// `NFT_REG_VERDICT`
pub(crate) const VERDICT_REGISTER: u32 = 0;
/// The kernel's verdict codes (`NF_*`, `NFT_*`).
pub(crate) mod code {
    pub(crate) const DROP: i32 = 0;
    pub(crate) const ACCEPT: i32 = 1;
    pub(crate) const JUMP: i32 = -3;
    pub(crate) const GOTO: i32 = -4;
    pub(crate) const RETURN: i32 = -5;
}

/// Writes all expressions of a rule, as the payload of `NFTA_RULE_EXPRESSIONS`.
pub(crate) fn encode(rule: &Rule, writer: &mut Writer<'_>) {
    for statement in &rule.statements {
        encode_statement(statement, writer);
    }
}

/// Writes a verdict, as the payload of `NFTA_DATA_VERDICT`.
pub(crate) fn encode_verdict(verdict: &Verdict, writer: &mut Writer<'_>) {
    let code = match verdict {
        Verdict::Accept => code::ACCEPT,
        Verdict::Drop => code::DROP,
        Verdict::Return => code::RETURN,
        Verdict::Jump(_) => code::JUMP,
        Verdict::Goto(_) => code::GOTO,
    };
    writer.u32(VERDICT_CODE, code as u32);
    if let Some(chain) = verdict.chain() {
        writer.string(VERDICT_CHAIN, chain);
    }
}

fn encode_statement(statement: &Statement, writer: &mut Writer<'_>) {
    match statement {
        Statement::Match(comparison) => encode_match(comparison, writer),
        Statement::Vmap(key, map) => {
            load_all(key, writer);
            lookup(map, Some(VERDICT_REGISTER), Operator::Equal, writer);
        }
        Statement::Dnat(family, key, map) => {
            load_all(key, writer);
            lookup(map, Some(register(0)), Operator::Equal, writer);
            dnat(*family, writer);
        }
        Statement::SetPriority(key, map) => {
            load_all(key, writer);
            lookup(map, Some(register(0)), Operator::Equal, writer);
            set_priority(writer);
        }
        Statement::ResetPriority => {
            immediate(register(0), writer, |data| data.bytes(DATA_VALUE, &[0; 4]));
            set_priority(writer);
        }
        Statement::Update(key, timeout, hashed, map) => update(key, *timeout, hashed, map, writer),
        Statement::Note(key, timeout, set) => {
            load_all(key, writer);
            dynamic_set(Operation::Update(*timeout), set, None, writer);
        }
        Statement::Delete(key, map) => delete(key, map, writer),
        // NFTA_MASQ_FLAGS: NF_NAT_RANGE_PROTO_RANDOM_FULLY
        Statement::Masquerade => expression("masq", writer, |data| data.u32(1, 1 << 4)),
        Statement::Notrack => expression("notrack", writer, |_| {}),
        Statement::Limit(limit) => expression("limit", writer, |data| limit.encode(data)),
        Statement::Log(log) => expression("log", writer, |data| log.encode(data)),
        // NFTA_COUNTER_BYTES, NFTA_COUNTER_PACKETS
        Statement::Counter { packets, bytes } => expression(COUNTER, writer, |data| {
            data.bytes(1, &bytes.to_be_bytes());
            data.bytes(2, &packets.to_be_bytes());
        }),
        // NFTA_FLOW_TABLE_NAME
        Statement::FlowAdd(flowtable) => {
            expression("flow_offload", writer, |data| data.string(1, flowtable));
        }
        Statement::Reject(reject) => expression("reject", writer, |data| reject.encode(data)),
        Statement::Verdict(verdict) => immediate(VERDICT_REGISTER, writer, |data| {
            data.nest(DATA_VERDICT, |data| encode_verdict(verdict, data));
        }),
        Statement::Other(words, _) => debug_assert!(false, "{words} is another's, and cannot be written"),
    }
}

/// The register that begins that many bytes into the register file. Those on a boundary of 16 bytes go by the number
/// of the old, wide registers, as in what nft writes and the kernel dumps.
fn register(offset: usize) -> u32 {
    let number = if offset.is_multiple_of(16) { 1 + offset / 16 } else { 8 + offset / 4 };
    number as u32
}

fn expression(name: &str, writer: &mut Writer<'_>, data: impl FnOnce(&mut Writer<'_>)) {
    writer.nest(LIST_ELEM, |writer| {
        writer.string(EXPR_NAME, name);
        writer.nest(EXPR_DATA, data);
    });
}

/// Loads a concatenation at the beginning of the register file. Returns where it ends.
fn load_all(key: &[Expression], writer: &mut Writer<'_>) -> usize {
    load_from(0, key, writer)
}

fn load_from(start: usize, key: &[Expression], writer: &mut Writer<'_>) -> usize {
    let mut offset = start;
    for expression in key {
        load(*expression, offset, writer);
        offset += expression.padded_len();
    }
    offset
}

fn load(read: Expression, offset: usize, writer: &mut Writer<'_>) {
    expression(read.name(), writer, |data| {
        data.u32(1, register(offset));
        read.encode(data);
    });
}

/// A look-up in a set, or a comparison of what is in the first registers.
fn encode_match(comparison: &Match, writer: &mut Writer<'_>) {
    load_all(&comparison.expression, writer);
    if let Operand::Set(set) = &comparison.value {
        return lookup(set, None, comparison.operator, writer);
    }
    let Some(Comparison { mask, operator, bytes }) = comparison.comparison() else { return };
    mask.iter().for_each(|mask| encode_mask(mask, writer));
    expression("cmp", writer, |data| {
        data.u32(1, register(0));
        data.u32(2, operator.number());
        data.nest(3, |data| data.bytes(DATA_VALUE, &bytes));
    });
}

fn encode_mask(mask: &[u8], writer: &mut Writer<'_>) {
    expression("bitwise", writer, |data| {
        data.u32(1, register(0));
        data.u32(2, register(0));
        data.u32(3, mask.len() as u32);
        data.nest(4, |data| data.bytes(DATA_VALUE, mask));
        data.nest(5, |data| data.bytes(DATA_VALUE, &vec![0; mask.len()]));
    });
}

fn lookup(set: &str, target: Option<u32>, operator: Operator, writer: &mut Writer<'_>) {
    expression("lookup", writer, |data| {
        data.string(1, set);
        data.u32(2, register(0));
        if let Some(target) = target {
            data.u32(3, target);
        }
        // NFT_LOOKUP_F_INV
        if operator == Operator::NotEqual {
            data.u32(5, 1);
        }
    });
}

/// Rewrites the destination to the address and the port that a lookup left in the registers.
fn dnat(family: Family, writer: &mut Writer<'_>) {
    expression("nat", writer, |data| {
        data.u32(1, 1); // NFT_NAT_DNAT
        data.u32(2, family.number().into());
        data.u32(3, register(0)); // NFTA_NAT_REG_ADDR_MIN
        data.u32(5, register(DataType::address(family).padded_len())); // NFTA_NAT_REG_PROTO_MIN
    });
}

fn immediate(target: u32, writer: &mut Writer<'_>, value: impl FnOnce(&mut Writer<'_>)) {
    expression("immediate", writer, |data| {
        data.u32(1, target);
        data.nest(2, value);
    });
}

/// Sets the packet's priority to the number in the first register (`NFT_META_PRIORITY`, `NFTA_META_SREG`).
fn set_priority(writer: &mut Writer<'_>) {
    expression("meta", writer, |data| {
        data.u32(2, 2);
        data.u32(3, register(0));
    });
}

/// The key, then the hash, then what is hashed.
fn update(key: &[Expression], timeout: u32, hashed: &[Expression], map: &str, writer: &mut Writer<'_>) {
    let end = load_all(key, writer);
    let source = end + DataType::ClassId.padded_len();
    let length = load_from(source, hashed, writer) - source;
    expression("hash", writer, |data| {
        data.u32(1, register(source));
        data.u32(2, register(end));
        data.u32(3, length as u32);
        data.u32(4, HASH_MODULUS);
        data.u32(5, HASH_SEED);
        data.u32(7, 0); // NFT_HASH_JENKINS
    });
    dynamic_set(Operation::Update(timeout), map, Some(end), writer);
}

/// The key, then what the map holds, which is the packet's priority.
fn delete(key: &[Expression], map: &str, writer: &mut Writer<'_>) {
    let end = load_all(key, writer);
    load(Expression::PRIORITY, end, writer);
    dynamic_set(Operation::Delete, map, Some(end), writer);
}

/// What a rule does with an element of a set.
#[derive(Clone, Copy)]
enum Operation {
    Update(u32),
    Delete,
}

/// The key stands in the first registers, the data of a map behind it (`NFTA_DYNSET_*`).
fn dynamic_set(operation: Operation, map: &str, data_offset: Option<usize>, writer: &mut Writer<'_>) {
    expression("dynset", writer, |data| {
        data.string(1, map);
        data.u32(
            3,
            match operation {
                Operation::Update(_) => 1,
                Operation::Delete => 2,
            },
        );
        data.u32(4, register(0));
        data_offset.iter().for_each(|offset| data.u32(5, register(*offset)));
        if let Operation::Update(seconds) = operation {
            data.bytes(6, &(u64::from(seconds) * 1000).to_be_bytes());
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registers_are_numbered_as_nft_numbers_them() {
        assert_eq!([0, 4, 8, 12, 16, 20, 32].map(register), [1, 9, 10, 11, 2, 13, 3]);
    }
}
