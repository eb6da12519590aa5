//! BFDProfiles: how fast a BGP session learns that its peer is gone.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::{NamespacedName, Resource};

/// A BFDProfile (metallb.io/v1beta1), with the defaults of MetalLB where the object says nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BfdProfile {
    /// Namespace and name. BGPPeers go by the name alone.
    pub key: NamespacedName,
    /// The shortest time between two packets of the peer that can be dealt with.
    pub receive_interval: Duration,
    /// The shortest time between two packets to the peer.
    pub transmit_interval: Duration,
    /// After how many packets that do not come the peer is gone.
    pub detect_multiplier: u8,
    /// The shortest time between two echo packets that can be dealt with.
    pub echo_interval: Duration,
    /// Echo packets are sent.
    pub echo_mode: bool,
    /// The peer begins.
    pub passive: bool,
    /// The lowest TTL of packets over more than one hop.
    pub minimum_ttl: u8,
}

impl Resource for BfdProfile {
    const NAME: &'static str = "BFDProfile";

    type Key = NamespacedName;
    type Stored = Box<BfdProfile>;
    type Index = ();
    type Changes = BTreeSet<NamespacedName>;

    fn key(&self) -> &NamespacedName {
        &self.key
    }
}
