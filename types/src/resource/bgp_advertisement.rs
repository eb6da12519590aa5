//! BGPAdvertisements: which load balancer addresses are announced by BGP, to whom and with which attributes.

use std::collections::BTreeSet;

use crate::{LabelSelector, NamespacedName, PoolSelection, Resource};

/// A BGPAdvertisement (metallb.io/v1beta1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BgpAdvertisement {
    /// Namespace and name.
    pub key: NamespacedName,
    /// The pools whose addresses it announces.
    pub pools: PoolSelection,
    /// The length of the prefixes that are announced for IPv4 addresses: 32 where each has its own.
    pub aggregation_length: u8,
    /// The same for IPv6 addresses: 128 where each has its own.
    pub aggregation_length_v6: u8,
    /// The attribute LOCAL_PREF; none where it is 0.
    pub local_pref: Option<u32>,
    /// Communities: each a value ([`crate::CommunityValue`]) or the name that a Community gives one.
    pub communities: Box<[Box<str>]>,
    /// The nodes that announce: those that one of these matches; all where there is none.
    pub node_selectors: Box<[LabelSelector]>,
    /// The names of the BGPPeers that are told; all where there is none.
    pub peers: Box<[Box<str>]>,
    /// The Services whose addresses it announces: those that one of these matches; all where there is none.
    pub service_selectors: Box<[LabelSelector]>,
}

impl Resource for BgpAdvertisement {
    const NAME: &'static str = "BGPAdvertisement";

    type Key = NamespacedName;
    type Stored = Box<BgpAdvertisement>;
    type Index = ();
    type Changes = BTreeSet<NamespacedName>;

    fn key(&self) -> &NamespacedName {
        &self.key
    }
}
