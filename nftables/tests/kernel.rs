//! nf_tables against the real kernel, in fresh network namespaces, and against the real `nft` of the machine.
//! Needs root and the nftables package.

#![allow(clippy::unwrap_used, reason = "a test stops at the first thing that goes wrong")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use ipnetwork::IpNetwork;
use nix::errno::Errno;
use weft_netlink::netns::Namespace;
use weft_netlink::notifications::Source;
use weft_nftables::{
    Base, Client, Data, DataType, Declaration, Expression, Family, Field, Hook, Monitor, Observed, Operator,
    PRIORITY_DSTNAT, PRIORITY_FILTER, PRIORITY_RAW, PRIORITY_SRCNAT, Place, Rule, Set, SetKind, Statement,
    Table, TableKey, Transaction, Tuple, Value, Verdict, diff,
};
use weft_testkit::program::run_with_input;
use weft_testkit::wait::eventually;

fn address(family: Family, last: u8) -> Value {
    Value::Address(match family {
        Family::Ip => format!("10.96.0.{last}").parse().unwrap(),
        Family::Ip6 => format!("fd00:96::{last}").parse().unwrap(),
    })
}

fn set(family: Family, name: &str, key: &[DataType], kind: SetKind) -> Set {
    let (family, table, name, key) = (family.into(), "weft-test".into(), name.into(), key.to_vec());
    Set::new(Arc::new(Declaration { family, table, name, key, kind, comment: Some("of a test") }))
}

/// Every kind of set, with elements.
fn sets(family: Family) -> Vec<Set> {
    use DataType::*;
    let ip = DataType::address(family);
    let mut frontends = set(family, "frontends", &[ip, InetProto, InetService], SetKind::VerdictMap);
    let mut endpoints = set(
        family,
        "endpoints",
        &[ip, InetProto, InetService, Integer],
        SetKind::DataMap(vec![ip, InetService]),
    );
    let mut ports = set(family, "ports", &[InetProto, InetService], SetKind::Set);
    let mut addresses = set(family, "addresses", &[ip], SetKind::Set);
    let mut pairs = set(family, "pairs", &[ip, ip], SetKind::Set);
    for (last, protocol) in [(10, 6), (11, 17), (12, 132)] {
        let frontend = [address(family, last), Value::Protocol(protocol), Value::Port(80)];
        let verdict = Data::Verdict(Verdict::Goto("pick-2".into()));
        frontends.elements.insert(Tuple::new(&frontend), verdict);
        for slot in [0, 1] {
            let key = [&frontend[..], &[Value::Integer(slot)]].concat();
            let backend = Data::Tuple(Tuple::new(&[address(family, 100), Value::Port(8080)]));
            endpoints.elements.insert(Tuple::new(&key), backend);
        }
        ports.elements.insert(Tuple::new(&frontend[1..]), Data::None);
        addresses.elements.insert(Tuple::new(&frontend[..1]), Data::None);
        pairs.elements.insert(Tuple::new(&[frontend[0], frontend[0]]), Data::None);
    }
    let mut numbers = set(family, "numbers", &[ip, InetProto], SetKind::DataMap(vec![ClassId]));
    let number = Data::Tuple(Tuple::new(&[Value::ClassId(0x8000_001f)]));
    numbers.elements.insert(Tuple::new(&[address(family, 1), Value::Protocol(6)]), number);
    let mut allowed = set(family, "allowed", &[ip, InetService, ip], SetKind::RangeSet);
    for network in [wide(family), narrow(family)] {
        let fields = [Field::One(address(family, 1)), Field::One(Value::Port(80)), Field::Network(network)];
        allowed.elements.insert(Tuple::range(&fields), Data::None);
    }
    let affinity = set(family, "affinity", &[ip, ClassId], SetKind::ExpiringMap(vec![ClassId], 1024));
    vec![frontends, endpoints, ports, addresses, pairs, numbers, allowed, affinity]
}

fn wide(family: Family) -> IpNetwork {
    match family {
        Family::Ip => "198.51.100.0/24",
        Family::Ip6 => "2001:db8::/32",
    }
    .parse()
    .unwrap()
}

fn narrow(family: Family) -> IpNetwork {
    match family {
        Family::Ip => "203.0.113.7/32",
        Family::Ip6 => "fd00::7/128",
    }
    .parse()
    .unwrap()
}

