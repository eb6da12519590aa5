//! The built-in image `weft/echo`: a small HTTP and UDP server that says who it is and whom it sees, with the
//! paths and datagrams that the netexec server of Kubernetes' own test image answers.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use axum::Router;
use axum::extract::{ConnectInfo, Query};
use axum::routing::get;
use clap::Args;
use serde::Deserialize;
use tokio::net::{TcpListener, UdpSocket};
use tokio::signal::unix::{SignalKind, signal};

use crate::error::{Error, Result};

/// The options of the server.
#[derive(Args, Clone, Debug)]
pub struct EchoArgs {
    /// The port, for TCP and UDP
    #[arg(long, env = "PORT", default_value_t = 8080)]
    pub port: u16,
    /// How many seconds to serve on after SIGTERM, as well-behaved servers do while clients learn of their
    /// end
    #[arg(long, default_value_t = 0)]
    pub delay_shutdown: u64,
    /// Addresses for UDP, in place of all. On a node's network, an answer must come from the address that was
    /// asked
    #[arg(long, value_delimiter = ',')]
    pub udp_listen_addresses: Vec<IpAddr>,
}

/// Serves until SIGTERM.
pub async fn run(args: EchoArgs) -> Result<()> {
    let mut terminate = signal(SignalKind::terminate()).map_err(Error::io("watch", "SIGTERM"))?;
    let (http, datagrams) = listen(&args).await?;
    tokio::spawn(serve_http(http));
    for socket in datagrams {
        tokio::spawn(serve_datagrams(socket));
    }
    terminate.recv().await;
    tokio::time::sleep(Duration::from_secs(args.delay_shutdown)).await;
    Ok(())
}

/// Opens the port for TCP and UDP, for both families where the namespace has IPv6.
async fn listen(args: &EchoArgs) -> Result<(TcpListener, Vec<UdpSocket>)> {
    let mut any = SocketAddr::from((Ipv6Addr::UNSPECIFIED, args.port));
    let http = match TcpListener::bind(any).await {
        Ok(http) => http,
        Err(_) => {
            any.set_ip(Ipv4Addr::UNSPECIFIED.into());
            TcpListener::bind(any).await.map_err(cannot_listen(any))?
        }
    };
    let mut addresses: Vec<SocketAddr> =
        args.udp_listen_addresses.iter().map(|&ip| SocketAddr::new(ip, args.port)).collect();
    if addresses.is_empty() {
        addresses.push(any);
    }
    let mut datagrams = Vec::new();
    for address in addresses {
        datagrams.push(UdpSocket::bind(address).await.map_err(cannot_listen(address))?);
    }
    Ok((http, datagrams))
}

fn cannot_listen(address: SocketAddr) -> impl FnOnce(std::io::Error) -> Error {
    move |source| Error::Socket { operation: "listen on", address: address.to_string(), source }
}

/// Answers HTTP on a listener until the runtime ends.
pub(crate) async fn serve_http(listener: TcpListener) {
    let router = Router::new()
        .route("/", get(|| async { hostname() }))
        .route("/hostname", get(|| async { hostname() }))
        .route("/healthz", get(|| async { "ok" }))
        .route("/clientip", get(|ConnectInfo(client): ConnectInfo<SocketAddr>| async move { seen(client) }))
        .route("/echo", get(|Query(query): Query<EchoQuery>| async move { query.msg }));
    let service = router.into_make_service_with_connect_info::<SocketAddr>();
    if let Err(error) = axum::serve(listener, service).await {
        tracing::error!(%error, "HTTP server ended");
    }
}

#[derive(Deserialize)]
struct EchoQuery {
    msg: String,
}

/// Answers datagrams until the runtime ends.
pub(crate) async fn serve_datagrams(socket: UdpSocket) {
    let mut buffer = [0; 2048];
    loop {
        // ICMP errors about earlier answers come back as receive errors: they end nothing.
        let Ok((length, client)) = socket.recv_from(&mut buffer).await else { continue };
        let answer = answer(&String::from_utf8_lossy(&buffer[..length]), client);
        if let Err(error) = socket.send_to(answer.as_bytes(), client).await {
            tracing::warn!(%client, %error, "cannot answer");
        }
    }
}

fn answer(question: &str, client: SocketAddr) -> String {
    match question.trim_end() {
        "hostname" => hostname(),
        "clientip" => seen(client),
        other => match other.split_once(' ') {
            Some(("echo", message)) => message.to_owned(),
            _ => format!("{other:?} is none of: hostname, clientip, echo MESSAGE"),
        },
    }
}

fn hostname() -> String {
    nix::unistd::gethostname().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

/// The client's address and port, an IPv4 client's as such on a socket for both families.
fn seen(client: SocketAddr) -> String {
    let ip: IpAddr = client.ip().to_canonical();
    SocketAddr::new(ip, client.port()).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn datagrams_are_answered_as_netexec_does() {
        let client: SocketAddr = "[::ffff:10.244.1.2]:4000".parse().unwrap();
        assert_eq!(answer("clientip\n", client), "10.244.1.2:4000");
        assert_eq!(answer("echo a b", client), "a b");
        assert_eq!(answer("hostname", client), hostname());
        assert!(answer("what", client).contains("echo MESSAGE"));
    }
}
