//! NetworkPolicies as clients write them, and as they must not be.

use serde_json::{Value, json};
use weft_types::{IpBlock, Kind, Labels, Object, Protocol};

use super::*;
use crate::resource::policy::MOST_QUESTIONS;
use crate::resource::{Reading, read_document};

fn read(spec: Value) -> (NetworkPolicy, String) {
    let object = json!({"metadata": {"namespace": "shop", "name": "web"}, "spec": spec});
    match read_document(Kind::NetworkPolicy, object, &WatchFilter::network_policies()) {
        Reading::Object(Object::NetworkPolicy(policy)) => (policy, String::new()),
        Reading::InPart(Object::NetworkPolicy(policy), malformed) => (policy, malformed.to_string()),
        other => panic!("{other:?}"),
    }
}

fn good(spec: Value) -> NetworkPolicy {
    let (policy, told) = read(spec);
    assert_eq!(told, "");
    policy
}

fn labels(pairs: &[(&str, &str)]) -> Labels {
    pairs.iter().copied().collect()
}

#[test]
fn ingress_is_isolated_by_default_and_egress_where_there_are_rules_for_it() {
    let ways = |spec| {
        let policy = good(spec);
        (policy.ingress.is_some(), policy.egress.is_some())
    };
    for (spec, expected) in [
        (json!({}), (true, false)),
        (Value::Null, (true, false)),
        (json!({"podSelector": {}, "policyTypes": []}), (true, false)),
        (json!({"policyTypes": null, "ingress": null, "egress": null}), (true, false)),
        (json!({"egress": []}), (true, false)),
        (json!({"egress": [{}]}), (true, true)),
        (json!({"policyTypes": ["Egress"]}), (false, true)),
        (json!({"policyTypes": ["Egress"], "ingress": [{}]}), (false, true)),
        (json!({"policyTypes": ["Ingress"], "egress": [{}]}), (true, false)),
        (json!({"policyTypes": ["Ingress", "Egress"]}), (true, true)),
    ] {
        assert_eq!(ways(spec.clone()), expected, "{spec}");
    }
}

#[test]
fn no_rules_allow_nothing_and_an_empty_rule_allows_everything() {
    assert_eq!(good(json!({"ingress": []})).ingress.unwrap().len(), 0);
    for rule in [json!({}), json!({"from": [], "ports": []}), json!({"from": null, "ports": null})] {
        assert_eq!(*good(json!({"ingress": [rule]})).ingress.unwrap(), [PolicyRule::ALL]);
    }
}

#[test]
fn selectors_of_one_peer_belong_together() {
    let peers = json!([
        {"podSelector": {"matchLabels": {"app": "a"}}},
        {"namespaceSelector": {}},
        {"namespaceSelector": {"matchLabels": {"team": "x"}}, "podSelector": null},
        {"namespaceSelector": {}, "podSelector": {"matchExpressions": [
            {"key": "app", "operator": "NotIn", "values": ["a", "b"]}]}},
        {"ipBlock": {"cidr": "10.0.0.7/8", "except": ["10.1.0.0/16", "10.0.0.0/8"]}},
        {"ipBlock": {"cidr": "::ffff:10.2.0.0/112", "except": ["::ffff:10.2.3.0/120"]}},
    ]);
    let policy = good(json!({"ingress": [{"from": peers}]}));
    let Peers::Any(peers) = &policy.ingress.unwrap()[0].peers else { panic!() };
    let pods = |peer: &PolicyPeer| match peer {
        PolicyPeer::Pods(peer) => peer.clone(),
        other => panic!("{other:?}"),
    };
    let (own, all, team, both) = (pods(&peers[0]), pods(&peers[1]), pods(&peers[2]), pods(&peers[3]));
    assert!(own.namespaces.is_none() && own.pods.matches(&labels(&[("app", "a")])));
    assert!(all.namespaces.unwrap().is_everything() && all.pods.is_everything());
    assert!(team.pods.is_everything() && !team.namespaces.unwrap().matches(&labels(&[])));
    assert!(both.pods.matches(&labels(&[])) && !both.pods.matches(&labels(&[("app", "b")])));
    let block = |cidr: &str, except: &[&str]| {
        let except = except.iter().map(|text| text.parse().unwrap()).collect();
        PolicyPeer::Network(IpBlock { cidr: cidr.parse().unwrap(), except })
    };
    assert_eq!(peers[4], block("10.0.0.0/8", &["10.1.0.0/16", "10.0.0.0/8"]));
    assert_eq!(peers[5], block("10.2.0.0/16", &["10.2.3.0/24"]), "an address of IPv4 in one of IPv6");
}

