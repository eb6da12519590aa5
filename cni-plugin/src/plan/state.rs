//! What a plan depends on: the state of the host before it. Values; `kernel` reads them.

use crate::interface::Link;
use ipnetwork::IpNetwork;

/// What the host has, as far as a plan depends on it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostState {
    /// The bridge, where it exists.
    pub bridge: Option<BridgeState>,
    /// The gateways of all of the network's ranges: addresses that the bridge may have for other containers.
    pub gateways: Vec<IpNetwork>,
    /// Whether bridged packets pass netfilter (br_netfilter, by net.bridge.bridge-nf-call-iptables).
    pub bridge_netfilter: bool,
}

/// What an existing bridge has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BridgeState {
    /// Its interface.
    pub link: Link,
    /// The addresses of its gateway's interface, link-local ones among them.
    pub addresses: Vec<IpNetwork>,
}
