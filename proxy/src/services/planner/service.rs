//! Plans one Service for this node, of what it asks for and may have.

use std::num::NonZeroU32;
use std::time::Duration;

use weft_types::{EndpointSlice, Family, Service, ServicePort, TrafficPolicy};

use crate::services::endpoints::{Backends, ServedBy, backends, is_special};
use crate::services::node::NodeContext;
use crate::services::ownership::Ownership;
use crate::services::plan::{Frontend, FrontendPlan, Scope, ServicePlan, Target};
use crate::services::problem::Problem;
use crate::services::requests::Request;
use crate::services::source_ranges::sources;

/// More entries than any Service has that is meant well: the kernel takes this many in about half a second.
const MAX_ENTRIES: usize = 100_000;
/// The longest session affinity that the API knows: a day.
const LONGEST_AFFINITY: u64 = 86_400;

/// Plans one Service for this node, and says what of it cannot be served.
pub(super) fn plan(
    service: &Service,
    slices: &[&EndpointSlice],
    node: NodeContext<'_>,
    ownership: &Ownership,
) -> (ServicePlan, Vec<Problem>) {
    let served_by = ServedBy::of(slices.iter().copied());
    let requests = ownership.requests(&service.key);
    let mut problems = requests.map(|requests| requests.problems.to_vec()).unwrap_or_default();
    problems.extend(slices.iter().filter_map(|slice| forbidden_endpoints(slice)));
    let mut frontends = Vec::new();
    let (mut entries, mut served) =
        (0, requests.map_or(service.ports.len(), |requests| requests.ports.into()));
    problems.extend(ownership.health_check_taken(&service.key));
    let requests = requests.map(|requests| &*requests.frontends).unwrap_or_default();
    for requests in requests.chunk_by(|one, other| one.port == other.port) {
        let (granted, taken): (Vec<_>, Vec<_>) =
            requests.iter().partition(|request| ownership.other_owner(&service.key, request).is_none());
        problems.extend(taken.into_iter().filter_map(|request| ownership.taken(&service.key, request)));
        let port = usize::from(requests[0].port);
        let planned = plan_port(service, port, &granted, &served_by, node);
        entries += planned.iter().map(FrontendPlan::entries).sum::<usize>();
        if entries > MAX_ENTRIES {
            served = port;
            break;
        }
        frontends.extend(planned);
    }
    if served < service.ports.len() {
        problems.push(Problem::TooLarge { ports: service.ports.len() - served });
    }
    frontends.sort_unstable_by_key(|plan| plan.frontend);
    problems.sort();
    let health_check = ownership.health_check(&service.key);
    (ServicePlan { frontends: frontends.into(), health_check }, problems)
}

fn plan_port(
    service: &Service,
    port: usize,
    requests: &[&Request],
    served_by: &ServedBy<'_>,
    node: NodeContext<'_>,
) -> Vec<FrontendPlan> {
    let port = &service.ports[port];
    let mut plans = Vec::with_capacity(requests.len());
    for family in Family::BOTH {
        let mut requests = requests.iter().filter(|request| request.frontend.family() == family).peekable();
        if requests.peek().is_some() {
            let backends = backends(served_by, port, family, node);
            plans.extend(requests.map(|request| frontend(request, port, service, &backends, node)));
        }
    }
    plans
}

fn forbidden_endpoints(slice: &EndpointSlice) -> Option<Problem> {
    let mut forbidden = slice.endpoints.iter().map(|endpoint| endpoint.address).filter(|ip| is_special(*ip));
    let first = forbidden.next()?;
    Some(Problem::ForbiddenEndpoints {
        slice: slice.key.name.to_string(),
        first,
        count: 1 + forbidden.count(),
    })
}

fn seconds(timeout: Duration) -> Option<NonZeroU32> {
    NonZeroU32::new(timeout.as_secs().clamp(1, LONGEST_AFFINITY) as u32)
}

fn frontend(
    request: &Request,
    port: &ServicePort,
    service: &Service,
    backends: &Backends,
    node: NodeContext<'_>,
) -> FrontendPlan {
    let Request { frontend, scope, .. } = *request;
    let target = |policy| {
        let endpoints = match policy {
            TrafficPolicy::Cluster => &backends.cluster,
            TrafficPolicy::Local => &backends.local,
        };
        match (endpoints.is_empty(), backends.cluster.is_empty()) {
            (false, _) => Target::Endpoints(endpoints.as_slice().into()),
            (true, false) => Target::Drop,
            (true, true) => Target::Reject,
        }
    };
    let (anywhere, outside) = match (scope, service.external_policy) {
        (Scope::Internal, _) => (service.internal_policy, None),
        (Scope::External, TrafficPolicy::Cluster) => (TrafficPolicy::Cluster, None),
        (Scope::External, TrafficPolicy::Local) => (TrafficPolicy::Cluster, Some(TrafficPolicy::Local)),
    };
    FrontendPlan {
        frontend,
        port: port.name.clone(),
        scope,
        is_load_balancer: match frontend {
            Frontend::Address(address, ..) => service.load_balancer_ips.contains(&address),
            Frontend::NodePort(..) => false,
        },
        policy: anywhere,
        target: target(anywhere),
        outside: outside.map(target),
        hairpins: backends.hairpins.as_slice().into(),
        sources: match frontend {
            Frontend::Address(address, ..) => sources(service, address, node.addresses).into(),
            Frontend::NodePort(..) => [].into(),
        },
        affinity: service.affinity.and_then(seconds),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_of_session_affinity_stays_within_a_day() {
        let seconds = |time| seconds(time).map(NonZeroU32::get);
        assert_eq!(seconds(Duration::ZERO), Some(1));
        assert_eq!(seconds(Duration::from_secs(10_800)), Some(10_800));
        assert_eq!(seconds(Duration::MAX), Some(86_400));
    }
}
