//! Kubernetes' own sig-network tests of NetworkPolicy ("Netpol"), by their names, over the nine pods:
//! changes, and what must be seen after each. Their tables are written down here, and the oracle must agree.

use std::net::IpAddr;

use serde_json::{Value, json};

use super::cases::{Case, change, delete, label_namespace, label_pod, policy};
use super::table::open;

/// Pods with that name.
fn pod(name: &str) -> Value {
    json!({"matchLabels": {"pod": name}})
}

/// Namespaces with that name.
fn ns(name: &str) -> Value {
    json!({"matchLabels": {"ns": name}})
}

/// Something whose label has one of those values.
fn any_of(key: &str, values: &[&str]) -> Value {
    json!({"matchExpressions": [{"key": key, "operator": "In", "values": values}]})
}

/// Pods a of the namespace let in what these rules say.
fn ingress(rules: Value) -> Value {
    json!({"podSelector": pod("a"), "policyTypes": ["Ingress"], "ingress": rules})
}

/// Pods a of the namespace reach what these rules say.
fn egress(rules: Value) -> Value {
    json!({"podSelector": pod("a"), "policyTypes": ["Egress"], "egress": rules})
}

fn from(peers: Value) -> Value {
    json!([{"from": peers}])
}

fn to(peers: Value) -> Value {
    json!([{"to": peers}])
}

/// All specs. `other` are the addresses of y/b.
pub(super) fn cases(other: &[IpAddr]) -> Vec<Case> {
    let mut cases = peers();
    cases.extend(selectors());
    cases.extend(ports());
    cases.extend(several());
    cases.extend(updates());
    cases.extend(leaving());
    cases.extend(blocks(other));
    cases
}

fn peers() -> Vec<Case> {
    let none = json!({"podSelector": {}, "policyTypes": ["Ingress"]});
    let both = json!({"podSelector": {}, "policyTypes": ["Ingress", "Egress"]});
    let only = |peer: &'static str| open().deny("*", "x/a", "").allow(peer, "x/a", "");
    vec![
        Case::new("should support a 'default-deny-ingress' policy")
            .step([policy("x", "deny", none.clone())], open().deny("*", "x/*", "")),
        Case::new("should support a 'default-deny-all' policy")
            .step([policy("x", "deny", both)], open().deny("*", "x/*", "").deny("x/*", "*", "")),
        Case::new("should enforce policy to allow traffic from pods within server namespace based on PodSelector")
            .step([policy("x", "allow", ingress(from(json!([{"podSelector": pod("c")}]))))], only("x/c")),
        Case::new("should enforce policy to allow ingress traffic for a target").step(
            [policy("x", "deny", none.clone()), policy("x", "allow", ingress(json!([{}])))],
            open().deny("*", "x/*", "").allow("*", "x/a", ""),
        ),
        Case::new("should enforce policy to allow ingress traffic from pods in all namespaces")
            .step([policy("x", "allow", ingress(from(json!([{"namespaceSelector": {}}]))))], open()),
        Case::new("should enforce policy to allow traffic only from a different namespace, based on NamespaceSelector")
            .step([policy("x", "allow", ingress(from(json!([{"namespaceSelector": ns("y")}]))))], only("y/*")),
        Case::new("should deny ingress from pods on other namespaces").step(
            [policy("x", "own", json!({"podSelector": {}, "ingress": from(json!([{"podSelector": {}}]))}))],
            open().deny("*", "x/*", "").allow("x/*", "x/*", ""),
        ),
        Case::new("should support allow-all policy")
            .step([policy("x", "allow", json!({"podSelector": {}, "ingress": [{}]}))], open()),
        Case::new("should stop enforcing policies after they are deleted")
            .step([policy("x", "deny", none.clone())], open().deny("*", "x/*", ""))
            .step([delete("x", "deny")], open()),
    ]
}

