//! Pods, as far as names are concerned.

use std::net::IpAddr;

use crate::NamespacedName;

/// A pod that runs, or may yet: those that ended have lost their addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pod {
    /// The pod's namespace and name.
    pub key: NamespacedName,
    /// Its addresses, at most one of each family (`status.podIPs`). Empty until it has a network.
    pub addresses: Box<[IpAddr]>,
    /// Its addresses are its own, and its resolver has the search list that kubelet writes, nothing added: `dnsPolicy` is
    /// `ClusterFirst`, and it is not on the host's network.
    pub searches: bool,
}
