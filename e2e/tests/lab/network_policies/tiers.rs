//! ClusterNetworkPolicies: tiers, priorities, actions, subjects and peers, after network-policy-api's
//! conformance tests.

use serde_json::{Value, json};

use super::cases::{Action, Case, cluster_policy, policy};
use super::table::open;

/// Rules about what comes in: actions, and namespaces that they are about.
fn ingress(rules: &[(&str, &str)]) -> Value {
    let rule = |&(action, from): &(&str, &str)| json!({"action": action, "from": [{"namespaces": {"matchLabels": {"ns": from}}}]});
    json!({"ingress": rules.iter().map(rule).collect::<Vec<_>>()})
}

/// The same, of another tier.
fn baseline(mut spec: Value) -> Value {
    spec["tier"] = json!("Baseline");
    spec
}

/// A rule for everything in all namespaces.
fn everything(action: &str) -> Value {
    json!({"ingress": [{"action": action, "from": [{"namespaces": {}}]}]})
}

/// A NetworkPolicy that isolates all of x and lets nothing in.
fn isolated() -> Action {
    policy("x", "deny", json!({"podSelector": {}}))
}

pub(super) fn cases() -> Vec<Case> {
    let mut cases = tiers();
    cases.extend(peers_and_ports());
    cases
}

fn tiers() -> Vec<Case> {
    let x = &["x"][..];
    let closed = || open().deny("*", "x/*", "");
    vec![
        Case::new("Admin tier: Deny comes before what NetworkPolicies allow").step(
            [
                cluster_policy("guard", 10, x, ingress(&[("Deny", "y")])),
                policy("x", "allow", json!({"podSelector": {}, "ingress": [{}]})),
            ],
            open().deny("y/*", "x/*", ""),
        ),
        Case::new("Admin tier: Accept comes before the isolation by NetworkPolicies").step(
            [cluster_policy("guard", 10, x, ingress(&[("Accept", "y")])), isolated()],
            closed().allow("y/*", "x/*", ""),
        ),
        Case::new("Admin tier: Pass leaves it to NetworkPolicies, before later rules").step(
            [
                cluster_policy("guard", 10, x, ingress(&[("Pass", "y"), ("Deny", "y"), ("Deny", "z")])),
                policy("x", "b", json!({"podSelector": {"matchLabels": {"pod": "b"}}})),
            ],
            open().deny("z/*", "x/*", "").deny("*", "x/b", ""),
        ),
        Case::new("Admin tier: of two policies the lower priority counts")
            .step(
                [cluster_policy("late", 20, x, ingress(&[("Deny", "y"), ("Deny", "z")]))],
                open().deny("y/*", "x/*", "").deny("z/*", "x/*", ""),
            )
            .step(
                [cluster_policy("early", 10, x, ingress(&[("Accept", "y")]))],
                open().deny("z/*", "x/*", ""),
            ),
        Case::new("Admin tier: of two rules the first counts").step(
            [cluster_policy("guard", 10, x, ingress(&[("Accept", "y"), ("Deny", "y"), ("Deny", "z")]))],
            open().deny("z/*", "x/*", ""),
        ),
        Case::new("Baseline tier: Deny holds where no NetworkPolicy isolates")
            .step([cluster_policy("base", 10, x, baseline(everything("Deny")))], closed())
            .step(
                [policy("x", "a", json!({"podSelector": {"matchLabels": {"pod": "a"}}, "ingress": [{}]}))],
                closed().allow("*", "x/a", ""),
            ),
        Case::new("Baseline tier: what the Admin tier passes comes to it").step(
            [
                cluster_policy("guard", 10, x, ingress(&[("Pass", "y"), ("Accept", "z")])),
                cluster_policy("base", 10, x, baseline(everything("Deny"))),
            ],
            closed().allow("z/*", "x/*", ""),
        ),
    ]
}

fn peers_and_ports() -> Vec<Case> {
    let x = &["x"][..];
    let pods = json!({"pods": {"namespaceSelector": {"matchLabels": {"ns": "y"}}, "podSelector": {"matchLabels": {"pod": "b"}}}});
    let on = |protocols: Value| json!({"ingress": [{"action": "Deny", "from": [{"namespaces": {}}], "protocols": protocols}]});
    let denied = |way: &'static str| open().deny("*", "x/*", way);
    let case = |name: &str, spec: Value| (Case::new(name), [cluster_policy("guard", 10, x, spec)]);
    let made = [
        (
            case("peers by namespace and pod", json!({"ingress": [{"action": "Deny", "from": [pods]}]})),
            open().deny("y/b", "x/*", ""),
        ),
        (
            case("egress to pods", json!({"egress": [{"action": "Deny", "to": [pods]}]})),
            open().deny("x/*", "y/b", ""),
        ),
        (case("a port", on(json!([{"tcp": {"destinationPort": {"number": 80}}}]))), denied("80/TCP")),
        (
            case(
                "a range of ports",
                on(json!([{"udp": {"destinationPort": {"range": {"start": 81, "end": 90}}}}])),
            ),
            denied("81/UDP"),
        ),
        (case("a protocol", on(json!([{"udp": {}}]))), denied("UDP")),
        (
            case("a named port of any protocol", on(json!([{"destinationNamedPort": "serve-81-udp"}]))),
            denied("81/UDP"),
        ),
        (
            case(
                "networks of all addresses",
                json!({"egress": [{"action": "Deny", "to": [{"networks": ["0.0.0.0/0", "::/0"]}]}]}),
            ),
            open().deny("x/*", "*", ""),
        ),
        // Peers by nodes are addresses of nodes, never of their pods.
        (
            case("nodes are not their pods", json!({"egress": [{"action": "Deny", "to": [{"nodes": {}}]}]})),
            open(),
        ),
    ];
    made.into_iter().map(|((case, actions), expected)| case.step(actions, expected)).collect()
}
