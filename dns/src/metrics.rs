//! What is counted, under the names that CoreDNS has for the same things, so that its dashboards work. What every
//! question and answer adds to is in [`traffic`]; how the numbers reach a scraper in [`crate::http`].

mod traffic;

pub use traffic::{Source, Tally};

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use hickory_proto::op::Message;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

use crate::forward::{Origin, is_negative};
use crate::metrics::traffic::Traffic;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct HitLabels {
    r#type: &'static str,
}

/// All numbers of the server.
pub struct Metrics {
    registry: Registry,
    traffic: Arc<Traffic>,
    cache_requests: Counter,
    cache_hits: Family<HitLabels, Counter>,
    cache_stale: Counter,
    cache_entries: Gauge,
    shed: Counter,
    dropped: Counter,
    compilations: Histogram,
    services: Gauge,
}

impl Metrics {
    /// Fresh numbers. `port` is where clients ask, `zone` the cluster's domain with its last dot.
    pub fn new(port: u16, zone: &str) -> Metrics {
        let server = [("server", format!("dns://:{port}")), ("view", String::new())];
        let server = server.map(|(name, value)| (Cow::Borrowed(name), Cow::Owned(value)));
        let mut metrics = Metrics {
            registry: Registry::with_labels(server.into_iter()),
            traffic: Arc::new(Traffic::new(zone)),
            cache_requests: Counter::default(),
            cache_hits: Family::default(),
            cache_stale: Counter::default(),
            cache_entries: Gauge::default(),
            shed: Counter::default(),
            dropped: Counter::default(),
            compilations: Histogram::new(exponential_buckets(0.0001, 2.0, 14)),
            services: Gauge::default(),
        };
        metrics.register();
        metrics
    }

    fn register(&mut self) {
        // The encoder appends `_total` to the names of counters, and the last dot to the help.
        let registry = &mut self.registry;
        registry.register_collector(Box::new(self.traffic.clone()));
        registry.register("coredns_cache_requests", "Questions to the cache", self.cache_requests.clone());
        registry.register("coredns_cache_hits", "Answers from the cache", self.cache_hits.clone());
        let stale = "Answers from the cache past their time";
        registry.register("coredns_cache_served_stale", stale, self.cache_stale.clone());
        registry.register("coredns_cache_entries", "Messages in the cache", self.cache_entries.clone());
        let shed = "Questions refused because too many wait for upstreams";
        registry.register("coredns_forward_max_concurrent_rejects", shed, self.shed.clone());
        let dropped = "Datagrams dropped because too many wait for the full lane";
        registry.register("weft_dns_full_lane_dropped", dropped, self.dropped.clone());
        let compiled = "From a change of the cluster to the zone that holds it";
        registry.register("weft_dns_zone_compile_duration_seconds", compiled, self.compilations.clone());
        registry.register("weft_dns_zone_services", "Services with names", self.services.clone());
    }

    /// Numbers of questions and answers for one who counts alone.
    pub fn tally(&self) -> Tally {
        self.traffic.tally()
    }

    /// An upstream's answer was had; the cache now holds `entries`.
    pub fn forwarded(&self, message: &Message, origin: Origin, entries: usize) {
        self.cache_requests.inc();
        self.cache_entries.set(entries as i64);
        let r#type = if is_negative(message) { "denial" } else { "success" };
        match origin {
            Origin::Upstream => {}
            Origin::Cache => {
                self.cache_hits.get_or_create(&HitLabels { r#type }).inc();
            }
            Origin::Stale => {
                self.cache_stale.inc();
            }
        }
    }

    /// A question was refused, because too many wait.
    pub fn shed(&self) {
        self.shed.inc();
    }

    /// A datagram was dropped, because the full lane has no room.
    pub fn dropped(&self) {
        self.dropped.inc();
    }

    /// A zone with so many Services is in place, so long after the change was known.
    pub fn compiled(&self, services: usize, duration: Duration) {
        self.services.set(services as i64);
        self.compilations.observe(duration.as_secs_f64());
    }

    /// All numbers in the OpenMetrics text format.
    pub fn text(&self) -> String {
        let mut text = String::new();
        // Writing to a String cannot fail.
        let _ = encode(&mut text, &self.registry);
        text
    }
}
