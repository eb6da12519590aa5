//! Nodes: whether they are ready, whether their agents answer, and what differs between them that must not, or
//! is the same though it must differ.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use serde_json::Value;
use weft_types::node_facts::{LinkFacts, NodeFacts};

use super::lookup::{condition, is_ready, list, node_addresses, some};
use crate::cluster::{NAMESPACE, is_own, name};
use crate::doctor::facts::Facts;
use crate::finding::{Finding, Id, Severity};
use crate::{rollout, status};

/// From which difference between clocks on something is wrong, in milliseconds: certificates and leases are
/// no longer what they are meant to be.
const SKEW: i64 = 5_000;
/// Interfaces of these kinds have MACs that no other machine knows.
const VIRTUAL: [&str; 6] = ["bridge", "vxlan", "dummy", "veth", "wireguard", "tun"];

pub(super) fn check(facts: &Facts) -> Vec<Finding> {
    let mut findings: Vec<Finding> = facts.nodes.iter().filter_map(|node| not_ready(facts, node)).collect();
    findings.extend(facts.nodes.iter().filter_map(|node| silent(facts, node)));
    findings.extend(complaints(facts));
    findings.extend(addresses(facts));
    findings.extend(copies(facts));
    findings.extend(mtus(facts));
    findings.extend(clocks(facts));
    findings.extend(versions(facts));
    findings
}

fn about(facts: &Facts, node: &str, id: Id, what: impl Into<String>) -> Finding {
    Finding::error(id, format!("Node {node}"), what).reach(facts.pods_on(node).max(1))
}

fn not_ready(facts: &Facts, node: &Value) -> Option<Finding> {
    if is_ready(node) {
        return None;
    }
    let state = condition(node, "Ready");
    let message = state["message"].as_str().unwrap_or("its kubelet has said nothing yet");
    let what = match rollout::is_silent(node) {
        true => format!("it is not ready, and its kubelet is silent: {message}"),
        false => format!("it is not ready: {message}"),
    };
    let fix = "On the node: systemctl status kubelet, and journalctl -u kubelet";
    let since = state["lastTransitionTime"].as_str();
    Some(about(facts, name(node), Id::NodeNotReady, what).since(since).fix(fix))
}

fn silent(facts: &Facts, node: &Value) -> Option<Finding> {
    let problem = facts.agents.get(name(node))?.as_ref().err()?;
    // A machine that is off has said nothing else either.
    if rollout::is_silent(node) {
        return None;
    }
    // That is about whoever asks.
    if problem.contains("forbidden") || problem.contains("token") {
        let what = format!("its agent cannot be asked: {problem}");
        let fix = "You need the Role and the ClusterRole weft-reader: kubectl -n kube-system auth can-i create \
                   serviceaccounts/weft-reader --subresource=token, and get pods --subresource=proxy";
        return Some(Finding {
            severity: Severity::Warning,
            ..about(facts, name(node), Id::AgentSilent, what).fix(fix)
        });
    }
    let is_agent = |pod: &&Value| {
        pod["spec"]["nodeName"] == name(node)
            && is_own(pod)
            && pod["metadata"]["labels"][status::COMPONENT] == "agent"
    };
    let pod = facts.pods.iter().find(is_agent);
    let state = match pod {
        Some(pod) => {
            format!("its pod {} is {}", name(pod), if is_ready(pod) { "ready" } else { "not ready" })
        }
        None => "no pod of the DaemonSet weft-agent is there".to_owned(),
    };
    let what = format!(
        "its agent does not answer ({problem}); {state}. Until it does, routes, policies and new pods of the node stay as they are"
    );
    let fix = match pod {
        Some(pod) => {
            format!("kubectl -n {NAMESPACE} logs {0}, and kubectl -n {NAMESPACE} describe pod {0}", name(pod))
        }
        None => format!("kubectl -n {NAMESPACE} describe daemonset weft-agent: taints and node selectors"),
    };
    Some(about(facts, name(node), Id::AgentSilent, what).fix(fix))
}

