//! What of a cluster is in Weft's way: from objects as the API server has them to words, with the remedy.

use std::net::IpAddr;

use serde_json::Value;

use crate::cluster::{name, shown};

/// The DaemonSets of other pod networks.
const OTHER_NETWORKS: [&str; 9] = [
    "kube-flannel-ds",
    "canal",
    "calico-node",
    "cilium",
    "weave-net",
    "kube-router",
    "kindnet",
    "antrea-agent",
    "ovnkube-node",
];

/// Everything that is in the way. `dns` is the kube-dns Service as it is.
pub(crate) fn find(
    daemon_sets: &[Value],
    nodes: &[Value],
    dns: Option<&Value>,
    dns_address: IpAddr,
) -> Vec<String> {
    let sets = daemon_sets.iter().filter_map(daemon_set);
    let nodes = nodes.iter().filter_map(node);
    sets.chain(nodes).chain(dns.and_then(|service| dns_service(service, dns_address))).collect()
}

fn daemon_set(set: &Value) -> Option<String> {
    let namespace = set["metadata"]["namespace"].as_str().unwrap_or_default();
    let remedy = format!("kubectl -n {namespace} delete daemonset {}", name(set));
    match name(set) {
        "kube-proxy" => Some(format!(
            "{} serves Services already: {remedy}; then clean each node (weft preflight)",
            shown(set)
        )),
        other if OTHER_NETWORKS.contains(&other) => Some(format!(
            "{} is another pod network: {remedy}; then clean each node (weft preflight)",
            shown(set)
        )),
        _ => None,
    }
}

fn node(node: &Value) -> Option<String> {
    let spec = &node["spec"];
    let has_range =
        spec["podCIDR"].is_string() || spec["podCIDRs"].as_array().is_some_and(|list| !list.is_empty());
    let remedy = "let kube-controller-manager allocate them (--allocate-node-cidrs --cluster-cidr; kubeadm: podSubnet)";
    (!has_range).then(|| format!("Node {} has no pod CIDR: {remedy}", name(node)))
}

/// A ClusterIP cannot be changed, and kubelets tell theirs to pods.
fn dns_service(service: &Value, wanted: IpAddr) -> Option<String> {
    let held = service["spec"]["clusterIP"].as_str()?;
    (held != wanted.to_string()).then(|| {
        format!(
            "Service kube-system/kube-dns has the address {held}, not {wanted}: give --cluster-dns {held}"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_in_the_way_is_named_with_the_remedy() {
        let set =
            |name: &str| json!({"kind": "DaemonSet", "metadata": {"name": name, "namespace": "kube-system"}});
        let nodes = [
            json!({"metadata": {"name": "one"}, "spec": {"podCIDRs": ["10.244.0.0/24"]}}),
            json!({"metadata": {"name": "two"}, "spec": {}}),
        ];
        let dns = json!({"spec": {"clusterIP": "10.43.0.10"}});
        let sets = [set("kube-proxy"), set("calico-node"), set("node-exporter"), set("weft-agent")];
        let found = find(&sets, &nodes, Some(&dns), "10.96.0.10".parse().unwrap());
        let [proxy, network, node, service] = found.as_slice() else { panic!("{found:#?}") };
        assert!(proxy.contains("kubectl -n kube-system delete daemonset kube-proxy"), "{proxy}");
        assert!(network.contains("calico-node is another pod network"), "{network}");
        assert!(node.starts_with("Node two has no pod CIDR"), "{node}");
        assert!(service.ends_with("give --cluster-dns 10.43.0.10"), "{service}");
    }

    #[test]
    fn a_cluster_that_has_weft_already_is_fine() {
        let nodes = [json!({"metadata": {"name": "one"}, "spec": {"podCIDR": "10.244.0.0/24"}})];
        let dns = json!({"spec": {"clusterIP": "10.96.0.10"}});
        assert_eq!(find(&[], &nodes, Some(&dns), "10.96.0.10".parse().unwrap()), Vec::<String>::new());
    }
}
