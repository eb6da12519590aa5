//! sock_diag: the sockets of a network namespace, found by their peers and destroyed, and those that wait for
//! peers. Which of them is not decided here.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use netlink_packet_core::NLM_F_ACK;
use nix::errno::Errno;

use crate::attribute::Attributes;
use crate::{Error, Frame, Protocol, Request, Result, Socket};

/// `SOCK_DIAG_BY_FAMILY` and `SOCK_DESTROY` (linux/sock_diag.h).
const BY_FAMILY: u16 = 20;
const DESTROY: u16 = 21;
/// `AF_INET` and `AF_INET6`.
const FAMILIES: [u8; 2] = [libc::AF_INET as u8, libc::AF_INET6 as u8];
/// `TCP_ESTABLISHED`, `TCP_SYN_SENT` and `TCP_CLOSE_WAIT` as bits: whoever has a peer and may wait for it. A
/// UDP socket that has one is in the first of them too.
const WITH_PEER: u32 = 1 << 1 | 1 << 2 | 1 << 8;
/// `TCP_CLOSE` and `TCP_LISTEN` as bits: whoever waits for peers. A UDP socket without one is in the first, and
/// one of TCP in it waits for nobody.
const WAITING: [(u8, u32); 3] = [(6, 1 << 10), (17, 1 << 7), (132, 1 << 10)];
/// The length of `struct inet_diag_msg`, behind which attributes are.
const MESSAGE_LENGTH: usize = 72;
/// `INET_DIAG_SKV6ONLY`
const IPV6_ONLY: u16 = 11;
/// Where `struct inet_diag_sockid` is in an answer, and how long it is: ports, addresses, interface, cookie.
const ID: usize = 4;
const ID_LENGTH: usize = 48;
/// Within it: the peer's port and address, the socket's own, and the cookie.
const PORT: usize = 2;
const ADDRESS: usize = 20;
const OWN_PORT: usize = 0;
const OWN_ADDRESS: usize = 4;
const COOKIE: usize = 40;

/// The sockets of one network namespace.
#[derive(Debug)]
pub struct SocketDiag(Socket);

/// A socket that has a peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectedSocket {
    /// Its peer. One of IPv4 in IPv6 is shown as one of IPv4.
    pub peer: SocketAddr,
    /// What tells it from all other sockets, while the machine runs.
    pub cookie: u64,
    family: u8,
    protocol: u8,
    id: [u8; ID_LENGTH],
}

/// A socket that takes what comes from anybody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listener {
    /// The address and port that it takes it at; the unspecified address stands for all.
    pub local: SocketAddr,
    /// Where that is one of IPv6: it takes IPv4 too.
    pub is_dual: bool,
}

impl Listener {
    /// Whether it takes what goes there.
    pub fn takes(&self, to: SocketAddr) -> bool {
        let is_any = self.local.ip().is_unspecified()
            && (self.local.is_ipv4() == to.is_ipv4() || (self.is_dual && to.is_ipv4()));
        self.local.port() == to.port() && (is_any || self.local.ip() == to.ip())
    }
}

impl SocketDiag {
    /// Opens one in the calling thread's network namespace.
    pub fn open() -> Result<SocketDiag> {
        Socket::open(Protocol::SockDiag).map(SocketDiag)
    }

    /// The sockets of a transport protocol (its number) that have a peer, of both families.
    ///
    /// # Errors
    /// What the kernel refused.
    pub fn connected(&mut self, protocol: u8) -> Result<Vec<ConnectedSocket>> {
        let mut found = Vec::new();
        for family in FAMILIES {
            let payload = request(family, protocol, WITH_PEER, &[0; ID_LENGTH]);
            let dump = Request { kind: BY_FAMILY, flags: 0, payload };
            let sockets = self.0.dump(dump, |frame| parse(&frame, protocol));
            found.extend(sockets.map_err(|error| error.during("list sockets"))?);
        }
        Ok(found)
    }

