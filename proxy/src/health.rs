//! Whether the kernel is in step with the cluster, and for how long it has not been; and whether the node is
//! to stay.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;

use crate::dataplane::Programs;

/// How long the kernel may be out of step before a probe hears of it.
const GRACE: Duration = Duration::from_secs(60);

/// What probes are told.
#[derive(Debug, Default)]
pub struct Health(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    last_in_step: Option<Timestamp>,
    out_of_step_since: Option<Instant>,
    leaving: bool,
    conflicts: Vec<String>,
    programs: Option<Programs>,
}

impl Health {
    /// The kernel is in step, since that moment.
    pub fn in_step(&self, now: Timestamp) {
        let mut state = self.state();
        state.last_in_step = Some(now);
        state.out_of_step_since = None;
    }

    /// The kernel could not be brought into step at that moment.
    pub fn out_of_step(&self, now: Instant) {
        self.state().out_of_step_since.get_or_insert(now);
    }

    /// Whether the node is about to be deleted.
    pub fn node_leaves(&self, leaving: bool) {
        self.state().leaving = leaving;
    }

    /// What of other programs keeps connections to Services from their endpoints.
    pub fn set_conflicts(&self, conflicts: Vec<String>) {
        self.state().conflicts = conflicts;
    }

    /// The same, as told last.
    pub fn conflicts(&self) -> Vec<String> {
        self.state().conflicts.clone()
    }

    /// How the programs are that lead sockets, where there are to be some.
    pub fn set_programs(&self, programs: Option<Programs>) {
        self.state().programs = programs;
    }

    /// The same, as told last.
    pub fn programs(&self) -> Option<Programs> {
        self.state().programs.clone()
    }

    /// When the kernel was brought into step for the last time. None before the first time: clients that come
    /// then may find no rules.
    pub fn last_in_step(&self) -> Option<Timestamp> {
        self.state().last_in_step
    }

    /// Whether the proxy does its work, as far as there is any yet.
    pub fn is_well(&self, now: Instant) -> bool {
        let since = self.state().out_of_step_since;
        since.is_none_or(|since| now.saturating_duration_since(since) < GRACE)
    }

    /// Whether load balancers should send new clients elsewhere because the node is about to be deleted.
    pub fn is_leaving(&self) -> bool {
        self.state().leaving
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_long_failure_is_told() {
        let (health, start) = (Health::default(), Instant::now());
        health.out_of_step(start);
        assert!(health.is_well(start + GRACE / 2));
        health.out_of_step(start + GRACE / 2);
        assert!(!health.is_well(start + GRACE), "the first failure counts");
        assert_eq!(health.last_in_step(), None);
        health.in_step(Timestamp::UNIX_EPOCH);
        assert_eq!(health.last_in_step(), Some(Timestamp::UNIX_EPOCH));
        assert!(health.is_well(start + GRACE));
    }
}