#[test]
fn ports_are_tcp_by_default_and_all_of_it_without_a_number() {
    let ports = json!([
        {}, {"protocol": "UDP"}, {"port": 80}, {"port": 80, "endPort": 90, "protocol": "SCTP"}, {"port": "http"},
        {"port": null, "protocol": null, "endPort": null},
    ]);
    let policy = good(json!({"egress": [{"ports": ports}]}));
    let numbers = |protocol, first, last| PortMatch::Numbers { protocol, first, last };
    let expected = [
        numbers(Protocol::Tcp, 0, 65535),
        numbers(Protocol::Udp, 0, 65535),
        numbers(Protocol::Tcp, 80, 80),
        numbers(Protocol::Sctp, 80, 90),
        PortMatch::Named { protocol: Some(Protocol::Tcp), name: "http".into() },
        numbers(Protocol::Tcp, 0, 65535),
    ];
    assert_eq!(policy.egress.unwrap()[0].ports, PortMatches::Any(expected.into()));
}

/// Alone, and beside one that can be read.
fn assert_matches_nothing(peer: &Value, expected: &str) {
    let (policy, told) = read(json!({"ingress": [{"from": [peer, {"podSelector": {}}]}]}));
    assert!(told.starts_with(&format!("NetworkPolicy shop/web: {expected}")), "{told}");
    let Peers::Any(peers) = &policy.ingress.as_ref().unwrap()[0].peers else { panic!("it opens to all") };
    assert_eq!(peers.len(), 1, "{told}");
    let (policy, _) = read(json!({"ingress": [{"from": [peer]}]}));
    assert_eq!(policy.ingress.unwrap()[0].peers, Peers::Any(Box::default()), "alone, it must not mean all");
}

#[test]
fn a_peer_that_cannot_be_read_matches_nothing_and_the_others_hold() {
    for (peer, expected) in [
        (json!({}), "spec.ingress[0].from[0]: has none of podSelector, namespaceSelector, ipBlock"),
        (json!({"podSelector": {}, "new": 5}), "spec.ingress[0].from[0].new: is not supported"),
        (json!({"podSelector": []}), "spec.ingress[0].from[0].podSelector: invalid type"),
        (json!({"podSelector": {"new": 5}}), "spec.ingress[0].from[0].podSelector.new: is not supported"),
        (json!(null), "spec.ingress[0].from[0]: is missing"),
        (json!({"podSelector": 5}), "spec.ingress[0].from[0].podSelector: invalid type"),
        (
            json!({"podSelector": {"matchExpressions": [{"key": "a", "operator": "Has"}]}}),
            "spec.ingress[0].from[0].podSelector.matchExpressions[0]: operator \"Has\"",
        ),
        (
            json!({"namespaceSelector": {"matchLabels": {"a": "b c"}}}),
            "spec.ingress[0].from[0].namespaceSelector.matchLabels[a]: \"b c\" is no label value",
        ),
        (
            json!({"podSelector": {"matchLabels": {"a": null}}}),
            "spec.ingress[0].from[0].podSelector.matchLabels[a]: is missing",
        ),
        (
            json!({"podSelector": {"matchExpressions": [null]}}),
            "spec.ingress[0].from[0].podSelector.matchExpressions[0]: is missing",
        ),
        (
            json!({"podSelector": {"matchExpressions": [{"key": "a", "operator": "in", "values": ["b"]}]}}),
            "spec.ingress[0].from[0].podSelector.matchExpressions[0]: operator \"in\"",
        ),
        (
            json!({"podSelector": {"matchExpressions": [{"key": "a", "operator": "In", "values": [null]}]}}),
            "spec.ingress[0].from[0].podSelector.matchExpressions[0].values[0]: is missing",
        ),
        (
            json!({"podSelector": {"matchExpressions": [{"key": "a", "operator": "In", "values": []}]}}),
            "spec.ingress[0].from[0].podSelector.matchExpressions[0]: ",
        ),
    ] {
        assert_matches_nothing(&peer, expected);
    }
    let (policy, _) = read(json!({"ingress": [{"from": "x"}]}));
    assert_eq!(policy.ingress.unwrap()[0].peers, Peers::Any(Box::default()));
}

