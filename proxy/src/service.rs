//! The plan of one Service: what each of its frontends leads to. Pure; how it becomes elements is in `elements.rs`.

use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU16;

use weft_types::{EndpointSlice, Family, Protocol, Service, ServicePort, TrafficPolicy};

use crate::endpoints::{Backends, assign_slots, backends, is_special};

/// What all frontends of a Service lead to, in both families.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServicePlan {
    /// One for each port and address, and one for each NodePort and family.
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
        let plan = self.frontends.iter().find(|plan| plan.frontend == *frontend);
        let target = plan.and_then(|plan| plan.target(audience));
        target.map(Target::slots).unwrap_or_default()
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
    /// The family of the packets that come to it.
    pub fn family(&self) -> Family {
        match self {
            Frontend::Address(address, ..) => Family::of(*address),
            Frontend::NodePort(family, ..) => *family,
        }
    }
}

impl FrontendPlan {
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

/// Plans one Service for the node of that name, with its endpoints left in the slots of `previous` where possible.
pub fn plan(service: &Service, slices: &[&EndpointSlice], node: &str, previous: &dyn Slots) -> ServicePlan {
    let mut plan = ServicePlan::default();
    for &cluster_ip in service.cluster_ips() {
        for port in &service.ports {
            let backends = backends(slices, port, Family::of(cluster_ip), node);
            let planned =
                |(frontend, scope)| FrontendPlan::new(frontend, scope, service, &backends, previous);
            plan.frontends.extend(frontends(service, port, cluster_ip).into_iter().map(planned));
        }
    }
    plan
}

/// All frontends of a port in the family of that ClusterIP.
fn frontends(service: &Service, port: &ServicePort, cluster_ip: IpAddr) -> Vec<(Frontend, Scope)> {
    let family = Family::of(cluster_ip);
    let at = |address| Frontend::Address(address, port.protocol, port.port.get());
    // An address that only some may reach is served to nobody until the ranges are enforced.
    let balanced = service.load_balancer_ips.iter().filter(|_| service.source_ranges.is_empty());
    let external = service.external_ips.iter().chain(balanced).copied();
    let external = external.filter(|ip| Family::of(*ip) == family && !is_special(*ip));
    let external: BTreeSet<IpAddr> = external.collect();
    let node_port = |port_on_node: NonZeroU16| Frontend::NodePort(family, port.protocol, port_on_node.get());
    let mut frontends = vec![(at(cluster_ip), Scope::Internal)];
    frontends.extend(external.into_iter().map(|ip| (at(ip), Scope::External)));
    frontends.extend(port.node_port.map(|port| (node_port(port), Scope::External)));
    frontends
}

impl FrontendPlan {
    fn new(
        frontend: Frontend,
        scope: Scope,
        service: &Service,
        backends: &Backends,
        previous: &dyn Slots,
    ) -> FrontendPlan {
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
            hairpins: backends.hairpins.iter().copied().collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use weft_types::{NamespacedName, ServiceKind};

    use super::*;

    #[test]
    fn a_restricted_load_balancer_address_is_not_open_to_all() {
        let kind = ServiceKind::ClusterIp(vec!["10.96.0.1".parse().unwrap()]);
        let port = ServicePort {
            name: String::new(),
            protocol: Protocol::Tcp,
            port: 80.try_into().unwrap(),
            node_port: None,
        };
        let mut service = Service::new(NamespacedName::new("shop", "web"), kind, vec![port]);
        service.load_balancer_ips = vec!["192.0.2.1".parse().unwrap()];
        let frontends =
            |service: &Service| plan(service, &[], "node1", &ServicePlan::default()).frontends.len();
        assert_eq!(frontends(&service), 2);
        service.source_ranges = vec!["198.51.100.0/24".parse().unwrap()];
        assert_eq!(frontends(&service), 1);
    }
}
