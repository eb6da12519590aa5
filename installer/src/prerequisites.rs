//! What an installation needs of a cluster and does not find: from objects as the API server has them to
//! words, with the remedy.

use std::net::IpAddr;

use serde_json::Value;
use weft_types::{IpNetwork, is_subnet_of};

use crate::cluster::{name, shown};
use crate::manifests::{IpamMode, Values};

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

/// Every prerequisite that the cluster does not meet. `dns` is the kube-dns Service as it is.
pub(crate) fn unmet(
    daemon_sets: &[Value],
    nodes: &[Value],
    dns: Option<&Value>,
    values: &Values,
) -> Vec<String> {
    let sets = daemon_sets.iter().filter_map(daemon_set);
    // Where nodes claim blocks, nobody looks at pod CIDRs.
    let nodes = nodes.iter().filter(|_| values.ipam == IpamMode::NodeCidr);
    let nodes = nodes.filter_map(|one| node(one, &values.cluster_cidr));
    let metallb = daemon_sets.iter().filter(|_| values.load_balancers.are_wanted()).find_map(metallb);
    sets.chain(metallb)
        .chain(nodes)
        .chain(dns.and_then(|service| dns_service(service, values.cluster_dns)))
        .collect()
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

/// Two that give addresses to the same Services get in each other's way.
fn metallb(set: &Value) -> Option<String> {
    let namespace = set["metadata"]["namespace"].as_str().unwrap_or_default();
    let labels = &set["metadata"]["labels"];
    let is_it = labels["app"] == "metallb" || labels["app.kubernetes.io/name"] == "metallb";
    is_it.then(|| {
        format!(
            "{} is MetalLB's, which gives and announces load balancer addresses already: kubectl -n {namespace} delete              deployment,daemonset -l 'app in (metallb)' -l app.kubernetes.io/name=metallb; its objects may stay",
            shown(set)
        )
    })
}

/// A Node needs pod CIDRs, and all within the range that masquerade and Services go by.
fn node(node: &Value, cluster_cidrs: &[IpNetwork]) -> Option<String> {
    let spec = &node["spec"];
    let listed: Vec<&str> =
        spec["podCIDRs"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let pod_cidrs = if listed.is_empty() { spec["podCIDR"].as_str().into_iter().collect() } else { listed };
    if pod_cidrs.is_empty() {
        return Some(format!(
            "Node {} has no pod CIDR: let kube-controller-manager allocate them (--allocate-node-cidrs --cluster-cidr; \
             kubeadm: podSubnet)",
            name(node)
        ));
    }
    let is_outside = |cidr: &&&str| {
        let holds = |range: &IpNetwork| cidr.parse().is_ok_and(|cidr: IpNetwork| is_subnet_of(&cidr, range));
        !cluster_cidrs.iter().any(holds)
    };
    let outside = pod_cidrs.iter().find(is_outside)?;
    let given = cluster_cidrs.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
    Some(format!(
        "Node {} has the pod CIDR {outside}, which is not within --cluster-cidr {given}: give what kube-controller-manager \
         was given (kubeadm: podSubnet), both families of a dual-stack cluster",
        name(node)
    ))
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
    use crate::manifests::LoadBalancerValues;
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
        let found = unmet(&sets, &nodes, Some(&dns), &Values::default());
        let [proxy, network, node, service] = found.as_slice() else { panic!("{found:#?}") };
        assert!(proxy.contains("kubectl -n kube-system delete daemonset kube-proxy"), "{proxy}");
        assert!(network.contains("calico-node is another pod network"), "{network}");
        assert!(node.starts_with("Node two has no pod CIDR"), "{node}");
        assert!(service.ends_with("give --cluster-dns 10.43.0.10"), "{service}");
    }

    #[test]
    fn metallb_is_in_the_way_where_agents_are_to_give_addresses() {
        let labels = json!({"app": "metallb", "component": "speaker"});
        let metadata = json!({"name": "speaker", "namespace": "metallb-system", "labels": labels});
        let sets = [json!({"kind": "DaemonSet", "metadata": metadata})];
        assert!(unmet(&sets, &[], None, &Values::default()).is_empty());
        let load_balancers = LoadBalancerValues { lb_crds: true, ..LoadBalancerValues::default() };
        let found = unmet(&sets, &[], None, &Values { load_balancers, ..Values::default() });
        assert!(found.len() == 1 && found[0].contains("metallb-system/speaker is MetalLB's"), "{found:?}");
    }

    #[test]
    fn a_cluster_that_has_weft_already_is_fine() {
        let nodes = [json!({"metadata": {"name": "one"}, "spec": {"podCIDR": "10.244.0.0/24"}})];
        let dns = json!({"spec": {"clusterIP": "10.96.0.10"}});
        assert_eq!(unmet(&[], &nodes, Some(&dns), &Values::default()), Vec::<String>::new());
    }

    /// Services and masquerade would take those pods for strangers.
    #[test]
    fn a_pod_cidr_outside_of_the_cluster_s_range_is_named() {
        let node = |cidrs: &[&str]| [json!({"metadata": {"name": "one"}, "spec": {"podCIDRs": cidrs}})];
        let values = |cidrs: &[&str]| Values {
            cluster_cidr: cidrs.iter().map(|cidr| cidr.parse().unwrap()).collect(),
            ..Values::default()
        };
        let dual = node(&["10.42.0.0/24", "fd00:42::/64"]);
        assert_eq!(unmet(&[], &dual, None, &values(&["10.42.0.0/16", "fd00:42::/56"])), Vec::<String>::new());
        for (given, outside) in [
            (&["10.244.0.0/16"][..], "10.42.0.0/24"),
            (&["10.42.0.0/16"], "fd00:42::/64"),
            (&["10.42.0.0/25"], "10.42.0.0/24"),
        ] {
            let found = unmet(&[], &dual, None, &values(given));
            assert_eq!(found.len(), 1, "{found:?}");
            assert!(found[0].contains(outside) && found[0].contains("--cluster-cidr"), "{found:?}");
        }
    }
}
