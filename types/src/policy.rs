//! What NetworkPolicies and ClusterNetworkPolicies have in common: peers and ports.
//!
//! A list that an object leaves out, or gives without elements, matches everything; a list whose elements all
//! turned out unreadable matches nothing. So `All` is told apart from a list that happens to be empty.

use ipnetwork::IpNetwork;

use crate::{LabelSelector, Protocol};

/// Traffic that a rule is about: both must match.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PolicyRule {
    /// Where the traffic comes from or goes to.
    pub peers: Peers,
    /// The ports that it goes to, at the pod that answers.
    pub ports: PortMatches,
}

impl PolicyRule {
    /// A rule that matches all traffic.
    pub const ALL: PolicyRule = PolicyRule { peers: Peers::All, ports: PortMatches::All };

    /// A rule that matches nothing.
    pub fn nothing() -> PolicyRule {
        PolicyRule { peers: Peers::Any(Box::default()), ports: PortMatches::All }
    }
}

/// The peers of a rule.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Peers {
    /// Every address, inside and outside of the cluster.
    All,
    /// Whatever one of these matches.
    Any(Box<[PolicyPeer]>),
}

/// One peer of a rule.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PolicyPeer {
    /// Pods that are not on their host's network.
    Pods(PodPeer),
    /// Addresses of networks, those of pods among them.
    Network(IpBlock),
    /// All addresses of Nodes with these labels.
    Nodes(LabelSelector),
}

/// Pods by their namespace and their labels.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PodPeer {
    /// The labels of the pod's namespace; `None` for the namespace of the policy.
    pub namespaces: Option<LabelSelector>,
    /// The pod's labels.
    pub pods: LabelSelector,
}

/// A network without parts of it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IpBlock {
    /// The network, without host bits.
    pub cidr: IpNetwork,
    /// What does not count of it. Networks outside of it have no effect.
    pub except: Box<[IpNetwork]>,
}

/// The protocols and ports of a rule.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PortMatches {
    /// All traffic, ICMP and other protocols without ports included.
    All,
    /// Whatever one of these matches; never ICMP.
    Any(Box<[PortMatch]>),
}

/// One of the ports of a rule.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PortMatch {
    /// The ports from the first to the last, both included.
    Numbers {
        /// The protocol.
        protocol: Protocol,
        /// The first port.
        first: u16,
        /// The last port, not below the first.
        last: u16,
    },
    /// The container ports of that name, at the pod that answers.
    Named {
        /// The protocol; any where it is `None`.
        protocol: Option<Protocol>,
        /// The name.
        name: Box<str>,
    },
}

impl PortMatch {
    /// All ports of a protocol.
    pub fn protocol(protocol: Protocol) -> PortMatch {
        PortMatch::Numbers { protocol, first: 0, last: u16::MAX }
    }
}
