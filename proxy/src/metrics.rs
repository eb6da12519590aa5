//! The proxy's numbers, under kube-proxy's names where they mean the same.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use prometheus_client::encoding::text::{encode_eof, encode_registry};
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family as ByLabel;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;
use weft_types::{ChangeSet, Family};

use crate::counters::Reading;
use crate::kube_proxy::metric_names as names;
use crate::sync::Outcome;

mod services;

/// All numbers, and the text that scrapers get.
pub struct Metrics {
    registry: Registry,
    all: Histogram,
    full: Histogram,
    partial: Histogram,
    last: Gauge,
    queued: Gauge,
    changes: Counter,
    pending: Gauge,
    endpoint_changes: Counter,
    endpoint_pending: Gauge,
    programming: Histogram,
    no_local: ByLabel<TrafficPolicy, Gauge>,
    led: Gauge,
    failures: Counter,
    probes: [ByLabel<Code, Counter>; 2],
    flows: ByLabel<IpFamily, Counter>,
    reconciliations: ByLabel<IpFamily, Histogram, fn() -> Histogram>,
}

/// Which of the probes was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Probe {
    /// `/healthz`
    Healthz,
    /// `/livez`
    Livez,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Code {
    code: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TrafficPolicy {
    traffic_policy: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct IpFamily {
    ip_family: FamilyName,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
enum FamilyName {
    IPv4,
    IPv6,
}

impl From<Family> for FamilyName {
    fn from(family: Family) -> Self {
        match family {
            Family::V4 => FamilyName::IPv4,
            Family::V6 => FamilyName::IPv6,
        }
    }
}

impl From<Family> for IpFamily {
    fn from(family: Family) -> Self {
        IpFamily { ip_family: family.into() }
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

/// From 0.1 ms to 26 s.
fn durations() -> Histogram {
    Histogram::new(exponential_buckets(0.0001, 4.0, 10))
}

/// kube-proxy's, from a quarter of a second to five minutes.
fn programming_durations() -> Histogram {
    let seconds = (1..60).map(f64::from).chain((60..120).step_by(5).map(f64::from));
    let minutes = (120..=300).step_by(30).map(f64::from);
    Histogram::new([0.25, 0.5].into_iter().chain(seconds).chain(minutes))
}

impl Default for Metrics {
    fn default() -> Self {
        let metrics = Metrics {
            registry: Registry::with_prefix(names::PREFIX),
            all: durations(),
            full: durations(),
            partial: durations(),
            last: Gauge::default(),
            queued: Gauge::default(),
            changes: Counter::default(),
            pending: Gauge::default(),
            endpoint_changes: Counter::default(),
            endpoint_pending: Gauge::default(),
            programming: programming_durations(),
            no_local: ByLabel::default(),
            led: Gauge::default(),
            failures: Counter::default(),
            probes: Default::default(),
            flows: ByLabel::default(),
            reconciliations: ByLabel::new_with_constructor(durations),
        };
        metrics.registered()
    }
}

impl Metrics {
    fn registered(mut self) -> Self {
        let registry = &mut self.registry;
        for (name, help, histogram) in [
            (names::SYNC_PROXY_RULES_DURATION_SECONDS, "Time from a change to its commit", &self.all),
            (
                names::SYNC_FULL_PROXY_RULES_DURATION_SECONDS,
                "The same, where everything was compared",
                &self.full,
            ),
            (
                names::SYNC_PARTIAL_PROXY_RULES_DURATION_SECONDS,
                "The same, where only changes were",
                &self.partial,
            ),
            (
                names::NETWORK_PROGRAMMING_DURATION_SECONDS,
                "Time from what made endpoints change in the cluster to its commit",
                &self.programming,
            ),
        ] {
            registry.register(name, help, histogram.clone());
        }
        for (name, help, gauge) in [
            (names::SYNC_PROXY_RULES_LAST_TIMESTAMP_SECONDS, "When the kernel was last in step", &self.last),
            (
                names::SYNC_PROXY_RULES_LAST_QUEUED_TIMESTAMP_SECONDS,
                "When the last change came",
                &self.queued,
            ),
            (
                names::SYNC_PROXY_RULES_SERVICE_CHANGES_PENDING,
                "Services not in the kernel yet",
                &self.pending,
            ),
            (
                names::SYNC_PROXY_RULES_ENDPOINT_CHANGES_PENDING,
                "EndpointSlices not in the kernel yet",
                &self.endpoint_pending,
            ),
            (names::EBPF_FRONTENDS, "Addresses and ports from which eBPF leads sockets", &self.led),
        ] {
            registry.register(name, help, gauge.clone());
        }
        for (name, help, counter) in [
            (
                names::SYNC_PROXY_RULES_ENDPOINT_CHANGES,
                "EndpointSlices that came, went or changed",
                &self.endpoint_changes,
            ),
            (
                names::SYNC_PROXY_RULES_SERVICE_CHANGES,
                "Services that changed, or whose endpoints did",
                &self.changes,
            ),
            (names::SYNC_PROXY_RULES_NFTABLES_SYNC_FAILURES, "Changes that failed", &self.failures),
        ] {
            registry.register(name, help, counter.clone());
        }
        self.register_labelled();
        self
    }

    fn register_labelled(&mut self) {
        let [healthz, livez] = self.probes.clone();
        let registry = &mut self.registry;
        registry.register(names::PROXY_HEALTHZ, "Answers of /healthz by status code", healthz);
        registry.register(
            names::SYNC_PROXY_RULES_NO_LOCAL_ENDPOINTS_TOTAL,
            "Services whose traffic policy is Local and that have endpoints on other nodes only",
            self.no_local.clone(),
        );
        registry.register(names::PROXY_LIVEZ, "Answers of /livez by status code", livez);
        registry.register(
            names::CONNTRACK_RECONCILER_DELETED_ENTRIES,
            "Stale connections that were ended",
            self.flows.clone(),
        );
        registry.register(
            names::CONNTRACK_RECONCILER_SYNC_DURATION_SECONDS,
            "Time to find and end them",
            self.reconciliations.clone(),
        );
    }

    /// That changed.
    pub fn queued(&self, changes: &ChangeSet) {
        self.queued.set(unix_time());
        self.changes.inc_by(changes.services.len() as u64);
        self.pending.inc_by(changes.services.len() as i64);
        self.endpoint_changes.inc_by(changes.endpoint_slices as u64);
        self.endpoint_pending.inc_by(changes.endpoint_slices as i64);
    }

    /// The kernel is in step with all that came.
    pub fn synced(&self, outcome: Outcome, took: Duration) {
        let seconds = took.as_secs_f64();
        self.all.observe(seconds);
        match outcome {
            Outcome::Full => self.full.observe(seconds),
            Outcome::Partial => self.partial.observe(seconds),
        }
        self.last.set(unix_time());
        self.pending.set(0);
        self.endpoint_pending.set(0);
    }

    /// What made endpoints change so long ago is in the kernel.
    pub fn programmed(&self, took: Duration) {
        self.programming.observe(took.as_secs_f64());
    }

    /// So many Services have endpoints, but none on this node, where their policy wants one.
    pub fn without_local_endpoints(&self, internal: usize, external: usize) {
        for (traffic_policy, count) in [("internal", internal), ("external", external)] {
            self.no_local.get_or_create(&TrafficPolicy { traffic_policy }).set(count as i64);
        }
    }

    /// Programs lead sockets from so many frontends.
    pub fn led_by_programs(&self, frontends: usize) {
        self.led.set(frontends as i64);
    }

    /// The kernel could not be brought into step.
    pub fn failed(&self) {
        self.failures.inc();
    }

    /// A probe was answered with that status code.
    pub fn probed(&self, probe: Probe, code: u16) {
        self.probes[probe as usize].get_or_create(&Code { code }).inc();
    }

    /// Stale flows of a family were looked for, and that many were ended.
    pub fn reconciled(&self, family: Family, ended: usize, took: Duration) {
        self.flows.get_or_create(&family.into()).inc_by(ended as u64);
        self.reconciliations.get_or_create(&family.into()).observe(took.as_secs_f64());
    }

    /// OpenMetrics text, with what was counted for each Service.
    pub fn text(&self, services: &[Reading]) -> String {
        let mut text = String::new();
        // Writing to a String does not fail.
        let _ = encode_registry(&mut text, &self.registry);
        text += &services::text(services);
        let _ = encode_eof(&mut text);
        text
    }
}

fn unix_time() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs() as i64)
}

#[cfg(test)]
mod tests {
    use weft_types::NamespacedName;

    use super::*;

    #[test]
    fn numbers_have_kube_proxys_names() {
        let metrics = Metrics::default();
        let names = |count: usize| (0..count).map(|number| NamespacedName::new("shop", number.to_string()));
        let changes = |services, endpoint_slices| ChangeSet {
            services: names(services).collect(),
            endpoint_slices,
            ..ChangeSet::default()
        };
        metrics.queued(&changes(3, 6));
        metrics.synced(Outcome::Partial, Duration::from_millis(2));
        metrics.failed();
        metrics.probed(Probe::Healthz, 503);
        metrics.probed(Probe::Livez, 200);
        metrics.reconciled(Family::V6, 4, Duration::from_millis(1));
        metrics.programmed(Duration::from_millis(300));
        metrics.without_local_endpoints(1, 2);
        metrics.queued(&changes(2, 1));
        let text = metrics.text(&[]);
        for line in [
            "kubeproxy_sync_proxy_rules_duration_seconds_count 1",
            "kubeproxy_sync_full_proxy_rules_duration_seconds_count 0",
            "kubeproxy_sync_partial_proxy_rules_duration_seconds_count 1",
            "kubeproxy_sync_proxy_rules_service_changes_total 5",
            "kubeproxy_sync_proxy_rules_service_changes_pending 2",
            "kubeproxy_sync_proxy_rules_endpoint_changes_total 7",
            "kubeproxy_sync_proxy_rules_endpoint_changes_pending 1",
            "kubeproxy_sync_proxy_rules_no_local_endpoints_total{traffic_policy=\"external\"} 2",
            "kubeproxy_network_programming_duration_seconds_bucket{le=\"0.5\"} 1",
            "kubeproxy_network_programming_duration_seconds_bucket{le=\"0.25\"} 0",
            "kubeproxy_network_programming_duration_seconds_bucket{le=\"300.0\"} 1",
            "kubeproxy_sync_proxy_rules_nftables_sync_failures_total 1",
            "kubeproxy_proxy_healthz_total{code=\"503\"} 1",
            "kubeproxy_proxy_livez_total{code=\"200\"} 1",
            "kubeproxy_conntrack_reconciler_deleted_entries_total{ip_family=\"IPv6\"} 4",
            "kubeproxy_conntrack_reconciler_sync_duration_seconds_count{ip_family=\"IPv6\"} 1",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        }
    }
}
