//! A forwarded packet's way through planned tables, rule by rule, as the kernel goes it.

use weft_nftables::evaluator::Facts;
use weft_nftables::{
    Data, Expression, Hook, Match, Operand, Operator, Set, Source, Statement, Table, Value, Verdict,
};
use weft_policy::plan::{self, Packet};

/// `IPPROTO_ICMP`
const ICMP: u8 = 1;
/// `NF_CT_STATE_BIT(IP_CT_NEW)`
const NEW: u32 = 8;
const SYN: u8 = 2;

/// How a rule or a chain ends.
enum End {
    Next,
    Return,
    Final(plan::Verdict),
}

/// What the forward hook does with the first packet of a connection.
pub(crate) fn forward(table: &Table, packet: &Packet) -> plan::Verdict {
    let mut facts = Facts {
        source: Some(packet.source),
        destination: Some(packet.destination),
        protocol: Some(packet.port.map_or(ICMP, |(protocol, _)| protocol.number())),
        destination_port: packet.port.map(|(_, port)| port),
        tcp_flags: Some(SYN),
        priority: Some(6),
        state: Some(NEW),
        ..Facts::default()
    };
    let mut bases: Vec<_> = table.at(Hook::Forward).collect();
    bases.sort_by_key(|(_, _, base)| base.priority);
    for (name, ..) in bases {
        if let End::Final(plan::Verdict::Deny) = chain(table, name, &mut facts) {
            return plan::Verdict::Deny;
        }
    }
    plan::Verdict::Accept
}

fn chain(table: &Table, name: &str, facts: &mut Facts) -> End {
    for rule in &table.chains[name].rules {
        match statements(table, &rule.statements, facts) {
            End::Next => {}
            end => return end,
        }
    }
    End::Return
}

/// The statements of a rule, until one does not apply.
fn statements(table: &Table, statements: &[Statement], facts: &mut Facts) -> End {
    for statement in statements {
        let end = match statement {
            Statement::Match(Match { expression, operator, value: Operand::Set(set) }) => {
                let found = find(table, set, expression, facts).is_some();
                if found == (*operator == Operator::Equal) { continue } else { return End::Next }
            }
            Statement::Match(comparison) => match facts.compare(comparison) {
                Some(true) => continue,
                _ => return End::Next,
            },
            Statement::Vmap(key, map) => match find(table, map, key, facts) {
                Some(Data::Verdict(verdict)) => verdict.clone(),
                _ => return End::Next,
            },
            Statement::Assign(assign) => {
                assert_eq!(assign.target, Expression::PRIORITY);
                let value = match &assign.source {
                    Source::Value(value) => Some(*value),
                    Source::Map(key, map) => class(table, find(table, map, key, facts), map),
                    other => panic!("{other:?}"),
                };
                let Some(Value::ClassId(class)) = value else { return End::Next };
                facts.priority = Some(class);
                continue;
            }
            Statement::Verdict(verdict) => verdict.clone(),
            Statement::Counter { .. } | Statement::Limit(_) | Statement::Log(_) => continue,
            Statement::Reject(_) => Verdict::Drop,
            other => panic!("{other}"),
        };
        return match end {
            Verdict::Accept => End::Final(plan::Verdict::Accept),
            Verdict::Drop => End::Final(plan::Verdict::Deny),
            Verdict::Return => End::Return,
            Verdict::Goto(to) => match chain(table, &to, facts) {
                End::Final(verdict) => End::Final(verdict),
                End::Next | End::Return => End::Return,
            },
            Verdict::Jump(to) => match chain(table, &to, facts) {
                End::Final(verdict) => End::Final(verdict),
                End::Next | End::Return => End::Next,
            },
        };
    }
    End::Next
}

fn class(table: &Table, found: Option<&Data>, map: &str) -> Option<Value> {
    let Some(Data::Tuple(tuple)) = found else { return None };
    let types = table.sets[map].declaration.kind.clone();
    let (weft_nftables::SetKind::DataMap(types) | weft_nftables::SetKind::RangeMap(types)) = types else {
        panic!("{types:?}")
    };
    tuple.values(&types)?.first().copied()
}

fn find<'a>(table: &'a Table, set: &str, key: &[Expression], facts: &Facts) -> Option<&'a Data> {
    let key = facts.key(key)?;
    Set::find(&table.sets[set], &key).map(|(_, data)| data)
}
