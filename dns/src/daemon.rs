//! The daemon as a whole: sockets first, then the cluster; an orderly end. Everything it starts is described
//! elsewhere.

use std::cell::RefCell;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU32;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use nix::ifaddrs::getifaddrs;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use weft_cluster::{Scope, View, Watch};
use weft_daemon::{Signals, serve};
use weft_types::Kind;

use crate::certificate::Certificate;
use crate::error::Error;
use crate::feed::{feed, first_zone};
use crate::forward::{Forwarder, Manner};
use crate::handler::Handler;
use crate::handover::{self, Inherited, Predecessor, Succession};
use crate::http::{self, Readiness};
use crate::keeper::Keeper;
use crate::metrics::Metrics;
use crate::node_local::{self, kernel::Rules};
use crate::options::Options;
use crate::query_log::QueryLog;
use crate::server::{Listener, Secure, SecureListener, Stop};
use crate::sources::Sources;
use crate::zone::{PodNames, ZoneConfig};

/// For how long nobody asks before a server believes that nobody will.
const QUIET: Duration = Duration::from_secs(1);
/// How far apart two servers start that are started together.
const SAME_TIME: Duration = Duration::from_secs(5);
/// How long questions that were taken before the end may still take.
const LAST_ANSWERS: Duration = Duration::from_secs(2);

/// Runs until SIGTERM or SIGINT.
///
/// # Errors
/// What cannot be had at the start, and what to do. Later nothing is an error: what fails is tried again.
pub async fn run(options: Options) -> Result<(), Error> {
    if options.cleanup {
        return node_local::kernel::remove().map_err(Error::NodeLocal);
    }
    // First of all, so that no signal ends the process where it stands.
    let signals = Signals::new();
    let switches = signal(SignalKind::user_defined1()).map_err(Error::Signal)?;
    let plan = options.node_local.then(|| node_local::plan(&options.listen).ok_or(Error::NoOwnAddress));
    let plan = plan.transpose()?;
    if let Some(plan) = &plan {
        node_local::kernel::give_addresses(plan).map_err(Error::NodeLocal)?;
    }
    let (predecessor, mut inherited, listeners) = listen(&options).await?;
    let certificate = certificate(&options)?;
    let secure = secure_listeners(&options, certificate.as_ref(), &mut inherited)?;
    let own = own_addresses(&listeners);
    let port = own.first().map_or(53, SocketAddr::port);
    let metrics = Arc::new(Metrics::new(port, &options.zone.to_string()));
    plugins(&options).for_each(|name| metrics.enabled(name));
    let forwarder = Arc::new(Forwarder::new(manner(&options), metrics.clone()));
    let (flags, file) = (options.upstreams.clone(), options.resolv_conf.clone());
    let config = zone_config(&options, &own);
    let sources = Sources::read(flags, file, own, config.clone(), forwarder.clone())?;
    let client = weft_cluster::client(options.kubeconfig.as_deref()).await?;

    let keeper = options.snapshot.clone().map(Keeper::new);
    let zone = first_zone(config, keeper.as_ref());
    let zone = Arc::new(ArcSwap::from_pointee(zone));
    let readiness = Readiness::new(zone.clone());
    let most_waiting = options.max_concurrent as usize;
    let log = Arc::new(QueryLog::start(metrics.unlogged())?);
    let handler = Handler::new(zone.clone(), forwarder, most_waiting, metrics.clone()).logged(log.clone());
    let handler = Arc::new(match NonZeroU32::new(options.client_rate) {
        Some(rate) => handler.limited(rate),
        None => handler,
    });
    let (listed, stage) = (CancellationToken::new(), watch::Sender::new(Stage::Alone));
    let (tasks, stop) = (TaskTracker::new(), Stop::default());
    let post = Post {
        options: &options,
        plan,
        rules: RefCell::default(),
        handler,
        readiness,
        metrics: metrics.clone(),
        tasks: &tasks,
        stop: &stop,
    };
    let watch = Watch::start(client.clone(), scope(&options), kinds(&options));
    tokio::select! {
        () = feed(watch, zone, keeper, metrics.clone(), listed.clone()) => {}
        () = sources.follow(client) => {}
        () = follow(certificate.as_deref()) => {}
        () = switch(log, switches) => {}
        failure = post.hold(listeners, secure, predecessor, &listed, &stage) => return failure,
        () = post.leave(signals, &stage) => {}
    }
    stop.all.cancel();
    tasks.close();
    if tokio::time::timeout(LAST_ANSWERS, tasks.wait()).await.is_err() {
        tracing::warn!(questions = tasks.len(), "stopped before every question was answered");
    }
    // What is there for the next server is its own by now.
    if options.node_local && *stage.borrow() == Stage::Alone {
        node_local::kernel::remove().map_err(Error::NodeLocal)?;
    }
    Ok(())
}

