//! Reading a rule's expressions back as the statements that they were written from: the contrary of `encode.rs`. Registers are
//! followed as far as nft and iptables use them. What is not known is named, never guessed at and never an error, so that the
//! rules of other programs are read too.

use std::collections::BTreeMap;

use weft_netlink::Family;
use weft_netlink::attribute::Attributes;

use super::encode::{COUNTER, DATA_VALUE, DATA_VERDICT, EXPR_DATA, EXPR_NAME, VERDICT_REGISTER};
use super::{Comparison, Effect, Limit, Log, Match, Operand, Operator, Reject, Rule, Statement};
use crate::client::parse_verdict;
use crate::expression::{Expression, Meta, XtState};
use crate::value::{Name, Value};

/// Targets of iptables after which the next rule is asked.
const XT_CONTINUES: [&str; 17] = [
    "AUDIT", "CHECKSUM", "CLASSIFY", "CONNMARK", "CT", "DSCP", "HL", "LOG", "MARK", "NFLOG", "NOTRACK",
    "SET", "TCPMSS", "TEE", "TOS", "TRACE", "TTL",
];
/// Those that rewrite an address and let the packet through.
const XT_TRANSLATES: [&str; 5] = ["DNAT", "MASQUERADE", "NETMAP", "REDIRECT", "SNAT"];
/// Expressions after which the next one is asked.
const CONTINUES: [&str; 5] = ["dup", "flow_offload", "last", "objref", "tproxy"];
/// Those that decide about the packet themselves.
const DECIDES: [&str; 7] = ["limit", "quota", "connlimit", "range", "synproxy", "queue", "fwd"];

/// The rule that these expressions (`NFTA_RULE_EXPRESSIONS`) make, in a table that sees packets of that family, or of both.
pub(crate) fn decode(family: Option<Family>, expressions: Attributes<'_>) -> Rule {
    let mut program = Program { family, held: BTreeMap::new() };
    let mut statements = Vec::new();
    for (_, expression) in expressions {
        let expression = Attributes(expression);
        let name = expression.string(EXPR_NAME).unwrap_or("nameless");
        let statement = program.expression(name, &expression.nested(EXPR_DATA));
        statements.extend(statement.unwrap_or_else(|| Some(Statement::Other(name.into(), Effect::Unknown))));
    }
    Rule::new(statements)
}

/// What is in a register.
#[derive(Clone)]
enum Held {
    Read(Expression),
    Masked(Expression, Vec<u8>),
    Constant(Vec<u8>),
    /// What a map holds for a key; none where the key is not known.
    Found(Option<Vec<Expression>>, Name),
    /// The hash of what begins there.
    Hash(usize),
    /// What that expression put there.
    Unknown(Name),
}

/// The expressions of a rule that are not part of a statement yet.
struct Program {
    family: Option<Family>,
    /// What is in the registers, by where they begin in the register file.
    held: BTreeMap<usize, Held>,
}

impl Program {
    /// Takes the next expression. The statement that it completes, if it does; `None` where it makes no sense here.
    fn expression(&mut self, name: &str, data: &Attributes<'_>) -> Option<Option<Statement>> {
        if let Some(read) = Expression::decode(name, data) {
            return self.hold(data.u32(1)?, Held::Read(read));
        }
        match name {
            "bitwise" => self.mask(data),
            "hash" => self.hash(data),
            "lookup" => self.lookup(data),
            "immediate" if data.u32(1)? != VERDICT_REGISTER => {
                let constant = data.nested(2).get(DATA_VALUE)?.to_vec();
                self.hold(data.u32(1)?, Held::Constant(constant))
            }
            "cmp" => self.compare(data).map(Some),
            _ => {
                let statement = self.end(name, data);
                match statement {
                    Some(statement) => {
                        self.held.clear();
                        Some(Some(statement))
                    }
                    None if DECIDES.contains(&name) => None,
                    None => {
                        // It puts something somewhere.
                        let register = data.u32(1).filter(|register| offset(*register).is_some());
                        self.held.clear();
                        match register {
                            Some(register) => self.hold(register, Held::Unknown(name.into())),
                            None => Some(None),
                        }
                    }
                }
            }
        }
    }