fn selectors() -> Vec<Case> {
    let only = |peer: &'static str| open().deny("*", "x/a", "").allow(peer, "x/a", "");
    let by = |name: &str, peers: Value| (Case::new(name), [policy("x", "allow", ingress(from(peers)))]);
    let made = [
        (
            by(
                "should enforce policy based on PodSelector with MatchExpressions",
                json!([{"podSelector": any_of("pod", &["b"])}]),
            ),
            only("x/b"),
        ),
        (
            by(
                "should enforce policy based on NamespaceSelector with MatchExpressions",
                json!([{"namespaceSelector": any_of("ns", &["y"])}]),
            ),
            only("y/*"),
        ),
        (
            by(
                "should enforce policy based on NamespaceSelector with MatchExpressions using default ns label",
                json!([{"namespaceSelector": any_of("kubernetes.io/metadata.name", &["y"])}]),
            ),
            only("y/*"),
        ),
        (
            by(
                "should enforce policy to allow traffic based on NamespaceSelector with MatchLabels using default ns label",
                json!([{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "y"}}}]),
            ),
            only("y/*"),
        ),
        (
            by(
                "should enforce policy based on PodSelector or NamespaceSelector",
                json!([{"namespaceSelector": any_of("ns", &["y", "z"])}, {"podSelector": pod("b")}]),
            ),
            only("*").deny("x/c", "x/a", ""),
        ),
        (
            by(
                "should enforce policy based on PodSelector and NamespaceSelector",
                json!([{"namespaceSelector": any_of("ns", &["y", "z"]), "podSelector": pod("b")}]),
            ),
            only("y/b").allow("z/b", "x/a", ""),
        ),
        (
            by(
                "should enforce policy based on Multiple PodSelectors and NamespaceSelectors",
                json!([{"namespaceSelector": any_of("ns", &["y", "z"]), "podSelector": any_of("pod", &["b", "c"])}]),
            ),
            only("*").deny("x/*", "x/a", "").deny("*/a", "x/a", ""),
        ),
        (
            by(
                "should enforce policy based on any PodSelectors",
                json!([{"podSelector": pod("b")}, {"podSelector": pod("c")}]),
            ),
            only("x/*"),
        ),
        (
            by(
                "should enforce policy to allow traffic only from a pod in a different namespace based on PodSelector and NamespaceSelector",
                json!([{"namespaceSelector": ns("y"), "podSelector": pod("a")}]),
            ),
            only("y/a"),
        ),
    ];
    made.into_iter().map(|((case, actions), expected)| case.step(actions, expected)).collect()
}

fn ports() -> Vec<Case> {
    let on = |ports: Value| ingress(json!([{"from": [{"namespaceSelector": ns("y")}], "ports": ports}]));
    let at = |ports: Value| egress(json!([{"ports": ports}]));
    let only = |way: &'static str| open().deny("*", "x/a", "").allow("y/*", "x/a", way);
    let leaves = |way: &'static str| open().deny("x/a", "*", "").allow("x/a", "*", way);
    vec![
        Case::new("should enforce policy based on Ports")
            .step([policy("x", "allow", on(json!([{"port": 81}])))], only("81/TCP")),
        Case::new("should enforce policy based on Ports [Feature:UDP]")
            .step([policy("x", "allow", on(json!([{"port": 81, "protocol": "UDP"}])))], only("81/UDP")),
        Case::new("should allow ingress access from namespace on one named port")
            .step([policy("x", "allow", on(json!([{"port": "serve-80-tcp"}])))], only("80/TCP")),
        Case::new("should allow ingress access on one named port").step(
            [policy("x", "allow", ingress(json!([{"ports": [{"port": "serve-81-tcp"}]}])))],
            open().deny("*", "x/a", "").allow("*", "x/a", "81/TCP"),
        ),
        Case::new("should allow egress access on one named port")
            .step([policy("x", "allow", at(json!([{"port": "serve-80-tcp"}])))], leaves("80/TCP")),
        Case::new("should allow egress access on one named port, which is another port in other pods").step(
            [policy("x", "allow", at(json!([{"port": "web"}])))],
            leaves("80/TCP").deny("x/a", "*/c", "").allow("x/a", "*/c", "81/TCP"),
        ),
        Case::new("should enforce ingress policy allowing any port traffic to a server on a specific protocol")
            .step([policy("x", "allow", on(json!([{"protocol": "UDP"}])))], only("UDP")),
        Case::new("should enforce a range of ports [Feature:NetworkPolicyEndPort]")
            .step([policy("x", "allow", on(json!([{"port": 81, "endPort": 90}])))], only("81/TCP"))
            .step([change("x", "allow", on(json!([{"port": 1, "endPort": 81}])))], only("TCP")),
        Case::new(
            "should not mistakenly treat 'protocol: SCTP' as 'protocol: TCP', even if the plugin doesn't support SCTP",
        )
        .step(
            [
                policy("x", "deny", json!({"podSelector": {}})),
                policy("x", "allow", ingress(json!([{"ports": [{"port": 81, "protocol": "SCTP"}]}]))),
            ],
            open().deny("*", "x/*", ""),
        ),
        Case::new("should not allow access by TCP when a policy specifies only UDP")
            .step([policy("x", "allow", on(json!([{"port": 80, "protocol": "UDP"}])))], only("80/UDP")),
        Case::new(
            "should properly isolate pods that are selected by a policy allowing SCTP, even if the plugin doesn't support SCTP",
        )
        .step(
            [policy("x", "allow", on(json!([{"port": 80, "protocol": "SCTP"}])))],
            open().deny("*", "x/a", ""),
        ),
    ]
}

