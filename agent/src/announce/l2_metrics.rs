//! What is counted of load balancer addresses on links, and of BFD.

use std::sync::atomic::{AtomicU64, Ordering};

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use weft_announce::bfd::packet::State;
use weft_announce::bfd::service::Bfd;
use weft_announce::l2::service::L2;

/// The figures. Those of threads are taken over in each round.
#[derive(Clone, Debug, Default)]
pub(super) struct Metrics {
    addresses: Gauge,
    answers: Counter,
    announcements: Counter,
    takeovers: Counter,
    claims: Counter,
    sessions: Gauge,
    sessions_up: Gauge,
    sessions_lost: Counter,
    discarded: Counter,
}

impl Metrics {
    /// All at zero.
    pub(super) fn new(registry: &mut Registry) -> Metrics {
        let metrics = Metrics::default();
        let mut gauge = |name: &str, help: &str, it: &Gauge| registry.register(name, help, it.clone());
        gauge("l2_addresses", "Load balancer addresses that this node answers for", &metrics.addresses);
        gauge("bfd_sessions", "Peers that BFD watches", &metrics.sessions);
        gauge("bfd_sessions_up", "Peers that BFD hears", &metrics.sessions_up);
        let mut counter = |name: &str, help: &str, it: &Counter| registry.register(name, help, it.clone());
        counter("l2_answers", "Answers to ARP and neighbor solicitations", &metrics.answers);
        counter("l2_announcements", "Announcements that nobody asked for", &metrics.announcements);
        counter("l2_takeovers", "Addresses that this node took over", &metrics.takeovers);
        counter("l2_claims", "Claims of others to an address of this node", &metrics.claims);
        counter("bfd_sessions_lost", "Sessions that were up and went down", &metrics.sessions_lost);
        counter(
            "bfd_packets_discarded",
            "Packets to the ports of BFD that were for nobody",
            &metrics.discarded,
        );
        metrics
    }

    /// Takes over what was counted.
    pub(super) fn update(&self, l2: &L2, bfd: &Bfd) {
        let count = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        let health = bfd.health();
        self.addresses.set(count(l2.report().ours.len()));
        self.sessions.set(count(health.len()));
        self.sessions_up.set(count(health.values().filter(|it| it.state == State::Up).count()));
        let (spoken, heard) = (l2.counters(), bfd.counters());
        for (counter, counted) in [
            (&self.answers, &spoken.answers),
            (&self.announcements, &spoken.announcements),
            (&self.takeovers, &spoken.takeovers),
            (&self.claims, &spoken.claims),
            (&self.sessions_lost, &heard.lost),
            (&self.discarded, &heard.discarded),
        ] {
            catch_up(counter, counted);
        }
    }
}

fn catch_up(counter: &Counter, counted: &AtomicU64) {
    counter.inc_by(counted.load(Ordering::Relaxed).saturating_sub(counter.get()));
}