fn certificate(options: &Options) -> Result<Option<Arc<Certificate>>, Error> {
    let files = options.tls_certificate.clone().zip(options.tls_key.clone());
    files.map(|(chain, key)| Certificate::read(chain, key).map(Arc::new)).transpose()
}

fn secure_listeners(
    options: &Options,
    certificate: Option<&Arc<Certificate>>,
    inherited: &mut Inherited,
) -> Result<Vec<SecureListener>, Error> {
    // The flags demand the certificate.
    let Some(certificate) = certificate else { return Ok(Vec::new()) };
    let dot = options.dot.iter().map(|&address| (address, Secure::Dot));
    let doh = options.doh.iter().map(|&address| (address, Secure::Doh));
    let bind = |(address, secure)| SecureListener::bind(address, secure, certificate.clone(), inherited);
    dot.chain(doh).map(bind).collect()
}

/// Turns the log of questions on and off, as often as it is told to.
async fn switch(log: Arc<QueryLog>, mut switches: Signal) {
    while switches.recv().await.is_some() {
        log.switch();
    }
    std::future::pending().await
}

async fn follow(certificate: Option<&Certificate>) {
    match certificate {
        Some(certificate) => certificate.follow().await,
        None => std::future::pending().await,
    }
}

/// The sockets, and the server that has them now where there is one and it is to be asked for them.
async fn listen(options: &Options) -> Result<(Option<Predecessor>, Inherited, Vec<Listener>), Error> {
    let deadline = Instant::now() + SAME_TIME;
    loop {
        let (predecessor, mut inherited) = claim(options)?;
        let listeners = options.listen.iter().map(|&address| Listener::bind(address, &mut inherited));
        match listeners.collect::<Result<Vec<_>, _>>() {
            // A server that started at the same time has them, and is about to say so.
            Err(error)
                if options.standby
                    && predecessor.is_none()
                    && error.is_taken()
                    && Instant::now() < deadline =>
            {
                tokio::time::sleep(SAME_TIME / 50).await;
            }
            listeners => return Ok((predecessor, inherited, listeners?)),
        }
    }
}

/// The server that ran here before and its sockets, where it is to be asked for them and there is one.
fn claim(options: &Options) -> Result<(Option<Predecessor>, Inherited), Error> {
    let Some(&address) = options.listen.first().filter(|_| options.handover) else {
        return Ok((None, Inherited::default()));
    };
    let claimed = handover::claim(address).map_err(|source| Error::Handover { address, source })?;
    Ok(claimed.map_or_else(Default::default, |(predecessor, sockets)| (Some(predecessor), sockets)))
}

/// Whether there is a next server yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// There is none.
    Alone,
    /// It has the sockets too, but does not answer yet.
    Awaited,
    /// It answers, and this one does not any more.
    Relieved,
}

/// What answers HTTP.
type HttpTasks = [JoinHandle<io::Result<()>>; 3];

/// Everything with which questions are answered.
struct Post<'a> {
    options: &'a Options,
    /// What a node-local server needs of the kernel, and what it has for as long as it is asked.
    plan: Option<node_local::Plan>,
    rules: RefCell<Option<Rules>>,
    handler: Arc<Handler>,
    readiness: Readiness,
    metrics: Arc<Metrics>,
    tasks: &'a TaskTracker,
    stop: &'a Stop,
}

