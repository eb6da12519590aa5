//! Routes to the pods of the other nodes: which there must be, and how to get there from those that there are. Values
//! only; asking the kernel is in `kernel`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;

use weft_netlink::rtnl::Route;
use weft_types::{Family, IpNetwork, Node, Snapshot};

use crate::cidr_allocations::{CidrAllocations, Owner};
use crate::plan::{Config, Notice};
use crate::routing::probe::plan::{DirectPath, PathState, Probe};
use crate::routing::vxlan::plan::{self as overlay, DEVICE, Overlay};
use crate::uplink::{Backend, Uplink};

/// The number by which Weft knows its own routes (`proto` in `ip route`). No entry of iproute2's rt_protos has it.
pub const PROTOCOL: u8 = 119;

/// A route to another node's pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct NodeRoute {
    /// The other node's pod CIDR.
    pub destination: IpNetwork,
    /// How to get there.
    pub hop: NextHop,
    /// Where the hop is the tunnel: the next hop where there is no tunnel to be had.
    pub near: Option<IpAddr>,
}

/// The next hop on the way to another node's pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum NextHop {
    /// That node's own address, on a link of this node.
    Direct(IpAddr),
    /// The far end of the VXLAN tunnel.
    Tunnel,
}

/// What has to be done about one route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RouteChange {
    /// Set one where Weft has none. Another program's may be there, and must stay.
    Add(Route),
    /// Put one in the place of one of Weft's own, without a moment in between.
    Replace(Route),
    /// Delete one of Weft's own.
    Delete(Route),
}

impl NodeRoute {
    /// The address of the next hop.
    pub fn gateway(&self) -> IpAddr {
        match self.hop {
            NextHop::Direct(address) => address,
            NextHop::Tunnel => overlay::gateway(&self.destination),
        }
    }

    /// The route as the kernel is asked for it. Where there is no `tunnel`, the index of the VXLAN device, one into it leads
    /// straight to a node nearby, and there is none to another.
    pub fn path(&self, tunnel: Option<u32>) -> Option<Route> {
        let path = Route { protocol: PROTOCOL, ..Route::to(self.destination) };
        let via = |gateway| Route { gateway: Some(gateway), ..path.clone() };
        match (self.hop, tunnel) {
            (NextHop::Direct(address), _) => Some(via(address)),
            (NextHop::Tunnel, Some(tunnel)) => {
                Some(Route { link: Some(tunnel), onlink: true, ..via(self.gateway()) })
            }
            (NextHop::Tunnel, None) => self.near.map(via),
        }
    }
}

impl fmt::Display for NodeRoute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} via {}", self.destination, self.gateway())?;
        if self.hop == NextHop::Tunnel {
            write!(f, " dev {DEVICE} onlink")?;
        }
        write!(f, " proto {PROTOCOL}")
    }
}

/// The routes that `own` needs, the tunnel that some of them lead into, and what stands in the way of others.
#[derive(Debug, Default)]
pub(crate) struct RoutingPlan {
    pub(crate) routes: Vec<NodeRoute>,
    pub(crate) overlay: Option<Overlay>,
    pub(crate) notices: Vec<Notice>,
    /// The straight ways to be tried.
    pub(crate) probes: Vec<Probe>,
    /// Some way leads through the tunnel for good.
    pub(crate) is_tunnelled: bool,
}

impl RoutingPlan {
    /// From `own` to everybody else. Of Nodes that claim the same addresses, the first by name keeps them, and what is in
    /// `claims` already goes before all.
    pub(crate) fn plan(
        snapshot: &Snapshot,
        own: &Node,
        config: &Config,
        uplink: &Uplink,
        allocations: &mut CidrAllocations,
    ) -> RoutingPlan {
        let overlay = match config.backend {
            Backend::HostGw => None,
            Backend::Vxlan => Overlay::new(own, config.vxlan, uplink),
            Backend::Auto => {
                Overlay::new(own, config.vxlan, uplink).map(|overlay| overlay.with_probe_addresses(own))
            }
        };
        let mut ways = RoutingPlan { overlay, ..RoutingPlan::default() };
        for node in snapshot.nodes().filter(|node| node.name != own.name) {
            for &cidr in &node.pod_cidrs {
                let way = allocations.allocate(cidr, Owner::Node(node.name.clone())).map_err(Notice::from);
                match way.and_then(|()| ways.hop(node, &cidr, (own, config.backend), uplink)) {
                    Ok((hop, near)) => ways.routes.push(NodeRoute { destination: cidr, hop, near }),
                    Err(notice) => ways.notices.push(notice),
                }
            }
        }
        ways.routes.sort();
        ways
    }

