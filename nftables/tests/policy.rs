//! A ruleset for network policies, built of this crate's values: its text is what the real `nft` prints of
//! it, and what the kernel holds of it is what was planned. It asks for nearly all that sets, maps and rules
//! can be. Needs root and the nftables package.

#![allow(clippy::unwrap_used, reason = "a test stops at the first thing that goes wrong")]

use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use weft_netlink::netns::Namespace;
use weft_nftables::{
    Base, Client, Ct, Data, DataType, Declaration, Detail, Expression, Family, Field, Hook, Limit, Log,
    Observed, Operand, Operator, PRIORITY_FILTER, Payload, Rule, Set, SetKind, Source, Statement, Table,
    TableKey, Tuple, Value, Verdict, diff,
};

const NAME: &str = "weft-policy";

fn keys() -> [TableKey; 2] {
    Family::BOTH.map(|family| (family.into(), NAME.into()))
}

fn pod(family: Family, last: u8) -> Value {
    Value::Address(match family {
        Family::Ip => format!("10.244.1.{last}").parse().unwrap(),
        Family::Ip6 => format!("fd00:244:1::{last:x}").parse().unwrap(),
    })
}

fn network(family: Family, half: u8) -> Field {
    let text = match (family, half) {
        (Family::Ip, 0) => "192.0.2.0/25",
        (Family::Ip, _) => "192.0.2.128/25",
        (Family::Ip6, 0) => "2001:db8::/65",
        (Family::Ip6, _) => "2001:db8:0:0:8000::/65",
    };
    Field::Network(text.parse().unwrap())
}

/// Puts sets into a table.
struct Sets<'a>(&'a mut Table);

impl Sets<'_> {
    fn add(
        &mut self,
        name: &str,
        key: &[DataType],
        kind: SetKind,
        elements: impl IntoIterator<Item = (Tuple, Data)>,
    ) {
        let Table { family, name: table, .. } = &*self.0;
        let (family, table, name, key) = (*family, table.clone(), name.into(), key.to_vec());
        let declaration = Declaration { family, table, name, key, kind, comment: None };
        let elements = elements.into_iter().collect();
        self.0.set(Set { elements, ..Set::new(Arc::new(declaration)) });
    }
}

fn class(number: u32) -> Data {
    Data::Tuple(Tuple::new(&[Value::ClassId(number)]))
}

fn sets(family: Family, table: &mut Table) {
    use DataType::{ClassId, InetProto, InetService};
    let mut sets = Sets(table);
    let address = DataType::address(family);
    let by_class = SetKind::DataMap(vec![ClassId]);
    let peer = |number: u8| (Tuple::new(&[pod(family, number + 1)]), class(number.into()));
    sets.add("peers", &[address], by_class, [1, 2, 3].map(peer));
    let behind = |half: u8| (Tuple::range(&[network(family, half)]), class(0xf00 + u32::from(half)));
    sets.add("networks", &[address], SetKind::RangeMap(vec![ClassId]), [0, 1].map(behind));
    let own = Tuple::new(&[pod(family, 3), pod(family, 3)]);
    sets.add("self", &[address, address], SetKind::Set, [(own, Data::None)]);
    sets.add("ingress", &[address], SetKind::Set, [(Tuple::new(&[pod(family, 3)]), Data::None)]);
    for name in ["pending", "egress"] {
        sets.add(name, &[address], SetKind::Set, []);
    }
    let returns = || Data::Verdict(Verdict::Return);
    let may = |number, protocol, port| {
        let (class, protocol) = (Value::ClassId(number), Value::Protocol(protocol));
        (Tuple::new(&[pod(family, 3), class, protocol, Value::Port(port)]), returns())
    };
    let whole = [address, ClassId, InetProto, InetService];
    let some = [may(1, 6, 80), may(0xf00, 6, 80), may(1, 17, 53)];
    sets.add("may-enter", &whole, SetKind::VerdictMap, some);
    let any = (Tuple::new(&[pod(family, 3), Value::ClassId(3)]), Data::Verdict(Verdict::Continue));
    sets.add("may-enter-any", &whole[..2], SetKind::VerdictMap, [any]);
    let ports = Field::Range(Value::Port(8000), Value::Port(8010));
    let one = [pod(family, 3), Value::ClassId(1), Value::Protocol(6)].map(Field::One);
    let range = Tuple::range(&[&one[..], &[ports]].concat());
    sets.add("may-enter-range", &whole, SetKind::RangeVerdictMap, [(range, returns())]);
    sets.add("may-leave", &whole, SetKind::VerdictMap, []);
    sets.add("may-leave-any", &whole[..2], SetKind::VerdictMap, []);
    sets.add("may-leave-range", &whole, SetKind::RangeVerdictMap, []);
}

