//! Forwarding databases (`bridge fdb`): behind which remote of a VXLAN device, or which port of a bridge, an
//! Ethernet address is.

use std::net::IpAddr;

use netlink_packet_core::{NLM_F_CREATE, NLM_F_REPLACE};
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::{Mac, RtnetlinkClient};
use crate::Result;

/// An entry: frames for that address are sent to that remote.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FdbEntry {
    /// The index of the VXLAN device.
    pub link: u32,
    /// The Ethernet address.
    pub mac: Mac,
    /// The remote's address.
    pub remote: IpAddr,
}

impl RtnetlinkClient {
    /// The entries of one VXLAN device.
    pub fn fdb(&mut self, link: u32) -> Result<Vec<FdbEntry>> {
        let mut message = NeighbourMessage::default();
        message.header.family = AddressFamily::Bridge;
        message.header.ifindex = link;
        let answers = self
            .dump(&RouteNetlinkMessage::GetNeighbour(message))
            .map_err(|error| error.during(format!("list the forwarding database of link #{link}")))?;
        Ok(answers.iter().filter_map(entry).filter(|entry| entry.link == link).collect())
    }

    /// Adds a permanent entry, or puts it in the place of the one for the same Ethernet address.
    pub fn replace_fdb(&mut self, entry: FdbEntry) -> Result<()> {
        let mut message = encode(entry);
        message.header.state = NeighbourState::Permanent;
        self.ask(&RouteNetlinkMessage::NewNeighbour(message), NLM_F_CREATE | NLM_F_REPLACE).map_err(|error| {
            error.during(format!("set {} behind {} on link #{}", entry.mac, entry.remote, entry.link))
        })
    }

    /// Pins an Ethernet address to a port of a bridge: the bridge neither forgets it nor learns it behind
    /// another port. The entry goes with the port.
    pub fn set_sticky_fdb(&mut self, port: u32, mac: Mac) -> Result<()> {
        let mut message = NeighbourMessage::default();
        message.header.family = AddressFamily::Bridge;
        message.header.ifindex = port;
        message.header.state = NeighbourState::Noarp;
        message.header.flags = NeighbourFlags::Controller | NeighbourFlags::Sticky;
        message.attributes.push(NeighbourAttribute::LinkLayerAddress(mac.0.to_vec()));
        self.ask(&RouteNetlinkMessage::NewNeighbour(message), NLM_F_CREATE | NLM_F_REPLACE)
            .map_err(|error| error.during(format!("pin {mac} to bridge port #{port}")))
    }

    /// The Ethernet addresses that are pinned to a port of a bridge.
    pub fn sticky_fdb(&mut self, port: u32) -> Result<Vec<Mac>> {
        let mut message = NeighbourMessage::default();
        message.header.family = AddressFamily::Bridge;
        message.header.ifindex = port;
        let answers = self
            .dump(&RouteNetlinkMessage::GetNeighbour(message))
            .map_err(|error| error.during(format!("list the stations of bridge port #{port}")))?;
        Ok(answers.iter().filter_map(|answer| station(answer, port)).collect())
    }

    /// Deletes an entry.
    ///
    /// # Errors
    /// [`crate::Error::is_missing`] where there is none.
    pub fn delete_fdb(&mut self, entry: FdbEntry) -> Result<()> {
        self.ask(&RouteNetlinkMessage::DelNeighbour(encode(entry)), 0).map_err(|error| {
            error.during(format!("delete {} behind {} on link #{}", entry.mac, entry.remote, entry.link))
        })
    }
}

fn encode(entry: FdbEntry) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = AddressFamily::Bridge;
    message.header.ifindex = entry.link;
    // The device's own database, not that of a bridge that it may be a port of.
    message.header.flags = NeighbourFlags::Own;
    message.attributes.push(NeighbourAttribute::LinkLayerAddress(entry.mac.0.to_vec()));
    message.attributes.push(NeighbourAttribute::Destination(entry.remote.into()));
    message
}

fn station(message: &RouteNetlinkMessage, port: u32) -> Option<Mac> {
    let RouteNetlinkMessage::NewNeighbour(message) = message else { return None };
    let is_pinned = message.header.flags.contains(NeighbourFlags::Sticky) && message.header.ifindex == port;
    message.attributes.iter().filter(|_| is_pinned).find_map(|attribute| match attribute {
        NeighbourAttribute::LinkLayerAddress(bytes) => bytes.as_slice().try_into().ok().map(Mac),
        _ => None,
    })
}

fn entry(message: &RouteNetlinkMessage) -> Option<FdbEntry> {
    let RouteNetlinkMessage::NewNeighbour(message) = message else { return None };
    let (mut mac, mut remote) = (None, None);
    for attribute in &message.attributes {
        match attribute {
            NeighbourAttribute::LinkLayerAddress(bytes) => mac = bytes.as_slice().try_into().ok().map(Mac),
            // The message is about Ethernet addresses, so the library leaves this one as bytes.
            NeighbourAttribute::Destination(NeighbourAddress::Other(bytes)) => remote = address(bytes),
            _ => {}
        }
    }
    Some(FdbEntry { link: message.header.ifindex, mac: mac?, remote: remote? })
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    v4.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from)).ok()
}
