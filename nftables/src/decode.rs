//! Reading a rule's expressions back as the statements that they were written from: the contrary of `expression.rs`. So what
//! the kernel really does can be shown and followed. What this crate would not write is named, and not guessed at.

use std::net::IpAddr;

use ipnetwork::IpNetwork;

use super::client::parse_verdict;
use super::expression::{
    CT_STATE, CT_STATE_INVALID, CT_STATUS, DATA_VALUE, DATA_VERDICT, EXPR_DATA, EXPR_NAME, FIB_ADDRESS_TYPE,
    FIB_BACK, FIB_DADDR, FIB_INTERFACE, FIB_SADDR, IPS_DST_NAT, REJECT_RESET, REJECT_UNREACHABLE, RTN_LOCAL,
    VERDICT_REGISTER,
};
use super::rule::{Interface, Is, Rule, Selector, Statement};
use super::value::{Name, Tuple};
use weft_netlink::Family;
use weft_netlink::attribute::Attributes;

/// The rule of a table of that family that these expressions (`NFTA_RULE_EXPRESSIONS`) make.
///
/// # Errors
/// Which of them is none that this crate writes, or not there.
pub(super) fn decode(family: Family, expressions: Attributes<'_>) -> Result<Rule, String> {
    let mut program = Program { family, loads: Vec::new(), mask: None, looked_up: None, hashed: None };
    let mut statements = Vec::new();
    for (_, expression) in expressions {
        let expression = Attributes(expression);
        let name = expression.string(EXPR_NAME).unwrap_or_default();
        match program.expression(name, &expression.nested(EXPR_DATA)) {
            Some(Some(statement)) => {
                statements.push(statement);
                program = Program { family, loads: Vec::new(), mask: None, looked_up: None, hashed: None };
            }
            Some(None) => {}
            None => return Err(name.to_owned()),
        }
    }
    Ok(Rule::new(statements))
}

/// What an expression puts into a register.
#[derive(Clone, Copy)]
enum Load {
    Selector(Selector),
    Interface(Interface),
    ConnectionStatus,
    ConnectionState,
    AddressType(u32),
    WayBack,
    Zero,
}

/// The expressions of a statement that is not complete yet.
struct Program {
    family: Family,
    /// What is in the registers, with their numbers.
    loads: Vec<(u32, Load)>,
    mask: Option<Vec<u8>>,
    /// The map whose data is in the first registers.
    looked_up: Option<Name>,
    /// The first register of what was hashed.
    hashed: Option<u32>,
}

impl Program {
    /// Takes the next expression. The statement that it completes, if it does; `None` where it makes no sense here.
    fn expression(&mut self, name: &str, data: &Attributes<'_>) -> Option<Option<Statement>> {
        let load = match (name, data.u32(3)) {
            ("meta", Some(_)) => return self.set_priority(data).map(Some),
            ("meta", None) => meta(data)?,
            ("payload", _) => payload(data)?,
            ("ct", _) => connection(data)?,
            ("numgen", Some(1)) => Load::Selector(Selector::Random(data.u32(2)?)),
            ("fib", Some(flags)) if data.u32(2) == Some(FIB_ADDRESS_TYPE) => Load::AddressType(flags),
            ("fib", Some(FIB_BACK)) if data.u32(2) == Some(FIB_INTERFACE) => Load::WayBack,
            ("immediate", _) if data.u32(1)? != VERDICT_REGISTER => zero(data)?,
            ("bitwise", _) => {
                self.mask = Some(data.nested(4).get(DATA_VALUE)?.to_vec());
                return Some(None);
            }
            ("hash", _) => {
                self.hashed = Some(data.u32(1)?);
                return Some(None);
            }
            ("lookup", target) => return self.lookup(data, target),
            _ => return self.end(name, data).map(Some),
        };
        self.loads.push((data.u32(1)?, load));
        Some(None)
    }

    /// An expression that nothing follows in its statement.
    fn end(&mut self, name: &str, data: &Attributes<'_>) -> Option<Statement> {
        Some(match name {
            "cmp" => self.compare(data)?,
            "nat" => {
                let map = self.looked_up.take().filter(|_| data.u32(1) == Some(1))?;
                let family =
                    Family::BOTH.into_iter().find(|family| data.u32(2) == Some(family.number().into()))?;
                Statement::Dnat(family, self.key()?, map)
            }
            "dynset" => self.dynamic_set(data)?,
            "masq" if data.u32(1) == Some(1 << 4) => Statement::Masquerade,
            "notrack" => Statement::Notrack,
            "reject" if data.u32(1) == Some(REJECT_UNREACHABLE) => Statement::Reject(self.family),
            "reject" if data.u32(1) == Some(REJECT_RESET) => Statement::Reset,
            "immediate" => Statement::Verdict(parse_verdict(&data.nested(2).nested(DATA_VERDICT))?),
            _ => return None,
        })
    }