fn several() -> Vec<Case> {
    let y = |port: u16| json!([{"from": [{"namespaceSelector": ns("y")}], "ports": [{"port": port}]}]);
    let of = |pods: &[&str], rules: Value| json!({"podSelector": any_of("pod", pods), "ingress": rules});
    let nothing = |kind: &str| json!({"podSelector": {}, "policyTypes": [kind]});
    vec![
        Case::new("should enforce multiple, stacked policies with overlapping podSelectors")
            .step([policy("x", "one", ingress(y(80)))], open().deny("*", "x/a", "").allow("y/*", "x/a", "80/TCP"))
            .step(
                [policy("x", "two", of(&["a", "b"], y(81)))],
                open()
                    .deny("*", "x/a", "")
                    .deny("*", "x/b", "")
                    .allow("y/*", "x/a", "TCP")
                    .allow("y/*", "x/b", "81/TCP"),
            ),
        Case::new("should enforce multiple ingress policies with ingress allow-all policy taking precedence")
            .step([policy("x", "deny", nothing("Ingress"))], open().deny("*", "x/*", ""))
            .step([policy("x", "allow", json!({"podSelector": {}, "ingress": [{}]}))], open()),
        Case::new("should enforce multiple egress policies with egress allow-all policy taking precedence")
            .step([policy("x", "deny", nothing("Egress"))], open().deny("x/*", "*", ""))
            .step(
                [policy("x", "allow", json!({"podSelector": {}, "policyTypes": ["Egress"], "egress": [{}]}))],
                open(),
            ),
        Case::new("should work with Ingress, Egress specified together").step(
            [policy(
                "x",
                "both",
                json!({"podSelector": pod("a"), "policyTypes": ["Ingress", "Egress"],
                    "ingress": from(json!([{"namespaceSelector": {}, "podSelector": pod("b")}])),
                    "egress": [{"ports": [{"port": 80}]}]}),
            )],
            open()
                .deny("*", "x/a", "")
                .allow("*/b", "x/a", "")
                .deny("x/a", "*", "")
                .allow("x/a", "*", "80/TCP"),
        ),
        Case::new(
            "should enforce policies to check ingress and egress policies can be controlled independently based on PodSelector",
        )
        .step(
            [
                policy("x", "in", ingress(json!([{}]))),
                policy("x", "out", egress(json!([]))),
                policy("y", "in", ingress(json!([]))),
                policy("y", "out", egress(json!([{}]))),
            ],
            open().deny("x/a", "*", "").deny("*", "y/a", ""),
        ),
        Case::new(
            "should support denying of egress traffic on the client side (even if the server explicitly allows this traffic)",
        )
        .step(
            [
                policy("x", "out", egress(to(json!([{"namespaceSelector": ns("y"), "podSelector": pod("a")}])))),
                policy("y", "in", json!({"podSelector": any_of("pod", &["a", "b"]), "ingress": from(json!([{"namespaceSelector": ns("x"), "podSelector": pod("a")}]))})),
            ],
            open()
                .deny("x/a", "*", "")
                .deny("*", "y/a", "")
                .deny("*", "y/b", "")
                .allow("x/a", "y/a", ""),
        ),
    ]
}

