//! What the daemon counts of its rounds, in Prometheus' words. Subsystems register what they count
//! themselves. The text is served by `health`.

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;

/// The figures of the rounds.
#[derive(Clone, Debug)]
pub(crate) struct Metrics {
    /// Whether pods can start on this node.
    pub(crate) ready: Gauge,
    /// How many things are wrong.
    pub(crate) problems: Gauge,
    /// How long bringing the node to the plan took.
    pub(crate) seconds: Histogram,
}

/// A registry of the agent's figures, empty but for its version.
pub(crate) fn registry() -> Registry {
    let mut registry = Registry::with_prefix("weft_agent");
    let version = Info::new(vec![("version", env!("CARGO_PKG_VERSION"))]);
    registry.register("build", "The agent's version", version);
    registry
}

impl Metrics {
    /// All at zero.
    pub(crate) fn new(registry: &mut Registry) -> Metrics {
        let (ready, problems) = (Gauge::default(), Gauge::default());
        // 0.1 ms to 3 s
        let seconds = Histogram::new(exponential_buckets(0.0001, 2.0, 16));
        registry.register("ready", "Whether pods can start on this node", ready.clone());
        registry.register("problems", "How many things are wrong; /healthz names them", problems.clone());
        let help = "How long bringing the node to the plan took";
        registry.register("reconcile_duration_seconds", help, seconds.clone());
        Metrics { ready, problems, seconds }
    }
}

/// The text that Prometheus reads.
pub(crate) fn text(registry: &Registry) -> String {
    let mut text = String::new();
    // Writing into a string never fails.
    let _ = encode(&mut text, registry);
    text
}
