//! Elements with owners, in sets of ranges, against the real kernel and the real `nft`. Runs as root.

#![allow(clippy::unwrap_used, reason = "a test stops at the first thing that goes wrong")]

use std::process::Command;
use std::sync::Arc;

use nix::errno::Errno;
use weft_netlink::netns::Namespace;
use weft_nftables::{
    Base, Client, Data, DataType, Declaration, Expression, Family, Field, Hook, Operator, Owned,
    PRIORITY_DSTNAT, Rule, Set, SetKind, Statement, Table, Transaction, Tuple, Value, diff,
};

fn address_type(family: Family) -> DataType {
    DataType::address(family)
}

fn hostports(family: Family) -> Arc<Declaration> {
    let key = vec![address_type(family), DataType::InetProto, DataType::InetService];
    let kind = SetKind::RangeMap(vec![address_type(family), DataType::InetService]);
    Arc::new(Declaration {
        family: family.into(),
        table: "owned".into(),
        name: "hostports".into(),
        key,
        kind,
        comment: None,
    })
}

fn pairs(family: Family) -> Arc<Declaration> {
    let key = vec![address_type(family); 2];
    let (table, name) = ("owned".into(), "pairs".into());
    let family = family.into();
    Arc::new(Declaration { family, table, name, key, kind: SetKind::RangeSet, comment: Some("of a test") })
}

fn table(family: Family) -> Table {
    let mut table = Table::new(family, "owned");
    table.set(Set::new(hostports(family)));
    table.set(Set::new(pairs(family)));
    let key = vec![Expression::daddr(family), Expression::L4PROTO, Expression::DPORT];
    table.chain(
        "prerouting",
        Some(Base::nat(Hook::Prerouting, PRIORITY_DSTNAT)),
        // Where keys are ranges, nft reads a transport port behind a match on one protocol only.
        vec![Rule::new([
            Statement::fib_daddr_local(),
            Statement::compare(Expression::L4PROTO, Operator::Equal, Value::Protocol(6)),
            Statement::dnat(family, key, "hostports".into()),
        ])],
    );
    table
}

fn texts(family: Family) -> [&'static str; 2] {
    match family {
        Family::Ip => ["10.1.0.0/16", "10.1.0.5"],
        Family::Ip6 => ["fd00:1::/64", "fd00:1::5"],
    }
}

fn mapping(family: Family, owner: &str, host: &str, port: u16) -> Owned {
    let fields = [
        Field::Network(host.parse().unwrap()),
        Field::One(Value::Protocol(6)),
        Field::One(Value::Port(port)),
    ];
    let (key, end) = Tuple::span(&fields);
    let address = Value::Address(texts(family)[1].parse().unwrap());
    let data = Data::Tuple(Tuple::new(&[address, Value::Port(80)]));
    Owned { key, end: Some(end), data, owner: owner.into() }
}

fn pair(family: Family, owner: &str) -> Owned {
    let network = Field::Network(texts(family)[0].parse().unwrap());
    let (key, end) = Tuple::span(&[network, network]);
    Owned { key, end: Some(end), data: Data::None, owner: owner.into() }
}

fn everywhere(family: Family) -> &'static str {
    match family {
        Family::Ip => "0.0.0.0/0",
        Family::Ip6 => "::/0",
    }
}

#[test]
fn owners_find_their_elements_and_nft_prints_them() {
    let namespace = Namespace::temporary().unwrap();
    namespace
        .run(|| {
            let mut client = Client::open().unwrap();
            for family in Family::BOTH {
                assert_eq!(client.owned(&hostports(family)).unwrap(), [], "no table yet");
                assert!(!client.has_rules(&table(family)).unwrap());
            }
            let mut transaction = diff(&Family::BOTH.map(table), &Default::default());
            for family in Family::BOTH {
                let elements = ["veth1", "veth2"].map(|owner| {
                    mapping(family, owner, everywhere(family), if owner == "veth1" { 8080 } else { 8081 })
                });
                transaction.add_owned(&hostports(family), elements.into());
                transaction.add_owned(&pairs(family), vec![pair(family, "cni0")]);
            }
            client.commit(&transaction).unwrap();
            for family in Family::BOTH {
                assert!(client.has_rules(&table(family)).unwrap());
                let mut found = client.owned(&hostports(family)).unwrap();
                found.sort();
                let expected = [
                    mapping(family, "veth1", everywhere(family), 8080),
                    mapping(family, "veth2", everywhere(family), 8081),
                ];
                assert_eq!(found, expected);
                assert_eq!(client.owned(&pairs(family)).unwrap(), [pair(family, "cni0")]);
            }
            let listed = Command::new("nft").args(["list", "ruleset"]).output().unwrap();
            let listed = String::from_utf8(listed.stdout).unwrap();
            for line in transaction.to_string().lines().filter(|line| line.starts_with("add element")) {
                let elements = line.split_once('{').unwrap().1.trim_end_matches('}');
                for element in elements.split(", ") {
                    assert!(listed.contains(element.trim()), "{element} is not in\n{listed}");
                }
            }
            let listing = [listed, String::new()].concat();
            assert!(listing.contains("flags interval"), "{listing}");
        })
        .unwrap();
}

#[test]
fn an_element_that_is_there_or_overlaps_is_refused_and_deleted_by_its_key() {
    let namespace = Namespace::temporary().unwrap();
    namespace
        .run(|| {
            let mut client = Client::open().unwrap();
            let family = Family::Ip;
            let mut transaction = diff(&[table(family)], &Default::default());
            let first = mapping(family, "veth1", "0.0.0.0/0", 8080);
            transaction.add_owned(&hostports(family), vec![first.clone()]);
            client.commit(&transaction).unwrap();
            for host in ["0.0.0.0/0", "192.0.2.1/32"] {
                let mut transaction = Transaction::default();
                transaction.add_owned(&hostports(family), vec![mapping(family, "veth2", host, 8080)]);
                assert_eq!(client.commit(&transaction).unwrap_err().errno(), Some(Errno::EEXIST), "{host}");
            }
            let mut transaction = Transaction::default();
            transaction.delete_owned(&hostports(family), vec![first]);
            client.commit(&transaction).unwrap();
            assert_eq!(client.owned(&hostports(family)).unwrap(), []);
            assert_eq!(client.commit(&transaction).unwrap_err().errno(), Some(Errno::ENOENT));
        })
        .unwrap();
}

#[test]
fn nft_takes_the_text_of_owned_elements() {
    let namespace = Namespace::temporary().unwrap();
    namespace
        .run(|| {
            let family = Family::Ip6;
            let mut transaction = diff(&[table(family)], &Default::default());
            transaction.add_owned(&hostports(family), vec![mapping(family, "veth1", "fd00::/16", 1)]);
            let folder = tempfile::tempdir().unwrap();
            let file = folder.path().join("rules");
            std::fs::write(&file, transaction.to_string()).unwrap();
            let output = Command::new("nft").arg("-f").arg(&file).output().unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            let found = Client::open().unwrap().owned(&hostports(family)).unwrap();
            assert_eq!(found, [mapping(family, "veth1", "fd00::/16", 1)]);
        })
        .unwrap();
}