/// What has a name of its own is said by that check.
fn complaints(facts: &Facts) -> Vec<Finding> {
    let is_known =
        |problem: &str| problem.contains("is sorted before") && problem.contains("container runtime");
    let mut findings = Vec::new();
    for (node, machine) in facts.machines() {
        for problem in machine.problems.iter().filter(|problem| !is_known(problem)) {
            let finding = about(facts, node, Id::AgentProblem, format!("its agent says: {problem}"));
            // What keeps no pod from starting may be about others.
            let finding = match machine.is_ready {
                true => Finding { severity: Severity::Warning, ..finding },
                false => finding,
            };
            findings.push(
                finding.fix(format!(
                    "See kubectl -n {NAMESPACE} logs of the agent there, and docs/operations.md"
                )),
            );
        }
    }
    findings
}

fn addresses(facts: &Facts) -> Vec<Finding> {
    let mut owners: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for node in &facts.nodes {
        node_addresses(node).for_each(|address| owners.entry(address).or_default().push(name(node)));
    }
    let shared = owners.iter().filter(|(_, nodes)| nodes.len() > 1).map(|(address, nodes)| {
        let reach = nodes.iter().map(|node| facts.pods_on(node)).sum::<usize>().max(1);
        let subject = format!("Nodes {}", nodes.join(", "));
        Finding::error(Id::NodeAddressDuplicate, subject, format!("they have the same address, {address}"))
            .reach(reach)
            .fix("Give the machines addresses of their own; where one has several, name the right one (kubelet --node-ip)")
    });
    let foreign = facts.nodes.iter().filter_map(|node| {
        let machine = facts.agents.get(name(node))?.as_ref().ok()?;
        let held: Vec<IpAddr> =
            machine.links.iter().flat_map(|link| &link.addresses).map(|own| own.ip()).collect();
        let is_foreign = |text: &&str| text.parse().is_ok_and(|address: IpAddr| !held.contains(&address));
        let address = node_addresses(node).find(is_foreign)?;
        // Where it is another node's as well, that says more; behind NAT it is nobody's here.
        let is_shared = owners.get(address).is_some_and(|nodes| nodes.len() > 1);
        let is_external = list(&node["status"]["addresses"])
            .any(|one| one["type"] == "ExternalIP" && one["address"] == address);
        (!is_shared && !is_external && !held.is_empty()).then(|| {
            let what = format!("its address {address} is on none of its machine's interfaces");
            about(facts, name(node), Id::NodeAddressForeign, what)
                .fix("Restart the kubelet with the right --node-ip")
        })
    });
    shared.chain(foreign).collect()
}

/// Machines that were cloned.
fn copies(facts: &Facts) -> Vec<Finding> {
    let ids = facts.nodes.iter().filter_map(|node| {
        let id = node["status"]["nodeInfo"]["machineID"].as_str().filter(|id| !id.is_empty())?;
        Some((id.to_owned(), name(node)))
    });
    let macs = facts.machines().flat_map(|(node, machine)| {
        hardware(machine).filter_map(move |link| Some((link.mac.clone()?, node)))
    });
    let mut findings = Vec::new();
    let fix = "Give the interface an Ethernet address of its own (the virtual machine's settings, or ip link set LINK address MAC)";
    for (mac, nodes) in shared(macs) {
        let what = format!("their machines have the same Ethernet address, {mac}");
        findings.push(
            Finding::error(Id::MacDuplicate, format!("Nodes {nodes}"), what).reach(facts.pods.len()).fix(fix),
        );
    }
    let fix = "The machines are copies. On one of them: rm /etc/machine-id && systemd-machine-id-setup, then reboot";
    for (id, nodes) in shared(ids) {
        let what = format!("they have the same machine id, {id}");
        findings.push(Finding::warning(Id::MachineIdDuplicate, format!("Nodes {nodes}"), what).fix(fix));
    }
    findings
}

/// What several nodes have, with their names.
fn shared<'a>(all: impl Iterator<Item = (String, &'a str)>) -> Vec<(String, String)> {
    let mut owners: BTreeMap<String, BTreeSet<&str>> = BTreeMap::new();
    for (what, node) in all {
        owners.entry(what).or_default().insert(node);
    }
    let shared = owners.into_iter().filter(|(_, nodes)| nodes.len() > 1);
    shared.map(|(what, nodes)| (what, nodes.into_iter().collect::<Vec<_>>().join(", "))).collect()
}

