//! Rules as nft prints them. What a statement needs to stand before it, and nft adds by itself, is not
//! printed: that `tcp flags` is asked of TCP alone, or that in a table of both families `ip saddr` is one of
//! IPv4.

use std::fmt;

use weft_netlink::Family;

use super::{Match, Operand, Operator, Reject, Rule, Statement};
use crate::expression::{Expression, Header, Meta, Payload};
use crate::family::TableFamily;
use crate::value::{ETHERTYPES, Value};

/// `IPPROTO_TCP`
const TCP: u8 = 6;

impl Rule {
    /// The rule as nft prints it in a table of that family.
    pub fn text(&self, family: TableFamily) -> String {
        Printed { rule: self, family: Some(family) }.to_string()
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Printed { rule: self, family: None }.fmt(f)
    }
}

struct Printed<'a> {
    rule: &'a Rule,
    /// The family of the rule's table, where it is known.
    family: Option<TableFamily>,
}

impl Printed<'_> {
    /// Whether nft adds a statement by itself for the sake of one behind it.
    fn goes_without_saying(&self, statement: &Statement, behind: &[Statement]) -> bool {
        let Statement::Match(Match { expression, operator: Operator::Equal, value: Operand::Value(value) }) =
            statement
        else {
            return false;
        };
        match (&expression[..], value) {
            ([Expression::Meta(Meta::L4PROTO)], Value::Protocol(TCP)) => {
                let is_of_ip = self.family.is_some_and(|family| family.ip().is_some());
                match behind.first() {
                    Some(Statement::Reject(Reject::TcpReset)) => is_of_ip,
                    other => other.is_some_and(|other| begins_with(other, |it| *it == Payload::TCP_FLAGS)),
                }
            }
            ([Expression::Meta(Meta::NFPROTO)], Value::Family(number)) => {
                let family = Family::from_number(*number);
                self.family == Some(TableFamily::Inet) && is_for(family, behind)
            }
            ([Expression::Meta(Meta::PROTOCOL)], Value::EtherType(number)) => {
                let known = ETHERTYPES.iter().find(|(known, ..)| known == number);
                let sees_all = [TableFamily::Bridge, TableFamily::Netdev].map(Some).contains(&self.family);
                sees_all && is_for(known.map(|(_, family, _)| *family), behind)
            }
            _ => false,
        }
    }
}

/// Whether what follows reads a header of that family.
fn is_for(family: Option<Family>, behind: &[Statement]) -> bool {
    let of_family = |payload: &Payload| payload.header == Header::Network && payload.family() == family;
    family.is_some() && behind.iter().any(|statement| begins_with(statement, of_family))
}

/// Whether a comparison is one of such a field.
fn begins_with(statement: &Statement, is_such: impl Fn(&Payload) -> bool) -> bool {
    match statement {
        Statement::Match(Match { expression, .. }) | Statement::Vmap(expression, _) => {
            matches!(expression.first(), Some(Expression::Payload(payload)) if is_such(payload))
        }
        _ => false,
    }
}

impl fmt::Display for Printed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        for (index, statement) in self.rule.statements.iter().enumerate() {
            if !self.goes_without_saying(statement, &self.rule.statements[index + 1..]) {
                write!(f, "{separator}{statement}")?;
                separator = " ";
            }
        }
        match &self.rule.comment {
            Some(comment) => write!(f, "{separator}comment \"{comment}\""),
            None => Ok(()),
        }
    }
}