    /// An expression that nothing follows in its statement.
    fn end(&mut self, name: &str, data: &Attributes<'_>) -> Option<Statement> {
        let other = |effect| Some(Statement::Other(name.into(), effect));
        match name {
            // What is written into a packet or its connection: NFTA_META_SREG, NFTA_CT_SREG, no NFTA_PAYLOAD_DREG.
            "meta" if data.get(3).is_some() => self.set_priority(data).or_else(|| other(Effect::Continues)),
            "ct" if data.get(4).is_some() => other(Effect::Continues),
            "payload" if data.get(1).is_none() => other(Effect::Continues),
            "nat" => self.dnat(data).or_else(|| other(Effect::Translates)),
            "masq" if data.u32(1) == Some(1 << 4) => Some(Statement::Masquerade),
            "masq" | "redir" => other(Effect::Translates),
            "dynset" => self.dynamic_set(data).or_else(|| other(Effect::Continues)),
            "notrack" => Some(Statement::Notrack),
            "limit" => Limit::decode(data).map(Statement::Limit),
            "log" => Log::decode(data).map(Statement::Log).or_else(|| other(Effect::Continues)),
            COUNTER => counter(data).or_else(|| other(Effect::Continues)),
            "flow_offload" => data.string(1).map(|flowtable| Statement::FlowAdd(flowtable.into())),
            "reject" => match Reject::decode(self.family, data) {
                Some(reject) => Some(Statement::Reject(reject)),
                None => other(Effect::Rejects),
            },
            "immediate" => parse_verdict(&data.nested(2).nested(DATA_VERDICT)).map(Statement::Verdict),
            "match" => Some(xt_match(data)),
            "target" => Some(xt_target(data)),
            _ if CONTINUES.contains(&name) => other(Effect::Continues),
            _ => None,
        }
    }

    /// Puts something into a register. What stood behind it there belonged to something else.
    fn hold(&mut self, register: u32, held: Held) -> Option<Option<Statement>> {
        let at = offset(register)?;
        self.held.split_off(&at);
        self.held.insert(at, held);
        Some(None)
    }

    /// `NFTA_BITWISE_*`: a mask, and no other operation.
    fn mask(&mut self, data: &Attributes<'_>) -> Option<Option<Statement>> {
        let is_mask = data.u32(6).unwrap_or_default() == 0;
        let xor = data.nested(5).get(DATA_VALUE).unwrap_or_default();
        let mask = data.nested(4).get(DATA_VALUE).filter(|_| is_mask && xor.iter().all(|byte| *byte == 0));
        let held = match (self.held.get(&offset(data.u32(1)?)?), mask) {
            (Some(Held::Read(read)), Some(mask)) => Held::Masked(*read, mask.to_vec()),
            _ => Held::Unknown("bitwise".into()),
        };
        self.hold(data.u32(2)?, held)
    }

    /// `NFTA_HASH_*`. The key stands before the register that it goes to, what is hashed behind it.
    fn hash(&mut self, data: &Attributes<'_>) -> Option<Option<Statement>> {
        self.held.insert(offset(data.u32(2)?)?, Held::Hash(offset(data.u32(1)?)?));
        Some(None)
    }

    /// `NFTA_CMP_*`. What is compared stays in its register, for a range is compared twice.
    fn compare(&mut self, data: &Attributes<'_>) -> Option<Statement> {
        let operator = Operator::of_number(data.u32(2)?)?;
        let bytes = data.nested(3).get(DATA_VALUE)?.to_vec();
        let (read, mask) = match self.held.get(&offset(data.u32(1)?)?) {
            Some(Held::Read(read)) => (*read, None),
            Some(Held::Masked(read, mask)) => (*read, Some(mask.clone())),
            Some(Held::Unknown(name)) => return Some(Statement::Other(name.clone(), Effect::Matches)),
            _ => return Some(Statement::Other("something".into(), Effect::Matches)),
        };
        let comparison = Match::read(read, Comparison { mask, operator, bytes });
        // What follows is for packets of that family alone.
        if let (Operand::Value(Value::Family(number)), Operator::Equal, None) =
            (&comparison.value, operator, self.family)
            && read == Expression::Meta(Meta::NFPROTO)
        {
            self.family = Family::BOTH.into_iter().find(|family| family.number() == *number);
        }
        Some(Statement::Match(comparison))
    }

    /// Everything in the registers from there on, as a concatenation; none where not all of it is known.
    fn key(&self, from: usize) -> Option<Vec<Expression>> {
        expressions(self.held.range(from..).map(|(_, held)| held))
    }