    /// Everything in the registers, as a concatenation.
    fn key(&self) -> Option<Vec<Selector>> {
        selectors(&self.loads)
    }

    fn lookup(&mut self, data: &Attributes<'_>, target: Option<u32>) -> Option<Option<Statement>> {
        let set: Name = data.string(1)?.into();
        let inverted = data.u32(5).unwrap_or_default() & 1 != 0;
        Some(match target {
            None => Some(Statement::Lookup(self.key()?, is(inverted), set)),
            Some(VERDICT_REGISTER) => Some(Statement::Vmap(self.key()?, set)),
            Some(_) => {
                self.looked_up = Some(set);
                None
            }
        })
    }

    fn set_priority(&mut self, data: &Attributes<'_>) -> Option<Statement> {
        let is_priority = data.u32(2) == Some(2);
        match (self.looked_up.take(), &self.loads[..]) {
            _ if !is_priority => None,
            (Some(map), _) => Some(Statement::SetPriority(self.key()?, map)),
            (None, [(_, Load::Zero)]) => Some(Statement::ResetPriority),
            _ => None,
        }
    }

    fn compare(&mut self, data: &Attributes<'_>) -> Option<Statement> {
        let constant = data.nested(3).get(DATA_VALUE)?;
        let is = is(data.u32(2)? != 0);
        let [(_, load)] = self.loads[..] else { return None };
        match (load, self.mask.take()) {
            (Load::Selector(selector), None) => {
                let value = Tuple::from_kernel(constant).values(&[selector.data_type()])?[0];
                Some(Statement::Match(selector, is, value))
            }
            (Load::Selector(selector), Some(mask)) => {
                Some(Statement::MatchNetwork(selector, is, network(constant, &mask)?))
            }
            (Load::Interface(interface), None) => {
                Some(Statement::MatchInterface(interface, is, interface_name(constant)?.into()))
            }
            (Load::ConnectionStatus, Some(mask)) => {
                let is_dnat = mask == IPS_DST_NAT.to_ne_bytes() && is == Is::NotEqual && constant == [0; 4];
                is_dnat.then_some(Statement::Dnatted)
            }
            (Load::ConnectionState, Some(mask)) => {
                let is_invalid =
                    mask == CT_STATE_INVALID.to_ne_bytes() && is == Is::NotEqual && constant == [0; 4];
                is_invalid.then_some(Statement::Invalid)
            }
            (Load::WayBack, None) if constant == [1] && is == Is::Equal => Some(Statement::RoutedBack),
            (Load::AddressType(flags), None) if constant == RTN_LOCAL.to_ne_bytes() && is == Is::Equal => {
                match flags {
                    FIB_DADDR => Some(Statement::ToLocal),
                    FIB_SADDR => Some(Statement::FromLocal),
                    _ => None,
                }
            }
            _ => None,
        }
    }

    fn dynamic_set(&mut self, data: &Attributes<'_>) -> Option<Statement> {
        let map: Name = data.string(1)?.into();
        match (data.u32(3)?, self.hashed) {
            (1, None) => Some(Statement::Note(self.key()?, seconds(data)?, map)),
            (1, Some(first)) => {
                let start = self.loads.iter().position(|(register, _)| *register == first)?;
                let (key, hashed) = self.loads.split_at(start);
                Some(Statement::Update(selectors(key)?, seconds(data)?, selectors(hashed)?, map))
            }
            (2, None) => {
                let mut key = self.key()?;
                (key.pop()? == Selector::Priority).then_some(Statement::Delete(key, map))
            }
            _ => None,
        }
    }
}

/// For how long a packet writes an element (`NFTA_DYNSET_TIMEOUT`).
fn seconds(data: &Attributes<'_>) -> Option<u32> {
    let milliseconds = u64::from_be_bytes(data.get(6)?.try_into().ok()?);
    u32::try_from(milliseconds / 1000).ok()
}

fn selectors(loads: &[(u32, Load)]) -> Option<Vec<Selector>> {
    let selector = |(_, load): &(u32, Load)| match load {
        Load::Selector(selector) => Some(*selector),
        _ => None,
    };
    loads.iter().map(selector).collect()
}

fn is(inverted: bool) -> Is {
    if inverted { Is::NotEqual } else { Is::Equal }
}

fn meta(data: &Attributes<'_>) -> Option<Load> {
    Some(match data.u32(2)? {
        2 => Load::Selector(Selector::Priority),
        6 => Load::Interface(Interface::Input),
        7 => Load::Interface(Interface::Output),
        16 => Load::Selector(Selector::L4Proto),
        _ => return None,
    })
}