#[test]
fn a_network_that_cannot_be_read_matches_nothing() {
    for (peer, expected) in [
        (json!({"ipBlock": {}}), "spec.ingress[0].from[0].ipBlock.cidr: is missing"),
        (
            json!({"ipBlock": {"cidr": "10.0.0.0"}}),
            "spec.ingress[0].from[0].ipBlock.cidr: \"10.0.0.0\" is no",
        ),
        (
            json!({"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16", "x"]}}),
            "spec.ingress[0].from[0].ipBlock.except[1]: \"x\" is no network",
        ),
        (
            json!({"ipBlock": {"cidr": "10.0.0.0/8", "except": ["192.0.2.0/24"]}}),
            "spec.ingress[0].from[0].ipBlock.except[0]: \"192.0.2.0/24\" is not within 10.0.0.0/8",
        ),
        (
            json!({"ipBlock": {"cidr": "10.0.0.0/8", "except": ["0.0.0.0/0"]}}),
            "spec.ingress[0].from[0].ipBlock.except[0]: \"0.0.0.0/0\" is not within 10.0.0.0/8",
        ),
        (
            json!({"ipBlock": {"cidr": "::/0", "except": ["::ffff:10.0.0.0/104"]}}),
            "spec.ingress[0].from[0].ipBlock.except[0]: \"::ffff:10.0.0.0/104\" is not within ::/0",
        ),
        (
            json!({"ipBlock": {"cidr": "::ffff:10.0.0.0/95"}}),
            "spec.ingress[0].from[0].ipBlock.cidr: \"::ffff:10.0.0.0/95\" is no network",
        ),
        (
            json!({"ipBlock": {"cidr": "10.0.0.0/8", "except": [null]}}),
            "spec.ingress[0].from[0].ipBlock.except[0]: is missing",
        ),
        (
            json!({"ipBlock": {"cidr": "10.0.0.0/8"}, "podSelector": {}}),
            "spec.ingress[0].from[0].ipBlock: stands",
        ),
    ] {
        assert_matches_nothing(&peer, expected);
    }
}

#[test]
fn a_port_that_cannot_be_read_matches_nothing() {
    for (port, expected) in [
        (json!({"port": 0}), "port: 0 is no port"),
        (json!({"port": 65536}), "port: 65536 is no port"),
        (json!({"port": -1}), "port: -1 is no port"),
        (json!({"port": 1.5}), "port: "),
        (json!({"port": ""}), "port: \"\" is no name of a port"),
        (json!({"port": "80"}), "port: \"80\" is no name of a port, and as a number it must not be quoted"),
        (json!({"port": "sixteen-letters-"}), "port: \"sixteen-letters-\" is no name of a port"),
        (json!({"port": 80, "endPort": 0}), "endPort: 0 is no port"),
        (json!({"port": 80, "endPort": 65536}), "endPort: 65536 is no port"),
        (json!({"protocol": "", "port": 80}), "protocol: is empty"),
        (json!({"port": 90, "endPort": 80}), "endPort: 80 is below the first port, 90"),
        (json!({"endPort": 80}), "endPort: needs a port"),
        (json!({"port": "http", "endPort": 80}), "endPort: cannot follow the port name \"http\""),
        (json!({"port": 80, "endPort": 70000}), "endPort: 70000 is no port"),
        (json!({"port": {}}), "port: "),
        (json!({"protocol": "ICMP"}), "protocol: "),
        (json!({"port": 80, "new": 5}), "new: is not supported"),
    ] {
        let (policy, told) = read(json!({"ingress": [{"ports": [port]}]}));
        assert!(
            told.starts_with(&format!("NetworkPolicy shop/web: spec.ingress[0].ports[0].{expected}")),
            "{told}"
        );
        assert_eq!(policy.ingress.unwrap()[0].ports, PortMatches::Any(Box::default()), "{told}");
    }
}

#[test]
fn a_policy_of_which_nobody_can_tell_whom_it_selects_isolates_its_namespace_and_allows_nothing() {
    for (spec, expected, egress) in [
        (json!(5), "spec: invalid type", true),
        (json!({"podSelector": [], "ingress": [{}]}), "spec.podSelector: invalid type", false),
        (
            json!({"podSelector": {"matchLabels": {"-": "x"}}, "policyTypes": ["Ingress", "Egress"], "egress": [{}]}),
            "spec.podSelector.matchLabels[-]: ",
            true,
        ),
    ] {
        let (policy, told) = read(spec);
        assert!(told.starts_with(&format!("NetworkPolicy shop/web: {expected}")), "{told}");
        assert!(policy.pods.is_everything());
        assert_eq!((policy.ingress, policy.egress), (Some(Box::default()), egress.then(Box::default)));
    }
}

#[test]
fn a_way_that_cannot_be_read_may_have_been_either() {
    for types in [json!(["Ingres"]), json!("Ingress"), json!([null]), json!(["Ingress", 5])] {
        let (policy, told) = read(json!({"policyTypes": types}));
        assert!(policy.ingress.is_some() && policy.egress.is_some());
        assert!(told.contains("spec.policyTypes"), "{told}");
    }
    let (policy, told) = read(json!({"egress": 5}));
    assert_eq!(policy.egress, Some(Box::default()));
    assert!(told.contains("spec.egress: invalid type"), "{told}");
}

