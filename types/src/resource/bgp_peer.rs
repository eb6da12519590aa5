//! BGPPeers: the routers that nodes tell of addresses.

use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::num::NonZeroU16;
use std::ops::Deref;
use std::time::Duration;

use crate::{LabelSelector, NamespacedName, Resource};

/// A BGPPeer (metallb.io/v1beta2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BgpPeer {
    /// Namespace and name. Advertisements go by the name alone.
    pub key: NamespacedName,
    /// All else. In a box, as where objects of any kind are held, each takes the room of the largest.
    pub settings: Box<PeerSettings>,
}

/// How a node and a peer speak with each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerSettings {
    /// The nodes' own AS number.
    pub my_asn: u32,
    /// The AS number that is shown to this peer instead of the nodes' own.
    pub local_asn: Option<u32>,
    /// The peer's AS number.
    pub peer_asn: PeerAsn,
    /// Where the peer is.
    pub endpoint: PeerEndpoint,
    /// The TCP port at which it listens.
    pub port: NonZeroU16,
    /// The address of the node that the session is of.
    pub source_address: Option<IpAddr>,
    /// The hold time to propose, where it is not to be the speaker's default.
    pub hold_time: Option<Duration>,
    /// The time between two keepalives, where it is not to follow from the hold time.
    pub keepalive_time: Option<Duration>,
    /// The pause between two attempts to connect, where it is not to be the speaker's default.
    pub connect_time: Option<Duration>,
    /// The node's BGP identifier, where it is not to be its address.
    pub router_id: Option<Ipv4Addr>,
    /// The nodes that have this peer: those that one of these matches; all where there is none.
    pub node_selectors: Box<[LabelSelector]>,
    /// How the session's segments are signed (RFC 2385).
    pub password: PeerPassword,
    /// The name of the BFDProfile of the session; none where BFD is not wanted.
    pub bfd_profile: Option<Box<str>>,
    /// The peer keeps routes while the speaker restarts (RFC 4724).
    pub graceful_restart: bool,
    /// The peer of another AS may be more than one hop away.
    pub ebgp_multi_hop: bool,
    /// The VRF that the session is in.
    pub vrf: Option<Box<str>>,
    /// The session carries the addresses of both families, not only of its own.
    pub dual_stack: bool,
}

impl Deref for BgpPeer {
    type Target = PeerSettings;

    fn deref(&self) -> &PeerSettings {
        &self.settings
    }
}

/// The AS number of a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeerAsn {
    /// This one.
    Number(u32),
    /// The nodes' own, whatever the peer says.
    Internal,
    /// Any but the nodes' own.
    External,
}

/// Where a peer is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PeerEndpoint {
    /// At this address.
    Address(IpAddr),
    /// On the link of this interface, whatever its address (unnumbered).
    Interface(Box<str>),
}

/// Where the password of a session is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PeerPassword {
    /// There is none.
    None,
    /// In the object.
    Here(Password),
    /// In the Secret of that name, of the object's own namespace.
    Secret(Box<str>),
}

/// A password, which no log shows.
#[derive(Clone, PartialEq, Eq)]
pub struct Password(pub Box<str>);

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(...)")
    }
}

impl Resource for BgpPeer {
    const NAME: &'static str = "BGPPeer";

    type Key = NamespacedName;
    type Stored = Box<BgpPeer>;
    type Index = ();
    type Changes = BTreeSet<NamespacedName>;

    fn key(&self) -> &NamespacedName {
        &self.key
    }
}
