//! What a node needs, decided from values alone: the Nodes of the cluster, the agent's settings, and what
//! this machine says of its own network. Each part is planned by its own planner; here they are given what
//! they share. Nothing is read, written or remembered.

use std::net::IpAddr;

use weft_cni_spec::NetworkList;
use weft_types::{Family, IpNetwork, Node, Snapshot, overlap};

use crate::cidr_allocations::{CidrAllocations, Owner};
use crate::cni_config::plan as cni_config;
use crate::config::Config;
use crate::masquerade::plan::MasqueradePlan;
use crate::notice::Notice;
use crate::routing::plan::RoutingPlan;
use crate::sysctls::plan::{self as sysctls, Sysctl};
use crate::uplink::Uplink;

/// Everything that a node needs. Prints as commands and files that would bring it about.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NodePlan {
    /// Kernel settings.
    pub sysctls: Vec<Sysctl>,
    /// The way to the pods of the other nodes.
    pub routing: RoutingPlan,
    /// What pods send out of the cluster leaves under the node's address.
    pub masquerade: MasqueradePlan,
    /// The CNI configuration; none while the node has no pod CIDR.
    pub cni_config: Option<NetworkList>,
    /// What keeps the plan from being complete.
    pub notices: Vec<Notice>,
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
    notices.extend(about_this_node(&node.name, config, uplink));
    let former: Vec<IpNetwork> =
        uplink.former.keys().copied().filter(|range| is_free(range, snapshot)).collect();
    let (routing, obstacles) = RoutingPlan::new(snapshot, &node, config, uplink, &mut allocations);
    notices.extend(obstacles);
    let served = if node.pod_cidrs.is_empty() { Vec::new() } else { [&*node.pod_cidrs, &former].concat() };
    let inside = config.cluster_cidrs.iter().copied().chain(routing.destinations.iter().copied());
    let masquerade = MasqueradePlan::new(served, inside);
    // What fits on the way to every other node.
    let mtu = config.mtu.or(routing.mtu).or(uplink.mtu);
    let cni_config = cni_config::plan(&node, config, mtu, former);
    Ok(NodePlan { sysctls: sysctls::plan(&node, uplink), routing, masquerade, cni_config, notices })
}

/// The node with those of its pod CIDRs that no Service is in, and what is wrong with the others.
fn allocate_own(node: &Node, config: &Config, allocations: &mut CidrAllocations) -> (Node, Vec<Notice>) {
    let mut notices = Vec::new();
    if node.pod_cidrs.is_empty() && config.blocks.is_none() {
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

/// What the machine says of itself that somebody should know.
fn about_this_node(node: &str, config: &Config, uplink: &Uplink) -> Vec<Notice> {
    let foreign = uplink.foreign.iter().map(|&address: &IpAddr| Notice::NotHere {
        node: node.to_owned(),
        address,
        used: uplink.local(Family::of(address)),
        port: config.vxlan.port,
    });
    let former =
        uplink.former.iter().map(|(&cidr, &pods)| Notice::Former { node: node.to_owned(), cidr, pods });
    foreign.chain(former).collect()
}

/// Whether a range is nobody's by now: the way to another Node's pods goes before.
fn is_free(range: &IpNetwork, snapshot: &Snapshot) -> bool {
    !snapshot.nodes().flat_map(|node| &node.pod_cidrs).any(|cidr| overlap(cidr, range))
}

impl NodePlan {
    /// The MTU, in bytes, that the bridge of the pods must have.
    pub fn bridge_mtu(&self) -> Option<u32> {
        self.cni_config.as_ref()?.plugins.first()?.bridge.mtu
    }

    /// The text of the CNI configuration file.
    pub fn cni_config_text(&self) -> Option<String> {
        self.cni_config.as_ref().map(cni_config::text)
    }
}

#[cfg(test)]
mod tests;
