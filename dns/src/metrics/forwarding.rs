//! What forwarding and its cache count. Names of domains asked for are never labels: a stranger must not be
//! able to invent them; upstreams are few, and named by those who set the server up.

use std::net::SocketAddr;
use std::sync::OnceLock;
use std::time::Duration;

use hickory_proto::op::ResponseCode;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

use crate::wire::format::mnemonic;

/// The domain that the cache serves, as CoreDNS writes it.
const ZONES: &str = ".";
/// The plugin that asks, as CoreDNS names it.
const FORWARD: &str = "forward";

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Zones {
    zones: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Kind {
    r#type: &'static str,
    zones: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct To {
    proxy_name: &'static str,
    to: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Exchange {
    proxy_name: &'static str,
    to: String,
    rcode: String,
}

/// The numbers.
#[derive(Default)]
pub struct Forwarding {
    requests: Family<Zones, Counter>,
    hits: Family<Kind, Counter>,
    /// Each of the above is looked up once only: these count often.
    requests_at_hand: OnceLock<Counter>,
    hits_at_hand: [OnceLock<Counter>; 2],
    misses: Family<Zones, Counter>,
    stale: Family<Zones, Counter>,
    prefetches: Family<Zones, Counter>,
    evictions: Family<Kind, Counter>,
    entries: Family<Kind, Gauge>,
    exchanges: Exchanges,
    probe_failures: Family<To, Counter>,
    all_down: Counter,
    hedges: Counter,
    coalesced: Counter,
    private: Counter,
}

/// Durations by upstream and code.
struct Exchanges(Family<Exchange, Histogram, fn() -> Histogram>);

impl Default for Exchanges {
    fn default() -> Exchanges {
        // As CoreDNS cuts them: from 0.25 ms on, each twice the one before.
        Exchanges(Family::new_with_constructor(|| Histogram::new(exponential_buckets(0.00025, 2.0, 16))))
    }
}

impl Forwarding {
    /// Makes the numbers known to a scraper. The encoder appends `_total` to the names of counters, and the
    /// last dot to the help.
    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register("coredns_cache_requests", "Queries to the cache", self.requests.clone());
        registry.register("coredns_cache_hits", "Answers from the cache", self.hits.clone());
        registry.register("coredns_cache_misses", "Cache misses", self.misses.clone());
        let stale = "Stale answers served from the cache";
        registry.register("coredns_cache_served_stale", stale, self.stale.clone());
        let prefetch = "Answers prefetched before they expired";
        registry.register("coredns_cache_prefetch", prefetch, self.prefetches.clone());
        let evictions = "Messages evicted from the cache";
        registry.register("coredns_cache_evictions", evictions, self.evictions.clone());
        registry.register("coredns_cache_entries", "Messages in the cache", self.entries.clone());
        let exchanges = "From a query to an upstream to its response";
        registry.register("coredns_proxy_request_duration_seconds", exchanges, self.exchanges.0.clone());
        let probes = "Probes that an upstream did not answer";
        registry.register("coredns_proxy_healthcheck_failures", probes, self.probe_failures.clone());
        let broken = "Queries while all upstreams were unhealthy";
        registry.register("coredns_forward_healthcheck_broken", broken, self.all_down.clone());
        let hedges = "Hedged queries: sent to another upstream while the first was slow";
        registry.register("weft_dns_upstream_hedges", hedges, self.hedges.clone());
        let coalesced = "Queries that shared the answer to an equal query in flight";
        registry.register("weft_dns_questions_coalesced", coalesced, self.coalesced.clone());
        let private = "Queries for special-use names, which are not forwarded";
        registry.register("weft_dns_private_names", private, self.private.clone());
    }

    /// The cache had an answer that holds.
    pub fn hit(&self, negative: bool) {
        let hits = &self.hits_at_hand[usize::from(negative)];
        hits.get_or_init(|| self.hits.get_or_create(&kind(negative)).clone()).inc();
        self.requested();
    }

    /// The cache had no answer, and an upstream gave one.
    pub fn missed(&self) {
        self.misses.get_or_create(&Zones { zones: ZONES }).inc();
        self.requested();
    }

    /// The cache had an answer past its time, and no upstream gave a better one.
    pub fn served_stale(&self) {
        self.stale.get_or_create(&Zones { zones: ZONES }).inc();
        self.requested();
    }

    /// A special-use name was answered here.
    pub fn special_use(&self) {
        self.private.inc();
    }

    fn requested(&self) {
        let zones = Zones { zones: ZONES };
        self.requests_at_hand.get_or_init(|| self.requests.get_or_create(&zones).clone()).inc();
    }

    /// The cache holds so many positive answers and denials, and so many made room so far.
    pub fn cached(&self, [positive, negative]: [usize; 2], evictions: u64) {
        self.entries.get_or_create(&kind(false)).set(positive as i64);
        self.entries.get_or_create(&kind(true)).set(negative as i64);
        let evicted = self.evictions.get_or_create(&kind(false));
        evicted.inc_by(evictions.saturating_sub(evicted.get()));
    }

    /// An answer is asked for before it ends.
    pub fn prefetched(&self) {
        self.prefetches.get_or_create(&Zones { zones: ZONES }).inc();
    }

    /// An upstream answered so.
    pub fn exchanged(&self, upstream: SocketAddr, code: ResponseCode, took: Duration) {
        let labels = Exchange { proxy_name: FORWARD, to: upstream.to_string(), rcode: mnemonic(code) };
        self.exchanges.0.get_or_create(&labels).observe(took.as_secs_f64());
    }

    /// An upstream did not answer a probe.
    pub fn probe_failed(&self, upstream: SocketAddr) {
        let labels = To { proxy_name: FORWARD, to: upstream.to_string() };
        self.probe_failures.get_or_create(&labels).inc();
    }

    /// A query is asked though no upstream is known to answer.
    pub fn all_down(&self) {
        self.all_down.inc();
    }

    /// A second upstream is asked beside the first.
    pub fn hedged(&self) {
        self.hedges.inc();
    }

    /// A query waits for the answer to an equal one.
    pub fn coalesced(&self) {
        self.coalesced.inc();
    }
}

fn kind(negative: bool) -> Kind {
    Kind { r#type: if negative { "denial" } else { "success" }, zones: ZONES }
}
