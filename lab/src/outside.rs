//! What is outside the cluster, at the underlay's gateway: a DNS server that the cluster's own forwards to,
//! and an echo server that shows from which address a request leaves the cluster.

use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use hickory_server::Server;
use hickory_server::net::runtime::TokioRuntimeProvider;
use hickory_server::proto::rr::rdata::{A, AAAA, SOA};
use hickory_server::proto::rr::{Name, RData, Record};
use hickory_server::store::in_memory::InMemoryZoneHandler;
use hickory_server::zone_handler::{AxfrPolicy, Catalog, ZoneType};

use crate::addressing::OUTSIDE_ECHO_PORT;
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

/// The sockets of all that is outside, on one address.
struct Sockets {
    dns_tcp: TcpListener,
    dns_udp: UdpSocket,
    echo_tcp: TcpListener,
    echo_udp: UdpSocket,
}

/// Starts the servers on all those addresses, until the process ends.
pub fn start(lab: &LabName, addresses: &[IpAddr]) -> Result<()> {
    let mut server = Server::new(catalog(addresses)?);
    for &address in addresses {
        let sockets = netns::run(&lab.underlay(), move || Sockets::open(address))?;
        let failed =
            |source| Error::Socket { operation: "use sockets on", address: address.to_string(), source };
        tokio::spawn(echo::serve_http(tokio::net::TcpListener::from_std(sockets.echo_tcp).map_err(failed)?));
        let echo_udp = tokio::net::UdpSocket::from_std(sockets.echo_udp).map_err(failed)?;
        tokio::spawn(echo::serve_datagrams(echo_udp));
        server.register_socket(tokio::net::UdpSocket::from_std(sockets.dns_udp).map_err(failed)?);
        let listener = tokio::net::TcpListener::from_std(sockets.dns_tcp).map_err(failed)?;
        server.register_listener(listener, TCP_TIMEOUT, 64);
    }
    tokio::spawn(async move {
        if let Err(error) = server.block_until_done().await {
            tracing::error!(%error, "the DNS server outside ended");
        }
    });
    Ok(())
}

impl Sockets {
    fn open(address: IpAddr) -> Result<Sockets> {
        Ok(Sockets {
            dns_tcp: listen(address, 53)?,
            dns_udp: bind(address, 53)?,
            echo_tcp: listen(address, OUTSIDE_ECHO_PORT)?,
            echo_udp: bind(address, OUTSIDE_ECHO_PORT)?,
        })
    }
}

/// A listener for asynchronous use, in the calling thread's namespace.
pub fn listen(address: IpAddr, port: u16) -> Result<TcpListener> {
    let address = SocketAddr::new(address, port);
    let failed = |source| Error::Socket { operation: "listen on", address: address.to_string(), source };
    let listener = TcpListener::bind(address).map_err(failed)?;
    listener.set_nonblocking(true).map_err(failed)?;
    Ok(listener)
}

fn bind(address: IpAddr, port: u16) -> Result<UdpSocket> {
    let address = SocketAddr::new(address, port);
    let failed = |source| Error::Socket { operation: "bind", address: address.to_string(), source };
    let socket = UdpSocket::bind(address).map_err(failed)?;
    socket.set_nonblocking(true).map_err(failed)?;
    Ok(socket)
}

/// A root zone in which the outside names exist, with all those addresses, and nothing else does.
fn catalog(addresses: &[IpAddr]) -> Result<Catalog> {
    let root = Name::root();
    let mut zone: InMemoryZoneHandler<TokioRuntimeProvider> =
        InMemoryZoneHandler::empty(root.clone(), ZoneType::Primary, AxfrPolicy::Deny);
    let host = name("ns.example.test.")?;
    let soa = SOA::new(host.clone(), host, 1, 7200, 1800, 86400, TTL);
    zone.upsert_mut(Record::from_rdata(root.clone(), TTL, RData::SOA(soa)), 1);
    for outside in OUTSIDE_NAMES {
        for &address in addresses {
            let data = match address {
                IpAddr::V4(address) => RData::A(A(address)),
                IpAddr::V6(address) => RData::AAAA(AAAA(address)),
            };
            zone.upsert_mut(Record::from_rdata(name(outside)?, TTL, data), 1);
        }
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
