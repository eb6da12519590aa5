//! Pods, as far as names and labels are concerned.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::ops::Deref;

use crate::{Labels, NamespacedName, Protocol, Resource};

/// A pod that runs, or may yet: those that ended have lost their addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pod {
    /// The pod's namespace and name.
    pub key: NamespacedName,
    /// Its addresses, at most one of each family (`status.podIPs`). Empty until it has a network.
    pub addresses: PodAddresses,
    /// Its addresses are its own, and its resolver has the search list that kubelet writes, nothing added:
    /// `dnsPolicy` is `ClusterFirst`, and it is not on the host's network.
    pub searches: bool,
    /// Its labels; none unless they were asked for.
    pub labels: Labels,
    /// What policies need to know of it; nothing unless it was asked for.
    pub details: Option<Box<PodDetails>>,
}

/// What network policies need to know of a pod, beyond its labels and addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodDetails {
    /// The Node that it runs on (`spec.nodeName`).
    pub node: Option<Box<str>>,
    /// It has the addresses of its node, so that no selector finds it.
    pub host_network: bool,
    /// Its uid as the node has it, which tells it from earlier pods of its name.
    pub uid: Box<str>,
    /// When it was made, in seconds since 1970: of two pods with one address, the newer one has it.
    pub created: i64,
    /// The ports of its containers that have a name.
    pub ports: Box<[ContainerPort]>,
}

/// A port of a container that policies may name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ContainerPort {
    /// Its name.
    pub name: Box<str>,
    /// Its protocol.
    pub protocol: Protocol,
    /// Its number.
    pub port: u16,
}

impl Resource for Pod {
    const NAME: &'static str = "Pod";

    type Key = NamespacedName;
    type Stored = Box<Pod>;
    type Index = ();
    type Changes = BTreeSet<NamespacedName>;

    fn key(&self) -> &NamespacedName {
        &self.key
    }
}

/// Up to two addresses, in order: so many has a pod. Held within the pod, as an allocation would cost as much
/// again.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct PodAddresses {
    count: u8,
    /// Those beyond `count` are all the same, so that equal lists are equal.
    addresses: [IpAddr; PodAddresses::MOST],
}

impl PodAddresses {
    /// How many a pod has at most: one of each family.
    pub const MOST: usize = 2;
}

impl Default for PodAddresses {
    fn default() -> Self {
        PodAddresses { count: 0, addresses: [Ipv4Addr::UNSPECIFIED.into(); PodAddresses::MOST] }
    }
}

impl Deref for PodAddresses {
    type Target = [IpAddr];

    fn deref(&self) -> &[IpAddr] {
        &self.addresses[..usize::from(self.count)]
    }
}

/// The first two, where there are more.
impl FromIterator<IpAddr> for PodAddresses {
    fn from_iter<I: IntoIterator<Item = IpAddr>>(addresses: I) -> Self {
        let mut list = PodAddresses::default();
        for (place, address) in list.addresses.iter_mut().zip(addresses) {
            *place = address;
            list.count += 1;
        }
        list
    }
}

/// The first two, where there are more.
impl From<&[IpAddr]> for PodAddresses {
    fn from(addresses: &[IpAddr]) -> Self {
        addresses.iter().copied().collect()
    }
}

impl std::fmt::Debug for PodAddresses {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        (**self).fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_a_list_of_two_at_most() {
        let addresses = ["10.0.0.1", "fd00::1", "10.0.0.2"].map(|text| text.parse::<IpAddr>().unwrap());
        for count in 0..=3 {
            assert_eq!(*PodAddresses::from(&addresses[..count]), addresses[..count.min(2)]);
        }
        assert_eq!(PodAddresses::from(&addresses[..0]), PodAddresses::default());
    }

    /// A cluster has tens of thousands: beyond 104 bytes, glibc's allocator takes 128 for each.
    #[test]
    fn a_pod_without_labels_takes_no_more_than_two_allocations_did() {
        assert!(size_of::<Pod>() <= 104, "{}", size_of::<Pod>());
    }
}
