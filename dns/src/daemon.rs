//! The daemon as a whole: sockets first, then the cluster; an orderly end. Everything it starts is described
//! elsewhere.

pub mod corefile_source;
pub mod explain;
pub mod http;
pub mod node_local;
pub mod open_files;
pub mod snapshot_file;
mod sources;
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
use weft_cluster::{Client, Watch, WatchFilter};
use weft_daemon::Signals;
use weft_types::{Kind, Snapshot};

use crate::corefile::Given;
use crate::daemon::corefile_source::{CorefileSource, Led};
use crate::daemon::http::Readiness;
use crate::daemon::snapshot_file::SnapshotFile;
use crate::daemon::sources::Sources;
use crate::daemon::takeover::{Successor, Takeover};
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
use crate::zone::{PodNames, Zone, ZoneConfig};

/// How far apart two servers start that are started together.
const SAME_TIME: Duration = Duration::from_secs(5);
/// How long queries that were taken before the end may still take.
const LAST_ANSWERS: Duration = Duration::from_secs(2);

/// Runs until SIGTERM or SIGINT.
///
/// # Errors
/// What cannot be had at the start, and what to do. Later nothing is an error: what fails is tried again.
pub async fn run(options: Options, given: Given) -> Result<(), Error> {
    if options.cleanup {
        return node_local::kernel::remove().map_err(Error::NodeLocal);
    }
    let (corefile, options) = with_corefile(options, given)?;
    serve(options, corefile).await
}