fn payload(data: &Attributes<'_>) -> Option<Load> {
    Some(Load::Selector(match (data.u32(2)?, data.u32(3)?, data.u32(4)?) {
        (1, 12, 4) => Selector::Saddr(Family::Ip),
        (1, 16, 4) => Selector::Daddr(Family::Ip),
        (1, 8, 16) => Selector::Saddr(Family::Ip6),
        (1, 24, 16) => Selector::Daddr(Family::Ip6),
        (2, 0, 2) => Selector::Sport,
        (2, 2, 2) => Selector::Dport,
        _ => return None,
    }))
}

fn connection(data: &Attributes<'_>) -> Option<Load> {
    let original = data.get(3) == Some(&[0]);
    Some(match data.u32(2)? {
        CT_STATE => Load::ConnectionState,
        CT_STATUS => Load::ConnectionStatus,
        12 if original => Load::Selector(Selector::OriginalDport),
        20 => Load::Selector(Selector::OriginalDaddr(Family::Ip)),
        22 => Load::Selector(Selector::OriginalDaddr(Family::Ip6)),
        _ => return None,
    })
}

fn zero(data: &Attributes<'_>) -> Option<Load> {
    (data.nested(2).get(DATA_VALUE)? == [0; 4]).then_some(Load::Zero)
}

fn network(address: &[u8], mask: &[u8]) -> Option<IpNetwork> {
    IpNetwork::with_netmask(ip(address)?, ip(mask)?).ok()
}

fn ip(octets: &[u8]) -> Option<IpAddr> {
    let four = <[u8; 4]>::try_from(octets).map(IpAddr::from);
    four.or_else(|_| <[u8; 16]>::try_from(octets).map(IpAddr::from)).ok()
}

/// A name as the kernel compares it: padded where all of it counts, and without an end where only its beginning does.
fn interface_name(constant: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(constant).ok()?;
    Some(match text.trim_end_matches('\0') {
        name if name.len() < text.len() => name.to_owned(),
        prefix => format!("{prefix}*"),
    })
}

#[cfg(test)]
mod tests {
    use super::super::expression::encode;
    use super::super::rule::Verdict;
    use super::super::value::Value;
    use super::*;
    use weft_netlink::attribute::Writer;

    fn decoded(rule: &Rule) -> Result<Rule, String> {
        let mut bytes = Vec::new();
        encode(rule, &mut Writer(&mut bytes));
        decode(Family::Ip6, Attributes(&bytes))
    }

    #[test]
    fn every_statement_reads_back_as_it_was_written() {
        let (map, family) = (Name::from("map"), Family::Ip6);
        let key = vec![
            Selector::Saddr(family),
            Selector::Daddr(family),
            Selector::L4Proto,
            Selector::Sport,
            Selector::Dport,
            Selector::OriginalDaddr(family),
            Selector::OriginalDport,
            Selector::Priority,
            Selector::Random(7),
        ];
        let statements = [
            Statement::Match(Selector::L4Proto, Is::Equal, Value::Protocol(6)),
            Statement::Match(Selector::Dport, Is::NotEqual, Value::Port(80)),
            Statement::MatchNetwork(Selector::Saddr(family), Is::NotEqual, "fd00::/56".parse().unwrap()),
            Statement::MatchNetwork(Selector::Daddr(Family::Ip), Is::Equal, "10.0.0.0/8".parse().unwrap()),
            Statement::MatchInterface(Interface::Input, Is::Equal, "cni0".into()),
            Statement::MatchInterface(Interface::Output, Is::NotEqual, "veth*".into()),
            Statement::Dnatted,
            Statement::Invalid,
            Statement::ToLocal,
            Statement::FromLocal,
            Statement::RoutedBack,
            Statement::Lookup(key.clone(), Is::NotEqual, map.clone()),
            Statement::Vmap(key.clone(), map.clone()),
            Statement::Dnat(family, key.clone(), map.clone()),
            Statement::SetPriority(key[..3].to_vec(), map.clone()),
            Statement::ResetPriority,
            Statement::Update(key[..3].to_vec(), 10_800, key[3..6].to_vec(), map.clone()),
            Statement::Delete(key[..3].to_vec(), map.clone()),
            Statement::Note(key[..3].to_vec(), 86_400, map.clone()),
            Statement::Masquerade,
            Statement::Notrack,
            Statement::Reject(family),
            Statement::Reset,
            Statement::Verdict(Verdict::Goto("elsewhere".into())),
            Statement::Verdict(Verdict::Drop),
        ];
        for statement in &statements {
            let rule = Rule::new([statement.clone()]);
            assert_eq!(decoded(&rule), Ok(rule));
        }
        let all = Rule::new(statements);
        assert_eq!(decoded(&all), Ok(all));
    }

    #[test]
    fn an_expression_that_is_not_ours_is_named() {
        let mut bytes = Vec::new();
        Writer(&mut bytes).nest(1, |writer| writer.string(EXPR_NAME, "counter"));
        assert_eq!(decode(Family::Ip, Attributes(&bytes)), Err("counter".to_owned()));
    }
}
