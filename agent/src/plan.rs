//! What a node needs, decided from values alone: the Nodes of the cluster, the agent's settings, the MTU of the
//! node's link. Nothing is read, written or remembered here.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;

use thiserror::Error;
use weft_netlink::nft::Table;
use weft_types::cni::{BridgeOptions, InterfaceName, Ipam, NetworkList, NetworkName, Plugin, Range};
use weft_types::{Family, IpNetwork, Node, Snapshot};

use crate::masquerade;
use crate::routes::{self, NodeRoute};

/// The name of the plugin's program.
pub const PLUGIN: &str = "weft-cni";

/// The agent's settings, as far as plans depend on them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Ranges within which pods see each other's real addresses, besides the Nodes' own pod CIDRs.
    pub cluster_cidrs: Vec<IpNetwork>,
    /// The CNI network's name.
    pub network_name: NetworkName,
    /// The bridge that the node's pods are on.
    pub bridge: InterfaceName,
    /// Where the reservations of addresses are kept.
    pub data_dir: PathBuf,
    /// The pods' MTU in bytes, where it is not to be that of the node's link.
    pub mtu: Option<u32>,
}

/// Everything that a node needs. Prints as commands and files that would bring it about.
#[derive(Clone, Debug, PartialEq)]
pub struct NodePlan {
    /// Kernel settings.
    pub sysctls: Vec<Sysctl>,
    /// Routes to the pods of the other nodes, in the order of their destinations.
    pub routes: Vec<NodeRoute>,
    /// nf_tables tables that masquerade what pods send out of the cluster; one per family that the node has pods of.
    pub masquerade: Vec<Table>,
    /// The CNI configuration; none while the node has no pod CIDR.
    pub conflist: Option<NetworkList>,
    /// What keeps the plan from being complete.
    pub notices: Vec<Notice>,
}

/// A kernel setting of the network namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sysctl {
    /// Its name, as sysctl(8) has it.
    pub name: &'static str,
    /// The value that it must have.
    pub value: &'static str,
}

/// Something about the cluster that somebody should know of and mend.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Error)]
pub enum Notice {
    /// This node's object is missing, or left out as malformed.
    #[error(
        "there is no usable Node {0}: it appears when the kubelet registers; where it has another name, give \
         --hostname-override NODE. Nothing is changed until then"
    )]
    NoNode(String),
    /// This node has no range for its pods.
    #[error(
        "Node {0} has no pod CIDR, so that no pod can start on it: let kube-controller-manager allocate one \
         (--allocate-node-cidrs, --cluster-cidr) or set spec.podCIDRs; waiting for it"
    )]
    NoPodCidr(String),
    /// Another node's pods cannot be reached, as no address leads there.
    #[error(
        "Node {node} has the pod CIDR {cidr} but no {family} InternalIP: its pods are not reachable from here"
    )]
    NoAddress {
        /// The other node.
        node: String,
        /// Its range.
        cidr: IpNetwork,
        /// The family of the range.
        family: Family,
    },
    /// Two nodes claim the same addresses.
    #[error(
        "the pod CIDR {cidr} of Node {node} overlaps {other_cidr} of Node {other}: it gets no route from here"
    )]
    Overlap {
        /// The node that goes without.
        node: String,
        /// Its range.
        cidr: IpNetwork,
        /// The node that keeps its range.
        other: String,
        /// The range that it keeps.
        other_cidr: IpNetwork,
    },
}

/// Plans for the node of that name. `link_mtu` is the MTU, in bytes, of the interface that holds the node's address,
/// where there is one.
///
/// # Errors
/// [`Notice::NoNode`] where the cluster has no such Node: then what the machine has must stay as it is.
pub fn plan(
    snapshot: &Snapshot,
    node: &str,
    config: &Config,
    link_mtu: Option<u32>,
) -> Result<NodePlan, Notice> {
    let node = snapshot.node(node).ok_or_else(|| Notice::NoNode(node.to_owned()))?;
    let (routes, mut notices) = routes::plan(snapshot, node);
    if node.pod_cidrs.is_empty() {
        notices.insert(0, Notice::NoPodCidr(node.name.clone()));
    }
    let conflist = (!node.pod_cidrs.is_empty()).then(|| conflist(node, config, link_mtu));
    let elsewhere = routes.iter().map(|route| route.destination);
    let masquerade = masquerade::plan(node, config.cluster_cidrs.iter().copied().chain(elsewhere));
    Ok(NodePlan { sysctls: sysctls(node), routes, masquerade, conflist, notices })
}