impl Post<'_> {
    /// Answers: at once or, where there is a server before this one, when the cluster is `listed` or that one is gone; a
    /// standby when it is gone. A node-local server does not answer before the cluster is known: until then the cluster's
    /// servers do. Ends with an error only.
    async fn hold(
        &self,
        listeners: Vec<Listener>,
        secure: Vec<SecureListener>,
        predecessor: Option<Predecessor>,
        listed: &CancellationToken,
        stage: &watch::Sender<Stage>,
    ) -> Result<(), Error> {
        let mut place = None;
        if let (true, Some(first)) = (self.options.handover, listeners.first()) {
            place = Some((first.address(), duplicates(&listeners, &secure)?));
        }
        let predecessor = match predecessor {
            Some(predecessor) => self.outwait(predecessor, listed).await,
            None => None,
        };
        let http = match predecessor {
            None => {
                let http = self.serve_http().await?;
                if self.options.node_local && !self.readiness.knows() {
                    tracing::info!("others answer until the cluster is listed");
                    listed.cancelled().await;
                }
                self.answer(listeners, secure)?;
                http
            }
            Some(predecessor) => {
                self.answer(listeners, secure)?;
                predecessor.relieve().await;
                self.serve_http().await?
            }
        };
        if let Some((address, sockets)) = place {
            self.await_relief(address, sockets, http, stage).await;
        }
        std::future::pending().await
    }

    /// Waits for the time to take over. The server before this one, if it is still there to be relieved.
    async fn outwait(&self, mut predecessor: Predecessor, listed: &CancellationToken) -> Option<Predecessor> {
        let time = match self.options.standby {
            true => "it is gone",
            false => "the cluster is listed",
        };
        tracing::info!("another server answers here: taking over when {time}");
        tokio::select! {
            () = listed.cancelled(), if !self.options.standby => return Some(predecessor),
            () = predecessor.gone() => tracing::warn!("the server before this one is gone"),
        }
        None
    }

    fn answer(&self, listeners: Vec<Listener>, secure: Vec<SecureListener>) -> Result<(), Error> {
        if let Some(plan) = &self.plan {
            let rules = node_local::kernel::take_questions(plan).map_err(Error::NodeLocal)?;
            self.rules.replace(Some(rules));
        }
        for listener in listeners {
            tracing::info!(address = %listener.address(), "answering over UDP and TCP");
            listener.serve(self.handler.clone(), self.tasks, self.stop.clone())?;
        }
        for listener in secure {
            tracing::info!(address = %listener.address(), secure = ?listener.secure(), "answering encrypted");
            listener.serve(self.handler.clone(), self.tasks, self.stop.clone());
        }
        Ok(())
    }

    /// Waits for the signal to end, and then until nobody asks any more, or the next server answers. A second signal, or
    /// SIGINT, does not wait.
    async fn leave(&self, mut signals: Signals, stage: &watch::Sender<Stage>) {
        if signals.next().await == SignalKind::interrupt() {
            return;
        }
        self.readiness.leave();
        let lameduck = self.options.lameduck;
        tracing::info!(?lameduck, "told to stop");
        tokio::select! {
            () = self.end_in_order(stage) => {}
            _ = signals.next() => {}
        }
    }

    async fn end_in_order(&self, stage: &watch::Sender<Stage>) {
        let decision = async || {
            // The sender lives as long as we wait. A standby takes over by itself when this server is gone.
            let is_decided = |stage: &Stage| self.options.standby || *stage != Stage::Awaited;
            let _ = stage.subscribe().wait_for(is_decided).await;
        };
        decision().await;
        // Of its node, nobody is led here from now on.
        if let Some(Err(error)) = self.rules.take().map(Rules::give_back) {
            tracing::warn!(%error, "cannot remove the rules that lead to this server");
        }
        let mut stages = stage.subscribe();
        tokio::select! {
            () = nobody_asks(self.options.lameduck, || self.metrics.asked()) => decision().await,
            _ = stages.wait_for(|&stage| stage == Stage::Relieved) => {}
        }
    }

    /// Waits for a next server, and leaves it all that is new. Connections that are there go on.
    async fn await_relief(
        &self,
        address: SocketAddr,
        sockets: Vec<OwnedFd>,
        http: HttpTasks,
        stage: &watch::Sender<Stage>,
    ) {
        let place = match Succession::open(address, sockets) {
            Ok(place) => place,
            Err(error) => return tracing::warn!(%error, "the next server will not find this one"),
        };
        let waiting = |is_there| {
            stage.send_replace(if is_there { Stage::Awaited } else { Stage::Alone });
        };
        let successor = place.take_place(waiting).await;
        // It has rules of its own. Were it killed, these would lead to nobody.
        drop(self.rules.take());
        self.stop.intake.cancel();
        for task in http {
            task.abort();
            // Its socket is closed by then.
            let _ = task.await;
        }
        stage.send_replace(Stage::Relieved);
        tracing::info!("the next server answers; this one can be stopped");
        drop(successor);
    }

    async fn serve_http(&self) -> Result<HttpTasks, Error> {
        let Options { health_bind_address, ready_bind_address, metrics_bind_address, .. } = *self.options;
        let ready = http::ready(self.readiness.clone()).merge(http::explain(self.handler.clone()));
        Ok([
            serve("--health-bind-address", health_bind_address, http::health()).await?,
            serve("--ready-bind-address", ready_bind_address, ready).await?,
            serve("--metrics-bind-address", metrics_bind_address, http::metrics(self.metrics.clone()))
                .await?,
        ])
    }
}

