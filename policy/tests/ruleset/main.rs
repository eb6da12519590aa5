//! Plans as nf_tables: the text, and that the kernel takes each change and then holds what is planned. Needs
//! root.

#![allow(clippy::unwrap_used, reason = "a test stops at the first thing that goes wrong")]

mod ipvs;

use std::net::IpAddr;

use weft_netlink::netns::Namespace;
use weft_nftables::{
    Change, Client, Data, Detail, Observed, Table, TableKey, Transaction, Tuple, Value, diff,
};
use weft_policy::plan::Planner;
use weft_policy::ruleset::{Denied, PENDING, Ruleset, adopt};
use weft_types::{
    Action, ClusterNetworkPolicy, ClusterRule, IpBlock, LabelSelector, NamespacedName, NetworkPolicy, Peers,
    Pod, PodDetails, PodPeer, PolicyPeer, PolicyRule, PortMatch, PortMatches, Protocol, Requirement, Tier,
};

fn select(text: &str) -> LabelSelector {
    text.split_once('=').map(|(key, value)| Requirement::equals(key, value).unwrap()).into_iter().collect()
}

fn pod(name: &str, last: u8, node: &str) -> Pod {
    let addresses = [format!("10.244.1.{last}"), format!("fd00:244:1::{last}")];
    Pod {
        key: NamespacedName::new("shop", name),
        addresses: addresses.iter().map(|text| text.parse::<IpAddr>().unwrap()).collect(),
        searches: true,
        labels: [("app", name.split('-').next().unwrap())].into_iter().collect(),
        details: Some(Box::new(PodDetails { node: Some(node.into()), ..PodDetails::default() })),
    }
}

fn pods(text: &str) -> PolicyPeer {
    PolicyPeer::Pods(PodPeer { namespaces: Some(LabelSelector::default()), pods: select(text) })
}

fn block(cidr: &str, except: &[&str]) -> PolicyPeer {
    let except = except.iter().map(|text| text.parse().unwrap()).collect();
    PolicyPeer::Network(IpBlock { cidr: cidr.parse().unwrap(), except })
}

fn rule(peers: &[PolicyPeer], ports: &[(Protocol, u16, u16)]) -> PolicyRule {
    let port = |&(protocol, first, last): &_| PortMatch::Numbers { protocol, first, last };
    let ports = match ports {
        [] => PortMatches::All,
        ports => PortMatches::Any(ports.iter().map(port).collect()),
    };
    let peers = if peers.is_empty() { Peers::All } else { Peers::Any(peers.into()) };
    PolicyRule { peers, ports }
}

/// What `web` lets in.
fn policy(rules: &[PolicyRule]) -> NetworkPolicy {
    NetworkPolicy {
        key: NamespacedName::new("shop", "web"),
        pods: select("app=web"),
        ingress: Some(rules.into()),
        egress: None,
    }
}

/// Pods `web` and `ui` of this node, and `db` of another one, with policies of both kinds.
fn planner() -> Planner {
    let mut planner = Planner::new("here");
    for pod in [pod("web", 3, "here"), pod("ui", 2, "here"), pod("db", 4, "there")] {
        planner.set_pod(&pod.key, Some(&pod));
    }
    let tcp = |first, last| (Protocol::Tcp, first, last);
    let rules = [
        rule(
            &[pods("app=ui"), block("192.0.2.0/24", &["192.0.2.128/25"])],
            &[tcp(80, 80), (Protocol::Udp, 53, 53)],
        ),
        rule(&[pods("app=ui")], &[tcp(8000, 8100)]),
        rule(&[pods("app=db")], &[]),
        rule(&[block("2001:db8::/64", &[])], &[(Protocol::Sctp, 0, 65535)]),
        rule(&[], &[tcp(443, 443)]),
    ];
    let policy = policy(&rules);
    planner.set_network_policy(&policy.key, Some(&policy));
    let deny = ClusterRule {
        name: "no-db".into(),
        action: Action::Deny,
        traffic: rule(&[pods("app=db")], &[tcp(22, 22)]),
    };
    let guard = ClusterNetworkPolicy {
        name: "guard".to_owned(),
        tier: Tier::Admin,
        priority: 0,
        namespaces: LabelSelector::default(),
        pods: select("app=ui"),
        ingress: Box::default(),
        egress: [deny].into(),
    };
    planner.set_cluster_network_policy("guard", Some(&guard));
    planner
}

