//! L2Advertisements: which load balancer addresses are announced by ARP and NDP, and from where.

use std::collections::BTreeSet;

use crate::{LabelSelector, NamespacedName, PoolSelection, Resource};

/// An L2Advertisement (metallb.io/v1beta1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct L2Advertisement {
    /// Namespace and name.
    pub key: NamespacedName,
    /// The pools whose addresses it announces.
    pub pools: PoolSelection,
    /// The nodes that may announce: those that one of these matches; all where there is none.
    pub node_selectors: Box<[LabelSelector]>,
    /// The interfaces that are announced on; all where there is none.
    pub interfaces: Box<[Box<str>]>,
    /// The Services whose addresses it announces: those that one of these matches; all where there is none.
    pub service_selectors: Box<[LabelSelector]>,
    /// Which of the nodes are preferred, all that match added up.
    pub preferred_nodes: Box<[PreferredNodes]>,
}

/// Nodes that are preferred to others, and by how much.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PreferredNodes {
    /// 1 to 100.
    pub weight: u8,
    /// The nodes.
    pub selector: LabelSelector,
}

impl Resource for L2Advertisement {
    const NAME: &'static str = "L2Advertisement";

    type Key = NamespacedName;
    type Stored = Box<L2Advertisement>;
    type Index = ();
    type Changes = BTreeSet<NamespacedName>;

    fn key(&self) -> &NamespacedName {
        &self.key
    }
}
