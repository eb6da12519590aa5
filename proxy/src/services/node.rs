//! The node that Services are planned for, and what of the cluster its own configuration depends on.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use weft_types::{Endpoint, Family, IpNetwork, NamespacedName, Node};

/// Where the proxy runs, as the plan of a Service depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodeContext<'a> {
    /// The Node's name.
    pub node: &'a str,
    /// The zone that it stands in, where that is known.
    pub zone: Option<&'a str>,
    /// The Node's first address of each family.
    pub addresses: &'a [IpAddr],
}

impl NodeContext<'_> {
    /// Whether that endpoint is known to be on this node.
    pub(super) fn runs(&self, endpoint: &Endpoint) -> bool {
        endpoint.node.as_deref() == Some(self.node)
    }
}

/// What a data plane needs to know of the cluster besides its Services.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeConfig {
    /// The Node's addresses, in their order. The first one of each family serves NodePorts, where no flag
    /// chooses others.
    pub addresses: Vec<IpAddr>,
    /// The networks that this Node's pods take their addresses from.
    pub pod_cidrs: Vec<IpNetwork>,
    /// The networks that ClusterIPs are taken from; in order, each once. None where the cluster does not say.
    pub service_cidrs: Vec<IpNetwork>,
}

impl NodeConfig {
    /// What the cluster says of that Node, if it is known, and of the networks of ClusterIPs.
    pub(super) fn new<'a>(
        node: Option<&Node>,
        service_cidrs: impl IntoIterator<Item = &'a IpNetwork>,
    ) -> NodeConfig {
        let mut service_cidrs: Vec<_> = service_cidrs.into_iter().copied().collect();
        service_cidrs.sort();
        service_cidrs.dedup();
        NodeConfig {
            addresses: node.map(|node| node.addresses.clone()).unwrap_or_default(),
            pod_cidrs: node.map(|node| node.pod_cidrs.clone()).unwrap_or_default(),
            service_cidrs,
        }
    }

    /// The first address of each family.
    pub fn primary_addresses(&self) -> Vec<IpAddr> {
        let first = |family| self.addresses.iter().copied().find(|address| Family::of(*address) == family);
        Family::BOTH.into_iter().filter_map(first).collect()
    }
}

/// What changed of the node.
#[derive(Debug)]
pub(super) struct NodeChanges {
    /// The zone that it stands in.
    pub(super) moved: bool,
    /// Its first address of a family.
    pub(super) readdressed: bool,
    /// The Services whose external addresses are among its own, or were.
    pub(super) contested: BTreeSet<Arc<NamespacedName>>,
}
