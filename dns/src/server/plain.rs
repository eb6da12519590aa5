//! DNS over UDP and TCP, which share an address: for each one socket of TCP, and one of UDP for each core.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::thread::available_parallelism;

use socket2::Type;
use tokio::net::TcpListener;
use tokio_util::task::TaskTracker;

use crate::error::Error;
use crate::pipeline::handler::Handler;
use crate::server::connections::{self, Limits};
use crate::server::handover::Inherited;
use crate::server::listen::{Listen, Stop};
use crate::server::session::Session;
use crate::server::sockets::{bind_udp, take_or_bind_tcp};
use crate::server::udp;
use crate::wire::format::Transport;

/// How many more ports are tried that are free for TCP, until one is for UDP too.
const FREE_PORTS: usize = 16;

/// Bound sockets, UDP and TCP, on the same address and port.
pub struct Listener {
    /// One for each core that the process may use.
    udp: Vec<UdpSocket>,
    tcp: TcpListener,
    address: SocketAddr,
    limits: Limits,
}

impl Listener {
    /// Takes the sockets of that address over, or binds them where there are none. Port 0 takes a free one.
    /// Must be called within a runtime.
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
}

impl Listen for Listener {
    fn transport(&self) -> &'static str {
        "UDP and TCP"
    }

    fn address(&self) -> SocketAddr {
        self.address
    }

    fn duplicates(&self) -> io::Result<Vec<OwnedFd>> {
        let udp = self.udp.iter().map(|socket| socket.as_fd().try_clone_to_owned());
        udp.chain([self.tcp.as_fd().try_clone_to_owned()]).collect()
    }

    fn serve(self: Box<Self>, handler: Arc<Handler>, tasks: &TaskTracker, stop: Stop) -> Result<(), Error> {
        udp::serve(self.udp, &handler, tasks, &stop.accepting).map_err(Error::Thread)?;
        let limits = self.limits;
        let transport = Transport::Tcp;
        let session = Session { handler, transport, limits, tasks: tasks.clone(), stop: stop.all };
        let serve_connection = move |stream, client| session.clone().serve(stream, client);
        tasks.spawn(connections::accept(self.tcp, limits, tasks.clone(), stop.accepting, serve_connection));
        Ok(())
    }
}
