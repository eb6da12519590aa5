//! The plan of one Service: what each of its frontends leads to, whatever carries it out. It is made in
//! `planner/service.rs`.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU32;

use weft_types::{Family, IpNetwork, Protocol, SmolStr, TrafficPolicy};

/// What all frontends of a Service lead to, in both families.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServicePlan {
    /// One for each port and address, and one for each NodePort and family. In order.
    pub frontends: Box<[FrontendPlan]>,
    /// Where the node answers load balancers that ask for this Service's health, if it does.
    pub health_check: Option<u16>,
}

/// What one frontend leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FrontendPlan {
    /// What clients know.
    pub frontend: Frontend,
    /// The name of the Service port that it is one of; empty where the port has none.
    pub port: SmolStr,
    /// Who is meant to use it.
    pub scope: Scope,
    /// It is an address of a load balancer.
    pub is_load_balancer: bool,
    /// Whose endpoints `target` has: those of all nodes, or those of this one.
    pub policy: TrafficPolicy,
    /// Where everybody is led.
    pub target: Target,
    /// Where clients outside of the cluster are led instead, under an external policy Local.
    pub outside: Option<Target>,
    /// Addresses of endpoints that may reach themselves through this frontend.
    pub hairpins: Box<[IpAddr]>,
    /// The networks whose clients may connect; none where everybody may.
    pub sources: Box<[IpNetwork]>,
    /// For how many seconds after its last new connection to the Service port, by whichever of its frontends,
    /// a client goes to the same endpoint (`sessionAffinity`).
    pub affinity: Option<NonZeroU32>,
}

/// An address, protocol and port, or a protocol and port on the node's own addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Frontend {
    /// A port of a ClusterIP, an external address or one of a load balancer.
    Address(IpAddr, Protocol, u16),
    /// A NodePort, on the node's addresses of that family.
    NodePort(Family, Protocol, u16),
}

/// Who a frontend is meant for, which decides whose address the endpoints see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// The cluster's own pods and nodes.
    Internal,
    /// Everybody.
    External,
}

/// Where new connections go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// To these endpoints, evenly. None is there twice. The planner gives them in order; whoever carries the
    /// plan out may keep them in another one.
    Endpoints(Box<[SocketAddr]>),
    /// Nowhere, and the client is told: there are no endpoints at all.
    Reject,
    /// Nowhere, in silence: there are endpoints, but none that this node may use. Another node may be the
    /// right one.
    Drop,
}

/// Which connections to a frontend a target is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TrafficSource {
    /// All of them, where there is no other target for those from outside.
    Anywhere,
    /// Those from outside of the cluster.
    Outside,
}

impl TrafficSource {
    /// Both of them.
    pub const ALL: [TrafficSource; 2] = [TrafficSource::Anywhere, TrafficSource::Outside];
}

impl ServicePlan {
    /// What a frontend leads to, where the Service has it.
    pub fn frontend(&self, frontend: &Frontend) -> Option<&FrontendPlan> {
        let place = self.frontends.binary_search_by_key(frontend, |plan| plan.frontend).ok()?;
        Some(&self.frontends[place])
    }

    /// Whether clients are dropped, for such frontends: the Service has endpoints, but its policy wants those
    /// of this node.
    pub fn lacks_local_endpoints(&self, scope: Scope) -> bool {
        let drops = |plan: &FrontendPlan| match plan.scope {
            Scope::Internal => plan.target == Target::Drop,
            Scope::External => plan.outside == Some(Target::Drop),
        };
        self.frontends.iter().any(|plan| plan.scope == scope && drops(plan))
    }
}

impl fmt::Display for Frontend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Frontend::Address(address, protocol, port) => {
                write!(f, "{} ({protocol})", SocketAddr::new(*address, *port))
            }
            Frontend::NodePort(family, protocol, port) => write!(f, "NodePort {port} ({protocol}, {family})"),
        }
    }
}

impl Frontend {
    /// The transport protocol of its clients.
    pub fn protocol(&self) -> Protocol {
        match self {
            Frontend::Address(_, protocol, _) | Frontend::NodePort(_, protocol, _) => *protocol,
        }
    }

    /// The family of the packets that come to it.
    pub fn family(&self) -> Family {
        match self {
            Frontend::Address(address, ..) => Family::of(*address),
            Frontend::NodePort(family, ..) => *family,
        }
    }
}

impl FrontendPlan {
    /// How many entries a data plane makes of it, roughly.
    pub(super) fn entries(&self) -> usize {
        let targets = TrafficSource::ALL.into_iter().filter_map(|source| self.target(source));
        let per_endpoint = if self.affinity.is_some() { 2 } else { 1 };
        let targets = targets.map(|target| 1 + per_endpoint * target.endpoints().len());
        targets.sum::<usize>() + self.sources.len()
    }

    /// Where these connections go, if they have a target of their own.
    pub fn target(&self, source: TrafficSource) -> Option<&Target> {
        match source {
            TrafficSource::Anywhere => Some(&self.target),
            TrafficSource::Outside => self.outside.as_ref(),
        }
    }

    /// The same, to put the endpoints in another order.
    pub fn target_mut(&mut self, source: TrafficSource) -> Option<&mut Target> {
        match source {
            TrafficSource::Anywhere => Some(&mut self.target),
            TrafficSource::Outside => self.outside.as_mut(),
        }
    }
}

impl Target {
    /// The endpoints; none where connections go nowhere.
    pub fn endpoints(&self) -> &[SocketAddr] {
        match self {
            Target::Endpoints(endpoints) => endpoints,
            Target::Reject | Target::Drop => &[],
        }
    }
}
