//! Connections of clients, whatever is spoken on them: how many there may be, in all and of one client, and
//! how long anything may take.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// What clients can hold on to, for each address that is listened on.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// The most connections at a time. More wait in the kernel until one closes; those of QUIC are refused.
    pub connections: usize,
    /// The most connections of one client. More are closed at once.
    pub of_one_client: usize,
    /// The most queries of one connection that may wait for their answers. More are not read.
    pub in_flight: usize,
    /// How long a client may take to send one whole query, its first byte included, or to take one whole
    /// answer (RFC 7766 section 6.2.3).
    pub timeout: Duration,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { connections: 1024, of_one_client: 128, in_flight: 32, timeout: Duration::from_secs(10) }
    }
}

/// Accepts connections until `stop`, and lets `serve_connection` speak on each in a task of its own.
pub(super) async fn accept<F>(
    listener: TcpListener,
    limits: Limits,
    tasks: TaskTracker,
    stop: CancellationToken,
    serve_connection: impl Fn(TcpStream, SocketAddr) -> F,
) where
    F: Future<Output = ()> + Send + 'static,
{
    let places = Arc::new(Semaphore::new(limits.connections));
    let clients = Clients::new(limits);
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            accepted = async { (places.clone().acquire_owned().await, listener.accept().await) } => accepted,
        };
        match accepted {
            (Ok(place), Ok((stream, client))) => {
                let Some(place) = clients.admit(client.ip(), place) else { continue };
                // Answers are small, and nobody should wait for the next one.
                let _ = stream.set_nodelay(true);
                let session = serve_connection(stream, client);
                tasks.spawn(async move {
                    session.await;
                    drop(place);
                });
            }
            (_, Err(error)) => {
                tracing::warn!(%error, "cannot accept connections");
                // Out of file descriptors, most likely: asking again at once would spin.
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            // Nobody closes the semaphore.
            (Err(_), _) => return,
        }
    }
}

/// How many connections each client has.
pub(super) struct Clients {
    most: usize,
    connected: Mutex<HashMap<IpAddr, usize>>,
}

/// The place of one connection, among all and among those of its client.
pub(super) struct ConnectionPermit {
    clients: Arc<Clients>,
    client: IpAddr,
    _of_all: OwnedSemaphorePermit,
}

impl Clients {
    pub(super) fn new(limits: Limits) -> Arc<Clients> {
        Arc::new(Clients { most: limits.of_one_client, connected: Mutex::default() })
    }

    /// A place for one more connection of that client; none where it has all that it may have.
    pub(super) fn admit(
        self: &Arc<Self>,
        client: IpAddr,
        of_all: OwnedSemaphorePermit,
    ) -> Option<ConnectionPermit> {
        let mut connected = self.connected.lock().unwrap_or_else(PoisonError::into_inner);
        let count = connected.entry(client).or_default();
        if *count == self.most {
            tracing::debug!(%client, "closing a connection: the client has too many");
            return None;
        }
        *count += 1;
        Some(ConnectionPermit { clients: self.clone(), client, _of_all: of_all })
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        let mut connected = self.clients.connected.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = connected.get_mut(&self.client) {
            *count -= 1;
            if *count == 0 {
                connected.remove(&self.client);
            }
        }
    }
}