#[test]
fn a_rule_that_cannot_be_read_keeps_its_place_and_matches_nothing() {
    for (rule, expected) in [(json!(5), "invalid type"), (json!(null), "is missing"), (json!([]), "invalid")]
    {
        let (policy, told) = read(json!({"ingress": [rule, {}]}));
        assert_eq!(*policy.ingress.unwrap(), [PolicyRule::nothing(), PolicyRule::ALL]);
        assert!(told.contains(&format!("spec.ingress[0]: {expected}")), "{told}");
    }
    let (policy, told) = read(json!({"ingress": [{"ports": [null, {"port": 80}]}]}));
    let PortMatches::Any(ports) = &policy.ingress.unwrap()[0].ports else { panic!("it opens to all") };
    assert!(ports.len() == 1 && told.contains("spec.ingress[0].ports[0]: is missing"), "{told}");
}

/// JSON has no rule for it, and readers differ in which one they take.
#[test]
fn a_field_that_comes_twice_cannot_be_read_and_closes() {
    let read = |spec: &str| {
        let text = format!(r#"{{"metadata": {{"namespace": "shop", "name": "web"}}, {spec}}}"#);
        let object: NetworkPolicyObject = serde_json::from_str(&text).unwrap();
        match crate::resource::read(object, &WatchFilter::network_policies()) {
            Reading::InPart(Object::NetworkPolicy(policy), malformed) => (policy, malformed.to_string()),
            other => panic!("{other:?}"),
        }
    };
    let open = r#"{"podSelector": {}, "ingress": [{}]}"#;
    let (policy, told) = read(&format!(r#""spec": {open}, "spec": {open}"#));
    assert_eq!((policy.ingress, policy.egress), (Some(Box::default()), Some(Box::default())));
    assert_eq!(told, "NetworkPolicy shop/web: spec: is there twice");
    let (policy, told) = read(r#""spec": {"podSelector": {}, "podSelector": {}, "ingress": [{}]}"#);
    assert_eq!((policy.ingress, policy.egress), (Some(Box::default()), Some(Box::default())));
    assert_eq!(told, "NetworkPolicy shop/web: spec: duplicate field `podSelector`");
    for (twice, field) in [
        (r#"{"from": [], "from": []}"#, "spec.ingress[0]: duplicate field `from`"),
        (
            r#"{"from": [{"podSelector": {}, "podSelector": {}}]}"#,
            "spec.ingress[0].from[0]: duplicate field `podSelector`",
        ),
        (r#"{"ports": [{"port": 80, "port": 81}]}"#, "spec.ingress[0].ports[0]: duplicate field `port`"),
    ] {
        let (policy, told) = read(&format!(r#""spec": {{"podSelector": {{}}, "ingress": [{twice}]}}"#));
        assert!(told.starts_with(&format!("NetworkPolicy shop/web: {field}")), "{told}");
        let rule = &policy.ingress.unwrap()[0];
        let nothing =
            [rule.peers == Peers::Any(Box::default()), rule.ports == PortMatches::Any(Box::default())];
        assert!(nothing.contains(&true), "{twice}: {rule:?}");
    }
}

#[test]
fn rules_and_selectors_beyond_so_many_match_nothing_and_networks_and_ports_do_not_count() {
    let pods = |number: usize| json!({"podSelector": {"matchLabels": {"a": number.to_string()}}});
    let network =
        |number: usize| json!({"ipBlock": {"cidr": format!("10.{}.{}.1/32", number / 256, number % 256)}});
    let list = |one: &dyn Fn(usize) -> Value, count: usize| (0..count).map(one).collect::<Vec<_>>();

    let from = list(&pods, MOST_QUESTIONS);
    let (policy, told) = read(json!({"ingress": [{"from": [pods(1)]}, {"from": from}, {"from": [pods(2)]}]}));
    assert!(
        told.starts_with(
            "NetworkPolicy shop/web: spec.ingress[1]: is too much: a policy may have 4096 rules"
        ),
        "{told}"
    );
    let count = |rule: &PolicyRule| match &rule.peers {
        Peers::Any(peers) => peers.len(),
        Peers::All => panic!("it opens to all"),
    };
    assert_eq!(policy.ingress.unwrap().iter().map(count).collect::<Vec<_>>(), [1, 0, 1]);

    let rules = list(&|number| json!({"ports": [{"port": number + 1}]}), 100_000 - 50_000);
    let (policy, told) = read(json!({"egress": rules}));
    assert!(told.contains("spec.egress[4096]: is too much") && told.contains("45900 more faults"), "{told}");
    let matching = policy.egress.unwrap().iter().filter(|rule| **rule != PolicyRule::nothing()).count();
    assert_eq!(matching, MOST_QUESTIONS);

    let from = list(&network, 50_000);
    let ports = list(&|number| json!({"port": number + 1}), 50_000);
    assert_eq!(
        count(&good(json!({"ingress": [{"from": from, "ports": ports}]})).ingress.unwrap()[0]),
        50_000
    );
}
