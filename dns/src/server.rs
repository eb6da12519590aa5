//! The DNS sockets: for each address one of TCP, and one of UDP for each core, served until told to stop. What is
//! answered is the handler's business.

mod batch;
pub mod certificate;
mod connections;
mod doh;
pub mod handover;
mod queue;
mod tcp;
mod tls;
mod udp;
mod udp_worker;

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::thread::available_parallelism;
use std::time::Duration;

use socket2::{Domain, Socket, Type};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use connections::Limits;
pub use tls::{Secure, SecureListener};

use crate::error::Error;
use crate::pipeline::handler::Handler;
use crate::server::handover::Inherited;
use crate::wire::format::Transport;
use tcp::Session;

/// Room in the kernel for bursts of datagrams, in bytes. The kernel may grant less.
const RECEIVE_BUFFER: usize = 4 << 20;
/// How long a thread waits for datagrams before it looks whether to stop. A socket must not be shut down to wake it: it
/// may be the next server's by then.
const LOOK: Duration = Duration::from_millis(200);
/// Connections that wait to be accepted.
const BACKLOG: i32 = 1024;

/// Bound sockets, UDP and TCP, on the same address and port.
pub struct Listener {
    /// One for each core that the process may use.
    udp: Vec<UdpSocket>,
    tcp: TcpListener,
    address: SocketAddr,
    limits: Limits,
}

/// When to end what.
#[derive(Clone, Debug)]
pub struct Stop {
    /// Neither datagrams nor connections are taken any more; connections that are there go on.
    pub accepting: CancellationToken,
    /// Everything.
    pub all: CancellationToken,
}

/// How many more ports are tried that are free for TCP, until one is for UDP too.
const FREE_PORTS: usize = 16;

impl Default for Stop {
    fn default() -> Stop {
        let all = CancellationToken::new();
        Stop { accepting: all.child_token(), all }
    }
}

impl Listener {
    /// Takes the sockets of that address over, or binds them where there are none. Port 0 takes a free one. Must be called
    /// within a runtime.
    ///
    /// # Errors
    /// Which socket cannot be had, and what to do.
    pub fn bind(address: SocketAddr, inherited: &mut Inherited) -> Result<Listener, Error> {
        let is_taken = |error: &Error| {
            let Error::Listen { transport: Transport::Udp, source, .. } = error else { return false };
            source.kind() == io::ErrorKind::AddrInUse
        };
        let mut tries = 0..FREE_PORTS;
        loop {
            match Listener::bind_once(address, inherited) {
                Err(error) if address.port() == 0 && is_taken(&error) && tries.next().is_some() => {}
                outcome => return outcome,
            }
        }
    }

    fn bind_once(address: SocketAddr, inherited: &mut Inherited) -> Result<Listener, Error> {
        let failed = |transport| move |source| Error::Listen { address, transport, source };
        let tcp = take_or_bind_tcp(address, inherited).map_err(failed(Transport::Tcp))?;
        let address = tcp.local_addr().map_err(failed(Transport::Tcp))?;
        // All of those that are taken over, however many: the kernel spreads clients over them.
        let mut udp: Vec<UdpSocket> =
            inherited.take(address, Type::DGRAM).into_iter().map(UdpSocket::from).collect();
        if udp.is_empty() {
            let cores = available_parallelism().map_or(1, usize::from);
            let bound = (0..cores).map(|_| bind_udp(address)).collect::<io::Result<_>>();
            udp = bound.map_err(failed(Transport::Udp))?;
        }
        Ok(Listener { udp, tcp, address, limits: Limits::default() })
    }

    /// The same with other limits for connections.
    pub fn with_limits(self, limits: Limits) -> Listener {
        Listener { limits, ..self }
    }

    /// The address and port that it is bound to.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Duplicates of all sockets, for the next server.
    ///
    /// # Errors
    /// The process may not open more files.
    pub fn duplicates(&self) -> io::Result<Vec<OwnedFd>> {
        let udp = self.udp.iter().map(|socket| socket.as_fd().try_clone_to_owned());
        udp.chain([self.tcp.as_fd().try_clone_to_owned()]).collect()
    }

    /// Serves all sockets on `tasks` and on threads that `tasks` waits for, until `stop`. Queries that were taken
    /// by then are still answered.
    ///
    /// # Errors
    /// The system gives no more threads.
    pub fn serve(self, handler: Arc<Handler>, tasks: &TaskTracker, stop: Stop) -> Result<(), Error> {
        udp::serve(self.udp, &handler, tasks, &stop.accepting).map_err(Error::Thread)?;
        let limits = self.limits;
        let transport = Transport::Tcp;
        let session = Session { handler, transport, limits, tasks: tasks.clone(), stop: stop.all };
        let serve_connection = move |stream, client| session.clone().serve(stream, client);
        tasks.spawn(connections::accept(self.tcp, limits, tasks.clone(), stop.accepting, serve_connection));
        Ok(())
    }
}

fn take_or_bind_tcp(address: SocketAddr, inherited: &mut Inherited) -> io::Result<TcpListener> {
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

fn bind_udp(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = socket(address, Type::DGRAM)?;
    socket.set_recv_buffer_size(RECEIVE_BUFFER)?;
    socket.set_read_timeout(Some(LOOK))?;
    // The kernel spreads clients over the sockets of an address. Another server there is noticed by its TCP socket.
    socket.set_reuse_port(true)?;
    udp::announce_destination(&socket, address)?;
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
