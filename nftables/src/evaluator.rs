//! What rules find in a packet, without the kernel: so that a policy is tested without root, and a person is told why a packet
//! does not get through. Nothing is guessed: what is not known is `None`.

use std::net::{IpAddr, SocketAddr};

use super::expression::Expression;
use super::foreign::ForeignTable;
use super::rule::{Effect, Match, Nat, Operand, Operator, Rule, Statement, Verdict};
use super::value::{Name, Tuple};

mod walk;

pub use walk::{Fate, Lost, Ruleset, Walk};

/// What is known of a packet that begins a connection, and of the machine that it is on.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// Its source address.
    pub source: Option<IpAddr>,
    /// Its destination address, as it is by now.
    pub destination: Option<IpAddr>,
    /// The number of its transport protocol.
    pub protocol: Option<u8>,
    /// Its transport source port.
    pub source_port: Option<u16>,
    /// Its transport destination port, as it is by now.
    pub destination_port: Option<u16>,
    /// The flags of its TCP header.
    pub tcp_flags: Option<u8>,
    /// Where it was sent to before a rule rewrote that.
    pub original_destination: Option<SocketAddr>,
    /// The name of the interface that it came in by; empty where there is none.
    pub input: Option<String>,
    /// The name of the interface that it leaves by.
    pub output: Option<String>,
    /// Its priority.
    pub priority: Option<u32>,
    /// Its mark.
    pub mark: Option<u32>,
    /// Bits of `ct state` (`NF_CT_STATE_BIT`).
    pub state: Option<u32>,
    /// Bits of `ct status` (`IPS_*`).
    pub status: Option<u32>,
    /// The mark of its connection.
    pub connection_mark: Option<u32>,
    /// Its source is an address of this machine.
    pub source_is_local: Option<bool>,
    /// Its destination is an address of this machine.
    pub destination_is_local: Option<bool>,
    /// It would leave by the interface that it came by.
    pub routed_back: Option<bool>,
    /// Takes the place of every number that is drawn.
    pub draw: Option<u32>,
}

impl Facts {
    /// What an expression reads of it; `None` where that is not known.
    pub fn bytes(&self, expression: &Expression) -> Option<Vec<u8>> {
        expression.evaluate(self)
    }

    /// What a concatenation reads of it, as the key of a set.
    pub fn key(&self, expressions: &[Expression]) -> Option<Tuple> {
        let mut key = Vec::new();
        for expression in expressions {
            key.extend(self.bytes(expression)?);
            if expressions.len() > 1 {
                key.resize(key.len().next_multiple_of(4), 0);
            }
        }
        Some(Tuple::from_kernel(&key))
    }

    /// Whether a comparison holds; `None` where that is not known, or where a set must be asked.
    pub fn compare(&self, comparison: &Match) -> Option<bool> {
        comparison.holds(&self.bytes(comparison.expression.first()?)?)
    }
}

/// What a rule comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ruling {
    /// What it decides; none where the next rule is asked.
    pub decision: Option<Decision>,
    /// Whether all that it asks for is known. If not, it may as well not apply.
    pub is_certain: bool,
}

/// How a rule ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// With a verdict.
    Verdict(Verdict),
    /// It tells the sender that the packet goes no further.
    Reject,
    /// It rewrites an address and lets the packet through.
    Translate(Name),
    /// What it decides, if anything, is not known.
    Unknown,
}

impl ForeignTable {
    /// What a rule of it does with a packet.
    pub fn evaluate(&self, rule: &Rule, facts: &Facts) -> Ruling {
        let ruling = |decision, is_certain| Ruling { decision, is_certain };
        let mut certain = true;
        let mut rest = rule.statements.iter();
        while let Some(statement) = rest.next() {
            let decision = match self.statement(facts, statement) {
                Fits::Yes => continue,
                Fits::No => return ruling(None, true),
                Fits::Perhaps => {
                    certain = false;
                    continue;
                }
                Fits::Decides(decision) => decision,
            };
            match decision {
                // Perhaps it only does not apply; at the end it may decide.
                Decision::Unknown if rest.len() > 0 && !matches!(statement, Statement::Vmap(..)) => {
                    certain = false;
                }
                Decision::Unknown => return ruling(Some(decision), false),
                decision => return ruling(Some(decision), certain),
            }
        }
        ruling(None, true)
    }

