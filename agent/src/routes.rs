//! Routes to the pods of the other nodes, through those nodes' own addresses: which there must be, and how to get
//! there from those that there are. Values only; asking the kernel is in `kernel`.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

use weft_netlink::route::Path;
use weft_types::{Family, IpNetwork, Node, Snapshot};

use crate::plan::{Notice, gateway, overlap};

/// The number by which Weft knows its own routes (`proto` in `ip route`). No entry of iproute2's rt_protos has it.
pub const PROTOCOL: u8 = 119;

/// A route to another node's pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct NodeRoute {
    /// The other node's pod CIDR.
    pub destination: IpNetwork,
    /// The other node's address.
    pub gateway: IpAddr,
}

/// What has to be done about one route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RouteChange {
    /// Set one where Weft has none. Another program's may be there, and must stay.
    Add(NodeRoute),
    /// Put one in the place of one of Weft's own, without a moment in between.
    Replace(NodeRoute),
    /// Delete one of Weft's own.
    Delete(Path),
}

impl NodeRoute {
    /// The route as the kernel is asked for it.
    pub fn path(&self) -> Path {
        Path { gateway: Some(self.gateway), protocol: PROTOCOL, ..Path::to(self.destination) }
    }
}

impl fmt::Display for NodeRoute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} via {} proto {PROTOCOL}", self.destination, self.gateway)
    }
}

/// The routes that `own` needs, and what stands in the way of others. Of Nodes that claim the same addresses, the
/// first by name keeps them, and this node always does.
pub(crate) fn plan(snapshot: &Snapshot, own: &Node) -> (Vec<NodeRoute>, Vec<Notice>) {
    let (mut routes, mut notices) = (BTreeMap::new(), Vec::new());
    let mut claims = Claims::default();
    own.pod_cidrs.iter().for_each(|&cidr| claims.insert(cidr, &own.name));
    for node in snapshot.nodes().filter(|node| node.name != own.name) {
        for &cidr in &node.pod_cidrs {
            match (claims.overlapping(&cidr), gateway(node, &cidr)) {
                (Some((other_cidr, other)), _) => notices.push(Notice::Overlap {
                    node: node.name.clone(),
                    cidr,
                    other: other.to_owned(),
                    other_cidr,
                }),
                (None, None) => notices.push(Notice::NoAddress {
                    node: node.name.clone(),
                    cidr,
                    family: Family::of_network(&cidr),
                }),
                (None, Some(gateway)) => {
                    claims.insert(cidr, &node.name);
                    routes.insert(cidr, NodeRoute { destination: cidr, gateway });
                }
            }
        }
    }
    (routes.into_values().collect(), notices)
}

/// Who has which addresses: networks that do not overlap, in the order of their first addresses.
#[derive(Default)]
struct Claims<'a>(BTreeMap<IpAddr, (IpNetwork, &'a str)>);

impl<'a> Claims<'a> {
    fn insert(&mut self, cidr: IpNetwork, node: &'a str) {
        self.0.insert(cidr.network(), (cidr, node));
    }

    /// A claim to addresses of `cidr`. As claims do not overlap, it can only be the last one that begins before the
    /// end of `cidr`.
    fn overlapping(&self, cidr: &IpNetwork) -> Option<(IpNetwork, &'a str)> {
        let (_, &claim) = self.0.range(..=cidr.broadcast()).next_back()?;
        overlap(&claim.0, cidr).then_some(claim)
    }
}

/// The changes that turn Weft's own routes, as observed in the main table, into the planned ones.
pub fn diff(planned: &[NodeRoute], observed: &[Path]) -> Vec<RouteChange> {
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
    for route in planned {
        match held.remove(&route.destination) {
            Some(path) if path.gateway == Some(route.gateway) => {}
            Some(_) => wanted.push(RouteChange::Replace(*route)),
            None => wanted.push(RouteChange::Add(*route)),
        }
    }
    changes.extend(held.into_values().map(|path| RouteChange::Delete(path.clone())));
    changes.extend(wanted);
    changes
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

    fn route() -> impl Strategy<Value = NodeRoute> {
        (network(), 1u8..4).prop_map(|(destination, host)| NodeRoute {
            destination,
            gateway: IpAddr::from([172, 30, 0, host]),
        })
    }

    fn path() -> impl Strategy<Value = Path> {
        (route(), prop_oneof![Just(PROTOCOL), Just(4)], prop_oneof![Just(None), Just(Some(7))])
            .prop_map(|(route, protocol, metric)| Path { protocol, metric, link: Some(2), ..route.path() })
    }

    fn unique<T: Clone>(items: Vec<T>, key: impl Fn(&T) -> (IpNetwork, Option<u32>)) -> Vec<T> {
        items.into_iter().map(|item| (key(&item), item)).collect::<BTreeMap<_, _>>().into_values().collect()
    }

    /// What the kernel makes of a change: one route for each destination and metric.
    fn apply(paths: &mut Vec<Path>, change: &RouteChange) {
        let same =
            |path: &Path, route: &NodeRoute| (path.destination, path.metric) == (route.destination, None);
        match change {
            RouteChange::Delete(path) => {
                let place = paths.iter().position(|held| held == path).expect("there is such a route");
                paths.remove(place);
            }
            RouteChange::Add(route) => {
                if !paths.iter().any(|path| same(path, route)) {
                    paths.push(route.path());
                }
            }
            RouteChange::Replace(route) => {
                let held = paths.iter_mut().find(|path| same(path, route)).expect("there is one to replace");
                assert_eq!(held.protocol, PROTOCOL, "a foreign route is replaced");
                *held = route.path();
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
            let is_free = |route: &&NodeRoute| !observed.iter().any(|path| {
                path.protocol != PROTOCOL && path.destination == route.destination && path.metric.is_none()
            });
            let expected: Vec<_> =
                planned.iter().filter(is_free).map(|route| (route.destination, Some(route.gateway))).collect();
            prop_assert_eq!(held(&paths, true), expected);
        }

        #[test]
        fn what_is_as_planned_needs_no_change(planned in prop::collection::vec(route(), 0..6)) {
            let planned = unique(planned, |route| (route.destination, None));
            let observed: Vec<_> = planned.iter().map(|route| Path { link: Some(2), ..route.path() }).collect();
            prop_assert_eq!(diff(&planned, &observed), vec![]);
        }
    }
}
