//! The place at which queries are answered: taking it, from a server before this one or when the time has
//! come, and leaving it, to the next one or when nobody asks any more.

use std::cell::RefCell;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use tokio::signal::unix::SignalKind;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use weft_daemon::{Signals, serve};

use crate::daemon::http::{self, Readiness};
use crate::daemon::node_local::{self, kernel::Rules};
use crate::error::Error;
use crate::metrics::Metrics;
use crate::options::Options;
use crate::pipeline::handler::Handler;
use crate::server::handover::{HandoverSocket, Predecessor};
use crate::server::{Listen, Stop};

/// How long another program that is just ending may have an address yet.
const MOMENT: Duration = Duration::from_secs(5);
/// For how long nobody asks before a server believes that nobody will.
const QUIET: Duration = Duration::from_secs(1);

/// Whether there is a next server yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Successor {
    /// There is none.
    None,
    /// It has the sockets too, but does not answer yet.
    Waiting,
    /// It answers, and this one does not any more.
    Serving,
}

/// What answers HTTP.
type HttpTasks = [JoinHandle<io::Result<()>>; 3];

/// Everything with which queries are answered.
pub(crate) struct Takeover<'a> {
    pub(crate) options: &'a Options,
    /// What a node-local server needs of the kernel, and what it has for as long as it is asked.
    pub(crate) plan: Option<node_local::Plan>,
    pub(crate) rules: RefCell<Option<Rules>>,
    /// Whether this is the server that answers.
    pub(crate) active: watch::Sender<bool>,
    /// Whether there is a next server.
    pub(crate) successor: watch::Sender<Successor>,
    /// The handler of each port; the first is that of all others too.
    pub(crate) handlers: &'a [(u16, Arc<Handler>)],
    pub(crate) readiness: Readiness,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) tasks: &'a TaskTracker,
    pub(crate) stop: &'a Stop,
}

impl Takeover<'_> {
    /// Answers: at once or, where there is a server before this one, when the cluster is `listed` or that one
    /// is gone; a standby when it is gone. A node-local server does not answer before the cluster is known:
    /// until then the cluster's servers do. Ends with an error only.
    pub(crate) async fn serve(
        &self,
        listeners: Vec<Box<dyn Listen>>,
        predecessor: Option<Predecessor>,
        listed: &CancellationToken,
    ) -> Result<(), Error> {
        let mut place = None;
        if let (true, Some(first)) = (self.options.handover, listeners.first()) {
            place = Some((first.address(), duplicates(&listeners)?));
        }
        let predecessor = match predecessor {
            Some(predecessor) => self.wait_for_turn(predecessor, listed).await,
            None => None,
        };
        let http = match predecessor {
            None if self.options.node_local && !self.readiness.knows() => {
                tracing::info!(
                    "waiting until the cluster is listed: other servers answer this node's queries until then"
                );
                let http = self.serve_http().await?;
                listed.cancelled().await;
                self.answer(listeners)?;
                http
            }
            None if self.options.standby => {
                self.answer(listeners)?;
                self.serve_http().await?
            }
            None => {
                let http = self.serve_http().await?;
                self.answer(listeners)?;
                http
            }
            Some(predecessor) => {
                self.answer(listeners)?;
                predecessor.take_over().await;
                self.serve_http().await?
            }
        };
        if let Some((address, sockets)) = place {
            self.hand_over(address, sockets, http).await;
        }
        std::future::pending().await
    }

    /// Waits for the time to take over. The server before this one, if it is still there to be relieved.
    async fn wait_for_turn(
        &self,
        mut predecessor: Predecessor,
        listed: &CancellationToken,
    ) -> Option<Predecessor> {
        let time = match self.options.standby {
            true => "it is gone",
            false => "the cluster is listed",
        };
        tracing::info!("another server is active at this address: taking over when {time}");
        tokio::select! {
            () = listed.cancelled(), if !self.options.standby => return Some(predecessor),
            () = predecessor.gone() => tracing::warn!("the previous server is gone"),
        }
        None
    }

    fn handler_of(&self, port: u16) -> &Arc<Handler> {
        let own = self.handlers.iter().find(|(own, _)| *own == port);
        &own.unwrap_or(&self.handlers[0]).1
    }

    fn answer(&self, listeners: Vec<Box<dyn Listen>>) -> Result<(), Error> {
        self.active.send_replace(true);
        if let Some(plan) = &self.plan {
            let rules = node_local::kernel::take_questions(plan).map_err(Error::NodeLocal)?;
            self.rules.replace(Some(rules));
        }
        for listener in listeners {
            tracing::info!(address = %listener.address(), transport = listener.transport(), "listening");
            let handler = self.handler_of(listener.address().port()).clone();
            listener.serve(handler, self.tasks, self.stop.clone())?;
        }
        Ok(())
    }

    /// Waits for the signal to end, and then until nobody asks any more, or the next server answers. A second
    /// signal, or SIGINT, does not wait.
    pub(crate) async fn shut_down(&self, mut signals: Signals) {
        if signals.next().await == SignalKind::interrupt() {
            return;
        }
        self.readiness.leave();
        let lameduck = self.options.lameduck;
        tracing::info!(?lameduck, "shutting down");
        tokio::select! {
            () = self.end_in_order() => {}
            _ = signals.next() => {}
        }
    }

    async fn end_in_order(&self) {
        let decision = async || {
            // The sender lives as long as we wait. A standby takes over by itself when this server is gone.
            let is_decided = |successor: &Successor| self.options.standby || *successor != Successor::Waiting;
            let _ = self.successor.subscribe().wait_for(is_decided).await;
        };
        decision().await;
        // Of its node, nobody is led here from now on.
        if let Some(Err(error)) = self.rules.take().map(Rules::give_back) {
            tracing::warn!(%error, "cannot remove the notrack rules of this server");
        }
        let mut successors = self.successor.subscribe();
        tokio::select! {
            () = nobody_asks(self.options.lameduck, || self.metrics.asked()) => decision().await,
            _ = successors.wait_for(|&successor| successor == Successor::Serving) => {}
        }
    }

    /// Waits for a next server, and leaves it all that is new. Connections that are there go on.
    async fn hand_over(&self, address: SocketAddr, sockets: Vec<OwnedFd>, http: HttpTasks) {
        let place = match HandoverSocket::open(address, sockets).await {
            Ok(place) => place,
            Err(error) => {
                return tracing::warn!(%error, "cannot open the handover socket: the next server cannot take over");
            }
        };
        let waiting = |is_there| {
            self.successor.send_replace(if is_there { Successor::Waiting } else { Successor::None });
        };
        let next = place.wait_for_successor(waiting).await;
        self.active.send_replace(false);
        // It has rules of its own. Were it killed, these would lead to nobody.
        drop(self.rules.take());
        self.stop.accepting.cancel();
        for task in http {
            task.abort();
            // Its socket is closed by then.
            let _ = task.await;
        }
        self.successor.send_replace(Successor::Serving);
        tracing::info!("the next server answers: this one can be stopped");
        drop(next);
    }

    async fn serve_http(&self) -> Result<HttpTasks, Error> {
        let Options { health_bind_address, ready_bind_address, metrics_bind_address, .. } = *self.options;
        let ready = http::ready(self.readiness.clone()).merge(http::explain(self.handlers[0].1.clone()));
        Ok([
            self.serve_http_at("--health-bind-address", health_bind_address, http::health()).await?,
            self.serve_http_at("--ready-bind-address", ready_bind_address, ready).await?,
            self.serve_http_at(
                "--metrics-bind-address",
                metrics_bind_address,
                http::metrics(self.metrics.clone()),
            )
            .await?,
        ])
    }

    /// Serves HTTP there. A server that has just been seen to be gone may have the address for a moment yet.
    async fn serve_http_at(
        &self,
        flag: &'static str,
        address: SocketAddr,
        router: Router,
    ) -> Result<JoinHandle<io::Result<()>>, Error> {
        let deadline = Instant::now() + MOMENT;
        loop {
            match serve(flag, address, router.clone()).await.map_err(Error::from) {
                Err(error) if self.options.handover && error.is_taken() && Instant::now() < deadline => {
                    tokio::time::sleep(MOMENT / 100).await;
                }
                served => return served,
            }
        }
    }
}

