//! DNS over UDP. A reply leaves from the address that the question was sent to, or the client would not take it:
//! a socket bound to one address does that by itself, one bound to all is told by the kernel which it was.

use std::io::{self, IoSlice, IoSliceMut};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsRawFd;
use std::sync::Arc;

use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, sendmsg, setsockopt, sockopt,
};
use tokio::io::Interest;
use tokio::net::UdpSocket;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::handler::{Handler, Step};
use crate::message::{LARGEST_UDP, Transport};

/// The longest datagram that is read; what is longer is no question.
const LONGEST: usize = 4096;

/// Where a datagram came from, and which of our addresses it was sent to.
#[derive(Clone, Copy)]
struct Path {
    client: SocketAddr,
    /// Not known where the socket is bound to one address: it needs not be.
    local: Option<Local>,
}

/// One of our addresses as the kernel tells it, ready to be told back.
#[derive(Clone, Copy)]
enum Local {
    V4(libc::in_pktinfo),
    V6(libc::in6_pktinfo),
}

/// A socket that knows how it must answer.
struct Wire {
    socket: UdpSocket,
    all_addresses: bool,
}

/// Makes the kernel say, with each datagram, which address it was sent to; only where that is not plain.
pub(super) fn announce_destination(socket: &UdpSocket, bound: SocketAddr) -> io::Result<()> {
    match bound {
        SocketAddr::V4(bound) if bound.ip().is_unspecified() => {
            Ok(setsockopt(socket, sockopt::Ipv4PacketInfo, &true)?)
        }
        SocketAddr::V6(bound) if bound.ip().is_unspecified() => {
            Ok(setsockopt(socket, sockopt::Ipv6RecvPacketInfo, &true)?)
        }
        _ => Ok(()),
    }
}

/// Answers datagrams until `stop`.
pub(super) async fn serve(
    socket: UdpSocket,
    bound: SocketAddr,
    handler: Arc<Handler>,
    tasks: TaskTracker,
    stop: CancellationToken,
) {
    let wire = Arc::new(Wire { socket, all_addresses: bound.ip().is_unspecified() });
    let mut buffer = vec![0; LONGEST];
    loop {
        let received = tokio::select! {
            () = stop.cancelled() => return,
            received = wire.receive(&mut buffer) => received,
        };
        match received {
            Ok((length, path)) => answer(&wire, path, &handler, &buffer[..length], &tasks).await,
            // Such as an ICMP error for an earlier reply: the socket itself lives on.
            Err(error) => tracing::debug!(%error, %bound, "cannot receive"),
        }
    }
}

/// Answers at once what the zone suffices for; the rest waits in a task of its own.
async fn answer(wire: &Arc<Wire>, path: Path, handler: &Arc<Handler>, bytes: &[u8], tasks: &TaskTracker) {
    let mut reply = [0; LARGEST_UDP as usize];
    if let Some(length) = handler.handle_fast(bytes, path.client.ip(), &mut reply) {
        return wire.send(&reply[..length], path).await;
    }
    match handler.handle(bytes, path.client.ip(), Transport::Udp) {
        Step::Silence => {}
        Step::Reply(reply) => wire.send(&reply, path).await,
        Step::Wait(waiting) => {
            let wire = wire.clone();
            tasks.spawn(async move { wire.send(&waiting.finish().await, path).await });
        }
    }
}

impl Wire {
    async fn receive(&self, buffer: &mut [u8]) -> io::Result<(usize, Path)> {
        if self.all_addresses {
            return self
                .socket
                .async_io(Interest::READABLE, || receive_with_local(&self.socket, buffer))
                .await;
        }
        let (length, client) = self.socket.recv_from(buffer).await?;
        Ok((length, Path { client, local: None }))
    }

    async fn send(&self, reply: &[u8], path: Path) {
        let sent = match path.local {
            None => self.socket.send_to(reply, path.client).await,
            Some(local) => {
                let send = || send_from(&self.socket, reply, path.client, local);
                self.socket.async_io(Interest::WRITABLE, send).await
            }
        };
        if let Err(error) = sent {
            tracing::debug!(%error, client = %path.client, "cannot send");
        }
    }
}

fn receive_with_local(socket: &UdpSocket, buffer: &mut [u8]) -> io::Result<(usize, Path)> {
    let mut control = nix::cmsg_space!(libc::in_pktinfo, libc::in6_pktinfo);
    let mut parts = [IoSliceMut::new(buffer)];
    let message = recvmsg::<SockaddrStorage>(
        socket.as_raw_fd(),
        &mut parts,
        Some(&mut control),
        MsgFlags::MSG_DONTWAIT,
    )?;
    let local = message.cmsgs()?.find_map(|control| match control {
        ControlMessageOwned::Ipv4PacketInfo(info) => Some(Local::V4(info)),
        ControlMessageOwned::Ipv6PacketInfo(info) => Some(Local::V6(info)),
        _ => None,
    });
    let client = message.address.as_ref().and_then(address).ok_or(io::ErrorKind::InvalidData)?;
    Ok((message.bytes, Path { client, local }))
}

fn address(storage: &SockaddrStorage) -> Option<SocketAddr> {
    let v4 =
        storage.as_sockaddr_in().map(|address| SocketAddr::new(IpAddr::V4(address.ip()), address.port()));
    v4.or_else(|| storage.as_sockaddr_in6().map(|address| SocketAddr::V6((*address).into())))
}

fn send_from(socket: &UdpSocket, reply: &[u8], client: SocketAddr, local: Local) -> io::Result<usize> {
    let to = SockaddrStorage::from(client);
    let parts = [IoSlice::new(reply)];
    let send = |control: ControlMessage<'_>| {
        Ok(sendmsg(socket.as_raw_fd(), &parts, &[control], MsgFlags::MSG_DONTWAIT, Some(&to))?)
    };
    match local {
        // The route back is the kernel's choice: only the address is bound, not the interface.
        Local::V4(info) => send(ControlMessage::Ipv4PacketInfo(&libc::in_pktinfo { ipi_ifindex: 0, ..info })),
        // A link-local address means nothing without its interface.
        Local::V6(info) => send(ControlMessage::Ipv6PacketInfo(&info)),
    }
}
