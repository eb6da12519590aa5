//! Keeps the zone in step with the cluster. What the zone holds is decided in [`crate::zone`].

use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;
use weft_cluster::Watch;

use crate::metrics::Metrics;
use crate::zone::Zone;

/// Puts a new zone in place after each change of the cluster, for as long as it is polled.
pub async fn feed(mut watch: Watch, zone: Arc<ArcSwap<Zone>>, metrics: Arc<Metrics>) {
    loop {
        let changes = watch.next().await;
        let started = Instant::now();
        let old = zone.load_full();
        let new = old.recompile(watch.snapshot(), &changes, serial(SystemTime::now()));
        let services = new.services().count();
        zone.store(Arc::new(new));
        metrics.compiled(services, started.elapsed());
        if !old.is_synced() {
            tracing::info!(services, took = ?started.elapsed(), "the cluster is listed: ready to answer");
        }
    }
}

/// The SOA's serial at a time: seconds since 1970, in the arithmetic of RFC 1982.
fn serial(now: SystemTime) -> u32 {
    now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs() as u32
}
