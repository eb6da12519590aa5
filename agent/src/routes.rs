//! Routes to the pods of the other nodes: which there must be, and how to get there from those that there are. Values
//! only; asking the kernel is in `kernel`.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

use weft_netlink::route::Path;
use weft_types::{Family, IpNetwork, Node, Snapshot};

use crate::backend::{Backend, Uplink};
use crate::claims::{Claims, Owner};
use crate::overlay::{self, DEVICE, Overlay};
use crate::plan::{Config, Notice};

/// The number by which Weft knows its own routes (`proto` in `ip route`). No entry of iproute2's rt_protos has it.
pub const PROTOCOL: u8 = 119;

/// A route to another node's pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct NodeRoute {
    /// The other node's pod CIDR.
    pub destination: IpNetwork,
    /// How to get there.
    pub hop: Hop,
}

/// The next hop on the way to another node's pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Hop {
    /// That node's own address, on a link of this node.
    Node(IpAddr),
    /// The far end of the VXLAN tunnel.
    Tunnel,
}

/// What has to be done about one route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RouteChange {
    /// Set one where Weft has none. Another program's may be there, and must stay.
    Add(Path),
    /// Put one in the place of one of Weft's own, without a moment in between.
    Replace(Path),
    /// Delete one of Weft's own.
    Delete(Path),
}

impl NodeRoute {
    /// The address of the next hop.
    pub fn gateway(&self) -> IpAddr {
        match self.hop {
            Hop::Node(address) => address,
            Hop::Tunnel => overlay::gateway(&self.destination),
        }
    }

    /// The route as the kernel is asked for it; nothing for one into a tunnel where there is no `tunnel`, the index of
    /// the VXLAN device.
    pub fn path(&self, tunnel: Option<u32>) -> Option<Path> {
        let path = Path { gateway: Some(self.gateway()), protocol: PROTOCOL, ..Path::to(self.destination) };
        match self.hop {
            Hop::Node(_) => Some(path),
            Hop::Tunnel => Some(Path { link: Some(tunnel?), onlink: true, ..path }),
        }
    }
}

impl fmt::Display for NodeRoute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} via {}", self.destination, self.gateway())?;
        if self.hop == Hop::Tunnel {
            write!(f, " dev {DEVICE} onlink")?;
        }
        write!(f, " proto {PROTOCOL}")
    }
}

/// The routes that `own` needs, the tunnel that some of them lead into, and what stands in the way of others.
#[derive(Debug, Default)]
pub(crate) struct Ways {
    pub(crate) routes: Vec<NodeRoute>,
    pub(crate) overlay: Option<Overlay>,
    pub(crate) notices: Vec<Notice>,
}

impl Ways {
    /// From `own` to everybody else. Of Nodes that claim the same addresses, the first by name keeps them, and what is in
    /// `claims` already goes before all.
    pub(crate) fn plan(
        snapshot: &Snapshot,
        own: &Node,
        config: &Config,
        uplink: &Uplink,
        claims: &mut Claims,
    ) -> Ways {
        let overlay = match config.backend {
            Backend::HostGw => None,
            Backend::Auto | Backend::Vxlan => Overlay::new(own, config.vxlan, uplink),
        };
        let mut ways = Ways { overlay, ..Ways::default() };
        for node in snapshot.nodes().filter(|node| node.name != own.name) {
            for &cidr in &node.pod_cidrs {
                let way = claims.claim(cidr, Owner::Node(node.name.clone())).map_err(Notice::from);
                match way.and_then(|()| ways.hop(node, &cidr, config.backend, uplink)) {
                    Ok(hop) => ways.routes.push(NodeRoute { destination: cidr, hop }),
                    Err(notice) => ways.notices.push(notice),
                }
            }
        }
        ways.routes.sort();
        ways
    }

    fn hop(
        &mut self,
        node: &Node,
        cidr: &IpNetwork,
        backend: Backend,
        uplink: &Uplink,
    ) -> Result<Hop, Notice> {
        let family = Family::of_network(cidr);
        let no_address = |family| Notice::NoAddress { node: node.name.clone(), cidr: *cidr, family };
        let address = node.address(family);
        if backend.is_direct(uplink, address) {
            return address.map(Hop::Node).ok_or_else(|| no_address(family));
        }
        let overlay =
            self.overlay.as_mut().ok_or_else(|| Notice::NoTunnel { node: node.name.clone(), cidr: *cidr })?;
        match overlay.add(node, cidr) {
            true => Ok(Hop::Tunnel),
            false => Err(no_address(overlay.family())),
        }
    }
}

/// The changes that turn Weft's own routes, as observed in the main table, into the planned ones.
pub fn diff(planned: &[Path], observed: &[Path]) -> Vec<RouteChange> {
    let mut held: BTreeMap<IpNetwork, &Path> = BTreeMap::new();
    let mut changes = Vec::new();
    for path in observed.iter().filter(|path| path.protocol == PROTOCOL) {
        // Weft never sets a metric: one that has it was made by somebody else, who took Weft's number.
        match has_default_metric(path) {
            true => drop(held.insert(path.destination, path)),
            false => changes.push(RouteChange::Delete(path.clone())),
        }
    }
    let mut wanted = Vec::new();
    for path in planned {
        match held.remove(&path.destination) {
            Some(held) if is_as_planned(held, path) => {}
            Some(_) => wanted.push(RouteChange::Replace(path.clone())),
            None => wanted.push(RouteChange::Add(path.clone())),
        }
    }
    changes.extend(held.into_values().map(|path| RouteChange::Delete(path.clone())));
    changes.extend(wanted);
    changes
}

/// The kernel finds the link of a route that names none.
fn is_as_planned(held: &Path, planned: &Path) -> bool {
    held.gateway == planned.gateway
        && held.onlink == planned.onlink
        && (planned.link.is_none() || held.link == planned.link)
}

/// Whether the metric is the one that the kernel gives to a route without one.
fn has_default_metric(path: &Path) -> bool {
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
    fn route() -> impl Strategy<Value = Path> {
        (network(), 0u8..4).prop_map(|(destination, host)| {
            let hop = match host {
                0 => Hop::Tunnel,
                _ => Hop::Node(IpAddr::from([172, 30, 0, host])),
            };
            NodeRoute { destination, hop }.path(Some(9)).unwrap()
        })
    }

    /// A route as the kernel shows it.
    fn linked(path: Path) -> Path {
        Path { link: path.link.or(Some(2)), ..path }
    }

    fn path() -> impl Strategy<Value = Path> {
        (route(), prop_oneof![Just(PROTOCOL), Just(4)], prop_oneof![Just(None), Just(Some(7))])
            .prop_map(|(route, protocol, metric)| Path { protocol, metric, ..linked(route) })
    }

    fn unique<T: Clone>(items: Vec<T>, key: impl Fn(&T) -> (IpNetwork, Option<u32>)) -> Vec<T> {
        items.into_iter().map(|item| (key(&item), item)).collect::<BTreeMap<_, _>>().into_values().collect()
    }

    /// What the kernel makes of a change: one route for each destination and metric.
    fn apply(paths: &mut Vec<Path>, change: &RouteChange) {
        let same = |path: &Path, route: &Path| (path.destination, path.metric) == (route.destination, None);
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

    fn held(paths: &[Path], ours: bool) -> Vec<(IpNetwork, Option<IpAddr>)> {
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
            let is_free = |route: &&Path| !observed.iter().any(|path| {
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