/// Forwarding, for each family that the node has pods of. It is not set for IPv6 without need: there it also makes the
/// kernel ignore router advertisements, from which a host may have its default route (RFC 4861 section 6.2.8).
fn sysctls(node: &Node) -> Vec<Sysctl> {
    let has = |family| node.pod_cidrs.iter().any(|cidr| Family::of_network(cidr) == family);
    let name = |family| match family {
        Family::V4 => "net.ipv4.ip_forward",
        Family::V6 => "net.ipv6.conf.all.forwarding",
    };
    let families = Family::BOTH.into_iter().filter(|&family| has(family));
    families.map(|family| Sysctl { name: name(family), value: "1" }).collect()
}

fn conflist(node: &Node, config: &Config, link_mtu: Option<u32>) -> NetworkList {
    let bridge = BridgeOptions {
        bridge: Some(config.bridge.to_string()),
        is_gateway: true,
        is_default_gateway: true,
        // A bridge that kept its address from an earlier pod CIDR would keep every pod from starting.
        force_address: true,
        mtu: config.mtu.or(link_mtu),
        // The host then routes between pods of one node too, so that Services work between them without br_netfilter.
        port_isolation: true,
        ..BridgeOptions::default()
    };
    let ipam = Ipam {
        kind: "weft-ipam".to_owned(),
        ranges: node.pod_cidrs.iter().map(|&cidr| vec![Range::of(cidr)]).collect(),
        data_dir: Some(config.data_dir.clone()),
        ..Ipam::default()
    };
    let plugin = Plugin { kind: PLUGIN.to_owned(), bridge, ipam: Some(ipam), ..Plugin::default() };
    NetworkList {
        // Runtimes that know `cniVersions` take the newest of them, and with it STATUS and GC; older ones, such as
        // containerd 1.7, refuse a result of 1.1.0 and have to be told of 1.0.0 (CNI SPEC 1.1.0, section 1).
        cni_version: "1.0.0".to_owned(),
        cni_versions: vec!["1.0.0".to_owned(), "1.1.0".to_owned()],
        name: config.network_name.to_string(),
        plugins: vec![plugin],
        ..NetworkList::default()
    }
}

impl NodePlan {
    /// The text of the CNI configuration file.
    pub fn conflist_text(&self) -> Option<String> {
        // Plain structs of texts and numbers: there is nothing in them that JSON has no words for.
        let text = serde_json::to_string_pretty(self.conflist.as_ref()?).unwrap_or_default();
        Some(text + "\n")
    }
}

impl fmt::Display for NodePlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for notice in &self.notices {
            writeln!(f, "# {notice}")?;
        }
        for Sysctl { name, value } in &self.sysctls {
            writeln!(f, "sysctl -w {name}={value}")?;
        }
        for route in &self.routes {
            writeln!(f, "ip route add {route}")?;
        }
        for table in &self.masquerade {
            write!(f, "{table}")?;
        }
        match self.conflist_text() {
            Some(text) => write!(f, "# {file}\n{text}", file = crate::conflist::FILE),
            None => Ok(()),
        }
    }
}

/// Whether the addresses of two networks meet.
pub(crate) fn overlap(one: &IpNetwork, other: &IpNetwork) -> bool {
    one.contains(other.ip()) || other.contains(one.ip())
}

/// Whether every address of `inner` is one of `outer`.
pub(crate) fn contains(outer: &IpNetwork, inner: &IpNetwork) -> bool {
    outer.prefix() <= inner.prefix() && outer.contains(inner.ip())
}