    fn statement(&self, facts: &Facts, statement: &Statement) -> Fits {
        match statement {
            Statement::Match(Match { expression, operator, value: Operand::Set(set) }) => Fits::of(
                self.found(facts, expression, set)
                    .map(|found| found.is_some() == (*operator == Operator::Equal)),
            ),
            Statement::Match(comparison) => Fits::of(facts.compare(comparison)),
            Statement::Vmap(key, map) => match self.found(facts, key, map) {
                Some(Some(Some(verdict))) => Fits::Decides(Decision::Verdict(verdict)),
                Some(None) => Fits::Yes,
                _ => Fits::Decides(Decision::Unknown),
            },
            Statement::Verdict(verdict) => Fits::Decides(Decision::Verdict(verdict.clone())),
            Statement::Reject(_) | Statement::Other(_, Effect::Rejects) => Fits::Decides(Decision::Reject),
            Statement::Nat(nat) => Fits::Decides(Decision::Translate(
                match nat {
                    Nat::Source(..) | Nat::Masquerade { .. } => "masq",
                    Nat::Destination(..) | Nat::Redirect { .. } => "nat",
                }
                .into(),
            )),
            Statement::Other(how, Effect::Translates) => Fits::Decides(Decision::Translate(how.clone())),
            Statement::Limit(_) | Statement::Other(_, Effect::Matches) => Fits::Perhaps,
            Statement::Other(_, Effect::Unknown) => Fits::Decides(Decision::Unknown),
            Statement::Other(_, Effect::Continues)
            | Statement::Assign(_)
            | Statement::Dynamic(_)
            | Statement::Log(_)
            | Statement::Counter { .. }
            | Statement::FlowAdd(_)
            | Statement::Notrack => Fits::Yes,
        }
    }

    /// What a set has for a key: an element, perhaps with a verdict.
    fn found(&self, facts: &Facts, key: &[Expression], set: &Name) -> Option<Option<Option<Verdict>>> {
        let key = facts.key(key)?;
        let found = self.sets.get(set)?.find(key.bytes())?;
        Some(found.map(|element| element.verdict.clone()))
    }
}

/// What a statement comes to.
enum Fits {
    Yes,
    No,
    /// What it asks for is not known.
    Perhaps,
    Decides(Decision),
}

impl Fits {
    fn of(known: Option<bool>) -> Fits {
        match known {
            Some(true) => Fits::Yes,
            Some(false) => Fits::No,
            None => Fits::Perhaps,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::family::TableFamily;
    use crate::rule::Limit;
    use crate::value::Value;

    fn ruling(statements: impl Into<Vec<Statement>>) -> Ruling {
        let (chains, sets) = (BTreeMap::new(), BTreeMap::new());
        let table = ForeignTable { family: TableFamily::Inet, name: "x".into(), chains, sets };
        let facts = Facts { protocol: Some(6), destination_port: Some(80), ..Facts::default() };
        table.evaluate(&Rule::new(statements), &facts)
    }

    fn decided(decision: Option<Decision>, is_certain: bool) -> Ruling {
        Ruling { decision, is_certain }
    }

    #[test]
    fn a_rule_decides_only_where_all_of_it_applies_and_certainly_only_where_all_of_it_is_known() {
        let drop = || Statement::Verdict(Verdict::Drop);
        let dropped = || Some(Decision::Verdict(Verdict::Drop));
        let port = |operator, port| Statement::compare(Expression::DPORT, operator, Value::Port(port));
        assert_eq!(ruling([port(Operator::Equal, 80), drop()]), decided(dropped(), true));
        assert_eq!(ruling([port(Operator::Less, 80), drop()]), decided(None, true));
        assert_eq!(ruling([port(Operator::AtLeast, 256), drop()]), decided(None, true));
        let limit = Statement::Limit(Limit::packets(1, 1));
        assert_eq!(ruling([limit.clone(), drop()]), decided(dropped(), false));
        // What does not apply does not, whatever else is not known.
        assert_eq!(ruling([limit, port(Operator::NotEqual, 80), drop()]), decided(None, true));
        let from = Statement::compare(Expression::SPORT, Operator::Equal, Value::Port(1));
        assert_eq!(ruling([from, drop()]), decided(dropped(), false), "its source port is not known");
    }

    #[test]
    fn what_is_not_known_at_the_end_of_a_rule_may_decide() {
        let quota = || Statement::Other("quota".into(), Effect::Unknown);
        assert_eq!(ruling([quota()]), decided(Some(Decision::Unknown), false));
        let log = Statement::Other("log".into(), Effect::Continues);
        assert_eq!(ruling([quota(), log]), decided(None, true));
        let vmap = Statement::Vmap(vec![Expression::DPORT], "gone".into());
        assert_eq!(ruling([vmap]), decided(Some(Decision::Unknown), false), "its map was not read");
    }
}
