//! Entries of the routing tables (ip-route(8)).

use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnetwork::IpNetwork;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use netlink_packet_route::AddressFamily;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteMetric, RouteNextHop,
    RouteProtocol, RouteScope, RouteType,
};

use super::{RtnetlinkClient, family};
use crate::Result;

/// A unicast route, or one that refuses what it would lead to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Route {
    /// Where it leads; `0.0.0.0/0` or `::/0` is the default route.
    pub destination: IpNetwork,
    /// The next hop; none where the destination is on the link.
    pub gateway: Option<IpAddr>,
    /// Further next hops: connections are spread over all of them. Of each the kernel finds the interface, or it
    /// is `link` too.
    pub further: Vec<IpAddr>,
    /// The index of the interface. May be left out of a request where a gateway tells it.
    pub link: Option<u32>,
    /// Believe that the gateway is on the link even though no address of the link says so.
    pub onlink: bool,
    /// The source address that this host's own packets take.
    pub source: Option<IpAddr>,
    /// The preference among routes to the same destination, the lowest first; the kernel's default is 0 for
    /// IPv4 and 1024 for IPv6.
    pub metric: Option<u32>,
    /// The routing table; 254 is the main one.
    pub table: u32,
    /// Whose route it is (`proto` in `ip route`, /etc/iproute2/rt_protos): 2 is the kernel's, 4 an
    /// administrator's; a program tags its own with a number of its own.
    pub protocol: u8,
    /// The largest packet on this route, in bytes, where it is not the link's.
    pub mtu: Option<u32>,
    /// How far away the destinations are (`scope` in `ip route`): 0 behind a gateway, 253 on the link, 254
    /// the host itself; what a gateway tells where none is given. The kernel has none for IPv6, and of listed
    /// routes it is not told.
    pub scope: Option<u8>,
    /// The segment size to announce to TCP peers, in bytes.
    pub advmss: Option<u32>,
    /// It leads nowhere: who sends there is told that the destination is unreachable (`unreachable` in `ip
    /// route`).
    pub unreachable: bool,
}

/// Which routes to list. The kernel does the filtering.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RouteFilter {
    /// Only those of this table.
    pub table: u32,
    /// Only those tagged with this number.
    pub protocol: Option<u8>,
    /// Only those through this interface.
    pub link: Option<u32>,
    /// Also those that refuse what they would lead to.
    pub unreachable: bool,
}

impl Default for RouteFilter {
    fn default() -> Self {
        RouteFilter { table: Route::MAIN_TABLE, protocol: None, link: None, unreachable: false }
    }
}

impl Route {
    /// All next hops.
    pub fn gateways(&self) -> BTreeSet<IpAddr> {
        self.gateway.into_iter().chain(self.further.iter().copied()).collect()
    }

    /// The number of the main routing table.
    pub const MAIN_TABLE: u32 = RouteHeader::RT_TABLE_MAIN as u32;
    /// The scope of destinations on the link.
    pub const LINK_SCOPE: u8 = 253;
    /// The protocol number of routes that the machine's administrator set.
    pub const STATIC: u8 = 4;

    /// A route in the main table, static, with neither gateway nor interface yet.
    pub fn to(destination: IpNetwork) -> Route {
        Route {
            destination,
            gateway: None,
            further: Vec::new(),
            link: None,
            onlink: false,
            source: None,
            metric: None,
            table: Route::MAIN_TABLE,
            protocol: Route::STATIC,
            mtu: None,
            scope: None,
            advmss: None,
            unreachable: false,
        }
    }

    /// The default route of the family of `gateway`, through it.
    pub fn default_via(gateway: IpAddr) -> Route {
        let any = match gateway {
            IpAddr::V4(_) => IpNetwork::from(IpAddr::V4(Ipv4Addr::UNSPECIFIED)),
            IpAddr::V6(_) => IpNetwork::from(IpAddr::V6(Ipv6Addr::UNSPECIFIED)),
        };
        let destination = IpNetwork::new(any.ip(), 0).unwrap_or(any);
        Route { gateway: Some(gateway), ..Route::to(destination) }
    }
}