/// Of all sockets, for the next server.
fn duplicates(listeners: &[Listener], secure: &[SecureListener]) -> Result<Vec<OwnedFd>, Error> {
    let mut sockets = Vec::new();
    for listener in listeners {
        let failed = |source| Error::Handover { address: listener.address(), source };
        sockets.extend(listener.duplicates().map_err(failed)?);
    }
    for listener in secure {
        let failed = |source| Error::Handover { address: listener.address(), source };
        sockets.push(listener.duplicate().map_err(failed)?);
    }
    Ok(sockets)
}

/// Every address and port that the listeners can be reached at.
fn own_addresses(listeners: &[Listener]) -> Vec<SocketAddr> {
    let of_machine: Vec<IpAddr> = getifaddrs()
        .into_iter()
        .flatten()
        .filter_map(|interface| {
            let address = interface.address?;
            let v4 = address.as_sockaddr_in().map(|address| IpAddr::V4(address.ip()));
            v4.or_else(|| address.as_sockaddr_in6().map(|address| IpAddr::V6(address.ip())))
        })
        .collect();
    let reached = |listener: &Listener| {
        let bound = listener.address();
        let all = of_machine.iter().filter(move |address| address.is_ipv4() == bound.is_ipv4());
        match bound.ip().is_unspecified() {
            true => all.map(|&address| SocketAddr::new(address, bound.port())).collect(),
            false => vec![bound],
        }
    };
    listeners.iter().flat_map(reached).collect()
}

/// What the names are made of. There are many pods, and they change often: they are watched only where that counts.
fn kinds(options: &Options) -> &'static [Kind] {
    let all = &[Kind::Service, Kind::EndpointSlice, Kind::Namespace, Kind::Pod];
    let pods = options.pods == PodNames::Verified || options.complete_search;
    if pods { all } else { &all[..3] }
}

/// Of which pods: verified names are those of all, but who asks is on this Node where there is a server on each.
fn scope(options: &Options) -> Scope {
    let all = options.pods == PodNames::Verified;
    Scope { node: options.hostname_override.clone().filter(|_| !all), ..View::Whole.into() }
}

fn zone_config(options: &Options, own: &[SocketAddr]) -> Arc<ZoneConfig> {
    let reachable = |address: &IpAddr| !address.is_loopback();
    let listen = own.iter().map(SocketAddr::ip).filter(reachable).collect();
    Arc::new(ZoneConfig {
        zone: options.zone.clone(),
        ttl: options.ttl,
        pods: options.pods,
        complete_search: options.complete_search,
        listen,
        delegated: Arc::default(),
    })
}

/// What CoreDNS calls that which this server does.
fn plugins(options: &Options) -> impl Iterator<Item = &'static str> {
    let always = ["errors", "forward", "health", "kubernetes", "loadbalance", "loop", "prometheus", "ready"];
    let cache = (options.cache_size > 0).then_some("cache");
    let autopath = options.complete_search.then_some("autopath");
    always.into_iter().chain(cache).chain(autopath)
}

fn manner(options: &Options) -> Manner {
    Manner {
        policy: options.upstream_policy,
        cache_size: options.cache_size,
        keep_private: options.keep_private,
        case: options.upstream_case,
    }
}

/// Waits until clients have learnt that they are not to ask any more: for that long, and then until nothing comes, but
/// at most four times as long. `asked` counts questions.
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
        tracing::warn!("stopping although questions still come");
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
