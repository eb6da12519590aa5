//! What a node answers: the steps of a packet, and where it ends there.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

/// What tells a packet from others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Tuple {
    /// Where it comes from.
    pub source: IpAddr,
    /// Its source port, where the protocol has ports.
    pub source_port: Option<u16>,
    /// Where it goes.
    pub destination: IpAddr,
    /// Its destination port.
    pub port: Option<u16>,
}

/// A packet's way through one node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeTrace {
    /// The node.
    pub node: String,
    /// The packet as it came.
    pub came: Tuple,
    /// The packet as it left, or came to its end.
    pub left: Tuple,
    /// What happened to it.
    pub steps: Vec<Step>,
    /// All that a Service may lead it to; empty where none does.
    pub endpoints: Vec<SocketAddr>,
    /// Where it ends on this node.
    pub end: End,
    /// Rules of which it is not known whether they apply.
    pub doubts: Vec<Doubt>,
    /// What else there is to know.
    pub notes: Vec<String>,
}

/// One thing that happens to a packet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "step", rename_all = "lowercase")]
pub enum Step {
    /// The pod's own routes lead it out of the pod.
    Pod {
        /// The pod's interface.
        device: String,
        /// The next hop.
        gateway: Option<IpAddr>,
        /// The largest packet there, in bytes.
        mtu: u32,
    },
    /// It comes in.
    Enters {
        /// The interface that rules see.
        device: String,
        /// The port of that interface, where it is a bridge: the pod's.
        port: Option<String>,
        /// The largest packet there, in bytes.
        mtu: u32,
    },
    /// A chain that the kernel calls at a hook lets it go on.
    Passed(Chain),
    /// A rule rewrites its destination.
    Destination {
        /// Where.
        chain: Chain,
        /// The destination before.
        from: SocketAddr,
        /// The destination now.
        to: SocketAddr,
    },
    /// A rule rewrites its source.
    Source {
        /// Where.
        chain: Chain,
        /// The source before.
        from: IpAddr,
        /// The source now; none where that is not known.
        to: Option<IpAddr>,
    },
    /// Connection tracking undoes in an answer what was rewritten before.
    Restored {
        /// The packet before.
        from: Tuple,
        /// The packet now.
        to: Tuple,
    },
    /// The kernel chooses a route.
    Routed {
        /// Where to.
        to: IpAddr,
        /// By which interface.
        device: String,
        /// The next hop; none where the destination is on the link, or this machine.
        gateway: Option<IpAddr>,
        /// The routing table.
        table: u32,
        /// The largest packet on that way, in bytes.
        mtu: u32,
    },
}

/// What a chain that the kernel calls did with a packet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chain {
    /// The hook, as nft names it.
    pub hook: String,
    /// Its table: `ip filter`.
    pub table: String,
    /// The chain of the rule that decided.
    pub chain: String,
    /// That rule; none where the policy of the chain decided.
    pub rule: Option<String>,
}

/// Where a packet ends on a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "end", rename_all = "lowercase")]
pub enum End {
    /// It comes to a pod of the node.
    Pod {
        /// The host's end of the pod's link.
        device: String,
        /// Whether somebody takes it there.
        socket: Socket,
    },
    /// It comes to the node itself.
    Host {
        /// Whether somebody takes it there.
        socket: Socket,
    },
    /// It leaves for another machine.
    Leaves {
        /// By which interface.
        device: String,
        /// The kind of that interface, where it has one.
        kind: Option<String>,
        /// The next machine on that link.
        next_hop: IpAddr,
        /// Of a tunnel: the address of its other end.
        remote: Option<IpAddr>,
    },
    /// It goes no further.
    Stops {
        /// Why.
        cause: Cause,
    },
    /// It cannot be told.
    Unknown {
        /// Why.
        reason: String,
    },
}

/// Whether somebody takes a packet where it arrives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Socket {
    /// A socket waits for it; or none is needed, as for ping and for answers.
    Listens,
    /// No socket waits for it.
    Nothing,
    /// The sockets there cannot be seen.
    Unseen,
}

/// Why a packet goes no further.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "cause", rename_all = "kebab-case")]
pub enum Cause {
    /// A rule, or a chain's policy, drops it.
    Dropped(Chain),
    /// A rule refuses it, and tells its sender.
    Rejected(Chain),
    /// No route leads there.
    NoRoute {
        /// Where: in the pod, or on the node.
        place: String,
        /// Where to.
        to: IpAddr,
    },
    /// A route says that nothing is to go there (`blackhole`, `unreachable`, `prohibit`).
    RefusedByRoute {
        /// Where to.
        to: IpAddr,
    },
    /// The kernel does not take that source from that interface.
    ReversePath {
        /// The interface.
        device: String,
        /// The value of rp_filter that does that.
        mode: u8,
    },
    /// The kernel forwards nothing from that interface.
    NotForwarding {
        /// The setting that says so.
        setting: String,
    },
    /// No pod of this node has the address.
    NoPod {
        /// The address.
        address: IpAddr,
    },
    /// The link of a pod, or a tunnel, is not there or is down.
    LinkDown {
        /// The interface, or what is missing.
        device: String,
    },
    /// The next machine does not say its Ethernet address.
    NoNeighbour {
        /// The interface.
        device: String,
        /// The next machine.
        address: IpAddr,
    },
    /// The tunnel has no other end for that next hop.
    NoTunnelEnd {
        /// The tunnel.
        device: String,
        /// The next hop.
        next_hop: IpAddr,
    },
}

/// A rule of which it is not known whether it applies.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Doubt {
    /// Where it stands, and the rule.
    pub chain: Chain,
    /// If it applies, the packet goes no further, or elsewhere.
    pub stops: bool,
}

impl Tuple {
    /// That of an answer.
    pub fn reversed(&self) -> Tuple {
        Tuple {
            source: self.destination,
            source_port: self.port,
            destination: self.source,
            port: self.source_port,
        }
    }
}

/// `10.0.0.1 -> 10.0.0.2:80`
impl fmt::Display for Tuple {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} -> ", self.source)?;
        match self.port {
            Some(port) => write!(f, "{}", SocketAddr::new(self.destination, port)),
            None => write!(f, "{}", self.destination),
        }
    }
}

/// As people look for it: the table, the chain, and the rule.
impl fmt::Display for Chain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Chain { hook, table, chain, rule } = self;
        match rule {
            Some(rule) => write!(f, "hook {hook}, table {table}, chain {chain}: {rule}"),
            None => write!(f, "hook {hook}, table {table}, policy of chain {chain}"),
        }
    }
}
