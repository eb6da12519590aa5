//! The daemon as a whole: sockets first, then the cluster; an orderly end. Everything it starts is described
//! elsewhere.

use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use nix::ifaddrs::getifaddrs;
use tokio::signal::unix::{Signal, SignalKind, signal};
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
use crate::http::{self, Readiness};
use crate::keeper::Keeper;
use crate::metrics::Metrics;
use crate::options::Options;
use crate::query_log::QueryLog;
use crate::server::{Listener, Secure, SecureListener};
use crate::sources::Sources;
use crate::zone::{PodNames, ZoneConfig};

/// How long questions that were taken before the end may still take.
const LAST_ANSWERS: Duration = Duration::from_secs(2);

/// Runs until SIGTERM or SIGINT.
///
/// # Errors
/// What cannot be had at the start, and what to do. Later nothing is an error: what fails is tried again.
pub async fn run(options: Options) -> Result<(), Error> {
    // First of all, so that no signal ends the process where it stands.
    let signals = Signals::new();
    let switches = signal(SignalKind::user_defined1()).map_err(Error::Signal)?;
    let listeners =
        options.listen.iter().map(|&address| Listener::bind(address)).collect::<Result<Vec<_>, _>>()?;
    let certificate = certificate(&options)?;
    let secure = secure_listeners(&options, certificate.as_ref())?;
    let own = own_addresses(&listeners);
    let port = own.first().map_or(53, SocketAddr::port);
    let metrics = Arc::new(Metrics::new(port, &options.zone.to_string()));
    let forwarder = Arc::new(Forwarder::new(manner(&options), metrics.clone()));
    let (flags, file) = (options.upstreams.clone(), options.resolv_conf.clone());
    let sources = Sources::read(flags, file, own.clone(), forwarder.clone())?;
    let client = weft_cluster::client(options.kubeconfig.as_deref()).await?;

    let keeper = options.snapshot.clone().map(Keeper::new);
    let zone = first_zone(zone_config(&options, &own), keeper.as_ref());
    let zone = Arc::new(ArcSwap::from_pointee(zone));
    let readiness = Arc::new(Readiness::new(zone.clone()));
    let most_waiting = options.max_concurrent as usize;
    let log = Arc::new(QueryLog::start(metrics.unlogged())?);
    let handler = Handler::new(zone.clone(), forwarder, most_waiting, metrics.clone()).logged(log.clone());
    let handler = Arc::new(match NonZeroU32::new(options.client_rate) {
        Some(rate) => handler.limited(rate),
        None => handler,
    });
    serve_http(&options, &readiness, &handler, &metrics).await?;
    let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
    for listener in listeners {
        tracing::info!(address = %listener.address(), "answering over UDP and TCP");
        listener.serve(handler.clone(), &tasks, stop.clone())?;
    }
    for listener in secure {
        tracing::info!(address = %listener.address(), secure = ?listener.secure(), "answering encrypted");
        listener.serve(handler.clone(), &tasks, stop.clone());
    }
    let watch = Watch::start(client.clone(), scope(&options), kinds(&options));
    tokio::select! {
        () = feed(watch, zone, keeper, metrics) => {}
        () = sources.follow(client) => {}
        () = follow(certificate.as_deref()) => {}
        () = switch(log, switches) => {}
        () = leave(signals, &readiness, options.lameduck) => {}
    }
    stop.cancel();
    tasks.close();
    if tokio::time::timeout(LAST_ANSWERS, tasks.wait()).await.is_err() {
        tracing::warn!(questions = tasks.len(), "stopped before every question was answered");
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
) -> Result<Vec<SecureListener>, Error> {
    // The flags demand the certificate.
    let Some(certificate) = certificate else { return Ok(Vec::new()) };
    let dot = options.dot.iter().map(|&address| (address, Secure::Dot));
    let doh = options.doh.iter().map(|&address| (address, Secure::Doh));
    let bind = |(address, secure)| SecureListener::bind(address, secure, certificate.clone());
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
    })
}

fn manner(options: &Options) -> Manner {
    Manner {
        policy: options.upstream_policy,
        cache_size: options.cache_size,
        keep_private: options.keep_private,
    }
}

async fn serve_http(
    options: &Options,
    readiness: &Arc<Readiness>,
    handler: &Arc<Handler>,
    metrics: &Arc<Metrics>,
) -> Result<(), Error> {
    let ready = http::ready(readiness.clone()).merge(http::explain(handler.clone()));
    serve("--health-bind-address", options.health_bind_address, http::health()).await?;
    serve("--ready-bind-address", options.ready_bind_address, ready).await?;
    serve("--metrics-bind-address", options.metrics_bind_address, http::metrics(metrics.clone())).await?;
    Ok(())
}

/// Waits for the signal to end, and then while the cluster takes us off its list. A second signal, or SIGINT,
/// does not wait.
async fn leave(mut signals: Signals, readiness: &Readiness, lameduck: Duration) {
    if signals.next().await == SignalKind::interrupt() {
        return;
    }
    readiness.leave();
    tracing::info!(?lameduck, "told to stop");
    tokio::select! {
        () = tokio::time::sleep(lameduck) => {}
        _ = signals.next() => {}
    }
}
