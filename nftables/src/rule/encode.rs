//! Encoding of a rule's statements as the kernel's expressions: small programs over registers, in the shape
//! in which nft writes them, so that nft reads them back as the statements they were.

use weft_netlink::attribute::Writer;

use super::lookup::{self, Found};
use super::{Rule, Statement};
use crate::counter;
use crate::register::expression;

/// Writes all expressions of a rule, as the payload of `NFTA_RULE_EXPRESSIONS`.
pub(crate) fn encode(rule: &Rule, writer: &mut Writer<'_>) {
    for statement in &rule.statements {
        encode_statement(statement, writer);
    }
}

fn encode_statement(statement: &Statement, writer: &mut Writer<'_>) {
    match statement {
        Statement::Match(comparison) => comparison.write(writer),
        Statement::Vmap(key, map) => lookup::write(key, map, Found::Verdict, writer),
        Statement::Nat(nat) => nat.write(writer),
        Statement::Assign(assign) => assign.write(writer),
        Statement::Dynamic(dynamic) => dynamic.write(writer),
        Statement::Notrack => expression("notrack", writer, |_| {}),
        Statement::Limit(limit) => expression("limit", writer, |data| limit.encode(data)),
        Statement::Log(log) => expression("log", writer, |data| log.encode(data)),
        Statement::Counter { packets, bytes } => {
            expression(counter::NAME, writer, |data| counter::encode(*packets, *bytes, data));
        }
        // NFTA_FLOW_TABLE_NAME
        Statement::FlowAdd(flowtable) => {
            expression("flow_offload", writer, |data| data.string(1, flowtable));
        }
        Statement::Reject(reject) => expression("reject", writer, |data| reject.encode(data)),
        Statement::Verdict(verdict) => verdict.write(writer),
        Statement::Xt(xt) => xt.write(writer),
        Statement::Other(words, _) => debug_assert!(false, "{words} is another's, and cannot be written"),
    }
}
