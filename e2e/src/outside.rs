//! What is outside the cluster, at the underlay's gateway: a DNS server that the cluster's own forwards to, and an
//! echo server that shows from which address a request leaves the cluster.

use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use hickory_server::Server;
use hickory_server::net::runtime::TokioRuntimeProvider;
use hickory_server::proto::rr::rdata::{A, SOA};
use hickory_server::proto::rr::{Name, RData, Record};
use hickory_server::store::in_memory::InMemoryZoneHandler;
use hickory_server::zone_handler::{AxfrPolicy, Catalog, ZoneType};

use crate::addressing::{GATEWAY, OUTSIDE_ECHO_PORT};
use crate::echo;
use crate::error::{Error, Result};
use crate::names::LabName;
use crate::netns;

/// The names that exist outside, all of them at the gateway.
pub const OUTSIDE_NAMES: [&str; 2] = ["database.example.test.", "www.example.test."];
/// How long an answer may be kept, in seconds.
const TTL: u32 = 30;
/// How long a TCP connection may be silent.
const TCP_TIMEOUT: Duration = Duration::from_secs(5);

/// The sockets of all that is outside.
struct Sockets {
    dns_tcp: TcpListener,
    dns_udp: UdpSocket,
    echo_tcp: TcpListener,
    echo_udp: UdpSocket,
}

/// Starts the servers, until the process ends.
pub fn start(lab: &LabName) -> Result<()> {
    let sockets = netns::run(&lab.underlay(), || {
        Ok(Sockets {
            dns_tcp: listen(GATEWAY, 53)?,
            dns_udp: bind(GATEWAY, 53)?,
            echo_tcp: listen(GATEWAY, OUTSIDE_ECHO_PORT)?,
            echo_udp: bind(GATEWAY, OUTSIDE_ECHO_PORT)?,
        })
    })?;
    let failed = |source| Error::Socket { operation: "use sockets on", address: GATEWAY.to_string(), source };
    tokio::spawn(echo::serve_http(tokio::net::TcpListener::from_std(sockets.echo_tcp).map_err(failed)?));
    tokio::spawn(echo::serve_datagrams(tokio::net::UdpSocket::from_std(sockets.echo_udp).map_err(failed)?));
    let mut server = Server::new(catalog()?);
    server.register_socket(tokio::net::UdpSocket::from_std(sockets.dns_udp).map_err(failed)?);
    let listener = tokio::net::TcpListener::from_std(sockets.dns_tcp).map_err(failed)?;
    server.register_listener(listener, TCP_TIMEOUT, 64);
    tokio::spawn(async move {
        if let Err(error) = server.block_until_done().await {
            tracing::error!(%error, "the DNS server outside ended");
        }
    });
    Ok(())
}

/// A listener for asynchronous use, in the calling thread's namespace.
pub fn listen(address: Ipv4Addr, port: u16) -> Result<TcpListener> {
    let failed =
        |source| Error::Socket { operation: "listen on", address: format!("{address}:{port}"), source };
    let listener = TcpListener::bind((address, port)).map_err(failed)?;
    listener.set_nonblocking(true).map_err(failed)?;
    Ok(listener)
}

fn bind(address: Ipv4Addr, port: u16) -> Result<UdpSocket> {
    let failed = |source| Error::Socket { operation: "bind", address: format!("{address}:{port}"), source };
    let socket = UdpSocket::bind((address, port)).map_err(failed)?;
    socket.set_nonblocking(true).map_err(failed)?;
    Ok(socket)
}

/// A root zone in which the outside names exist and nothing else does.
fn catalog() -> Result<Catalog> {
    let root = Name::root();
    let mut zone: InMemoryZoneHandler<TokioRuntimeProvider> =
        InMemoryZoneHandler::empty(root.clone(), ZoneType::Primary, AxfrPolicy::Deny);
    let host = name("ns.example.test.")?;
    let soa = SOA::new(host.clone(), host, 1, 7200, 1800, 86400, TTL);
    zone.upsert_mut(Record::from_rdata(root.clone(), TTL, RData::SOA(soa)), 1);
    for outside in OUTSIDE_NAMES {
        zone.upsert_mut(Record::from_rdata(name(outside)?, TTL, RData::A(A(GATEWAY))), 1);
    }
    let mut catalog = Catalog::new();
    catalog.upsert(root.into(), vec![Arc::new(zone)]);
    Ok(catalog)
}

fn name(text: &str) -> Result<Name> {
    Name::from_ascii(text).map_err(|error| Error::Invalid {
        what: "DNS name",
        value: text.to_owned(),
        reason: error.to_string(),
    })
}
