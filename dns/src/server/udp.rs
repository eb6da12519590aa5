//! DNS over UDP: a thread with a socket of its own for each core, among which the kernel spreads the clients,
//! and as many tasks for what those threads do not answer themselves. A reply leaves from the address that
//! the query was sent to, or the client would not take it: a socket bound to one address does that by itself,
//! one bound to all is told by the kernel which it was.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::thread;

use nix::sys::socket::{setsockopt, sockopt};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::pipeline::handler::{Handler, Step};
use crate::server::batch::Peer;
use crate::server::queue::{Deferred, Queue, queue};
use crate::server::udp_worker::UdpWorker;
use crate::wire::format::Transport;

/// How many datagrams may wait for the full lane. More are dropped.
const QUEUE: usize = 1024;

/// Makes the kernel say, with each datagram, which address it was sent to; only where that is not plain.
pub(super) fn announce_destination(socket: &impl AsFd, bound: SocketAddr) -> io::Result<()> {
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

/// Answers datagrams of all `sockets` until `stop`. Fails where a thread cannot be had.
pub(super) fn serve(
    sockets: Vec<UdpSocket>,
    handler: &Arc<Handler>,
    tasks: &TaskTracker,
    stop: &CancellationToken,
) -> io::Result<()> {
    let (full_lane, deferred) = queue(QUEUE);
    for _ in &sockets {
        tasks.spawn(answer(deferred.clone(), handler.clone(), tasks.clone()));
    }
    for socket in sockets {
        let lane = UdpWorker::new(Arc::new(socket), handler.clone(), full_lane.clone());
        let (running, stop) = (tasks.token(), stop.clone());
        thread::Builder::new().name("dns-udp".to_owned()).spawn(move || {
            lane.run(&stop);
            drop(running);
        })?;
    }
    Ok(())
}

/// The full lane: answers at once what the zone suffices for; the rest waits in a task of its own. Ends after
/// the last of the threads.
async fn answer(deferred: Arc<Queue>, handler: Arc<Handler>, tasks: TaskTracker) {
    while let Some(Deferred { bytes, peer, socket }) = deferred.next().await {
        let Some(client) = peer.address() else { continue };
        match handler.handle(&bytes, client, Transport::Udp) {
            Step::Drop => {}
            Step::Reply(reply) => send(&socket, peer, &reply),
            Step::Pending(waiting) => {
                tasks.spawn(async move { send(&socket, peer, &waiting.finish().await) });
            }
        }
    }
}

fn send(socket: &UdpSocket, peer: Peer, reply: &[u8]) {
    if let Err(error) = peer.send(socket.as_fd(), reply) {
        tracing::debug!(%error, client = ?peer.address(), "cannot send");
    }
}
