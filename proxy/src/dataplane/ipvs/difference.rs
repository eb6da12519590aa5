//! What is to be done where the kernel has other virtual servers than it should. Pure.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use weft_netlink::genl::ipvs::{Change, Scheduling, VirtualServer};
use weft_types::Protocol;

use super::servers::Server;
use crate::ipvs_options::Scheduler;

/// What every destination weighs that may get connections.
pub(super) const WEIGHT: u32 = 1;

/// A virtual server as the kernel has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Held {
    /// How it chooses.
    pub(super) scheduling: Scheduling,
    /// Its destinations with their weights; none of one that packets are led to otherwise than by NAT.
    pub(super) destinations: BTreeMap<SocketAddr, Option<u32>>,
}

/// All virtual servers that the kernel has, others' excepted.
pub(super) type HeldServers = BTreeMap<VirtualServer, Held>;

/// What brings virtual servers into step.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Changes {
    /// What clients may be led to from then on: before anything leads there.
    pub(super) first: Vec<Change>,
    /// What they are not led to any more: after nothing leads there.
    pub(super) last: Vec<Change>,
}

impl Changes {
    /// Adds what one virtual server lacks or has too much.
    pub(super) fn compare(&mut self, at: VirtualServer, desired: Option<&Server>, held: Option<&Held>) {
        match (desired, held) {
            (Some(desired), None) => {
                self.first.push(Change::AddService(at, desired.scheduling.clone()));
                let add = |to: &SocketAddr| Change::AddDestination(at, *to, WEIGHT);
                self.first.extend(desired.destinations.iter().map(add));
            }
            (Some(desired), Some(held)) => self.correct(at, desired, held),
            (None, Some(_)) => self.last.push(Change::DeleteService(at)),
            (None, None) => {}
        }
    }

    fn correct(&mut self, at: VirtualServer, desired: &Server, held: &Held) {
        if desired.scheduling != held.scheduling {
            self.first.push(Change::SetService(at, desired.scheduling.clone()));
        }
        for to in &desired.destinations {
            match held.destinations.get(to) {
                Some(Some(WEIGHT)) => {}
                Some(_) => self.first.push(Change::SetWeight(at, *to, WEIGHT)),
                None => self.first.push(Change::AddDestination(at, *to, WEIGHT)),
            }
        }
        let gone = held.destinations.iter().filter(|(to, _)| desired.destinations.binary_search(to).is_err());
        for (to, weight) in gone {
            match (drains(at, &desired.scheduling), weight) {
                (true, Some(0)) => {}
                (true, _) => self.last.push(Change::SetWeight(at, *to, 0)),
                (false, _) => self.last.push(Change::DeleteDestination(at, *to)),
            }
        }
    }
}

/// Whether a destination that gets no new connections stays until those that it has have ended. UDP has none
/// that end, and `dh` would go on to choose it, and so refuse clients.
fn drains(at: VirtualServer, scheduling: &Scheduling) -> bool {
    at.protocol != Protocol::Udp.number() && scheduling.scheduler != Scheduler::Dh.name()
}

/// The destinations that stay only until their connections have ended.
pub(super) fn draining<'a>(
    desired: Option<&'a Server>,
    held: &'a Held,
) -> impl Iterator<Item = SocketAddr> + 'a {
    let is_wanted =
        move |to: &SocketAddr| desired.is_some_and(|desired| desired.destinations.binary_search(to).is_ok());
    let draining = held.destinations.iter().filter(|(_, weight)| **weight == Some(0));
    draining.map(|(to, _)| *to).filter(move |to| !is_wanted(to))
}

