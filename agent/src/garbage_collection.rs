//! Freeing what is kept for containers that the runtime lost: `plan` decides what that is, `cri` asks the
//! runtime, and the plugin frees it. All of it beside the daemon's rounds, as runtimes take their time.

pub(crate) mod cri;
pub(crate) mod plan;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use prometheus_client::metrics::counter::Counter;
use prometheus_client::registry::Registry;
use tokio::task::spawn_blocking;
use tokio::time::{MissedTickBehavior, interval};
use tracing::{info, warn};

use crate::attachments::PluginPaths;
use crate::garbage_collection::cri::Cri;
use crate::garbage_collection::plan::{Attachment, OrphanTracker};
use crate::subsystem::{Environment, Report, Round, Subsystem};
use crate::{Error, Result};

/// How often it is looked at most, and how many looks there are before something is garbage.
const INTERVAL: Duration = Duration::from_secs(30);
const LOOKS: u32 = 3;

/// Looks for garbage where the runtime's socket is known.
pub(crate) struct GarbageCollection {
    paths: PluginPaths,
    socket: Option<PathBuf>,
    patience: Duration,
    collected: Counter,
}

impl GarbageCollection {
    /// For the runtime at that socket. What it does not have for `patience` is garbage.
    pub(crate) fn new(
        paths: PluginPaths,
        socket: Option<PathBuf>,
        patience: Duration,
        registry: &mut Registry,
    ) -> GarbageCollection {
        let collected = Counter::default();
        let help = "Attachments freed because their sandboxes were gone";
        registry.register("collected_attachments", help, collected.clone());
        GarbageCollection { paths, socket, patience, collected }
    }
}

impl Subsystem for GarbageCollection {
    fn name(&self) -> &'static str {
        "garbage-collection"
    }

    fn start(&mut self, _environment: &Environment) -> Result<()> {
        if let Some(socket) = &self.socket {
            let cri = Cri::new(socket)?;
            // It ends with the runtime.
            tokio::spawn(run(self.paths.clone(), cri, self.patience, self.collected.clone()));
        }
        Ok(())
    }

    fn reconcile(&mut self, _round: &Round<'_>, _report: &mut Report) {}
}

/// Looks for ever. A runtime that is away is told of once, and looked for again.
async fn run(paths: PluginPaths, cri: Cri, patience: Duration, collected: Counter) {
    let mut orphans = OrphanTracker::new(patience);
    let mut ticks = interval(INTERVAL.min(patience / LOOKS).max(Duration::from_millis(10)));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut told = None;
    loop {
        ticks.tick().await;
        let problem = look(&paths, &cri, &mut orphans, &collected).await.err().map(|error| error.to_string());
        if let Some(problem) = problem.as_ref().filter(|problem| told.as_ref() != Some(*problem)) {
            warn!(problem, "cannot free the addresses of containers that are gone; retrying");
        }
        told = problem;
    }
}

async fn look(
    paths: &PluginPaths,
    cri: &Cri,
    orphans: &mut OrphanTracker,
    collected: &Counter,
) -> Result<()> {
    // In this order: what is made after the first and before the second is not suspected.
    let held = blocking(paths, PluginPaths::list).await??;
    let sandboxes = cri.sandboxes().await?;
    for lost in orphans.look(&held, &sandboxes, Instant::now()) {
        let Attachment { container, ifname } = lost.clone();
        blocking(paths, move |paths| paths.del(&lost)).await??;
        collected.inc();
        info!(container, ifname, "freed what was kept for a container that is gone");
    }
    Ok(())
}

/// Away from the thread that waits for the kernel and the cluster.
async fn blocking<T: Send + 'static>(
    paths: &PluginPaths,
    work: impl FnOnce(&PluginPaths) -> T + Send + 'static,
) -> Result<T> {
    let paths = paths.clone();
    let done = spawn_blocking(move || work(&paths)).await;
    done.map_err(|error| Error::Runtime { operation: "look for garbage", problem: error.into() })
}
