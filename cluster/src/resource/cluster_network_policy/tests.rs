//! ClusterNetworkPolicies as clients write them, and as they must not be.

use serde_json::{Value, json};
use weft_types::{Kind, Labels, Object};

use super::*;
use crate::resource::{Reading, read_document};

fn read(change: Value) -> (ClusterNetworkPolicy, String) {
    let mut spec = json!({"tier": "Admin", "priority": 10, "subject": {"namespaces": {}}});
    spec.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
    let object = json!({"metadata": {"name": "guard"}, "spec": spec});
    match read_document(Kind::ClusterNetworkPolicy, object, &WatchFilter::network_policies()) {
        Reading::Object(Object::ClusterNetworkPolicy(policy)) => (policy, String::new()),
        Reading::InPart(Object::ClusterNetworkPolicy(policy), malformed) => (policy, malformed.to_string()),
        other => panic!("{other:?}"),
    }
}

fn good(change: Value) -> ClusterNetworkPolicy {
    let (policy, told) = read(change);
    assert_eq!(told, "");
    policy
}

fn egress(action: &str, peer: &Value, protocols: &Value) -> Value {
    json!({"egress": [{"name": "r", "action": action, "to": [peer], "protocols": protocols}]})
}

#[test]
fn tier_priority_and_subject_are_read() {
    let policy = good(json!({"tier": "Baseline", "priority": 1000, "subject": {
        "pods": {"namespaceSelector": {"matchLabels": {"a": "b"}}, "podSelector": {}}}}));
    assert_eq!((policy.tier, policy.priority), (Tier::Baseline, 1000));
    assert!(policy.namespaces.matches(&[("a", "b")].into_iter().collect::<Labels>()));
    assert!(!policy.namespaces.matches(&Labels::default()) && policy.pods.is_everything());
}

#[test]
fn every_kind_of_peer_is_read() {
    let to = json!([
        {"namespaces": {"matchLabels": {"a": "b"}}},
        {"pods": {"namespaceSelector": {}, "podSelector": {"matchLabels": {"c": "d"}}}},
        {"nodes": {}},
        {"networks": ["10.0.0.0/8", "fd00::/8"]},
    ]);
    let policy = good(json!({"egress": [{"action": "Deny", "to": to}]}));
    let Peers::Any(peers) = &policy.egress[0].traffic.peers else { panic!() };
    assert_eq!(peers.len(), 5);
    assert!(
        matches!(&peers[0], PolicyPeer::Pods(PodPeer { namespaces: Some(it), .. }) if !it.is_everything())
    );
    assert!(matches!(&peers[2], PolicyPeer::Nodes(it) if it.is_everything()));
    assert!(matches!(&peers[4], PolicyPeer::Network(it) if it.cidr.is_ipv6()));
    assert_eq!(policy.egress[0].traffic.ports, PortMatches::All);
}

#[test]
fn every_kind_of_protocol_is_read() {
    let protocols = json!([
        {"tcp": {"destinationPort": {"number": 80}}},
        {"udp": {"destinationPort": {"range": {"start": 5, "end": 9}}}},
        {"sctp": {}},
        {"destinationNamedPort": "http"},
    ]);
    let policy = good(egress("Accept", &json!({"namespaces": {}}), &protocols));
    let numbers = |protocol, first, last| PortMatch::Numbers { protocol, first, last };
    let expected = [
        numbers(Protocol::Tcp, 80, 80),
        numbers(Protocol::Udp, 5, 9),
        numbers(Protocol::Sctp, 0, 65535),
        PortMatch::Named { protocol: None, name: "http".into() },
    ];
    assert_eq!(policy.egress[0].traffic.ports, PortMatches::Any(expected.into()));
    for none in [json!([]), Value::Null] {
        let policy = good(egress("Accept", &json!({"namespaces": {}}), &none));
        assert_eq!(policy.egress[0].traffic.ports, PortMatches::All);
    }
}

