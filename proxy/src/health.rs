//! Whether the kernel is in step with the cluster, and for how long it has not been.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

/// How long the kernel may be out of step before a probe hears of it.
const GRACE: Duration = Duration::from_secs(60);

/// What probes are told.
#[derive(Debug, Default)]
pub struct Health(Mutex<Option<Instant>>);

impl Health {
    /// The kernel is in step.
    pub fn in_step(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// The kernel could not be brought into step at that moment.
    pub fn out_of_step(&self, now: Instant) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(now);
    }

    /// Whether all is well.
    pub fn is_well(&self, now: Instant) -> bool {
        let since = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        since.is_none_or(|since| now.saturating_duration_since(since) < GRACE)
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
        health.in_step();
        assert!(health.is_well(start + GRACE));
    }
}