/// Rules that keep numbers in a packet's priority and in an expiring map, and one over a set of ranges.
fn remember(family: Family) -> Vec<Rule> {
    let number = vec![Expression::original_daddr(family), Expression::L4PROTO];
    let client = vec![Expression::saddr(family), Expression::PRIORITY];
    let endpoint = vec![Expression::daddr(family), Expression::DPORT];
    let source = vec![Expression::daddr(family), Expression::DPORT, Expression::saddr(family)];
    vec![
        Rule::new([
            Statement::compare(Expression::L4PROTO, Operator::Equal, Value::Protocol(6)),
            Statement::set_priority(number, "numbers".into()),
            Statement::Verdict(Verdict::Return),
        ]),
        Rule::new([Statement::set_priority(client.clone(), "affinity".into())]),
        Rule::new([Statement::forget(client.clone(), "affinity".into())]),
        Rule::new([Statement::remember(client, 10_800, endpoint, "affinity".into())]),
        Rule::new([Statement::reset_priority()]),
        Rule::new([
            Statement::lookup(source, Operator::NotEqual, "allowed".into()),
            Statement::Verdict(Verdict::Drop),
        ]),
    ]
}

/// A rule that keeps packets out of connection tracking.
fn untracked(family: Family) -> Rule {
    Rule::new([
        Statement::compare(Expression::saddr(family), Operator::Equal, address(family, 9)),
        Statement::Notrack,
    ])
}

/// A table with every statement and every kind of set.
fn everything(family: Family) -> Table {
    let network = match family {
        Family::Ip => "10.244.0.0/15",
        Family::Ip6 => "fd00:244::/31",
    };
    let network: IpNetwork = network.parse().unwrap();
    let frontend = vec![Expression::daddr(family), Expression::L4PROTO, Expression::DPORT];
    let slot = [&frontend[..], &[Expression::random(2)]].concat();
    let original = [Expression::original_daddr(family), Expression::L4PROTO, Expression::ORIGINAL_DPORT];
    let tcp = Statement::compare(Expression::L4PROTO, Operator::Equal, Value::Protocol(6));
    let mut table = Table::new(family, "weft-test");
    sets(family).into_iter().for_each(|set| table.set(set));
    table.chain("pick-2", None, vec![Rule::new([Statement::dnat(family, slot, "endpoints".into())])]);
    table.chain("refuse", None, vec![Rule::new([Statement::reject(family)]).comment("nobody is there")]);
    table.chain(
        "prerouting",
        Some(Base::nat(Hook::Prerouting, PRIORITY_DSTNAT)),
        vec![Rule::new([Statement::Vmap(frontend, "frontends".into())])],
    );
    table.chain(
        "forward",
        Some(Base::filter(Hook::Forward, PRIORITY_FILTER)),
        vec![
            Rule::new([Statement::compare(Expression::IIFNAME, Operator::Equal, "cni0")]),
            Rule::new([
                Statement::compare(Expression::OIFNAME, Operator::NotEqual, "eth0"),
                Statement::Verdict(Verdict::Return),
            ]),
            Rule::new([tcp.clone(), Statement::fib_daddr_local(), Statement::Verdict(Verdict::Drop)]),
            Rule::new([
                Statement::compare(Expression::daddr(family), Operator::NotEqual, address(family, 9)),
                Statement::Verdict(Verdict::Jump("refuse".into())),
            ]),
        ],
    );
    table.chain("raw", Some(Base::filter(Hook::Prerouting, PRIORITY_RAW)), vec![untracked(family)]);
    table.chain("remember", Some(Base::nat(Hook::Input, PRIORITY_SRCNAT)), remember(family));
    let pair = vec![Expression::saddr(family), Expression::daddr(family)];
    table.chain(
        "postrouting",
        Some(Base::nat(Hook::Postrouting, PRIORITY_SRCNAT)),
        vec![
            Rule::new([
                Statement::ct_status_dnat(),
                Statement::lookup(pair, Operator::Equal, "pairs".into()),
                Statement::masquerade(),
            ]),
            Rule::new([
                tcp,
                Statement::compare(Expression::saddr(family), Operator::NotEqual, network),
                Statement::lookup(original[1..].to_vec(), Operator::Equal, "ports".into()),
                Statement::lookup(original[..1].to_vec(), Operator::NotEqual, "addresses".into()),
                Statement::masquerade(),
            ]),
            Rule::new([
                Statement::compare(Expression::original_daddr(family), Operator::Equal, network),
                Statement::Verdict(Verdict::Accept),
            ]),
        ],
    );
    table
}

