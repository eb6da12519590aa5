//! For how long flows are looked at. Pure.

use std::time::{Duration, Instant};

/// Whether somebody wants to know.
#[derive(Debug)]
pub(super) struct Interest {
    always: bool,
    keep: Duration,
    until: Option<Instant>,
}

impl Interest {
    /// Nobody has asked; `keep` is how long a question counts.
    pub(super) fn new(always: bool, keep: Duration) -> Interest {
        Interest { always, keep, until: None }
    }

    /// Somebody asks until that moment.
    pub(super) fn asked(&mut self, until: Instant) {
        self.until = self.until.max(Some(until + self.keep));
    }

    /// Whether nobody has asked for long.
    pub(super) fn is_over(&self, now: Instant) -> bool {
        !self.always && self.until.is_none_or(|until| now >= until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_counts_for_as_long_as_it_waits_and_a_while_after() {
        let (start, keep) = (Instant::now(), Duration::from_secs(60));
        let mut interest = Interest::new(false, keep);
        assert!(interest.is_over(start));
        interest.asked(start + Duration::from_secs(10));
        interest.asked(start);
        let at = |seconds| start + Duration::from_secs(seconds);
        assert!(
            !interest.is_over(at(69)) && interest.is_over(at(70)),
            "a shorter question takes nothing away"
        );
        assert!(!Interest::new(true, keep).is_over(at(1000)));
    }
}
