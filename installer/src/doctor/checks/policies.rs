//! Network policies: whether somebody enforces them, which pods wait for theirs, and which keep pods from DNS.

use std::collections::BTreeMap;

use serde_json::Value;

use super::dns::dns_pods;
use super::lookup::{is_live, key, labels, list, namespace, selects, some, texts};
use crate::cluster::{NAMESPACE, name};
use crate::doctor::facts::Facts;
use crate::finding::{Finding, Id};

/// Where DNS servers listen.
const DNS: u64 = 53;

pub(super) fn check(facts: &Facts) -> Vec<Finding> {
    let mut findings: Vec<Finding> = waiting(facts).collect();
    findings.extend(unenforced(facts));
    findings.extend(without_dns(facts));
    findings
}

fn unenforced(facts: &Facts) -> Option<Finding> {
    let first = facts.policies.first()?;
    let nodes: Vec<&str> =
        facts.machines().filter(|(_, machine)| !machine.enforces_policies).map(|(node, _)| node).collect();
    if nodes.is_empty() {
        return None;
    }
    let what = format!(
        "their agents enforce no network policies, and the cluster has {} of them, as {}: what these deny is allowed there, \
         unless another engine runs",
        facts.policies.len(),
        key(first)
    );
    let reach = nodes.iter().map(|node| facts.pods_on(node)).sum::<usize>();
    let finding = Finding::warning(Id::PoliciesNotEnforced, format!("Nodes {}", nodes.join(", ")), what);
    Some(
        finding
            .reach(reach)
            .fix("Give the agents --network-policy=true, or run weft install without --network-policy=false"),
    )
}

fn waiting(facts: &Facts) -> impl Iterator<Item = Finding> {
    facts.machines().filter(|(_, machine)| !machine.pending_pods.is_empty()).map(|(node, machine)| {
        let pods = &machine.pending_pods;
        let what =
            format!("pods that wait for their network policies, and are closed until then: {}", some(pods));
        let fix =
            format!("See what the agent there says: kubectl -n {NAMESPACE} logs of it, and weft status");
        Finding::error(Id::PoliciesPending, format!("Node {node}"), what).reach(pods.len()).fix(fix)
    })
}

/// Pods without names rarely work; some policies mean just that.
fn without_dns(facts: &Facts) -> Vec<Finding> {
    let servers: Vec<&Value> = dns_pods(facts).collect();
    // A pod always reaches its own node, and a DNS server there.
    if facts.daemon_sets.iter().any(|set| name(set) == "weft-dns-node") {
        return Vec::new();
    }
    if !facts.agents.is_empty() && facts.machines().all(|(_, machine)| !machine.enforces_policies) {
        return Vec::new();
    }
    let mut denied: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let asks = |pod: &&Value| {
        is_live(pod)
            && pod["spec"]["hostNetwork"] != true
            && !["Default", "None"].iter().any(|policy| pod["spec"]["dnsPolicy"] == *policy)
    };
    for pod in facts.pods.iter().filter(asks) {
        let own: Vec<&Value> = facts.policies.iter().filter(|policy| isolates(policy, pod)).collect();
        if own.is_empty() || own.iter().any(|policy| lets_to_dns(facts, policy, &servers)) {
            continue;
        }
        let names: Vec<&str> = own.iter().map(|policy| name(policy)).collect();
        denied.entry(format!("{} {}", namespace(pod), names.join(", "))).or_default().push(key(pod));
    }
    let finding = |(policies, pods): (String, Vec<String>)| {
        let (namespace, names) = policies.split_once(' ').unwrap_or_default();
        let first = names.split(", ").next().unwrap_or_default();
        let what = format!(
            "it lets pods ask no DNS server: {} find no name, and connections by name fail (policies of these pods: {names})",
            some(&pods)
        );
        let fix = format!(
            "Allow egress to port 53 over UDP and TCP of namespace {NAMESPACE}: another NetworkPolicy in {namespace} with \
             egress: [{{to: [{{namespaceSelector: {{}}}}], ports: [{{port: 53, protocol: UDP}}, {{port: 53, protocol: TCP}}]}}]"
        );
        Finding::warning(Id::DnsDenied, format!("NetworkPolicy {namespace}/{first}"), what)
            .reach(pods.len())
            .fix(fix)
    };
    denied.into_iter().map(finding).collect()
}

/// Whether a policy is about what a pod sends.
fn isolates(policy: &Value, pod: &Value) -> bool {
    let spec = &policy["spec"];
    // Without types, it is where there are rules for it.
    let types = &spec["policyTypes"];
    let is_egress = match types.is_array() {
        true => texts(types).any(|one| one == "Egress"),
        false => list(&spec["egress"]).next().is_some(),
    };
    is_egress && namespace(policy) == namespace(pod) && selects(&spec["podSelector"], labels(pod))
}