/// The interfaces by which other machines know this one.
fn hardware(machine: &NodeFacts) -> impl Iterator<Item = &LinkFacts> {
    let is_virtual = |link: &LinkFacts| link.kind.as_deref().is_some_and(|kind| VIRTUAL.contains(&kind));
    machine
        .links
        .iter()
        .filter(move |link| link.name != "lo" && !is_virtual(link) && !link.addresses.is_empty())
}

/// The interface that has the Node's address.
pub(super) fn uplink<'a>(node: &Value, machine: &'a NodeFacts) -> Option<&'a LinkFacts> {
    let own: Vec<IpAddr> = node_addresses(node).filter_map(|text| text.parse().ok()).collect();
    machine.links.iter().find(|link| link.addresses.iter().any(|address| own.contains(&address.ip())))
}

/// Nodes of one network must be able to send each other what each may send.
fn mtus(facts: &Facts) -> Option<Finding> {
    let mut nodes: BTreeMap<u32, Vec<&str>> = BTreeMap::new();
    for node in &facts.nodes {
        let machine = facts.agents.get(name(node)).and_then(|answer| answer.as_ref().ok());
        if let Some(link) = machine.and_then(|machine| uplink(node, machine)) {
            nodes.entry(link.mtu).or_default().push(name(node));
        }
    }
    if nodes.len() < 2 {
        return None;
    }
    let fewest = nodes.values().min_by_key(|names| names.len())?;
    let each: Vec<String> = nodes.iter().map(|(mtu, names)| format!("{mtu} on {}", some(names))).collect();
    let what = format!(
        "the MTUs of the interfaces between nodes differ: {}. Large packets to the smaller ones get lost",
        each.join("; ")
    );
    let reach = fewest.iter().map(|node| facts.pods_on(node)).sum::<usize>().max(1);
    let finding = Finding::warning(Id::MtuDiffers, format!("Nodes {}", fewest.join(", ")), what).reach(reach);
    Some(finding.fix("Give the interfaces one MTU (ip link set LINK mtu BYTES, and in the machine's configuration), or the agents the smallest (--mtu)"))
}

/// The clock of this program counts for nothing: that of most nodes does.
fn clocks(facts: &Facts) -> Vec<Finding> {
    let mut all: Vec<i64> = facts.clocks.values().copied().collect();
    all.sort_unstable();
    let Some(&middle) = all.get(all.len() / 2) else { return Vec::new() };
    let skewed = facts.clocks.iter().filter_map(|(node, clock)| {
        let difference = clock.saturating_sub(middle);
        (difference.saturating_abs() > SKEW).then(|| {
            let word = if difference > 0 { "ahead of" } else { "behind" };
            let seconds = difference.unsigned_abs() / 1000;
            let what = format!("its clock is {seconds} s {word} the others");
            let finding = Finding::warning(Id::ClockSkew, format!("Node {node}"), what);
            finding
                .reach(facts.pods_on(node))
                .fix("On the node: timedatectl, and chronyc tracking or systemctl status systemd-timesyncd")
        })
    });
    skewed.collect()
}

