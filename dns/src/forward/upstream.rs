//! One upstream and what is known of it: whether it answers, what it takes in questions, whether its questions come
//! back to us. Nothing is asked here.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};

use super::capabilities::{Cases, Habit};
use super::query::Ask;
use super::settings::Case;

/// An upstream. Shared by all that asks it.
#[derive(Debug)]
pub(super) struct Upstream {
    address: SocketAddr,
    failed: AtomicBool,
    circular: AtomicBool,
    case: Case,
    cases: Cases,
    edns: Habit,
}

impl Upstream {
    /// An upstream of which nothing bad is known.
    pub(super) fn new(address: SocketAddr, case: Case) -> Upstream {
        Upstream {
            address,
            failed: AtomicBool::new(false),
            circular: AtomicBool::new(false),
            case,
            cases: Cases::default(),
            edns: Habit::default(),
        }
    }

    /// Where it listens.
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Whether it answered in time when it was last asked, as far as is known.
    pub(super) fn is_well(&self) -> bool {
        !self.failed.load(Ordering::Relaxed)
    }

    /// It answered in time. True where it had not before.
    pub(super) fn note_answer(&self) -> bool {
        self.failed.swap(false, Ordering::Relaxed)
    }

    /// It did not answer in time. True where it had before.
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

    /// How the letters of a question to it are spelled: at random, unless that is known to be of no use.
    pub(super) fn spelling(&self, ask: &Ask) -> u64 {
        match self.case {
            Case::Random if self.cases.takes(&ask.name) => rand::random(),
            _ => 0,
        }
    }

    /// Whether it is known to find names of this domain however they are spelled.
    pub(super) fn finds_any_case(&self, ask: &Ask) -> bool {
        self.cases.is_certain(&ask.name)
    }

    /// It found a name that was spelled at random.
    pub(super) fn note_case_found(&self, ask: &Ask) {
        self.cases.note_taken(&ask.name);
    }

    /// It found a name in lower case only.
    pub(super) fn note_case_denied(&self, ask: &Ask) {
        self.told_plainly(self.cases.note_refused(&ask.name));
    }

    /// It answered for a name in lower case only.
    pub(super) fn note_case_silent(&self, ask: &Ask) {
        self.told_plainly(self.cases.note_silence(&ask.name));
    }

    /// Its answers do not repeat the spelling.
    pub(super) fn note_case_lost(&self) {
        self.told_plainly(self.cases.note_lost());
    }

    fn told_plainly(&self, is_new: bool) {
        if is_new {
            tracing::info!(
                upstream = %self.address,
                "the upstream does not take names in random case: asked in lower case from now on"
            );
        }
    }

    /// What it makes of EDNS.
    pub(super) fn edns(&self) -> &Habit {
        &self.edns
    }

    /// It said without EDNS what it refused with it.
    pub(super) fn note_edns_refused(&self) {
        self.told_without_edns(self.edns.note_refused());
    }

    /// It answered without EDNS only.
    pub(super) fn note_edns_silent(&self) {
        self.told_without_edns(self.edns.note_silence());
    }

    fn told_without_edns(&self, is_new: bool) {
        if is_new {
            tracing::info!(upstream = %self.address, "the upstream does not take EDNS: asked without for an hour");
        }
    }
}
