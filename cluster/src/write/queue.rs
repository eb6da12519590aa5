//! What users are told of objects that cannot be met as they are: a line in the log and an event in the
//! cluster, once for each thing that is wrong. What is wrong is found by planners and by the watch.

use std::collections::BTreeSet;
use std::time::Duration;

use super::event::{Recorder, Severity, Warning};
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::time::sleep;
use tracing::{info, warn};

/// Between two events: the API server has other things to do, however much is wrong.
const PAUSE: Duration = Duration::from_millis(200);
/// Events that wait. Of what comes when so many do there are lines in the log only.
const WAITING: usize = 256;

/// Tells, and remembers what was told.
pub struct Events {
    told: BTreeSet<Warning>,
    queue: Sender<(Severity, Warning)>,
}

impl Events {
    /// Starts to write events by way of `recorder`. Must be called within a tokio runtime.
    pub fn start(recorder: Recorder) -> Events {
        let (queue, waiting) = channel(WAITING);
        tokio::spawn(write(recorder, waiting));
        Events { told: BTreeSet::new(), queue }
    }

    /// Tells of everything that is wrong now, save what was so the last time.
    pub fn tell(&mut self, wrong: BTreeSet<Warning>) {
        for warning in wrong.difference(&self.told) {
            warn!("{warning}");
            self.write(warning.clone());
        }
        self.told = wrong;
    }

    /// Writes an event alone, of what was told otherwise.
    pub fn write(&self, warning: Warning) {
        self.queue(Severity::Warning, warning);
    }

    /// Writes an event alone, about what is as it should be.
    pub fn inform(&self, news: Warning) {
        self.queue(Severity::Normal, news);
    }

    fn queue(&self, severity: Severity, said: Warning) {
        // Where the queue is full, the log has it.
        let _ = self.queue.try_send((severity, said));
    }
}

async fn write(recorder: Recorder, mut waiting: Receiver<(Severity, Warning)>) {
    let mut refused = false;
    while let Some((severity, said)) = waiting.recv().await {
        match recorder.record(severity, &said).await {
            Ok(()) => refused = false,
            Err(problem) if !refused => {
                info!(%problem, "cannot write events; what they would say is only in this log");
                refused = true;
            }
            Err(_) => {}
        }
        sleep(PAUSE).await;
    }
}
