//! What is counted of network policies.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

/// The figures of the subsystem.
#[derive(Clone, Debug)]
pub(crate) struct Metrics {
    policies: Gauge,
    isolated: Gauge,
    rows: Gauge,
    pending: Gauge,
    /// How long writing a change to the kernel took.
    pub(crate) commit_seconds: Histogram,
    /// What is counted of connections that are ended.
    pub(crate) cuts: CutMetrics,
}

/// The figures of connections that changes of policies deny.
#[derive(Clone, Debug)]
pub(crate) struct CutMetrics {
    /// Whether connections are still to be judged.
    pub(crate) is_running: Gauge,
    /// How many were ended.
    pub(crate) ended: Counter,
    /// How long judging those that some changes concern took.
    pub(crate) seconds: Histogram,
}

impl CutMetrics {
    fn new(registry: &mut Registry) -> CutMetrics {
        let (is_running, ended) = (Gauge::default(), Counter::default());
        // 1 ms to 30 s
        let seconds = Histogram::new(exponential_buckets(0.001, 2.0, 16));
        let help = "Whether connections that a change of policies may deny are still to be judged";
        registry.register("policy_cut_running", help, is_running.clone());
        let help = "Connections that were ended, as a change of policies denies them";
        registry.register("policy_ended_connections", help, ended.clone());
        let help = "How long judging the connections that changes of policies may deny took";
        registry.register("policy_cut_duration_seconds", help, seconds.clone());
        CutMetrics { is_running, ended, seconds }
    }
}

impl Metrics {
    /// All at zero.
    pub(crate) fn new(registry: &mut Registry) -> Metrics {
        let [policies, isolated, rows, pending] = [(); 4].map(|()| Gauge::default());
        // 0.1 ms to 3 s
        let commit_seconds = Histogram::new(exponential_buckets(0.0001, 2.0, 16));
        registry.register("policies", "NetworkPolicies and ClusterNetworkPolicies", policies.clone());
        let help = "Addresses of this node's pods that some policy selects";
        registry.register("policy_isolated_addresses", help, isolated.clone());
        registry.register("policy_rows", "Rows of the plan of policies", rows.clone());
        registry.register(
            "policy_pending_addresses",
            "Addresses that wait for their policies",
            pending.clone(),
        );
        let help = "How long planning a change of policies and writing it to the kernel took";
        registry.register("policy_commit_duration_seconds", help, commit_seconds.clone());
        Metrics { policies, isolated, rows, pending, commit_seconds, cuts: CutMetrics::new(registry) }
    }

    /// How many policies there are, and addresses that wait.
    pub(crate) fn count(&self, policies: usize, pending: usize) {
        set(&self.policies, policies);
        set(&self.pending, pending);
    }

    /// How many addresses policies select, and the rows for them.
    pub(crate) fn measure(&self, isolated: usize, rows: usize) {
        set(&self.isolated, isolated);
        set(&self.rows, rows);
    }
}

fn set(gauge: &Gauge, count: usize) {
    gauge.set(i64::try_from(count).unwrap_or(i64::MAX));
}