fn keys() -> [TableKey; 2] {
    Family::BOTH.map(|family| (family.into(), "weft-test".into()))
}

/// Runs `nft` and returns what it printed.
fn nft(arguments: &[&str], input: &str) -> String {
    run_with_input("nft", arguments, input)
}

/// Commits what leads to these tables and returns how many steps it took.
fn converge(client: &mut Client, tables: &[Table]) -> usize {
    let observed = client.observe(&keys()).unwrap();
    let transaction = diff(tables, &observed);
    client.commit(&transaction).unwrap();
    transaction.changes.len()
}

fn in_fresh_namespace<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    Namespace::temporary().unwrap().run(work).unwrap()
}

#[test]
fn nft_prints_whatever_is_committed_and_prints_it_as_it_was_meant() {
    in_fresh_namespace(|| {
        let tables = Family::BOTH.map(everything);
        converge(&mut Client::open().unwrap(), &tables);
        for table in &tables {
            let listed = nft(&["list", "table", &table.family.to_string(), "weft-test"], "");
            for line in table.to_string().lines().filter(|line| !line.contains(" hook ")) {
                let line = line.trim().trim_end_matches(',');
                assert!(listed.contains(line), "{line:?} is not in\n{listed}");
            }
        }
    });
}

#[test]
fn nft_accepts_the_text_of_a_table_and_of_a_transaction() {
    in_fresh_namespace(|| {
        let mut tables = Family::BOTH.map(everything);
        // nft 1.0.6 itself has too few registers for these with an address of IPv6. What others write it does
        // print.
        let remember = tables[1].chains.get_mut("remember").unwrap();
        remember.rules.retain(|rule| !matches!(rule.statements[..], [Statement::Dynamic(_)]));
        let text: String = tables.iter().map(Table::to_string).collect();
        nft(&["-c", "-f", "-"], &text);
        let transaction = diff(&tables, &Client::open().unwrap().observe(&keys()).unwrap());
        nft(&["-f", "-"], &transaction.to_string());
        let loaded = nft(&["list", "ruleset"], "");
        nft(&["flush", "ruleset"], "");
        converge(&mut Client::open().unwrap(), &tables);
        assert_eq!(nft(&["list", "ruleset"], ""), loaded, "both ways lead to the same");
    });
}

#[test]
fn what_was_committed_is_adopted_without_a_change() {
    in_fresh_namespace(|| {
        let tables = Family::BOTH.map(everything);
        assert_ne!(converge(&mut Client::open().unwrap(), &tables), 0);
        assert_eq!(converge(&mut Client::open().unwrap(), &tables), 0);
    });
}

#[test]
fn rules_read_back_as_they_were_committed_and_what_others_wrote_is_named() {
    in_fresh_namespace(|| {
        let mut client = Client::open().unwrap();
        let tables = Family::BOTH.map(everything);
        converge(&mut client, &tables);
        for (key, table) in keys().iter().zip(&tables) {
            let planned: BTreeMap<_, _> =
                table.chains.iter().map(|(name, chain)| (name.clone(), chain.rules.clone())).collect();
            assert_eq!(client.rules(key).unwrap(), planned);
        }
        nft(&["add rule ip weft-test pick-2 quota over 5 mbytes"], "");
        assert_eq!(
            client.rules(&keys()[0]).unwrap_err().to_string(),
            "cannot read the rules of table ip weft-test: a rule of chain pick-2 has the expression \"quota\", which no \
             part of Weft writes"
        );
    });
}

#[test]
fn what_others_broke_is_put_back_and_nothing_else_is_touched() {
    in_fresh_namespace(|| {
        let mut client = Client::open().unwrap();
        let tables = Family::BOTH.map(everything);
        converge(&mut client, &tables);
        let intact = nft(&["list", "ruleset"], "");
        for (damage, steps) in [
            ("delete element ip weft-test frontends { 10.96.0.10 . tcp . 80 }", 1),
            ("add element ip weft-test addresses { 192.0.2.1 }", 1),
            ("flush map ip6 weft-test endpoints", 1),
            ("flush chain ip weft-test refuse", 1),
            ("add rule ip weft-test pick-2 drop", 2),
            ("add chain ip weft-test strange { drop; }", 2),
            ("add set ip weft-test strange { type ipv4_addr; }", 1),
            ("delete table ip6 weft-test", 40),
        ] {
            nft(&[damage], "");
            assert_eq!(converge(&mut client, &tables), steps, "{damage}");
            assert_eq!(nft(&["list", "ruleset"], ""), intact, "{damage}");
        }
    });
}

