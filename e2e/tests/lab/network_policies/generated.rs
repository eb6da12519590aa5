//! Generated cases, each judged by the oracle: every kind of peer, port, target and direction, and pairs of
//! them. After the list of features that cyclonus tests.

use std::net::IpAddr;

use serde_json::{Value, json};

use super::cases::{Action, Case, policy};

/// A part of a rule, and what it is called.
type Named = (&'static str, Value);

/// A direction of traffic: its name, the field of its rules and the field of their peers.
#[derive(Clone, Copy)]
struct Direction {
    name: &'static str,
    rules: &'static str,
    peers: &'static str,
}

const DIRECTIONS: [Direction; 2] = [
    Direction { name: "Ingress", rules: "ingress", peers: "from" },
    Direction { name: "Egress", rules: "egress", peers: "to" },
];

impl Direction {
    /// A spec for that direction alone.
    fn spec(self, target: &Value, rules: Value) -> Value {
        let mut spec = json!({"podSelector": target, "policyTypes": [self.name]});
        spec[self.rules] = rules;
        spec
    }

    /// A rule, with the fields left out where they would be empty.
    fn rule(self, peers: &Value, ports: &Value) -> Value {
        let mut rule = json!({});
        for (field, list) in [(self.peers, peers), ("ports", ports)] {
            if list.as_array().is_some_and(|list| !list.is_empty()) {
                rule[field] = list.clone();
            }
        }
        rule
    }
}

/// All cases. `other` are the addresses of y/b, and `own` those of the target, x/a. Every pair of a peer and
/// a port only where all are asked for; otherwise every peer and every port comes once in each direction.
pub(super) fn cases(own: &[IpAddr], other: &[IpAddr], all: bool) -> Vec<Case> {
    let (peers, ports) = (peers(own, other), ports());
    let target = json!({"matchLabels": {"pod": "a"}});
    let mut cases = Vec::new();
    for direction in DIRECTIONS {
        let mut add = |name: String, target: &Value, rules: Value| {
            let spec = direction.spec(target, rules);
            let name = format!("{}: {name}", direction.name);
            cases.push(Case::new(name).judged([policy("x", "generated", spec)]));
        };
        for (name, rules) in [("no rules", json!([])), ("a rule for everything", json!([{}]))] {
            add(name.to_owned(), &target, rules);
        }
        for (name, target) in targets() {
            let peers = json!([{"namespaceSelector": {"matchLabels": {"ns": "y"}}}]);
            let rule = direction.rule(&peers, &json!([{"port": 80}]));
            add(format!("target {name}"), &target, json!([rule]));
        }
        for (row, (peer, some)) in peers.iter().enumerate() {
            for (column, (port, which)) in ports.iter().enumerate() {
                if all || row % ports.len() == column {
                    add(format!("{peer}, {port}"), &target, json!([direction.rule(some, which)]));
                }
            }
        }
        let rules = json!([
            direction.rule(&json!([{"podSelector": {"matchLabels": {"pod": "b"}}}]), &json!([{"port": 80}])),
            direction.rule(
                &json!([{"namespaceSelector": {"matchLabels": {"ns": "z"}}}]),
                &json!([{"protocol": "UDP"}])
            ),
        ]);
        add("two rules of different peers and ports".to_owned(), &target, rules);
    }
    cases.extend(both_directions());
    cases
}

fn targets() -> Vec<Named> {
    vec![
        ("all pods", json!({})),
        ("no pod", json!({"matchLabels": {"pod": "nobody"}})),
        ("pods In", json!({"matchExpressions": [{"key": "pod", "operator": "In", "values": ["a", "c"]}]})),
        ("pods NotIn", json!({"matchExpressions": [{"key": "pod", "operator": "NotIn", "values": ["a"]}]})),
        ("pods with a label", json!({"matchExpressions": [{"key": "pod", "operator": "Exists"}]})),
        ("pods without a label", json!({"matchExpressions": [{"key": "other", "operator": "DoesNotExist"}]})),
    ]
}

fn peers(own: &[IpAddr], other: &[IpAddr]) -> Vec<Named> {
    let pods = |labels: Value| json!({"podSelector": {"matchLabels": labels}});
    let b = json!({"matchLabels": {"pod": "b"}});
    let in_y = json!({"matchLabels": {"ns": "y"}});
    let matching = |key: &str, operator: &str, values: Value| {
        let mut expression = json!({"key": key, "operator": operator});
        if values.is_array() {
            expression["values"] = values;
        }
        json!({"matchExpressions": [expression]})
    };
    let blocks = |addresses: &[IpAddr]| {
        let block = |ip: &IpAddr| json!({"ipBlock": {"cidr": format!("{ip}/{}", if ip.is_ipv4() { 32 } else { 128 })}});
        Value::from(addresses.iter().map(block).collect::<Vec<_>>())
    };
    let all_but = |addresses: &[IpAddr]| {
        let block = |ip: &IpAddr| {
            let (all, length) = if ip.is_ipv4() { ("0.0.0.0/0", 32) } else { ("::/0", 128) };
            json!({"ipBlock": {"cidr": all, "except": [format!("{ip}/{length}")]}})
        };
        addresses.iter().map(block).collect::<Vec<_>>()
    };
    let mut all_but_and_back = all_but(other);
    all_but_and_back.extend(blocks(other).as_array().cloned().unwrap_or_default());
    vec![
        ("all peers", json!([])),
        ("pods of the own namespace", json!([{"podSelector": {}}])),
        ("pods b of the own namespace", json!([pods(json!({"pod": "b"}))])),
        ("pods of all namespaces", json!([{"namespaceSelector": {}}])),
        ("pods of y", json!([{"namespaceSelector": in_y}])),
        ("pods b of all namespaces", json!([{"namespaceSelector": {}, "podSelector": b}])),
        ("pods b of y", json!([{"namespaceSelector": in_y, "podSelector": b}])),
        (
            "pods of y, or pods b of the own namespace",
            json!([{"namespaceSelector": in_y}, {"podSelector": b}]),
        ),
        ("nobody", json!([pods(json!({"pod": "nobody"}))])),
        ("pods In", json!([{"podSelector": matching("pod", "In", json!(["b", "c"]))}])),
        ("pods NotIn", json!([{"podSelector": matching("pod", "NotIn", json!(["b"]))}])),
        ("pods with a label", json!([{"podSelector": matching("pod", "Exists", Value::Null)}])),
        ("namespaces In", json!([{"namespaceSelector": matching("ns", "In", json!(["x", "z"]))}])),
        ("namespaces NotIn", json!([{"namespaceSelector": matching("ns", "NotIn", json!(["x"]))}])),
        (
            "namespaces without a label",
            json!([{"namespaceSelector": matching("ns", "DoesNotExist", Value::Null)}]),
        ),
        (
            "a namespace by its name",
            json!([{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "z"}}}]),
        ),
        ("a pod's addresses", blocks(other)),
        ("the target's own addresses", blocks(own)),
        ("one of a pod's addresses", blocks(&other[..1])),
        ("IPv6 addresses", json!([{"ipBlock": {"cidr": "::/0"}}])),
        ("all addresses but a pod's", Value::from(all_but(other))),
        ("all addresses but a pod's, and these again", Value::from(all_but_and_back)),
    ]
}

