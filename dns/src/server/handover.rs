//! Hands the DNS sockets over from a server to the next one, as in an upgrade: the very sockets, so that
//! nothing that the kernel has queued in them is lost, be it datagrams or connections. Both meet at an
//! abstract Unix socket, which is found by whoever is in the same network namespace; nothing is kept on disk.
//! What the sockets are for is not known here.
//!
//! ```text
//! next                              old
//! claim(): connects           ->    gives the sockets, goes on answering
//! follows the cluster until it is listed, or the old one is gone
//! answers
//! take_over(): one byte         ->    stops taking queries, answers those it took
//! opens a handover socket        <-    closes the connection
//! ```
//!
//! A server of another user is not believed, and gets nothing.

use std::io::{self, ErrorKind, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net;
use std::time::Duration;

use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use nix::unistd::geteuid;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};
use socket2::{Socket, Type};
use tokio::io::AsyncReadExt;
use tokio::net::{UnixListener, UnixStream};
use tokio::time::{Instant, sleep, timeout};

/// How many sockets one message carries. The kernel takes at most 253 (`SCM_MAX_FD`).
const AT_ONCE: usize = 128;
/// How long the old server may take to give its sockets, or to let go.
const TIMEOUT: Duration = Duration::from_secs(5);
/// After what time something is tried again that another has for a moment yet.
const RETRY: Duration = Duration::from_millis(20);

/// The sockets of a server before this one.
#[derive(Debug, Default)]
pub struct Inherited(Vec<Socket>);

impl Inherited {
    /// All sockets of that kind at that address. Each is given once.
    pub fn take(&mut self, address: SocketAddr, kind: Type) -> Vec<Socket> {
        let is_it = |socket: &mut Socket| {
            let bound = socket.local_addr().ok().and_then(|bound| bound.as_socket());
            bound == Some(address) && socket.r#type().is_ok_and(|found| found == kind)
        };
        self.0.extract_if(.., is_it).collect()
    }
}

/// The server before this one. It goes on answering until it has been taken over from.
#[derive(Debug)]
pub struct Predecessor(UnixStream);

/// Asks the server that listens at `address` for its sockets. None where there is no such server. Must be
/// called within a runtime.
///
/// # Errors
/// It does not give them.
pub fn claim(address: SocketAddr) -> io::Result<Option<(Predecessor, Inherited)>> {
    let stream = match net::UnixStream::connect_addr(&socket_name(address)?) {
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => return Ok(None),
        stream => stream?,
    };
    if !is_same_user(&stream) {
        return Err(io::Error::other("a program of another user holds the handover socket of this server"));
    }
    stream.set_read_timeout(Some(TIMEOUT))?;
    let mut sockets = Vec::new();
    loop {
        match receive(&stream, &mut sockets) {
            Ok(true) => {}
            Ok(false) => break,
            // It ends at this moment.
            Err(error) if matches!(error.kind(), ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset) => {
                return Ok(None);
            }
            Err(error) => return Err(error),
        }
    }
    stream.set_nonblocking(true)?;
    Ok(Some((Predecessor(UnixStream::from_std(stream)?), Inherited(sockets))))
}

impl Predecessor {
    /// Waits until it is gone without having handed over.
    pub async fn gone(&mut self) {
        // It says nothing on its own: whatever comes is the end.
        let _ = self.0.read_u8().await;
    }

    /// Tells it that it is not needed any more, and waits until it takes no more queries.
    pub async fn take_over(mut self) {
        // Where it is gone already, nobody needs to be told.
        if self.0.try_write(&[1]).is_ok() && timeout(TIMEOUT, self.gone()).await.is_err() {
            tracing::warn!("the previous server does not release its sockets");
        }
    }
}

/// The socket where the next server finds this one.
#[derive(Debug)]
pub struct HandoverSocket {
    listener: UnixListener,
    sockets: Vec<OwnedFd>,
}

/// The next server, which answers by now. It waits for this value to be dropped.
#[derive(Debug)]
pub struct Successor {
    _stream: UnixStream,
}

impl HandoverSocket {
    /// A handover socket for the server at `address`, with duplicates of its sockets. One that has just been
    /// seen to be gone may have the name for a moment yet.
    ///
    /// # Errors
    /// Another process has the name.
    pub async fn open(address: SocketAddr, sockets: Vec<OwnedFd>) -> io::Result<HandoverSocket> {
        let deadline = Instant::now() + TIMEOUT;
        let listener = loop {
            match net::UnixListener::bind_addr(&socket_name(address)?) {
                Err(error) if error.kind() == ErrorKind::AddrInUse && Instant::now() < deadline => {
                    sleep(RETRY).await;
                }
                listener => break listener?,
            }
        };
        listener.set_nonblocking(true)?;
        Ok(HandoverSocket { listener: UnixListener::from_std(listener)?, sockets })
    }

    /// Waits for the next server to answer. Tells `waiting` while there is one that does not do so yet.
    pub async fn wait_for_successor(self, waiting: impl Fn(bool)) -> Successor {
        loop {
            let Ok((mut stream, _)) = self.listener.accept().await else { continue };
            if !is_same_user(&stream) {
                tracing::warn!("refused to hand over sockets to a program of another user");
                continue;
            }
            if let Err(error) = give(&stream, &self.sockets) {
                tracing::warn!(%error, "cannot hand over the sockets to the next server");
                continue;
            }
            tracing::info!("handed over the sockets: the next server is about to take over");
            waiting(true);
            let taken_over = stream.read_u8().await;
            waiting(false);
            match taken_over {
                Ok(_) => return Successor { _stream: stream },
                Err(_) => tracing::warn!("the next server ended before it took over"),
            }
        }
    }
}

fn socket_name(address: SocketAddr) -> io::Result<net::SocketAddr> {
    net::SocketAddr::from_abstract_name(format!("weft-dns {address}"))
}

fn is_same_user(stream: &impl AsFd) -> bool {
    getsockopt(stream, PeerCredentials).is_ok_and(|peer| peer.uid() == geteuid().as_raw())
}

/// Sends duplicates of all sockets. Each message says whether more follow.
fn give(stream: &UnixStream, sockets: &[OwnedFd]) -> io::Result<()> {
    let sockets: Vec<BorrowedFd<'_>> = sockets.iter().map(AsFd::as_fd).collect();
    let messages = sockets.len().div_ceil(AT_ONCE);
    for (number, some) in sockets.chunks(AT_ONCE).enumerate() {
        let mut room = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(AT_ONCE))];
        let mut control = SendAncillaryBuffer::new(&mut room);
        control.push(SendAncillaryMessage::ScmRights(some));
        let more = [u8::from(number + 1 < messages)];
        sendmsg(stream, &[IoSlice::new(&more)], &mut control, SendFlags::NOSIGNAL)?;
    }
    Ok(())
}

/// Takes one message of sockets. Whether more follow.
fn receive(stream: &net::UnixStream, sockets: &mut Vec<Socket>) -> io::Result<bool> {
    let mut room = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(AT_ONCE))];
    let mut control = RecvAncillaryBuffer::new(&mut room);
    let mut more = [0];
    let received = recvmsg(stream, &mut [IoSliceMut::new(&mut more)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
    if received.bytes == 0 {
        return Err(ErrorKind::UnexpectedEof.into());
    }
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(given) = message {
            sockets.extend(given.map(Socket::from));
        }
    }
    Ok(more == [1])
}