    /// `NFTA_LOOKUP_*`. A key may begin with a register and go on in those behind it.
    fn lookup(&mut self, data: &Attributes<'_>) -> Option<Option<Statement>> {
        let set: Name = data.string(1)?.into();
        let key = self.key(offset(data.u32(2)?)?);
        let inverted = data.u32(5).unwrap_or_default() & 1 != 0;
        let operator = if inverted { Operator::NotEqual } else { Operator::Equal };
        self.held.clear();
        let unknown = |effect| Statement::Other(format!("@{set}").into(), effect);
        Some(match (data.u32(3), key) {
            (None, Some(key)) => Some(Statement::lookup(key, operator, set)),
            (None, None) => Some(unknown(Effect::Matches)),
            (Some(VERDICT_REGISTER), Some(key)) => Some(Statement::Vmap(key, set)),
            (Some(VERDICT_REGISTER), None) => Some(unknown(Effect::Unknown)),
            (Some(register), key) => return self.hold(register, Held::Found(key, set)),
        })
    }

    /// The key and the map whose data stands in that register.
    fn found(&self, register: u32) -> Option<(Vec<Expression>, Name)> {
        match self.held.get(&offset(register)?)? {
            Held::Found(Some(key), map) => Some((key.clone(), map.clone())),
            _ => None,
        }
    }

    /// `NFTA_NAT_*`: to the address and the port that a map holds, and no other.
    fn dnat(&self, data: &Attributes<'_>) -> Option<Statement> {
        let (key, map) = self.found(data.u32(3)?)?;
        let family = Family::BOTH.into_iter().find(|family| data.u32(2) == Some(family.number().into()))?;
        let is_plain = data.u32(1) == Some(1) && data.get(5).is_some();
        is_plain.then_some(Statement::Dnat(family, key, map))
    }

    fn set_priority(&self, data: &Attributes<'_>) -> Option<Statement> {
        let register = data.u32(3).filter(|_| data.u32(2) == Some(Meta::PRIORITY.0))?;
        match self.held.get(&offset(register)?)? {
            Held::Constant(bytes) if *bytes == [0; 4] => Some(Statement::ResetPriority),
            _ => self.found(register).map(|(key, map)| Statement::SetPriority(key, map)),
        }
    }

    /// `NFTA_DYNSET_*`, without an expression of its own.
    fn dynamic_set(&self, data: &Attributes<'_>) -> Option<Statement> {
        if data.get(7).is_some() || data.get(10).is_some() {
            return Some(Statement::Other("dynset".into(), Effect::Matches));
        }
        let map: Name = data.string(1)?.into();
        let (start, operation) = (offset(data.u32(4)?)?, data.u32(3)?);
        let Some(end) = data.u32(5).and_then(offset) else {
            return (operation == 1).then(|| Some(Statement::Note(self.key(start)?, seconds(data)?, map)))?;
        };
        let key = expressions(self.held.range(start..end).map(|(_, held)| held))?;
        match (operation, self.held.get(&end)?) {
            (1, Held::Hash(source)) => Some(Statement::Update(key, seconds(data)?, self.key(*source)?, map)),
            (2, Held::Read(Expression::PRIORITY)) => Some(Statement::Delete(key, map)),
            _ => None,
        }
    }
}

/// `NFTA_COUNTER_BYTES`, `NFTA_COUNTER_PACKETS`
fn counter(data: &Attributes<'_>) -> Option<Statement> {
    let long = |kind| Some(u64::from_be_bytes(data.get(kind)?.try_into().ok()?));
    Some(Statement::Counter { packets: long(2)?, bytes: long(1)? })
}

/// For how long a packet writes an element (`NFTA_DYNSET_TIMEOUT`).
fn seconds(data: &Attributes<'_>) -> Option<u32> {
    let milliseconds = u64::from_be_bytes(data.get(6)?.try_into().ok()?);
    u32::try_from(milliseconds / 1000).ok()
}

fn expressions<'a>(held: impl Iterator<Item = &'a Held>) -> Option<Vec<Expression>> {
    let read = |held: &Held| match held {
        Held::Read(read) => Some(*read),
        _ => None,
    };
    let key: Vec<Expression> = held.map(read).collect::<Option<_>>()?;
    (!key.is_empty()).then_some(key)
}

/// Where a register begins in the register file: the wide ones of 16 bytes are 1 to 4, those of 4 bytes begin with 8. Where the
/// file ends is for the kernel.
fn offset(register: u32) -> Option<usize> {
    match register {
        1..=7 => Some((register as usize - 1) * 16),
        8..=31 => Some((register as usize - 8) * 4),
        _ => None,
    }
}

/// A match of iptables (`NFTA_MATCH_NAME`, `_INFO`).
fn xt_match(data: &Attributes<'_>) -> Statement {
    let (name, info) = (data.string(1).unwrap_or_default(), data.get(3).unwrap_or_default());
    match name {
        "comment" => Statement::Other(name.into(), Effect::Continues),
        "conntrack" if XtState::asked(info).is_some() => {
            let (bits, inverted) = XtState::asked(info).unwrap_or_default();
            let operator = if inverted { Operator::NotEqual } else { Operator::Equal };
            Statement::compare(XtState.into(), operator, Operand::Bits(Value::XtState(bits)))
        }
        _ => Statement::Other(format!("-m {name}").into(), Effect::Matches),
    }
}

