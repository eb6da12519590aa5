//! Keeps the zone in step with the cluster. What the zone holds is decided in [`crate::zone`].

use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use weft_cluster::Watch;
use weft_netlink::memory;
use weft_types::{ChangeSet, ServiceKind, Snapshot};

use crate::daemon::snapshot_file::SnapshotFile;
use crate::metrics::Metrics;
use crate::zone::{Zone, ZoneConfig};

/// The zone to begin with: of what the snapshot file has, or one that knows nothing yet.
pub fn initial_zone(config: Arc<ZoneConfig>, snapshot_file: Option<&SnapshotFile>) -> Zone {
    let Some((snapshot, written)) = snapshot_file.and_then(SnapshotFile::load) else {
        return Zone::unsynced(config);
    };
    let age = SystemTime::now().duration_since(written).unwrap_or_default();
    let zone = Zone::compile(&snapshot, config, serial(written));
    tracing::info!(
        services = zone.service_count(),
        ?age,
        "answering from the snapshot file until the cluster is listed"
    );
    zone
}

/// Puts a new zone in place after each change of the cluster, for as long as it is polled. Cancels `listed`
/// as soon as the cluster is listed. `settings` are those of the zone. The snapshot file is written while the server is `active`: of two that
/// share a file one writes it.
pub async fn keep_updated(
    mut watch: Watch,
    zone: Arc<ArcSwap<Zone>>,
    mut snapshot_file: Option<SnapshotFile>,
    metrics: Arc<Metrics>,
    listed: CancellationToken,
    (mut settings, mut active): (watch::Receiver<Arc<ZoneConfig>>, watch::Receiver<bool>),
) {
    loop {
        tokio::select! {
            changes = watch.next() => {
                let is_first = !listed.is_cancelled();
                replace(&zone, &watch, (!is_first).then_some(&changes), &metrics);
                listed.cancel();
                snapshot_file.iter_mut().for_each(SnapshotFile::note_change);
                if is_first {
                    // What was read to get there is far more than what is kept of it.
                    drop(changes);
                    memory::trim();
                }
            }
            () = changed(&mut settings) => {
                let config = settings.borrow_and_update().clone();
                let old = zone.load_full();
                let new = if listed.is_cancelled() {
                    Zone::compile(watch.snapshot(), config, serial(SystemTime::now()))
                } else {
                    old.with_config(config)
                };
                zone.store(Arc::new(new));
            }
            () = due(snapshot_file.as_ref(), &mut active) => snapshot_file.iter_mut().for_each(|snapshot_file| snapshot_file.keep(watch.snapshot())),
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
        tracing::info!(services, ?took, "the cluster is listed: ready to answer");
    }
}

/// Whether the changes are of headless Services alone, whose endpoints are what clients get: only of these
/// CoreDNS tells how long a change took.
fn all_headless(snapshot: &Snapshot, changes: &ChangeSet) -> bool {
    let headless = |name| snapshot.service(name).is_some_and(|service| service.kind == ServiceKind::Headless);
    changes.services.iter().all(headless)
}

async fn changed(settings: &mut watch::Receiver<Arc<ZoneConfig>>) {
    if settings.changed().await.is_err() {
        std::future::pending().await
    }
}

async fn due(snapshot_file: Option<&SnapshotFile>, active: &mut watch::Receiver<bool>) {
    let is_active = active.wait_for(|&active| active).await.is_ok();
    match snapshot_file.filter(|_| is_active) {
        Some(snapshot_file) => snapshot_file.due().await,
        None => std::future::pending().await,
    }
}

/// The SOA's serial at a time: seconds since 1970, in the arithmetic of RFC 1982.
fn serial(time: SystemTime) -> u32 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs() as u32
}