fn ports() -> Vec<Named> {
    vec![
        ("all ports", json!([])),
        ("an empty port", json!([{}])),
        ("UDP", json!([{"protocol": "UDP"}])),
        ("SCTP", json!([{"protocol": "SCTP"}])),
        ("TCP and UDP", json!([{"protocol": "TCP"}, {"protocol": "UDP"}])),
        ("80", json!([{"port": 80}])),
        ("81 of UDP", json!([{"port": 81, "protocol": "UDP"}])),
        ("80 and 81", json!([{"port": 80}, {"port": 81}])),
        ("80 of TCP and UDP", json!([{"port": 80}, {"port": 80, "protocol": "UDP"}])),
        ("80, and all of UDP", json!([{"port": 80}, {"protocol": "UDP"}])),
        ("a port where nobody serves", json!([{"port": 7}])),
        ("a name", json!([{"port": "serve-80-tcp"}])),
        ("a name of UDP", json!([{"port": "serve-81-udp", "protocol": "UDP"}])),
        ("a name of the other protocol", json!([{"port": "serve-80-udp"}])),
        ("a name of different ports", json!([{"port": "web"}])),
        ("a name that no pod has", json!([{"port": "nothing"}])),
        ("a range", json!([{"port": 80, "endPort": 81}])),
        ("a range of UDP from 81", json!([{"port": 81, "endPort": 90, "protocol": "UDP"}])),
        ("a range of one port", json!([{"port": 81, "endPort": 81}])),
        (
            "overlapping ranges",
            json!([{"port": 1, "endPort": 80}, {"port": 70, "endPort": 80}, {"port": 80}]),
        ),
    ]
}

/// Both ends have a say, and policies add up.
fn both_directions() -> Vec<Case> {
    let all = json!({});
    let a = json!({"matchLabels": {"pod": "a"}});
    let from_y = json!([{"from": [{"namespaceSelector": {"matchLabels": {"ns": "y"}}}]}]);
    let to_y = json!([{"to": [{"namespaceSelector": {"matchLabels": {"ns": "y"}}}]}]);
    let both =
        |ingress: &Value, egress: &Value| json!({"podSelector": a, "ingress": ingress, "egress": egress});
    let of = |name: &str, target: &Value, field: &str, kind: &str, rules: &Value| {
        policy("x", name, json!({"podSelector": target, "policyTypes": [kind], (field): rules}))
    };
    let case = |name: &str, policies: Vec<Action>| Case::new(name).judged(policies);
    let (none, any) = (json!([]), json!([{}]));
    vec![
        case("egress rules make a policy of both directions", vec![policy("x", "one", both(&none, &to_y))]),
        case("both directions, different peers", vec![policy("x", "one", both(&any, &to_y))]),
        case("types left out, no rules", vec![policy("x", "one", json!({"podSelector": all}))]),
        case(
            "both types, no rules",
            vec![policy("x", "one", json!({"podSelector": all, "policyTypes": ["Egress", "Ingress"]}))],
        ),
        case(
            "the client may not leave, though the server lets it in",
            vec![
                of("client", &all, "egress", "Egress", &none),
                policy("y", "server", json!({"podSelector": all, "ingress": [{}]})),
            ],
        ),
        case(
            "the server lets nobody in, though the client may leave",
            vec![
                of("client", &all, "egress", "Egress", &any),
                policy("y", "server", json!({"podSelector": all})),
            ],
        ),
        case(
            "everything denied, and one peer allowed",
            vec![
                of("deny", &all, "ingress", "Ingress", &none),
                of("allow", &a, "ingress", "Ingress", &from_y),
            ],
        ),
        case(
            "everything denied, and everything allowed",
            vec![of("deny", &all, "egress", "Egress", &none), of("allow", &all, "egress", "Egress", &any)],
        ),
        case(
            "three policies of one pod add up",
            vec![
                of("one", &a, "ingress", "Ingress", &json!([{"ports": [{"port": 80}]}])),
                of("two", &a, "ingress", "Ingress", &json!([{"from": [{"podSelector": {}}]}])),
                of("three", &a, "ingress", "Ingress", &json!([{"ports": [{"protocol": "UDP", "port": 81}]}])),
            ],
        ),
    ]
}
