//! Addresses: ranges that have some in common, ranges that are used up, and addresses of nobody or of several.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde_json::Value;
use weft_types::{IpNetwork, overlap};

use super::lookup::{is_live, key, node_addresses, pod_addresses, some, texts};
use crate::cluster::name;
use crate::doctor::facts::Facts;
use crate::finding::{Finding, Id};

/// From which share on a range is nearly used up, in percent.
const NEARLY: u64 = 90;

pub(super) fn check(facts: &Facts) -> Vec<Finding> {
    let mut findings = Vec::new();
    findings.extend(overlapping(facts));
    findings.extend(facts.nodes.iter().filter_map(|node| missing(facts, node)));
    findings.extend(exhausted(facts));
    findings.extend(leaked(facts));
    findings.extend(twice(facts));
    findings
}

/// The ranges of pods by what has them: Nodes, or blocks of Nodes.
fn pod_ranges(facts: &Facts) -> Vec<(String, IpNetwork)> {
    let parsed = |owner: String, text: &str| Some((owner, text.parse().ok()?));
    if facts.blocks.is_empty() {
        let of_node = |node: &Value| {
            texts(&node["spec"]["podCIDRs"])
                .filter_map(|text| parsed(format!("Node {}", name(node)), text))
                .collect::<Vec<_>>()
        };
        return facts.nodes.iter().flat_map(of_node).collect();
    }
    let of_block = |block: &Value| {
        let owner = format!("Node {}", block["spec"]["node"].as_str().unwrap_or_default());
        parsed(owner, block["spec"]["cidr"].as_str()?)
    };
    facts.blocks.iter().filter_map(of_block).collect()
}

fn overlapping(facts: &Facts) -> Vec<Finding> {
    let ranges = pod_ranges(facts);
    let mut findings = Vec::new();
    let fix = "Give the later Node another range: kubectl delete node NODE and let its kubelet register again, and see the \
               control plane's --cluster-cidr and --service-cluster-ip-range";
    // Whoever has the other addresses is concerned as well: Services are everybody's.
    let mut tell = |owner: &str, range: &IpNetwork, other: String| {
        let what = format!("its pods' range {range} has addresses in common with {other}");
        let reach = facts.pods.len().max(1);
        findings.push(Finding::error(Id::RangesOverlap, owner, what).reach(reach).fix(fix));
    };
    for (index, (owner, range)) in ranges.iter().enumerate() {
        if let Some((other, taken)) = ranges[..index].iter().find(|(_, before)| overlap(before, range)) {
            tell(owner, range, format!("{taken} of {other}"));
        }
        let holds = |text: &&str| text.parse::<IpAddr>().is_ok_and(|address| range.contains(address));
        let service = facts
            .services
            .iter()
            .find_map(|service| Some((service, texts(&service["spec"]["clusterIPs"]).find(holds)?)));
        if let Some((service, address)) = service {
            tell(owner, range, format!("the Services' range: Service {} has {address}", key(service)));
        }
        let node = facts.nodes.iter().find_map(|node| Some((node, node_addresses(node).find(holds)?)));
        if let Some((node, address)) = node {
            tell(owner, range, format!("the nodes' network: Node {} has {address}", name(node)));
        }
    }
    findings
}

fn missing(facts: &Facts, node: &Value) -> Option<Finding> {
    let has_range = texts(&node["spec"]["podCIDRs"]).next().is_some() || node["spec"]["podCIDR"].is_string();
    (facts.blocks.is_empty() && !has_range).then(|| {
        Finding::error(Id::PodCidrMissing, format!("Node {}", name(node)), "it has no pod CIDR: no pod can start there")
            .reach(facts.pods_on(name(node)).max(1))
            .fix("Start kube-controller-manager with --allocate-node-cidrs and a --cluster-cidr with room for one more node, or install Weft with --ipam blocks")
    })
}

fn exhausted(facts: &Facts) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (node, machine) in facts.machines() {
        for range in machine.ranges.iter().filter(|range| range.most > 0) {
            let (used, most) = (range.used, range.most);
            let what = format!("{used} of the {most} addresses of its range {} are taken", range.range);
            let subject = format!("Node {node}");
            let finding = match used {
                // With blocks a node takes another one.
                _ if !facts.blocks.is_empty() => continue,
                used if used >= most => Finding::error(
                    Id::AddressesExhausted,
                    subject,
                    format!("{what}: no further pod can start there"),
                ),
                used if used.saturating_mul(100) >= most.saturating_mul(NEARLY) => {
                    Finding::warning(Id::AddressesExhausted, subject, what)
                }
                _ => continue,
            };
            let fix = "Move pods to other nodes, give nodes larger ranges (--node-cidr-mask-size), or install Weft with --ipam \
                       blocks; see ls /var/lib/cni/networks/weft on the node";
            findings.push(finding.reach(facts.pods_on(node)).fix(fix));
        }
    }
    findings
}

