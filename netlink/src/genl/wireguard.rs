//! WireGuard devices: their keys, their port and their peers (`linux/wireguard.h`). The device itself is a link
//! ([`crate::rtnl::RtnetlinkClient::add_wireguard`]).
//!
//! ```text
//! WireGuardClient::device("name") -> Device        set("name", &Settings, &[PeerChange])
//! ```

mod message;

use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use ipnetwork::IpNetwork;

use super::{Family, open};
use crate::{Result, Socket};

/// A private or public key (Curve25519).
pub type Key = [u8; 32];

/// A device as the kernel has it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Device {
    /// Its private key; none before it was given one.
    pub private_key: Option<Key>,
    /// The public key that follows from it, as the kernel computes it.
    pub public_key: Option<Key>,
    /// The UDP port of both families; one of the kernel's choice where none was asked for.
    pub port: u16,
    /// Its peers.
    pub peers: Vec<Peer>,
}

/// A peer as the kernel has it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Peer {
    /// Its public key.
    pub public_key: Key,
    /// Where its packets last came from, or where it was said to be.
    pub endpoint: Option<SocketAddr>,
    /// After how many seconds without a packet one is sent.
    pub keepalive: Option<u16>,
    /// When the last handshake was complete.
    pub last_handshake: Option<SystemTime>,
    /// The networks that it sends from, and that lead to it.
    pub allowed: Vec<IpNetwork>,
    /// Bytes that came from it, and that went to it, with WireGuard's own headers.
    pub received: u64,
    /// The same for what went to it.
    pub sent: u64,
}

/// What is to be set of a device; what is `None` stays.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// Its private key. Another one than it has ends all sessions.
    pub private_key: Option<Key>,
    /// The UDP port.
    pub port: Option<u16>,
}

/// What is to be set of one peer; what is `None` stays.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PeerChange {
    /// Which one. It is made where it is not there.
    pub public_key: Key,
    /// Take it away.
    pub remove: bool,
    /// Where it is.
    pub endpoint: Option<SocketAddr>,
    /// After how many seconds without a packet one is sent; 0 for never.
    pub keepalive: Option<u16>,
    /// First take away all networks that lead to it.
    pub replace_allowed: bool,
    /// Networks that lead to it from now on, and no longer to another.
    pub allowed: Vec<IpNetwork>,
}

/// A connection to WireGuard.
#[derive(Debug)]
pub struct WireGuardClient {
    socket: Socket,
    /// Once it was asked for: the kernel may get WireGuard only later, as a module.
    family: Option<Family>,
}

impl Peer {
    /// How long ago the last handshake was complete.
    pub fn silence(&self, now: SystemTime) -> Option<Duration> {
        Some(now.duration_since(self.last_handshake?).unwrap_or_default())
    }
}

impl WireGuardClient {
    /// Opens one in the calling thread's network namespace, also where the kernel has no WireGuard yet.
    pub fn open() -> Result<WireGuardClient> {
        Ok(WireGuardClient { socket: open()?, family: None })
    }

    /// A device with its peers.
    ///
    /// # Errors
    /// [`crate::Error::is_missing`] where there is none, or the kernel has no WireGuard.
    pub fn device(&mut self, name: &str) -> Result<Device> {
        let request = message::get(&self.family()?, name);
        let parts = self
            .socket
            .dump(request, message::device)
            .map_err(|error| error.during(format!("read the WireGuard device {name}")))?;
        Ok(message::join(parts))
    }

    /// Changes a device and its peers, in this order, in as many messages as it takes.
    pub fn set(&mut self, name: &str, settings: &Settings, peers: &[PeerChange]) -> Result<()> {
        for request in message::set(&self.family()?, name, settings, peers) {
            self.socket
                .request(request)
                .map_err(|error| error.during(format!("set up the WireGuard device {name}")))?;
        }
        Ok(())
    }

    fn family(&mut self) -> Result<Family> {
        match self.family {
            Some(family) => Ok(family),
            None => Ok(*self.family.insert(Family::find(&mut self.socket, message::NAME, message::VERSION)?)),
        }
    }
}
