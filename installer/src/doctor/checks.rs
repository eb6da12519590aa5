//! From facts to findings, without looking at anything: one file for each theme.

mod cni;
mod dns;
mod kernel;
mod lookup;
mod neighbours;
mod nodes;
mod policies;
mod proxy;
mod ranges;
mod services;

use super::facts::Facts;
use crate::finding::Finding;

/// Everything that is wrong, in no order.
pub(super) fn all(facts: &Facts) -> Vec<Finding> {
    let themes = [
        cni::check,
        dns::check,
        kernel::check,
        neighbours::check,
        nodes::check,
        policies::check,
        proxy::check,
        ranges::check,
    ];
    let mut findings: Vec<Finding> = themes.iter().flat_map(|check| check(facts)).collect();
    findings.extend(services::check(facts));
    findings
}

/// Whether a finding is about a node, or about a pod on it.
pub(super) fn is_about(finding: &Finding, node: &str, facts: &Facts) -> bool {
    let names = |word: &str| finding.subject.split([' ', ',']).any(|part| part == word);
    let is_there = |pod: &&serde_json::Value| pod["spec"]["nodeName"] == node;
    names(node) || facts.pods.iter().filter(is_there).any(|pod| names(&lookup::key(pod)))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::finding::Id;

    /// A cluster of two nodes in which nothing is wrong.
    pub(super) fn healthy() -> Facts {
        Facts {
            nodes: vec![node("node1", 1), node("node2", 2)],
            namespaces: vec![
                json!({"metadata": {"name": "shop"}}),
                json!({"metadata": {"name": "kube-system", "labels": {"kubernetes.io/metadata.name": "kube-system"}}}),
            ],
            services: vec![
                service("kube-system", "kube-dns", json!({"k8s-app": "kube-dns"}), json!(53)),
                service("shop", "web", json!({"app": "web", "tier": "front"}), json!("http")),
            ],
            slices: vec![
                slice("kube-system", "kube-dns", json!([{"conditions": {"ready": true}}])),
                slice(
                    "shop",
                    "web",
                    json!([{"conditions": {"ready": true}}, {"conditions": {"ready": false}}]),
                ),
            ],
            pods: vec![
                pod("kube-system", "dns", "node1", "10.244.1.2", json!({"k8s-app": "kube-dns"})),
                pod("shop", "web-0", "node2", "10.244.2.2", json!({"app": "web", "tier": "front"})),
            ],
            agents: [("node1", 1), ("node2", 2)]
                .map(|(name, number)| (name.to_owned(), Ok(machine(number))))
                .into(),
            clocks: [("node1".to_owned(), 20), ("node2".to_owned(), -15)].into(),
            ..Facts::default()
        }
    }

    pub(super) fn machine(number: u8) -> weft_types::node_facts::NodeFacts {
        let facts = json!({
            "version": "0.1.0", "kernel": "6.12.0", "isReady": true, "enforcesPolicies": true,
            "sysctls": {"net.ipv4.ip_forward": "1", "net.ipv4.conf.all.rp_filter": "0"},
            "conntrack": {"name": "connections", "used": 100, "most": 262_144},
            "neighbours": [{"name": "IPv4", "used": 10, "most": 1024}],
            "links": [
                {"name": "eth0", "mtu": 1500, "mac": format!("02:00:00:00:00:0{number}"), "isUp": true,
                 "addresses": [format!("172.30.0.1{number}/24")]},
                {"name": "cni0", "kind": "bridge", "mtu": 1500, "isUp": true,
                 "addresses": [format!("10.244.{number}.1/24")]}],
            "cni": {"folder": "/etc/cni/net.d", "own": "10-weft.conflist", "files": ["10-weft.conflist"]},
            "ranges": [{"range": format!("10.244.{number}.0/24"), "most": 253, "used": 3}],
            "resolver": {"nameservers": ["192.0.2.53"], "search": ["example.org"]},
            "proxy": {"lastUpdated": "2026-01-01T00:00:00Z", "mode": "nftables"},
        });
        serde_json::from_value(facts).unwrap()
    }

    pub(super) fn node(name: &str, number: u8) -> Value {
        json!({"metadata": {"name": name}, "spec": {"podCIDRs": [format!("10.244.{number}.0/24")]},
            "status": {"addresses": [{"type": "InternalIP", "address": format!("172.30.0.1{number}")}],
                "nodeInfo": {"machineID": format!("id-{number}")},
                "conditions": [{"type": "Ready", "status": "True"}]}})
    }

    pub(super) fn service(namespace: &str, name: &str, selector: Value, target: Value) -> Value {
        json!({"metadata": {"namespace": namespace, "name": name},
            "spec": {"selector": selector, "clusterIP": "10.96.0.10", "clusterIPs": ["10.96.0.10"],
                "ports": [{"port": 80, "targetPort": target, "protocol": "TCP"}]}})
    }

    pub(super) fn slice(namespace: &str, service: &str, endpoints: Value) -> Value {
        json!({"metadata": {"namespace": namespace, "name": "x", "labels": {"kubernetes.io/service-name": service}},
            "endpoints": endpoints})
    }

    pub(super) fn pod(namespace: &str, name: &str, node: &str, address: &str, labels: Value) -> Value {
        json!({"metadata": {"namespace": namespace, "name": name, "labels": labels},
            "spec": {"nodeName": node, "containers": [{"name": "a", "ports": [
                {"name": "http", "containerPort": 8080}, {"containerPort": 53}]}]},
            "status": {"phase": "Running", "podIP": address, "podIPs": [{"ip": address}],
                "conditions": [{"type": "Ready", "status": "True"}]}})
    }

    /// The faults that a change of the healthy cluster leads to.
    pub(super) fn after(change: impl FnOnce(&mut Facts)) -> Vec<Finding> {
        let mut facts = healthy();
        change(&mut facts);
        let mut findings = all(&facts);
        crate::finding::sort(&mut findings);
        findings
    }

    /// Fails unless the change leads to that fault alone. Gives it.
    pub(super) fn only(id: Id, change: impl FnOnce(&mut Facts)) -> Finding {
        let mut findings = after(change);
        let ids: Vec<Id> = findings.iter().map(|finding| finding.id).collect();
        assert_eq!(ids, [id], "{findings:#?}");
        findings.remove(0)
    }

    pub(super) fn machine_of<'a>(
        facts: &'a mut Facts,
        node: &str,
    ) -> &'a mut weft_types::node_facts::NodeFacts {
        facts.agents.get_mut(node).unwrap().as_mut().unwrap()
    }

    #[test]
    fn a_healthy_cluster_has_no_faults() {
        assert_eq!(after(|_| {}), []);
    }

    #[test]
    fn a_cluster_of_nothing_but_nonsense_is_looked_at_all_the_same() {
        let nonsense = [
            json!(null),
            json!(7),
            json!({"metadata": 1, "spec": [], "status": "x"}),
            json!({"metadata": {"name": 1, "namespace": {}, "labels": [1]},
                "spec": {"selector": {"a": 1}, "podCIDRs": ["x", 1], "ports": [1, {"targetPort": []}], "clusterIPs": [{}],
                    "nodeName": 7, "containers": {"ports": 1}, "policyTypes": "Egress", "egress": [1, {"to": 1, "ports": {}}],
                    "podSelector": {"matchExpressions": [1, {"key": 1, "operator": [], "values": 1}]}},
                "status": {"podIPs": [1], "conditions": [1], "addresses": 1}, "endpoints": [1]}),
        ];
        let all_of = || nonsense.to_vec();
        let facts = Facts {
            nodes: all_of(),
            namespaces: all_of(),
            services: all_of(),
            slices: all_of(),
            pods: all_of(),
            policies: all_of(),
            daemon_sets: all_of(),
            deployments: all_of(),
            stateful_sets: all_of(),
            blocks: all_of(),
            agents: [("node1".to_owned(), Ok(Default::default()))].into(),
            clocks: [("node1".to_owned(), i64::MIN), ("node2".to_owned(), i64::MAX)].into(),
        };
        all(&facts);
    }

    #[test]
    fn a_node_s_findings_are_its_own_and_those_of_its_pods() {
        let facts = healthy();
        let of = |subject: &str| Finding::error(Id::AgentSilent, subject, "");
        assert!(is_about(&of("Node node2"), "node2", &facts));
        assert!(is_about(&of("Nodes node1, node2"), "node2", &facts));
        assert!(is_about(&of("Pod shop/web-0"), "node2", &facts));
        assert!(
            !is_about(&of("Node node20"), "node2", &facts)
                && !is_about(&of("Service shop/web"), "node2", &facts)
        );
    }
}