/// The node's address in the family of a network, under which the other nodes reach it.
pub(crate) fn gateway(node: &Node, cidr: &IpNetwork) -> Option<IpAddr> {
    node.address(Family::of_network(cidr))
}

#[cfg(test)]
mod tests {
    use weft_types::{ChangeSet, Object};

    use super::*;

    fn config(cluster_cidrs: &[&str]) -> Config {
        Config {
            cluster_cidrs: cluster_cidrs.iter().map(|text| text.parse().unwrap()).collect(),
            network_name: "weft".parse().unwrap(),
            bridge: "cni0".parse().unwrap(),
            data_dir: "/var/lib/cni/networks".into(),
            mtu: None,
        }
    }

    fn snapshot(nodes: &[(&str, &[&str], &[&str])]) -> Snapshot {
        let mut snapshot = Snapshot::default();
        for (name, pod_cidrs, addresses) in nodes {
            let node = Node {
                name: (*name).to_owned(),
                pod_cidrs: pod_cidrs.iter().map(|text| text.parse().unwrap()).collect(),
                addresses: addresses.iter().map(|text| text.parse().unwrap()).collect(),
            };
            snapshot.apply(Object::Node(node), &mut ChangeSet::default());
        }
        snapshot
    }

    const NODE1: (&str, &[&str], &[&str]) = ("node1", &["10.244.1.0/24"], &["172.30.0.11"]);
    const NODE2: (&str, &[&str], &[&str]) = ("node2", &["10.244.2.0/24"], &["172.30.0.12"]);

    #[test]
    fn three_nodes() {
        let node3: (_, &[_], &[_]) = ("node3", &["10.244.3.0/24"], &["172.30.0.13"]);
        let snapshot = snapshot(&[NODE1, NODE2, node3]);
        let plan = plan(&snapshot, "node1", &config(&["10.244.0.0/16"]), Some(1500)).unwrap();
        insta::assert_snapshot!(plan);
    }

    #[test]
    fn dual_stack_without_a_cluster_cidr() {
        let snapshot = snapshot(&[
            ("node1", &["10.244.1.0/24", "fd00:10:244:1::/64"], &["172.30.0.11", "fd00:30::11"]),
            ("node2", &["10.244.2.0/24", "fd00:10:244:2::/64"], &["172.30.0.12", "fd00:30::12"]),
        ]);
        insta::assert_snapshot!(plan(&snapshot, "node1", &config(&[]), None).unwrap());
    }

    #[test]
    fn everything_that_can_be_wrong_with_nodes() {
        let snapshot = snapshot(&[
            ("a-thief", &["10.244.1.128/25"], &["172.30.0.20"]),
            ("b-everything", &["0.0.0.0/0"], &["172.30.0.21"]),
            NODE1,
            NODE2,
            ("node3", &["10.244.2.0/25", "10.244.3.0/24"], &["172.30.0.13"]),
            ("node4", &["fd00:10:244:4::/64"], &["172.30.0.14"]),
            ("node5", &[], &[]),
        ]);
        insta::assert_snapshot!(plan(&snapshot, "node1", &config(&["10.244.0.0/16"]), Some(9000)).unwrap());
    }

    #[test]
    fn a_node_without_a_pod_cidr_routes_but_starts_no_pods() {
        let snapshot = snapshot(&[("node1", &[], &["172.30.0.11"]), NODE2]);
        insta::assert_snapshot!(plan(&snapshot, "node1", &config(&[]), Some(1500)).unwrap());
    }

    #[test]
    fn without_its_node_there_is_no_plan() {
        let error = plan(&snapshot(&[NODE2]), "node1", &config(&[]), None).unwrap_err();
        assert_eq!(error, Notice::NoNode("node1".to_owned()));
    }

    #[test]
    fn the_flag_goes_before_the_links_mtu() {
        let config = Config { mtu: Some(1400), ..config(&[]) };
        let plan = plan(&snapshot(&[NODE1]), "node1", &config, Some(1500)).unwrap();
        assert_eq!(plan.conflist.unwrap().plugins[0].bridge.mtu, Some(1400));
    }
}
