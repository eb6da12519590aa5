//! The interfaces of this node, as far as they can speak for addresses, as the kernel has them.

use std::collections::BTreeMap;
use std::net::IpAddr;

use weft_netlink::Result;
use weft_netlink::rtnl::{Link, RtnetlinkClient};
use weft_types::IpNetwork;

use super::place::Port;

/// What was read last.
#[derive(Debug)]
pub(super) struct Links {
    client: RtnetlinkClient,
    ports: BTreeMap<u32, Port>,
    /// The networks of all interfaces, also of those that are down.
    networks: Vec<IpNetwork>,
}

impl Links {
    /// In the calling thread's network namespace. Nothing is read yet.
    pub(super) fn open() -> Result<Links> {
        Ok(Links { client: RtnetlinkClient::open()?, ports: BTreeMap::new(), networks: Vec::new() })
    }

    /// Reads all; returns whether something is another than before.
    pub(super) fn read(&mut self) -> Result<bool> {
        let (links, addresses) = (self.client.links()?, self.client.addresses(None)?);
        let of = |link: &Link| -> Vec<IpNetwork> {
            addresses.iter().filter(|it| it.link == link.index).map(|it| it.address).collect()
        };
        let ports = links.iter().filter_map(|link| Some((link.index, port(link, of(link))?))).collect();
        let mut networks: Vec<IpNetwork> = addresses.iter().map(|it| it.address).collect();
        networks.sort();
        let is_other = (&ports, &networks) != (&self.ports, &self.networks);
        (self.ports, self.networks) = (ports, networks);
        Ok(is_other)
    }

    /// Those that are up, by their index.
    pub(super) fn ports(&self) -> &BTreeMap<u32, Port> {
        &self.ports
    }

    /// Whether an address is of the network of an interface.
    pub(super) fn is_on_link(&self, address: IpAddr) -> bool {
        self.networks.iter().any(|network| network.contains(address))
    }
}

fn port(link: &Link, networks: Vec<IpNetwork>) -> Option<Port> {
    // Loopback has an Ethernet address of zeros.
    let mac = link.mac.filter(|mac| mac.0 != [0; 6])?;
    let is_fit = link.up && link.lower_up && !link.point_to_point;
    is_fit.then(|| Port { name: link.name.clone(), mac, networks, has_master: link.master.is_some() })
}
