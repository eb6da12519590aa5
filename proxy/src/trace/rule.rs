//! What one rule does with a packet, statement by statement, as the kernel's expressions do it.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use weft_nftables::{
    Assign, Ct, Data, DataType, Dynamic, Expression, Family, Fib, Match, Name, Nat, Operand, Operation,
    Operator, Rule, Set, SetKind, Source, Statement, Table, Translation, Tuple, Value, Verdict,
};

use super::walk::Walk;
use super::{Applies, Step};
use crate::error::Error;

/// What a rule, or one statement of it, comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Effect {
    /// On to what follows.
    Next,
    /// It is not for this packet.
    Mismatch,
    Verdict(Verdict),
    Reject,
}

/// What a rule found out, in words.
type Notes = Vec<String>;

impl<'a> Walk<'a> {
    pub(super) fn rule(&mut self, table: &'a Table, chain: &Name, rule: &'a Rule) -> Result<Effect, Error> {
        let (mut effect, mut notes) = (Effect::Next, Notes::new());
        for statement in &rule.statements {
            effect = self.statement(table, statement, &mut notes).map_err(|problem| {
                let rule = format!("the rule `{rule}` of chain {chain}");
                Error::Trace { rule, problem }
            })?;
            if effect != Effect::Next {
                break;
            }
        }
        let applies = if effect == Effect::Mismatch { Applies::No } else { Applies::Yes };
        self.steps.push(Step::Rule { chain: chain.clone(), text: rule.to_string(), applies, notes });
        Ok(effect)
    }

    /// Fails where the statement asks for what is not known.
    fn statement(
        &mut self,
        table: &'a Table,
        statement: &Statement,
        notes: &mut Notes,
    ) -> Result<Effect, String> {
        Ok(match statement {
            Statement::Match(comparison) => self.compare(table, comparison, notes)?,
            Statement::Vmap(key, map) => match self.find(table, map, key, notes)? {
                Some(Data::Verdict(verdict)) => Effect::Verdict(verdict),
                _ => Effect::Mismatch,
            },
            Statement::Nat(Nat::Destination(family, Translation::Map(key, map))) => {
                self.dnat(table, *family, key, map, notes)?
            }
            Statement::Assign(Assign { target: Expression::PRIORITY, source: Source::Map(key, map) }) => {
                match self.values(table, map, key, &[DataType::ClassId], notes)?.as_deref() {
                    Some(&[Value::ClassId(number)]) => self.set_priority(number),
                    _ => Effect::Mismatch,
                }
            }
            Statement::Assign(Assign {
                target: Expression::PRIORITY,
                source: Source::Value(Value::ClassId(number)),
            }) => self.set_priority(*number),
            Statement::Dynamic(Dynamic { operation: Operation::Delete, key, set, .. }) => {
                self.forget(table, set, key, notes)?
            }
            Statement::Dynamic(Dynamic { key, set, data, .. }) if data.is_empty() => {
                self.note(table, set, key, notes)?
            }
            Statement::Dynamic(Dynamic { key, set, data, timeout, .. }) => {
                self.update(table, set, key, timeout.unwrap_or_default(), data, notes)?
            }
            Statement::Nat(Nat::Masquerade { .. }) => {
                self.masqueraded = true;
                self.settled.source = true;
                Effect::Verdict(Verdict::Accept)
            }
            Statement::Notrack => return Err("packets that are not tracked are not followed".to_owned()),
            Statement::Limit(_) => return Err("whether its rate is exceeded is not known here".to_owned()),
            Statement::Log(_) | Statement::Counter { .. } | Statement::FlowAdd(_) => Effect::Next,
            Statement::Reject(_) => Effect::Reject,
            Statement::Verdict(verdict) => Effect::Verdict(verdict.clone()),
            Statement::Nat(_) | Statement::Assign(_) => {
                return Err(format!("what {statement} does is not known here"));
            }
            Statement::Other(words, _) => return Err(format!("what {words} does is not known here")),
        })
    }

    fn forget(
        &mut self,
        table: &Table,
        map: &Name,
        key: &[Expression],
        notes: &mut Notes,
    ) -> Result<Effect, String> {
        let key = self.key(key)?;
        if self.memory.delete(table.family, map, &key) {
            notes.push(format!("forgotten from @{map}"));
        }
        Ok(Effect::Next)
    }

    fn key(&mut self, expressions: &[Expression]) -> Result<Tuple, String> {
        let facts = self.own_facts();
        for expression in expressions {
            if let Expression::Numgen(numgen) = expression {
                self.choices = numgen.modulus.max(1);
            }
        }
        facts.key(expressions).ok_or_else(|| {
            let unknown = expressions.iter().find(|expression| facts.bytes(expression).is_none());
            unknown.map_or_else(|| "it asks for nothing".to_owned(), missing)
        })
    }

    /// Whether a comparison lets the packet pass; if not, the notes say why.
    fn compare(&mut self, table: &'a Table, comparison: &Match, notes: &mut Notes) -> Result<Effect, String> {
        if let Operand::Set(set) = &comparison.value {
            let found = self.find(table, set, &comparison.expression, notes)?;
            let fits = found.is_some() == (comparison.operator == Operator::Equal);
            return Ok(if fits { Effect::Next } else { Effect::Mismatch });
        }
        let Some(expression) = comparison.expression.first() else {
            return Err("it compares nothing".to_owned());
        };
        let facts = self.own_facts();
        match facts.compare(comparison) {
            Some(true) => Ok(Effect::Next),
            Some(false) => {
                notes.push(self.found(expression));
                Ok(Effect::Mismatch)
            }
            None if *expression == Fib::ROUTED_BACK.into() => {
                notes.push(
                    "taken to leave by the interface that it came by: the routes are not known".to_owned(),
                );
                Ok(Effect::Next)
            }
            None => Err(missing(expression)),
        }
    }

