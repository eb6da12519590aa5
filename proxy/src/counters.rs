//! Reads what the kernel counted for each Service. Where it counts is said by `ruleset/counters.rs`.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};
use tokio::task::spawn_blocking;
use tracing::warn;
use weft_nftables::{Client, Counter, Declaration, Family};
use weft_types::NamespacedName;

use crate::dataplane::nftables::ruleset::Meter;
use crate::error::Error;
use crate::services::plan::Frontend;

/// Frontends with the Services that have them.
pub type Owners = HashMap<Frontend, Arc<NamespacedName>>;

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

/// Who asks the daemon which Service has which frontend.
pub type Question = oneshot::Sender<Owners>;

/// The counters of all Services.
#[derive(Clone, Debug)]
pub struct Counters(mpsc::Sender<Question>);

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
        let Ok(owners) = answer.await else { return Vec::new() };
        let readings = spawn_blocking(move || read(&owners)).await;
        readings.unwrap_or_else(|_| Ok(Vec::new())).unwrap_or_else(|error| {
            warn!("{error}; the counters of Services are missing from /metrics");
            Vec::new()
        })
    }
}

/// Reads all counters, in the calling thread's network namespace. It takes long where there are many, so it is no work for
/// the thread that follows the cluster.
///
/// # Errors
/// What the kernel refused.
pub fn read(owners: &Owners) -> Result<Vec<Reading>, Error> {
    let mut kernel = Client::open()?;
    let mut readings = Vec::with_capacity(owners.len() * Meter::ALL.len());
    for family in Family::BOTH {
        for meter in Meter::ALL {
            for set in meter.sets() {
                let declaration = set.declaration(family);
                let counters = kernel.counters(&declaration)?;
                readings.extend(counters.iter().filter_map(|it| reading(it, &declaration, meter, owners)));
            }
        }
    }
    Ok(readings)
}

/// Nothing where the frontend has gone meanwhile.
fn reading(counter: &Counter, set: &Declaration, meter: Meter, owners: &Owners) -> Option<Reading> {
    let frontend = Frontend::read(set.family, &counter.key.values(&set.key)?)?;
    let service = owners.get(&frontend)?.clone();
    Some(Reading { service, frontend, meter, packets: counter.packets, bytes: counter.bytes })
}
