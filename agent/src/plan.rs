//! What a node needs, decided from values alone: the Nodes of the cluster, the agent's settings, the MTU of the
//! node's link. Nothing is read, written or remembered here.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;

use thiserror::Error;
use weft_cni_spec::{BridgeOptions, InterfaceName, Ipam, NetworkList, NetworkName, Plugin, Range};
use weft_nftables::Table;
use weft_types::{Family, IpNetwork, Node, Snapshot};

use crate::cidr_allocations::{CidrAllocations, Conflict, Owner};
use crate::cni_config::file;
use crate::routing::plan::{NodeRoute, RoutingPlan};
use crate::routing::probe;
use crate::routing::probe::plan::Probe;
use crate::routing::vxlan::plan::{Overlay, Settings};
use crate::uplink::{Backend, LeaveBy, Uplink};
use crate::{masquerade, sysctls};

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
    /// By which of its addresses this node reaches the others.
    pub leave_by: LeaveBy,
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
    /// The straight ways that are to be tried.
    pub probes: Vec<Probe>,
    /// The interfaces that lead to the other nodes.
    pub links: Vec<String>,
    /// nf_tables tables that masquerade what pods send out of the cluster; one per family that the node has pods of.
    pub masquerade: Vec<Table>,
    /// The CNI configuration; none while the node has no pod CIDR.
    pub conflist: Option<NetworkList>,
    /// What keeps the plan from being complete.
    pub notices: Vec<Notice>,
}

/// A kernel setting of the network namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sysctl {
    /// Its name, as sysctl(8) has it.
    pub name: String,
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
    /// Another node's pods are not reached straight, though they should be.
    #[error(
        "Node {node} shares a link with this one ({address}), but what is sent straight to its pods ({cidr}) does not arrive: \
         they are reached through the tunnel; if the network between nodes has to drop pod addresses, say --backend vxlan \
         on all nodes, and if not, let TCP port {port} pass between nodes from pod addresses",
        port = probe::PORT
    )]
    NotDirect {
        /// The other node.
        node: String,
        /// Its address.
        address: IpAddr,
        /// Its range.
        cidr: IpNetwork,
    },
    /// Another node's pods are reached neither straight nor through the tunnel.
    #[error(
        "Node {node} answers under its address {address}, but neither straight nor through the tunnel is there a way to its \
         pods ({cidr}): see that weft-agent runs there, and that UDP port 8472 (--vxlan-port) and TCP port {port} pass between \
         the nodes",
        port = probe::PORT
    )]
    Cut {
        /// The other node.
        node: String,
        /// Its address.
        address: IpAddr,
        /// Its range.
        cidr: IpNetwork,
    },
    /// This node is known under an address that it does not have.
    #[error(
        "Node {node} has the address {address}, which is on no interface of this machine: what goes to other nodes leaves \
         from {}; other nodes reach this one's pods only if {address} leads here (UDP port {port}), and --node-ip or --iface \
         names another address or interface to leave by",
        used.map_or_else(|| "none".to_owned(), |used| used.to_string())
    )]
    NotHere {
        /// This node.
        node: String,
        /// Its address.
        address: IpAddr,
        /// The address that is used instead.
        used: Option<IpAddr>,
        /// The tunnel's port.
        port: u16,
    },
    /// Running pods have addresses of a range that the Node does not have any more.
    #[error(
        "{pods} running pods of Node {node} have addresses of {cidr}, which is none of its pod CIDRs any more: the node serves \
         them until they are gone, but other nodes know no way to them; start them anew"
    )]
    Former {
        /// This node.
        node: String,
        /// The range that it had.
        cidr: IpNetwork,
        /// How many.
        pods: usize,
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
    let mut allocations = CidrAllocations::default();
    let (node, mut notices) = allocate_own(node, config, &mut allocations);
    for other in snapshot.nodes() {
        notices.extend(allocations.allocate_addresses(other).into_iter().map(Notice::from));
    }
    notices.extend(uplink.foreign.iter().map(|&address| Notice::NotHere {
        node: node.name.clone(),
        address,
        used: uplink.local(Family::of(address)),
        port: config.vxlan.port,
    }));
    let former: Vec<IpNetwork> =
        uplink.former.keys().copied().filter(|range| is_free(range, snapshot)).collect();
    notices.extend(uplink.former.iter().map(|(&cidr, &pods)| {
        let node = node.name.clone();
        Notice::Former { node, cidr, pods }
    }));
    let ways = RoutingPlan::plan(snapshot, &node, config, uplink, &mut allocations);
    let tunnel = ways.overlay.as_ref().filter(|_| ways.is_tunnelled).map(|overlay| overlay.device.mtu);
    // What fits on the way to every other node. A way that is still open is taken for a straight one: a Node that comes would
    // change the MTU of all others' pods, for a moment.
    let mtu = config.mtu.or(tunnel).or(uplink.mtu);
    notices.extend(ways.notices);
    let conflist = (!node.pod_cidrs.is_empty()).then(|| network_list(&node, config, mtu, former.clone()));
    let elsewhere = ways.routes.iter().map(|route| route.destination);
    let served = if node.pod_cidrs.is_empty() { Vec::new() } else { [&*node.pod_cidrs, &former].concat() };
    let masquerade = masquerade::plan(&served, config.cluster_cidrs.iter().copied().chain(elsewhere));
    let (overlay, routes, probes) = (ways.overlay, ways.routes, ways.probes);
    let (sysctls, links) = (sysctls(&node, uplink), uplink.links.clone());
    Ok(NodePlan { sysctls, overlay, routes, probes, links, masquerade, conflist, notices })
}

