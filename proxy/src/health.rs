//! Whether the kernel is in step with the cluster, and for how long it has not been; and whether the node is to stay.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How long the kernel may be out of step before a probe hears of it.
const GRACE: Duration = Duration::from_secs(60);

/// What probes are told.
#[derive(Debug, Default)]
pub struct Health(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    was_in_step: bool,
    out_of_step_since: Option<Instant>,
    leaving: bool,
}

impl Health {
    /// The kernel is in step.
    pub fn in_step(&self) {
        let mut state = self.state();
        state.was_in_step = true;
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

    /// Whether the kernel was ever in step: clients that come before may find no rules.
    pub fn is_ready(&self) -> bool {
        self.state().was_in_step
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
        assert!(!health.is_ready());
        health.in_step();
        assert!(health.is_ready());
        assert!(health.is_well(start + GRACE));
    }
}
