//! One upstream and what is known of it: whether it answers, what it takes in queries, whether its queries
//! come back to us. Nothing is asked here.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};

use super::capabilities::{Capability, CaseSupport};
use super::query::UpstreamQuery;
use super::settings::Case;

/// An upstream. Shared by all that asks it.
#[derive(Debug)]
pub(super) struct Upstream {
    address: SocketAddr,
    /// Whether it is asked over TCP alone.
    tcp: bool,
    failed: AtomicBool,
    looping: AtomicBool,
    case: Case,
    cases: CaseSupport,
    edns: Capability,
}

impl Upstream {
    /// An upstream of which nothing bad is known.
    pub(super) fn new(address: SocketAddr, case: Case) -> Upstream {
        Upstream {
            address,
            tcp: false,
            failed: AtomicBool::new(false),
            looping: AtomicBool::new(false),
            case,
            cases: CaseSupport::default(),
            edns: Capability::default(),
        }
    }

    /// The same, to be asked over TCP alone where `tcp` is set.
    pub(super) fn over_tcp(self, tcp: bool) -> Upstream {
        Upstream { tcp, ..self }
    }

    /// Whether it is asked over TCP alone.
    pub(super) fn takes_tcp_alone(&self) -> bool {
        self.tcp
    }

    /// Where it listens.
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Whether it answered in time when it was last asked, as far as is known.
    pub(super) fn is_healthy(&self) -> bool {
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

    /// Whether queries to it come back to this server.
    pub(super) fn is_looping(&self) -> bool {
        self.looping.load(Ordering::Relaxed)
    }

    /// Queries to it come back, or do no longer. True where that is new.
    pub(super) fn note_loop(&self, looping: bool) -> bool {
        self.looping.swap(looping, Ordering::Relaxed) != looping
    }

    /// How the letters of a query to it are spelled: at random, unless that is known to be of no use.
    pub(super) fn spelling(&self, query: &UpstreamQuery) -> u64 {
        match self.case {
            Case::Random if self.cases.takes(&query.name) => rand::random(),
            _ => 0,
        }
    }

    /// Whether it is known to find names of this domain however they are spelled.
    pub(super) fn finds_any_case(&self, query: &UpstreamQuery) -> bool {
        self.cases.is_certain(&query.name)
    }

    /// It found a name that was spelled at random.
    pub(super) fn note_case_found(&self, query: &UpstreamQuery) {
        self.cases.note_supported(&query.name);
    }

    /// It found a name in lower case only.
    pub(super) fn note_case_denied(&self, query: &UpstreamQuery) {
        self.told_plainly(self.cases.note_refused(&query.name));
    }

    /// It answered for a name in lower case only.
    pub(super) fn note_case_silent(&self, query: &UpstreamQuery) {
        self.told_plainly(self.cases.note_timeout(&query.name));
    }

    /// Its answers do not repeat the spelling.
    pub(super) fn note_case_lost(&self) {
        self.told_plainly(self.cases.note_lost());
    }

    fn told_plainly(&self, is_new: bool) {
        if is_new {
            tracing::info!(
                upstream = %self.address,
                "the upstream does not support names in random case: asked in lower case for an hour"
            );
        }
    }

    /// What it makes of EDNS.
    pub(super) fn edns(&self) -> &Capability {
        &self.edns
    }

    /// It said without EDNS what it refused with it.
    pub(super) fn note_edns_refused(&self) {
        self.told_without_edns(self.edns.note_refused());
    }

    /// It answered without EDNS only.
    pub(super) fn note_edns_silent(&self) {
        self.told_without_edns(self.edns.note_timeout());
    }

    fn told_without_edns(&self, is_new: bool) {
        if is_new {
            tracing::info!(upstream = %self.address, "the upstream does not support EDNS: asked without it for an hour");
        }
    }
}
