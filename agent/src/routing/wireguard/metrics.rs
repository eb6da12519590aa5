//! What is counted of the encrypted tunnel: when each node behind it was heard last.

use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// When the last handshake with each node was complete; none where there was none yet.
pub(crate) type Handshakes = BTreeMap<String, Option<SystemTime>>;

/// Which node.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Peer {
    node: String,
}

/// The figures.
#[derive(Clone, Debug, Default)]
pub(crate) struct Metrics(Family<Peer, Gauge>);

impl Metrics {
    pub(crate) fn new(registry: &mut Registry) -> Metrics {
        let metrics = Metrics::default();
        let help =
            "When the last WireGuard handshake with a node was complete, in seconds since 1970; 0 for never";
        registry.register("wireguard_last_handshake_timestamp_seconds", help, metrics.0.clone());
        metrics
    }

    pub(crate) fn set(&self, handshakes: &Handshakes) {
        self.0.clear();
        for (node, last) in handshakes {
            let since = last.and_then(|last| last.duration_since(UNIX_EPOCH).ok()).unwrap_or_default();
            let seconds = i64::try_from(since.as_secs()).unwrap_or(i64::MAX);
            self.0.get_or_create(&Peer { node: node.clone() }).set(seconds);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::metrics;

    #[test]
    fn a_node_that_is_no_peer_any_more_has_no_figure() {
        let mut registry = metrics::registry();
        let figures = Metrics::new(&mut registry);
        let heard = Some(UNIX_EPOCH + Duration::from_secs(1_790_000_000));
        figures.set(&[("node2".to_owned(), heard), ("node3".to_owned(), None)].into());
        let name = "weft_agent_wireguard_last_handshake_timestamp_seconds";
        let text = metrics::text(&registry);
        assert!(text.contains(&format!("{name}{{node=\"node2\"}} 1790000000\n")), "{text}");
        assert!(text.contains(&format!("{name}{{node=\"node3\"}} 0\n")), "{text}");
        figures.set(&[("node2".to_owned(), None)].into());
        let text = metrics::text(&registry);
        assert!(!text.contains("node3") && text.contains("{node=\"node2\"} 0\n"), "{text}");
    }
}
