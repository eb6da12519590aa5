//! Which pod network the container runtime takes, and whether there is one besides.

use serde_json::Value;

use super::lookup::{key, list};
use crate::cluster::name;
use crate::doctor::facts::Facts;
use crate::finding::{Finding, Id};

/// What the DaemonSets of other pod networks are called.
const NETWORKS: [(&str, &str); 10] = [
    ("kube-flannel", "Flannel"),
    ("calico-node", "Calico"),
    ("cilium", "Cilium"),
    ("weave-net", "Weave Net"),
    ("kindnet", "kindnet"),
    ("kube-router", "kube-router"),
    ("antrea-agent", "Antrea"),
    ("canal", "Canal"),
    ("ovnkube-node", "OVN-Kubernetes"),
    ("aws-node", "the AWS VPC CNI"),
];

pub(super) fn check(facts: &Facts) -> Vec<Finding> {
    let mut findings: Vec<Finding> = facts.machines().filter_map(|(node, _)| order(facts, node)).collect();
    findings.extend(facts.daemon_sets.iter().filter_map(other_network));
    findings
}

/// The first file is the pod network (libcni, `ConfFiles`: in the order of their names).
fn order(facts: &Facts, node: &str) -> Option<Finding> {
    let cni = &facts.agents.get(node)?.as_ref().ok()?.cni;
    if cni.own.is_empty() {
        return None;
    }
    let about =
        |id, what: String| Finding::error(id, format!("Node {node}"), what).reach(facts.pods_on(node).max(1));
    if !cni.files.contains(&cni.own) {
        let what =
            format!("{} has no {}: no pod can start there, and none can be deleted", cni.folder, cni.own);
        let fix = "See what its agent says: kubectl -n kube-system logs of it. The folder must be the runtime's (--cni-conf-dir)";
        return Some(about(Id::CniMissing, what).fix(fix));
    }
    let first = cni.files.first().filter(|first| **first != cni.own)?;
    let what = format!(
        "{first} comes before {} in {}: the container runtime takes it, and new pods get that network",
        cni.own, cni.folder
    );
    let fix = format!(
        "On the node: rm {}/{first}, once nobody uses its network, and uninstall what wrote it",
        cni.folder
    );
    Some(about(Id::CniShadowed, what).fix(fix))
}

fn other_network(set: &Value) -> Option<Finding> {
    let (_, whose) = NETWORKS.iter().find(|(prefix, _)| name(set).starts_with(prefix))?;
    // Some run as something else: Cilium's Envoy, Calico's CSI driver.
    let writes = list(&set["spec"]["template"]["spec"]["volumes"])
        .any(|volume| volume["hostPath"]["path"].as_str().is_some_and(|path| path.contains("cni")));
    writes.then(|| {
        let fix = format!(
            "Uninstall it (kubectl -n {} delete daemonset {}), then delete its CNI configuration and interfaces on each node, \
             or reboot",
            set["metadata"]["namespace"].as_str().unwrap_or_default(),
            name(set)
        );
        let what = format!("{whose} is a pod network, too: pods of a node are of one or the other");
        Finding::error(Id::OtherNetwork, format!("DaemonSet {}", key(set)), what).fix(fix)
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::tests::{after, machine_of, only};
    use super::*;

    fn files(names: &[&str]) -> impl FnOnce(&mut Facts) {
        let names = names.iter().map(|&name| name.to_owned()).collect();
        |facts| machine_of(facts, "node1").cni.files = names
    }

    #[test]
    fn the_configuration_that_wins_is_named() {
        let finding = only(Id::CniShadowed, files(&["00-other.conf", "10-weft.conflist"]));
        assert!(finding.what.starts_with("00-other.conf comes before 10-weft.conflist in /etc/cni/net.d"));
        only(Id::CniMissing, files(&["20-other.conf"]));
        assert_eq!(after(files(&["10-weft.conflist", "20-other.conf"])), [], "nobody reads that");
    }

    #[test]
    fn another_pod_network_is_named() {
        let set = |name: &str, path: &str| {
            json!({"metadata": {"namespace": "kube-flannel", "name": name}, "spec": {"template": {"spec": {
                "volumes": [{"hostPath": {"path": path}}]}}}})
        };
        let finding =
            only(Id::OtherNetwork, |facts| facts.daemon_sets.push(set("kube-flannel-ds", "/etc/cni/net.d")));
        assert_eq!(finding.subject, "DaemonSet kube-flannel/kube-flannel-ds");
        assert_eq!(after(|facts| facts.daemon_sets.push(set("cilium-envoy", "/sys/fs/bpf"))), []);
    }
}