fn keys(tables: &[Table; 2]) -> [TableKey; 2] {
    tables.each_ref().map(Table::key)
}

#[test]
fn a_plan_is_text_that_nft_takes() {
    let mut ruleset = Ruleset::new(Denied { rejects: false, log_group: Some(7) });
    ruleset.apply(&planner().commit());
    let [v4, v6] = ruleset.tables();
    insta::assert_snapshot!(format!("{v4}{v6}"));
}

#[test]
fn denied_traffic_is_rejected_where_that_is_wanted() {
    let ruleset = Ruleset::new(Denied { rejects: true, log_group: None });
    for table in ruleset.tables() {
        for chain in ["leave-denied", "enter-denied"] {
            let rules: Vec<String> = table.chains[chain].rules.iter().map(ToString::to_string).collect();
            let expected = ["counter packets 0 bytes 0", "meta l4proto tcp reject with tcp reset", "reject"];
            assert!(rules[0].ends_with("@self accept"), "{rules:?}");
            assert_eq!(rules[1..], expected);
        }
    }
}

#[test]
fn the_kernel_takes_each_change_and_holds_what_is_planned() {
    let work = || {
        let mut client = Client::open().unwrap();
        let (mut planner, mut ruleset) =
            (planner(), Ruleset::new(Denied { rejects: true, log_group: Some(7) }));
        let transaction = diff(ruleset.tables(), &Observed::default());
        client.commit(&transaction).unwrap_or_else(|error| panic!("{error}\n{transaction}"));
        let mut commit = |planner: &mut Planner| {
            let transaction = ruleset.apply(&planner.commit());
            client.commit(&transaction).unwrap_or_else(|error| panic!("{error}\n{transaction}"));
            let held = client.observe(&keys(ruleset.tables())).unwrap();
            assert_eq!(held, Observed::of(ruleset.tables()));
            transaction.changes.len()
        };
        assert_ne!(commit(&mut planner), 0);
        let more = pod("db-2", 9, "there");
        planner.set_pod(&more.key, Some(&more));
        assert_eq!(commit(&mut planner), 2, "one element of each family");
        let tcp = |first, last| (Protocol::Tcp, first, last);
        for rules in [
            vec![rule(&[block("192.0.2.0/25", &["192.0.2.7/32"])], &[tcp(80, 90)])],
            vec![rule(&[block("192.0.0.0/16", &[]), pods("")], &[tcp(70, 85), tcp(87, 99)])],
            vec![],
        ] {
            let policy = policy(&rules);
            planner.set_network_policy(&policy.key, Some(&policy));
            assert_ne!(commit(&mut planner), 0);
        }
        planner.set_network_policy(&NamespacedName::new("shop", "web"), None);
        planner.set_cluster_network_policy("guard", None);
        assert_ne!(commit(&mut planner), 0);
        assert!(ruleset.tables().iter().all(|table| table.sets.values().all(|set| set.elements.is_empty())));
    };
    Namespace::temporary().unwrap().run(work).unwrap();
}

#[test]
fn a_set_that_is_full_is_made_anew_with_more_room() {
    let work = || {
        let mut client = Client::open().unwrap();
        let (mut planner, mut ruleset) = (planner(), Ruleset::new(Denied::default()));
        client.commit(&ruleset.bring(&Observed::default())).unwrap();
        for number in 0..400_u16 {
            let [high, low] = number.to_be_bytes();
            let addresses = [IpAddr::from([10, 99, high, low])].into_iter().collect();
            let pod = Pod { addresses, ..pod(&format!("db-{number}"), 0, "there") };
            planner.set_pod(&pod.key, Some(&pod));
        }
        let refused = client.commit(&ruleset.apply(&planner.commit())).unwrap_err();
        // ENFILE
        assert_eq!(refused.errno().map(|errno| errno as i32), Some(23), "{refused}");
        let mut bring = |ruleset: &Ruleset| {
            let held = client.observe(&keys(ruleset.tables())).unwrap();
            client.commit(&ruleset.bring(&held)).unwrap();
            client.observe(&keys(ruleset.tables())).unwrap()
        };
        let held = bring(&ruleset);
        assert!(ruleset.bring(&held).is_empty(), "all is in");
        // There is room by now.
        let more = pod("db-more", 251, "there");
        planner.set_pod(&more.key, Some(&more));
        client.commit(&ruleset.apply(&planner.commit())).unwrap();
    };
    Namespace::temporary().unwrap().run(work).unwrap();
}

