//! DNS over QUIC (RFC 9250) and over HTTP/3 (RFC 8484 on RFC 9114), each at addresses of its own. What is
//! said there is the business of [`super::doq`] and [`super::doh3`].
//!
//! The address of a client is validated before anything is kept of it (RFC 9000 section 8.1.2): that costs a
//! round trip, and nobody can use up the places of another. There is no 0-RTT: what comes with it may be a
//! replay.

use std::io::{self, IoSliceMut};
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use quinn::crypto::rustls::QuicServerConfig;
use quinn::udp::{RecvMeta, Transmit};
use quinn::{
    AsyncUdpSocket, Connection, Endpoint, EndpointConfig, Incoming, Runtime, ServerConfig, TokioRuntime,
    TransportConfig, UdpPoller, VarInt,
};
use socket2::Type;
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_rustls::rustls;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::error::Error;
use crate::pipeline::handler::Handler;
use crate::server::certificate::Certificate;
use crate::server::connections::{Clients, Limits};
use crate::server::handover::Inherited;
use crate::server::listen::{Listen, Stop};
use crate::server::session::Session;
use crate::server::sockets::bind_quic;
use crate::server::{doh3, doq};
use crate::wire::format::Transport;

/// How many bytes of queries may come ahead of their reading: the longest one, framed, or many of the usual.
const RECEIVE_WINDOW: u32 = 1 << 17;
/// How many bytes of answers may be on their way to a client.
const SEND_WINDOW: u64 = 1 << 18;
/// The streams of HTTP/3 that carry no requests: one for control, two for compression (RFC 9114 section 6.2).
const HTTP_STREAMS: u8 = 3;
/// How long the last packets may take. What is closed sends nothing again.
const LINGER: Duration = Duration::from_millis(200);

/// What is spoken within QUIC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quic {
    /// DNS over QUIC.
    Doq,
    /// DNS over HTTP/3.
    Doh3,
}

/// A bound socket for DNS within QUIC.
pub struct QuicListener {
    udp: UdpSocket,
    address: SocketAddr,
    quic: Quic,
    crypto: Arc<QuicServerConfig>,
    limits: Limits,
}

impl QuicListener {
    /// Takes the socket of that address over, or binds it where there is none. Port 0 takes a free one.
    ///
    /// # Errors
    /// The socket cannot be had, and what to do.
    pub fn bind(
        address: SocketAddr,
        quic: Quic,
        certificate: Arc<Certificate>,
        inherited: &mut Inherited,
    ) -> Result<QuicListener, Error> {
        let failed = |source| Error::Listen { address, transport: Transport::Udp, source };
        let udp = match inherited.take(address, Type::DGRAM).pop() {
            Some(socket) => socket.into(),
            None => bind_quic(address).map_err(failed)?,
        };
        let address = udp.local_addr().map_err(failed)?;
        let crypto = Arc::new(crypto(quic, certificate)?);
        Ok(QuicListener { udp, address, quic, crypto, limits: Limits::default() })
    }

    /// The same with other limits for connections.
    pub fn with_limits(self, limits: Limits) -> QuicListener {
        QuicListener { limits, ..self }
    }

    fn endpoint(self, released: CancellationToken) -> io::Result<Endpoint> {
        let mut config = ServerConfig::with_crypto(self.crypto);
        config.transport_config(Arc::new(transport(self.quic, self.limits)));
        // A client is counted, and known as a pod, by the address that it began with.
        config.migration(false);
        let socket = Socket { inner: TokioRuntime.wrap_udp_socket(self.udp)?, released };
        let (ours, runtime) = (EndpointConfig::default(), Arc::new(TokioRuntime));
        Endpoint::new_with_abstract_socket(ours, Some(config), Arc::new(socket), runtime)
    }
}

impl Listen for QuicListener {
    fn transport(&self) -> &'static str {
        match self.quic {
            Quic::Doq => "QUIC",
            Quic::Doh3 => "HTTP/3",
        }
    }

    fn address(&self) -> SocketAddr {
        self.address
    }

    fn duplicates(&self) -> io::Result<Vec<OwnedFd>> {
        self.udp.as_fd().try_clone_to_owned().map(|socket| vec![socket])
    }

    fn serve(self: Box<Self>, handler: Arc<Handler>, tasks: &TaskTracker, stop: Stop) -> Result<(), Error> {
        let (address, quic, limits) = (self.address, self.quic, self.limits);
        let (transport, released) = (Transport::Quic, CancellationToken::new());
        let endpoint = self.endpoint(released.clone());
        let failed = |source| Error::Listen { address, transport: Transport::Udp, source };
        let server = Server {
            endpoint: endpoint.map_err(failed)?,
            quic,
            connections: TaskTracker::new(),
            // Unlike connections of TCP, those of QUIC share their socket with all that is new: they end with
            // it.
            session: Session { handler, transport, limits, tasks: tasks.clone(), stop: stop.accepting },
        };
        tasks.spawn(async move {
            server.accept().await;
            if !stop.all.is_cancelled() {
                // What comes from now on is for the next server.
                released.cancel();
            }
            server.end().await;
        });
        Ok(())
    }
}

