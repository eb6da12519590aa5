//! Ends stale connections, on a thread of its own: a large table takes long to read, and changes of the rules
//! must not wait for that. Which connections are stale is said by `conntrack/served.rs`.

mod register;
mod served;

use std::mem::take;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use tracing::{debug, warn};
use weft_netlink::conntrack::{ConntrackClient, Flow};
use weft_netlink::memory;

use crate::dataplane::nftables::ruleset::table_family;
use crate::error::Error;
use crate::metrics::Metrics;

pub use register::Register;
pub use served::Served;

/// How long to wait before the table is tried again after a failure.
const RETRY: Duration = Duration::from_secs(5);
/// How long to leave the table alone after it was read, where it is not urgent: the kernel walks through all
/// of it, some milliseconds long, however little there is in it, and lets nothing else have that processor.
/// Who waits for an answer tries again after a second at the earliest (RFC 6298, section 2.1).
const PAUSE: Duration = Duration::from_secs(1);

/// The way to the thread, which ends with it.
#[derive(Debug)]
pub struct Conntrack {
    asked: Sender<Message>,
    /// How many looks were asked for that have not ended.
    open: Arc<AtomicUsize>,
}

/// What the thread is told.
#[derive(Clone, Debug)]
pub enum Message {
    /// These frontends may have stale flows.
    LookAt(Served),
    /// These endpoints may answer soon.
    Expect(Served),
}

impl Conntrack {
    /// Starts the thread, for the calling thread's network namespace.
    ///
    /// # Errors
    /// Where there is no socket or no thread to be had.
    pub fn start(metrics: Arc<Metrics>) -> Result<Conntrack, Error> {
        let cleaner = Cleaner::open()?;
        let (asked, receiver) = channel();
        let open = Arc::new(AtomicUsize::new(0));
        let count = open.clone();
        let work = move || follow(cleaner, &receiver, &count, &metrics);
        thread::Builder::new().name("conntrack".to_owned()).spawn(work).map_err(Error::Runtime)?;
        Ok(Conntrack { asked, open })
    }

    /// Has the stale flows of these frontends ended soon. To be called when the rules are in the kernel: what
    /// a flow is followed by goes by the rules that are there then.
    pub fn look_at(&self, served: Served) {
        if !served.is_empty() {
            self.open.fetch_add(1, Ordering::SeqCst);
            // The thread ends only when this value does.
            let _ = self.asked.send(Message::LookAt(served));
        }
    }

    /// Spares the flows of endpoints that the next rules lead to, while others are looked at. To be called
    /// before those rules are in the kernel.
    pub fn expect(&self, coming: impl FnOnce() -> Served) {
        // Nearly always nothing is looked at.
        if self.open.load(Ordering::SeqCst) > 0 {
            let _ = self.asked.send(Message::Expect(coming()));
        }
    }
}

/// Works until nobody has anything to ask any more.
fn follow(mut cleaner: Cleaner, asked: &Receiver<Message>, open: &AtomicUsize, metrics: &Metrics) {
    let mut served = Served::default();
    let mut begun = 0;
    let mut pace = Pace { not_before: Instant::now(), failed: false };
    while gather(asked, &mut served, &mut begun, pace).is_some() {
        let is_large = served.is_large();
        let later = || {
            let message = asked.try_recv().ok()?;
            begun += usize::from(matches!(message, Message::LookAt(_)));
            Some(message)
        };
        let cleaned = cleaner.clean(&mut served, later, metrics);
        pace.failed = cleaned.is_err();
        pace.not_before = Instant::now() + if pace.failed { RETRY } else { PAUSE };
        if let Err(error) = cleaned {
            warn!("{error}; clients of removed endpoints may be stuck; trying again");
        }
        if served.is_empty() {
            open.fetch_sub(take(&mut begun), Ordering::SeqCst);
        }
        if is_large {
            memory::trim();
        }
    }
}

/// When the table may be read again.
#[derive(Clone, Copy, Debug)]
struct Pace {
    not_before: Instant,
    /// Whether the last reading failed.
    failed: bool,
}

impl Pace {
    fn time_left(self, served: &Served) -> Duration {
        let at_once = served.is_urgent() && !self.failed;
        if at_once { Duration::ZERO } else { self.not_before.saturating_duration_since(Instant::now()) }
    }
}

/// Waits for something to do, what is asked or what is left of before, and until it is time for it. `None`
/// where nobody will ask any more.
fn gather(asked: &Receiver<Message>, served: &mut Served, begun: &mut usize, pace: Pace) -> Option<()> {
    loop {
        let message = match served.is_empty() {
            true => Ok(asked.recv().ok()?),
            false => asked.recv_timeout(pace.time_left(served)),
        };
        match message {
            Ok(Message::LookAt(more)) => {
                served.extend(more);
                *begun += 1;
            }
            Ok(Message::Expect(coming)) => served.expect(&coming),
            Err(RecvTimeoutError::Timeout) => return Some(()),
            Err(RecvTimeoutError::Disconnected) => return None,
        }
    }
}

/// What deletes stale entries of the table of connections.
#[derive(Debug)]
pub struct Cleaner(ConntrackClient);

impl Cleaner {
    /// Opens the table of the calling thread's network namespace.
    ///
    /// # Errors
    /// Where there is no socket to be had.
    pub fn open() -> Result<Cleaner, Error> {
        Ok(Cleaner(ConntrackClient::open()?))
    }

    /// Ends the stale flows of these frontends. Each flow is judged as it is read, so that of a large table
    /// nothing is kept. `later` gives what became known meanwhile, which counts already: a flow that came
    /// while the table was read may go to an endpoint that did too. What is to be looked at next is left in
    /// `served`; after an error that is all.
    ///
    /// # Errors
    /// What the kernel refused.
    pub fn clean(
        &mut self,
        served: &mut Served,
        later: impl FnMut() -> Option<Message>,
        metrics: &Metrics,
    ) -> Result<(), Error> {
        let (mut known, mut next) = (take(served), Served::default());
        let cleaned = self.clean_all(&mut known, &mut next, later, metrics);
        *served = if cleaned.is_ok() { next } else { known };
        cleaned
    }

    fn clean_all(
        &mut self,
        known: &mut Served,
        next: &mut Served,
        mut later: impl FnMut() -> Option<Message>,
        metrics: &Metrics,
    ) -> Result<(), Error> {
        for (family, filter) in known.readings() {
            let start = Instant::now();
            let is_stale = |flow: &Flow| {
                if !known.is_stale(flow) {
                    return false;
                }
                while let Some(message) = later() {
                    match message {
                        Message::Expect(coming) => known.expect(&coming),
                        Message::LookAt(more) => {
                            known.extend(more.clone());
                            next.extend(more);
                        }
                    }
                }
                let is_stale = known.is_stale(flow);
                if is_stale {
                    debug!(%flow, "ending a stale connection");
                }
                is_stale
            };
            let ended = self.0.delete_where(table_family(family), &filter, is_stale)?;
            metrics.reconciled(family, ended, start.elapsed());
        }
        Ok(())
    }
}