/// Of all sockets, for the next server.
fn duplicates(listeners: &[Box<dyn Listen>]) -> Result<Vec<OwnedFd>, Error> {
    let mut sockets = Vec::new();
    for listener in listeners {
        let failed = |source| Error::Handover { address: listener.address(), source };
        sockets.extend(listener.duplicates().map_err(failed)?);
    }
    Ok(sockets)
}

/// Waits until clients have learnt that they are not to ask any more: for that long, and then until nothing
/// comes, but at most four times as long. `asked` counts queries.
async fn nobody_asks(lameduck: Duration, asked: impl Fn() -> u64) {
    let quiet = async {
        tokio::time::sleep(lameduck).await;
        loop {
            let before = asked();
            tokio::time::sleep(QUIET).await;
            if asked() == before {
                break;
            }
        }
    };
    if tokio::time::timeout(4 * lameduck, quiet).await.is_err() {
        tracing::warn!("stopping although queries still arrive");
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    /// How long it waits for clients that ask every so often, for that long.
    async fn waited(lameduck: u64, every: Duration, until: Duration) -> Duration {
        let (start, last) = (tokio::time::Instant::now(), Cell::new(0));
        let asked = || {
            let passed = start.elapsed().min(until).as_millis() / every.as_millis();
            last.set(passed as u64);
            last.get()
        };
        nobody_asks(Duration::from_secs(lameduck), asked).await;
        start.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_answers_on_until_nobody_asks_any_more_but_not_for_ever() {
        let [often, seconds] = [Duration::from_millis(100), Duration::from_secs(1)];
        assert_eq!(waited(5, often, Duration::ZERO).await, 6 * seconds);
        let long = waited(5, often, 9 * seconds).await;
        assert!((10 * seconds..12 * seconds).contains(&long), "{long:?}");
        assert_eq!(waited(5, often, 100 * seconds).await, 20 * seconds);
        assert_eq!(waited(0, often, 100 * seconds).await, Duration::ZERO, "none is asked for");
    }
}
