//! How packets get to the pods of other nodes: the choice of the person who runs the cluster, and what this node's own
//! network has to say to it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use clap::ValueEnum;
use weft_types::IpNetwork;

/// How packets get to the pods of other nodes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Backend {
    /// Straight to nodes that share a link with this one, through a VXLAN tunnel to the others.
    #[default]
    Auto,
    /// Straight to the other nodes, all of which must share a link with this one.
    HostGw,
    /// Through a VXLAN tunnel to every node.
    Vxlan,
}

/// This node's side of the network between the nodes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Uplink {
    /// The smallest MTU, in bytes, of the interfaces that hold the node's addresses; none if no interface does.
    pub mtu: Option<u32>,
    /// The networks of those addresses: who is in one of them is reached without a router.
    pub networks: Vec<IpNetwork>,
}

impl Uplink {
    /// Where nothing is known of it: all nodes share one link.
    pub fn shared() -> Uplink {
        let all = [IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED)];
        let networks = all.into_iter().filter_map(|address| IpNetwork::new(address, 0).ok()).collect();
        Uplink { mtu: None, networks }
    }
}

impl Backend {
    /// Whether packets to a node of that address go without a tunnel.
    pub(crate) fn is_direct(self, uplink: &Uplink, address: Option<IpAddr>) -> bool {
        match self {
            Backend::HostGw => true,
            Backend::Vxlan => false,
            Backend::Auto => {
                address.is_some_and(|address| uplink.networks.iter().any(|network| network.contains(address)))
            }
        }
    }
}