/// As `ip route` has it, the interface by its index.
impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.unreachable {
            f.write_str("unreachable ")?;
        }
        match self.destination.prefix() {
            0 => f.write_str("default")?,
            _ => write!(f, "{}", self.destination)?,
        }
        if let Some(gateway) = self.gateway {
            write!(f, " via {gateway}")?;
        }
        for gateway in &self.further {
            write!(f, " or {gateway}")?;
        }
        if let Some(link) = self.link {
            write!(f, " dev #{link}")?;
        }
        if self.onlink {
            f.write_str(" onlink")?;
        }
        Ok(())
    }
}

impl RtnetlinkClient {
    /// The routes of one table, both families. Those whose next hops are objects of their own (ip-nexthop(8)) show
    /// none of them.
    pub fn routes(&mut self, filter: RouteFilter) -> Result<Vec<Route>> {
        let mut routes = Vec::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let message = RouteNetlinkMessage::GetRoute(filter_message(filter, family));
            let answers = match self.dump(&message) {
                Ok(answers) => answers,
                // The kernel says so of a table that no route was ever put in.
                Err(error) if error.is_missing() => continue,
                Err(error) => return Err(error.during(format!("list routes ({filter:?})"))),
            };
            routes.extend(answers.iter().filter_map(route).filter(|route| filter.matches(route)));
        }
        Ok(routes)
    }

    /// Adds a route.
    ///
    /// # Errors
    /// EEXIST where the table has one to that destination with that metric.
    pub fn add_route(&mut self, route: &Route) -> Result<()> {
        self.ask(&RouteNetlinkMessage::NewRoute(encode(route)), NLM_F_CREATE | NLM_F_EXCL)
            .map_err(|error| error.during(format!("add route {route}")))
    }

    /// Adds a route in the place of one to the same destination with the same metric, if there is one.
    pub fn replace_route(&mut self, route: &Route) -> Result<()> {
        self.ask(&RouteNetlinkMessage::NewRoute(encode(route)), NLM_F_CREATE | NLM_F_REPLACE)
            .map_err(|error| error.during(format!("replace route {route}")))
    }

    /// Deletes a route. What is `None` in `route` matches any.
    ///
    /// # Errors
    /// [`crate::Error::is_missing`] where there is none.
    pub fn delete_route(&mut self, route: &Route) -> Result<()> {
        let mut message = encode(route);
        // Any scope: the kernel gives routes without a gateway a narrower one.
        message.header.scope = RouteScope::NoWhere;
        self.ask(&RouteNetlinkMessage::DelRoute(message), 0)
            .map_err(|error| error.during(format!("delete route {route}")))
    }
}

impl RouteFilter {
    fn matches(&self, route: &Route) -> bool {
        self.table == route.table
            && (self.unreachable || !route.unreachable)
            && self.protocol.is_none_or(|protocol| protocol == route.protocol)
            && self.link.is_none_or(|link| Some(link) == route.link)
    }
}

fn filter_message(filter: RouteFilter, family: AddressFamily) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = family;
    message.header.kind = if filter.unreachable { RouteType::Unspec } else { RouteType::Unicast };
    message.header.protocol = filter.protocol.unwrap_or_default().into();
    message.attributes.push(RouteAttribute::Table(filter.table));
    message.attributes.extend(filter.link.map(RouteAttribute::Oif));
    message
}

