//! A client of DNS over QUIC and over HTTP/3, and a server for it. No test lives here.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hickory_proto::op::Message;
use quinn::crypto::rustls::QuicClientConfig;
use quinn::{ClientConfig, Connection, ConnectionError, Endpoint, VarInt};
use tokio::time::timeout;
use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::{self, RootCertStore};
use weft_dns::forward::{ForwardOptions, Settings};
use weft_dns::server::certificate::Certificate;
use weft_dns::server::handover::Inherited;
use weft_dns::server::{Limits, Listen, Quic, QuicListener};

use crate::encrypted::certify;
use crate::fixture::zone;
use crate::peers::{MOST_WAITING, Server};

/// Clients of the tests wait no longer.
pub(crate) const DEADLINE: Duration = Duration::from_secs(10);

/// A server for QUIC over the small cluster, and the folder of its certificate.
pub(crate) struct QuicServer {
    pub(crate) server: Server,
    pub(crate) folder: tempfile::TempDir,
    alpn: &'static str,
}

impl QuicServer {
    pub(crate) fn start(quic: Quic, upstreams: &[SocketAddr], limits: Limits) -> QuicServer {
        let folder = tempfile::tempdir().unwrap();
        let [chain, key] = certify(folder.path());
        let certificate = Arc::new(Certificate::read(chain, key).unwrap());
        let settings = Settings { upstreams: upstreams.to_vec(), ..Settings::default() };
        let bind = move || {
            let (address, none) = ("127.0.0.1:0".parse().unwrap(), &mut Inherited::default());
            let listener = QuicListener::bind(address, quic, certificate, none).unwrap();
            Box::new(listener.with_limits(limits)) as Box<dyn Listen>
        };
        let server = Server::launch_by(bind, zone(), settings, ForwardOptions::default(), MOST_WAITING);
        let alpn = if quic == Quic::Doq { "doq" } else { "h3" };
        QuicServer { server, folder, alpn }
    }

    /// A client at that address of loopback.
    pub(crate) fn client(&self, address: &str) -> Client {
        client(self.server.address, self.folder.path(), self.alpn, address)
    }
}

/// A client at `address` of a server whose certificate is in `folder`.
pub(crate) fn client(
    server: SocketAddr,
    folder: &std::path::Path,
    alpn: &'static str,
    address: &str,
) -> Client {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(folder.join("tls.crt")).unwrap()).unwrap();
    let builder = rustls::ClientConfig::builder_with_provider(Arc::new(default_provider()));
    let builder = builder.with_protocol_versions(&[&rustls::version::TLS13]).unwrap();
    let mut config = builder.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![alpn.into()];
    let config = ClientConfig::new(Arc::new(QuicClientConfig::try_from(config).unwrap()));
    let mut endpoint = Endpoint::client(format!("{address}:0").parse().unwrap()).unwrap();
    endpoint.set_default_client_config(config);
    Client { endpoint, server }
}

pub(crate) struct Client {
    endpoint: Endpoint,
    server: SocketAddr,
}

impl Client {
    pub(crate) async fn try_connect(&self) -> Result<Connection, ConnectionError> {
        let connecting = self.endpoint.connect(self.server, "dns.test").unwrap();
        timeout(DEADLINE, connecting).await.expect("the server is silent")
    }

    pub(crate) async fn connect(&self) -> Connection {
        self.try_connect().await.unwrap()
    }
}

/// A message with its length before it.
pub(crate) fn framed(message: &[u8]) -> Vec<u8> {
    [&u16::try_from(message.len()).unwrap().to_be_bytes()[..], message].concat()
}

/// What comes back on a stream of its own for these bytes; none where the stream, or the connection, ends
/// without.
pub(crate) async fn exchange(connection: &Connection, bytes: &[u8]) -> Option<Message> {
    let work = async {
        let (mut send, mut receive) = connection.open_bi().await.ok()?;
        send.write_all(bytes).await.ok()?;
        send.finish().ok()?;
        receive.read_to_end(65537).await.ok()
    };
    let reply = timeout(DEADLINE, work).await.expect("the server is silent")?;
    let message = Message::from_vec(&reply[2..]).unwrap();
    assert_eq!(reply[..2], u16::try_from(reply.len() - 2).unwrap().to_be_bytes(), "one message, whole");
    Some(message)
}

/// The code that the server closed it with.
pub(crate) async fn closed_with(connection: &Connection) -> VarInt {
    match timeout(DEADLINE, connection.closed()).await.expect("the server does not close it") {
        ConnectionError::ApplicationClosed(close) => close.error_code,
        other => panic!("{other}"),
    }
}
