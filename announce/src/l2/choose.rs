//! Who has an address right now: the first of its candidates that is alive, as this node sees it.
//!
//! Alive is whom BFD hears. A peer that BFD heard once is dead as soon as it does not any more, whatever the
//! API server still says. A peer that it never heard is judged by its Node's condition Ready: BFD may be
//! blocked between the two, or the peer's release have none; unless its machine says that nobody listens
//! there, or the link that there is no such machine.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::plan::Plan;
use crate::bfd::packet::State;
use crate::bfd::sessions::Health;

/// For how long after the start of a session its peer may still be one that will be heard. Two agents that
/// run hear each other within a second or two.
pub const GRACE: Duration = Duration::from_secs(5);
/// For how long it counts that nobody listens there: packets that would be refused again go out each second.
const REFUSED: Duration = Duration::from_secs(4);

/// What is known of another node.
#[derive(Clone, Copy, Debug)]
pub struct Known {
    /// By BFD; none where no session is kept with it.
    pub health: Option<Health>,
    /// By its Node's condition Ready.
    pub is_ready: bool,
}

/// Whether a node can be counted on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Liveness {
    /// It is there.
    Alive,
    /// It may be there: that will be known by then.
    Unsure(Instant),
    /// It is not.
    Dead,
}

/// Who has an address.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Choice {
    /// The node; none where no candidate is alive.
    pub holder: Option<Arc<str>>,
    /// This node has it, and nobody else may still believe to have it.
    pub is_ours: bool,
    /// When this has to be looked at again, if nothing else changes.
    pub again: Option<Instant>,
}

impl Known {
    /// Whether it can be counted on.
    pub fn liveness(&self, now: Instant) -> Liveness {
        let by_node = if self.is_ready { Liveness::Alive } else { Liveness::Dead };
        let Some(health) = self.health else { return by_node };
        if health.state == State::Up {
            return Liveness::Alive;
        }
        if health.was_up || health.refused.is_some_and(|refused| now < refused + REFUSED) {
            return Liveness::Dead;
        }
        match health.since + GRACE {
            until if now < until => Liveness::Unsure(until),
            _ => by_node,
        }
    }
}

/// Who has each address of the plan. `liveness` is asked for nodes other than this one.
pub fn choose(plan: &Plan, node: &str, liveness: impl Fn(&str) -> Liveness) -> BTreeMap<IpAddr, Choice> {
    let choice = |candidates: &[Arc<str>]| {
        let judged: Vec<(&Arc<str>, Liveness)> = candidates
            .iter()
            .map(|name| (name, if **name == *node { Liveness::Alive } else { liveness(name) }))
            .collect();
        let holder = judged.iter().find(|(_, liveness)| *liveness != Liveness::Dead);
        let holder = holder.map(|(name, _)| Arc::clone(name));
        // Whoever comes back takes its address only once the others know of it, and so let it go.
        let again = judged.iter().filter_map(|(_, liveness)| match liveness {
            Liveness::Unsure(until) => Some(*until),
            _ => None,
        });
        let again = again.max();
        let is_ours = holder.as_deref() == Some(node) && again.is_none();
        Choice { holder, is_ours, again }
    };
    plan.addresses.iter().map(|(address, candidates)| (*address, choice(&candidates.nodes))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bfd::packet::Diagnostic;
    use crate::l2::plan::Candidates;

    fn health(state: State, was_up: bool, since: Instant) -> Health {
        Health {
            state,
            diagnostic: Diagnostic::None,
            remote: state,
            was_up,
            since,
            detection_time: None,
            refused: None,
        }
    }

    fn chosen(liveness: impl Fn(&str) -> Liveness) -> Choice {
        let nodes = ["node1", "node2", "node3"].map(Into::into).to_vec();
        let address = IpAddr::from([192, 0, 2, 10]);
        let addresses = [(address, Candidates { nodes, interfaces: None })].into();
        choose(&Plan { addresses, ..Plan::default() }, "node2", liveness).remove(&address).unwrap()
    }

    #[test]
    fn whom_bfd_heard_once_is_judged_by_bfd_alone() {
        let now = Instant::now();
        let known = |state, was_up, is_ready| Known { health: Some(health(state, was_up, now)), is_ready };
        assert_eq!(known(State::Up, true, false).liveness(now), Liveness::Alive);
        assert_eq!(known(State::Down, true, true).liveness(now), Liveness::Dead);
        assert_eq!(known(State::Init, true, true).liveness(now), Liveness::Dead);
    }

    #[test]
    fn whom_bfd_never_heard_is_judged_by_its_node_after_a_while() {
        let now = Instant::now();
        for is_ready in [true, false] {
            let known = Known { health: Some(health(State::Down, false, now)), is_ready };
            let by_node = if is_ready { Liveness::Alive } else { Liveness::Dead };
            assert_eq!(known.liveness(now), Liveness::Unsure(now + GRACE));
            assert_eq!(known.liveness(now + GRACE), by_node);
            assert_eq!(Known { health: None, is_ready }.liveness(now), by_node, "no session is kept with it");
        }
    }

    #[test]
    fn a_machine_that_says_that_nobody_listens_there_is_dead_while_it_does() {
        let now = Instant::now();
        let refused = Health { refused: Some(now), ..health(State::Down, false, now) };
        let known = Known { health: Some(refused), is_ready: true };
        assert_eq!(known.liveness(now), Liveness::Dead);
        assert_eq!(known.liveness(now + GRACE), Liveness::Alive, "a word of so long ago counts no more");
    }

    #[test]
    fn the_first_that_is_alive_has_the_address() {
        let alive = chosen(|_| Liveness::Alive);
        assert_eq!((alive.holder.as_deref(), alive.is_ours), (Some("node1"), false));
        let after = chosen(|name| if name == "node1" { Liveness::Dead } else { Liveness::Alive });
        assert_eq!((after.holder.as_deref(), after.is_ours), (Some("node2"), true));
        let last = chosen(|_| Liveness::Dead);
        assert!(last.is_ours, "a node alone serves all");
    }

    #[test]
    fn a_node_that_comes_back_waits_until_the_others_know_of_it() {
        let until = Instant::now();
        let unsure = chosen(|name| if name == "node3" { Liveness::Unsure(until) } else { Liveness::Dead });
        assert_eq!(
            (unsure.holder.as_deref(), unsure.is_ours, unsure.again),
            (Some("node2"), false, Some(until))
        );
    }
}
