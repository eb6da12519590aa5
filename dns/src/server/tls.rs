//! Encrypted DNS: over TLS (RFC 7858) and over HTTPS (RFC 8484), each at addresses of its own. What is said
//! there is the business of [`super::tcp`] and [`super::doh`].

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::server::TlsStream;
use tokio_util::task::TaskTracker;

use crate::error::Error;
use crate::pipeline::handler::Handler;
use crate::server::certificate::Certificate;
use crate::server::connections::{Limits, accept};
use crate::server::doh;
use crate::server::handover::Inherited;
use crate::server::listen::{Listen, Stop};
use crate::server::session::Session;
use crate::server::sockets::take_or_bind_tcp;
use crate::wire::format::Transport;

/// What is spoken within TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Secure {
    /// DNS over TLS.
    Dot,
    /// DNS over HTTPS.
    Doh,
}

/// A bound socket for encrypted DNS.
pub struct SecureListener {
    tcp: TcpListener,
    address: SocketAddr,
    secure: Secure,
    acceptor: TlsAcceptor,
    limits: Limits,
}

impl SecureListener {
    /// Takes the socket of that address over, or binds it where there is none. Port 0 takes a free one. Must
    /// be called within a runtime.
    ///
    /// # Errors
    /// The socket cannot be had, and what to do.
    pub fn bind(
        address: SocketAddr,
        secure: Secure,
        certificate: Arc<Certificate>,
        inherited: &mut Inherited,
    ) -> Result<SecureListener, Error> {
        let failed = |source| Error::Listen { address, transport: Transport::Tcp, source };
        let tcp = take_or_bind_tcp(address, inherited).map_err(failed)?;
        let address = tcp.local_addr().map_err(failed)?;
        let acceptor = TlsAcceptor::from(Arc::new(config(secure, certificate)?));
        Ok(SecureListener { tcp, address, secure, acceptor, limits: Limits::default() })
    }
}

impl Listen for SecureListener {
    fn transport(&self) -> &'static str {
        match self.secure {
            Secure::Dot => "TLS",
            Secure::Doh => "HTTPS",
        }
    }

    fn address(&self) -> SocketAddr {
        self.address
    }

    fn duplicates(&self) -> io::Result<Vec<OwnedFd>> {
        self.tcp.as_fd().try_clone_to_owned().map(|socket| vec![socket])
    }

    fn serve(self: Box<Self>, handler: Arc<Handler>, tasks: &TaskTracker, stop: Stop) -> Result<(), Error> {
        let SecureListener { tcp, secure, acceptor, limits, .. } = *self;
        let transport = Transport::Tls;
        let session = Session { handler, transport, limits, tasks: tasks.clone(), stop: stop.all };
        let serve_connection = move |stream, client| {
            let (acceptor, session) = (acceptor.clone(), session.clone());
            async move {
                let Some(stream) = handshake(&acceptor, stream, &session).await else { return };
                match secure {
                    Secure::Dot => session.serve(stream, client).await,
                    Secure::Doh => doh::serve_connection(stream, client, session).await,
                }
            }
        };
        tasks.spawn(accept(tcp, limits, tasks.clone(), stop.accepting, serve_connection));
        Ok(())
    }
}

/// None where the client speaks no TLS that we do, or takes too long.
async fn handshake(
    acceptor: &TlsAcceptor,
    stream: TcpStream,
    session: &Session,
) -> Option<TlsStream<TcpStream>> {
    let hands = tokio::select! {
        () = session.stop.cancelled() => return None,
        hands = timeout(session.limits.timeout, acceptor.accept(stream)) => hands,
    };
    hands.ok()?.inspect_err(|error| tracing::debug!(%error, "TLS handshake failed")).ok()
}

fn config(secure: Secure, certificate: Arc<Certificate>) -> Result<ServerConfig, Error> {
    let builder = ServerConfig::builder_with_provider(certificate.provider());
    let builder = builder.with_safe_default_protocol_versions().map_err(Error::Tls)?;
    let mut config = builder.with_no_client_auth().with_cert_resolver(certificate);
    config.alpn_protocols = match secure {
        // RFC 7858 has no name for it; the registry of ALPN does.
        Secure::Dot => vec![b"dot".to_vec()],
        Secure::Doh => vec![b"h2".to_vec(), b"http/1.1".to_vec()],
    };
    Ok(config)
}
