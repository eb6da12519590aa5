//! What is counted of load balancer addresses. Only the agent that gives them has figures.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use weft_announce::allocation::{Decisions, Usage};

/// Which pool.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Pool {
    pool: String,
}

/// A number of addresses: an IPv6 pool has more than an `i64` can say.
type Addresses = Gauge<f64, AtomicU64>;

/// The figures.
#[derive(Clone, Debug)]
pub(super) struct Metrics {
    /// Whether this agent gives addresses.
    is_leader: Gauge,
    total: Family<Pool, Addresses>,
    in_use: Family<Pool, Addresses>,
    served: Gauge,
    waiting: Gauge,
}

impl Metrics {
    pub(super) fn new(registry: &mut Registry) -> Metrics {
        let metrics = Metrics {
            is_leader: Gauge::default(),
            total: Family::default(),
            in_use: Family::default(),
            served: Gauge::default(),
            waiting: Gauge::default(),
        };
        let help = "Whether this agent gives addresses to LoadBalancer Services; only one does";
        registry.register("lb_leader", help, metrics.is_leader.clone());
        registry.register("lb_pool_addresses", "Usable addresses of a pool", metrics.total.clone());
        let help = "Addresses of a pool that Services have";
        registry.register("lb_pool_addresses_in_use", help, metrics.in_use.clone());
        let help = "LoadBalancer Services that have all the addresses that they need";
        registry.register("lb_services_served", help, metrics.served.clone());
        let help = "LoadBalancer Services that lack an address";
        registry.register("lb_services_waiting", help, metrics.waiting.clone());
        metrics
    }

    /// What was decided.
    pub(super) fn set(&self, decisions: &Decisions) {
        self.is_leader.set(1);
        self.set_pools(&decisions.usage);
        self.served.set(i64::try_from(decisions.served).unwrap_or(i64::MAX));
        self.waiting.set(i64::try_from(decisions.waiting).unwrap_or(i64::MAX));
    }

    /// Another agent decides.
    pub(super) fn clear(&self) {
        self.is_leader.set(0);
        self.set_pools(&BTreeMap::new());
        self.served.set(0);
        self.waiting.set(0);
    }

    #[expect(clippy::cast_precision_loss, reason = "Prometheus has nothing else")]
    fn set_pools(&self, usage: &BTreeMap<String, Usage>) {
        self.total.clear();
        self.in_use.clear();
        for (pool, Usage { in_use, total }) in usage {
            let pool = Pool { pool: pool.clone() };
            self.total.get_or_create(&pool).set(*total as f64);
            self.in_use.get_or_create(&pool).set(*in_use as f64);
        }
    }
}
