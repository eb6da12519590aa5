//! What one rule does with a packet, statement by statement, as the kernel's expressions do it.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use weft_nftables::{
    Data, DataType, Family, Interface, Is, Name, Rule, Selector, Set, SetKind, Statement, Table, Tuple,
    Value, Verdict, hash,
};

use super::walk::Walk;
use super::{Applies, Origin, Step};
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
            Statement::Match(selector, is, value) => {
                let found = self.load(*selector);
                compare(found == *value, *is, notes, || format!("{selector} is {found}"))
            }
            Statement::MatchNetwork(selector, is, network) => {
                let found = self.load(*selector);
                let within = matches!(found, Value::Address(address) if network.contains(address));
                compare(within, *is, notes, || format!("{selector} is {found}"))
            }
            Statement::MatchInterface(interface, is, name) => self.interface(*interface, *is, name, notes)?,
            Statement::Dnatted => {
                let rewritten = self.packet.destination != self.original.destination;
                compare(rewritten, Is::Equal, notes, || "the destination was not rewritten".to_owned())
            }
            Statement::Invalid => {
                // A first packet begins a connection, which is never invalid.
                compare(false, Is::Equal, notes, || "it begins a connection".to_owned())
            }
            Statement::ToLocal => self.local(self.packet.destination.ip(), notes),
            Statement::FromLocal => self.local(self.packet.source, notes),
            Statement::RoutedBack => self.routed_back(notes),
            Statement::Lookup(key, is, set) => {
                let found = self.find(table, set, key, notes)?;
                if found.is_some() == (*is == Is::Equal) { Effect::Next } else { Effect::Mismatch }
            }
            Statement::Vmap(key, map) => match self.find(table, map, key, notes)? {
                Some(Data::Verdict(verdict)) => Effect::Verdict(verdict),
                _ => Effect::Mismatch,
            },
            Statement::Dnat(family, key, map) => self.dnat(table, *family, key, map, notes)?,
            Statement::SetPriority(key, map) => {
                match self.values(table, map, key, &[DataType::ClassId], notes)?.as_deref() {
                    Some(&[Value::ClassId(number)]) => self.set_priority(number),
                    _ => Effect::Mismatch,
                }
            }
            Statement::ResetPriority => self.set_priority(0),
            Statement::Update(key, seconds, hashed, map) => {
                self.update(table, map, key, *seconds, hashed, notes)?
            }
            Statement::Note(key, _, set) => self.note(table, set, key, notes)?,
            Statement::Delete(key, map) => self.forget(table, map, key, notes),
            Statement::Masquerade => {
                self.masqueraded = true;
                self.settled.source = true;
                Effect::Verdict(Verdict::Accept)
            }
            Statement::Notrack => return Err("packets that are not tracked are not followed".to_owned()),
            Statement::Reject(_) | Statement::Reset => Effect::Reject,
            Statement::Verdict(verdict) => Effect::Verdict(verdict.clone()),
        })
    }

    fn forget(&mut self, table: &Table, map: &Name, key: &[Selector], notes: &mut Notes) -> Effect {
        let key = self.key(key);
        if self.memory.delete(table.family, map, &key) {
            notes.push(format!("forgotten from @{map}"));
        }
        Effect::Next
    }

    fn load(&mut self, selector: Selector) -> Value {
        match selector {
            Selector::Saddr(_) => Value::Address(self.packet.source),
            Selector::Daddr(_) => Value::Address(self.packet.destination.ip()),
            Selector::L4Proto => Value::Protocol(self.packet.protocol.number()),
            // A client's port may be any; no Service has this one.
            Selector::Sport => Value::Port(0),
            Selector::Dport => Value::Port(self.packet.destination.port()),
            Selector::OriginalDaddr(_) => Value::Address(self.original.destination.ip()),
            Selector::OriginalDport => Value::Port(self.original.destination.port()),
            Selector::Priority => Value::ClassId(self.priority),
            Selector::Random(modulus) => {
                self.choices = modulus.max(1);
                Value::Integer(self.draw % self.choices)
            }
        }
    }

    fn key(&mut self, selectors: &[Selector]) -> Tuple {
        let values: Vec<Value> = selectors.iter().map(|selector| self.load(*selector)).collect();
        Tuple::new(&values)
    }

    fn interface(
        &self,
        interface: Interface,
        is: Is,
        name: &str,
        notes: &mut Notes,
    ) -> Result<Effect, String> {
        let found = match (interface, &self.packet.origin) {
            (Interface::Output, _) => {
                return Err("by which interface packets leave is not known here".to_owned());
            }
            (Interface::Input, Origin::Machine) if self.looped => "lo",
            (Interface::Input, Origin::Machine) => "",
            (Interface::Input, Origin::Interface(Some(found))) => found,
            (Interface::Input, Origin::Interface(None)) => {
                return Err("it asks for the interface; add \"via INTERFACE\" to the packet".to_owned());
            }
        };
        let fits = match name.strip_suffix('*') {
            Some(prefix) => found.starts_with(prefix),
            None => found == name,
        };
        Ok(compare(fits, is, notes, || format!("iifname is {found:?}")))
    }

    /// Whether the packet would leave by the interface that it came by.
    fn routed_back(&self, notes: &mut Notes) -> Effect {
        let way = self.tracer.interface_to(self.packet.destination.ip());
        let came = match &self.packet.origin {
            Origin::Interface(Some(name)) => Some(name),
            // What comes from there comes by the interface that leads there.
            _ => self.tracer.interface_to(self.packet.source),
        };
        let (Some(way), Some(came)) = (way, came) else {
            notes
                .push("taken to leave by the interface that it came by: the routes are not known".to_owned());
            return Effect::Next;
        };
        compare(way == came, Is::Equal, notes, || format!("it came by {came} and leaves by {way}"))
    }

    fn local(&self, address: IpAddr, notes: &mut Notes) -> Effect {
        let is_local = self.tracer.is_local(address);
        compare(is_local, Is::Equal, notes, || format!("{address} is not an address of this machine"))
    }

    /// What a set holds for a concatenation.
    fn find(
        &mut self,
        table: &'a Table,
        name: &Name,
        key: &[Selector],
        notes: &mut Notes,
    ) -> Result<Option<Data>, String> {
        let set = find_set(table, name)?;
        let key = self.key(key);
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
        key: &[Selector],
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
        key: &[Selector],
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
        key: &[Selector],
        notes: &mut Notes,
    ) -> Result<Effect, String> {
        let (set, key) = (find_set(table, set)?, self.key(key));
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
        key: &[Selector],
        seconds: u32,
        hashed: &[Selector],
        notes: &mut Notes,
    ) -> Result<Effect, String> {
        let set = find_set(table, map)?;
        let (key, number) = (self.key(key), hash(&self.key(hashed)));
        let data = Tuple::new(&[Value::ClassId(number)]);
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

/// Whether a comparison lets a packet pass; if not, why.
fn compare(equal: bool, is: Is, notes: &mut Notes, found: impl FnOnce() -> String) -> Effect {
    if equal == (is == Is::Equal) {
        return Effect::Next;
    }
    notes.push(found());
    Effect::Mismatch
}
