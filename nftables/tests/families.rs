//! A table of each family against the real kernel and the real `nft`. Runs as root.

#![allow(clippy::unwrap_used, reason = "a test stops at the first thing that goes wrong")]

use std::process::Command;
use std::sync::Arc;

use weft_netlink::netns::Namespace;
use weft_nftables::{
    Base, ChainKind, Change, Client, Data, DataType, Declaration, Device, Expression, Family, Hook, Meta,
    Observed, Operator, PRIORITY_DSTNAT, PRIORITY_RAW, Rule, Set, SetKind, Statement, Table, TableFamily,
    Transaction, Tuple, Value, Verdict, diff,
};

fn address(last: u8) -> Tuple {
    Tuple::new(&[Value::Address(format!("10.0.0.{last}").parse().unwrap())])
}

/// The base chains that only a table of that family has.
fn bases(family: TableFamily) -> Vec<(&'static str, Base)> {
    let ip = [
        ("dstnat", Base::nat(Hook::Prerouting, PRIORITY_DSTNAT)),
        ("marks", Base { kind: ChainKind::Route, ..Base::filter(Hook::Output, -150) }),
        ("raw", Base::filter(Hook::Prerouting, PRIORITY_RAW + 1).dropping()),
    ];
    let lo = Device::new("lo").unwrap();
    match family {
        TableFamily::Ip | TableFamily::Ip6 => ip.to_vec(),
        TableFamily::Inet => [&ip[..], &[("device", Base::filter(Hook::Ingress, 0).on(lo))]].concat(),
        TableFamily::Bridge => vec![
            ("dstnat", Base::filter(Hook::Prerouting, -300)),
            ("forward", Base::filter(Hook::Forward, -199)),
            ("out", Base::filter(Hook::Output, 100).dropping()),
            ("zero", Base::filter(Hook::Input, 0)),
        ],
        TableFamily::Netdev => vec![
            ("egress", Base::filter(Hook::Egress, 0).on(lo)),
            ("ingress", Base::filter(Hook::Ingress, -500).on(lo).dropping()),
        ],
    }
}

/// What makes sure that a packet is one of IPv4, where a table sees others too.
fn is_ipv4(family: TableFamily) -> Option<Statement> {
    match family {
        TableFamily::Ip | TableFamily::Ip6 => None,
        TableFamily::Inet => {
            Some(Statement::compare(Meta::NFPROTO.into(), Operator::Equal, Value::Family(2)))
        }
        TableFamily::Bridge | TableFamily::Netdev => {
            Some(Statement::compare(Meta::PROTOCOL.into(), Operator::Equal, Value::EtherType(0x0800)))
        }
    }
}

fn table(family: TableFamily) -> Table {
    let mut table = Table::new(family, "weft-test");
    let (name, key) = ("pods".into(), vec![DataType::Ipv4Addr]);
    let kind = SetKind::Set;
    let declaration = Declaration { family, table: "weft-test".into(), name, key, kind, comment: None };
    let mut pods = Set::new(Arc::new(declaration));
    pods.elements.insert(address(1), Data::None);
    table.set(pods);
    let rules = match family {
        TableFamily::Ip6 => Vec::new(),
        _ => {
            let pod = vec![Expression::saddr(Family::Ip)];
            let lookup = Statement::lookup(pod, Operator::Equal, "pods".into());
            let own = is_ipv4(family).into_iter();
            let statements: Vec<_> = own.chain([lookup, Statement::Verdict(Verdict::Accept)]).collect();
            vec![Rule::new(statements)]
        }
    };
    table.chain("accept", None, rules);
    for (name, base) in bases(family) {
        let rules = match base.hook {
            Hook::Prerouting | Hook::Ingress => {
                vec![Rule::new([Statement::Verdict(Verdict::Jump("accept".into()))])]
            }
            _ => Vec::new(),
        };
        table.chain(name, Some(base), rules);
    }
    table
}

fn listed(family: TableFamily) -> String {
    let arguments = ["list", "table", &family.to_string(), "weft-test"];
    let output = Command::new("nft").args(arguments).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// The lines of a table without what is only for the eye.
fn lines(text: &str) -> Vec<String> {
    let text = text.replace("elements = {\n\t\t\t", "elements = { ").replace("\n\t\t}\n", " }\n");
    text.lines().map(|line| line.trim().to_owned()).collect()
}

#[test]
fn a_table_of_each_family_is_made_observed_changed_and_deleted() {
    let work = || {
        let mut client = Client::open().unwrap();
        for family in TableFamily::ALL {
            let mut table = table(family);
            let key = [table.key()];
            let planned = |table: &Table| std::slice::from_ref(table).to_vec();
            let transaction = diff(&planned(&table), &Observed::default());
            client.commit(&transaction).unwrap_or_else(|error| panic!("{error}\n{transaction}"));
            let observed = client.observe(&key).unwrap();
            assert_eq!(observed, Observed::of(&planned(&table)), "{family}");
            assert_eq!(diff(&planned(&table), &observed), Transaction::default());
            assert_eq!(lines(&table.to_string()), lines(&listed(family)));
            assert_eq!(client.rules(&key[0]).unwrap().get("accept"), {
                let rules = &table.chains["accept"].rules;
                (!rules.is_empty()).then_some(rules)
            });
            table.sets.get_mut("pods").unwrap().elements.insert(address(2), Data::None);
            let change = diff(&planned(&table), &observed);
            assert!(matches!(change.changes[..], [Change::AddElements(..)]), "{change}");
            client.commit(&change).unwrap();
            assert_eq!(client.observe(&key).unwrap(), Observed::of(&planned(&table)));
            let deletion = diff(&[], &client.observe(&key).unwrap());
            client.commit(&deletion).unwrap();
            assert_eq!(client.observe(&key).unwrap(), Observed::default());
        }
    };
    Namespace::temporary().unwrap().run(work).unwrap();
}

#[test]
fn a_hook_that_a_family_does_not_have_is_refused() {
    let work = || {
        let mut table = Table::new(TableFamily::Netdev, "weft-test");
        table.chain("forward", Some(Base::filter(Hook::Forward, 0)), Vec::new());
        let error = Client::open().unwrap().commit(&diff(&[table], &Observed::default())).unwrap_err();
        assert!(error.to_string().starts_with("cannot add chain netdev weft-test forward"), "{error}");
    };
    Namespace::temporary().unwrap().run(work).unwrap();
}