#[test]
fn a_table_of_another_layout_is_replaced_in_one_transaction() {
    in_fresh_namespace(|| {
        let mut client = Client::open().unwrap();
        let tables = Family::BOTH.map(everything);
        nft(&["add table ip weft-test { map frontends { type ipv4_addr : verdict; }; }"], "");
        nft(&["add table ip weft-test { chain forward { type filter hook input priority 5; }; }"], "");
        converge(&mut client, &tables);
        assert_eq!(converge(&mut client, &tables), 0);
    });
}

#[test]
fn a_refused_transaction_names_the_change_and_leaves_everything_as_it_was() {
    in_fresh_namespace(|| {
        let mut client = Client::open().unwrap();
        let tables = [everything(Family::Ip)];
        converge(&mut client, &tables);
        let frontends = tables[0].sets["frontends"].declaration.clone();
        let key = Tuple::new(&[address(Family::Ip, 77), Value::Protocol(6), Value::Port(1)]);
        let verdict = Data::Verdict(Verdict::Goto("pick-2".into()));
        let mut transaction = Transaction::default();
        transaction.add_elements(&frontends, vec![(key.clone(), verdict)]);
        transaction.delete_elements(
            &tables[0].sets["addresses"].declaration,
            vec![(Tuple::new(&[address(Family::Ip, 99)]), Data::None)],
        );
        let error = client.commit(&transaction).unwrap_err();
        assert!(
            error.to_string().starts_with("cannot delete 1 element(s) of set ip weft-test addresses"),
            "{error}"
        );
        assert_eq!(converge(&mut client, &tables), 0);
    });
}

#[test]
fn a_monitor_tells_the_transactions_that_touched_its_table_and_whose_they_were() {
    in_fresh_namespace(|| {
        let mut client = Client::open().unwrap();
        let mut monitor = Monitor::open(["weft-test", "weft-second"]).unwrap();
        nft(&["add table ip other { chain x { drop; }; }"], "");
        let [others] = &monitor.read().unwrap()[..] else { panic!("one transaction") };
        assert!(others.others && others.tables.is_empty(), "{others:?}");
        nft(&["add table ip weft-second { chain x { drop; }; }"], "");
        let [second] = &monitor.read().unwrap()[..] else { panic!("one transaction") };
        assert!(!second.others && second.tables.iter().eq([&"weft-second".into()]), "{second:?}");
        let tables = Family::BOTH.map(everything);
        let own = client.load(&diff(&tables, &Default::default())).unwrap();
        let announced = monitor.read().unwrap();
        assert!(announced.iter().map(|announcement| announcement.number).eq(own.clone()));
        let thread = std::fs::read_to_string("/proc/thread-self/comm").unwrap();
        assert_eq!(announced[0].author.program, thread.trim_end());
        assert_eq!(own.len(), 1, "small enough for one part");
        assert!(client.load(&Transaction::default()).unwrap().is_empty());
        nft(&["delete element ip weft-test frontends { 10.96.0.10 . tcp . 80 }"], "");
        nft(&["flush ruleset"], "");
        let foreign = monitor.read().unwrap();
        let frontends = Place { table: "weft-test".into(), set: Some("frontends".into()) };
        assert!(foreign[0].places.contains(&frontends), "{foreign:?}");
        assert_eq!(foreign.len(), 2);
        assert!(foreign.iter().all(|announcement| !own.contains(&announcement.number)));
        for author in foreign.iter().map(|announcement| announcement.author.to_string()) {
            assert!(author.starts_with("nft (process ") && !author.contains("process 0"), "{author}");
        }
    });
}