fn updates() -> Vec<Case> {
    let only = |peer: &'static str| open().deny("*", "x/a", "").allow(peer, "x/a", "");
    let none = || open().deny("*", "x/a", "");
    let peer = |namespaces: Value, pods: Value| {
        ingress(from(json!([{"namespaceSelector": namespaces, "podSelector": pods}])))
    };
    let new = json!({"matchLabels": {"pod2": "updated"}});
    let target = json!({"podSelector": new, "policyTypes": ["Ingress"]});
    vec![
        Case::new("should enforce updated policy")
            .step([policy("x", "it", ingress(json!([{}])))], open())
            .step([change("x", "it", json!({"ingress": []}))], none())
            .step(
                [change("x", "it", json!({"ingress": [{"ports": [{"port": 80}]}]}))],
                none().allow("*", "x/a", "80/TCP"),
            )
            .step(
                [change("x", "it", json!({"podSelector": {"matchLabels": {"pod": "b"}}}))],
                open().deny("*", "x/b", "").allow("*", "x/b", "80/TCP"),
            ),
        Case::new("should allow ingress access from updated namespace")
            .step([policy("x", "it", peer(json!({"matchLabels": {"ns2": "updated"}}), json!({})))], none())
            .step([label_namespace("y", json!({"ns2": "updated"}))], only("y/*"))
            .step([label_namespace("y", json!({"ns2": null}))], none())
            .undo([label_namespace("y", json!({"ns2": null}))]),
        Case::new("should allow ingress access from updated pod")
            .step([policy("x", "it", peer(json!({}), new.clone()))], none())
            .step([label_pod("x", "b", json!({"pod2": "updated"}))], only("x/b"))
            .step([label_pod("z", "c", json!({"pod2": "updated"}))], only("x/b").allow("z/c", "x/a", ""))
            .undo([label_pod("x", "b", json!({"pod2": null})), label_pod("z", "c", json!({"pod2": null}))]),
        Case::new("should deny ingress access to updated pod")
            .step([policy("x", "it", target)], open())
            .step([label_pod("x", "a", json!({"pod2": "updated"}))], none())
            .step([label_pod("x", "a", json!({"pod2": null}))], open())
            .undo([label_pod("x", "a", json!({"pod2": null}))]),
    ]
}

fn leaving() -> Vec<Case> {
    let peer = json!([{"namespaceSelector": ns("y"), "podSelector": pod("a")}]);
    vec![
        Case::new("should deny egress from pods based on PodSelector")
            .step([policy("x", "deny", egress(json!([])))], open().deny("x/a", "*", "")),
        Case::new("should deny egress from all pods in a namespace").step(
            [policy("x", "deny", json!({"podSelector": {}, "policyTypes": ["Egress"]}))],
            open().deny("x/*", "*", ""),
        ),
        Case::new(
            "should enforce egress policy allowing traffic to a server in a different namespace based on PodSelector and NamespaceSelector",
        )
        .step([policy("x", "allow", egress(to(peer)))], open().deny("x/a", "*", "").allow("x/a", "y/a", "")),
    ]
}

/// `ipBlock`, of both families at once.
fn blocks(other: &[IpAddr]) -> Vec<Case> {
    let own = |ip: &IpAddr| format!("{ip}/{}", if ip.is_ipv4() { 32 } else { 128 });
    let all = |ip: &IpAddr| if ip.is_ipv4() { "0.0.0.0/0" } else { "::/0" };
    let each = |block: &dyn Fn(&IpAddr) -> Value| -> Vec<Value> {
        other.iter().map(|ip| json!({"ipBlock": block(ip)})).collect()
    };
    let only = each(&|ip| json!({"cidr": own(ip)}));
    let all_but = each(&|ip| json!({"cidr": all(ip), "except": [own(ip)]}));
    let with_exception = egress(to(json!(all_but)));
    let overlap = egress(to(json!([all_but.clone(), only.clone()].concat())));
    vec![
        Case::new("should allow egress access to server in CIDR block").step(
            [policy("x", "allow", egress(to(json!(only))))],
            open().deny("x/a", "*", "").allow("x/a", "y/b", ""),
        ),
        Case::new("should enforce except clause while egress access to server in CIDR block")
            .step([policy("x", "allow", with_exception.clone())], open().deny("x/a", "y/b", "")),
        Case::new("should ensure an IP overlapping both IPBlock.CIDR and IPBlock.Except is allowed")
            .step([policy("x", "allow", with_exception)], open().deny("x/a", "y/b", ""))
            .step([change("x", "allow", overlap)], open()),
    ]
}
