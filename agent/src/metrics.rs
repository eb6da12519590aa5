//! What the agent counts, in Prometheus' words. The text is served by `health`.

use std::sync::Arc;

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;

/// The counters; clones count together.
#[derive(Clone, Debug)]
pub(crate) struct Metrics {
    /// Whether pods can start on this node.
    pub(crate) ready: Gauge,
    /// How many things are wrong.
    pub(crate) problems: Gauge,
    /// How long bringing the node to the plan took.
    pub(crate) seconds: Histogram,
    /// Attachments that were freed because their sandboxes were gone.
    pub(crate) collected: Counter,
    /// What the plugin had made and somebody deleted, put back.
    pub(crate) repaired: Counter,
    /// Ranges of other nodes' pods that are reached straight, and through the tunnel.
    pub(crate) straight: Gauge,
    pub(crate) tunnelled: Gauge,
    registry: Arc<Registry>,
}

impl Metrics {
    /// All at zero.
    pub(crate) fn new() -> Metrics {
        let (ready, problems, collected) = (Gauge::default(), Gauge::default(), Counter::default());
        // 0.1 ms to 3 s
        let seconds = Histogram::new(exponential_buckets(0.0001, 2.0, 16));
        let mut registry = Registry::with_prefix("weft_agent");
        registry.register("ready", "Whether pods can start on this node", ready.clone());
        registry.register("problems", "How many things are wrong; /healthz names them", problems.clone());
        let help = "How long bringing the node to the plan took";
        registry.register("reconcile_duration_seconds", help, seconds.clone());
        let help = "Attachments freed because their sandboxes were gone";
        registry.register("collected_attachments", help, collected.clone());
        let (repaired, help) =
            (Counter::default(), "Things put back that the plugin had made for running pods");
        registry.register("repairs", help, repaired.clone());
        let (straight, tunnelled) = (Gauge::default(), Gauge::default());
        registry.register(
            "straight_ranges",
            "Other nodes' pod CIDRs that are reached straight",
            straight.clone(),
        );
        let help = "Other nodes' pod CIDRs that are reached through the tunnel";
        registry.register("tunnelled_ranges", help, tunnelled.clone());
        let version = Info::new(vec![("version", env!("CARGO_PKG_VERSION"))]);
        registry.register("build", "The agent's version", version);
        Metrics {
            ready,
            problems,
            seconds,
            collected,
            repaired,
            straight,
            tunnelled,
            registry: Arc::new(registry),
        }
    }

    /// The text that Prometheus reads.
    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        // Writing into a string never fails.
        let _ = encode(&mut text, &self.registry);
        text
    }
}
