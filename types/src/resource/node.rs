//! Nodes: the machines of the cluster.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnetwork::IpNetwork;

use crate::{Family, Labels, Resource};

/// A Node, as the other nodes need to know it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Node {
    /// The Node's name.
    pub name: String,
    /// The ranges that its pods take their addresses from (`spec.podCIDRs`). Empty until one is assigned.
    pub pod_cidrs: Vec<IpNetwork>,
    /// Its `InternalIP` addresses, in the order of the object; of a family of which it has none, the
    /// `ExternalIP` ones.
    pub addresses: Vec<IpAddr>,
    /// The zone that it stands in (label `topology.kubernetes.io/zone`).
    pub zone: Option<String>,
    /// It is being deleted, or the cluster autoscaler is about to delete it (taint
    /// `ToBeDeletedByClusterAutoscaler`): no new connections should come to it.
    pub leaving: bool,
    /// Its kubelet says that it is well, and has done so of late (condition `Ready`); false unless labels were
    /// asked for.
    pub ready: bool,
    /// Its uid; empty unless labels were asked for.
    pub uid: String,
    /// Its labels; none unless they were asked for.
    pub labels: Labels,
    /// All addresses that its status has, in the order of the object; none unless labels were asked for.
    pub all_addresses: Vec<IpAddr>,
    /// What its annotations say of its end of the encrypted tunnel; none where they say nothing.
    pub wireguard: Option<Box<WireGuardEnd>>,
}

/// A node's end of the encrypted tunnel, as its annotations have it: whether that can be used is for the one who
/// uses it to say. Where there is no such annotation, the text is empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WireGuardEnd {
    /// The public key.
    pub key: String,
    /// Where packets get to it.
    pub endpoint: String,
    /// The key that it must not have any more.
    pub retired_key: String,
}

impl Node {
    /// The address of that family under which the other nodes reach this one.
    pub fn address(&self, family: Family) -> Option<IpAddr> {
        self.addresses.iter().copied().find(|&address| Family::of(address) == family)
    }
}

impl Resource for Node {
    const NAME: &'static str = "Node";

    type Key = str;
    type Stored = Node;
    type Index = ();
    type Changes = BTreeSet<String>;

    fn key(&self) -> &str {
        &self.name
    }
}
