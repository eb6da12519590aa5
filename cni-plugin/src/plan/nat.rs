//! What of a container's packets the host translates: whole networks by masquerading, ports of the host by
//! mappings. How nf_tables holds that is for `nft`.

use std::net::IpAddr;

use crate::interface::Family;
use ipnetwork::IpNetwork;
use weft_cni_spec::ContainerId;

use super::PortMapping;

/// The networks of a bridge whose containers leave under the host's address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Masquerade {
    /// The bridge: the owner of the elements.
    pub bridge: String,
    /// The networks. Between them, addresses stay as they are.
    pub networks: Vec<IpNetwork>,
}

/// The mappings of one container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPorts {
    /// The container's id.
    pub container: ContainerId,
    /// The name of the host's end of the container's veth pair: the owner of the elements.
    pub owner: String,
    /// The mappings.
    pub mappings: Vec<PortMapping>,
    /// The container's addresses, at most one of each family, and with it those whom the container would
    /// answer past the host: itself, or its whole network.
    pub containers: Vec<(IpAddr, IpNetwork)>,
}

impl Masquerade {
    /// The networks of addresses that have their networks' prefixes, each once, in order.
    pub(crate) fn of(bridge: &str, addresses: impl Iterator<Item = IpNetwork>) -> Masquerade {
        let mut networks: Vec<IpNetwork> =
            addresses.map(|address| network(address.ip(), address.prefix())).collect();
        networks.sort();
        networks.dedup();
        Masquerade { bridge: bridge.to_owned(), networks }
    }
}

impl HostPorts {
    /// Whether a mapping is to be reached under 127.0.0.1, for which the kernel must be set.
    pub(crate) fn needs_local_routes(&self) -> bool {
        let (mut ipv4, mut reachable) = (self.of_family(Family::Ip), self.mappings.iter());
        ipv4.next().is_some() && reachable.any(|mapping| mapping.is_reachable_by_loopback())
    }

    /// The container's address of a family, where it has one.
    pub(crate) fn container(&self, family: Family) -> Option<IpAddr> {
        self.of_family(family).next().map(|(address, _)| address)
    }

    /// The container's addresses of a family, as [`HostPorts::containers`] has them.
    pub(crate) fn of_family(&self, family: Family) -> impl Iterator<Item = (IpAddr, IpNetwork)> + '_ {
        self.containers.iter().copied().filter(move |(address, _)| Family::of(*address) == family)
    }
}

/// The network of that length around an address.
pub(crate) fn network(address: IpAddr, prefix: u8) -> IpNetwork {
    match IpNetwork::new(address, prefix).and_then(|around| IpNetwork::new(around.network(), prefix)) {
        Ok(network) => network,
        // Only a prefix longer than an address has bits is refused.
        Err(_) => IpNetwork::from(address),
    }
}
