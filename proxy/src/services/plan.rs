//! The plan of one Service: what each of its frontends leads to. Pure; how it becomes elements is in `elements.rs`.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use weft_types::{EndpointSlice, Family, IpNetwork, Protocol, Service, TrafficPolicy};

use crate::dataplane::nftables::affinity_numbers::Affinity;
use crate::services::endpoints::{Backends, Here, ServedBy, assign_slots, backends, is_special};
use crate::services::ownership::{Claim, Claims};
use crate::services::problem::Problem;
use crate::services::source_ranges::sources;

/// More elements than any Service has that is meant well: the kernel takes this many in about half a second.
pub const MAX_ELEMENTS: usize = 100_000;

/// What all frontends of a Service lead to, in both families.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServicePlan {
    /// One for each port and address, and one for each NodePort and family. In order.
    pub frontends: Vec<FrontendPlan>,
}

/// What one frontend leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FrontendPlan {
    /// What clients know.
    pub frontend: Frontend,
    /// Who is meant to use it.
    pub scope: Scope,
    /// Where everybody is led.
    pub target: Target,
    /// Where clients outside of the cluster are led instead, under an external policy Local.
    pub outside: Option<Target>,
    /// Addresses of endpoints that may reach themselves through this frontend.
    pub hairpins: Vec<IpAddr>,
    /// The networks whose clients may connect; none where everybody may.
    pub sources: Vec<IpNetwork>,
    /// Where its clients stick to their endpoints.
    pub affinity: Option<Affinity>,
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
    /// To these endpoints, each in its slot, evenly.
    Endpoints(Vec<SocketAddr>),
    /// Nowhere, and the client is told: there are no endpoints at all.
    Reject,
    /// Nowhere, in silence: there are endpoints, but none that this node may use. Another node may be the right one.
    Drop,
}

/// Which connections to a frontend a target is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Audience {
    /// All of them, where there is no other rule for those from outside.
    Everyone,
    /// Those from outside of the cluster.
    Outside,
}

impl Audience {
    /// Both of them.
    pub const ALL: [Audience; 2] = [Audience::Everyone, Audience::Outside];
}

/// Where the endpoints of a frontend stand now, so that they can stay there.
pub trait Slots {
    /// The slots of a frontend; none where it is new.
    fn slots(&self, frontend: &Frontend, audience: Audience) -> &[SocketAddr];
}

impl Slots for ServicePlan {
    fn slots(&self, frontend: &Frontend, audience: Audience) -> &[SocketAddr] {
        let target = self.frontend(frontend).and_then(|plan| plan.target(audience));
        target.map(Target::slots).unwrap_or_default()
    }
}

impl ServicePlan {
    /// What a frontend leads to, where the Service has it.
    pub fn frontend(&self, frontend: &Frontend) -> Option<&FrontendPlan> {
        let place = self.frontends.binary_search_by_key(frontend, |plan| plan.frontend).ok()?;
        Some(&self.frontends[place])
    }

    /// Whether clients are dropped, for such frontends: the Service has endpoints, but its policy wants those of this node.
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
    /// How many elements it is, roughly.
    fn elements(&self) -> usize {
        let targets = Audience::ALL.into_iter().filter_map(|audience| self.target(audience));
        let per_endpoint = if self.affinity.is_some() { 2 } else { 1 };
        let targets = targets.map(|target| 1 + per_endpoint * target.slots().len());
        targets.sum::<usize>() + self.sources.len()
    }

    /// Where these connections go, if they have a target of their own.
    pub fn target(&self, audience: Audience) -> Option<&Target> {
        match audience {
            Audience::Everyone => Some(&self.target),
            Audience::Outside => self.outside.as_ref(),
        }
    }
}

impl Target {
    /// The endpoints, in order of their slots.
    pub fn slots(&self) -> &[SocketAddr] {
        match self {
            Target::Endpoints(slots) => slots,
            Target::Reject | Target::Drop => &[],
        }
    }
}