async fn serve(options: Options, corefile: Option<CorefileSource>) -> Result<(), Error> {
    let others: Vec<(u16, Vec<SocketAddr>)> = corefile.iter().flat_map(CorefileSource::other_sites).collect();
    // First of all, so that no signal ends the process where it stands.
    let signals = Signals::new();
    let switches = signal(SignalKind::user_defined1()).map_err(Error::Signal)?;
    let plan = options.node_local.then(|| addresses_of_its_own(&options)).transpose()?;
    let more: Vec<SocketAddr> = others.iter().flat_map(|(_, listen)| listen.clone()).collect();
    let (predecessor, mut inherited, listeners) = listen(&options, &more).await?;
    let certificate = certificate(&options)?;
    let encrypted = encrypted_listeners(&options, certificate.as_ref(), &mut inherited)?;
    let own = own_addresses(&listeners);
    let port = own.first().map_or(53, SocketAddr::port);
    let metrics = Arc::new(Metrics::new(port, &options.zone.to_string()));
    let forwarder = Arc::new(Forwarder::new(forward_options(&options), metrics.clone()));
    let config = zone_config(&options, &own);

    let snapshot_file = options.snapshot.clone().map(SnapshotFile::new);
    let zone = first_zone(!options.cluster.is_away, config.clone(), snapshot_file.as_ref());
    let readiness = Readiness::new(zone.clone());
    let log = Arc::new(QueryLog::start(metrics.unlogged())?);
    let ports = [port].into_iter().chain(others.iter().map(|(port, _)| *port));
    let handlers = handlers(&options, ports, &zone, (&forwarder, &metrics, &log));
    let (settings, changed_settings) = watch::channel(config.clone());
    let led = Led { handlers: &handlers, own, log: log.clone(), zone: settings, metrics: metrics.clone() };
    let sources = Sources::new(corefile, led, &options, (config, forwarder))?;
    let client = client(&options).await?;
    let listed = CancellationToken::new();
    let (tasks, stop) = (TaskTracker::new(), Stop::default());
    let takeover = Takeover {
        options: &options,
        plan,
        rules: RefCell::default(),
        active: watch::Sender::new(false),
        successor: watch::Sender::new(Successor::None),
        handlers: &handlers,
        readiness,
        metrics: metrics.clone(),
        tasks: &tasks,
        stop: &stop,
    };
    let updates = async {
        let Some(client) = client.clone() else { return nothing_to_list(&listed).await };
        let watch = Watch::start(client, &filter(&options), kinds(&options));
        let (zone, active) = (zone.clone(), takeover.active.subscribe());
        let settings = (changed_settings, active);
        keep_updated(watch, zone, snapshot_file, metrics.clone(), listed.clone(), settings).await;
    };
    tokio::select! {
        () = updates => {}
        () = sources.follow(client.clone()) => {}
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

/// Without a cluster all of it is known.
async fn nothing_to_list(listed: &CancellationToken) {
    listed.cancel();
    std::future::pending().await
}

/// The flags with what a Corefile says, where there is one.
fn with_corefile(options: Options, given: Given) -> Result<(Option<CorefileSource>, Options), Error> {
    let Some(path) = options.corefile.clone() else { return Ok((None, options)) };
    let corefile = CorefileSource::read(path, options, given)?;
    let options = corefile.options().clone();
    Ok((Some(corefile), options))
}

/// The zone to begin with: nothing is missing where there is no cluster.
fn first_zone(
    is_cluster: bool,
    config: Arc<ZoneConfig>,
    snapshot_file: Option<&SnapshotFile>,
) -> Arc<ArcSwap<Zone>> {
    Arc::new(ArcSwap::from_pointee(match is_cluster {
        true => initial_zone(config, snapshot_file),
        false => Zone::compile(&Snapshot::default(), config, 1),
    }))
}

/// A handler for each port, all over the same zone.
fn handlers(
    options: &Options,
    ports: impl Iterator<Item = u16>,
    zone: &Arc<ArcSwap<Zone>>,
    (forwarder, metrics, log): (&Arc<Forwarder>, &Arc<Metrics>, &Arc<QueryLog>),
) -> Vec<(u16, Arc<Handler>)> {
    let most_waiting = options.max_concurrent as usize;
    let handler = |port| {
        let handler = Handler::new(zone.clone(), forwarder.clone(), most_waiting, metrics.clone());
        let handler = handler.logged(log.clone());
        let handler = match NonZeroU32::new(options.client_rate) {
            Some(rate) => handler.limited(rate),
            None => handler,
        };
        (port, Arc::new(handler))
    };
    ports.map(handler).collect()
}

/// The way to the API server, where there is a cluster.
async fn client(options: &Options) -> Result<Option<Client>, Error> {
    let view = &options.cluster;
    Ok(match (&view.access, &options.kubeconfig) {
        _ if view.is_away => None,
        (Some(access), _) => Some(weft_cluster::client_by(access).await?),
        (None, file) => Some(weft_cluster::client(file.as_deref()).await?),
    })
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
async fn listen(
    options: &Options,
    more: &[SocketAddr],
) -> Result<(Option<Predecessor>, Inherited, Vec<Listener>), Error> {
    let deadline = Instant::now() + SAME_TIME;
    loop {
        let (predecessor, mut inherited) = claim(options)?;
        let listeners =
            options.listen.iter().chain(more).map(|&address| Listener::bind(address, &mut inherited));
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
    let pods = options.pods == PodNames::Verified || options.complete_search;
    match (pods, options.cluster.without_endpoints) {
        (true, false) => &[Kind::Service, Kind::Namespace, Kind::EndpointSlice, Kind::Pod],
        (false, false) => &[Kind::Service, Kind::Namespace, Kind::EndpointSlice],
        (true, true) => &[Kind::Service, Kind::Namespace, Kind::Pod],
        (false, true) => &[Kind::Service, Kind::Namespace],
    }
}

/// Of which pods: verified names are those of all, but who asks is on this Node where there is a server on
/// each.
fn filter(options: &Options) -> WatchFilter {
    let all = options.pods == PodNames::Verified;
    let view = &options.cluster;
    WatchFilter {
        node: options.hostname_override.clone().filter(|_| !all),
        objects: view.objects.clone(),
        namespaces: view.namespaces.clone(),
        endpoint_pod_names: view.endpoint_pod_names,
        ..WatchFilter::default()
    }
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
        exposure: options.cluster.exposure.clone(),
    })
}

fn forward_options(options: &Options) -> ForwardOptions {
    ForwardOptions {
        policy: options.upstream_policy,
        cache_size: options.cache_size,
        keep_private: options.keep_private,
        case: options.upstream_case,
    }
}