#[test]
fn a_restart_takes_over_what_the_kernel_has_and_writes_nothing() {
    let work = || {
        let mut client = Client::open().unwrap();
        let (mut before, mut ruleset) = (planner(), Ruleset::new(Denied::default()));
        // Classes come and go, so that their numbers are not those of a first plan.
        for last in 20..25 {
            let more = pod(&format!("x{last}-1"), last, "there");
            before.set_pod(&more.key, Some(&more));
            let mut policy = policy(&[rule(&[pods(&format!("app=x{last}"))], &[])]);
            policy.key.name = format!("for-{last}").into();
            before.set_network_policy(&policy.key, Some(&policy));
            ruleset.apply(&before.commit());
        }
        for last in 20..25 {
            before.set_network_policy(&NamespacedName::new("shop", format!("for-{last}")), None);
            ruleset.apply(&before.commit());
        }
        before.set_pod(&NamespacedName::new("shop", "db"), None);
        ruleset.apply(&before.commit());
        let db = pod("db", 4, "there");
        before.set_pod(&db.key, Some(&db));
        ruleset.apply(&before.commit());
        let transaction = diff(ruleset.tables(), &Observed::default());
        client.commit(&transaction).unwrap_or_else(|error| panic!("{error}\n{transaction}"));
        let waiting: IpAddr = "10.244.1.77".parse().unwrap();
        let set = ruleset.tables()[0].sets[PENDING].declaration.clone();
        let detail = Detail { comment: Some("shop/new".into()), timeout: None };
        let element = (Tuple::new(&[Value::Address(waiting)]), Data::None, detail);
        client.commit(&Transaction { changes: vec![Change::AddDetailed(set, vec![element])] }).unwrap();

        let held = client.observe(&keys(ruleset.tables())).unwrap();
        assert_eq!(adopt::pending(&held), [(waiting, "shop/new".to_owned())]);
        let (mut after, mut ruleset) = (planner(), Ruleset::new(Denied::default()));
        for last in 20..25 {
            let more = pod(&format!("x{last}-1"), last, "there");
            after.set_pod(&more.key, Some(&more));
        }
        after.adopt(adopt::classes(&held));
        ruleset.apply(&after.commit());
        ruleset.set_pending(&adopt::pending(&held));
        let transaction = diff(ruleset.tables(), &held);
        assert!(transaction.is_empty(), "{transaction}");
    };
    Namespace::temporary().unwrap().run(work).unwrap();
}

/// The example of docs/network-policy.md.
#[test]
fn the_documentation_reads_the_lines_that_a_policy_comes_to() {
    let mut planner = Planner::new("here");
    for pod in [pod("web", 2, "here"), pod("db", 3, "here")] {
        planner.set_pod(&pod.key, Some(&pod));
    }
    let from_web = PolicyPeer::Pods(PodPeer { namespaces: None, pods: select("app=web") });
    let policy = NetworkPolicy {
        key: NamespacedName::new("shop", "db"),
        pods: select("app=db"),
        ingress: Some([rule(&[from_web], &[(Protocol::Tcp, 5432, 5432)])].into()),
        egress: None,
    };
    planner.set_network_policy(&policy.key, Some(&policy));
    let mut ruleset = Ruleset::new(Denied::default());
    ruleset.apply(&planner.commit());
    let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    let planned = words(&ruleset.tables()[0].to_string());
    let documentation =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/network-policy.md")).unwrap();
    let (_, block) = documentation.split_once("```nft\n").unwrap();
    let (block, _) = block.split_once("```").unwrap();
    for line in block.lines().filter(|line| line.trim() != "…") {
        assert!(planned.contains(&words(line)), "{line}: {planned}");
    }
    assert_eq!(planned.matches("elements").count(), block.matches("elements").count(), "{planned}");
}
