//! The daemon as a whole: sockets first, then the cluster; an orderly end. Everything it starts is described
//! elsewhere.

pub mod explain;
pub mod http;
pub mod node_local;
pub mod open_files;
pub mod snapshot_file;
mod takeover;
pub mod upstream_sources;
pub mod zone_updates;

use std::cell::RefCell;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use nix::ifaddrs::getifaddrs;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use weft_cluster::{Watch, WatchFilter};
use weft_daemon::Signals;
use weft_types::Kind;

use crate::daemon::http::Readiness;
use crate::daemon::snapshot_file::SnapshotFile;
use crate::daemon::takeover::{Successor, Takeover};
use crate::daemon::upstream_sources::UpstreamSources;
use crate::daemon::zone_updates::{initial_zone, keep_updated};
use crate::error::Error;
use crate::forward::{ForwardOptions, Forwarder};
use crate::metrics::Metrics;
use crate::options::Options;
use crate::pipeline::handler::Handler;
use crate::pipeline::query_log::QueryLog;
use crate::server::certificate::Certificate;
use crate::server::handover::{self, Inherited, Predecessor};
use crate::server::{Listen, Listener, Secure, SecureListener, Stop};
#[cfg(feature = "quic")]
use crate::server::{Quic, QuicListener};
use crate::zone::{PodNames, ZoneConfig};

/// How far apart two servers start that are started together.
const SAME_TIME: Duration = Duration::from_secs(5);
/// How long queries that were taken before the end may still take.
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
    let plan = options.node_local.then(|| addresses_of_its_own(&options)).transpose()?;
    let (predecessor, mut inherited, listeners) = listen(&options).await?;
    let certificate = certificate(&options)?;
    let encrypted = encrypted_listeners(&options, certificate.as_ref(), &mut inherited)?;
    let own = own_addresses(&listeners);
    let port = own.first().map_or(53, SocketAddr::port);
    let metrics = Arc::new(Metrics::new(port, &options.zone.to_string()));
    plugins(&options).for_each(|name| metrics.enabled(name));
    let forwarder = Arc::new(Forwarder::new(forward_options(&options), metrics.clone()));
    let (flags, file) = (options.upstreams.clone(), options.resolv_conf.clone());
    let config = zone_config(&options, &own);
    let sources = UpstreamSources::read(flags, file, own, config.clone(), forwarder.clone())?;
    let client = weft_cluster::client(options.kubeconfig.as_deref()).await?;

    let snapshot_file = options.snapshot.clone().map(SnapshotFile::new);
    let zone = initial_zone(config, snapshot_file.as_ref());
    let zone = Arc::new(ArcSwap::from_pointee(zone));
    let readiness = Readiness::new(zone.clone());
    let most_waiting = options.max_concurrent as usize;
    let log = Arc::new(QueryLog::start(metrics.unlogged())?);
    let handler = Handler::new(zone.clone(), forwarder, most_waiting, metrics.clone()).logged(log.clone());
    let handler = Arc::new(match NonZeroU32::new(options.client_rate) {
        Some(rate) => handler.limited(rate),
        None => handler,
    });
    let listed = CancellationToken::new();
    let (tasks, stop) = (TaskTracker::new(), Stop::default());
    let takeover = Takeover {
        options: &options,
        plan,
        rules: RefCell::default(),
        active: watch::Sender::new(false),
        successor: watch::Sender::new(Successor::None),
        handler,
        readiness,
        metrics: metrics.clone(),
        tasks: &tasks,
        stop: &stop,
    };
    let watch = Watch::start(client.clone(), &filter(&options), kinds(&options));
    tokio::select! {
        () = keep_updated(watch, zone, snapshot_file, metrics.clone(), listed.clone(), takeover.active.subscribe()) => {}
        () = sources.follow(client) => {}
        () = follow(certificate.as_deref()) => {}
        () = switch(log, switches) => {}
        failure = takeover.serve(transports(listeners, encrypted), predecessor, &listed) => return failure,
        () = takeover.shut_down(signals) => {}
    }
    give_last_answers(&tasks, &stop).await;
    // What is there for the next server is its own by now.
    if options.node_local && *takeover.successor.borrow() == Successor::None {
        node_local::kernel::remove().map_err(Error::NodeLocal)?;
    }
    Ok(())
}

