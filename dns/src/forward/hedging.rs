//! One query, tried at upstreams until one answers: the next is asked as soon as one fails, or beside those
//! that take long, which are listened to until nobody waits any more. Whom to try is decided by
//! [`super::pool`].

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::{Arc, Weak};
use std::time::Duration;

use hickory_proto::rr::RecordType;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::query::UpstreamQuery;
use super::transport::{Response, TIMEOUT, exchange, is_failure};
use super::upstream::Upstream;
use crate::error::Error;
use crate::metrics::Metrics;

/// After so long without an answer another upstream is asked too, and the first answer is taken.
const HEDGE: Duration = Duration::from_millis(250);
/// So long a query may take in all. Resolvers of clients wait 5 s, as does CoreDNS: what failed reaches them
/// in time.
const DEADLINE: Duration = Duration::from_millis(4800);
/// The pause between two looks whether an upstream answers again, as CoreDNS has it.
const PROBE: Duration = Duration::from_millis(500);

/// A query on its way to upstreams.
pub(super) struct HedgedQuery {
    query: Arc<UpstreamQuery>,
    /// Whom to try next.
    next: VecDeque<Arc<Upstream>>,
    running: JoinSet<Result<Response, Error>>,
    /// Who was asked last, and when.
    asked: Option<(SocketAddr, Instant)>,
    /// Cancelled when nobody waits for an answer any more.
    over: CancellationToken,
    metrics: Arc<Metrics>,
}

impl HedgedQuery {
    /// A query to the upstreams of `order`, tried from the first on.
    pub(super) fn new(query: UpstreamQuery, order: Vec<Arc<Upstream>>, metrics: Arc<Metrics>) -> HedgedQuery {
        HedgedQuery {
            query: Arc::new(query),
            next: order.into(),
            running: JoinSet::new(),
            asked: None,
            over: CancellationToken::new(),
            metrics,
        }
    }

    /// The first good answer. A failure that an upstream reports is passed on only when no other has anything
    /// better.
    ///
    /// # Errors
    /// What the last upstream did, where none gave an answer.
    pub(super) async fn run(mut self) -> Result<Response, Error> {
        let _over = self.over.clone().drop_guard();
        let deadline = Instant::now() + DEADLINE;
        let mut worst = Err(Error::NoUpstream);
        loop {
            if self.running.is_empty() && !self.start() {
                return worst;
            }
            let hedge = self.asked.map_or(deadline, |(_, at)| at + HEDGE);
            tokio::select! {
                Some(done) = self.running.join_next() => match done {
                    Ok(Ok(response)) if is_failure(&response.message) => worst = Ok(response),
                    Ok(Ok(response)) => {
                        // Whether the others answer in time is worth knowing, though nobody waits for it.
                        self.running.detach_all();
                        return Ok(response);
                    }
                    Ok(Err(error)) => worst = worst.or(Err(error)),
                    // It panicked: the next one is tried.
                    Err(_) => {}
                },
                () = sleep_until(hedge), if !self.next.is_empty() => {
                    self.metrics.forwarding().hedged();
                    self.start();
                }
                // All that are left are silent.
                () = sleep_until(deadline) => {
                    return worst.map_err(|error| self.asked.map_or(error, |(upstream, _)| Error::Timeout(upstream)));
                }
            }
        }
    }

    /// Asks the next upstream. False where there is none.
    fn start(&mut self) -> bool {
        let Some(upstream) = self.next.pop_front() else { return false };
        self.asked = Some((upstream.address(), Instant::now()));
        let (query, metrics, over) = (self.query.clone(), self.metrics.clone(), self.over.clone());
        self.running.spawn(async move { attempt(&upstream, &query, &metrics, &over).await });
        true
    }
}

/// Asks one upstream, and notes how it did. One that is silent for long is listened to until the query is
/// answered.
async fn attempt(
    upstream: &Arc<Upstream>,
    query: &UpstreamQuery,
    metrics: &Arc<Metrics>,
    over: &CancellationToken,
) -> Result<Response, Error> {
    let started = Instant::now();
    let mut talk = pin!(exchange(upstream, query));
    let result = match timeout(TIMEOUT, &mut talk).await {
        Ok(result) => {
            note(upstream, result.as_ref().err(), metrics);
            result
        }
        Err(_) => {
            let silent = Error::Timeout(upstream.address());
            note(upstream, Some(&silent), metrics);
            tokio::select! {
                result = talk => result,
                () = over.cancelled() => Err(silent),
            }
        }
    };
    if let Ok(response) = &result {
        let code = response.message.metadata.response_code;
        metrics.forwarding().exchanged(upstream.address(), code, started.elapsed());
    }
    result
}

/// Notes whether an upstream answered in time.
fn note(upstream: &Arc<Upstream>, problem: Option<&Error>, metrics: &Arc<Metrics>) {
    match problem {
        None if upstream.note_answer() => {
            tracing::info!(upstream = %upstream.address(), "upstream healthy again");
        }
        None | Some(Error::NoSocket(_)) => {}
        Some(error) => {
            tracing::debug!(%error, "upstream failed");
            if upstream.note_failure() {
                tracing::warn!(%error, "upstream unhealthy: asked last until it answers in time again");
                tokio::spawn(probe(Arc::downgrade(upstream), metrics.clone()));
            }
        }
    }
}

/// Looks whether an upstream answers in time again, until it does or nobody has it any more. Any answer will
/// do.
async fn probe(upstream: Weak<Upstream>, metrics: Arc<Metrics>) {
    let root = UpstreamQuery::own(&[], RecordType::NS);
    loop {
        let Some(upstream) = upstream.upgrade().filter(|upstream| !upstream.is_healthy()) else { return };
        match timeout(TIMEOUT, exchange(&upstream, &root)).await {
            Ok(Ok(_)) if upstream.note_answer() => {
                tracing::info!(upstream = %upstream.address(), "upstream healthy again");
            }
            Ok(Ok(_)) => {}
            _ => metrics.forwarding().probe_failed(upstream.address()),
        }
        drop(upstream);
        sleep(PROBE).await;
    }
}
