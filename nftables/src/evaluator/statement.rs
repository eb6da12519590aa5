//! What one statement of a rule does with a packet, as the kernel's expressions do it.

use std::borrow::Cow;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use weft_netlink::Family;

use super::ruleset::{Tracking, Walk};
use super::{Decision, Facts, Guide, Note};
use crate::expression::{Ct, Expression, Meta};
use crate::hook::Hook;
use crate::known::{KnownTable, Printed};
use crate::rule::{
    Assign, Dynamic, Effect, Match, Nat, Operand, Operation, Operator, Source, Statement, Translation,
    Verdict, Xt, native,
};
use crate::table::Base;
use crate::value::{DataType, Name, Tuple, Value};

/// `IPS_SRC_NAT`, `IPS_DST_NAT`, bits of a connection's status.
const STATUS_SNAT: u32 = 16;
const STATUS_DNAT: u32 = 32;
/// `NF_CT_STATE_INVALID_BIT`, which a packet has before connection tracking, and `NF_CT_STATE_UNTRACKED_BIT`.
const STATE_INVALID: u32 = 1;
const STATE_UNTRACKED: u32 = 64;

/// Where a rule stands.
#[derive(Clone, Copy)]
pub(super) struct Place<'a> {
    pub(super) table: &'a KnownTable,
    pub(super) chain: &'a Name,
    /// How the kernel called the chain that led here.
    pub(super) base: Base,
}

/// A rule that is asked.
pub(super) struct Asked<'a, 'g> {
    pub(super) place: Place<'a>,
    pub(super) guide: &'g mut dyn Guide,
    pub(super) notes: Vec<Note>,
    /// What it asked for first of what is not known.
    pub(super) missing: Option<Expression>,
    /// All that it asked for so far is known.
    pub(super) is_certain: bool,
}

/// What a statement comes to.
pub(super) enum Fits {
    Yes,
    No,
    /// What it asks for is not known.
    Perhaps,
    Decides(Decision),
}

/// What a set has for a key.
struct Held {
    verdict: Option<Verdict>,
    data: Option<Vec<u8>>,
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

fn types(key: &[Expression]) -> Vec<DataType> {
    key.iter().map(Expression::data_type).collect()
}

impl Walk<'_> {
    pub(super) fn statement(&mut self, statement: &Statement, asked: &mut Asked<'_, '_>) -> Fits {
        match statement {
            Statement::Match(comparison) => self.compare(comparison, asked).unwrap_or_else(|fits| fits),
            Statement::Vmap(key, map) => match self.look_up(map, key, &[], asked) {
                Ok(Some(Held { verdict: Some(Verdict::Continue), .. })) => Fits::Yes,
                Ok(Some(Held { verdict: Some(verdict), .. })) => Fits::Decides(Decision::Verdict(verdict)),
                Ok(Some(_)) | Err(Fits::Perhaps) => Fits::Decides(Decision::Unknown),
                Ok(None) => Fits::No,
                Err(fits) => fits,
            },
            Statement::Nat(nat) => self.nat(nat, asked).unwrap_or_else(|fits| fits),
            Statement::Assign(assign) => self.assign(assign, asked),
            Statement::Dynamic(dynamic) => self.write(dynamic, asked).unwrap_or_else(|fits| fits),
            Statement::Notrack => {
                match asked.is_certain {
                    // Where connection tracking saw the packet, it is too late.
                    true if self.tracking == Tracking::NotYet => self.tracking = Tracking::Never,
                    true => {}
                    false => (self.facts.state, self.facts.status) = (None, None),
                }
                Fits::Yes
            }
            Statement::Verdict(Verdict::Continue) => Fits::Yes,
            Statement::Verdict(verdict) => Fits::Decides(Decision::Verdict(verdict.clone())),
            Statement::Xt(xt) => match native(xt) {
                Some(native) => self.statement(&native, asked),
                None => self.xt(xt, asked),
            },
            Statement::Reject(_) | Statement::Other(_, Effect::Rejects) => Fits::Decides(Decision::Reject),
            Statement::Other(how, Effect::Translates) => {
                match &**how {
                    "MASQUERADE" | "SNAT" if asked.is_certain => self.masquerade(),
                    // To where is not known.
                    _ => asked.is_certain = false,
                }
                Fits::Decides(Decision::Translate(how.clone()))
            }
            Statement::Limit(_) | Statement::Other(_, Effect::Matches) => Fits::Perhaps,
            Statement::Other(_, Effect::Unknown) => Fits::Decides(Decision::Unknown),
            Statement::Other(_, Effect::Continues)
            | Statement::Log(_)
            | Statement::Counter { .. }
            | Statement::FlowAdd(_) => Fits::Yes,
        }
    }

