//! Upstreams that know the same names, and the order in which they are tried for a query. Pure but for the
//! turn that is counted: nothing is asked here.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::keeping::Keeping;
use super::settings::{Manner, Policy};
use super::upstream::Upstream;

/// Upstreams of one domain, or of all.
#[derive(Debug)]
pub(super) struct Pool {
    upstreams: Vec<Arc<Upstream>>,
    manner: Manner,
    turn: AtomicUsize,
}

impl Pool {
    /// A pool of these. Who is named twice is one.
    pub(super) fn new(named: impl Iterator<Item = Arc<Upstream>>, manner: Manner) -> Pool {
        let mut upstreams: Vec<Arc<Upstream>> = Vec::new();
        for upstream in named {
            if !upstreams.iter().any(|known| Arc::ptr_eq(known, &upstream)) {
                upstreams.push(upstream);
            }
        }
        Pool { upstreams, manner, turn: AtomicUsize::new(0) }
    }

    /// All of them.
    #[cfg(test)]
    pub(super) fn upstreams(&self) -> &[Arc<Upstream>] {
        &self.upstreams
    }

    /// Whether none of them is known to answer: the order is then a guess.
    pub(super) fn is_down(&self) -> bool {
        !self.upstreams.iter().any(|upstream| upstream.is_healthy())
    }

    /// What is done with their answers.
    pub(super) fn keeping(&self) -> &Keeping {
        &self.manner.keeping
    }

    /// Whom to try, in this order: all that answer by the pool's own policy or else by this one, then those that did not, for they may
    /// again. Those whose queries come back to us are left out; so there may be none. `random` is any number.
    pub(super) fn order(&self, policy: Policy, random: usize) -> Vec<Arc<Upstream>> {
        let mut order: Vec<_> =
            self.upstreams.iter().filter(|upstream| !upstream.is_looping()).cloned().collect();
        let count = order.len();
        match self.manner.policy.unwrap_or(policy) {
            _ if count == 0 => {}
            Policy::Sequential => {}
            Policy::RoundRobin => order.rotate_left(self.turn.fetch_add(1, Ordering::Relaxed) % count),
            Policy::Random => shuffle(&mut order, random),
        }
        order.sort_by_key(|upstream| !upstream.is_healthy());
        order
    }
}

/// Any order, as the number says.
fn shuffle<T>(items: &mut [T], mut random: usize) {
    for left in (2..=items.len()).rev() {
        items.swap(left - 1, random % left);
        random /= left;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::forward::Case;

    fn pool(count: u8) -> Pool {
        let upstream = |last| Arc::new(Upstream::new(([192, 0, 2, last], 53).into(), Case::Random));
        Pool::new((1..=count).map(upstream), Manner::default())
    }

    fn order(pool: &Pool, policy: Policy, random: usize) -> Vec<u8> {
        let last = |upstream: &Arc<Upstream>| match upstream.address().ip() {
            std::net::IpAddr::V4(address) => address.octets()[3],
            std::net::IpAddr::V6(_) => 0,
        };
        pool.order(policy, random).iter().map(last).collect()
    }

    #[test]
    fn policies_choose_who_is_first() {
        let pool = pool(3);
        assert_eq!(order(&pool, Policy::Sequential, 5), [1, 2, 3]);
        let turns: Vec<u8> = (0..4).map(|_| order(&pool, Policy::RoundRobin, 5)[0]).collect();
        assert_eq!(turns, [1, 2, 3, 1]);
        let mut random: Vec<Vec<u8>> = (0..6).map(|number| order(&pool, Policy::Random, number)).collect();
        random.sort();
        random.dedup();
        assert_eq!(random.len(), 6, "every order is possible");
    }

    #[test]
    fn one_that_failed_comes_last_until_it_answers() {
        let pool = pool(3);
        pool.upstreams()[0].note_failure();
        assert_eq!(order(&pool, Policy::Sequential, 0), [2, 3, 1]);
        pool.upstreams()[0].note_answer();
        assert_eq!(order(&pool, Policy::Sequential, 0), [1, 2, 3]);
    }

    #[test]
    fn when_all_failed_all_are_tried_anyway() {
        let pool = pool(2);
        pool.upstreams().iter().for_each(|upstream| assert!(upstream.note_failure()));
        assert!(pool.is_down());
        assert_eq!(order(&pool, Policy::Sequential, 0), [1, 2]);
    }

    #[test]
    fn all_are_tried_and_each_once() {
        assert_eq!(order(&pool(9), Policy::Sequential, 0), [1, 2, 3, 4, 5, 6, 7, 8, 9]);
        let pool = pool(2);
        let twice = pool.upstreams().iter().chain(pool.upstreams()).cloned();
        assert_eq!(order(&Pool::new(twice, Manner::default()), Policy::Sequential, 0), [1, 2]);
    }

    #[test]
    fn one_whose_questions_come_back_is_never_asked() {
        let pool = pool(2);
        pool.upstreams()[1].note_loop(true);
        assert_eq!(order(&pool, Policy::Sequential, 0), [1]);
        pool.upstreams()[0].note_loop(true);
        assert!(order(&pool, Policy::Sequential, 0).is_empty());
    }
}
