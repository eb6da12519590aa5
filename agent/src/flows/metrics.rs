//! What is counted of flows, while they are looked at.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

use super::memory::Seen;

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Label {
    event: &'static str,
}

/// The counters.
#[derive(Debug)]
pub(super) struct Metrics {
    begun: Counter,
    ended: Counter,
    asked: Counter,
    pub(super) denied: Counter,
    pub(super) overruns: Counter,
}

impl Metrics {
    pub(super) fn new(registry: &mut Registry) -> Metrics {
        let events = Family::<Label, Counter>::default();
        let of = |event| events.get_or_create(&Label { event }).clone();
        let metrics = Metrics {
            begun: of("begins"),
            ended: of("ends"),
            asked: of("asked"),
            denied: of("denied"),
            overruns: Counter::default(),
        };
        registry.register("flow_events", "What was seen of flows, while somebody asked for them", events);
        let help = "How often the kernel could not tell of all flows (ENOBUFS)";
        registry.register("flow_overruns", help, metrics.overruns.clone());
        metrics
    }

    pub(super) fn count(&self, seen: &[Seen]) {
        let (mut begun, mut ended, mut asked) = (0, 0, 0);
        for one in seen {
            match one {
                Seen::Connection(connection) if connection.end.is_some() => ended += 1,
                Seen::Connection(_) => begun += 1,
                Seen::Question(_) => asked += 1,
            }
        }
        self.begun.inc_by(begun);
        self.ended.inc_by(ended);
        self.asked.inc_by(asked);
    }
}