    /// The hop, and the straight one where that is another.
    fn hop(
        &mut self,
        node: &Node,
        cidr: &IpNetwork,
        (own, backend): (&Node, Backend),
        uplink: &Uplink,
    ) -> Result<(NextHop, Option<IpAddr>), Notice> {
        let family = Family::of_network(cidr);
        let no_address = |family| Notice::NoAddress { node: node.name.clone(), cidr: *cidr, family };
        let address = node.address(family);
        let near = address.filter(|address| backend == Backend::Auto && uplink.shares_link(*address));
        match (backend, near) {
            (Backend::HostGw, _) => {
                return address
                    .map(|address| (NextHop::Direct(address), None))
                    .ok_or_else(|| no_address(family));
            }
            (_, Some(address))
                if self.is_usable(node, own, DirectPath { cidr: *cidr, node: address }, uplink) =>
            {
                return Ok((NextHop::Direct(address), None));
            }
            (_, None) => self.is_tunnelled = true,
            (_, Some(_)) => {}
        }
        let overlay =
            self.overlay.as_mut().ok_or_else(|| Notice::NoTunnel { node: node.name.clone(), cidr: *cidr })?;
        match overlay.add(node, cidr) {
            true => Ok((NextHop::Tunnel, near)),
            false => Err(no_address(overlay.family())),
        }
    }

    /// Whether a way to a node nearby can be used. Has it tried, for which one address must be reached straight in any case.
    fn is_usable(&mut self, node: &Node, own: &Node, way: DirectPath, uplink: &Uplink) -> bool {
        let probe = own.pod_cidrs.iter().find_map(|own| probe(own, way));
        self.probes.extend(probe);
        let proof = uplink.path_states.get(way);
        let (node, DirectPath { cidr, node: address }) = (node.name.clone(), way);
        match proof {
            PathState::Fails => {
                self.is_tunnelled = true;
                self.notices.push(Notice::NotDirect { node, address, cidr });
            }
            PathState::Unreachable => self.notices.push(Notice::Cut { node, address, cidr }),
            PathState::Unknown | PathState::Works => {}
        }
        if let Some(probe) = probe.filter(|_| proof != PathState::Works) {
            let (destination, hop) = (probe.straight.1.into(), NextHop::Direct(way.node));
            self.routes.push(NodeRoute { destination, hop, near: None });
        }
        proof == PathState::Works
    }
}

/// How to try a way from a node with that pod CIDR, where both are of one family and have room.
fn probe(own: &IpNetwork, way: DirectPath) -> Option<Probe> {
    let is_fitting = own.is_ipv4() == way.cidr.is_ipv4();
    let straight = (overlay::probe_address(own)?, overlay::probe_address(&way.cidr)?);
    let usual = (overlay::gateway(own), overlay::gateway(&way.cidr));
    is_fitting.then_some(Probe { way, straight, usual })
}

/// The changes that turn Weft's own routes, as observed in the main table, into the planned ones.
pub fn diff(planned: &[Route], observed: &[Route]) -> Vec<RouteChange> {
    let mut held: BTreeMap<IpNetwork, &Route> = BTreeMap::new();
    let mut changes = Vec::new();
    for path in observed.iter().filter(|path| path.protocol == PROTOCOL) {
        // Weft never sets a metric: one that has it was made by somebody else, who took Weft's number.
        match has_default_metric(path) {
            true => drop(held.insert(path.destination, path)),
            false => changes.push(RouteChange::Delete(path.clone())),
        }
    }
    let mut wanted = Vec::new();
    // Those to single addresses last: one into the tunnel may have set them on its way.
    let (wide, single): (Vec<&Route>, Vec<&Route>) = planned.iter().partition(|path| !is_single(path));
    for path in wide.into_iter().chain(single) {
        match held.remove(&path.destination) {
            Some(held) if is_as_planned(held, path) => {}
            Some(_) => wanted.push(RouteChange::Replace(path.clone())),
            None => wanted.push(RouteChange::Add(path.clone())),
        }
    }
    changes.extend(held.into_values().map(|path| RouteChange::Delete(path.clone())));
    let mut is_set = BTreeSet::new();
    for change in wanted {
        match change.tunnel_of_ipv6().filter(|(next_hop, link)| is_disputed(observed, next_hop, *link)) {
            Some((next_hop, link)) => {
                is_set.insert(IpNetwork::from(next_hop));
                changes.extend(led_by(change, next_hop, link, planned));
            }
            None if change.destination().is_some_and(|destination| is_set.contains(&destination)) => {}
            None => changes.push(change),
        }
    }
    changes
}

/// Whether the kernel takes another link to lead to that next hop. It takes no IPv6 route by that hop then, even where
/// that is said to be on the link.
fn is_disputed(observed: &[Route], next_hop: &IpAddr, link: u32) -> bool {
    observed.iter().any(|path| path.destination.contains(*next_hop) && path.link != Some(link))
}

/// The change, while a route to the next hop alone leads by the right link; nothing is lost on the way.
fn led_by(change: RouteChange, next_hop: IpAddr, link: u32, planned: &[Route]) -> [RouteChange; 3] {
    let guide = Route { link: Some(link), protocol: PROTOCOL, ..Route::to(next_hop.into()) };
    let after = match planned.iter().find(|path| path.destination == guide.destination) {
        Some(path) => RouteChange::Replace(path.clone()),
        None => RouteChange::Delete(guide.clone()),
    };
    [RouteChange::Replace(guide), change, after]
}

impl RouteChange {
    /// The destination of one that sets a route.
    fn destination(&self) -> Option<IpNetwork> {
        match self {
            RouteChange::Add(path) | RouteChange::Replace(path) => Some(path.destination),
            RouteChange::Delete(_) => None,
        }
    }

