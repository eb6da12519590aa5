//! network-policy-api's conformance tests of ClusterNetworkPolicy, by their short names, over the nine pods.
//! Its four houses are namespace x (whose policies these are), namespace y, pod z/b and pod z/c. Those of
//! SCTP need sockets that a lab's kernel has not.

use serde_json::{Value, json};

use super::cases::{Action, Case, cluster_policy, delete, policy};
use super::table::{Expectation, open};
use crate::api::collection;

const RAVENCLAW: &str = "y/*";
const SLYTHERIN: &str = "z/b";
const HUFFLEPUFF: &str = "z/c";

/// A way of traffic, as field of a policy.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Direction {
    Ingress,
    Egress,
}

const BOTH: [Direction; 2] = [Direction::Ingress, Direction::Egress];

/// Traffic that the rules with ports are about: its name in the tests, its fields, port 80 and port 81 of it,
/// and its protocols.
type Traffic = (&'static str, &'static [&'static str], [&'static str; 2]);

const TRAFFIC: [Traffic; 2] =
    [("TCP", &["tcp"], ["80/TCP", "81/TCP"]), ("UDP", &["udp"], ["80/UDP", "81/UDP"])];
const ALL: Traffic = ("", &["tcp", "udp"], ["80", "81"]);

impl Direction {
    fn field(self) -> &'static str {
        if self == Direction::Ingress { "ingress" } else { "egress" }
    }

    fn name(self) -> &'static str {
        if self == Direction::Ingress { "Ingress" } else { "Egress" }
    }

    fn rule(self, action: &str, house: &str, protocols: Value) -> Value {
        let (namespace, pod) = house.split_once('/').unwrap_or((house, "*"));
        let namespaces = json!({"matchLabels": {"ns": namespace}});
        let peer = match pod {
            "*" => json!({"namespaces": namespaces}),
            pod => {
                json!({"pods": {"namespaceSelector": namespaces, "podSelector": {"matchLabels": {"pod": pod}}}})
            }
        };
        let mut rule = json!({"action": action});
        rule[if self == Direction::Ingress { "from" } else { "to" }] = json!([peer]);
        if !protocols.is_null() {
            rule["protocols"] = protocols;
        }
        rule
    }

    fn deny(self, table: Expectation, house: &'static str, ways: &'static str) -> Expectation {
        match self {
            Direction::Ingress => table.deny(house, "x/*", ways),
            Direction::Egress => table.deny("x/*", house, ways),
        }
    }

    fn allow(self, table: Expectation, house: &'static str, ways: &'static str) -> Expectation {
        match self {
            Direction::Ingress => table.allow(house, "x/*", ways),
            Direction::Egress => table.allow("x/*", house, ways),
        }
    }
}

/// The rules of the tests, in their order.
fn rules(direction: Direction, (_, fields, _): Traffic) -> Vec<Value> {
    let at = |port: u16| -> Value {
        fields.iter().map(|field| json!({*field: {"destinationPort": {"number": port}}})).collect()
    };
    let rule = |action: &str, house: &str, protocols: Value| direction.rule(action, house, protocols);
    vec![
        rule("Accept", RAVENCLAW, Value::Null),
        rule("Deny", RAVENCLAW, Value::Null),
        rule("Pass", RAVENCLAW, Value::Null),
        rule("Deny", SLYTHERIN, at(80)),
        rule("Pass", SLYTHERIN, at(80)),
        rule("Accept", HUFFLEPUFF, at(81)),
        rule("Deny", HUFFLEPUFF, Value::Null),
    ]
}

/// What the rules at the end say, whatever comes before.
fn ports(directions: &[Direction], (_, _, [_, other]): Traffic) -> Expectation {
    directions.iter().fold(open(), |table, direction| {
        let table = direction.deny(table, HUFFLEPUFF, "");
        direction.allow(table, HUFFLEPUFF, other)
    })
}

fn denied(
    table: Expectation,
    directions: &[Direction],
    house: &'static str,
    ways: &'static str,
) -> Expectation {
    directions.iter().fold(table, |table, direction| direction.deny(table, house, ways))
}

/// A policy with the rules of these directions, after a change of their order.
fn spec(tier: &str, directions: &[Direction], traffic: Traffic, swap: Option<(usize, usize)>) -> Value {
    let mut spec = json!({"tier": tier});
    for direction in directions {
        let mut rules = rules(*direction, traffic);
        swap.iter().for_each(|&(one, other)| rules.swap(one, other));
        // The Baseline tier has nothing to pass to.
        rules.retain(|rule| tier == "Admin" || rule["action"] != "Pass");
        spec[direction.field()] = rules.into();
    }
    spec
}

fn change(name: &str, spec: Value) -> Action {
    Action::Merge(format!("{}/{name}", collection("", "clusternetworkpolicies")), json!({"spec": spec}))
}

