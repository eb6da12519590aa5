//! Destroys sockets that are connected to endpoints which their Services no longer have: their addresses were
//! replaced at the call, so that no rule and no change of a map leads them elsewhere. On a thread of its own:
//! a node may have many sockets.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use tracing::{debug, warn};
use weft_netlink::bpf::Map;
use weft_netlink::netns::Namespace;
use weft_netlink::sock_diag::SocketDiag;
use weft_types::Protocol;

use super::layout::{Frontend, PEER, read_endpoint};
use crate::config::{EbpfScope, StaleSockets};
use crate::error::Error;

/// Where container runtimes keep the namespaces of pods.
const NAMESPACES: &str = "/run/netns";

/// Endpoints that are gone from frontends.
pub(super) type Removed = BTreeSet<(Frontend, SocketAddr)>;

/// The way to the thread, which ends with it.
#[derive(Debug)]
pub(super) struct Destroyer {
    removed: Sender<(Arc<Map>, Removed)>,
    which: StaleSockets,
}

impl Destroyer {
    /// Starts the thread, for that network namespace, and for those of pods where their sockets are led too.
    ///
    /// # Errors
    /// Where no thread can be had.
    pub(super) fn start(
        which: StaleSockets,
        scope: EbpfScope,
        home: &Arc<Namespace>,
    ) -> Result<Destroyer, Error> {
        let (sender, receiver) = channel();
        let home = home.clone();
        let work = move || follow(&receiver, scope, &home);
        thread::Builder::new().name("stale-sockets".to_owned()).spawn(work).map_err(Error::Runtime)?;
        Ok(Destroyer { removed: sender, which })
    }

    /// Has the sockets destroyed that went to these endpoints by these frontends. `peers` says which; no
    /// program may lead sockets there any more.
    pub(super) fn destroy(&self, peers: &Arc<Map>, mut removed: Removed) {
        removed.retain(|(frontend, _)| match self.which {
            StaleSockets::None => false,
            StaleSockets::Udp => frontend.protocol == Protocol::Udp,
            StaleSockets::All => true,
        });
        if !removed.is_empty() {
            // The thread ends only when this value does.
            let _ = self.removed.send((peers.clone(), removed));
        }
    }
}

fn follow(removed: &Receiver<(Arc<Map>, Removed)>, scope: EbpfScope, home: &Namespace) {
    while let Ok((peers, mut all)) = removed.recv() {
        while let Ok((_, more)) = removed.try_recv() {
            all.extend(more);
        }
        if let Err(error) = destroy(&peers, &all, scope, home) {
            warn!("{error}; sockets of removed endpoints stay connected to them");
        }
    }
}

fn destroy(
    peers: &Map,
    removed: &Removed,
    scope: EbpfScope,
    home: &Namespace,
) -> Result<(), weft_netlink::Error> {
    let mut stale = BTreeMap::new();
    peers.for_each(|key, frontend| {
        let cookie = key.first_chunk().map(|bytes| u64::from_ne_bytes(*bytes));
        let endpoint = key.get(PEER..).and_then(read_endpoint);
        if let (Some(cookie), Some(endpoint), Some(frontend)) = (cookie, endpoint, Frontend::read(frontend))
            && removed.contains(&(frontend, endpoint))
        {
            stale.insert((cookie, endpoint), frontend);
        }
    })?;
    if stale.is_empty() {
        return Ok(());
    }
    home.run(|| destroy_here(&stale))??;
    if scope == EbpfScope::All {
        for entry in fs::read_dir(NAMESPACES).into_iter().flatten().flatten() {
            // One that goes away meanwhile takes its sockets along.
            if let Ok(namespace) = Namespace::open(entry.path()) {
                namespace.run(|| destroy_here(&stale))??;
            }
        }
    }
    Ok(())
}

/// By the cookie of the socket and its peer.
type Stale = BTreeMap<(u64, SocketAddr), Frontend>;

fn destroy_here(stale: &Stale) -> Result<(), weft_netlink::Error> {
    let mut sockets = SocketDiag::open()?;
    let protocols: BTreeSet<u8> = stale.values().map(|frontend| frontend.protocol.number()).collect();
    for protocol in protocols {
        for socket in sockets.connected(protocol)? {
            if let Some(frontend) = stale.get(&(socket.cookie, socket.peer))
                && frontend.protocol.number() == protocol
                && sockets.destroy(&socket)?
            {
                debug!(frontend = %frontend.socket, endpoint = %socket.peer, "destroyed a stale socket");
            }
        }
    }
    Ok(())
}