    /// The next hop and the link of one that sets an IPv6 route into the tunnel.
    fn tunnel_of_ipv6(&self) -> Option<(IpAddr, u32)> {
        let (RouteChange::Add(path) | RouteChange::Replace(path)) = self else { return None };
        let next_hop = path.gateway.filter(|next_hop| path.onlink && next_hop.is_ipv6())?;
        Some((next_hop, path.link?))
    }
}

/// The kernel finds the link of a route that names none.
fn is_as_planned(held: &Route, planned: &Route) -> bool {
    held.gateway == planned.gateway
        && held.onlink == planned.onlink
        && (planned.link.is_none() || held.link == planned.link)
}

fn is_single(path: &Route) -> bool {
    path.destination.prefix() == if path.destination.is_ipv4() { 32 } else { 128 }
}

/// Whether the metric is the one that the kernel gives to a route without one.
fn has_default_metric(path: &Route) -> bool {
    let default = match Family::of_network(&path.destination) {
        Family::V4 => 0,
        Family::V6 => 1024,
    };
    path.metric.is_none_or(|metric| metric == default)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn network() -> impl Strategy<Value = IpNetwork> {
        (0u8..6, prop_oneof![Just(24u8), Just(25)])
            .prop_map(|(third, prefix)| IpNetwork::new(IpAddr::from([10, 244, third, 0]), prefix).unwrap())
    }

    /// A route as planned: to a node, or, with the host 0, into the tunnel, which is link 9.
    fn route() -> impl Strategy<Value = Route> {
        (network(), 0u8..4).prop_map(|(destination, host)| {
            let hop = match host {
                0 => NextHop::Tunnel,
                _ => NextHop::Direct(IpAddr::from([172, 30, 0, host])),
            };
            NodeRoute { destination, hop, near: None }.path(Some(9)).unwrap()
        })
    }

    /// A route as the kernel shows it.
    fn linked(path: Route) -> Route {
        Route { link: path.link.or(Some(2)), ..path }
    }

    fn path() -> impl Strategy<Value = Route> {
        (route(), prop_oneof![Just(PROTOCOL), Just(4)], prop_oneof![Just(None), Just(Some(7))])
            .prop_map(|(route, protocol, metric)| Route { protocol, metric, ..linked(route) })
    }

    fn unique<T: Clone>(items: Vec<T>, key: impl Fn(&T) -> (IpNetwork, Option<u32>)) -> Vec<T> {
        items.into_iter().map(|item| (key(&item), item)).collect::<BTreeMap<_, _>>().into_values().collect()
    }

    /// What the kernel makes of a change: one route for each destination and metric.
    fn apply(paths: &mut Vec<Route>, change: &RouteChange) {
        let same = |path: &Route, route: &Route| (path.destination, path.metric) == (route.destination, None);
        match change {
            RouteChange::Delete(path) => {
                let place = paths.iter().position(|held| held == path).expect("there is such a route");
                paths.remove(place);
            }
            RouteChange::Add(route) => {
                if !paths.iter().any(|path| same(path, route)) {
                    paths.push(route.clone());
                }
            }
            RouteChange::Replace(route) => {
                let held = paths.iter_mut().find(|path| same(path, route)).expect("there is one to replace");
                assert_eq!(held.protocol, PROTOCOL, "a foreign route is replaced");
                *held = route.clone();
            }
        }
    }

    fn held(paths: &[Route], ours: bool) -> Vec<(IpNetwork, Option<IpAddr>)> {
        let matching = paths.iter().filter(|path| (path.protocol == PROTOCOL) == ours);
        let mut held: Vec<_> = matching.map(|path| (path.destination, path.gateway)).collect();
        held.sort();
        held
    }

    proptest! {
        #[test]
        fn the_changes_lead_to_the_plan_and_leave_foreign_routes(
            planned in prop::collection::vec(route(), 0..6),
            observed in prop::collection::vec(path(), 0..8),
        ) {
            let planned = unique(planned, |route| (route.destination, None));
            let observed = unique(observed, |path| (path.destination, path.metric));
            let mut paths = observed.clone();
            for change in diff(&planned, &observed) {
                apply(&mut paths, &change);
            }
            prop_assert_eq!(held(&paths, false), held(&observed, false));
            // A foreign route of the same metric keeps ours out, and nothing else does.
            let is_free = |route: &&Route| !observed.iter().any(|path| {
                path.protocol != PROTOCOL && path.destination == route.destination && path.metric.is_none()
            });
            let expected: Vec<_> =
                planned.iter().filter(is_free).map(|route| (route.destination, route.gateway)).collect();
            prop_assert_eq!(held(&paths, true), expected);
        }

        #[test]
        fn what_is_as_planned_needs_no_change(planned in prop::collection::vec(route(), 0..6)) {
            let planned = unique(planned, |route| (route.destination, None));
            let observed: Vec<_> = planned.iter().cloned().map(linked).collect();
            prop_assert_eq!(diff(&planned, &observed), vec![]);
        }
    }
}
