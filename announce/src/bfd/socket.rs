//! The sockets of BFD: those that listen for everybody, and one for each session to send from (RFC 5881,
//! section 4).

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd};

use socket2::{Domain, Protocol, Socket, Type};
use weft_netlink::datagram::{self, tell_hops, tell_unreachable};
use weft_types::well_known::port;

use super::packet::LENGTH;
use super::sessions::{Datagram, Peer, UNROUTED, Wanted};

/// Where packets are sent from: "The source port MUST be in the range 49152 through 65535" (RFC 5881, section
/// 4).
const FIRST_SOURCE: u16 = 49152;
/// How many of these ports there are.
const SOURCES: u16 = u16::MAX - FIRST_SOURCE + 1;
/// Network control (CS6, RFC 4594): switches and queues let it pass before the rest.
const TRAFFIC_CLASS: u32 = 0xc0;
/// More than any packet without authentication has; with one it is refused anyway.
const LONGEST: usize = 4 * LENGTH;

/// The sockets that listen.
#[derive(Debug)]
pub(super) struct Listeners(Vec<Listener>);

/// One of them.
#[derive(Debug)]
struct Listener {
    socket: Socket,
    is_multihop: bool,
}

impl Listeners {
    /// Listens at both ports, for both families as far as the machine has them, in the calling thread's
    /// network namespace.
    ///
    /// # Errors
    /// Where another program has one of the ports.
    pub(super) fn open() -> Result<Listeners, String> {
        let mut listeners = Vec::new();
        for (port, is_multihop) in [(port::BFD, false), (port::BFD_MULTIHOP, true)] {
            for any in [IpAddr::from(Ipv4Addr::UNSPECIFIED), Ipv6Addr::UNSPECIFIED.into()] {
                match listen(SocketAddr::new(any, port)) {
                    Ok(socket) => listeners.push(Listener { socket, is_multihop }),
                    // No IPv6 on this machine.
                    Err(error) if error.raw_os_error() == Some(nix::libc::EAFNOSUPPORT) => {}
                    Err(error) => return Err(format!("cannot listen on UDP port {port} of {any}: {error}")),
                }
            }
        }
        Ok(Listeners(listeners))
    }

    /// What to wait for.
    pub(super) fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.0.iter().map(|listener| listener.socket.as_fd())
    }

    /// Reads at most that many datagrams of each.
    pub(super) fn read(&self, most: usize, mut each: impl FnMut(&Datagram<'_>)) {
        let mut buffer = [0; LONGEST];
        for Listener { socket, is_multihop } in &self.0 {
            for _ in 0..most {
                // What cannot be read is as good as lost: the next one will be read.
                let Ok(received) = datagram::receive(socket, &mut buffer) else { break };
                each(&Datagram {
                    bytes: &buffer[..received.length.min(LONGEST)],
                    source: received.source.ip(),
                    interface: received.interface,
                    hops: received.hops,
                    is_multihop: *is_multihop,
                });
            }
        }
    }
}

fn listen(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    tell_hops(&socket, address.is_ipv4())?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

/// What a session sends from.
#[derive(Debug)]
pub(super) struct Sender(UdpSocket);

impl Sender {
    /// For that peer; `random` chooses the port.
    ///
    /// # Errors
    /// Where this machine does not have the address to send from, or has no route.
    pub(super) fn open(peer: Peer, wanted: &Wanted, random: u64) -> io::Result<Sender> {
        let is_ipv4 = peer.address.is_ipv4();
        let domain = if is_ipv4 { Domain::IPV4 } else { Domain::IPV6 };
        let socket = Socket::new(domain, Type::DGRAM, Some(Protocol::UDP))?;
        socket.set_nonblocking(true)?;
        if is_ipv4 {
            socket.set_ttl_v4(UNROUTED.into())?;
            socket.set_tos_v4(TRAFFIC_CLASS)?;
        } else {
            socket.set_unicast_hops_v6(UNROUTED.into())?;
            socket.set_tclass_v6(TRAFFIC_CLASS)?;
        }
        tell_unreachable(&socket, is_ipv4)?;
        let any = if is_ipv4 { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        let local = wanted.local.unwrap_or(any);
        let of_link = |address: IpAddr, port: u16| match (address, peer.interface) {
            (IpAddr::V6(address), Some(interface)) => SocketAddrV6::new(address, port, 0, interface).into(),
            (address, _) => SocketAddr::new(address, port),
        };
        let mut tries =
            (0..16_u64).map(|round| FIRST_SOURCE + ((random + round * 977) % u64::from(SOURCES)) as u16);
        let bound = tries.find_map(|port| match socket.bind(&of_link(local, port).into()) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => None,
            bound => Some(bound),
        });
        bound.unwrap_or_else(|| Err(io::ErrorKind::AddrInUse.into()))?;
        let port = if wanted.is_multihop { port::BFD_MULTIHOP } else { port::BFD };
        socket.connect(&of_link(peer.address, port).into())?;
        Ok(Sender(socket.into()))
    }

    /// Sends a packet.
    ///
    /// # Errors
    /// Also those of the packets before it, of which the network told only now.
    pub(super) fn send(&self, packet: &[u8]) -> io::Result<()> {
        self.0.send(packet).map(drop)
    }
}

/// Whether an error says that nobody listens there, or that there is no such machine.
pub(super) fn is_refusal(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionRefused, HostUnreachable, NetworkUnreachable};
    matches!(error.kind(), ConnectionRefused | HostUnreachable | NetworkUnreachable)
}
