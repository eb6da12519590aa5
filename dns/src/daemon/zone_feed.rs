//! Keeps the zone in step with the cluster. What the zone holds is decided in [`crate::zone`].

use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use weft_cluster::Watch;
use weft_netlink::memory;
use weft_types::{ChangeSet, ServiceKind, Snapshot};

use crate::daemon::snapshot_file::Keeper;
use crate::metrics::Metrics;
use crate::zone::{Zone, ZoneConfig};

/// The zone to begin with: of what `keeper` has, or one that knows nothing yet.
pub fn first_zone(config: Arc<ZoneConfig>, keeper: Option<&Keeper>) -> Zone {
    let Some((snapshot, written)) = keeper.and_then(Keeper::load) else { return Zone::unsynced(config) };
    let age = SystemTime::now().duration_since(written).unwrap_or_default();
    let zone = Zone::compile(&snapshot, config, serial(written));
    tracing::info!(
        services = zone.service_count(),
        ?age,
        "answering what was known before, until the cluster is listed"
    );
    zone
}

/// Puts a new zone in place after each change of the cluster, for as long as it is polled. Cancels `listed` as soon as
/// the cluster is listed. The keeper is used while the server is `in_charge`: of two that share a file one writes it.
pub async fn feed(
    mut watch: Watch,
    zone: Arc<ArcSwap<Zone>>,
    mut keeper: Option<Keeper>,
    metrics: Arc<Metrics>,
    listed: CancellationToken,
    mut in_charge: watch::Receiver<bool>,
) {
    loop {
        tokio::select! {
            changes = watch.next() => {
                replace(&zone, &watch, listed.is_cancelled().then_some(&changes), &metrics);
                listed.cancel();
                keeper.iter_mut().for_each(Keeper::note_change);
            }
            () = due(keeper.as_ref(), &mut in_charge) => keeper.iter_mut().for_each(|keeper| keeper.keep(watch.snapshot())),
        }
    }
}

/// `changes` are those since the zone in place; none where that is not of this watch.
fn replace(zone: &ArcSwap<Zone>, watch: &Watch, changes: Option<&ChangeSet>, metrics: &Metrics) {
    let started = Instant::now();
    let (old, serial) = (zone.load_full(), serial(SystemTime::now()));
    let new = match changes {
        Some(changes) => old.recompile(watch.snapshot(), changes, serial),
        None => old.renewed(watch.snapshot(), serial),
    };
    let services = new.service_count();
    zone.store(Arc::new(new));
    let took = started.elapsed();
    metrics.compiled(services, took, took + watch.delay());
    if let Some(changes) = changes.filter(|changes| all_headless(watch.snapshot(), changes)) {
        let ago = |moment: &SystemTime| SystemTime::now().duration_since(*moment).unwrap_or_default();
        changes.triggered.iter().map(ago).for_each(|ago| metrics.programmed(ago));
    }
    if changes.is_none() {
        // What was read to get there is far more than what is kept of it.
        memory::trim();
        tracing::info!(services, ?took, "the cluster is listed: ready to answer");
    }
}

/// Whether the changes are of headless Services alone, whose endpoints are what clients get: only of these CoreDNS tells
/// how long a change took.
fn all_headless(snapshot: &Snapshot, changes: &ChangeSet) -> bool {
    let headless = |name| snapshot.service(name).is_some_and(|service| service.kind == ServiceKind::Headless);
    changes.services.iter().all(headless)
}

async fn due(keeper: Option<&Keeper>, in_charge: &mut watch::Receiver<bool>) {
    let is_in_charge = in_charge.wait_for(|&in_charge| in_charge).await.is_ok();
    match keeper.filter(|_| is_in_charge) {
        Some(keeper) => keeper.due().await,
        None => std::future::pending().await,
    }
}

/// The SOA's serial at a time: seconds since 1970, in the arithmetic of RFC 1982.
fn serial(time: SystemTime) -> u32 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs() as u32
}
