//! How long to wait before something that ended is started again. Pure.

use std::time::Duration;

/// After how long a run counts as a success that makes earlier failures forgotten.
const LONG_ENOUGH: Duration = Duration::from_secs(10);
/// The wait after the second end in a row; it doubles from there.
const SHORTEST: Duration = Duration::from_millis(250);
/// The longest wait.
const LONGEST: Duration = Duration::from_secs(10);

/// Counts quick ends in a row.
#[derive(Clone, Copy, Debug, Default)]
pub struct Backoff {
    quick_ends: u32,
}

impl Backoff {
    /// The wait after a run of that length: none at first, as the kubelet restarts a container at once.
    pub fn after(&mut self, ran: Duration) -> Duration {
        self.quick_ends = if ran >= LONG_ENOUGH { 1 } else { self.quick_ends.saturating_add(1) };
        match self.quick_ends {
            1 => Duration::ZERO,
            n => SHORTEST.saturating_mul(1 << (n - 2).min(10)).min(LONGEST),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wait_doubles_up_to_the_longest_and_a_long_run_forgets() {
        let mut backoff = Backoff::default();
        let waits: Vec<u128> = (0..9).map(|_| backoff.after(Duration::ZERO).as_millis()).collect();
        assert_eq!(waits, [0, 250, 500, 1000, 2000, 4000, 8000, 10000, 10000]);
        assert_eq!(backoff.after(LONG_ENOUGH), Duration::ZERO);
        assert_eq!(backoff.after(Duration::ZERO), SHORTEST);
    }
}