#[test]
fn a_held_table_goes_with_its_client_and_nobody_else_can_change_it() {
    in_fresh_namespace(|| {
        let mut holder = Client::open().unwrap();
        let table = everything(Family::Ip);
        let mut transaction = Transaction::default();
        transaction.hold_table(&table);
        holder.commit(&transaction).unwrap();
        assert!(transaction.to_string().starts_with("add table ip weft-test { flags owner; }\n"));

        let mut other = Client::open().unwrap();
        let observed = other.observe(&keys()).unwrap();
        assert!(observed.tables[&keys()[0]].is_held());
        let mut model = Observed::default();
        model.apply(&transaction).unwrap();
        assert_eq!(observed, model);
        let error = other.commit(&transaction).unwrap_err();
        assert!(matches!(error.errno(), Some(Errno::EPERM | Errno::EEXIST)), "{error}");
        nft(&["flush", "ruleset"], "");
        assert!(holder.has_rules(&table).unwrap());

        drop(holder);
        // A program that another test starts at this moment holds the socket until it runs.
        eventually("the table went", || other.observe(&keys()).unwrap().tables.is_empty());
        other.commit(&transaction).unwrap();
    });
}

#[test]
fn a_set_that_is_full_refuses_more_and_is_replaced_while_all_others_stay() {
    in_fresh_namespace(|| {
        let mut client = Client::open().unwrap();
        let mut table = everything(Family::Ip);
        let fill = |table: &mut Table, count: u32| {
            let address = |number| Value::Address(std::net::Ipv4Addr::from(0x0a60_0000 + number).into());
            let addresses = &mut table.sets.get_mut("addresses").unwrap().elements;
            *addresses = (0..count).map(|number| (Tuple::new(&[address(number)]), Data::None)).collect();
        };
        let load = |client: &mut Client, table: &Table| {
            let observed = client.observe(&keys()).unwrap();
            let mut transaction = diff(std::slice::from_ref(table), &observed);
            transaction.make_room();
            client.commit(&transaction).unwrap();
            transaction
        };
        fill(&mut table, 1000);
        load(&mut client, &table);
        assert!(nft(&["list", "set", "ip", "weft-test", "addresses"], "").contains("size 2048"));
        nft(&["add element ip weft-test affinity { 192.0.2.1 . 0:1 : 0:2 }"], "");

        fill(&mut table, 3000);
        let observed = client.observe(&keys()).unwrap();
        let addresses = table.sets["addresses"].declaration.clone();
        let mut too_many = Transaction::default();
        let new = table.sets["addresses"].elements.iter();
        too_many.add_elements(&addresses, new.map(|(key, data)| (key.clone(), data.clone())).collect());
        client.commit(&too_many).unwrap_err();
        assert_eq!(client.observe(&keys()).unwrap(), observed);

        load(&mut client, &table);
        assert_eq!(converge(&mut client, &[table]), 0);
        assert!(nft(&["list", "set", "ip", "weft-test", "addresses"], "").contains("size 8192"));
        assert!(nft(&["list", "map", "ip", "weft-test", "affinity"], "").contains("192.0.2.1 . 0:1"));
    });
}

#[test]
fn ten_thousand_services_fit_into_one_transaction() {
    in_fresh_namespace(|| {
        let mut client = Client::open().unwrap();
        let mut table = everything(Family::Ip);
        let (mut frontends, mut endpoints) = (BTreeMap::new(), BTreeMap::new());
        for service in 0..10_000u32 {
            let address = Value::Address(std::net::Ipv4Addr::from(0x0a60_0000 + service).into());
            let frontend = [address, Value::Protocol(6), Value::Port(80)];
            let verdict = Data::Verdict(Verdict::Goto("pick-2".into()));
            frontends.insert(Tuple::new(&frontend), verdict);
            for slot in [0, 1] {
                let key = Tuple::new(&[&frontend[..], &[Value::Integer(slot)]].concat());
                endpoints.insert(key, Data::Tuple(Tuple::new(&[address, Value::Port(8080)])));
            }
        }
        table.sets.get_mut("frontends").unwrap().elements = frontends;
        table.sets.get_mut("endpoints").unwrap().elements = endpoints;
        let transaction = diff(std::slice::from_ref(&table), &Default::default());
        let start = Instant::now();
        client.commit(&transaction).unwrap();
        println!("10,000 services x 2 endpoints: {:?} from transaction to committed", start.elapsed());
        let start = Instant::now();
        assert_eq!(converge(&mut client, &[table]), 0);
        println!("observed and found equal in {:?}", start.elapsed());
    });
}
