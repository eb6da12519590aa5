//! Neighbours: which Ethernet address an address on a link has (ARP and IPv6 neighbour discovery).

use std::net::IpAddr;

use netlink_packet_core::{NLM_F_CREATE, NLM_F_REPLACE};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState,
};

use super::{Mac, RtnetlinkClient, family};
use crate::Result;

/// An entry of the neighbour table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Neighbour {
    /// The interface's index.
    pub link: u32,
    /// The neighbour's address.
    pub address: IpAddr,
    /// Its Ethernet address; none while it is being asked for, or when it did not answer.
    pub mac: Option<Mac>,
    /// Whether it stays until it is deleted.
    pub permanent: bool,
}

impl RtnetlinkClient {
    /// The neighbours of one interface, or of all where none is given.
    pub fn neighbours(&mut self, link: Option<u32>) -> Result<Vec<Neighbour>> {
        let mut message = NeighbourMessage::default();
        message.attributes.extend(link.map(NeighbourAttribute::IfIndex));
        let answers = self
            .dump(&RouteNetlinkMessage::GetNeighbour(message))
            .map_err(|error| error.during("list neighbours"))?;
        Ok(answers
            .iter()
            .filter_map(neighbour)
            .filter(|found| link.is_none_or(|l| l == found.link))
            .collect())
    }

    /// Adds an entry, or puts it in the place of the one for the same address. It is a permanent one, or one
    /// that is confirmed when it is next used.
    pub fn replace_neighbour(&mut self, neighbour: Neighbour) -> Result<()> {
        let mut message = encode(neighbour.link, neighbour.address);
        message.header.state =
            if neighbour.permanent { NeighbourState::Permanent } else { NeighbourState::Stale };
        message
            .attributes
            .extend(neighbour.mac.map(|mac| NeighbourAttribute::LinkLayerAddress(mac.0.to_vec())));
        self.ask(&RouteNetlinkMessage::NewNeighbour(message), NLM_F_CREATE | NLM_F_REPLACE).map_err(|error| {
            error.during(format!("set neighbour {} of link #{}", neighbour.address, neighbour.link))
        })
    }

    /// Deletes an entry.
    ///
    /// # Errors
    /// [`crate::Error::is_missing`] where there is none.
    pub fn delete_neighbour(&mut self, link: u32, address: IpAddr) -> Result<()> {
        self.ask(&RouteNetlinkMessage::DelNeighbour(encode(link, address)), 0)
            .map_err(|error| error.during(format!("delete neighbour {address} of link #{link}")))
    }
}

fn encode(link: u32, address: IpAddr) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = family(address);
    message.header.ifindex = link;
    message.attributes.push(NeighbourAttribute::Destination(match address {
        IpAddr::V4(address) => NeighbourAddress::Inet(address),
        IpAddr::V6(address) => NeighbourAddress::Inet6(address),
    }));
    message
}

fn neighbour(message: &RouteNetlinkMessage) -> Option<Neighbour> {
    let RouteNetlinkMessage::NewNeighbour(message) = message else { return None };
    let (mut address, mut mac) = (None, None);
    for attribute in &message.attributes {
        match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(ip)) => address = Some((*ip).into()),
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(ip)) => address = Some((*ip).into()),
            NeighbourAttribute::LinkLayerAddress(bytes) => mac = bytes.as_slice().try_into().ok().map(Mac),
            _ => {}
        }
    }
    let permanent = message.header.state == NeighbourState::Permanent;
    Some(Neighbour { link: message.header.ifindex, address: address?, mac, permanent })
}
