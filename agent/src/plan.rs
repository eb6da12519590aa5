//! What a node needs, decided from values alone: the Nodes of the cluster, the agent's settings, the MTU of the
//! node's link. Nothing is read, written or remembered here.

use std::fmt;
use std::path::PathBuf;

use thiserror::Error;
use weft_netlink::nft::Table;
use weft_types::cni::{BridgeOptions, InterfaceName, Ipam, NetworkList, NetworkName, Plugin, Range};
use weft_types::{Family, IpNetwork, Node, Snapshot};

use crate::backend::{Backend, Uplink};
use crate::claims::{Claims, Conflict, Owner};
use crate::overlay::{Overlay, Settings};
use crate::routes::{Hop, NodeRoute, Ways};
use crate::{conflist, masquerade};

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
    /// The machine's boot: in another, what is planned is not there any more.
    pub boot: Option<String>,
    /// The pods' MTU in bytes, where it is not to be what fits on the way to the other nodes.
    pub mtu: Option<u32>,
    /// How packets get to the pods of other nodes.
    pub backend: Backend,
    /// The tunnel's settings.
    pub vxlan: Settings,
    /// The ranges that Services take their addresses from, as far as they are known: no pod CIDR may overlap them.
    pub service_cidrs: Vec<IpNetwork>,
}

/// Everything that a node needs. Prints as commands and files that would bring it about.
#[derive(Clone, Debug, PartialEq)]
pub struct NodePlan {
    /// Kernel settings.
    pub sysctls: Vec<Sysctl>,
    /// The tunnel to nodes that share no link with this one.
    pub overlay: Option<Overlay>,
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
        "Node {node} has the pod CIDR {cidr} but neither an InternalIP nor an ExternalIP of {family}: its pods are not \
         reachable from here"
    )]
    NoAddress {
        /// The other node.
        node: String,
        /// Its range.
        cidr: IpNetwork,
        /// The family of the range.
        family: Family,
    },
    /// Another node's pods are behind a tunnel that there is not.
    #[error(
        "the pod CIDR {cidr} of Node {node} is to be reached through a VXLAN tunnel, but this node has neither an \
         InternalIP nor an ExternalIP to lead it from"
    )]
    NoTunnel {
        /// The other node.
        node: String,
        /// Its range.
        cidr: IpNetwork,
    },
    /// Two claim the same addresses.
    #[error("{range} ({owner}) overlaps {other_range} ({other}): {}", remedy(owner, other))]
    Overlap {
        /// The range of the one who goes without.
        range: IpNetwork,
        /// Who that is.
        owner: Owner,
        /// The range that stays.
        other_range: IpNetwork,
        /// Whose it is.
        other: Owner,
    },
}

fn remedy(owner: &Owner, other: &Owner) -> &'static str {
    match (owner, other) {
        (Owner::Address(_), Owner::Address(_)) => {
            "only one of them is reached; give each kubelet its own address (--node-ip), as machines of Vagrant have \
             the same one on their first interface"
        }
        (Owner::Node(_), _) => "no pod is reached there; give every range to one owner only",
        (Owner::Address(_), _) => "that Node is not reached from pods; choose other pod or Service ranges",
        (Owner::Services, _) => "name each range once (--service-cidr)",
    }
}

impl From<Conflict> for Notice {
    fn from(Conflict { range: (range, owner), other: (other_range, other) }: Conflict) -> Notice {
        Notice::Overlap { range, owner, other_range, other }
    }
}