/// A reservation of a pod that the API server knows is in use, wherever its interface is.
fn leaked(facts: &Facts) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (node, machine) in facts.machines() {
        let own = facts.pods.iter().filter(|pod| pod["spec"]["nodeName"] == node);
        let in_use: Vec<IpAddr> =
            own.flat_map(pod_addresses).filter_map(|address| address.parse().ok()).collect();
        let leaked: Vec<&IpAddr> =
            machine.unused_reservations.iter().filter(|address| !in_use.contains(address)).collect();
        if leaked.is_empty() {
            continue;
        }
        let what = format!(
            "{} addresses are reserved for containers that are gone: {}",
            leaked.len(),
            some(&leaked)
        );
        let fix = "Give the agent the runtime's socket (--cri-socket), and it frees them within minutes; or delete the files of \
                   these names in /var/lib/cni/networks/weft on the node";
        findings.push(Finding::warning(Id::AddressesLeaked, format!("Node {node}"), what).fix(fix));
    }
    findings
}

fn twice(facts: &Facts) -> Vec<Finding> {
    let mut holders: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for pod in facts.pods.iter().filter(|pod| is_live(pod)) {
        pod_addresses(pod).for_each(|address| holders.entry(address).or_default().push(key(pod)));
    }
    let shared = holders.into_iter().filter(|(_, pods)| pods.len() > 1);
    let finding = |(address, pods): (&str, Vec<String>)| {
        let what = format!("{address} is the address of {}, too", pods[1..].join(", "));
        let fix = "Delete all of them but one, and look for two networks that give addresses of one range";
        Finding::error(Id::PodAddressDuplicate, format!("Pod {}", pods[0]), what).reach(pods.len()).fix(fix)
    };
    shared.map(finding).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::tests::{after, machine_of, only, pod};
    use super::*;

    #[test]
    fn ranges_with_addresses_in_common_are_named_with_both_owners() {
        let finding =
            only(Id::RangesOverlap, |facts| facts.nodes[1]["spec"]["podCIDRs"] = json!(["10.244.0.0/23"]));
        assert_eq!(finding.subject, "Node node2");
        assert!(finding.what.ends_with("in common with 10.244.1.0/24 of Node node1"), "{finding}");
        let finding = only(Id::RangesOverlap, |facts| {
            facts.nodes[1]["spec"]["podCIDRs"] = json!(["10.96.0.0/24"]);
        });
        assert!(finding.what.contains("Service kube-system/kube-dns has 10.96.0.10"), "{finding}");
        let finding = only(Id::RangesOverlap, |facts| {
            facts.nodes[1]["spec"]["podCIDRs"] = json!(["172.30.0.0/28"]);
            facts.nodes.remove(0);
        });
        assert!(finding.what.contains("Node node2 has 172.30.0.12"), "{finding}");
    }

    #[test]
    fn a_node_without_addresses_for_pods_is_named_unless_blocks_are_given() {
        let take = |facts: &mut Facts| facts.nodes[0]["spec"] = json!({});
        assert_eq!(only(Id::PodCidrMissing, take).subject, "Node node1");
        let none = after(|facts| {
            take(facts);
            facts.blocks = vec![json!({"spec": {"node": "node1", "cidr": "10.244.7.0/26"}})];
        });
        assert_eq!(none, []);
    }

    #[test]
    fn ranges_that_are_used_up_or_nearly_are_told() {
        let used = |used: u64| move |facts: &mut Facts| machine_of(facts, "node1").ranges[0].used = used;
        let full = only(Id::AddressesExhausted, used(253));
        assert_eq!(full.severity, crate::finding::Severity::Error);
        let nearly = only(Id::AddressesExhausted, used(240));
        assert_eq!(nearly.severity, crate::finding::Severity::Warning);
        assert_eq!(after(used(200)), []);
    }

    #[test]
    fn reservations_of_nobody_are_told_and_those_of_pods_are_not() {
        let reserve = |address: &'static str| {
            move |facts: &mut Facts| {
                machine_of(facts, "node2").unused_reservations = vec![address.parse().unwrap()];
            }
        };
        let finding = only(Id::AddressesLeaked, reserve("10.244.2.99"));
        assert_eq!(finding.what, "1 addresses are reserved for containers that are gone: 10.244.2.99");
        assert_eq!(after(reserve("10.244.2.2")), []);
    }

    #[test]
    fn pods_with_one_address_are_named() {
        let twin = |facts: &mut Facts| {
            facts.pods.push(pod("shop", "twin", "node1", "10.244.2.2", json!({"app": "twin"})));
        };
        let finding = only(Id::PodAddressDuplicate, twin);
        assert_eq!(finding.to_string(), "Pod shop/web-0: 10.244.2.2 is the address of shop/twin, too");
        let none = after(|facts| {
            twin(facts);
            facts.pods[2]["status"]["phase"] = json!("Succeeded");
        });
        assert_eq!(none, [], "what ended has none");
    }
}