/// Gives a node-local server its addresses. What leads queries there is still to be done.
fn addresses_of_its_own(options: &Options) -> Result<node_local::Plan, Error> {
    let plan = node_local::plan(&options.listen).ok_or(Error::NoOwnAddress)?;
    node_local::kernel::give_addresses(&plan).map_err(Error::NodeLocal)?;
    Ok(plan)
}

async fn give_last_answers(tasks: &TaskTracker, stop: &Stop) {
    stop.all.cancel();
    tasks.close();
    if tokio::time::timeout(LAST_ANSWERS, tasks.wait()).await.is_err() {
        tracing::warn!(queries = tasks.len(), "stopped before every query was answered");
    }
}

fn certificate(options: &Options) -> Result<Option<Arc<Certificate>>, Error> {
    let files = options.tls_certificate.clone().zip(options.tls_key.clone());
    files.map(|(chain, key)| Certificate::read(chain, key).map(Arc::new)).transpose()
}

fn encrypted_listeners(
    options: &Options,
    certificate: Option<&Arc<Certificate>>,
    inherited: &mut Inherited,
) -> Result<Vec<Box<dyn Listen>>, Error> {
    // The flags demand the certificate.
    let Some(certificate) = certificate else { return Ok(Vec::new()) };
    let dot = options.dot.iter().map(|&address| (address, Secure::Dot));
    let doh = options.doh.iter().map(|&address| (address, Secure::Doh));
    let bind = |(address, secure)| SecureListener::bind(address, secure, certificate.clone(), inherited);
    let bound = dot.chain(doh).map(bind).map(|bound| bound.map(|it| Box::new(it) as Box<dyn Listen>));
    let mut listeners = bound.collect::<Result<Vec<_>, _>>()?;
    listeners.extend(quic_listeners(options, certificate, inherited)?);
    Ok(listeners)
}

#[cfg(feature = "quic")]
fn quic_listeners(
    options: &Options,
    certificate: &Arc<Certificate>,
    inherited: &mut Inherited,
) -> Result<Vec<Box<dyn Listen>>, Error> {
    let doq = options.doq.iter().map(|&address| (address, Quic::Doq));
    let doh3 = options.doh3.iter().map(|&address| (address, Quic::Doh3));
    let bind = |(address, quic)| QuicListener::bind(address, quic, certificate.clone(), inherited);
    doq.chain(doh3).map(bind).map(|bound| bound.map(|it| Box::new(it) as Box<dyn Listen>)).collect()
}

#[cfg(not(feature = "quic"))]
fn quic_listeners(
    _: &Options,
    _: &Arc<Certificate>,
    _: &mut Inherited,
) -> Result<Vec<Box<dyn Listen>>, Error> {
    Ok(Vec::new())
}

/// All that is listened on, each transport in its own way.
fn transports(plain: Vec<Listener>, encrypted: Vec<Box<dyn Listen>>) -> Vec<Box<dyn Listen>> {
    let plain = plain.into_iter().map(|listener| Box::new(listener) as Box<dyn Listen>);
    plain.chain(encrypted).collect()
}

/// Turns the query log on and off, as often as it is told to.
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
                tokio::time::sleep(SAME_TIME / 100).await;
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

/// What the names are made of. There are many pods, and they change often: they are watched only where that
/// counts.
fn kinds(options: &Options) -> &'static [Kind] {
    let all = &[Kind::Service, Kind::EndpointSlice, Kind::Namespace, Kind::Pod];
    let pods = options.pods == PodNames::Verified || options.complete_search;
    if pods { all } else { &all[..3] }
}

/// Of which pods: verified names are those of all, but who asks is on this Node where there is a server on
/// each.
fn filter(options: &Options) -> WatchFilter {
    let all = options.pods == PodNames::Verified;
    WatchFilter { node: options.hostname_override.clone().filter(|_| !all), ..WatchFilter::default() }
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
        stub_domains: Arc::default(),
    })
}

/// What CoreDNS calls that which this server does.
fn plugins(options: &Options) -> impl Iterator<Item = &'static str> {
    let always = ["errors", "forward", "health", "kubernetes", "loadbalance", "loop", "prometheus", "ready"];
    let cache = (options.cache_size > 0).then_some("cache");
    let autopath = options.complete_search.then_some("autopath");
    always.into_iter().chain(cache).chain(autopath)
}

fn forward_options(options: &Options) -> ForwardOptions {
    ForwardOptions {
        policy: options.upstream_policy,
        cache_size: options.cache_size,
        keep_private: options.keep_private,
        case: options.upstream_case,
    }
}