/// Plans for the node of that name, whose own side of the network between the nodes is `uplink`.
///
/// # Errors
/// [`Notice::NoNode`] where the cluster has no such Node: then what the machine has must stay as it is.
pub fn plan(snapshot: &Snapshot, node: &str, config: &Config, uplink: &Uplink) -> Result<NodePlan, Notice> {
    let node = snapshot.node(node).ok_or_else(|| Notice::NoNode(node.to_owned()))?;
    let mut claims = Claims::default();
    let (node, mut notices) = claim_own(node, config, &mut claims);
    for other in snapshot.nodes() {
        notices.extend(claims.claim_addresses(other).into_iter().map(Notice::from));
    }
    let ways = Ways::plan(snapshot, &node, config, uplink, &mut claims);
    notices.extend(ways.notices);
    let mtu = config.mtu.or_else(|| pod_mtu(&ways.routes, ways.overlay.as_ref(), uplink));
    let conflist = (!node.pod_cidrs.is_empty()).then(|| network_list(&node, config, mtu));
    let elsewhere = ways.routes.iter().map(|route| route.destination);
    let masquerade = masquerade::plan(&node, config.cluster_cidrs.iter().copied().chain(elsewhere));
    let (overlay, routes) = (ways.overlay, ways.routes);
    Ok(NodePlan { sysctls: sysctls(&node), overlay, routes, masquerade, conflist, notices })
}

/// The node with those of its pod CIDRs that no Service is in, and what is wrong with the others.
fn claim_own(node: &Node, config: &Config, claims: &mut Claims) -> (Node, Vec<Notice>) {
    let mut notices = Vec::new();
    if node.pod_cidrs.is_empty() {
        notices.push(Notice::NoPodCidr(node.name.clone()));
    }
    for &range in &config.service_cidrs {
        notices.extend(claims.claim(range, Owner::Services).err().map(Notice::from));
    }
    let mut own = node.clone();
    own.pod_cidrs.retain(|&cidr| match claims.claim(cidr, Owner::Node(node.name.clone())) {
        Ok(()) => true,
        Err(conflict) => {
            notices.push(conflict.into());
            false
        }
    });
    (own, notices)
}

