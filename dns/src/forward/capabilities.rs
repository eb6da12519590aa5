//! What upstreams support: EDNS, and letters in random case (0x20). Learnt from
//! what they answer. The time is read here, nothing else.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::wire::name::labels;

/// For so long an upstream is asked without what it did not take; then it may have been replaced (RFC 6891
/// section 6.2.2: "for a brief time").
const REMEMBERED: Duration = Duration::from_secs(3600);
/// A datagram may be lost: so many queries in a row must have been answered without the thing only.
const MOST_TIMEOUTS: u8 = 2;
/// The number of domains of which it is known how they take random case.
const MOST_DOMAINS: usize = 1024;

/// Whether one thing is taken.
#[derive(Debug, Default)]
pub(super) struct Capability(Mutex<State>);

#[derive(Clone, Copy, Debug)]
enum State {
    /// Nobody knows; so many queries in a row were answered without it only.
    Unknown { timeouts: u8 },
    /// It is.
    Supported,
    /// It was not, then.
    Refused(Instant),
}

impl Default for State {
    fn default() -> State {
        State::Unknown { timeouts: 0 }
    }
}

impl Capability {
    /// Whether it is worth trying.
    pub(super) fn may_be_supported(&self) -> bool {
        let mut state = lock(&self.0);
        if matches!(*state, State::Refused(since) if since.elapsed() >= REMEMBERED) {
            *state = State::default();
        }
        !matches!(*state, State::Refused(_))
    }

    /// Whether it is known to be taken.
    pub(super) fn is_supported(&self) -> bool {
        matches!(*lock(&self.0), State::Supported)
    }

    /// A query with it was answered.
    pub(super) fn note_supported(&self) {
        *lock(&self.0) = State::Supported;
    }

    /// The answer without it was the better one. True where that is new.
    pub(super) fn note_refused(&self) -> bool {
        !matches!(std::mem::replace(&mut *lock(&self.0), State::Refused(Instant::now())), State::Refused(_))
    }

    /// There was an answer without it only. True where that was enough to do without.
    pub(super) fn note_timeout(&self) -> bool {
        let mut state = lock(&self.0);
        match *state {
            State::Unknown { timeouts } if timeouts + 1 >= MOST_TIMEOUTS => {
                *state = State::Refused(Instant::now());
                true
            }
            State::Unknown { timeouts } => {
                *state = State::Unknown { timeouts: timeouts + 1 };
                false
            }
            State::Supported | State::Refused(_) => false,
        }
    }
}

/// What becomes of letters in random case: at the upstream itself, and at those behind it who know a domain.
#[derive(Debug, Default)]
pub(super) struct CaseSupport {
    upstream: Capability,
    /// Domain in wire form -> whether names of it were found in random case.
    domains: Mutex<HashMap<Box<[u8]>, bool>>,
}

impl CaseSupport {
    /// Whether it is worth trying with this name.
    pub(super) fn takes(&self, name: &[u8]) -> bool {
        self.upstream.may_be_supported() && lock(&self.domains).get(domain(name)) != Some(&false)
    }

    /// Whether names of the same domain were found.
    pub(super) fn is_certain(&self, name: &[u8]) -> bool {
        lock(&self.domains).get(domain(name)) == Some(&true)
    }

    /// The name was found.
    pub(super) fn note_supported(&self, name: &[u8]) {
        self.upstream.note_supported();
        self.keep(name, true);
    }

    /// The name was found in lower case only. True where the upstream is to blame, and that is new.
    pub(super) fn note_refused(&self, name: &[u8]) -> bool {
        if self.upstream.is_supported() {
            self.keep(name, false);
            return false;
        }
        self.upstream.note_refused()
    }

    /// There was an answer in lower case only. True where that was enough to blame the upstream.
    pub(super) fn note_timeout(&self, name: &[u8]) -> bool {
        if self.upstream.is_supported() {
            self.keep(name, false);
            return false;
        }
        self.upstream.note_timeout()
    }

    /// The upstream answers, but does not repeat the letters. True where that is new.
    pub(super) fn note_lost(&self) -> bool {
        self.upstream.note_refused()
    }

    fn keep(&self, name: &[u8], taken: bool) {
        let (mut domains, domain) = (lock(&self.domains), domain(name));
        if domains.get(domain) == Some(&taken) {
            return;
        }
        // Strangers choose names. Who fills this up makes queries be asked twice, and no more than that.
        if domains.len() >= MOST_DOMAINS {
            domains.clear();
        }
        domains.insert(domain.into(), taken);
    }
}

/// The last two labels of a name: most often those of whoever answers for it.
fn domain(name: &[u8]) -> &[u8] {
    let lengths: Vec<usize> = labels(name).map(|label| 1 + label.len()).collect();
    let length: usize = lengths.iter().rev().take(2).sum();
    &name[name.len() - length..]
}

/// Nothing that could panic is done while it is held.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::name::wire_name;

    fn name(text: &str) -> Box<[u8]> {
        wire_name(text).unwrap()
    }

    #[test]
    fn one_lost_datagram_is_no_habit() {
        let capability = Capability::default();
        assert!(!capability.note_timeout() && capability.may_be_supported());
        assert!(capability.note_timeout() && !capability.may_be_supported());
        let capability = Capability::default();
        capability.note_supported();
        assert!(
            (0..9).all(|_| !capability.note_timeout()) && capability.may_be_supported(),
            "it answered once"
        );
    }

    #[test]
    fn an_upstream_that_finds_no_random_case_is_spared_it() {
        let cases = CaseSupport::default();
        assert!(
            cases.note_refused(&name("www.example.com")) && !cases.note_refused(&name("www.example.com"))
        );
        assert!(!cases.takes(&name("www.example.org")));
    }

    #[test]
    fn one_domain_that_finds_no_random_case_does_not_take_it_from_the_others() {
        let cases = CaseSupport::default();
        cases.note_supported(&name("www.example.com"));
        assert!(!cases.note_refused(&name("www.broken.example")));
        assert!(!cases.takes(&name("mail.broken.example")) && cases.takes(&name("www.example.org")));
        assert!(cases.is_certain(&name("mail.example.com")) && !cases.is_certain(&name("www.example.org")));
    }

    #[test]
    fn what_is_remembered_of_domains_is_bounded() {
        let cases = CaseSupport::default();
        (0..=MOST_DOMAINS).for_each(|number| cases.note_supported(&name(&format!("a{number}.example"))));
        assert!(lock(&cases.domains).len() <= MOST_DOMAINS);
        assert_eq!((domain(&name("com")), domain(b"")), (&name("com")[..], &b""[..]));
    }
}