fn jump(chain: &str) -> Statement {
    Statement::Verdict(Verdict::Jump(chain.into()))
}

fn goto(chain: &str) -> Statement {
    Statement::Verdict(Verdict::Goto(chain.into()))
}

fn is_tcp() -> Statement {
    Statement::compare(Expression::L4PROTO, Operator::Equal, Value::Protocol(6))
}

/// Of a connection that did not begin here and now.
fn cut() -> Rule {
    let flags = Operand::Masked { mask: Value::TcpFlags(0x12), value: Value::TcpFlags(0x02) };
    let is_late = Statement::compare(Payload::TCP_FLAGS.into(), Operator::NotEqual, flags);
    Rule::new([is_tcp(), is_late, goto("cut")])
}

/// What a pod may do with a peer at that address.
fn checks(pod: &Expression, peer: &Expression, maps: [&str; 3]) -> Vec<Rule> {
    let [exact, any, range] = maps.map(Into::into);
    let ports = |class: Expression| vec![pod.clone(), class, Expression::L4PROTO, Expression::DPORT];
    let in_order = Expression::PRIORITY.in_network_order();
    vec![
        cut(),
        Rule::new([Statement::reset_priority()]),
        Rule::new([Statement::set_priority(vec![peer.clone()], "networks".into())]),
        Rule::new([Statement::set_priority(vec![peer.clone()], "peers".into())]),
        Rule::new([Statement::Vmap(ports(Expression::PRIORITY), exact)]),
        Rule::new([Statement::Vmap(vec![pod.clone(), Expression::PRIORITY], any), goto("denied")]),
        Rule::new([Statement::Vmap(ports(in_order), range)]),
        Rule::new([goto("denied")]),
    ]
}

fn policy(family: Family) -> Table {
    let mut table = Table::new(family, NAME);
    sets(family, &mut table);
    let (source, destination) = (Expression::saddr(family), Expression::daddr(family));
    let within = |expression: &[&Expression], set: &str, end| {
        let key = expression.iter().map(|it| (*it).clone()).collect();
        Rule::new([Statement::lookup(key, Operator::Equal, set.into()), end])
    };
    let known = Operand::Bits(Value::CtState(2 | 4));
    let known = Statement::compare(Ct::STATE.into(), Operator::Equal, known);
    let forward = vec![
        Rule::new([known, Statement::Verdict(Verdict::Accept)]),
        within(&[&source, &destination], "self", Statement::Verdict(Verdict::Accept)),
        within(&[&source], "pending", Statement::Verdict(Verdict::Drop)),
        within(&[&destination], "pending", Statement::Verdict(Verdict::Drop)),
        within(&[&source], "egress", jump("leave")),
        within(&[&destination], "ingress", jump("enter")),
        within(&[&source], "ingress", goto("late")),
    ];
    table.chain("forward", Some(Base::filter(Hook::Forward, PRIORITY_FILTER)), forward);
    table.chain("late", None, vec![cut()]);
    let reset = Rule::new([is_tcp(), Statement::reset()]);
    table.chain("cut", None, vec![reset, Rule::new([Statement::Verdict(Verdict::Drop)])]);
    let leaving = ["may-leave", "may-leave-any", "may-leave-range"];
    table.chain("leave", None, checks(&source, &destination, leaving));
    let entering = ["may-enter", "may-enter-any", "may-enter-range"];
    table.chain("enter", None, checks(&destination, &source, entering));
    let log = Log { prefix: Some(NAME.into()), group: Some(7), ..Log::default() };
    let limit = Limit { burst: 20, ..Limit::packets(10, 1) };
    let counted = [Statement::Counter { packets: 0, bytes: 0 }, Statement::Verdict(Verdict::Drop)];
    let denied = vec![Rule::new([Statement::Limit(limit), Statement::Log(log)]), Rule::new(counted)];
    table.chain("denied", None, denied);
    table
}

