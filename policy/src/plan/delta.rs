//! What changed of a plan: what has to be written to a table that held the plan before.

use std::net::IpAddr;

use weft_types::Family;

use super::{ClassId, Decision, Direction, Endpoint, FamilyPlan, PolicyPlan, Row, RowPorts, Side, index};

/// What changed of a plan. Each place is named once. Where only the origin of a verdict changed, nothing is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Delta {
    /// The classes of single addresses; nothing where one has none any more.
    pub peers: Vec<(IpAddr, Option<ClassId>)>,
    /// The classes of networks, from their first to their last address; nothing where there is no such
    /// network any more. To be taken out before others are put in.
    pub networks: Vec<(IpAddr, IpAddr, Option<ClassId>)>,
    /// What happens at addresses of local pods where no row matches; nothing where no policy says anything
    /// any more.
    pub sides: Vec<(Direction, IpAddr, Option<Decision>)>,
    /// Rows; without a decision, those that are to be taken out.
    pub rows: Vec<RowChange>,
}

/// A row that came, went or changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RowChange {
    /// The way of the traffic.
    pub direction: Direction,
    /// The address of the local pod.
    pub address: IpAddr,
    /// The class of the peer.
    pub class: ClassId,
    /// The traffic.
    pub ports: RowPorts,
    /// What happens to it now.
    pub decision: Option<Decision>,
}

impl Delta {
    /// Whether nothing is to be written.
    pub fn is_empty(&self) -> bool {
        self.peers.is_empty() && self.networks.is_empty() && self.sides.is_empty() && self.rows.is_empty()
    }

    /// Notes what differs between two sides of an address.
    pub(crate) fn side(
        &mut self,
        direction: Direction,
        address: IpAddr,
        before: Option<&Side>,
        after: Option<&Side>,
    ) {
        let verdict = |side: Option<&Side>| side.map(|side| side.base.verdict);
        if verdict(before) != verdict(after) {
            self.sides.push((direction, address, after.map(|side| side.base)));
        }
        let classes = |side: Option<&Side>| side.map(|side| side.rows.keys().copied().collect::<Vec<_>>());
        let mut all = classes(before).unwrap_or_default();
        all.extend(classes(after).unwrap_or_default());
        all.sort_unstable();
        all.dedup();
        for class in all {
            self.rows(direction, address, class, rows_of(before, class), rows_of(after, class));
        }
    }

    /// Notes what differs between two lists of rows, both in the order of the traffic.
    pub(crate) fn rows(
        &mut self,
        direction: Direction,
        address: IpAddr,
        class: ClassId,
        before: &[Row],
        after: &[Row],
    ) {
        let find = |rows: &[Row], ports: RowPorts| {
            let place = rows.binary_search_by_key(&ports, |row| row.ports).ok()?;
            Some(rows[place].decision)
        };
        let mut note = |ports, decision| {
            self.rows.push(RowChange { direction, address, class, ports, decision });
        };
        for row in before.iter().filter(|row| find(after, row.ports).is_none()) {
            note(row.ports, None);
        }
        for row in after {
            let same = |decision: Decision| decision.verdict == row.decision.verdict;
            if !find(before, row.ports).is_some_and(same) {
                note(row.ports, Some(row.decision));
            }
        }
    }
}

impl PolicyPlan {
    /// All of it, as the change from nothing.
    pub fn whole(&self) -> Delta {
        let mut delta = Delta::default();
        for family in Family::BOTH {
            let FamilyPlan { peers, networks, endpoints } = &self.families[index(family)];
            delta.peers.extend(peers.iter().map(|(address, class)| (*address, Some(*class))));
            delta
                .networks
                .extend(networks.iter().map(|(first, (last, class))| (*first, *last, Some(*class))));
            for (address, endpoint) in endpoints {
                for direction in Direction::BOTH {
                    delta.side(direction, *address, None, endpoint.side(direction));
                }
            }
        }
        delta.peers.sort_unstable();
        delta
    }
}

fn rows_of(side: Option<&Side>, class: ClassId) -> &[Row] {
    side.and_then(|side| side.rows.get(&class)).map(|rows| &**rows).unwrap_or_default()
}

/// Puts an endpoint in place of another one, and notes what differs. Returns the other one.
pub(crate) fn replace_endpoint(
    plan: &mut PolicyPlan,
    address: IpAddr,
    endpoint: Option<Endpoint>,
    delta: &mut Delta,
) -> Option<Endpoint> {
    let endpoints = &mut plan.family_mut(Family::of(address)).endpoints;
    let before = endpoints.remove(&address);
    for direction in Direction::BOTH {
        let [before, after] = [&before, &endpoint].map(|it| it.as_ref().and_then(|it| it.side(direction)));
        delta.side(direction, address, before, after);
    }
    if let Some(endpoint) = endpoint {
        endpoints.insert(address, endpoint);
    }
    before
}