/// What is not certain counts as allowed: ranges of addresses.
fn lets_to_dns(facts: &Facts, policy: &Value, servers: &[&Value]) -> bool {
    list(&policy["spec"]["egress"]).any(|rule| {
        let ports: Vec<&Value> = list(&rule["ports"]).collect();
        let peers: Vec<&Value> = list(&rule["to"]).collect();
        (ports.is_empty() || ports.iter().any(|port| is_dns(port)))
            && (peers.is_empty() || peers.iter().any(|peer| is_server(facts, policy, peer, servers)))
    })
}

fn is_dns(port: &Value) -> bool {
    let is_udp = port["protocol"].as_str().unwrap_or("TCP") == "UDP";
    let holds = match (&port["port"], port["endPort"].as_u64()) {
        (Value::Null, _) => true,
        (Value::Number(first), Some(last)) => first.as_u64().is_some_and(|first| first <= DNS) && last >= DNS,
        (Value::Number(number), None) => number.as_u64() == Some(DNS),
        // What the pods call it.
        (Value::String(name), _) => name.contains("dns"),
        _ => false,
    };
    is_udp && holds
}

fn is_server(facts: &Facts, policy: &Value, peer: &Value, servers: &[&Value]) -> bool {
    if peer["ipBlock"].is_object() {
        return true;
    }
    let is_selected = match &peer["namespaceSelector"] {
        Value::Null => namespace(policy) == NAMESPACE,
        selector => facts
            .namespaces
            .iter()
            .find(|namespace| name(namespace) == NAMESPACE)
            .is_some_and(|namespace| selects(selector, labels(namespace))),
    };
    let selector = &peer["podSelector"];
    // Servers that are no pods here have the labels that everybody's have.
    let is_pod =
        selector.is_null() || servers.is_empty() || servers.iter().any(|pod| selects(selector, labels(pod)));
    is_selected && is_pod
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::tests::{after, machine_of, only};
    use super::*;

    fn policy(egress: Value) -> impl FnOnce(&mut Facts) {
        let policy = json!({"metadata": {"namespace": "shop", "name": "deny"},
            "spec": {"podSelector": {}, "policyTypes": ["Egress"], "egress": egress}});
        |facts| facts.policies.push(policy)
    }

    #[test]
    fn a_policy_that_keeps_pods_from_dns_is_named_with_them() {
        let finding = only(Id::DnsDenied, policy(json!([])));
        assert_eq!(finding.subject, "NetworkPolicy shop/deny");
        assert!(finding.what.contains("shop/web-0"), "{finding}");
        let to_others =
            json!([{"to": [{"podSelector": {"matchLabels": {"app": "db"}}}]}, {"ports": [{"port": 443}]}]);
        only(Id::DnsDenied, policy(to_others));
        let elsewhere = json!([{"to": [{"namespaceSelector": {"matchLabels": {"team": "a"}}}]}]);
        only(Id::DnsDenied, policy(elsewhere));
    }

    #[test]
    fn what_lets_pods_to_dns_in_whatever_way_is_silent() {
        let dns = json!([{"port": 53, "protocol": "UDP"}]);
        let system = json!({"matchLabels": {"kubernetes.io/metadata.name": "kube-system"}});
        for egress in [
            json!([{}]),
            json!([{"ports": dns}]),
            json!([{"ports": [{"protocol": "UDP", "port": 1, "endPort": 1000}]}]),
            json!([{"to": [{"namespaceSelector": {}}]}]),
            json!([{"to": [{"namespaceSelector": system, "podSelector": {"matchLabels": {"k8s-app": "kube-dns"}}}], "ports": dns}]),
            json!([{"to": [{"ipBlock": {"cidr": "10.0.0.0/8"}}]}]),
        ] {
            assert_eq!(after(policy(egress.clone())), [], "{egress}");
        }
        let on_the_node = |facts: &mut Facts| {
            policy(json!([]))(facts);
            facts
                .daemon_sets
                .push(json!({"metadata": {"namespace": "kube-system", "name": "weft-dns-node"}}));
        };
        assert_eq!(after(on_the_node), []);
        let ingress = |facts: &mut Facts| {
            policy(json!([]))(facts);
            facts.policies[0]["spec"]["policyTypes"] = json!(["Ingress"]);
        };
        assert_eq!(after(ingress), []);
    }

    #[test]
    fn policies_that_nobody_enforces_are_told() {
        let off = |facts: &mut Facts| machine_of(facts, "node2").enforces_policies = false;
        assert_eq!(after(off), [], "there are none");
        let finding = only(Id::PoliciesNotEnforced, |facts| {
            off(facts);
            policy(json!([{}]))(facts);
        });
        assert_eq!(finding.subject, "Nodes node2");
    }

    #[test]
    fn pods_that_wait_are_named() {
        let finding = only(Id::PoliciesPending, |facts| {
            machine_of(facts, "node1").pending_pods = vec!["shop/web-1".to_owned()];
        });
        assert!(finding.what.ends_with("until then: shop/web-1"), "{finding}");
    }
}