fn listed(table: &Table) -> String {
    let family = table.family.to_string();
    let output = Command::new("nft").args(["list", "table", &family, &table.name]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Its blocks, each with its elements in an order of their own: nft prints chains and sets in the order in
/// which they were made, and many elements to a line.
fn blocks(text: &str) -> Vec<String> {
    let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let mut blocks: Vec<String> = Vec::new();
    for block in text.split("\n\t}\n") {
        let (head, elements) = block.split_once("elements = {").unwrap_or((block, ""));
        let mut elements: Vec<String> = elements
            .trim()
            .trim_end_matches('}')
            .split(',')
            .map(|element| element.split_whitespace().collect::<Vec<_>>().join(" "))
            .collect();
        elements.sort();
        let head = head.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with("table"));
        blocks.push(head.map(str::to_owned).chain(elements).collect::<Vec<_>>().join("\n"));
    }
    assert!(words.starts_with("table "), "{words}");
    blocks.sort();
    blocks
}

fn commit(client: &mut Client, tables: &[Table]) -> usize {
    let keys: Vec<TableKey> = tables.iter().map(Table::key).collect();
    let transaction = diff(tables, &client.observe(&keys).unwrap());
    client.commit(&transaction).unwrap_or_else(|error| panic!("{error}\n{transaction}"));
    transaction.changes.len()
}

#[test]
fn a_ruleset_of_policies_prints_as_nft_prints_it_and_is_held_as_planned() {
    let work = || {
        let mut client = Client::open().unwrap();
        let tables = Family::BOTH.map(policy);
        assert_ne!(commit(&mut client, &tables), 0);
        assert_eq!(client.observe(&keys()).unwrap(), Observed::of(&tables));
        assert_eq!(commit(&mut client, &tables), 0, "it is as planned");
        for table in &tables {
            assert_eq!(blocks(&table.to_string()), blocks(&listed(table)));
            let rules = client.rules(&table.key()).unwrap();
            for (name, chain) in &table.chains {
                assert_eq!(rules[name], chain.rules, "{name}");
            }
        }
    };
    Namespace::temporary().unwrap().run(work).unwrap();
}

#[test]
fn nft_makes_the_same_of_the_text_of_policies() {
    let work = || {
        let tables = Family::BOTH.map(policy);
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("rules");
        std::fs::write(&file, tables.iter().map(Table::to_string).collect::<String>()).unwrap();
        let output = Command::new("nft").arg("-f").arg(&file).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        for table in &tables {
            assert_eq!(blocks(&table.to_string()), blocks(&listed(table)));
            let held = Client::open().unwrap().observe(&[table.key()]).unwrap();
            let planned = Observed::of(std::slice::from_ref(table));
            for (name, set) in &planned.tables[&table.key()].sets {
                assert_eq!(held.tables[&table.key()].sets[name].elements, set.elements, "{name}");
            }
        }
    };
    Namespace::temporary().unwrap().run(work).unwrap();
}

#[test]
fn ranges_of_a_field_change_one_by_one() {
    let work = || {
        let mut client = Client::open().unwrap();
        let mut table = policy(Family::Ip);
        let held = |table: &Table, client: &mut Client| {
            assert_eq!(commit(client, std::slice::from_ref(table)), 0);
            listed(table)
        };
        commit(&mut client, std::slice::from_ref(&table));
        let networks = &mut table.sets.get_mut("networks").unwrap().elements;
        networks.remove(&Tuple::range(&[network(Family::Ip, 0)])).unwrap();
        let last = Field::Network("255.255.255.0/24".parse().unwrap());
        networks.insert(Tuple::range(&[last]), class(7));
        assert_eq!(commit(&mut client, std::slice::from_ref(&table)), 2);
        let text = held(&table, &mut client);
        assert!(text.contains("elements = { 192.0.2.128/25 : 0:f01, 255.255.255.0/24 : 0:7 }"), "{text}");
    };
    Namespace::temporary().unwrap().run(work).unwrap();
}

#[test]
fn elements_have_remarks_and_live_for_a_time() {
    let work = || {
        let mut client = Client::open().unwrap();
        let mut table = Table::new(Family::Ip, NAME);
        let declaration = |name: &str, kind| {
            let (family, table, name) = (Family::Ip.into(), NAME.into(), name.into());
            let key = vec![DataType::Ipv4Addr];
            Set::new(Arc::new(Declaration { family, table, name, key, kind, comment: Some("of a test") }))
        };
        let key = |last| Tuple::new(&[pod(Family::Ip, last)]);
        let comment = |text: &str| Detail { comment: Some(text.into()), timeout: None };
        let mut remarked = declaration("remarked", SetKind::VerdictMap);
        remarked.put(key(1), Data::Verdict(Verdict::Drop), comment("nobody"));
        remarked.put(key(2), Data::Verdict(Verdict::Drop), Detail::default());
        table.set(remarked);
        let mut timed = declaration("timed", SetKind::Timed(SetKind::Set.into(), Some(3600)));
        let timeout = Some(Duration::from_secs(5400));
        timed.put(key(1), Data::None, Detail { timeout, ..comment("for a while") });
        timed.put(key(2), Data::None, Detail::default());
        table.set(timed);
        let kind = SetKind::Timed(SetKind::DataMap(vec![DataType::Mark]).into(), None);
        table.set(declaration("marks", kind));
        commit(&mut client, std::slice::from_ref(&table));
        assert_eq!(commit(&mut client, std::slice::from_ref(&table)), 0);
        let text = listed(&table);
        for part in [
            "10.244.1.1 comment \"nobody\" : drop",
            "timeout 1h\n",
            "10.244.1.1 timeout 1h30m expires 1h",
            "flags timeout\n",
        ] {
            assert!(text.contains(part), "{part:?} is not in\n{text}");
        }
        let remarked = table.sets.get_mut("remarked").unwrap();
        remarked.put(key(2), Data::Verdict(Verdict::Drop), comment("somebody"));
        assert_eq!(commit(&mut client, std::slice::from_ref(&table)), 2);
        assert_eq!(commit(&mut client, std::slice::from_ref(&table)), 0);
        assert!(listed(&table).contains("10.244.1.2 comment \"somebody\" : drop"));
    };
    Namespace::temporary().unwrap().run(work).unwrap();
}

#[test]
fn marks_priorities_and_hashes_are_written_and_read_as_nft_does() {
    let work = || {
        let mut client = Client::open().unwrap();
        let mut table = Table::new(Family::Ip, NAME);
        let (mark, connection) = (Expression::MARK, Expression::CT_MARK);
        let bits = |mask, flipped| Source::Bits { of: Expression::MARK, mask, flipped };
        let hash = weft_nftables::Jhash {
            key: vec![Expression::saddr(Family::Ip), Expression::DPORT],
            modulus: 16,
            seed: 3,
            offset: 5,
        };
        let masked = Operand::Masked { mask: Value::Mark(0xf0), value: Value::Mark(0x10) };
        let flags = Operand::Bits(Value::TcpFlags(1));
        let rules = [
            vec![Statement::assign(mark.clone(), Source::Value(Value::Mark(5)))],
            vec![Statement::assign(connection.clone(), Source::Expression(mark.clone()))],
            vec![Statement::assign(mark.clone(), Source::Expression(connection))],
            vec![Statement::assign(mark.clone(), bits(!0x4000, 0x4000))],
            vec![Statement::assign(mark.clone(), bits(0xffff_00ff, 0x100))],
            vec![Statement::assign(mark.clone(), bits(u32::MAX, 1))],
            vec![Statement::assign(mark.clone(), Source::Expression(hash.into()))],
            vec![Statement::assign(mark.clone(), Source::Expression(Expression::random(5)))],
            vec![Statement::assign(Expression::PRIORITY, Source::Value(Value::ClassId(0x1_0005)))],
            vec![Statement::compare(Expression::PRIORITY, Operator::Equal, Value::ClassId(0x1_0000))],
            vec![Statement::compare(mark, Operator::NotEqual, masked)],
            vec![is_tcp(), Statement::compare(Payload::TCP_FLAGS.into(), Operator::Equal, flags)],
            vec![
                is_tcp(),
                Statement::compare(Payload::TCP_FLAGS.into(), Operator::Equal, Value::TcpFlags(2)),
            ],
            vec![Statement::Notrack],
        ];
        let rules = rules.map(Rule::new).to_vec();
        table.chain("rules", None, rules.clone());
        commit(&mut client, std::slice::from_ref(&table));
        assert_eq!(client.rules(&table.key()).unwrap()["rules"], rules);
        assert_eq!(table.to_string(), listed(&table));
    };
    Namespace::temporary().unwrap().run(work).unwrap();
}
