//! What the kernel would do with a packet: the one route that it takes (`ip route get`), with all rules and
//! tables asked.

use std::net::IpAddr;

use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteMessage, RouteMetric, RouteType, RouteVia,
};

use super::{RtnetlinkClient, family};
use crate::Result;

/// A packet that is to be routed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RouteQuery {
    /// Where it goes.
    pub destination: IpAddr,
    /// Where it comes from. May be left out where this machine makes it.
    pub source: Option<IpAddr>,
    /// The index of the interface that it came in by; none where this machine makes it.
    pub input: Option<u32>,
    /// Its mark.
    pub mark: u32,
}

/// What becomes of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RouteKind {
    /// It leaves.
    Unicast,
    /// It is for this machine.
    Local,
    /// It is thrown away, as a route of that type says: `blackhole`, `unreachable`, `prohibit`, ...
    Refused,
}

/// The way that the kernel chose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RouteAnswer {
    /// What becomes of the packet.
    pub kind: RouteKind,
    /// The next hop; none where the destination is on the link.
    pub gateway: Option<IpAddr>,
    /// The index of the interface by which it leaves.
    pub link: Option<u32>,
    /// The source address that this machine's own packets take.
    pub source: Option<IpAddr>,
    /// The number of the routing table that has the route.
    pub table: u32,
    /// The largest packet on this route, in bytes, where it is not the link's.
    pub mtu: Option<u32>,
}

impl RtnetlinkClient {
    /// The way that the kernel takes for a packet.
    ///
    /// # Errors
    /// ENETUNREACH or EHOSTUNREACH where no route leads there, and for an interface that does not forward;
    /// EXDEV or EINVAL where the kernel takes nothing with that source from that interface.
    pub fn look_up(&mut self, query: &RouteQuery) -> Result<RouteAnswer> {
        let found = self
            .get(&RouteNetlinkMessage::GetRoute(encode(query)))
            .map_err(|error| error.during(format!("find the route to {}", query.destination)))?;
        let missing = || crate::Error::Missing(format!("route to {}", query.destination));
        found.iter().find_map(answer).ok_or_else(missing)
    }
}

fn encode(query: &RouteQuery) -> RouteMessage {
    let bits = |address: IpAddr| if address.is_ipv4() { 32 } else { 128 };
    let mut message = RouteMessage::default();
    message.header.address_family = family(query.destination);
    message.header.kind = RouteType::Unspec;
    message.header.destination_prefix_length = bits(query.destination);
    message.attributes.push(RouteAttribute::Destination(query.destination.into()));
    if let Some(source) = query.source {
        message.header.source_prefix_length = bits(source);
        message.attributes.push(RouteAttribute::Source(source.into()));
    }
    message.attributes.extend(query.input.map(RouteAttribute::Iif));
    message.attributes.extend((query.mark != 0).then_some(RouteAttribute::Mark(query.mark)));
    message
}

fn answer(message: &RouteNetlinkMessage) -> Option<RouteAnswer> {
    let RouteNetlinkMessage::NewRoute(message) = message else { return None };
    let kind = match message.header.kind {
        RouteType::Unicast => RouteKind::Unicast,
        RouteType::Local => RouteKind::Local,
        _ => RouteKind::Refused,
    };
    let table = message.header.table.into();
    let mut answer = RouteAnswer { kind, gateway: None, link: None, source: None, table, mtu: None };
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Gateway(RouteAddress::Inet(address)) => answer.gateway = Some((*address).into()),
            RouteAttribute::Gateway(RouteAddress::Inet6(address)) => answer.gateway = Some((*address).into()),
            RouteAttribute::Via(RouteVia::Inet6(address)) => answer.gateway = Some((*address).into()),
            RouteAttribute::PrefSource(RouteAddress::Inet(address)) => {
                answer.source = Some((*address).into())
            }
            RouteAttribute::PrefSource(RouteAddress::Inet6(address)) => {
                answer.source = Some((*address).into())
            }
            RouteAttribute::Oif(link) => answer.link = Some(*link),
            RouteAttribute::Table(table) => answer.table = *table,
            RouteAttribute::Metrics(metrics) => {
                answer.mtu = metrics.iter().find_map(|metric| match metric {
                    RouteMetric::Mtu(mtu) => Some(*mtu),
                    _ => None,
                });
            }
            _ => {}
        }
    }
    Some(answer)
}
