//! The TCP connections of sessions: made, taken, and each served by a task of its own, which only carries
//! bytes.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::mpsc;
use tokio::time::timeout;
use weft_netlink::tcp;
use weft_types::Family;

use crate::bgp::peer::{Distance, Password, Peer};
use crate::bgp::session::Id;

/// For how long a peer may take nothing of what is sent to it (RFC 9687).
const SEND_PATIENCE: Duration = Duration::from_secs(90);
/// For how long a closed connection is read on, so that what was sent last is not lost by a reset.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// How much is read at once.
const CHUNK: usize = 16 * 1024;
/// How many connections may wait to be taken.
const BACKLOG: i32 = 128;
/// What comes to a limit of hops that nothing passes.
const FARTHEST: u8 = 255;

/// What a connection's task tells of its peer, which is known by its address.
#[derive(Debug)]
pub(super) struct Told {
    /// Whose connection it is.
    pub(super) peer: IpAddr,
    /// What happened.
    pub(super) what: What,
}

/// What happened to a connection.
#[derive(Debug)]
pub(super) enum What {
    /// An attempt to connect came to this.
    Connected(Result<TcpStream, String>),
    /// Bytes came.
    Bytes(Id, Vec<u8>),
    /// It is no more.
    Lost(Id, String),
}

/// Listens for peers of one family, everywhere on this machine.
pub(super) fn listen(family: Family, port: u16) -> io::Result<TcpListener> {
    let (domain, any): (_, IpAddr) = match family {
        Family::V4 => (Domain::IPV4, Ipv4Addr::UNSPECIFIED.into()),
        Family::V6 => (Domain::IPV6, Ipv6Addr::UNSPECIFIED.into()),
    };
    let socket = Socket::new(domain, Type::STREAM, Some(Protocol::TCP))?;
    if family == Family::V6 {
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&SocketAddr::new(any, port).into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// Has the segments of connections from that address signed.
pub(super) fn sign(listener: &TcpListener, address: IpAddr, password: &Password) -> Result<(), String> {
    tcp::set_md5(listener, address, password.0.as_bytes()).map_err(|error| error.to_string())
}

/// Connects to a peer.
///
/// # Errors
/// Why not, in words.
pub(super) async fn connect(peer: &Peer) -> Result<TcpStream, String> {
    let socket = if peer.address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() };
    let socket = socket.map_err(|error| format!("no socket: {error}"))?;
    if let Some(password) = &peer.password {
        tcp::set_md5(&socket, peer.address, password.0.as_bytes()).map_err(|error| error.to_string())?;
    }
    keep_near(&socket, peer)?;
    if let Some(source) = peer.source {
        let bound = socket.bind(SocketAddr::new(source, 0));
        bound.map_err(|error| format!("cannot connect from {source}: {error}"))?;
    }
    let connected = socket.connect(SocketAddr::new(peer.address, peer.port)).await;
    connected.map_err(|error| refusal(peer, &error))
}

fn refusal(peer: &Peer, error: &io::Error) -> String {
    let at = format!("at its port {}", peer.port);
    match error.kind() {
        ErrorKind::ConnectionRefused => {
            format!("nobody listens {at}; see that it runs, and that it does not only wait for us elsewhere")
        }
        ErrorKind::NetworkUnreachable | ErrorKind::HostUnreachable => {
            format!("there is no way to it ({error})")
        }
        _ => format!("no connection {at}: {error}"),
    }
}

/// Sets how far packets may go and come.
pub(super) fn keep_near(socket: &impl std::os::fd::AsFd, peer: &Peer) -> Result<(), String> {
    let (hops, least) = match peer.distance {
        Distance::Usual if peer.is_external() => (1, None),
        Distance::Usual => (FARTHEST, None),
        Distance::Hops(hops) => (hops, None),
        Distance::Secured(hops) => (FARTHEST, Some(hops)),
    };
    let set = tcp::set_hops(socket, peer.address, hops);
    let set = set.and_then(|()| least.map_or(Ok(()), |hops| tcp::set_least_hops(socket, peer.address, hops)));
    set.map_err(|error| error.to_string())
}

/// Carries bytes of a connection in both directions. Ends when the sending end of `orders` is dropped: then
/// what was ordered is sent first.
pub(super) async fn serve(
    mut stream: TcpStream,
    peer: IpAddr,
    id: Id,
    mut orders: mpsc::UnboundedReceiver<Vec<u8>>,
    told: mpsc::Sender<Told>,
) {
    let (mut read, mut write) = stream.split();
    let reading = async {
        loop {
            let mut chunk = vec![0; CHUNK];
            match read.read(&mut chunk).await {
                Ok(0) => return "the peer closed the connection".to_owned(),
                Ok(length) => {
                    chunk.truncate(length);
                    // Whoever does not listen is about to end.
                    let _ = told.send(Told { peer, what: What::Bytes(id, chunk) }).await;
                }
                Err(error) => return format!("the connection broke: {error}"),
            }
        }
    };
    tokio::pin!(reading);
    let writing = async {
        while let Some(bytes) = orders.recv().await {
            match timeout(SEND_PATIENCE, write.write_all(&bytes)).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => return Some(format!("the connection broke: {error}")),
                Err(_) => return Some("the peer takes nothing of what is sent to it".to_owned()),
            }
        }
        let _ = write.shutdown().await;
        None
    };
    tokio::pin!(writing);
    let why = tokio::select! {
        why = &mut reading => Some(why),
        why = &mut writing => why,
    };
    match why {
        Some(why) => drop(told.send(Told { peer, what: What::Lost(id, why) }).await),
        None => drop(timeout(LAST_WORDS, reading).await),
    }
}
