//! In which slot of the kernel's maps each endpoint stands: a change of endpoints moves as few others as
//! possible.

use std::mem::replace;
use std::net::SocketAddr;

use crate::services::plan::{Frontend, ServicePlan, Target, TrafficSource};

/// Where the endpoints of a frontend stand now, so that they can stay there.
pub(super) trait Slots {
    /// The slots of a frontend; none where it is new.
    fn slots(&self, frontend: &Frontend, source: TrafficSource) -> &[SocketAddr];
}

impl Slots for ServicePlan {
    fn slots(&self, frontend: &Frontend, source: TrafficSource) -> &[SocketAddr] {
        let target = self.frontend(frontend).and_then(|plan| plan.target(source));
        target.map(Target::endpoints).unwrap_or_default()
    }
}

/// Puts all endpoints of a plan into the order of their slots, as they were in `previous` where possible.
pub(super) fn arrange(plan: &mut ServicePlan, previous: &dyn Slots) {
    for frontend in &mut plan.frontends {
        let name = frontend.frontend;
        for source in TrafficSource::ALL {
            if let Some(Target::Endpoints(endpoints)) = frontend.target_mut(source) {
                let previous = previous.slots(&name, source);
                if !previous.is_empty() && previous != &**endpoints {
                    *endpoints = assign_slots(previous, endpoints).into();
                }
            }
        }
    }
}

/// Puts endpoints into slots so that as few slots as possible differ from `previous`: who stays keeps the
/// slot, who comes takes the slot of one who went, and a slot that is left empty is filled by the last one.
/// `wanted` is in order, and has nothing twice.
fn assign_slots(previous: &[SocketAddr], wanted: &[SocketAddr]) -> Vec<SocketAddr> {
    let mut kept = vec![false; wanted.len()];
    // What was adopted from the kernel may hold a socket twice; only its first slot counts.
    let mut keep = |socket: &SocketAddr| {
        let place = wanted.binary_search(socket).ok()?;
        (!replace(&mut kept[place], true)).then_some(*socket)
    };
    let mut slots: Vec<Option<SocketAddr>> = previous.iter().map(&mut keep).collect();
    let newcomers = wanted.iter().zip(kept).filter(|(_, kept)| !kept).map(|(socket, _)| *socket);
    let mut newcomers = newcomers.fuse();
    for slot in slots.iter_mut().filter(|slot| slot.is_none()) {
        *slot = newcomers.next();
    }
    slots.extend(newcomers.map(Some));
    let mut index = 0;
    while index < slots.len() {
        match slots[index] {
            Some(_) => index += 1,
            None => drop(slots.swap_remove(index)),
        }
    }
    slots.into_iter().flatten().collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::collection::{btree_set, vec};
    use proptest::prelude::*;

    use super::*;

    fn sockets(last: impl IntoIterator<Item = u16>) -> Vec<SocketAddr> {
        last.into_iter().map(|last| SocketAddr::new([10, 0, 0, 1].into(), last)).collect()
    }

    fn assigned(previous: &[u16], wanted: &[u16]) -> Vec<SocketAddr> {
        let wanted: BTreeSet<u16> = wanted.iter().copied().collect();
        assign_slots(&sockets(previous.to_vec()), &sockets(wanted))
    }

    #[test]
    fn a_removed_slot_is_filled_by_the_last_one_and_a_replaced_one_in_place() {
        assert_eq!(assigned(&[4, 1, 2, 3], &[1, 2, 3]), sockets([3, 1, 2]));
        assert_eq!(assigned(&[4, 1, 2, 3], &[1, 4, 3, 9]), sockets([4, 1, 9, 3]));
        assert_eq!(assigned(&[2, 1], &[1, 2, 3]), sockets([2, 1, 3]));
        assert_eq!(assigned(&[1, 1, 2], &[1, 2]), sockets([1, 2]), "a socket twice");
        assert_eq!(assigned(&[1, 2], &[]), []);
    }

    proptest! {
        #[test]
        fn every_endpoint_has_one_slot_and_no_more_slots_change_than_must(
            previous in vec(0u16..12, 0..10), wanted in btree_set(0u16..12, 0..10),
        ) {
            let previous: BTreeSet<u16> = previous.into_iter().collect();
            let before = sockets(previous.iter().copied());
            let after = assign_slots(&before, &sockets(wanted.iter().copied()));
            prop_assert_eq!(after.len(), wanted.len());
            prop_assert_eq!(after.iter().map(|socket| socket.port()).collect::<BTreeSet<_>>(), wanted.clone());
            let changed = before.iter().zip(&after).filter(|(before, after)| before != after).count();
            let gone = previous.difference(&wanted).count();
            prop_assert!(changed <= gone);
        }
    }
}
