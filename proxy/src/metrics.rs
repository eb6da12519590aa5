//! The proxy's numbers, under kube-proxy's names where they mean the same.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

use crate::sync::Outcome;

/// All numbers, and the text that scrapers get.
pub struct Metrics {
    registry: Registry,
    all: Histogram,
    full: Histogram,
    partial: Histogram,
    last: Gauge,
    changes: Counter,
    failures: Counter,
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

impl Default for Metrics {
    fn default() -> Self {
        // From 0.1 ms to 26 s.
        let histogram = || Histogram::new(exponential_buckets(0.0001, 4.0, 10));
        let metrics = Metrics {
            registry: Registry::with_prefix("kubeproxy"),
            all: histogram(),
            full: histogram(),
            partial: histogram(),
            last: Gauge::default(),
            changes: Counter::default(),
            failures: Counter::default(),
        };
        metrics.registered()
    }
}

impl Metrics {
    fn registered(mut self) -> Self {
        let registry = &mut self.registry;
        let durations = [
            ("sync_proxy_rules_duration_seconds", "Time from a change to its commit", &self.all),
            ("sync_full_proxy_rules_duration_seconds", "The same, where everything was compared", &self.full),
            ("sync_partial_proxy_rules_duration_seconds", "The same, where only changes were", &self.partial),
        ];
        for (name, help, histogram) in durations {
            registry.register(name, help, histogram.clone());
        }
        registry.register(
            "sync_proxy_rules_last_timestamp_seconds",
            "When the kernel was last in step",
            self.last.clone(),
        );
        registry.register(
            "sync_proxy_rules_service_changes",
            "Services that changed, or whose endpoints did",
            self.changes.clone(),
        );
        registry.register("sync_proxy_rules_failures", "Changes that failed", self.failures.clone());
        self
    }

    /// The kernel is in step after that many Services changed.
    pub fn synced(&self, outcome: Outcome, services: usize, took: Duration) {
        let (seconds, now) = (took.as_secs_f64(), SystemTime::now().duration_since(UNIX_EPOCH));
        self.all.observe(seconds);
        match outcome {
            Outcome::Full => self.full.observe(seconds),
            Outcome::Partial => self.partial.observe(seconds),
        }
        self.last.set(now.map_or(0, |since| since.as_secs() as i64));
        self.changes.inc_by(services as u64);
    }

    /// The kernel could not be brought into step.
    pub fn failed(&self) {
        self.failures.inc();
    }

    /// OpenMetrics text.
    pub fn text(&self) -> String {
        let mut text = String::new();
        // Writing to a String does not fail.
        let _ = encode(&mut text, &self.registry);
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_kube_proxys_names() {
        let metrics = Metrics::default();
        metrics.synced(Outcome::Partial, 3, Duration::from_millis(2));
        metrics.failed();
        let text = metrics.text();
        for line in [
            "kubeproxy_sync_proxy_rules_duration_seconds_count 1",
            "kubeproxy_sync_full_proxy_rules_duration_seconds_count 0",
            "kubeproxy_sync_partial_proxy_rules_duration_seconds_count 1",
            "kubeproxy_sync_proxy_rules_service_changes_total 3",
            "kubeproxy_sync_proxy_rules_failures_total 1",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        }
    }
}
