//! How packets get to the pods of other nodes: the choice of the person who runs the cluster, and what this
//! node's own network has to say to it.

pub mod observe;
pub(crate) mod source;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use clap::ValueEnum;
use weft_announce::bgp::rib::Routes;
use weft_cni_spec::InterfaceName;
use weft_types::{Family, IpNetwork};

use crate::routing::probe::plan::{PathState, PathStates};
use crate::routing::wireguard::key::PublicKey;

/// How packets get to the pods of other nodes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Backend {
    /// Straight to nodes that share a link with this one, once that is proved to work; through a tunnel to the
    /// others.
    #[default]
    Auto,
    /// Straight to the other nodes, all of which must share a link with this one.
    HostGw,
    /// Through a VXLAN tunnel to every node.
    Vxlan,
    /// By the routes that the other nodes, or route reflectors, tell of by BGP.
    Bgp,
    /// Through an encrypted WireGuard tunnel to every node.
    #[value(name = "wireguard")]
    WireGuard,
}

/// What leads to nodes that are not reached directly.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Tunnel {
    /// A VXLAN tunnel.
    #[default]
    Vxlan,
    /// An encrypted WireGuard tunnel.
    #[value(name = "wireguard")]
    WireGuard,
}

/// This node's side of the network between the nodes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Uplink {
    /// The smallest MTU, in bytes, of the interfaces by which other nodes are reached; none if there is none.
    pub mtu: Option<u32>,
    /// The names of those interfaces.
    pub links: Vec<String>,
    /// The interfaces that have a default route from a router's advertisement.
    pub advertised: BTreeSet<String>,
    /// The addresses of those interfaces that packets to other nodes come from, at most one of each family.
    pub locals: Vec<IpAddr>,
    /// The networks of those addresses: who is in one of them is reached without a router. An interface that
    /// finds no neighbours by asking has none.
    pub networks: Vec<IpNetwork>,
    /// Addresses under which the node is known, one of each family, where no interface has one. Not where
    /// somebody said by which address it reaches the others.
    pub foreign: Vec<IpAddr>,
    /// Ranges that running pods have addresses of from before the Node got its present ones, and how many
    /// pods that is.
    pub former: BTreeMap<IpNetwork, usize>,
    /// The public key of the WireGuard device, where there is one that has a key.
    pub wireguard: Option<PublicKey>,
    /// What is known of the direct paths.
    pub path_states: PathStates,
    /// The ways that were learned by BGP: the next hops to each range.
    pub learned: Arc<Routes>,
    /// All that is to be learned at first was.
    pub is_settled: bool,
    /// The ways that the kernel has from what an agent before this one learned. They are kept for as long as
    /// its peers keep those to this node.
    pub kept: Routes,
}

/// By which of its addresses this node reaches the others.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum LeaveBy {
    /// By those of its Node; where no interface has them, by those that its routes to the others choose.
    #[default]
    Node,
    /// By these.
    Addresses(Vec<IpAddr>),
    /// By the first of each family that this interface has.
    Interface(InterfaceName),
}

impl Uplink {
    /// Where nothing is known of it: all nodes share one link.
    pub fn shared() -> Uplink {
        let all = [IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED)];
        let networks = all.into_iter().filter_map(|address| IpNetwork::new(address, 0).ok()).collect();
        Uplink { networks, path_states: PathStates::assuming(PathState::Works), ..Uplink::default() }
    }

    /// The address of that family that packets to other nodes come from.
    pub(crate) fn local(&self, family: Family) -> Option<IpAddr> {
        self.locals.iter().copied().find(|&address| Family::of(address) == family)
    }

    /// Whether somebody with that address is reached without a router, as far as networks tell.
    pub(crate) fn shares_link(&self, address: IpAddr) -> bool {
        self.networks.iter().any(|network| network.contains(address))
    }
}
