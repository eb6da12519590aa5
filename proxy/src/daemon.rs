//! The daemon as a whole: sockets first, then the cluster, then one change after the other. The rules stay when it ends.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::sleep;
use tracing::{debug, error, info};
use weft_cluster::{View, Watch};
use weft_types::{ChangeSet, Kind, Snapshot};

use crate::error::Error;
use crate::health::Health;
use crate::http;
use crate::metrics::Metrics;
use crate::options::Options;
use crate::planner::everything;
use crate::sync::{Outcome, Sync};

/// How long to wait before the kernel is tried again after a failure.
const RETRY: Duration = Duration::from_secs(1);

/// Runs until SIGTERM or SIGINT.
///
/// # Errors
/// What cannot be had at the start, and what to do. Later nothing is an error: what fails is tried again.
pub async fn run(options: Options) -> Result<(), Error> {
    let (mut terminate, mut interrupt) =
        (wait_for(SignalKind::terminate())?, wait_for(SignalKind::interrupt())?);
    let (health, metrics) = (Arc::new(Health::default()), Arc::new(Metrics::default()));
    http::serve("healthz", options.healthz_bind_address, http::healthz(health.clone())).await?;
    http::serve("metrics", options.metrics_bind_address, http::metrics(metrics.clone())).await?;
    let config = options.config()?;
    info!(node = config.node, "starting");
    let sync = Sync::open(config)?;
    let client = weft_cluster::client(options.kubeconfig.as_deref()).await?;
    let watch = Watch::start(client, View::Proxied, &[Kind::Service, Kind::EndpointSlice, Kind::Node]);
    let mut proxy = Proxy { sync, health, metrics, failed: false, started: false };
    tokio::select! {
        () = proxy.follow(watch) => {}
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    info!("stopping; the rules stay");
    Ok(())
}

fn wait_for(kind: SignalKind) -> Result<Signal, Error> {
    signal(kind).map_err(Error::Signal)
}

struct Proxy {
    sync: Sync,
    health: Arc<Health>,
    metrics: Arc<Metrics>,
    /// The kernel is out of step, and is to be tried again.
    failed: bool,
    /// The kernel was in step once.
    started: bool,
}

impl Proxy {
    async fn follow(&mut self, mut watch: Watch) {
        loop {
            tokio::select! {
                changes = watch.next() => self.apply(watch.snapshot(), &changes),
                () = sleep(RETRY), if self.failed => self.apply(watch.snapshot(), &ChangeSet::default()),
            }
        }
    }

    fn apply(&mut self, snapshot: &Snapshot, changes: &ChangeSet) {
        let start = Instant::now();
        let applied = match self.started {
            true => self.sync.apply(snapshot, changes),
            false => self.sync.apply(snapshot, &everything(snapshot)),
        };
        self.failed = applied.is_err();
        match applied {
            Ok(outcome) => self.succeeded(outcome, changes.services.len(), start),
            Err(error) => {
                error!("{error}; trying again in {} s", RETRY.as_secs());
                self.health.out_of_step(start);
                self.metrics.failed();
            }
        }
    }

    fn succeeded(&mut self, outcome: Outcome, services: usize, start: Instant) {
        let took = start.elapsed();
        match outcome {
            Outcome::Full => info!(?took, "the kernel is in step with the cluster"),
            Outcome::Partial => debug!(services, ?took, "committed"),
        }
        self.started = true;
        self.health.in_step();
        self.metrics.synced(outcome, services, took);
    }
}
