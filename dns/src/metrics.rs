//! What is counted, under the names that CoreDNS has for the same things, so that its dashboards work. What
//! every query and answer adds to is in [`traffic`], what forwarding does in [`forwarding`]; how the numbers
//! reach a scraper in [`crate::daemon::http`].

mod forwarding;
mod traffic;

pub use forwarding::Forwarding;
pub use traffic::{Source, Tally};

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

use crate::metrics::traffic::Traffic;

/// What became of a query beyond the limit of its client.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Fate {
    fate: &'static str,
}

/// As CoreDNS tells Services apart.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ServiceKind {
    service_kind: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Version {
    version: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Plugin {
    zone: &'static str,
    name: &'static str,
}

fn build_info() -> Family<Version, Gauge> {
    let family = Family::<Version, Gauge>::default();
    family.get_or_create(&Version { version: env!("CARGO_PKG_VERSION") }).set(1);
    family
}

/// All numbers of the server.
pub struct Metrics {
    registry: Registry,
    traffic: Arc<Traffic>,
    forwarding: Forwarding,
    shed: Counter,
    dropped: Counter,
    limited: Family<Fate, Counter>,
    unlogged: Counter,
    programming: Family<ServiceKind, Histogram, fn() -> Histogram>,
    completed: Counter,
    compilations: Histogram,
    freshness: Histogram,
    services: Gauge,
    plugins: Family<Plugin, Gauge>,
    reload_failures: Counter,
    refused: Gauge,
}

impl Metrics {
    /// Fresh numbers. `port` is where clients ask, `zone` the cluster's domain with its last dot.
    pub fn new(port: u16, zone: &str) -> Metrics {
        let server = [("server", format!("dns://:{port}")), ("view", String::new())];
        let server = server.map(|(name, value)| (Cow::Borrowed(name), Cow::Owned(value)));
        let mut metrics = Metrics {
            registry: Registry::with_labels(server.into_iter()),
            traffic: Arc::new(Traffic::new(zone)),
            forwarding: Forwarding::default(),
            shed: Counter::default(),
            dropped: Counter::default(),
            limited: Family::default(),
            unlogged: Counter::default(),
            programming: Family::new_with_constructor(|| Histogram::new(exponential_buckets(0.001, 2.0, 20))),
            completed: Counter::default(),
            compilations: Histogram::new(exponential_buckets(0.0001, 2.0, 14)),
            freshness: Histogram::new(exponential_buckets(0.0001, 2.0, 14)),
            services: Gauge::default(),
            plugins: Family::default(),
            reload_failures: Counter::default(),
            refused: Gauge::default(),
        };
        metrics.register();
        metrics
    }

    fn register(&mut self) {
        // The encoder appends `_total` to the names of counters, and the last dot to the help.
        let registry = &mut self.registry;
        registry.register_collector(Box::new(self.traffic.clone()));
        self.forwarding.register(registry);
        let shed = "Queries refused because too many wait for upstreams";
        registry.register("coredns_forward_max_concurrent_rejects", shed, self.shed.clone());
        let dropped = "Datagrams dropped because too many wait for the full lane";
        registry.register("weft_dns_full_lane_dropped", dropped, self.dropped.clone());
        let limited = "Queries beyond the rate limit of their client";
        registry.register("weft_dns_client_limited", limited, self.limited.clone());
        let unlogged = "Responses that the query log had no room for";
        registry.register("weft_dns_query_log_lost", unlogged, self.unlogged.clone());
        let programming =
            "From the change in the cluster that made a Service's endpoints change to answers that have it";
        let name = "coredns_kubernetes_dns_programming_duration_seconds";
        registry.register(name, programming, self.programming.clone());
        registry.register("coredns_build_info", "The version, in a label", build_info());
        // A panic ends the process, and so is never seen here: the metric is there for those who watch it.
        registry.register("coredns_panics", "Panics that the server outlived", Counter::<u64>::default());
        let plugins = "What of CoreDNS's plugins has its like here";
        registry.register("coredns_plugin_enabled", plugins, self.plugins.clone());
        let failures = "Changes of the Corefile that were refused: what was there before goes on";
        registry.register("coredns_reload_failed", failures, self.reload_failures.clone());
        let refused = "Whether the Corefile as it stands is refused, and an older one is in force";
        registry.register("weft_dns_corefile_refused", refused, self.refused.clone());
        let completed = "Queries answered with the result of the whole search list";
        registry.register("coredns_autopath_success", completed, self.completed.clone());
        let compiled = "How long the zone of a change took to compile";
        registry.register("weft_dns_zone_compile_duration_seconds", compiled, self.compilations.clone());
        let freshness = "From the event that tells of a change to answers that have it";
        registry.register("weft_dns_event_to_answer_duration_seconds", freshness, self.freshness.clone());
        registry.register("weft_dns_zone_services", "Services with names", self.services.clone());
    }

    /// Numbers of queries and answers for one who counts alone.
    pub fn tally(&self) -> Tally {
        self.traffic.tally()
    }

    /// How many queries came.
    pub fn asked(&self) -> u64 {
        self.traffic.asked()
    }

    /// What forwarding counts.
    pub fn forwarding(&self) -> &Forwarding {
        &self.forwarding
    }

    /// The server does what CoreDNS's plugin of that name does.
    pub fn enabled(&self, name: &'static str) {
        self.plugins.get_or_create(&Plugin { zone: ".", name }).set(1);
    }

    /// A changed Corefile was refused; or it was taken.
    pub fn reloaded(&self, taken: bool) {
        self.refused.set(i64::from(!taken));
        if !taken {
            self.reload_failures.inc();
        }
    }

    /// A query was refused, because too many wait.
    pub fn shed(&self) {
        self.shed.inc();
    }

    /// A datagram was dropped, because the full lane has no room.
    pub fn dropped(&self) {
        self.dropped.inc();
    }

    /// A query was beyond the limit of its client: it got a truncated answer, or none.
    pub fn limited(&self, truncated: bool) {
        let fate = Fate { fate: if truncated { "truncated" } else { "dropped" } };
        self.limited.get_or_create(&fate).inc();
    }

    /// Counts answers that came too fast for the query log.
    pub fn unlogged(&self) -> Counter {
        self.unlogged.clone()
    }

    /// What happened in the cluster that long ago, and made the endpoints of headless Services change, is
    /// answered by now.
    pub fn programmed(&self, ago: Duration) {
        let kind = ServiceKind { service_kind: "headless_with_selector" };
        self.programming.get_or_create(&kind).observe(ago.as_secs_f64());
    }

    /// A query was answered with what the pod's resolver would have found at the end of its search.
    pub fn completed(&self) {
        self.completed.inc();
    }

    /// A zone with so many Services is in place. It took so long to compile; the first event of its changes
    /// came so long ago.
    pub fn compiled(&self, services: usize, took: Duration, since_event: Duration) {
        self.services.set(services as i64);
        self.compilations.observe(took.as_secs_f64());
        self.freshness.observe(since_event.as_secs_f64());
    }

    /// All numbers in the OpenMetrics text format.
    pub fn text(&self) -> String {
        let mut text = String::new();
        // Writing to a String cannot fail.
        let _ = encode(&mut text, &self.registry);
        text
    }
}
