//! rtnetlink: links, addresses, routes, neighbours and queues of one network namespace. Which of them there
//! should be is not decided here.

mod address;
mod fdb;
mod link;
mod lookup;
mod mac;
mod monitor;
mod neighbour;
mod nsid;
mod route;
mod tc;
mod vlan;
mod vxlan;

use netlink_packet_core::{NetlinkDeserializable, NetlinkHeader};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use std::net::IpAddr;

use crate::{Error, Frame, Protocol, Request, Result, Socket};

pub use address::{Address, DadState};
pub use fdb::FdbEntry;
pub use link::{Bridge, BridgePort, Link, LinkChange, Veth, VethEnd};
pub use lookup::{RouteAnswer, RouteKind, RouteQuery};
pub use mac::{InvalidMac, Mac};
pub use monitor::{Event, Group, Monitor, Object};
pub use neighbour::Neighbour;
pub use route::{Route, RouteFilter};
pub use tc::TokenBucket;
pub use vlan::BridgeVlan;
pub use vxlan::{Tunnel, Vxlan};

/// A blocking rtnetlink client for one network namespace: the one in which it was opened.
#[derive(Debug)]
pub struct RtnetlinkClient {
    socket: Socket,
}

impl RtnetlinkClient {
    /// Opens a client in the calling thread's network namespace. For another one:
    /// `namespace.run(RtnetlinkClient::open)`.
    pub fn open() -> Result<RtnetlinkClient> {
        let mut socket = Socket::open(Protocol::Route)?;
        // The kernel then filters dumps itself, and refuses what it would otherwise ignore.
        socket.set_strict_checks()?;
        Ok(RtnetlinkClient { socket })
    }

    fn ask(&mut self, message: &RouteNetlinkMessage, flags: u16) -> Result<()> {
        self.socket.request(Request::new(message, flags))
    }

    fn get(&mut self, message: &RouteNetlinkMessage) -> Result<Vec<RouteNetlinkMessage>> {
        self.socket.query(Request::new(message, 0), parse)
    }

    fn dump(&mut self, message: &RouteNetlinkMessage) -> Result<Vec<RouteNetlinkMessage>> {
        self.socket.dump(Request::new(message, 0), parse)
    }
}

fn parse(frame: Frame<'_>) -> Result<RouteNetlinkMessage> {
    let mut header = NetlinkHeader::default();
    header.message_type = frame.kind;
    RouteNetlinkMessage::deserialize(&header, frame.payload)
        .map_err(|error| Error::Malformed(error.to_string()))
}

fn family(address: IpAddr) -> AddressFamily {
    if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 }
}
