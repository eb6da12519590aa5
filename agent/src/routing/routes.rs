//! Weft's own routes in the kernel: which changes lead from those that there are to the planned ones, and
//! making them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use nix::errno::Errno;
use tracing::info;
use weft_announce::bgp::rib::Routes as Learned;
use weft_netlink::rtnl::{Route, RouteFilter, RtnetlinkClient};
use weft_types::{Family, IpNetwork};

use crate::routing::plan::{BGP_PROTOCOL, NextHop, NodeRoute, PROTOCOL, RoutingPlan};
use crate::routing::probe::plan::DirectPath;
use crate::routing::vxlan::device;
use crate::routing::vxlan::plan::DEVICE;
use crate::routing::wireguard::device::WireGuardDevice;
use crate::routing::wireguard::key::PublicKey;
use crate::routing::wireguard::metrics::Handshakes;
use crate::{Error, Result};

/// The kernel's routes and the tunnel's device, in the network namespace in which they were opened.
#[derive(Debug)]
pub struct Routes {
    route: RtnetlinkClient,
    wireguard: WireGuardDevice,
}

impl Routes {
    /// Opens them in the calling thread's network namespace.
    pub fn open() -> Result<Routes> {
        Ok(Routes { route: RtnetlinkClient::open()?, wireguard: WireGuardDevice::new()? })
    }

    /// The direct paths to other nodes' pods that there are.
    pub fn direct_paths(&mut self) -> Result<BTreeSet<DirectPath>> {
        let direct = self.own()?.into_iter().filter(|path| !path.onlink);
        Ok(direct
            .filter_map(|path| Some(DirectPath { cidr: path.destination, node: path.gateway? }))
            .collect())
    }

    /// The ranges to which some way leads.
    pub(crate) fn destinations(&mut self) -> Result<BTreeSet<IpNetwork>> {
        Ok(self.own()?.into_iter().map(|path| path.destination).collect())
    }

    /// Brings the tunnel and Weft's own routes to the plan. A route that fails keeps no other from being set.
    pub fn apply(&mut self, plan: &RoutingPlan) -> Vec<Error> {
        let mut problems = Vec::new();
        let mut made =
            |device: Result<Option<u32>>| device.map_err(|problem| problems.push(problem)).ok().flatten();
        let tunnel = made(device::make(&mut self.route, plan.overlay.as_ref()));
        let wireguard = made(self.wireguard.make(&mut self.route, plan.wireguard.as_ref()));
        let observed = match self.own() {
            Ok(observed) => observed,
            Err(error) => return problems.into_iter().chain([error]).collect(),
        };
        let devices = Devices { tunnel, wireguard };
        let planned: Vec<Route> = plan.routes.iter().filter_map(|route| as_asked(route, devices)).collect();
        let changes = diff(&planned, &observed);
        problems.extend(changes.iter().filter_map(|change| self.change(change).err()));
        // Only now nothing leads there any more.
        problems.extend(device::prune(&mut self.route, plan.overlay.as_ref()).err());
        if wireguard.is_some() || plan.wireguard.is_none() {
            let silent = self.wireguard.silent(plan.wireguard.as_ref());
            problems.extend(silent.unwrap_or_else(|error| vec![error]));
        }
        problems.extend(self.wireguard.prune(&mut self.route, plan.wireguard.as_ref()).err());
        problems
    }

    /// The index of the tunnel's device.
    pub(crate) fn tunnel(&mut self) -> Result<Option<u32>> {
        Ok(self.route.find_link(DEVICE)?.map(|link| link.index))
    }

    /// The public key of the encrypted tunnel's device, where it is there and has one.
    pub fn wireguard_key(&mut self) -> Result<Option<PublicKey>> {
        self.wireguard.key(&mut self.route)
    }

    /// When each node behind the encrypted tunnel was heard last.
    pub(crate) fn handshakes(&self) -> &Handshakes {
        self.wireguard.handshakes()
    }

    /// The ways that an agent before this one learned by BGP.
    pub(crate) fn learned(&mut self) -> Result<Learned> {
        let learned = self.own()?.into_iter().filter(|path| path.protocol == BGP_PROTOCOL);
        let learned = learned.map(|path| (path.destination, path.gateways()));
        Ok(learned.filter(|(_, gateways)| !gateways.is_empty()).collect())
    }