/// What fits on the way to every other node: the link's MTU, or the tunnel's where one leads into it.
fn pod_mtu(routes: &[NodeRoute], overlay: Option<&Overlay>, uplink: &Uplink) -> Option<u32> {
    let is_tunnelled = routes.iter().any(|route| route.hop == Hop::Tunnel);
    let tunnel = overlay.filter(|_| is_tunnelled).map(|overlay| overlay.device.mtu);
    tunnel.or(uplink.mtu)
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

fn network_list(node: &Node, config: &Config, mtu: Option<u32>) -> NetworkList {
    let bridge = BridgeOptions {
        bridge: Some(config.bridge.to_string()),
        is_gateway: true,
        is_default_gateway: true,
        // A bridge that kept its address from an earlier pod CIDR would keep every pod from starting.
        force_address: true,
        mtu,
        // The host then routes between pods of one node too, so that Services work between them without br_netfilter.
        port_isolation: true,
        boot: config.boot.clone(),
        ..BridgeOptions::default()
    };
    let ipam = Ipam {
        kind: "weft-ipam".to_owned(),
        ranges: range_sets(&node.pod_cidrs),
        data_dir: Some(config.data_dir.clone()),
        ..Ipam::default()
    };
    // Only then do runtimes hand over the host's ports and the limits that a pod asks for.
    let capabilities = ["bandwidth", "portMappings"].map(|name| (name.to_owned(), true)).into();
    let plugin = Plugin { kind: PLUGIN.to_owned(), capabilities, bridge, ipam: Some(ipam) };
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

/// A set for each family, that of the first pod CIDR first: a pod gets one address of each set, from whichever of its
/// ranges has one.
fn range_sets(pod_cidrs: &[IpNetwork]) -> Vec<Vec<Range>> {
    let mut families: Vec<Family> = pod_cidrs.iter().map(Family::of_network).collect();
    let first = families.first().copied();
    families.sort_by_key(|&family| Some(family) != first);
    families.dedup();
    let of = |family| pod_cidrs.iter().filter(move |cidr| Family::of_network(cidr) == family);
    families.into_iter().map(|family| of(family).copied().map(Range::of).collect()).collect()
}

impl NodePlan {
    /// The plan of a machine that is no node.
    pub fn nothing() -> NodePlan {
        NodePlan {
            sysctls: Vec::new(),
            overlay: None,
            routes: Vec::new(),
            masquerade: Vec::new(),
            conflist: None,
            notices: Vec::new(),
        }
    }

    /// The MTU, in bytes, that the bridge of the pods must have.
    pub fn bridge_mtu(&self) -> Option<u32> {
        self.conflist.as_ref()?.plugins.first()?.bridge.mtu
    }

    /// The text of the CNI configuration file.
    pub fn conflist_text(&self) -> Option<String> {
        self.conflist.as_ref().map(conflist::text)
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
        if let Some(overlay) = &self.overlay {
            write!(f, "{overlay}")?;
        }
        for route in &self.routes {
            writeln!(f, "ip route add {route}")?;
        }
        for table in &self.masquerade {
            write!(f, "{table}")?;
        }
        match self.conflist_text() {
            Some(text) => write!(f, "# {file}\n{text}", file = conflist::FILE),
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
            boot: None,
            mtu: None,
            backend: Backend::HostGw,
            vxlan: Settings { vni: 1, port: 8472 },
            service_cidrs: Vec::new(),
        }
    }

    fn uplink(mtu: u32, networks: &[&str]) -> Uplink {
        let networks = networks.iter().map(|text| text.parse().unwrap()).collect();
        Uplink { mtu: Some(mtu), networks }
    }

    fn snapshot(nodes: &[(&str, &[&str], &[&str])]) -> Snapshot {
        let mut snapshot = Snapshot::default();
        for (name, pod_cidrs, addresses) in nodes {
            let node = Node {
                name: (*name).to_owned(),
                pod_cidrs: pod_cidrs.iter().map(|text| text.parse().unwrap()).collect(),
                addresses: addresses.iter().map(|text| text.parse().unwrap()).collect(),
                ..Node::default()
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
        let plan = plan(&snapshot, "node1", &config(&["10.244.0.0/16"]), &uplink(1500, &[])).unwrap();
        insta::assert_snapshot!(plan);
    }

    #[test]
    fn dual_stack_without_a_cluster_cidr() {
        let snapshot = snapshot(&[
            ("node1", &["10.244.1.0/24", "fd00:10:244:1::/64"], &["172.30.0.11", "fd00:30::11"]),
            ("node2", &["10.244.2.0/24", "fd00:10:244:2::/64"], &["172.30.0.12", "fd00:30::12"]),
        ]);
        insta::assert_snapshot!(plan(&snapshot, "node1", &config(&[]), &Uplink::default()).unwrap());
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
        insta::assert_snapshot!(
            plan(&snapshot, "node1", &config(&["10.244.0.0/16"]), &uplink(9000, &[])).unwrap()
        );
    }

    /// As Vagrant's machines have 10.0.2.15 on their first interface, each of them.
    #[test]
    fn nodes_with_one_address_are_told_to_give_the_kubelet_another() {
        let nodes = snapshot(&[NODE1, ("node2", &["10.244.2.0/24"], NODE1.2)]);
        let plan = plan(&nodes, "node1", &config(&["10.244.0.0/16"]), &uplink(1500, &[])).unwrap();
        let told = plan.notices.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
        assert!(told.contains("--node-ip") && !told.contains("choose other pod or Service ranges"), "{told}");
    }

    #[test]
    fn a_node_without_a_pod_cidr_routes_but_starts_no_pods() {
        let snapshot = snapshot(&[("node1", &[], &["172.30.0.11"]), NODE2]);
        insta::assert_snapshot!(plan(&snapshot, "node1", &config(&[]), &uplink(1500, &[])).unwrap());
    }

    #[test]
    fn without_its_node_there_is_no_plan() {
        let error = plan(&snapshot(&[NODE2]), "node1", &config(&[]), &Uplink::default()).unwrap_err();
        assert_eq!(error, Notice::NoNode("node1".to_owned()));
    }

    #[test]
    fn the_flag_goes_before_the_links_mtu() {
        let config = Config { mtu: Some(1400), ..config(&[]) };
        let plan = plan(&snapshot(&[NODE1]), "node1", &config, &uplink(1500, &[])).unwrap();
        assert_eq!(plan.conflist.unwrap().plugins[0].bridge.mtu, Some(1400));
    }

    #[test]
    fn every_node_is_behind_the_tunnel() {
        let config = Config { backend: Backend::Vxlan, ..config(&["10.244.0.0/16"]) };
        let snapshot = snapshot(&[
            ("node1", &["10.244.1.0/24", "fd00:10:244:1::/64"], &["172.30.0.11", "fd00:30::11"]),
            ("node2", &["10.244.2.0/24", "fd00:10:244:2::/64"], &["172.30.0.12"]),
            ("node3", &["10.244.3.0/24", "10.244.4.0/24"], &["172.30.0.13"]),
            ("node4", &["10.244.5.0/24"], &["fd00:30::14"]),
        ]);
        insta::assert_snapshot!(
            plan(&snapshot, "node1", &config, &uplink(1500, &["172.30.0.0/24"])).unwrap()
        );
    }

    #[test]
    fn only_nodes_without_a_common_link_are_behind_the_tunnel() {
        let config = Config { backend: Backend::Auto, ..config(&["10.244.0.0/16"]) };
        let near = uplink(1500, &["172.30.0.0/24"]);
        let away = ("node3", &["10.244.3.0/24"][..], &["192.0.2.13"][..]);
        let mixed = plan(&snapshot(&[NODE1, NODE2, away]), "node1", &config, &near).unwrap();
        let hops: Vec<Hop> = mixed.routes.iter().map(|route| route.hop).collect();
        assert_eq!(hops, [Hop::Node("172.30.0.12".parse().unwrap()), Hop::Tunnel]);
        assert_eq!(mixed.overlay.as_ref().unwrap().remotes.len(), 1);
        assert_eq!(mixed.bridge_mtu(), Some(1450));

        let flat = plan(&snapshot(&[NODE1, NODE2]), "node1", &config, &near).unwrap();
        assert_eq!(flat.bridge_mtu(), Some(1500), "nothing is taken off where nothing is tunnelled");
        assert!(flat.overlay.is_some(), "others may see it differently, and send through the tunnel");
    }

    #[test]
    fn several_ranges_of_a_family_are_one_set_and_each_is_masqueraded() {
        let ranges = ["10.244.1.0/24", "fd00:10:244:1::/64", "10.244.9.0/24"];
        let own = ("node1", &ranges[..], &["172.30.0.11"][..]);
        let plan = plan(&snapshot(&[own]), "node1", &config(&[]), &uplink(1500, &[])).unwrap();
        for range in ranges {
            assert!(plan.to_string().contains(&format!("saddr {range} masquerade")), "{plan}");
        }
        let ipam = plan.conflist.unwrap().plugins[0].ipam.clone().unwrap();
        let sets = |ipam: Ipam| serde_json::to_value(ipam.ranges).unwrap();
        let subnet = |index: usize| serde_json::json!({"subnet": ranges[index]});
        assert_eq!(
            sets(ipam),
            serde_json::json!([[subnet(0), subnet(2)], [subnet(1)]]),
            "one address of each family"
        );
    }

    #[test]
    fn no_range_may_overlap_that_of_services() {
        let config = Config { service_cidrs: vec!["10.244.0.0/20".parse().unwrap()], ..config(&[]) };
        let node3 = ("node3", &["10.244.16.0/24"][..], &["172.30.0.13"][..]);
        let plan = plan(&snapshot(&[NODE1, NODE2, node3]), "node1", &config, &uplink(1500, &[])).unwrap();
        assert_eq!(plan.conflist, None, "no pod gets an address that may be a Service's");
        assert_eq!(plan.routes.len(), 1);
        let told: Vec<String> = plan.notices.iter().map(ToString::to_string).collect();
        let expected =
            "10.244.1.0/24 (the pod CIDR of Node node1) overlaps 10.244.0.0/20 (the Services' range)";
        assert!(told[0].starts_with(expected), "{told:?}");
        assert_eq!(told.len(), 2);
    }
}
