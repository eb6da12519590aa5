//! Reading a rule's expressions back as the statements that they were written from: the contrary of
//! `encode.rs`. Registers are followed as far as nft and iptables use them. What is not known is named, never
//! guessed at and never an error, so that the rules of other programs are read too.

use std::collections::BTreeMap;

use weft_netlink::Family;
use weft_netlink::attribute::Attributes;

use super::lookup::{self, Found};
use super::{
    Comparison, Dynamic, Effect, Limit, Log, Match, Nat, Operand, Operator, Reject, Rule, Source, Statement,
    Verdict, Xt, dynamic, nat, native,
};
use crate::counter;
use crate::expression::{Expression, Hton, Jhash, Meta, XtState};
use crate::family::TableFamily;
use crate::register::{DATA_VALUE, DATA_VERDICT, EXPR_DATA, EXPR_NAME, VERDICT_REGISTER, offset};
use crate::value::{ETHERTYPES, Name, Value};

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

/// The rule that these expressions (`NFTA_RULE_EXPRESSIONS`) make, in a table of that family.
pub(crate) fn decode(family: TableFamily, expressions: Attributes<'_>) -> Rule {
    let mut program = Program { family: family.ip(), held: BTreeMap::new() };
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
    /// What was read, with some bits masked and others flipped.
    Bits(Expression, Vec<u8>, Vec<u8>),
    Constant(Vec<u8>),
    /// What a map holds for a key; none where the key is not known.
    Found(Option<Vec<Expression>>, Name),
    /// What that expression put there.
    Unknown(Name),
}

/// The expressions of a rule that are not part of a statement yet.
struct Program {
    /// The family of the packets that come as far, where it is one.
    family: Option<Family>,
    /// What is in the registers, by where they begin in the register file.
    held: BTreeMap<usize, Held>,
}

