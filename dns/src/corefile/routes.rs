//! Where a server block forwards its names, and for how long answers are kept. Which `forward` takes a name, and
//! whether `cache` keeps it, depends on a few domains only: at each of them it is decided once, and a name has
//! what the longest of them that it is below has.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use hickory_proto::rr::Name;
use weft_corefile::{self as corefile, Cache, Domain, Forward, Kept, Server, Target};

use crate::forward::{Keeping, Limits, Manner, Policy, Route, Settings};
use crate::pipeline::rules::template::wire_domain;

/// Where the names of a server block are asked. `upstreams` tells whom a target names, `search` is the node's
/// search list.
pub fn settings(
    server: &Server,
    upstreams: &dyn Fn(&Target) -> Vec<SocketAddr>,
    search: Vec<Name>,
) -> Settings {
    let mut points = BTreeSet::from([Domain::root()]);
    for forward in &server.forwards {
        points.insert(forward.from.clone());
        points.extend(forward.except.iter().cloned());
    }
    if let Some(cache) = &server.cache {
        points.extend(cache.zones.iter().chain(&cache.success.except).chain(&cache.denial.except).cloned());
    }
    let mut points: Vec<Domain> = points.into_iter().collect();
    points.sort_by_key(|point| point.as_str().len());
    let mut routes: BTreeMap<Domain, Route> = BTreeMap::new();
    for point in points {
        let route = route(server, &point, upstreams);
        let above = routes
            .iter()
            .filter(|(domain, _)| domain.covers(&point))
            .max_by_key(|(domain, _)| domain.as_str().len());
        if above.is_none_or(|(_, above)| *above != route) {
            routes.insert(point, route);
        }
    }
    let all = routes.remove(&Domain::root()).unwrap_or_default();
    let chosen = server
        .forwards
        .iter()
        .flat_map(|forward| &forward.to)
        .any(|target| !matches!(target, Target::File(_)));
    let stub_domains = routes.iter().map(|(domain, route)| (wire_domain(domain), route.clone())).collect();
    Settings { upstreams: all.upstreams, manner: all.manner, chosen, stub_domains, search }
}

/// What becomes of the names at a domain.
fn route(server: &Server, at: &Domain, upstreams: &dyn Fn(&Target) -> Vec<SocketAddr>) -> Route {
    let takes = |forward: &&Forward| {
        forward.from.covers(at) && !forward.except.iter().any(|domain| domain.covers(at))
    };
    let forward = server.forwards.iter().find(takes);
    let keeping = keeping(server.cache.as_ref(), at);
    match forward {
        None => Route { upstreams: Vec::new(), manner: Manner { keeping, ..Manner::default() } },
        Some(forward) => Route {
            upstreams: forward.to.iter().flat_map(upstreams).collect(),
            manner: Manner { policy: Some(policy(forward.policy)), tcp: forward.force_tcp, keeping },
        },
    }
}

fn policy(policy: corefile::Policy) -> Policy {
    match policy {
        corefile::Policy::Random => Policy::Random,
        corefile::Policy::RoundRobin => Policy::RoundRobin,
        corefile::Policy::Sequential => Policy::Sequential,
    }
}

fn keeping(cache: Option<&Cache>, at: &Domain) -> Keeping {
    let cached = cache.filter(|cache| cache.zones.iter().any(|zone| zone.covers(at)));
    let Some(cache) = cached else {
        let never = Limits { ttl: None, kept: false };
        return Keeping { success: never, denial: never, failure: Duration::ZERO };
    };
    let limits = |kept: &Kept| Limits {
        ttl: Some((kept.shortest, kept.longest)),
        kept: !kept.except.iter().any(|domain| domain.covers(at)),
    };
    Keeping { success: limits(&cache.success), denial: limits(&cache.denial), failure: cache.servfail }
}
