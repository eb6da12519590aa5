//! The settings of a peer: whom a session is with, and how.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use weft_types::{Family, IpNetwork};

/// Where BGP speakers listen.
pub const PORT: u16 = 179;

/// How long a silent peer is believed to live, in seconds, where nobody says otherwise (RFC 4271 section 10).
pub const HOLD_TIME: u16 = 90;
/// For how long routes are kept while their sender restarts, in seconds, where nobody says otherwise: about
/// as long as a node takes to fetch a new image.
pub const RESTART_TIME: u16 = 60;
/// The longest pause between two tries to connect, where nobody says otherwise.
pub const CONNECT_RETRY: Duration = Duration::from_secs(30);

/// A peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// What it is called in messages.
    pub name: String,
    /// Its address.
    pub address: IpAddr,
    /// Where it listens.
    pub port: u16,
    /// Its AS number.
    pub remote: RemoteAs,
    /// Our own AS number towards it.
    pub asn: u32,
    /// Our BGP identifier.
    pub router_id: Ipv4Addr,
    /// After how many seconds of silence the session ends; 0 for never.
    pub hold_time: u16,
    /// How often we say that we live, in seconds; none for a third of the hold time that was agreed.
    pub keepalive: Option<u16>,
    /// The longest pause between two tries to connect.
    pub connect_retry: Duration,
    /// The peer connects, and we do not.
    pub passive: bool,
    /// The address that we connect from; none for the one that the routes choose.
    pub source: Option<IpAddr>,
    /// What both ends sign their segments with (RFC 2385).
    pub password: Option<Password>,
    /// How far away the peer is.
    pub distance: Distance,
    /// For how many seconds the peer is asked to keep our routes while we restart, at most 4095; none to ask
    /// for nothing.
    pub restart_time: Option<u16>,
    /// By which addresses of ours routes of each family are announced; where there is none, by the session's
    /// own end.
    pub next_hops: BTreeMap<Family, IpAddr>,
    /// The ranges within which routes are taken from it.
    pub imports: Vec<IpNetwork>,
    /// The session ends as soon as BFD says that the peer is gone. Whoever makes the peer has it watched.
    pub is_watched: bool,
}

/// The AS number of a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RemoteAs {
    /// This one.
    Number(u32),
    /// Our own.
    Internal,
    /// Any but our own.
    External,
}

/// How far away a peer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Distance {
    /// On the link, where it is of another system, and anywhere, where it is of ours.
    Usual,
    /// Behind so many routers at the most, less one.
    Hops(u8),
    /// The same, and whoever is farther away is not heard at all (RFC 5082).
    Secured(u8),
}

/// A secret, which no message shows.
#[derive(Clone, PartialEq, Eq)]
pub struct Password(pub String);

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(..)")
    }
}

impl Peer {
    /// A peer with that address and AS number; all else as usual.
    pub fn new(address: IpAddr, remote: RemoteAs, asn: u32, router_id: Ipv4Addr) -> Peer {
        Peer {
            name: address.to_string(),
            address,
            port: PORT,
            remote,
            asn,
            router_id,
            hold_time: HOLD_TIME,
            keepalive: None,
            connect_retry: CONNECT_RETRY,
            passive: false,
            source: None,
            password: None,
            distance: Distance::Usual,
            restart_time: Some(RESTART_TIME),
            next_hops: BTreeMap::new(),
            imports: Vec::new(),
            is_watched: false,
        }
    }

    /// Whether a session with that other peer's settings can go on under these.
    pub fn is_same_session(&self, other: &Peer) -> bool {
        let Peer { name, connect_retry, next_hops, imports, is_watched, .. } = self.clone();
        *self == Peer { name, connect_retry, next_hops, imports, is_watched, ..other.clone() }
    }

    /// Whether there may be routers on the way to it: peers of our own system may be anywhere.
    pub fn is_multihop(&self) -> bool {
        self.distance != Distance::Usual || !self.is_external()
    }

    /// Whether somebody with that AS number may be this peer.
    pub fn admits(&self, asn: u32) -> bool {
        match self.remote {
            RemoteAs::Number(number) => number == asn,
            RemoteAs::Internal => asn == self.asn,
            RemoteAs::External => asn != self.asn,
        }
    }

    /// Whether the peer is of another system than we are, as far as its settings tell.
    pub fn is_external(&self) -> bool {
        match self.remote {
            RemoteAs::Number(number) => number != self.asn,
            RemoteAs::Internal => false,
            RemoteAs::External => true,
        }
    }
}

/// With its address, where its name is another.
impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        if self.name == self.address.to_string() { Ok(()) } else { write!(f, " ({})", self.address) }
    }
}

impl fmt::Display for RemoteAs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RemoteAs::Number(number) => write!(f, "AS {number}"),
            RemoteAs::Internal => f.write_str("our own AS"),
            RemoteAs::External => f.write_str("any AS but our own"),
        }
    }
}
