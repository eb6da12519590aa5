//! One upstream and what is known of it: whether it answers, whether it keeps the spelling of names, whether its
//! questions come back to us. Nothing is asked here.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};

/// An upstream. Shared by all that asks it.
#[derive(Debug)]
pub(super) struct Upstream {
    address: SocketAddr,
    failed: AtomicBool,
    circular: AtomicBool,
    other_case: AtomicBool,
    folds_case: AtomicBool,
}

impl Upstream {
    /// An upstream of which nothing bad is known.
    pub(super) fn new(address: SocketAddr) -> Upstream {
        Upstream {
            address,
            failed: AtomicBool::new(false),
            circular: AtomicBool::new(false),
            other_case: AtomicBool::new(false),
            folds_case: AtomicBool::new(false),
        }
    }

    /// Where it listens.
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Whether it answered when it was last asked, as far as is known.
    pub(super) fn is_well(&self) -> bool {
        !self.failed.load(Ordering::Relaxed)
    }

    /// It answered. True where it had not before.
    pub(super) fn note_answer(&self) -> bool {
        self.failed.swap(false, Ordering::Relaxed)
    }

    /// It did not answer. True where it had before.
    pub(super) fn note_failure(&self) -> bool {
        !self.failed.swap(true, Ordering::Relaxed)
    }

    /// Whether questions to it come back to this server.
    pub(super) fn is_circular(&self) -> bool {
        self.circular.load(Ordering::Relaxed)
    }

    /// Questions to it come back, or do no longer. True where that is new.
    pub(super) fn note_circular(&self, circular: bool) -> bool {
        self.circular.swap(circular, Ordering::Relaxed) != circular
    }

    /// Whether its answers repeat the name as it was spelled.
    pub(super) fn keeps_case(&self) -> bool {
        !self.folds_case.load(Ordering::Relaxed)
    }

    /// An answer came that does not, or a forgery.
    pub(super) fn note_other_case(&self) {
        self.other_case.store(true, Ordering::Relaxed);
    }

    /// Whether there was ever such an answer.
    pub(super) fn suspected(&self) -> bool {
        self.other_case.load(Ordering::Relaxed)
    }

    /// It is certain that its answers do not.
    pub(super) fn note_folds_case(&self) {
        if !self.folds_case.swap(true, Ordering::Relaxed) {
            tracing::info!(upstream = %self.address, "the upstream does not keep the spelling of names: asked without");
        }
    }
}