/// The node with those of its pod CIDRs that no Service is in, and what is wrong with the others.
fn allocate_own(node: &Node, config: &Config, allocations: &mut CidrAllocations) -> (Node, Vec<Notice>) {
    let mut notices = Vec::new();
    if node.pod_cidrs.is_empty() {
        notices.push(Notice::NoPodCidr(node.name.clone()));
    }
    for &range in &config.service_cidrs {
        notices.extend(allocations.allocate(range, Owner::Services).err().map(Notice::from));
    }
    let mut own = node.clone();
    own.pod_cidrs.retain(|&cidr| match allocations.allocate(cidr, Owner::Node(node.name.clone())) {
        Ok(()) => true,
        Err(conflict) => {
            notices.push(conflict.into());
            false
        }
    });
    (own, notices)
}

/// Forwarding, for each family that the node has pods of. With IPv6 it also makes the kernel ignore router advertisements
/// (RFC 4861 section 6.2.8), and forget a default route that it has from one: an interface that has such a route must be told
/// before to take them all the same (ip-sysctl, accept_ra).
fn sysctls(node: &Node, uplink: &Uplink) -> Vec<Sysctl> {
    let has = |family| node.pod_cidrs.iter().any(|cidr| Family::of_network(cidr) == family);
    let set = |name: String, value| Sysctl { name, value };
    let mut sysctls = Vec::new();
    if has(Family::V4) {
        sysctls.push(set("net.ipv4.ip_forward".to_owned(), "1"));
    }
    if has(Family::V6) {
        let told = uplink.advertised.iter().map(|link| sysctls::written(link));
        sysctls.extend(told.map(|link| set(format!("net.ipv6.conf.{link}.accept_ra"), "2")));
        sysctls.push(set("net.ipv6.conf.all.forwarding".to_owned(), "1"));
    }
    sysctls
}

/// Whether a range is nobody's by now: the way to another Node's pods goes before.
fn is_free(range: &IpNetwork, snapshot: &Snapshot) -> bool {
    !snapshot.nodes().flat_map(|node| &node.pod_cidrs).any(|cidr| overlap(cidr, range))
}

fn network_list(node: &Node, config: &Config, mtu: Option<u32>, retired: Vec<IpNetwork>) -> NetworkList {
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
        retired,
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
            probes: Vec::new(),
            links: Vec::new(),
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
        self.conflist.as_ref().map(file::text)
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
            Some(text) => write!(f, "# {file}\n{text}", file = file::FILE),
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
mod tests;
