//! The agent's settings, as far as plans depend on them.

use std::path::PathBuf;

use weft_cni_spec::{InterfaceName, NetworkName};
use weft_types::IpNetwork;

use crate::routing::vxlan::plan::Settings;
use crate::routing::wireguard;
use crate::uplink::{Backend, LeaveBy, Tunnel};

/// The agent's settings, as far as plans depend on them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Ranges within which pods see each other's real addresses, besides the Nodes' own pod CIDRs.
    pub cluster_cidrs: Vec<IpNetwork>,
    /// The CNI network's name.
    pub network_name: NetworkName,
    /// The file by which the plugin knows the node's blocks of addresses, where pods get theirs of blocks.
    pub blocks: Option<PathBuf>,
    /// The bridge that the node's pods are on.
    pub bridge: InterfaceName,
    /// Where the reservations of addresses are kept.
    pub data_dir: PathBuf,
    /// The machine's boot: in another, what is planned is not there any more.
    pub boot: Option<String>,
    /// The pods' MTU in bytes, where it is not to be what fits on the way to the other nodes.
    pub mtu: Option<u32>,
    /// For how many seconds ADD waits for the policies of a pod, where it is not to be the plugin's default.
    pub policy_timeout: Option<u32>,
    /// How packets get to the pods of other nodes.
    pub backend: Backend,
    /// What leads to nodes that are not reached directly, with the backend `auto`.
    pub tunnel: Tunnel,
    /// The tunnel's settings.
    pub vxlan: Settings,
    /// The encrypted tunnel's.
    pub wireguard: wireguard::plan::Settings,
    /// By which of its addresses this node reaches the others.
    pub leave_by: LeaveBy,
    /// The ranges within which routes are taken from BGP peers, besides those to pods.
    pub bgp_imports: Vec<IpNetwork>,
    /// The ranges that Services take their addresses from, as far as they are known: no pod CIDR may overlap
    /// them.
    pub service_cidrs: Vec<IpNetwork>,
}

impl Config {
    /// Whether packets to some nodes are encrypted, or to all.
    pub(crate) fn has_wireguard(&self) -> bool {
        match self.backend {
            Backend::WireGuard => true,
            Backend::Auto => self.tunnel == Tunnel::WireGuard,
            Backend::HostGw | Backend::Vxlan | Backend::Bgp => false,
        }
    }
}
