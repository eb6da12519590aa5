//! Ends stale connections, on a thread of its own: a large table takes long to read, and changes of the rules must not
//! wait for that. Which connections are stale is said by `stale.rs`.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use tracing::{debug, warn};
use weft_netlink::conntrack::{Client, Filter, Flow};

use crate::error::Error;
use crate::layout::table_family;
use crate::metrics::Metrics;
use crate::stale::Served;

/// How long to wait before the table is tried again after a failure.
const RETRY: Duration = Duration::from_secs(5);

/// The way to the thread, which ends with it.
#[derive(Debug)]
pub struct Conntrack(Sender<Served>);

impl Conntrack {
    /// Starts the thread, for the calling thread's network namespace.
    ///
    /// # Errors
    /// Where there is no socket or no thread to be had.
    pub fn start(metrics: Arc<Metrics>) -> Result<Conntrack, Error> {
        let reaper = Reaper::open()?;
        let (sender, receiver) = channel();
        let work = move || follow(reaper, &receiver, &metrics);
        thread::Builder::new().name("conntrack".to_owned()).spawn(work).map_err(Error::Runtime)?;
        Ok(Conntrack(sender))
    }

    /// Has the stale flows of these frontends ended soon. To be called when the rules are in the kernel: what a flow is
    /// followed by goes by the rules that are there then.
    pub fn look_at(&self, served: Served) {
        if !served.is_empty() {
            // The thread ends only when this value does.
            let _ = self.0.send(served);
        }
    }
}

/// Works until nobody has anything to ask any more.
fn follow(mut reaper: Reaper, asked: &Receiver<Served>, metrics: &Metrics) {
    let mut served = Served::default();
    let mut failed = false;
    while let Some(more) = wait(asked, &served, failed) {
        served.extend(more);
        let reaped = reaper.reap(&served, || asked.try_iter(), metrics);
        failed = reaped.is_err();
        match reaped {
            Ok(later) => served = later,
            Err(error) => warn!("{error}; clients of removed endpoints may be stuck; trying again"),
        }
    }
}

/// Waits for something to do: what is asked, or what is left of before. `None` where nobody will ask any more.
fn wait(asked: &Receiver<Served>, left: &Served, failed: bool) -> Option<Served> {
    if left.is_empty() {
        return asked.recv().ok();
    }
    match asked.recv_timeout(if failed { RETRY } else { Duration::ZERO }) {
        Ok(more) => Some(more),
        Err(RecvTimeoutError::Timeout) => Some(Served::default()),
        Err(RecvTimeoutError::Disconnected) => None,
    }
}

/// The table of connections, and the scythe.
#[derive(Debug)]
pub struct Reaper(Client);

impl Reaper {
    /// Opens the table of the calling thread's network namespace.
    ///
    /// # Errors
    /// Where there is no socket to be had.
    pub fn open() -> Result<Reaper, Error> {
        Ok(Reaper(Client::open()?))
    }

    /// Ends the stale flows of these frontends, by one reading of the table for each family and protocol. Each flow is
    /// judged as it is read, so that of a large table nothing is kept. `later` gives what became known meanwhile, which counts
    /// already: a flow that came while the table was read may go to an endpoint that did too. It is returned, to be looked at
    /// next.
    ///
    /// # Errors
    /// What the kernel refused.
    pub fn reap<I: Iterator<Item = Served>>(
        &mut self,
        served: &Served,
        later: impl Fn() -> I,
        metrics: &Metrics,
    ) -> Result<Served, Error> {
        let (mut known, mut next) = (served.clone(), Served::default());
        for (family, protocol) in served.kinds() {
            let start = Instant::now();
            let is_stale = |flow: &Flow| {
                if !known.is_stale(flow) {
                    return false;
                }
                for later in later() {
                    known.extend(later.clone());
                    next.extend(later);
                }
                let is_stale = known.is_stale(flow);
                if is_stale {
                    debug!(%flow, "ending a stale connection");
                }
                is_stale
            };
            let filter = Filter { protocol: Some(protocol.number()), ..Filter::default() };
            let ended = self.0.forget(table_family(family), &filter, is_stale)?;
            metrics.reconciled(family, ended, start.elapsed());
        }
        Ok(next)
    }
}