impl Program {
    /// Takes the next expression. The statement that it completes, if it does; `None` where it makes no sense
    /// here.
    fn expression(&mut self, name: &str, data: &Attributes<'_>) -> Option<Option<Statement>> {
        if let Some(read) = Expression::decode(name, data) {
            return self.hold(data.u32(1)?, Held::Read(read));
        }
        match name {
            "bitwise" => self.mask(data),
            "byteorder" => self.swap(data),
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
            // What is written into a packet or its connection: NFTA_META_SREG, NFTA_CT_SREG, no
            // NFTA_PAYLOAD_DREG.
            "meta" if data.get(3).is_some() => self.assign(name, data).or_else(|| other(Effect::Continues)),
            "ct" if data.get(4).is_some() => self.assign(name, data).or_else(|| other(Effect::Continues)),
            "payload" if data.get(1).is_none() => other(Effect::Continues),
            "nat" | "masq" | "redir" => match Nat::read(name, data, |register| self.translation(register)) {
                Some(nat) => Some(Statement::Nat(nat)),
                None => other(Effect::Translates),
            },
            "dynset" => self.dynamic(data).or_else(|| other(Effect::Continues)),
            "notrack" => Some(Statement::Notrack),
            "limit" => Limit::decode(data).map(Statement::Limit),
            "log" => Log::decode(data).map(Statement::Log).or_else(|| other(Effect::Continues)),
            counter::NAME => match counter::decode(data) {
                Some((packets, bytes)) => Some(Statement::Counter { packets, bytes }),
                None => other(Effect::Continues),
            },
            "flow_offload" => data.string(1).map(|flowtable| Statement::FlowAdd(flowtable.into())),
            "reject" => match Reject::decode(self.family, data) {
                Some(reject) => Some(Statement::Reject(reject)),
                None => other(Effect::Rejects),
            },
            "immediate" => Verdict::decode(&data.nested(2).nested(DATA_VERDICT)).map(Statement::Verdict),
            "match" => Some(xt_match(self.family, data)),
            "target" => Some(xt_target(self.family, data)),
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

    /// `NFTA_BITWISE_*`: a mask, then bits that are flipped, and no other operation.
    fn mask(&mut self, data: &Attributes<'_>) -> Option<Option<Statement>> {
        let is_mask = data.u32(6).unwrap_or_default() == 0;
        let flipped = data.nested(5).get(DATA_VALUE).unwrap_or_default();
        let mask = data.nested(4).get(DATA_VALUE).filter(|_| is_mask);
        let held = match (self.held.get(&offset(data.u32(1)?)?), mask) {
            (Some(Held::Read(read)), Some(mask)) => Held::Bits(read.clone(), mask.to_vec(), flipped.to_vec()),
            _ => Held::Unknown("bitwise".into()),
        };
        self.hold(data.u32(2)?, held)
    }

    /// A number is brought into network order, in its place. One of a single byte has no order.
    fn swap(&mut self, data: &Attributes<'_>) -> Option<Option<Statement>> {
        let swapped = match self.held.get(&offset(data.u32(1)?)?) {
            Some(Held::Read(Expression::Meta(meta))) => match Hton::of(*meta, data) {
                Some(hton) => Held::Read(hton.into()),
                None if Expression::Meta(*meta).len() == 1 => Held::Read((*meta).into()),
                None => Held::Unknown("byteorder".into()),
            },
            _ => Held::Unknown("byteorder".into()),
        };
        self.hold(data.u32(2)?, swapped)
    }

    /// What is hashed stands behind the register that the hash goes to, or somewhere else.
    fn hash(&mut self, data: &Attributes<'_>) -> Option<Option<Statement>> {
        let Some((source, length, target)) = Jhash::registers(data) else {
            return self.hold(data.u32(2)?, Held::Unknown("hash".into()));
        };
        let start = offset(source)?;
        let hashed = expressions(self.held.range(start..start + length.next_multiple_of(4)));
        let hash = match hashed.and_then(|key| Jhash::of(key, data)) {
            Some(hash) => Held::Read(hash.into()),
            None => Held::Unknown("hash".into()),
        };
        self.hold(target, hash)
    }

    /// `NFTA_CMP_*`. What is compared stays in its register, for a range is compared twice.
    fn compare(&mut self, data: &Attributes<'_>) -> Option<Statement> {
        let operator = Operator::of_number(data.u32(2)?)?;
        let bytes = data.nested(3).get(DATA_VALUE)?.to_vec();
        let (read, mask) = match self.held.get(&offset(data.u32(1)?)?) {
            Some(Held::Read(read)) => (read.clone(), None),
            Some(Held::Bits(read, mask, flipped)) if flipped.iter().all(|byte| *byte == 0) => {
                (read.clone(), Some(mask.clone()))
            }
            Some(Held::Unknown(name)) => return Some(Statement::Other(name.clone(), Effect::Matches)),
            _ => return Some(Statement::Other("something".into(), Effect::Matches)),
        };
        let comparison = Match::read(read, Comparison { mask, operator, bytes });
        self.narrow(&comparison);
        Some(Statement::Match(comparison))
    }

    /// What follows a comparison with one family is for packets of that family alone.
    fn narrow(&mut self, comparison: &Match) {
        let is_one = comparison.operator == Operator::Equal && self.family.is_none();
        let family = match (&comparison.expression[..], &comparison.value) {
            ([Expression::Meta(Meta::NFPROTO)], Operand::Value(Value::Family(number))) => {
                Family::from_number(*number)
            }
            ([Expression::Meta(Meta::PROTOCOL)], Operand::Value(Value::EtherType(number))) => {
                ETHERTYPES.iter().find(|(known, ..)| known == number).map(|(_, family, _)| *family)
            }
            _ => return,
        };
        if is_one {
            self.family = family;
        }
    }

    /// `NFTA_LOOKUP_*`. A key may begin with a register and go on in those behind it.
    fn lookup(&mut self, data: &Attributes<'_>) -> Option<Option<Statement>> {
        let (set, register, found) = lookup::read(data)?;
        let key = expressions(self.held.range(offset(register)?..));
        self.held.clear();
        let unknown = |effect| Statement::Other(format!("@{set}").into(), effect);
        Some(match (found, key) {
            (Found::Match { inverted }, Some(key)) => {
                let operator = if inverted { Operator::NotEqual } else { Operator::Equal };
                Some(Statement::lookup(key, operator, set))
            }
            (Found::Match { .. }, None) => Some(unknown(Effect::Matches)),
            (Found::Verdict, Some(key)) => Some(Statement::Vmap(key, set)),
            (Found::Verdict, None) => Some(unknown(Effect::Unknown)),
            (Found::Register(register), key) => return self.hold(register, Held::Found(key, set)),
        })
    }

    /// What a translation reads of a register.
    fn translation(&self, register: u32) -> Option<nat::Read> {
        match self.held.get(&offset(register)?)? {
            Held::Found(Some(key), map) => Some(nat::Read::Found(key.clone(), map.clone())),
            Held::Constant(bytes) => Some(nat::Read::Constant(bytes.clone())),
            _ => None,
        }
    }

    fn assign(&self, name: &str, data: &Attributes<'_>) -> Option<Statement> {
        let (target, register) = Expression::decode_store(name, data)?;
        let source = match self.held.get(&offset(register)?)?.clone() {
            Held::Constant(bytes) => Source::Value(target.data_type().decode(&bytes)?),
            Held::Found(key, map) => Source::Map(key?, map),
            Held::Read(read) => Source::Expression(read),
            Held::Bits(of, mask, flipped) => {
                let number = |bytes: Vec<u8>| bytes.try_into().ok().map(u32::from_ne_bytes);
                Source::Bits { of, mask: number(mask)?, flipped: number(flipped)? }
            }
            Held::Unknown(_) => return None,
        };
        Some(Statement::assign(target, source))
    }

    /// A change of a set, whose elements have no expression of their own.
    fn dynamic(&self, data: &Attributes<'_>) -> Option<Statement> {
        let Some(dynamic::Registers { key, data: held }) = Dynamic::registers(data) else {
            return Some(Statement::Other("dynset".into(), Effect::Matches));
        };
        let start = offset(key)?;
        let (key, held) = match held {
            None => (expressions(self.held.range(start..))?, Vec::new()),
            Some(register) => {
                let end = offset(register)?;
                let key = (start <= end).then(|| expressions(self.held.range(start..end)))??;
                (key, expressions(self.held.range(end..))?)
            }
        };
        Dynamic::read(data, key, held).map(Statement::Dynamic)
    }
}

/// What was read into registers, as a concatenation; none where not all of it is known.
fn expressions<'a>(held: impl Iterator<Item = (&'a usize, &'a Held)>) -> Option<Vec<Expression>> {
    let read = |(_, held): (&usize, &Held)| match held {
        Held::Read(read) => Some(read.clone()),
        _ => None,
    };
    let key: Vec<Expression> = held.map(read).collect::<Option<_>>()?;
    (!key.is_empty()).then_some(key)
}

/// A match of iptables (`NFTA_MATCH_NAME`, `_INFO`).
fn xt_match(family: Option<Family>, data: &Attributes<'_>) -> Statement {
    let (name, info) = (data.string(1).unwrap_or_default(), data.get(3).unwrap_or_default());
    match name {
        "comment" => Statement::Other(name.into(), Effect::Continues),
        "conntrack" if XtState::asked(info).is_some() => {
            let (bits, inverted) = XtState::asked(info).unwrap_or_default();
            let operator = if inverted { Operator::NotEqual } else { Operator::Equal };
            Statement::compare(XtState.into(), operator, Operand::Bits(Value::XtState(bits)))
        }
        _ => xt(family, name, data, info)
            .unwrap_or_else(|| Statement::Other(format!("-m {name}").into(), Effect::Matches)),
    }
}

/// A match or a target of which all is known, as what nft has for it.
fn xt(family: Option<Family>, name: &str, data: &Attributes<'_>, info: &[u8]) -> Option<Statement> {
    let xt = Xt::read(family?, name, data.u32(2)?, info)?;
    Some(native(&xt).unwrap_or(Statement::Xt(xt)))
}

/// A target of iptables (`NFTA_TARGET_NAME`, `_INFO`).
fn xt_target(family: Option<Family>, data: &Attributes<'_>) -> Statement {
    let (name, info) = (data.string(1).unwrap_or_default(), data.get(3).unwrap_or_default());
    if let Some(known) = xt(family, name, data, info) {
        return known;
    }
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

    fn decoded(rule: &Rule) -> Rule {
        let mut bytes = Vec::new();
        encode(rule, &mut Writer(&mut bytes));
        decode(TableFamily::Ip6, Attributes(&bytes))
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
            Statement::ct_state_new(),
            Statement::fib_daddr_local(),
            Statement::fib_saddr_local(),
            Statement::fib_routed_back(),
            Statement::lookup(key.clone(), Operator::NotEqual, map.clone()),
            Statement::Vmap(key.clone(), map.clone()),
            Statement::dnat(family, key.clone(), map.clone()),
            Statement::set_priority(key[..3].to_vec(), map.clone()),
            Statement::reset_priority(),
            Statement::remember(key[..3].to_vec(), 10_800, key[3..6].to_vec(), map.clone()),
            Statement::forget(key[..3].to_vec(), map.clone()),
            Statement::note(key[..3].to_vec(), 86_400, map.clone()),
            Statement::masquerade(),
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
    fn matches_and_targets_of_iptables_read_back_as_they_were_written_or_as_what_nft_has_for_them() {
        for xt in [
            Xt::once_in(3),
            Xt::SourceIsLocal,
            Xt::DestinationIsLocal,
            Xt::Recent(Family::Ip6, "KUBE-SEP-X".into(), 10_800),
            Xt::Remember(Family::Ip6, "KUBE-SEP-X".into()),
            Xt::Transport(6, None),
            Xt::Transport(17, Some(53)),
            Xt::Transport(132, None),
            Xt::Transport(132, Some(80)),
            Xt::Mark { value: 0x4000, mask: 0x4000 },
            Xt::Masquerade(Family::Ip),
            Xt::Masquerade(Family::Ip6),
            Xt::Dnat("10.0.0.1:80".parse().unwrap()),
            Xt::Dnat("[fd00::1]:80".parse().unwrap()),
            Xt::Reject(Family::Ip),
            Xt::Reject(Family::Ip6),
        ] {
            let expected = native(&xt).unwrap_or(Statement::Xt(xt.clone()));
            assert_eq!(decoded(&Rule::new([Statement::Xt(xt)])), Rule::new([expected]));
        }
        let state = Operand::Bits(Value::XtState(2 | 4));
        let state = Rule::new([Statement::compare(XtState.into(), Operator::NotEqual, state)]);
        assert_eq!(decoded(&state), state);
        let remark = Rule::new([Statement::Xt(Xt::Comment("why".into()))]);
        assert_eq!(decoded(&remark), Rule::new([Statement::Other("comment".into(), Effect::Continues)]));
    }

    #[test]
    fn an_expression_that_is_not_known_is_named() {
        let mut bytes = Vec::new();
        Writer(&mut bytes).nest(1, |writer| writer.string(EXPR_NAME, "quota"));
        let other = Statement::Other("quota".into(), Effect::Unknown);
        assert_eq!(decode(TableFamily::Ip, Attributes(&bytes)), Rule::new([other]));
    }

    proptest! {
        #[test]
        fn whatever_bytes_a_rule_is_made_of_it_is_read_and_printed(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode(TableFamily::Inet, Attributes(&bytes)).to_string();
        }
    }
}
