//! NetworkPolicies as clients write them, and as they must not be.

use serde_json::{Value, json};
use weft_types::{IpBlock, Kind, Labels, Object, Protocol};

use super::*;
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
        {"ipBlock": {"cidr": "10.0.0.7/8", "except": ["10.1.0.0/16", "192.0.2.0/24"]}},
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
    let except = ["10.1.0.0/16", "192.0.2.0/24"].map(|text| text.parse().unwrap());
    let block = IpBlock { cidr: "10.0.0.0/8".parse().unwrap(), except: except.into() };
    assert_eq!(peers[4], PolicyPeer::Network(block));
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
            json!({"ipBlock": {"cidr": "10.0.0.0/8"}, "podSelector": {}}),
            "spec.ingress[0].from[0].ipBlock: stands",
        ),
    ] {
        let (policy, told) = read(json!({"ingress": [{"from": [peer, {"podSelector": {}}]}]}));
        assert!(told.starts_with(&format!("NetworkPolicy shop/web: {expected}")), "{told}");
        let Peers::Any(peers) = &policy.ingress.as_ref().unwrap()[0].peers else { panic!("it opens to all") };
        assert_eq!(peers.len(), 1, "{told}");
        let (policy, _) = read(json!({"ingress": [{"from": [peer]}]}));
        assert_eq!(
            policy.ingress.unwrap()[0].peers,
            Peers::Any(Box::default()),
            "alone, it must not mean all"
        );
    }
    let (policy, _) = read(json!({"ingress": [{"from": "x"}]}));
    assert_eq!(policy.ingress.unwrap()[0].peers, Peers::Any(Box::default()));
}

#[test]
fn a_port_that_cannot_be_read_matches_nothing() {
    for (port, expected) in [
        (json!({"port": 0}), "port: 0 is no port"),
        (json!({"port": 70000}), "port: 70000 is no port"),
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
    let (policy, told) = read(json!({"ingress": [5, {}]}));
    assert_eq!(*policy.ingress.unwrap(), [PolicyRule::nothing(), PolicyRule::ALL]);
    assert!(told.contains("spec.ingress[0]: invalid type"), "{told}");
}
