//! The lab's API server: a small Kubernetes control plane in this process. It stores objects in memory,
//! serves them over HTTP to kubectl and to kube clients, hands out addresses, and runs the controllers that
//! turn Deployments into Pods and Services into EndpointSlices. It runs no pods: that is the kubelets' work.
//!
//! From the outside in: `http` reads requests, `registry` holds the rules of every write, `defaults`,
//! `validation` and `allocation` those of single kinds, `store` the objects and their history. Everything but
//! `http`, `cluster` and this file is pure state and policy, without tasks or sockets.

mod allocation;
mod cluster;
mod cluster_network_policy;
mod controllers;
mod defaults;
mod discovery;
mod error;
mod field_selector;
mod history;
mod http;
mod initial;
mod ipam_block;
mod object;
mod openapi;
mod patch;
mod registry;
mod resource;
mod scale;
mod selector;
mod store;
mod table;
mod tokens;
mod validation;
mod watch;

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use weft_types::{IpNetwork, Ipv4Network};

use self::allocation::Allocations;
use self::cluster::Cluster;
use self::http::Door;
use self::registry::Registry;
use self::store::Store;
use crate::names::LabName;
use crate::state::LabDir;

/// How long [`ApiServer::shutdown`] waits for open requests to end.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(2);

/// What the control plane hands out and how it serves. [`Config::default`] is the lab's cluster.
#[derive(Clone, Debug)]
pub struct Config {
    /// The ranges of ClusterIPs, at most one of each family; the first is the primary family.
    pub service_cidrs: Vec<IpNetwork>,
    /// The ranges of pod addresses, at most one of each family; every Node gets a part of each.
    pub cluster_cidrs: Vec<IpNetwork>,
    /// The prefix length of a Node's part of an IPv4 range.
    pub node_cidr_mask_ipv4: u8,
    /// The prefix length of a Node's part of an IPv6 range.
    pub node_cidr_mask_ipv6: u8,
    /// The ports that Services may take on the nodes.
    pub node_ports: RangeInclusive<u16>,
    /// Where pods reach this server: the endpoint of Service `default/kubernetes`. `None` leaves it without.
    pub advertise: Option<SocketAddr>,
    /// How many changes a watch can lie behind before it must list again.
    pub history: usize,
    /// How long a watch that asked for bookmarks is quiet before it gets one.
    pub bookmark_interval: Duration,
    /// The lab whose nodes the subresource `proxy` leads to. `None` leads nowhere.
    pub lab: Option<LabName>,
    /// The folder in which pods' logs lie, for the subresource `log`. `None`: nowhere.
    pub pods: Option<LabDir>,
}

impl Default for Config {
    fn default() -> Self {
        let network = |a, b, prefix| {
            let network = Ipv4Network::new_checked(Ipv4Addr::new(a, b, 0, 0), prefix);
            IpNetwork::V4(network.expect("a prefix length of at most 32"))
        };
        Self {
            service_cidrs: vec![network(10, 96, 16)],
            cluster_cidrs: vec![network(10, 244, 16)],
            node_cidr_mask_ipv4: 24,
            node_cidr_mask_ipv6: 64,
            node_ports: 30000..=32767,
            advertise: Some(SocketAddr::new(IpAddr::V4(Ipv4Addr::new(172, 30, 0, 1)), 6443)),
            history: 20_000,
            bookmark_interval: Duration::from_secs(30),
            lab: None,
            pods: None,
        }
    }
}

/// A running API server. Dropping it aborts it; [`ApiServer::shutdown`] ends it in order.
#[derive(Debug)]
pub struct ApiServer {
    addresses: Vec<SocketAddr>,
    tasks: JoinSet<()>,
    shutdown: CancellationToken,
}

impl ApiServer {
    /// Starts serving on those listeners, in the tokio runtime of the caller. A listener may have been bound
    /// in another network namespace than the caller's.
    ///
    /// # Errors
    /// When a listener cannot be handed to the runtime.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn start(config: Config, listeners: Vec<TcpListener>) -> io::Result<Self> {
        let mut registry = Registry::new(
            Store::new(first_version(), config.history),
            Allocations::new(&config.service_cidrs, config.node_ports.clone()),
        );
        registry.store.set_time(Timestamp::now());
        initial::fill(&mut registry, &config).map_err(io::Error::other)?;
        let cluster = Arc::new(Cluster::new(registry));
        let shutdown = CancellationToken::new();
        let mut server = Self { addresses: Vec::new(), tasks: JoinSet::new(), shutdown: shutdown.clone() };
        let controllers = controllers::all(&config);
        server.tasks.spawn(controllers::run(Arc::clone(&cluster), controllers, shutdown.clone()));
        let Config { bookmark_interval, lab, pods, .. } = config;
        let door = Door { cluster, shutdown, bookmark_interval, lab, pods, tokens: Arc::default() };
        for listener in listeners {
            server.serve(listener, &door)?;
        }
        Ok(server)
    }

    /// The addresses that it listens on, in the order of the listeners.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Ends watches, lets open requests finish for a moment, and closes the listeners.
    pub async fn shutdown(mut self) {
        self.shutdown.cancel();
        let all_ended = async { while self.tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(SHUTDOWN_GRACE, all_ended).await.is_err() {
            self.tasks.shutdown().await;
        }
    }

    fn serve(&mut self, listener: TcpListener, door: &Door) -> io::Result<()> {
        listener.set_nonblocking(true)?;
        let listener = tokio::net::TcpListener::from_std(listener)?;
        self.addresses.push(listener.local_addr()?);
        let router = http::router(door.clone());
        let ended = self.shutdown.clone().cancelled_owned();
        self.tasks.spawn(async move {
            let serving = axum::serve(listener, router).with_graceful_shutdown(ended);
            if let Err(error) = serving.await {
                tracing::error!(%error, "the API server stopped serving a listener");
            }
        });
        Ok(())
    }
}

/// The version to count from: the time, so that a client that has seen an earlier server, which had the same
/// address but other objects, is told to list again.
fn first_version() -> u64 {
    u64::try_from(Timestamp::now().as_millisecond()).unwrap_or_default()
}