#[test]
fn a_rule_that_cannot_be_read_accepts_nothing_and_denies_everything() {
    let all = json!({"namespaces": {}});
    for (peer, protocols, expected) in [
        (json!({}), json!(null), "to[0]: has no field that is known here"),
        (json!({"domainNames": ["example.com"]}), json!(null), "to[0].domainNames: is not supported"),
        (json!({"networks": []}), json!(null), "to[0].networks: has no elements"),
        (json!({"networks": ["10.0.0.0/8", "x"]}), json!(null), "to[0].networks[1]: \"x\" is no network"),
        (json!({"nodes": {}, "namespaces": {}}), json!(null), "to[0]: has more than one kind of peer"),
        (json!({"nodes": {"matchLabels": 5}}), json!(null), "to[0].nodes.matchLabels: invalid type"),
        (all.clone(), json!([{}]), "protocols[0]: has no field that is known here"),
        (all.clone(), json!([{"tcp": {}, "udp": {}}]), "protocols[0]: has more than one field"),
        (
            all.clone(),
            json!([{"tcp": {"destinationPort": {"range": {"start": 9, "end": 5}}}}]),
            "protocols[0].tcp.destinationPort.range.end: 5 is below the first port, 9",
        ),
        (
            all.clone(),
            json!([{"tcp": {"destinationPort": {}}}]),
            "protocols[0].tcp.destinationPort: needs either",
        ),
    ] {
        for action in ["Accept", "Deny", "Pass"] {
            let (policy, told) = read(egress(action, &peer, &protocols));
            assert!(
                told.starts_with(&format!("ClusterNetworkPolicy guard: spec.egress[0].{expected}")),
                "{told}"
            );
            let rule = &policy.egress[0];
            match action {
                "Accept" => {
                    assert_eq!((rule.action, &rule.traffic), (Action::Accept, &PolicyRule::nothing()))
                }
                _ => assert_eq!((rule.action, &rule.traffic), (Action::Deny, &PolicyRule::ALL)),
            }
        }
    }
    let (policy, told) = read(egress("Allow", &all, &json!(null)));
    assert_eq!((policy.egress[0].action, &policy.egress[0].traffic), (Action::Deny, &PolicyRule::ALL));
    assert!(told.contains("spec.egress[0].action: \"Allow\" is none of Accept, Deny, Pass"), "{told}");
    let (policy, _) = read(json!({"ingress": [{"action": "Accept"}]}));
    assert_eq!(policy.ingress[0].traffic, PolicyRule::nothing(), "no peers are no rule about all");
}

#[test]
fn where_nobody_can_tell_whom_a_policy_is_for_only_its_deny_rules_hold_for_all_pods() {
    let rules = json!([
        {"action": "Accept", "from": [{"namespaces": {}}]},
        {"action": "Pass", "from": [{"namespaces": {}}]},
        {"action": "Deny", "from": [{"pods": {"podSelector": {"matchLabels": {"a": "b"}}}}]},
    ]);
    for (change, expected) in [
        (json!({"tier": "Default"}), "spec.tier: \"Default\" is none of Admin, Baseline"),
        (json!({"tier": null}), "spec.tier: is missing"),
        (json!({"priority": 1001}), "spec.priority: 1001 is none of 0 to 1000"),
        (json!({"subject": {}}), "spec.subject: has no field that is known here"),
        (
            json!({"subject": {"namespaces": {"matchLabels": {"a": 5}}}}),
            "spec.subject.namespaces.matchLabels[a]: ",
        ),
        (json!({"subject": {"namespaces": {}, "pods": {}}}), "spec.subject: has both"),
    ] {
        let mut change = change;
        change["ingress"] = rules.clone();
        let (policy, told) = read(change);
        assert!(told.starts_with(&format!("ClusterNetworkPolicy guard: {expected}")), "{told}");
        assert_eq!((policy.tier, policy.priority), (Tier::Admin, 0));
        assert!(policy.namespaces.is_everything() && policy.pods.is_everything());
        assert_eq!(policy.ingress[0].traffic, PolicyRule::nothing());
        assert_eq!(policy.ingress[1].traffic, PolicyRule::nothing());
        assert!(matches!(&policy.ingress[2].traffic.peers, Peers::Any(peers) if peers.len() == 1));
    }
}