/// CNP{Admin,Baseline}Tier{Ingress,Egress,Gress}{TCP,UDP,}: allow, deny and pass, in the order of rules and
/// at ports.
fn orders(tier: &'static str, name: &str, directions: &'static [Direction], traffic: Traffic) -> Case {
    let [port, _] = traffic.2;
    let with = |swap| change("guard", spec(tier, directions, traffic, Some(swap)));
    let slytherin = || denied(ports(directions, traffic), directions, SLYTHERIN, port);
    let case = Case::new(format!("CNP{tier}Tier{name}{}", traffic.0))
        .step([cluster_policy("guard", 6, &["x"], spec(tier, directions, traffic, None))], slytherin())
        .step([with((0, 1))], denied(slytherin(), directions, RAVENCLAW, ""));
    match tier {
        "Admin" => case.step([with((0, 2))], slytherin()).step([with((3, 4))], ports(directions, traffic)),
        _ => case,
    }
}

pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for tier in ["Admin", "Baseline"] {
        for traffic in TRAFFIC {
            cases.push(orders(tier, "Ingress", &[Direction::Ingress], traffic));
            cases.push(orders(tier, "Egress", &[Direction::Egress], traffic));
        }
        cases.push(orders(tier, "Gress", &BOTH, ALL));
        cases.extend(named_ports(tier));
        cases.push(networks(tier));
        cases.push(same_priority(tier));
        cases.extend(one_direction(tier));
        cases.push(pod_selectors(tier));
        cases.push(ranges_of_ports(tier));
    }
    cases.push(priority());
    cases.push(integration());
    cases
}

/// The rule at port 81 becomes one for a named port.
fn named_ports(tier: &str) -> Vec<Case> {
    let case = |direction: Direction| {
        let mut spec = spec(tier, &[direction], TRAFFIC[0], None);
        let rules = spec[direction.field()].as_array_mut().into_iter().flatten();
        for rule in rules.filter(|rule| rule["action"] == "Accept" && !rule["protocols"].is_null()) {
            rule["protocols"] = json!([{"destinationNamedPort": "serve-80-tcp"}]);
        }
        let table = direction.deny(denied(open(), &[direction], SLYTHERIN, "80/TCP"), HUFFLEPUFF, "");
        Case::new(format!("CNP{tier}Tier{}NamedPort", direction.name()))
            .step([cluster_policy("guard", 6, &["x"], spec)], direction.allow(table, HUFFLEPUFF, "80/TCP"))
    };
    BOTH.map(case).into()
}

/// Pods are allowed before all addresses are denied.
fn networks(tier: &str) -> Case {
    let all = json!({"action": "Deny", "to": [{"networks": ["0.0.0.0/0", "::/0"]}]});
    let spec =
        json!({"tier": tier, "egress": [Direction::Egress.rule("Accept", SLYTHERIN, Value::Null), all]});
    Case::new(format!("CNP{tier}TierEgressInlineCIDRPeers")).step(
        [cluster_policy("guard", 85, &["x"], spec)],
        open().deny("x/*", "*", "").allow("x/*", SLYTHERIN, ""),
    )
}

/// A rule each way that denies TCP with that house at a port.
fn denies(tier: &str, house: &str, port: u16) -> Value {
    let ports = json!([{"tcp": {"destinationPort": {"number": port}}}]);
    let rule = |direction: Direction| json!([direction.rule("Deny", house, ports.clone())]);
    json!({"tier": tier, "ingress": rule(Direction::Ingress), "egress": rule(Direction::Egress)})
}

/// Policies of one priority all hold: of the same subject about other peers, and of other subjects about the
/// same peer.
fn same_priority(tier: &str) -> Case {
    let mut of_hufflepuff = denies(tier, SLYTHERIN, 81);
    of_hufflepuff["subject"] = subject("z", "c");
    let expected =
        [(SLYTHERIN, "x/*", "80/TCP"), (HUFFLEPUFF, "x/*", "80/TCP"), (SLYTHERIN, HUFFLEPUFF, "81/TCP")];
    let policies = [
        cluster_policy("gryffindor-slytherin", 5, &["x"], denies(tier, SLYTHERIN, 80)),
        cluster_policy("gryffindor-hufflepuff", 5, &["x"], denies(tier, HUFFLEPUFF, 80)),
        cluster_policy("hufflepuff-slytherin", 5, &["z"], of_hufflepuff),
    ];
    let table = expected
        .into_iter()
        .fold(open(), |table, (one, other, way)| table.deny(one, other, way).deny(other, one, way));
    Case::new(format!("CNP{tier}TierSamePriority")).step(policies, table)
}

/// Rules for one direction say nothing about the other one.
fn one_direction(tier: &'static str) -> [Case; 2] {
    BOTH.map(|direction| {
        let other = BOTH.into_iter().find(|other| *other != direction).map_or("", Direction::name);
        let name = format!("CNP{tier}Tier{}Rules{other}Unaffected", direction.name());
        let spec = json!({"tier": tier, direction.field(): [direction.rule("Deny", SLYTHERIN, Value::Null)]});
        let table = denied(open(), &[direction], SLYTHERIN, "");
        Case::new(name).step([cluster_policy("guard", 5, &["x"], spec)], table)
    })
}