/// What takes connections.
struct Server {
    endpoint: Endpoint,
    quic: Quic,
    connections: TaskTracker,
    session: Session,
}

impl Server {
    /// Takes connections until it is time to stop. More than there may be are refused.
    async fn accept(&self) {
        let limits = self.session.limits;
        let (places, clients) = (Arc::new(Semaphore::new(limits.connections)), Clients::new(limits));
        loop {
            let incoming = tokio::select! {
                () = self.session.stop.cancelled() => return,
                incoming = self.endpoint.accept() => incoming,
            };
            let Some(incoming) = incoming else { return };
            if !incoming.remote_address_validated() {
                // It comes again with the token that it is sent.
                let _ = incoming.retry();
                continue;
            }
            let client = incoming.remote_address().ip();
            let place =
                places.clone().try_acquire_owned().ok().and_then(|place| clients.admit(client, place));
            let Some(place) = place else {
                incoming.refuse();
                continue;
            };
            let (quic, session) = (self.quic, self.session.clone());
            self.connections.spawn(async move {
                serve_connection(incoming, quic, session).await;
                drop(place);
            });
        }
    }

    /// Waits until the last answers are given, and all clients told that this is the end.
    async fn end(self) {
        self.endpoint.set_server_config(None);
        self.connections.close();
        self.connections.wait().await;
        let _ = timeout(LINGER, self.endpoint.wait_idle()).await;
    }
}

/// One connection, until either side closes it.
async fn serve_connection(incoming: Incoming, quic: Quic, session: Session) {
    let Some(connection) = handshake(incoming, &session).await else { return };
    let code = match quic {
        Quic::Doq => doq::serve_connection(&connection, session).await,
        Quic::Doh3 => doh3::serve_connection(&connection, session).await,
    };
    // To close is to forget what is not sent yet.
    let _ = timeout(LINGER, connection.closed()).await;
    connection.close(code, b"");
}

/// None where the client speaks no TLS that we do, or takes too long.
async fn handshake(incoming: Incoming, session: &Session) -> Option<Connection> {
    let connecting = incoming.accept().ok()?;
    let hands = tokio::select! {
        () = session.stop.cancelled() => return None,
        hands = timeout(session.limits.timeout, connecting) => hands,
    };
    hands.ok()?.inspect_err(|error| tracing::debug!(%error, "QUIC handshake failed")).ok()
}

fn crypto(quic: Quic, certificate: Arc<Certificate>) -> Result<QuicServerConfig, Error> {
    let builder = rustls::ServerConfig::builder_with_provider(certificate.provider());
    // QUIC has no other (RFC 9001 section 4.2).
    let builder = builder.with_protocol_versions(&[&rustls::version::TLS13]).map_err(Error::Tls)?;
    let mut config = builder.with_no_client_auth().with_cert_resolver(certificate);
    config.alpn_protocols = match quic {
        Quic::Doq => vec![b"doq".to_vec()],
        Quic::Doh3 => vec![b"h3".to_vec()],
    };
    QuicServerConfig::try_from(config).map_err(|error| Error::Tls(rustls::Error::General(error.to_string())))
}

/// Everything that a client can hold on to is bounded.
fn transport(quic: Quic, limits: Limits) -> TransportConfig {
    let mut config = TransportConfig::default();
    config.max_concurrent_bidi_streams(VarInt::from_u32(limits.in_flight.try_into().unwrap_or(u32::MAX)));
    config.max_concurrent_uni_streams(match quic {
        // RFC 9250 section 4.3.3.
        Quic::Doq => VarInt::from_u32(0),
        Quic::Doh3 => VarInt::from(HTTP_STREAMS),
    });
    config.stream_receive_window(VarInt::from_u32(RECEIVE_WINDOW));
    config.receive_window(VarInt::from_u32(RECEIVE_WINDOW));
    config.send_window(SEND_WINDOW);
    config.datagram_receive_buffer_size(None);
    // Never too long for a varint, but for limits that nobody sets.
    config.max_idle_timeout(limits.timeout.try_into().ok());
    config
}

/// A socket that is read until it is released to the next server, which has it too. Sending goes on.
#[derive(Debug)]
struct Socket {
    inner: Arc<dyn AsyncUdpSocket>,
    released: CancellationToken,
}

impl AsyncUdpSocket for Socket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        self.inner.clone().create_io_poller()
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        self.inner.try_send(transmit)
    }

    fn poll_recv(
        &self,
        context: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        match self.released.is_cancelled() {
            true => Poll::Pending,
            false => self.inner.poll_recv(context, buffers, meta),
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.inner.local_addr()
    }

    fn max_transmit_segments(&self) -> usize {
        self.inner.max_transmit_segments()
    }

    fn max_receive_segments(&self) -> usize {
        self.inner.max_receive_segments()
    }

    fn may_fragment(&self) -> bool {
        self.inner.may_fragment()
    }
}
