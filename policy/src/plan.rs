//! What one node has to let through: the plan, and what changes of it.
//!
//! Peers are not told apart by their addresses but by their *class*: two addresses are of one class if no
//! policy that selects a pod of this node can tell them apart. A row says what happens between an address of
//! a local pod and a class. Tiers and priorities are resolved before, so that the first row found is final.
//! For a packet, rows are looked up so:
//!
//! 1. the rows of the peer's class: the exact port, then ranges of ports, then the protocol, then any
//!    traffic;
//! 2. the same for [`ClassId::NONE`], whose rows hold for all peers whose class has none that match;
//! 3. the base verdict of the pod's address.
//!
//! Always let through: what a pod sends to itself, and what goes between a pod and its own node.

mod classes;
mod delta;
mod evaluate;
mod explain;
mod features;
mod networks;
mod planner;
mod policies;
mod problems;
mod profile;
mod rows;
mod size;
mod traffic;
mod world;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;

use hashbrown::HashMap;
use weft_types::{Family, NamespacedName, Protocol};

pub use delta::{Delta, RowChange};
pub use evaluate::Packet;
pub use explain::{Explanation, Reason, Step};
pub use planner::Planner;
pub use policies::PolicyName;
pub use problems::Problem;
pub use rows::MOST_ROWS;

/// The way of traffic, seen from the pod whose policies decide.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Direction {
    /// To the pod.
    Ingress,
    /// From the pod.
    Egress,
}

impl Direction {
    /// Both.
    pub const BOTH: [Direction; 2] = [Direction::Ingress, Direction::Egress];

    pub(crate) fn index(self) -> usize {
        match self {
            Direction::Ingress => 0,
            Direction::Egress => 1,
        }
    }
}

/// As in the specification of policies: `ingress`, `egress`.
impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Direction::Ingress => "ingress",
            Direction::Egress => "egress",
        })
    }
}

/// The number of a class of peers. It stays the same for as long as somebody is of the class.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClassId(pub u32);

impl ClassId {
    /// The class of all addresses that no policy of this node names.
    pub const NONE: ClassId = ClassId(0);
}

/// What happens to traffic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Verdict {
    /// It may pass.
    Accept,
    /// It may not.
    Deny,
}

/// The number of a policy, never given twice. [`Planner::policy`] has the name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PolicyId(pub u32);

/// Where a verdict comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Origin {
    /// No policy says anything: traffic is let through.
    Unselected,
    /// NetworkPolicies isolate the pod, of which this is the first, and none lets the traffic through.
    Isolated(PolicyId),
    /// A rule.
    Rule {
        /// The policy.
        policy: PolicyId,
        /// The place of the rule among those of its direction.
        rule: u32,
    },
    /// The pod's policies come to more rows than a node can hold; this one has the most ports.
    TooLarge(PolicyId),
}

/// A verdict, and where it comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Decision {
    /// The verdict.
    pub verdict: Verdict,
    /// Where it comes from. Of a row that stands for many ports, the first of them.
    pub origin: Origin,
}

/// The traffic that a row is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RowPorts {
    /// One port of the pod that answers.
    Exact(Protocol, u16),
    /// Its ports from the first to the last, both included. The ranges of a class do not overlap.
    Range(Protocol, u16, u16),
    /// All of a protocol.
    Protocol(Protocol),
    /// All traffic, ICMP and other protocols without ports included.
    Any,
}

/// What happens between an address of a local pod and a class of peers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    /// The traffic that it is about.
    pub ports: RowPorts,
    /// What happens to it.
    pub decision: Decision,
}

/// What holds for an address of a local pod in one direction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Side {
    /// What happens where no row matches.
    pub base: Decision,
    /// The rows, by the class of the peer, those of a class in the order of the traffic.
    pub rows: BTreeMap<ClassId, Box<[Row]>>,
    /// How many rows that are.
    pub(crate) count: usize,
}

/// An address of a local pod that some policy selects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// The pod.
    pub pod: NamespacedName,
    pub(crate) sides: [Option<Side>; 2],
}

impl Endpoint {
    /// What holds in that direction; nothing where no policy says anything about it.
    pub fn side(&self, direction: Direction) -> Option<&Side> {
        self.sides[direction.index()].as_ref()
    }

    pub(crate) fn rows(&self) -> usize {
        self.sides.iter().flatten().map(|side| side.count).sum()
    }
}

/// What holds for one address family.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FamilyPlan {
    /// The classes of single addresses, which come before those of networks.
    pub peers: HashMap<IpAddr, ClassId>,
    /// The classes of networks, by their first address, each with its last address. They do not overlap.
    pub networks: BTreeMap<IpAddr, (IpAddr, ClassId)>,
    /// The addresses of local pods that some policy selects.
    pub endpoints: BTreeMap<IpAddr, Endpoint>,
}

/// What this node has to let through.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PolicyPlan {
    pub(crate) families: [FamilyPlan; 2],
    /// The node's own addresses. Between them and the node's pods, everything is let through.
    pub own_addresses: BTreeSet<IpAddr>,
}

impl PolicyPlan {
    /// What holds for one address family.
    pub fn family(&self, family: Family) -> &FamilyPlan {
        &self.families[index(family)]
    }

    pub(crate) fn family_mut(&mut self, family: Family) -> &mut FamilyPlan {
        &mut self.families[index(family)]
    }
}

/// The place of a family in lists of both.
pub(crate) fn index(family: Family) -> usize {
    match family {
        Family::V4 => 0,
        Family::V6 => 1,
    }
}
