//! What is counted of each Service: connections, packets and bytes. The data plane counts and reads.

use std::fmt;
use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};
use tokio::task::spawn_blocking;
use tracing::warn;
use weft_types::NamespacedName;

use crate::error::Error;
use crate::services::plan::Frontend;

/// What is counted of a frontend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Meter {
    /// First packets of connections.
    Connections,
    /// Packets from clients.
    Received,
    /// Packets to clients.
    Sent,
}

impl Meter {
    /// All of them.
    pub const ALL: [Meter; 3] = [Meter::Connections, Meter::Received, Meter::Sent];
}

/// What was counted of one frontend, since it or the counters came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reading {
    /// Whose it is.
    pub service: Arc<NamespacedName>,
    /// What was counted at.
    pub frontend: Frontend,
    /// What was counted.
    pub meter: Meter,
    /// How many packets.
    pub packets: u64,
    /// Their bytes, with the IP header.
    pub bytes: u64,
}

/// Reads the counters of all Services. It takes long where there are many.
pub type ReadCounters = Box<dyn FnOnce() -> Result<Vec<Reading>, Error> + Send>;

/// Who asks the daemon for a way to read the counters.
pub type Question = oneshot::Sender<ReadCounters>;

/// The counters of all Services.
#[derive(Clone)]
pub struct Counters(mpsc::Sender<Question>);

impl fmt::Debug for Counters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Counters").finish_non_exhaustive()
    }
}

impl Counters {
    /// Counters of Services that are asked for through the receiver.
    pub fn new() -> (Counters, mpsc::Receiver<Question>) {
        let (sender, receiver) = mpsc::channel(1);
        (Counters(sender), receiver)
    }

    /// Reads all of them; none where they cannot be read, which the log has.
    pub async fn read(&self) -> Vec<Reading> {
        let (question, answer) = oneshot::channel();
        // Without an answer the daemon is about to end.
        let _ = self.0.send(question).await;
        let Ok(read) = answer.await else { return Vec::new() };
        // It is no work for the thread that follows the cluster.
        let readings = spawn_blocking(read).await;
        readings.unwrap_or_else(|_| Ok(Vec::new())).unwrap_or_else(|error| {
            warn!("{error}; the counters of Services are missing from /metrics");
            Vec::new()
        })
    }
}