    /// What iptables alone has.
    fn xt(&mut self, xt: &Xt, asked: &Asked<'_, '_>) -> Fits {
        match (xt, self.facts.draw) {
            (Xt::Statistic(_), None) => Fits::Perhaps,
            (Xt::Statistic(_), Some(draw)) => {
                // Rules that choose among so many ask one after the other, each with one less: of all numbers
                // below the first one's, each passes another one.
                let choices = xt.once_in_how_many();
                self.choices = self.choices.max(choices);
                Fits::of(Some(draw.is_multiple_of(choices)))
            }
            (Xt::Recent(_, list, seconds), _) => {
                let within = Duration::from_secs(u64::from(*seconds));
                let is_listed = |source| self.memory.is_listed(list, source, within);
                Fits::of(self.facts.source.and_then(is_listed))
            }
            (Xt::Remember(_, list), _) => {
                match self.facts.source {
                    Some(source) if asked.is_certain => self.memory.list(list, source),
                    Some(source) => self.memory.list_sometime(list, source),
                    None => {}
                }
                Fits::Yes
            }
            _ => Fits::Yes,
        }
    }

    /// What is known of the packet, as rules find it there.
    fn seen(&self) -> Cow<'_, Facts> {
        let state = match self.tracking {
            Tracking::Tracked => return Cow::Borrowed(&self.facts),
            Tracking::NotYet => STATE_INVALID,
            Tracking::Never => STATE_UNTRACKED,
        };
        Cow::Owned(Facts { state: Some(state), ..self.facts.clone() })
    }

    /// What a concatenation reads. Without a connection nothing is found of it but its state, and the rule
    /// does not apply.
    fn key(&mut self, expressions: &[Expression], asked: &mut Asked<'_, '_>) -> Result<Tuple, Fits> {
        let asks_connection =
            |expression: &Expression| matches!(expression, Expression::Ct(ct) if *ct != Ct::STATE);
        if self.tracking != Tracking::Tracked && expressions.iter().any(asks_connection) {
            return Err(Fits::No);
        }
        let facts = self.seen();
        let Some(key) = facts.key(expressions) else {
            let missing = expressions.iter().find(|expression| facts.bytes(expression).is_none());
            asked.missing = asked.missing.take().or(missing.cloned());
            return Err(Fits::Perhaps);
        };
        for expression in expressions {
            if let (Expression::Numgen(numgen), Some(draw)) = (expression, self.facts.draw) {
                self.facts.draw = Some(draw / numgen.modulus.max(1));
                self.choices = self.choices.saturating_mul(numgen.modulus.max(1));
            }
        }
        Ok(key)
    }

    /// What a set holds for a concatenation; `data` are the types of what it holds.
    fn look_up(
        &mut self,
        name: &Name,
        key: &[Expression],
        data: &[DataType],
        asked: &mut Asked<'_, '_>,
    ) -> Result<Option<Held>, Fits> {
        let key_types = types(key);
        let key = self.key(key, asked)?;
        let table = asked.place.table.key();
        let set = asked.place.table.sets.get(name).ok_or(Fits::Perhaps)?;
        if self.changed.contains(&(table.clone(), name.clone())) {
            return Err(Fits::Perhaps);
        }
        let remembered;
        let found = if set.is_remembered {
            remembered = self.memory.get(&table, name, &key).map(|data| data.bytes().to_vec());
            remembered.as_ref().map(|data| (key.bytes(), None, None, Some(data)))
        } else {
            let element = set.find(key.bytes()).ok_or(Fits::Perhaps)?;
            element.map(|it| (&it.key[..], it.last.as_deref(), it.verdict.as_ref(), it.data.as_ref()))
        };
        let printed = |key, last, verdict, held: Option<&Vec<u8>>| {
            let data = held.map(|held| (&held[..], data));
            Printed { key, last, types: &key_types, verdict, data }.to_string()
        };
        asked.notes.push(match found {
            Some((key, last, verdict, held)) => Note::Found(name.clone(), printed(key, last, verdict, held)),
            None => Note::Missing(name.clone(), printed(key.bytes(), None, None, None)),
        });
        Ok(found.map(|(_, _, verdict, data)| Held { verdict: verdict.cloned(), data: data.cloned() }))
    }

    /// The bytes that a map holds for a concatenation. Without an element the rule does not apply.
    fn data(
        &mut self,
        map: &Name,
        key: &[Expression],
        data: &[DataType],
        asked: &mut Asked<'_, '_>,
    ) -> Result<Vec<u8>, Fits> {
        self.look_up(map, key, data, asked)?.ok_or(Fits::No)?.data.ok_or(Fits::Perhaps)
    }

    fn compare(&mut self, comparison: &Match, asked: &mut Asked<'_, '_>) -> Result<Fits, Fits> {
        if let Operand::Set(set) = &comparison.value {
            let found = self.look_up(set, &comparison.expression, &[], asked)?;
            return Ok(Fits::of(Some(found.is_some() == (comparison.operator == Operator::Equal))));
        }
        let expression = comparison.expression.first().ok_or(Fits::Perhaps)?;
        let found = self.key(std::slice::from_ref(expression), asked)?;
        let holds = comparison.holds(found.bytes());
        if holds == Some(false) {
            asked.notes.push(Note::Differs(expression.clone()));
        }
        Ok(Fits::of(holds))
    }

    /// Writes what a rule writes. What it perhaps writes is not known afterwards.
    fn assign(&mut self, assign: &Assign, asked: &mut Asked<'_, '_>) -> Fits {
        let (value, fits) = match self.assigned(assign, asked) {
            Ok(value) => (Some(value).filter(|_| asked.is_certain), Fits::Yes),
            Err(Fits::Perhaps) if !matches!(assign.source, Source::Map(..)) => (None, Fits::Yes),
            Err(Fits::Perhaps) => (None, Fits::Perhaps),
            Err(fits) => return fits,
        };
        match assign.target {
            Expression::Meta(Meta::PRIORITY) => self.facts.priority = value,
            Expression::Meta(Meta::MARK) => self.facts.mark = value,
            Expression::Ct(Ct::MARK) => self.facts.connection_mark = value,
            _ => {}
        }
        fits
    }

    fn assigned(&mut self, assign: &Assign, asked: &mut Asked<'_, '_>) -> Result<u32, Fits> {
        let number = |bytes: &[u8]| bytes.try_into().map(u32::from_ne_bytes).map_err(|_| Fits::Perhaps);
        let mut read = |expression: &Expression| self.key(std::slice::from_ref(expression), asked);
        match &assign.source {
            Source::Value(value) => number(Tuple::new(&[*value]).bytes()),
            Source::Expression(expression) => number(read(expression)?.bytes()),
            Source::Bits { of, mask, flipped } => Ok(number(read(of)?.bytes())? & mask ^ flipped),
            Source::Map(key, map) => number(&self.data(map, key, &[assign.target.data_type()], asked)?),
        }
    }

    /// Changes an element of a set. What is in a set that nobody remembers is not known afterwards.
    fn write(&mut self, dynamic: &Dynamic, asked: &mut Asked<'_, '_>) -> Result<Fits, Fits> {
        let table = asked.place.table;
        let key = self.key(&dynamic.key, asked);
        let is_remembered = table.sets.get(&dynamic.set).is_some_and(|set| set.is_remembered);
        let (Ok(key), true) = (&key, asked.is_certain) else {
            self.changed.insert((table.key(), dynamic.set.clone()));
            return key.map(|_| Fits::Yes);
        };
        let key_types = types(&dynamic.key);
        let printed = |data| Printed { key: key.bytes(), last: None, types: &key_types, verdict: None, data };
        let name = dynamic.set.clone();
        if !is_remembered {
            self.changed.insert((table.key(), name.clone()));
        }
        if dynamic.operation == Operation::Delete {
            if !is_remembered || self.memory.delete(&table.key(), &name, key) {
                asked.notes.push(Note::Deleted(name, printed(None).to_string()));
            }
            return Ok(Fits::Yes);
        }
        let data_types = types(&dynamic.data);
        let data = if dynamic.data.is_empty() { None } else { Some(self.key(&dynamic.data, asked)?) };
        let held = match data {
            Some(data) if is_remembered => {
                let time = Duration::from_secs(dynamic.timeout.unwrap_or_default().into());
                Some(self.memory.update(&table.key(), &name, key.clone(), data, time).clone())
            }
            data => data,
        };
        let data = held.as_ref().map(|data| (data.bytes(), &data_types[..]));
        asked.notes.push(Note::Wrote(name, printed(data).to_string()));
        Ok(Fits::Yes)
    }

    /// Rewrites an address.
    fn nat(&mut self, nat: &Nat, asked: &mut Asked<'_, '_>) -> Result<Fits, Fits> {
        let how = match nat {
            Nat::Source(..) | Nat::Masquerade { .. } => "masq",
            Nat::Destination(..) | Nat::Redirect { .. } => "nat",
        };
        match self.translate(nat, asked) {
            Err(Fits::Perhaps) => asked.is_certain = false,
            Err(fits) => return Err(fits),
            Ok(()) => {}
        }
        Ok(Fits::Decides(Decision::Translate(how.into())))
    }

    fn translate(&mut self, nat: &Nat, asked: &mut Asked<'_, '_>) -> Result<(), Fits> {
        let (Nat::Source(family, to) | Nat::Destination(family, to)) = nat else {
            let Nat::Redirect { port } = nat else {
                if asked.is_certain {
                    self.masquerade();
                }
                return Ok(());
            };
            let loopback = match self.family {
                Family::Ip => Ipv4Addr::LOCALHOST.into(),
                Family::Ip6 => Ipv6Addr::LOCALHOST.into(),
            };
            let is_own = asked.place.base.hook == Hook::Output;
            let address = if is_own { Some(loopback) } else { self.facts.input_address };
            let address = address.filter(|_| asked.is_certain).ok_or(Fits::Perhaps)?;
            self.set_destination(address, *port, asked);
            return Ok(());
        };
        let (address, port) = self.translation(*family, to, asked)?;
        if !asked.is_certain {
            return Err(Fits::Perhaps);
        }
        match nat {
            Nat::Source(..) => {
                self.facts.source = Some(address);
                self.facts.source_port = port.or(self.facts.source_port);
                self.settle_source();
            }
            _ => self.set_destination(address, port, asked),
        }
        Ok(())
    }

    fn translation(
        &mut self,
        family: Family,
        to: &Translation,
        asked: &mut Asked<'_, '_>,
    ) -> Result<(IpAddr, Option<u16>), Fits> {
        let address = DataType::address(family);
        let (key, map, types) = match to {
            Translation::To(address, port) => return Ok((*address, *port)),
            Translation::Map(key, map) => (key, map, &[address, DataType::InetService][..]),
            Translation::AddressMap(key, map) => (key, map, &[address][..]),
        };
        let bytes = self.data(map, key, types, asked)?;
        match Tuple::from_kernel(&bytes).values(types).as_deref() {
            Some(&[Value::Address(to), Value::Port(port)]) => Ok((to, Some(port))),
            Some(&[Value::Address(to)]) => Ok((to, None)),
            _ => Err(Fits::Perhaps),
        }
    }

    /// The kernel notes a rewritten destination only where it differs.
    fn set_destination(&mut self, address: IpAddr, port: Option<u16>, asked: &mut Asked<'_, '_>) {
        let facts = &mut self.facts;
        let before = (facts.destination, facts.destination_port);
        if let (None, (Some(address), Some(port))) = (facts.original_destination, before) {
            facts.original_destination = Some(SocketAddr::new(address, port));
        }
        facts.destination = Some(address);
        facts.destination_port = port.or(facts.destination_port);
        if before != (facts.destination, facts.destination_port) {
            facts.status = facts.status.map(|status| status | STATUS_DNAT);
            facts.routed_back = None;
            // Which addresses are the machine's own is not known here.
            facts.destination_is_local = address.is_loopback().then_some(true);
            asked.guide.rewritten(facts);
        }
        self.settled[0] = true;
    }

    /// To which address the routes decide.
    fn masquerade(&mut self) {
        self.facts.source = None;
        self.facts.source_port = None;
        self.settle_source();
    }

    fn settle_source(&mut self) {
        self.facts.status = self.facts.status.map(|status| status | STATUS_SNAT);
        self.settled[1] = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evaluator::{Applies, Fate, Lost, Ruleset, Step};
    use crate::family::TableFamily;
    use crate::rule::{Limit, Rule};
    use crate::table::{PRIORITY_RAW, Table};

    #[derive(Default)]
    struct Told(Vec<(Applies, Option<Decision>)>);

    impl Guide for Told {
        fn step(&mut self, step: Step<'_>) {
            if let Step::Rule { applies, decision, .. } = step {
                self.0.push((applies, decision.cloned()));
            }
        }

        fn doubt(&mut self, _: &crate::evaluator::Doubt<'_>) -> Result<(), Lost> {
            Ok(())
        }
    }

    /// What is told of a rule, for a packet to port 80 over TCP.
    fn told(statements: impl Into<Vec<Statement>>) -> (Applies, Option<Decision>) {
        let mut table = Table::new(TableFamily::Inet, "x");
        table.chain("input", Some(Base::filter(Hook::Input, 0)), vec![Rule::new(statements)]);
        let facts = Facts { protocol: Some(6), destination_port: Some(80), ..Facts::default() };
        let mut told = Told::default();
        Ruleset::new([&table]).follow(Family::Ip, facts).guided(Hook::Input, &mut told).unwrap();
        told.0.remove(0)
    }

    #[test]
    fn a_rule_decides_only_where_all_of_it_applies_and_certainly_only_where_all_of_it_is_known() {
        let drop = || Statement::Verdict(Verdict::Drop);
        let dropped = || Some(Decision::Verdict(Verdict::Drop));
        let port = |operator, port| Statement::compare(Expression::DPORT, operator, Value::Port(port));
        assert_eq!(told([port(Operator::Equal, 80), drop()]), (Applies::Yes, dropped()));
        assert_eq!(told([port(Operator::Less, 80), drop()]), (Applies::No, None));
        assert_eq!(told([port(Operator::AtLeast, 256), drop()]), (Applies::No, None));
        let limit = Statement::Limit(Limit::packets(1, 1));
        assert_eq!(told([limit.clone(), drop()]), (Applies::Unknown, dropped()));
        // What does not apply does not, whatever else is not known.
        assert_eq!(told([limit, port(Operator::NotEqual, 80), drop()]), (Applies::No, None));
        let from = Statement::compare(Expression::SPORT, Operator::Equal, Value::Port(1));
        assert_eq!(told([from, drop()]), (Applies::Unknown, dropped()), "its source port is not known");
    }

    #[test]
    fn what_is_not_known_at_the_end_of_a_rule_may_decide() {
        let quota = || Statement::Other("quota".into(), Effect::Unknown);
        assert_eq!(told([quota()]), (Applies::Unknown, Some(Decision::Unknown)));
        let log = Statement::Other("log".into(), Effect::Continues);
        assert_eq!(told([quota(), log]), (Applies::Unknown, None));
        let vmap = Statement::Vmap(vec![Expression::DPORT], "gone".into());
        assert_eq!(told([vmap]), (Applies::Unknown, Some(Decision::Unknown)), "its map was not read");
    }

    #[test]
    fn what_is_not_tracked_has_no_connection_and_meets_no_nat() {
        let state =
            |bits| Statement::compare(Ct::STATE.into(), Operator::Equal, Operand::Bits(Value::CtState(bits)));
        let drop = Statement::Verdict(Verdict::Drop);
        let mut table = Table::new(Family::Ip, "x");
        let raw = Base::filter(Hook::Prerouting, PRIORITY_RAW);
        table.chain("raw", Some(raw), vec![Rule::new([Statement::Notrack])]);
        let redirect = Statement::Nat(Nat::Redirect { port: Some(1) });
        table.chain("nat", Some(Base::nat(Hook::Prerouting, -100)), vec![Rule::new([redirect])]);
        let rules = vec![
            Rule::new([state(8), drop.clone()]),
            Rule::new([Statement::ct_status_dnat(), drop.clone()]),
            Rule::new([state(STATE_UNTRACKED), Statement::reject(Family::Ip)]),
        ];
        table.chain("filter", Some(Base::filter(Hook::Prerouting, 0)), rules);
        let facts = || Facts { state: Some(8), status: Some(0), ..Facts::default() };
        let follow = |table: &Table| Ruleset::new([table]).follow(Family::Ip, facts()).hook(Hook::Prerouting);
        assert_eq!(follow(&table), Ok(Fate::Rejected));
        table.chains.remove("raw");
        table.chains.remove("nat");
        assert_eq!(follow(&table), Ok(Fate::Dropped), "it begins a connection");
    }
}