fn encode(route: &Route) -> RouteMessage {
    let mut message = RouteMessage::default();
    let header = &mut message.header;
    header.address_family = family(route.destination.ip());
    header.destination_prefix_length = route.destination.prefix();
    header.kind = if route.unreachable { RouteType::Unreachable } else { RouteType::Unicast };
    header.protocol = RouteProtocol::from(route.protocol);
    // An IPv4 route without a gateway leads to the link itself (ip-route(8): scope link).
    let direct = route.gateway.is_none() && route.destination.is_ipv4() && !route.unreachable;
    let scope = if direct { RouteScope::Link } else { RouteScope::Universe };
    header.scope = route.scope.map_or(scope, RouteScope::from);
    header.flags.set(RouteFlags::Onlink, route.onlink);

    let attributes = &mut message.attributes;
    attributes.push(RouteAttribute::Destination(route.destination.network().into()));
    attributes.push(RouteAttribute::Table(route.table));
    match route.further.is_empty() {
        true => attributes.extend(route.gateway.map(|gateway| RouteAttribute::Gateway(gateway.into()))),
        false => attributes.push(RouteAttribute::MultiPath(next_hops(route))),
    }
    attributes.extend(route.source.map(|source| RouteAttribute::PrefSource(source.into())));
    attributes.extend(route.link.map(RouteAttribute::Oif));
    attributes.extend(route.metric.map(RouteAttribute::Priority));
    let metrics: Vec<RouteMetric> = [route.mtu.map(RouteMetric::Mtu), route.advmss.map(RouteMetric::Advmss)]
        .into_iter()
        .flatten()
        .collect();
    if !metrics.is_empty() {
        attributes.push(RouteAttribute::Metrics(metrics));
    }
    message
}

/// The next hops of a route that has several.
fn next_hops(route: &Route) -> Vec<RouteNextHop> {
    let all = route.gateway.iter().chain(&route.further);
    let next_hop = |gateway: &IpAddr| {
        let mut next_hop = RouteNextHop::default();
        next_hop.interface_index = route.link.unwrap_or_default();
        next_hop.attributes.push(RouteAttribute::Gateway((*gateway).into()));
        next_hop
    };
    all.map(next_hop).collect()
}

/// Takes in several next hops: the first one is the gateway.
fn apply_next_hops(route: &mut Route, next_hops: &[RouteNextHop]) {
    let gateway = |next_hop: &RouteNextHop| {
        next_hop.attributes.iter().find_map(|attribute| match attribute {
            RouteAttribute::Gateway(gateway) => address(gateway),
            _ => None,
        })
    };
    let mut gateways = next_hops.iter().filter_map(gateway);
    route.gateway = gateways.next();
    route.further = gateways.collect();
    route.link = next_hops.first().map(|next_hop| next_hop.interface_index);
}

fn route(message: &RouteNetlinkMessage) -> Option<Route> {
    let RouteNetlinkMessage::NewRoute(message) = message else { return None };
    let header = &message.header;
    let any: IpAddr = match header.address_family {
        AddressFamily::Inet => Ipv4Addr::UNSPECIFIED.into(),
        AddressFamily::Inet6 => Ipv6Addr::UNSPECIFIED.into(),
        _ => return None,
    };
    let mut route = Route::to(IpNetwork::new(any, header.destination_prefix_length).ok()?);
    route.unreachable = match header.kind {
        RouteType::Unicast => false,
        RouteType::Unreachable => true,
        _ => return None,
    };
    route.protocol = header.protocol.into();
    route.table = header.table.into();
    route.onlink = header.flags.contains(RouteFlags::Onlink);
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(destination) => {
                route.destination =
                    IpNetwork::new(address(destination)?, header.destination_prefix_length).ok()?;
            }
            RouteAttribute::Gateway(gateway) => route.gateway = address(gateway),
            RouteAttribute::MultiPath(next_hops) => apply_next_hops(&mut route, next_hops),
            RouteAttribute::PrefSource(source) => route.source = address(source),
            RouteAttribute::Oif(link) => route.link = Some(*link),
            RouteAttribute::Priority(metric) => route.metric = Some(*metric),
            RouteAttribute::Table(table) => route.table = *table,
            RouteAttribute::Metrics(metrics) => apply_metrics(&mut route, metrics),
            _ => {}
        }
    }
    // The kernel names the loopback interface for one of IPv6 that leads nowhere.
    route.link = route.link.filter(|_| !route.unreachable);
    Some(route)
}

fn apply_metrics(route: &mut Route, metrics: &[RouteMetric]) {
    for metric in metrics {
        match metric {
            RouteMetric::Mtu(mtu) => route.mtu = Some(*mtu),
            RouteMetric::Advmss(advmss) => route.advmss = Some(*advmss),
            _ => {}
        }
    }
}

fn address(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(address) => Some((*address).into()),
        RouteAddress::Inet6(address) => Some((*address).into()),
        _ => None,
    }
}