    fn own(&mut self) -> Result<Vec<Route>> {
        let of = |protocol| RouteFilter { protocol: Some(protocol), ..RouteFilter::default() };
        let mut own = self.route.routes(RouteFilter { unreachable: true, ..of(PROTOCOL) })?;
        // Other programs have this number too, and give their routes a metric.
        own.extend(self.route.routes(of(BGP_PROTOCOL))?.into_iter().filter(has_default_metric));
        Ok(own)
    }

    fn change(&mut self, change: &RouteChange) -> Result<()> {
        match change {
            RouteChange::Add(path) => {
                self.route.add_route(path).map_err(|problem| refused(path, problem))?;
                info!(route = %path, "added a route");
            }
            RouteChange::Replace(path) => {
                self.route.replace_route(path).map_err(|problem| Error::Route { problem })?;
                info!(route = %path, "changed a route");
            }
            RouteChange::Delete(path) => match self.route.delete_route(path) {
                Ok(()) => info!(route = %path, "deleted a route"),
                // Somebody was faster.
                Err(error) if error.is_missing() => {}
                Err(error) => return Err(error.into()),
            },
        }
        Ok(())
    }
}

fn refused(path: &Route, problem: weft_netlink::Error) -> Error {
    match problem.errno() {
        Some(Errno::EEXIST) => Error::ForeignRoute { destination: path.destination, problem },
        _ => Error::Route { problem },
    }
}

/// The indices of the devices that lead to other nodes, as far as they are there.
#[derive(Clone, Copy, Debug, Default)]
struct Devices {
    tunnel: Option<u32>,
    wireguard: Option<u32>,
}

/// A route as the kernel is asked for it. Where there is no tunnel, one into it leads directly to a node on the
/// same link, and there is none to another. Where there is no encrypted one, nothing leaves unencrypted.
fn as_asked(route: &NodeRoute, devices: Devices) -> Option<Route> {
    let path = Route { protocol: route.protocol(), ..Route::to(route.destination) };
    let via = |gateway| Route { gateway: Some(gateway), ..path.clone() };
    let refusal = || Route { unreachable: true, ..path.clone() };
    match (route.next_hop, devices.tunnel) {
        (NextHop::Direct(address), _) => Some(via(address)),
        (NextHop::Learned(address), _) => Some(Route { further: route.further.clone(), ..via(address) }),
        (NextHop::Tunnel, Some(_)) => {
            Some(Route { link: devices.tunnel, onlink: true, gateway: route.gateway(), ..path })
        }
        (NextHop::Tunnel, None) => route.fallback.map(via),
        (NextHop::WireGuard, _) => {
            Some(devices.wireguard.map_or_else(refusal, |link| Route { link: Some(link), ..path.clone() }))
        }
        (NextHop::Unreachable, _) => Some(refusal()),
    }
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

/// The changes that turn Weft's own routes, as observed in the main table, into the planned ones.
pub fn diff(planned: &[Route], observed: &[Route]) -> Vec<RouteChange> {
    let mut held: BTreeMap<IpNetwork, &Route> = BTreeMap::new();
    let mut changes = Vec::new();
    let is_own = |path: &&Route| match path.protocol {
        BGP_PROTOCOL => has_default_metric(path),
        protocol => protocol == PROTOCOL,
    };
    for path in observed.iter().filter(is_own) {
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

/// Whether the kernel takes another link to lead to that next hop. It takes no IPv6 route by that hop then,
/// even where that is said to be on the link.
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
    held.gateways() == planned.gateways()
        && held.unreachable == planned.unreachable
        && held.protocol == planned.protocol
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

    /// A route as planned: to a node, or, with the host 0 or 1, into the tunnel, which is link 9, or the encrypted
    /// one, which is link 8, or nowhere.
    fn route() -> impl Strategy<Value = Route> {
        (network(), 0u8..6).prop_map(|(destination, host)| {
            let next_hop = match host {
                0 => NextHop::Tunnel,
                1 => NextHop::WireGuard,
                2 => NextHop::Unreachable,
                _ => NextHop::Direct(IpAddr::from([172, 30, 0, host])),
            };
            let devices = Devices { tunnel: Some(9), wireguard: Some(8) };
            as_asked(&NodeRoute { destination, next_hop, further: Vec::new(), fallback: None }, devices)
                .unwrap()
        })
    }

    /// A route as the kernel shows it.
    fn linked(path: Route) -> Route {
        Route { link: path.link.or(Some(2)).filter(|_| !path.unreachable), ..path }
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
