//! One question, tried at upstreams until one answers: the next is asked as soon as one fails, or beside one that
//! takes long. Whom to try is decided by [`super::pool`].

use std::collections::VecDeque;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::RecordType;
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::ask::Ask;
use super::exchange::{Response, exchange};
use super::upstream::Upstream;
use crate::error::Error;
use crate::metrics::Metrics;

/// After so long without an answer a second upstream is asked too, and the first answer of the two is taken.
const HEDGE: Duration = Duration::from_millis(250);
/// The pause between two looks whether an upstream answers again, as CoreDNS has it.
const PROBE: Duration = Duration::from_millis(500);

/// A question on its way to upstreams.
pub(super) struct Race {
    ask: Arc<Ask>,
    /// Whom to try next.
    next: VecDeque<Arc<Upstream>>,
    asked: Vec<Arc<Upstream>>,
    running: JoinSet<Result<Response, Error>>,
    metrics: Arc<Metrics>,
}

impl Race {
    /// A question to the upstreams of `order`, tried from the first on.
    pub(super) fn new(ask: Ask, order: Vec<Arc<Upstream>>, metrics: Arc<Metrics>) -> Race {
        Race { ask: Arc::new(ask), next: order.into(), asked: Vec::new(), running: JoinSet::new(), metrics }
    }

    /// The first good answer. A failure that an upstream reports is passed on only when no other has anything better.
    ///
    /// # Errors
    /// What the last upstream did, where none gave an answer.
    pub(super) async fn run(mut self) -> Result<Response, Error> {
        let mut worst = Err(Error::NoUpstream);
        loop {
            if self.running.is_empty() && !self.start() {
                return worst;
            }
            let fresh = self.next.front().is_some_and(|next| !self.has_asked(next));
            tokio::select! {
                Some(done) = self.running.join_next() => match done {
                    Ok(Ok(response)) if is_failure(&response.message) => worst = Ok(response),
                    Ok(Ok(response)) => {
                        // Whether the others answer is worth knowing, though nobody waits for it.
                        self.running.detach_all();
                        return Ok(response);
                    }
                    Ok(Err(error)) => worst = worst.or(Err(error)),
                    // It panicked: the next one is tried.
                    Err(_) => {}
                },
                () = sleep(HEDGE), if fresh => {
                    self.metrics.forwarding().hedged();
                    self.start();
                }
            }
        }
    }

    fn has_asked(&self, upstream: &Arc<Upstream>) -> bool {
        self.asked.iter().any(|asked| Arc::ptr_eq(asked, upstream))
    }

    /// Asks the next upstream. False where there is none.
    fn start(&mut self) -> bool {
        let Some(upstream) = self.next.pop_front() else { return false };
        self.asked.push(upstream.clone());
        let (ask, metrics) = (self.ask.clone(), self.metrics.clone());
        self.running.spawn(async move { attempt(&upstream, &ask, &metrics).await });
        true
    }
}

/// Whether another upstream may know better.
pub(super) fn is_failure(message: &Message) -> bool {
    matches!(
        message.metadata.response_code,
        ResponseCode::ServFail | ResponseCode::Refused | ResponseCode::NotImp
    )
}

/// Asks one upstream, and notes how it did.
async fn attempt(upstream: &Arc<Upstream>, ask: &Ask, metrics: &Arc<Metrics>) -> Result<Response, Error> {
    let started = Instant::now();
    let result = exchange(upstream, ask).await;
    match &result {
        Ok(response) => {
            let code = response.message.metadata.response_code;
            metrics.forwarding().exchanged(upstream.address(), code, started.elapsed());
            if upstream.note_answer() {
                tracing::info!(upstream = %upstream.address(), "the upstream answers again");
            }
        }
        Err(Error::NoSocket(_)) => {}
        Err(error) => {
            tracing::debug!(%error, "upstream failed");
            if upstream.note_failure() {
                tracing::warn!(%error, "the upstream is asked last until it answers again");
                tokio::spawn(probe(Arc::downgrade(upstream), metrics.clone()));
            }
        }
    }
    result
}

/// Looks whether an upstream answers again, until it does or nobody has it any more. Any answer will do.
async fn probe(upstream: Weak<Upstream>, metrics: Arc<Metrics>) {
    let root = Ask::own(&[], RecordType::NS);
    loop {
        let Some(upstream) = upstream.upgrade().filter(|upstream| !upstream.is_well()) else { return };
        match exchange(&upstream, &root).await {
            Ok(_) if upstream.note_answer() => {
                tracing::info!(upstream = %upstream.address(), "the upstream answers again");
            }
            Ok(_) => {}
            Err(_) => metrics.forwarding().probe_failed(upstream.address()),
        }
        drop(upstream);
        sleep(PROBE).await;
    }
}