    /// The sockets of a transport protocol (its number) that take what comes from anybody, of both families;
    /// none where it is not known how the protocol's sockets wait.
    ///
    /// # Errors
    /// What the kernel refused: ENOENT where it knows no sockets of that protocol.
    pub fn listeners(&mut self, protocol: u8) -> Result<Option<Vec<Listener>>> {
        let Some((_, states)) = WAITING.into_iter().find(|(number, _)| *number == protocol) else {
            return Ok(None);
        };
        let mut found = Vec::new();
        for family in FAMILIES {
            let payload = request(family, protocol, states, &[0; ID_LENGTH]);
            let dump = Request { kind: BY_FAMILY, flags: 0, payload };
            let sockets = self.0.dump(dump, |frame| listener(&frame));
            found.extend(sockets.map_err(|error| error.during("list sockets that listen"))?);
        }
        Ok(Some(found))
    }

    /// Destroys a socket: whoever has it open gets ECONNABORTED. Returns whether it was there still.
    ///
    /// # Errors
    /// What the kernel refused: EPERM without CAP_NET_ADMIN, EOPNOTSUPP where it was built without
    /// `INET_DIAG_DESTROY`.
    pub fn destroy(&mut self, socket: &ConnectedSocket) -> Result<bool> {
        let payload = request(socket.family, socket.protocol, WITH_PEER, &socket.id);
        match self.0.request(Request { kind: DESTROY, flags: NLM_F_ACK, payload }) {
            Ok(()) => Ok(true),
            Err(error) if error.errno() == Some(Errno::ENOENT) => Ok(false),
            Err(error) => Err(error.during(format!("destroy a socket that is connected to {}", socket.peer))),
        }
    }
}

/// `struct inet_diag_req_v2`
fn request(family: u8, protocol: u8, states: u32, id: &[u8; ID_LENGTH]) -> Vec<u8> {
    let mut payload = vec![family, protocol, 0, 0];
    payload.extend(states.to_ne_bytes());
    payload.extend(id);
    payload
}

fn listener(frame: &Frame<'_>) -> Result<Listener> {
    let listener = || {
        let id: [u8; ID_LENGTH] = *frame.payload.get(ID..)?.first_chunk()?;
        let port = u16::from_be_bytes(*id[OWN_PORT..].first_chunk()?);
        let address = match *frame.payload.first()? == FAMILIES[0] {
            true => IpAddr::V4(Ipv4Addr::from(*id[OWN_ADDRESS..].first_chunk::<4>()?)),
            false => Ipv6Addr::from(*id[OWN_ADDRESS..].first_chunk::<16>()?).to_canonical(),
        };
        let attributes = Attributes(frame.payload.get(MESSAGE_LENGTH..).unwrap_or_default());
        let is_dual = attributes.get(IPV6_ONLY).is_some_and(|value| value == [0]);
        Some(Listener { local: SocketAddr::new(address, port), is_dual })
    };
    listener().ok_or_else(|| Error::Malformed("a socket without its addresses".into()))
}

/// `struct inet_diag_msg`
fn parse(frame: &Frame<'_>, protocol: u8) -> Result<ConnectedSocket> {
    let socket = || {
        let family = *frame.payload.first()?;
        let id: [u8; ID_LENGTH] = *frame.payload.get(ID..)?.first_chunk()?;
        let address = match family == FAMILIES[0] {
            true => IpAddr::V4(Ipv4Addr::from(*id[ADDRESS..].first_chunk::<4>()?)),
            false => Ipv6Addr::from(*id[ADDRESS..].first_chunk::<16>()?).to_canonical(),
        };
        let port = u16::from_be_bytes(*id[PORT..].first_chunk()?);
        let [low, high] =
            [COOKIE, COOKIE + 4].map(|at| id[at..].first_chunk().map(|it| u32::from_ne_bytes(*it)));
        let cookie = u64::from(low?) | u64::from(high?) << 32;
        Some(ConnectedSocket { peer: SocketAddr::new(address, port), cookie, family, protocol, id })
    };
    socket().ok_or_else(|| Error::Malformed("a socket without its addresses".into()))
}