/// Plans one Service for this node, with its endpoints left in the slots of `previous` where possible, and says what of it
/// cannot be served. The affinities are those of its ports, in their order; none where it has none.
pub fn plan(
    service: &Service,
    slices: &[&EndpointSlice],
    here: Here<'_>,
    claims: &Claims,
    affinities: &[Affinity],
    previous: &dyn Slots,
) -> (ServicePlan, Vec<Problem>) {
    let (mut plan, served_by) = (ServicePlan::default(), ServedBy::of(slices.iter().copied()));
    let wanted = claims.wanted(&service.key);
    let mut problems = wanted.map(|wanted| wanted.problems.to_vec()).unwrap_or_default();
    problems.extend(slices.iter().filter_map(|slice| forbidden_endpoints(slice)));
    let (mut elements, mut served) = (0, wanted.map_or(service.ports.len(), |wanted| wanted.ports));
    problems.extend(claims.health_check_taken(&service.key));
    let wanted = wanted.map(|wanted| &*wanted.claims).unwrap_or_default();
    for wanted in wanted.chunk_by(|one, other| one.port == other.port) {
        let (granted, taken): (Vec<_>, Vec<_>) =
            wanted.iter().partition(|claim| claims.other_holder(&service.key, claim).is_none());
        problems.extend(taken.into_iter().filter_map(|claim| claims.taken(&service.key, claim)));
        let port = wanted[0].port;
        let planned = plan_port(service, port, &granted, &served_by, here, affinities, previous);
        elements += planned.iter().map(FrontendPlan::elements).sum::<usize>();
        if elements > MAX_ELEMENTS {
            served = port;
            break;
        }
        plan.frontends.extend(planned);
    }
    if served < service.ports.len() {
        problems.push(Problem::TooLarge { ports: service.ports.len() - served });
    }
    plan.frontends.sort_unstable_by_key(|plan| plan.frontend);
    problems.sort();
    (plan, problems)
}

fn plan_port(
    service: &Service,
    port: usize,
    claims: &[&Claim],
    served_by: &ServedBy<'_>,
    here: Here<'_>,
    affinities: &[Affinity],
    previous: &dyn Slots,
) -> Vec<FrontendPlan> {
    let affinity = affinities.get(port).copied();
    let mut plans = Vec::with_capacity(claims.len());
    for family in Family::BOTH {
        let mut claims = claims.iter().filter(|claim| claim.frontend.family() == family).peekable();
        if claims.peek().is_some() {
            let backends = backends(served_by, &service.ports[port], family, here);
            plans.extend(
                claims.map(|claim| FrontendPlan::new(claim, service, &backends, here, affinity, previous)),
            );
        }
    }
    plans
}

fn forbidden_endpoints(slice: &EndpointSlice) -> Option<Problem> {
    let mut forbidden = slice.endpoints.iter().map(|endpoint| endpoint.address).filter(|ip| is_special(*ip));
    let first = forbidden.next()?;
    Some(Problem::ForbiddenEndpoints { slice: slice.key.name.clone(), first, count: 1 + forbidden.count() })
}

impl FrontendPlan {
    fn new(
        claim: &Claim,
        service: &Service,
        backends: &Backends,
        here: Here<'_>,
        affinity: Option<Affinity>,
        previous: &dyn Slots,
    ) -> FrontendPlan {
        let Claim { frontend, scope, .. } = *claim;
        let target = |policy, audience| {
            let sockets = match policy {
                TrafficPolicy::Cluster => &backends.cluster,
                TrafficPolicy::Local => &backends.local,
            };
            match (sockets.is_empty(), backends.cluster.is_empty()) {
                (false, _) => Target::Endpoints(assign_slots(previous.slots(&frontend, audience), sockets)),
                (true, false) => Target::Drop,
                (true, true) => Target::Reject,
            }
        };
        let (everyone, outside) = match (scope, service.external_policy) {
            (Scope::Internal, _) => (service.internal_policy, None),
            (Scope::External, TrafficPolicy::Cluster) => (TrafficPolicy::Cluster, None),
            (Scope::External, TrafficPolicy::Local) => (TrafficPolicy::Cluster, Some(TrafficPolicy::Local)),
        };
        FrontendPlan {
            frontend,
            scope,
            target: target(everyone, Audience::Everyone),
            outside: outside.map(|policy| target(policy, Audience::Outside)),
            hairpins: backends.hairpins.clone(),
            sources: match frontend {
                Frontend::Address(address, ..) => sources(service, address, here.addresses),
                Frontend::NodePort(..) => Vec::new(),
            },
            affinity,
        }
    }
}
