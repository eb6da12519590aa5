//! When garbage is looked for, and having it taken away. What is garbage is decided in `garbage`.

pub(crate) mod cri;
pub(crate) mod plan;

use std::time::{Duration, Instant};

use tokio::task::spawn_blocking;
use tokio::time::{MissedTickBehavior, interval};
use tracing::{info, warn};

use crate::attachments::PluginPaths;
use crate::garbage_collection::cri::Cri;
use crate::garbage_collection::plan::{Attachment, Suspects};
use crate::metrics::Metrics;
use crate::{Error, Result};

/// How often it is looked at most, and how many looks there are before something is garbage.
const INTERVAL: Duration = Duration::from_secs(30);
const LOOKS: u32 = 3;

/// Looks for ever. A runtime that is away is told of once, and looked for again.
pub(crate) async fn run(place: PluginPaths, cri: Cri, patience: Duration, metrics: Metrics) {
    let mut suspects = Suspects::new(patience);
    let mut ticks = interval(INTERVAL.min(patience / LOOKS).max(Duration::from_millis(10)));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut told = None;
    loop {
        ticks.tick().await;
        let problem = look(&place, &cri, &mut suspects, &metrics).await.err().map(|error| error.to_string());
        if let Some(problem) = problem.as_ref().filter(|problem| told.as_ref() != Some(*problem)) {
            warn!(problem, "addresses of pods that went without a word are not freed");
        }
        told = problem;
    }
}

async fn look(place: &PluginPaths, cri: &Cri, suspects: &mut Suspects, metrics: &Metrics) -> Result<()> {
    // In this order: what is made after the first and before the second is not suspected.
    let held = blocking(place, PluginPaths::held).await??;
    let sandboxes = cri.sandboxes().await?;
    for lost in suspects.look(&held, &sandboxes, Instant::now()) {
        let Attachment { container, ifname } = lost.clone();
        blocking(place, move |place| place.delete(&lost)).await??;
        metrics.collected.inc();
        info!(container, ifname, "freed what was kept for a container that is gone");
    }
    Ok(())
}

/// Away from the thread that waits for the kernel and the cluster.
async fn blocking<T: Send + 'static>(
    place: &PluginPaths,
    work: impl FnOnce(&PluginPaths) -> T + Send + 'static,
) -> Result<T> {
    let place = place.clone();
    let done = spawn_blocking(move || work(&place)).await;
    done.map_err(|error| Error::Runtime { operation: "look for garbage", problem: error.into() })
}