fn versions(facts: &Facts) -> Vec<Finding> {
    let own: Vec<Value> = facts
        .daemon_sets
        .iter()
        .filter(|set| set["metadata"]["namespace"] == NAMESPACE && is_own(set))
        .cloned()
        .collect();
    let dns = facts
        .deployments
        .iter()
        .find(|it| it["metadata"]["namespace"] == NAMESPACE && name(it) == "weft-dns");
    let mut findings: Vec<Finding> =
        status::different_images(&own, dns).into_iter().chain(status::not_uninstalled(&own)).collect();
    let mut agents: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    facts.machines().for_each(|(node, machine)| agents.entry(&machine.version).or_default().push(node));
    if findings.is_empty() && agents.len() > 1 {
        let each: Vec<String> =
            agents.iter().map(|(version, nodes)| format!("{version} on {}", some(nodes))).collect();
        let what = format!("the agents are of different versions: {}", each.join("; "));
        let finding = Finding::warning(Id::VersionsDiffer, "DaemonSet weft-agent", what);
        findings.push(finding.fix("Wait for the roll-out (weft status), or run weft install again"));
    }
    findings
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::tests::{after, machine_of, only};
    use super::*;

    #[test]
    fn a_node_that_is_not_ready_is_named_with_the_reason_and_since_when() {
        let finding = only(Id::NodeNotReady, |facts| {
            facts.nodes[1]["status"]["conditions"] = json!([{"type": "Ready", "status": "False",
                "message": "cni plugin not initialized", "lastTransitionTime": "2026-01-01T00:00:00Z"}]);
        });
        assert_eq!(finding.to_string(), "Node node2: it is not ready: cni plugin not initialized");
        assert!(finding.since.is_some());
    }

    #[test]
    fn an_agent_that_does_not_answer_is_named_unless_the_machine_is_off() {
        let silence = |facts: &mut Facts| {
            facts.agents.insert("node2".to_owned(), Err("connection refused".to_owned()));
        };
        let finding = only(Id::AgentSilent, silence);
        assert!(
            finding.what.starts_with("its agent does not answer (connection refused); no pod of"),
            "{finding}"
        );
        only(Id::NodeNotReady, |facts| {
            silence(facts);
            facts.nodes[1]["status"]["conditions"] = json!([{"type": "Ready", "status": "Unknown"}]);
        });
    }

    #[test]
    fn addresses_that_several_nodes_have_or_no_machine_are_named() {
        let finding = only(Id::NodeAddressDuplicate, |facts| {
            facts.nodes[1]["status"]["addresses"] = facts.nodes[0]["status"]["addresses"].clone();
        });
        assert_eq!(finding.subject, "Nodes node1, node2");
        let finding = only(Id::NodeAddressForeign, |facts| {
            facts.nodes[1]["status"]["addresses"][0]["address"] = json!("172.30.0.99");
        });
        assert!(finding.what.contains("172.30.0.99"));
    }

    #[test]
    fn copies_of_a_machine_are_named() {
        let finding = only(Id::MacDuplicate, |facts| {
            machine_of(facts, "node2").links[0].mac = Some("02:00:00:00:00:01".to_owned());
        });
        assert_eq!(finding.subject, "Nodes node1, node2");
        only(Id::MachineIdDuplicate, |facts| {
            facts.nodes[1]["status"]["nodeInfo"]["machineID"] = json!("id-1");
        });
    }

    #[test]
    fn mtus_and_clocks_that_differ_are_named_with_the_nodes() {
        let finding = only(Id::MtuDiffers, |facts| machine_of(facts, "node2").links[0].mtu = 1400);
        assert!(finding.what.contains("1400 on node2; 1500 on node1"), "{finding}");
        let finding = only(Id::ClockSkew, |facts| {
            facts.clocks.insert("node3".to_owned(), -30_000);
        });
        assert_eq!(finding.to_string(), "Node node3: its clock is 29 s behind the others");
        let mine = after(|facts| facts.clocks.values_mut().for_each(|clock| *clock += 3_600_000));
        assert_eq!(mine, [], "it is this machine's clock that is wrong");
    }

    #[test]
    fn what_agents_complain_of_is_told_and_worse_where_no_pod_can_start() {
        let finding = only(Id::AgentProblem, |facts| {
            machine_of(facts, "node1").problems = vec!["node2 is silent".to_owned()];
        });
        assert_eq!(finding.severity, crate::finding::Severity::Warning);
        let finding = only(Id::AgentProblem, |facts| {
            machine_of(facts, "node1").problems = vec!["no uplink".to_owned()];
            machine_of(facts, "node1").is_ready = false;
        });
        assert_eq!(finding.severity, crate::finding::Severity::Error);
    }

    #[test]
    fn versions_that_differ_are_told_once() {
        only(Id::VersionsDiffer, |facts| machine_of(facts, "node2").version = "0.0.9".to_owned());
    }
}