    /// What the packet has in place of what a rule asks for, in words.
    fn found(&self, expression: &Expression) -> String {
        let facts = self.own_facts();
        let not_local = |address: IpAddr| format!("{address} is not an address of this machine");
        match expression {
            Expression::Ct(Ct::STATUS) => "the destination was not rewritten".to_owned(),
            // A first packet begins a connection, which is never invalid.
            Expression::Ct(Ct::STATE) => "it begins a connection".to_owned(),
            Expression::Fib(Fib::DADDR_TYPE) => not_local(self.packet.destination.ip()),
            Expression::Fib(Fib::SADDR_TYPE) => not_local(self.packet.source),
            Expression::Fib(Fib::ROUTED_BACK) => {
                let (came, leaves) = self.way();
                let name = |name: Option<Name>| name.unwrap_or_else(|| "nowhere".into());
                format!("it came by {} and leaves by {}", name(came), name(leaves))
            }
            &Expression::IIFNAME => format!("iifname is {:?}", facts.input.unwrap_or_default()),
            _ => {
                let bytes = facts.bytes(expression).unwrap_or_default();
                let value = Tuple::from_kernel(&bytes).values(&[expression.data_type()]);
                let value = value.and_then(|values| values.first().copied());
                value.map_or_else(|| format!("{expression} is {bytes:?}"), |v| format!("{expression} is {v}"))
            }
        }
    }

    /// What a set holds for a concatenation.
    fn find(
        &mut self,
        table: &'a Table,
        name: &Name,
        key: &[Expression],
        notes: &mut Notes,
    ) -> Result<Option<Data>, String> {
        let set = find_set(table, name)?;
        let key = self.key(key)?;
        let remembered;
        let found = match set.declaration.kind {
            // Only packets that begin no connection are asked for what is in it.
            SetKind::ExpiringSet(_) => return Err("what packets wrote is not known here".to_owned()),
            SetKind::ExpiringMap(..) => {
                remembered = self.memory.get(table.family, name, &key).cloned().map(Data::Tuple);
                remembered.as_ref().map(|data| (&key, data))
            }
            _ => set.find(&key),
        };
        notes.push(match found {
            Some((key, data)) => format!("@{name}: {}", set.declaration.element(key, data)),
            None => format!("@{name} has no {}", printed(set, &key)),
        });
        Ok(found.map(|(_, data)| data.clone()))
    }

    /// The values of these types that a map holds for a concatenation.
    fn values(
        &mut self,
        table: &'a Table,
        name: &Name,
        key: &[Expression],
        types: &[DataType],
        notes: &mut Notes,
    ) -> Result<Option<Vec<Value>>, String> {
        match self.find(table, name, key, notes)? {
            Some(Data::Tuple(data)) => Ok(data.values(types)),
            _ => Ok(None),
        }
    }

    /// The kernel notes a rewritten destination only where it differs.
    fn dnat(
        &mut self,
        table: &'a Table,
        family: Family,
        key: &[Expression],
        map: &Name,
        notes: &mut Notes,
    ) -> Result<Effect, String> {
        let types = [DataType::address(family), DataType::InetService];
        let found = self.values(table, map, key, &types, notes)?;
        let Some(&[Value::Address(address), Value::Port(port)]) = found.as_deref() else {
            return Ok(Effect::Mismatch);
        };
        self.packet.destination = SocketAddr::new(address, port);
        self.settled.destination = true;
        Ok(Effect::Verdict(Verdict::Accept))
    }

    /// Of what packets note in sets, no first packet is asked.
    fn note(
        &mut self,
        table: &Table,
        set: &Name,
        key: &[Expression],
        notes: &mut Notes,
    ) -> Result<Effect, String> {
        let (set, key) = (find_set(table, set)?, self.key(key)?);
        notes.push(format!("noted: {}", set.declaration.element(&key, &Data::None)));
        Ok(Effect::Next)
    }

    fn set_priority(&mut self, number: u32) -> Effect {
        self.priority = number;
        Effect::Next
    }

    fn update(
        &mut self,
        table: &'a Table,
        map: &Name,
        key: &[Expression],
        seconds: u32,
        hashed: &[Expression],
        notes: &mut Notes,
    ) -> Result<Effect, String> {
        let set = find_set(table, map)?;
        let (key, data) = (self.key(key)?, self.key(hashed)?);
        let time = Duration::from_secs(seconds.into());
        let held = self.memory.update(table.family, map, key.clone(), data, time).clone();
        notes.push(format!("remembered: {}", set.declaration.element(&key, &Data::Tuple(held))));
        Ok(Effect::Next)
    }
}

fn find_set<'a>(table: &'a Table, name: &Name) -> Result<&'a Set, String> {
    table.sets.get(name).ok_or_else(|| format!("there is no set {name}"))
}

/// A key as nft prints it.
fn printed(set: &Set, key: &Tuple) -> String {
    let values = key.values(&set.declaration.key).unwrap_or_default();
    values.iter().map(ToString::to_string).collect::<Vec<_>>().join(" . ")
}

/// Why what a rule asks for is not known, and what to do.
fn missing(expression: &Expression) -> String {
    match *expression {
        Expression::IIFNAME => "it asks for the interface; add \"via INTERFACE\" to the packet".to_owned(),
        Expression::OIFNAME => "by which interface packets leave is not known here".to_owned(),
        _ => format!("{expression} is not known here"),
    }
}
