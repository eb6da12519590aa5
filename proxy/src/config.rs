//! What a plan depends on besides the cluster. Flags become this in `options.rs`.

use weft_types::{Family, IpNetwork};

/// The settings of the planner.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Config {
    /// The name of the Node that the proxy runs on.
    pub node: String,
    /// The networks that pods take their addresses from. With these, traffic to a ClusterIP from anywhere else is
    /// masqueraded.
    pub cluster_cidrs: Vec<IpNetwork>,
    /// Whether all traffic to ClusterIPs is masqueraded, that of pods too.
    pub masquerade_all: bool,
    /// The addresses that serve NodePorts.
    pub nodeport_addresses: NodePortAddresses,
}

/// Which of the node's addresses serve NodePorts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum NodePortAddresses {
    /// The Node's first address of each family.
    #[default]
    Primary,
    /// Every address of the machine that lies in one of these networks; loopback addresses never.
    Networks(Vec<IpNetwork>),
}

impl Config {
    /// The pod networks of one family.
    pub fn cluster_cidrs(&self, family: Family) -> impl Iterator<Item = IpNetwork> {
        of_family(&self.cluster_cidrs, family)
    }
}

/// Those of the networks that are of one family.
pub(crate) fn of_family(networks: &[IpNetwork], family: Family) -> impl Iterator<Item = IpNetwork> {
    networks.iter().copied().filter(move |network| Family::of_network(network) == family)
}
