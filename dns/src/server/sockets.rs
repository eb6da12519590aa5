//! Sockets to listen on: taken over from the previous server, or bound.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use socket2::{Domain, Socket, Type};
use tokio::net::TcpListener;

use crate::server::handover::Inherited;
use crate::server::udp;

/// Connections that wait to be accepted.
const BACKLOG: i32 = 1024;
/// How long a thread waits for datagrams before it looks whether to stop. A socket must not be shut down to
/// wake it: it may be the next server's by then.
const LOOK: Duration = Duration::from_millis(200);
/// Room in the kernel for bursts of datagrams, in bytes. The kernel may grant less.
const RECEIVE_BUFFER: usize = 4 << 20;

pub(super) fn take_or_bind_tcp(address: SocketAddr, inherited: &mut Inherited) -> io::Result<TcpListener> {
    match inherited.take(address, Type::STREAM).pop() {
        Some(socket) => TcpListener::from_std(socket.into()),
        None => bind_tcp(address),
    }
}

fn bind_tcp(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = socket(address, Type::STREAM)?;
    // Connections of a server before this one may still be closing.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

pub(super) fn bind_udp(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = socket(address, Type::DGRAM)?;
    socket.set_recv_buffer_size(RECEIVE_BUFFER)?;
    socket.set_read_timeout(Some(LOOK))?;
    // The kernel spreads clients over the sockets of an address. Another server there is noticed by its TCP
    // socket.
    socket.set_reuse_port(true)?;
    udp::announce_destination(&socket, address)?;
    socket.bind(&address.into())?;
    Ok(socket.into())
}

/// A socket for all connections of QUIC at an address.
#[cfg(feature = "quic")]
pub(super) fn bind_quic(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = socket(address, Type::DGRAM)?;
    socket.set_recv_buffer_size(RECEIVE_BUFFER)?;
    socket.bind(&address.into())?;
    Ok(socket.into())
}

fn socket(address: SocketAddr, kind: Type) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), kind, None)?;
    if address.is_ipv6() {
        // So that `0.0.0.0` and `::` can both be listened on.
        socket.set_only_v6(true)?;
    }
    Ok(socket)
}
