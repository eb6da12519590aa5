//! Proxies: whether each node's answers and is in step, and whether there is another one.

use std::collections::BTreeMap;

use weft_types::well_known::port;

use super::lookup::{is_ready, key, some};
use crate::cluster::{NAMESPACE, is_own, name};
use crate::doctor::facts::Facts;
use crate::finding::{Finding, Id};
use crate::status::COMPONENT;

pub(super) fn check(facts: &Facts) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (node, machine) in facts.machines() {
        let about = |id, what: String| {
            Finding::error(id, format!("Node {node}"), what).reach(facts.pods_on(node).max(1))
        };
        let fix = format!(
            "kubectl -n {NAMESPACE} get pods -l app.kubernetes.io/component=proxy -o wide, and the log of that node's"
        );
        let Some(proxy) = &machine.proxy else {
            // It may listen elsewhere: kubelets ask where it does.
            if is_ready_on(facts, node) {
                continue;
            }
            let what = format!(
                "its proxy does not answer on port {}: Services keep the endpoints that it gave them last, also those that are gone",
                port::PROXY_HEALTH
            );
            findings.push(about(Id::ProxySilent, what).fix(fix));
            continue;
        };
        if let Some(problem) = &proxy.problem {
            let what = format!("its proxy is not in step: {problem}");
            findings.push(about(Id::ProxyBehind, what).since(proxy.last_updated.as_deref()).fix(fix.clone()));
        }
        if let Some(problem) = &proxy.ebpf_problem {
            let what =
                format!("sockets are not led by eBPF: {problem}; Services are served by packets alone");
            let finding = Finding::warning(Id::ProxyEbpf, format!("Node {node}"), what);
            findings.push(
                finding
                    .reach(facts.pods_on(node))
                    .fix("weft preflight --proxy-ebpf on the node says what is missing"),
            );
        }
    }
    findings.extend(modes(facts));
    findings.extend(others(facts));
    findings
}

/// Whether the kubelet says that Weft's proxy of a node is ready.
fn is_ready_on(facts: &Facts, node: &str) -> bool {
    facts.pods.iter().any(|pod| {
        pod["spec"]["nodeName"] == node
            && is_own(pod)
            && pod["metadata"]["labels"][COMPONENT] == "proxy"
            && is_ready(pod)
    })
}

fn modes(facts: &Facts) -> Option<Finding> {
    let mut modes: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (node, machine) in facts.machines() {
        let mode = machine.proxy.as_ref().and_then(|proxy| proxy.mode.as_deref());
        mode.into_iter().for_each(|mode| modes.entry(mode).or_default().push(node));
    }
    let fewest = modes.values().min_by_key(|nodes| nodes.len()).filter(|_| modes.len() > 1)?;
    let each: Vec<String> = modes.iter().map(|(mode, nodes)| format!("{mode} on {}", some(nodes))).collect();
    let what = format!("proxies are of different modes: {}", each.join("; "));
    let finding = Finding::warning(Id::ProxyModes, format!("Nodes {}", fewest.join(", ")), what);
    Some(finding.fix("Wait for the roll-out (weft status), or give all proxies one --proxy-mode"))
}

/// Another one that is to serve the same Services, and runs somewhere.
fn others(facts: &Facts) -> Vec<Finding> {
    let is_other = |set: &&serde_json::Value| {
        name(set).starts_with("kube-proxy") && !is_own(set) && set["status"]["desiredNumberScheduled"] != 0
    };
    let finding = |set: &serde_json::Value| {
        let what =
            "it serves the same Services as Weft's proxy: connections go by whichever rule comes first";
        Finding::error(Id::ProxyOther, format!("DaemonSet {}", key(set)), what).reach(facts.pods.len()).fix(
            "kubectl -n kube-system delete daemonset kube-proxy, then on each node kube-proxy --cleanup, or reboot",
        )
    };
    facts.daemon_sets.iter().filter(is_other).map(finding).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::tests::{machine_of, only};
    use super::*;

    #[test]
    fn a_proxy_that_does_not_run_or_is_behind_is_named_with_its_node() {
        let finding = only(Id::ProxySilent, |facts| machine_of(facts, "node2").proxy = None);
        assert_eq!(finding.subject, "Node node2");
        let finding = only(Id::ProxyBehind, |facts| {
            let proxy = machine_of(facts, "node2").proxy.as_mut().unwrap();
            proxy.problem = Some("the kernel is out of step with the cluster".to_owned());
        });
        assert_eq!(finding.since.as_deref(), Some("2026-01-01T00:00:00Z"));
        only(Id::ProxyEbpf, |facts| {
            let proxy = machine_of(facts, "node2").proxy.as_mut().unwrap();
            proxy.ebpf_problem = Some("no cgroup2".to_owned());
        });
    }

    #[test]
    fn modes_that_differ_and_another_proxy_are_named() {
        let finding = only(Id::ProxyModes, |facts| {
            machine_of(facts, "node2").proxy.as_mut().unwrap().mode = Some("iptables".to_owned());
        });
        assert!(finding.what.ends_with("iptables on node2; nftables on node1"), "{finding}");
        only(Id::ProxyOther, |facts| {
            facts.daemon_sets.push(json!({"metadata": {"namespace": "kube-system", "name": "kube-proxy"}}));
        });
    }
}