/// A subject, or a peer, by the labels of pods; the namespace's may be left out.
fn subject(namespace: &str, pod: &str) -> Value {
    let mut pods = json!({"podSelector": {"matchLabels": {"pod": pod}}});
    if !namespace.is_empty() {
        pods["namespaceSelector"] = json!({"matchLabels": {"ns": namespace}});
    }
    json!({"pods": pods})
}

fn pod_selectors(tier: &str) -> Case {
    let deny = |peers: &str, peer: Value| json!({"action": "Deny", peers: [peer]});
    let by_label = json!({"tier": tier, "subject": subject("", "a"),
        "egress": [deny("to", subject("", "b")), deny("to", subject("z", "c"))],
        "ingress": [deny("from", subject("", "b")), deny("from", subject("z", "c"))]});
    let of_one =
        json!({"tier": tier, "subject": subject("y", "c"), "egress": [deny("to", subject("z", "b"))]});
    let table = ["*/b", HUFFLEPUFF]
        .into_iter()
        .fold(open(), |table, peer| table.deny("*/a", peer, "").deny(peer, "*/a", ""));
    Case::new(format!("CNP{tier}TierPodSelector")).step(
        [cluster_policy("by-label", 5, &[], by_label), cluster_policy("of-one", 5, &[], of_one)],
        table.deny("y/c", SLYTHERIN, ""),
    )
}

fn ranges_of_ports(tier: &str) -> Case {
    let range = |protocol: &str, start: u16, end: u16| json!([{(protocol): {"destinationPort": {"range": {"start": start, "end": end}}}}]);
    let mut spec = json!({"tier": tier});
    let mut table = open().deny("x/*", "*", "").deny("*", "x/*", "");
    for direction in BOTH {
        let peers = if direction == Direction::Ingress { "from" } else { "to" };
        spec[direction.field()] = json!([
            direction.rule("Accept", RAVENCLAW, range("tcp", 80, 8080)),
            direction.rule("Accept", HUFFLEPUFF, range("udp", 81, 5353)),
            {"action": "Deny", peers: [{"namespaces": {}}]},
        ]);
        table = direction.allow(direction.allow(table, RAVENCLAW, "TCP"), HUFFLEPUFF, "81/UDP");
    }
    Case::new(format!("CNP{tier}TierPortRange")).step([cluster_policy("guard", 5, &["x"], spec)], table)
}

/// One rule each way about that house.
fn both_ways(tier: &str, action: &str, house: &str) -> Value {
    let rule = |direction: Direction| json!([direction.rule(action, house, Value::Null)]);
    json!({"tier": tier, "ingress": rule(Direction::Ingress), "egress": rule(Direction::Egress)})
}

fn priority() -> Case {
    let closed = || denied(open(), &BOTH, SLYTHERIN, "");
    Case::new("CNPAdminTierPriorityField")
        .step(
            [
                cluster_policy("fifty", 50, &["x"], both_ways("Admin", "Deny", SLYTHERIN)),
                cluster_policy("sixty", 60, &["x"], both_ways("Admin", "Pass", SLYTHERIN)),
                cluster_policy("default", 10, &["x"], both_ways("Baseline", "Accept", SLYTHERIN)),
            ],
            closed(),
        )
        .step([change("sixty", json!({"priority": 40}))], open())
}

/// Admin tier, NetworkPolicy and Baseline tier, one behind the other.
fn integration() -> Case {
    let own = json!([{"namespaceSelector": {"matchLabels": {"ns": "z"}}, "podSelector": {"matchLabels": {"pod": "b"}}}]);
    let allow = json!({"podSelector": {}, "policyTypes": ["Ingress", "Egress"],
        "ingress": [{"from": own}], "egress": [{"to": own}]});
    let isolated = || open().deny("*", "x/*", "").deny("x/*", "*", "");
    let passing = |direction: Direction| {
        let rule = direction.rule("Pass", SLYTHERIN, Value::Null);
        change("pass-example", json!({direction.field(): [rule]}))
    };
    Case::new("CNPAdminTierIntegration")
        .step(
            [
                cluster_policy("pass-example", 10, &["x"], both_ways("Admin", "Deny", SLYTHERIN)),
                policy("x", "allow-gress", allow),
                cluster_policy("default", 10, &["x"], both_ways("Baseline", "Deny", SLYTHERIN)),
            ],
            isolated(),
        )
        .step([passing(Direction::Ingress)], isolated().allow(SLYTHERIN, "x/*", ""))
        .step(
            [passing(Direction::Egress)],
            isolated().allow(SLYTHERIN, "x/*", "").allow("x/*", SLYTHERIN, ""),
        )
        .step([delete("x", "allow-gress")], denied(open(), &BOTH, SLYTHERIN, ""))
}