/// A target of iptables (`NFTA_TARGET_NAME`).
fn xt_target(data: &Attributes<'_>) -> Statement {
    let name = data.string(1).unwrap_or_default();
    match name {
        "REJECT" => Statement::Other("reject".into(), Effect::Rejects),
        _ if XT_CONTINUES.contains(&name) => Statement::Other(name.into(), Effect::Continues),
        _ if XT_TRANSLATES.contains(&name) => Statement::Other(name.into(), Effect::Translates),
        _ => Statement::Other(format!("-j {name}").into(), Effect::Unknown),
    }
}

#[cfg(test)]
mod tests {
    use ipnetwork::IpNetwork;
    use proptest::prelude::*;
    use weft_netlink::attribute::Writer;

    use super::super::encode::encode;
    use super::*;
    use crate::rule::Verdict;

    fn decoded(rule: &Rule) -> Rule {
        let mut bytes = Vec::new();
        encode(rule, &mut Writer(&mut bytes));
        decode(Some(Family::Ip6), Attributes(&bytes))
    }

    fn network(text: &str) -> IpNetwork {
        text.parse().unwrap()
    }

    #[test]
    fn every_statement_reads_back_as_it_was_written() {
        let (map, family) = (Name::from("map"), Family::Ip6);
        let key = vec![
            Expression::saddr(family),
            Expression::daddr(family),
            Expression::L4PROTO,
            Expression::SPORT,
            Expression::DPORT,
            Expression::original_daddr(family),
            Expression::ORIGINAL_DPORT,
            Expression::PRIORITY,
            Expression::random(7),
        ];
        let statements = [
            Statement::compare(Expression::L4PROTO, Operator::Equal, Value::Protocol(6)),
            Statement::compare(Expression::DPORT, Operator::NotEqual, Value::Port(80)),
            Statement::compare(Expression::saddr(family), Operator::NotEqual, network("fd00::/56")),
            Statement::compare(Expression::daddr(Family::Ip), Operator::Equal, network("10.0.0.0/8")),
            Statement::compare(Expression::IIFNAME, Operator::Equal, "cni0"),
            Statement::compare(Expression::OIFNAME, Operator::NotEqual, "veth*"),
            Statement::ct_status_dnat(),
            Statement::ct_state_invalid(),
            Statement::fib_daddr_local(),
            Statement::fib_saddr_local(),
            Statement::fib_routed_back(),
            Statement::lookup(key.clone(), Operator::NotEqual, map.clone()),
            Statement::Vmap(key.clone(), map.clone()),
            Statement::Dnat(family, key.clone(), map.clone()),
            Statement::SetPriority(key[..3].to_vec(), map.clone()),
            Statement::ResetPriority,
            Statement::Update(key[..3].to_vec(), 10_800, key[3..6].to_vec(), map.clone()),
            Statement::Delete(key[..3].to_vec(), map.clone()),
            Statement::Note(key[..3].to_vec(), 86_400, map.clone()),
            Statement::Masquerade,
            Statement::Notrack,
            Statement::Limit(Limit { is_over: true, ..Limit::packets(10, 60) }),
            Statement::Log(Log { prefix: Some("denied: ".into()), group: Some(5), ..Log::default() }),
            Statement::Counter { packets: 0, bytes: 0 },
            Statement::FlowAdd("fast".into()),
            Statement::Reject(Reject::Icmpx(3)),
            Statement::reject(family),
            Statement::reset(),
            Statement::Verdict(Verdict::Goto("elsewhere".into())),
            Statement::Verdict(Verdict::Drop),
        ];
        for statement in &statements {
            let rule = Rule::new([statement.clone()]);
            assert_eq!(decoded(&rule), rule);
        }
        let all = Rule::new(statements);
        assert_eq!(decoded(&all), all);
    }

    #[test]
    fn an_expression_that_is_not_known_is_named() {
        let mut bytes = Vec::new();
        Writer(&mut bytes).nest(1, |writer| writer.string(EXPR_NAME, "quota"));
        let other = Statement::Other("quota".into(), Effect::Unknown);
        assert_eq!(decode(Some(Family::Ip), Attributes(&bytes)), Rule::new([other]));
    }

    proptest! {
        #[test]
        fn whatever_bytes_a_rule_is_made_of_it_is_read_and_printed(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode(None, Attributes(&bytes)).to_string();
        }
    }
}