/// Notes that the kernel has made a change.
pub(super) fn record(held: &mut HeldServers, change: &Change) {
    let mut set = |at: &VirtualServer, to: &SocketAddr, weight: u32| {
        if let Some(held) = held.get_mut(at) {
            held.destinations.insert(*to, Some(weight));
        }
    };
    match change {
        Change::AddDestination(at, to, weight) | Change::SetWeight(at, to, weight) => set(at, to, *weight),
        Change::AddService(at, scheduling) => {
            let destinations = BTreeMap::new();
            held.insert(*at, Held { scheduling: scheduling.clone(), destinations });
        }
        Change::SetService(at, scheduling) => {
            if let Some(held) = held.get_mut(at) {
                held.scheduling.clone_from(scheduling);
            }
        }
        Change::DeleteService(at) => drop(held.remove(at)),
        Change::DeleteDestination(at, to) => {
            if let Some(held) = held.get_mut(at) {
                held.destinations.remove(to);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(protocol: Protocol) -> VirtualServer {
        VirtualServer { protocol: protocol.number(), address: "10.96.0.1:80".parse().unwrap() }
    }

    fn scheduling(scheduler: &str) -> Scheduling {
        Scheduling { scheduler: scheduler.into(), flags: 0, persistence: None }
    }

    fn to(last: u8) -> SocketAddr {
        SocketAddr::new([10, 244, 1, last].into(), 8080)
    }

    fn desired(last: &[u8]) -> Server {
        Server { scheduling: scheduling("rr"), destinations: last.iter().copied().map(to).collect() }
    }

    fn held(weights: &[(u8, Option<u32>)]) -> Held {
        let destinations = weights.iter().map(|(last, weight)| (to(*last), *weight)).collect();
        Held { scheduling: scheduling("rr"), destinations }
    }

    fn changes(at: VirtualServer, desired: Option<&Server>, held: Option<&Held>) -> Changes {
        let mut changes = Changes::default();
        changes.compare(at, desired, held);
        changes
    }

    #[test]
    fn what_is_as_it_should_be_stays_and_so_does_what_drains() {
        let held = held(&[(2, Some(1)), (3, Some(0))]);
        assert_eq!(changes(at(Protocol::Tcp), Some(&desired(&[2])), Some(&held)), Changes::default());
        assert_eq!(draining(Some(&desired(&[2])), &held).collect::<Vec<_>>(), [to(3)]);
    }

    #[test]
    fn an_endpoint_that_goes_keeps_its_connections_and_gets_no_new_ones() {
        let at = at(Protocol::Tcp);
        let found = changes(at, Some(&desired(&[2, 4])), Some(&held(&[(2, Some(1)), (3, Some(1))])));
        let first = vec![Change::AddDestination(at, to(4), 1)];
        assert_eq!(found, Changes { first, last: vec![Change::SetWeight(at, to(3), 0)] });
    }

    #[test]
    fn an_endpoint_that_comes_back_gets_connections_again_and_what_others_made_of_one_is_put_right() {
        let at = at(Protocol::Tcp);
        let found =
            changes(at, Some(&desired(&[2, 3, 4])), Some(&held(&[(2, Some(0)), (3, None), (4, Some(7))])));
        let first = [2, 3, 4].map(|last| Change::SetWeight(at, to(last), 1)).to_vec();
        assert_eq!(found, Changes { first, last: Vec::new() });
    }

    #[test]
    fn endpoints_of_udp_and_of_a_scheduler_that_would_choose_them_go_at_once() {
        let udp = at(Protocol::Udp);
        let found = changes(udp, Some(&desired(&[])), Some(&held(&[(3, Some(1))])));
        assert_eq!(found.last, [Change::DeleteDestination(udp, to(3))]);
        let dh = |destinations| Server { scheduling: scheduling("dh"), ..desired(destinations) };
        let found = changes(at(Protocol::Tcp), Some(&dh(&[])), Some(&held(&[(3, Some(1))])));
        assert_eq!(found.first, [Change::SetService(at(Protocol::Tcp), scheduling("dh"))]);
        assert_eq!(found.last, [Change::DeleteDestination(at(Protocol::Tcp), to(3))]);
    }

    #[test]
    fn changes_that_were_made_leave_nothing_to_do() {
        let at = at(Protocol::Tcp);
        let mut servers = HeldServers::new();
        let steps: [Option<Server>; 4] =
            [Some(desired(&[2, 3])), Some(desired(&[2])), Some(desired(&[3])), None];
        for step in steps {
            let found = changes(at, step.as_ref(), servers.get(&at));
            found.first.iter().chain(&found.last).for_each(|change| record(&mut servers, change));
            assert_eq!(changes(at, step.as_ref(), servers.get(&at)), Changes::default());
        }
        assert!(servers.is_empty());
    }
}
