//! Which frontends a Service asks for, by its own text alone. Who gets them is said by `ownership.rs`, and
//! which endpoints are valid there by `valid_endpoints.rs`.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::num::NonZeroU16;

use weft_types::{Family, Protocol, Service, ServicePort};

use super::endpoints::is_special;
use super::health_check;
use super::plan::{Frontend, Scope};
use super::problem::Problem;

/// More ports than any Service has that is meant well: each is looked for among those of its EndpointSlices.
pub const MAX_PORTS: u16 = 10_000;
/// More frontends than any has: ports times addresses.
pub const MAX_FRONTENDS: usize = 100_000;

/// A frontend that a Service asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// Which of its ports, by index.
    pub port: u16,
    /// What it asks for.
    pub frontend: Frontend,
    /// Whether that is a ClusterIP's.
    pub scope: Scope,
}

/// What a Service asks for.
#[derive(Debug, Default)]
pub struct Requests {
    /// When the Service was made.
    pub(super) created: i64,
    /// In the order of its ports.
    pub frontends: Box<[Request]>,
    /// How many of its ports, from the first on, that is for.
    pub ports: u16,
    /// Where it is to be asked for its health, over TCP in both families.
    pub(super) health_check: Option<u16>,
    /// What nobody may have of it.
    pub problems: Box<[Problem]>,
}

impl Requests {
    /// Those of a Service.
    pub fn of(service: &Service) -> Requests {
        let addresses = service.cluster_ips().iter().chain(external_addresses(service));
        let forbidden = addresses.copied().filter(|address| is_special(*address));
        let mut problems: Vec<_> = forbidden.map(Problem::ForbiddenAddress).collect();
        let addresses = ServiceAddresses::of(service);
        let (mut requests, mut seen) = (Vec::with_capacity(service.ports.len()), BTreeSet::new());
        let mut ports = 0;
        for (index, port) in (0..MAX_PORTS).zip(&service.ports) {
            if requests.len() + problems.len() + addresses.count(port) > MAX_FRONTENDS {
                break;
            }
            ports += 1;
            for (frontend, scope) in addresses.frontends(port) {
                match seen.insert(frontend) {
                    true => requests.push(Request { port: index, frontend, scope }),
                    false => problems.push(Problem::Repeated(frontend)),
                }
            }
        }
        let health_check = health_check::port(service).map(NonZeroU16::get);
        // Clients come before those who ask how it is.
        let is_free = |port: &u16| health_check_frontends(*port).all(|frontend| !seen.contains(&frontend));
        let taken = health_check.filter(|port| !is_free(port));
        let owner = || service.key.clone();
        problems.extend(taken.map(|port| Problem::HealthCheckPortTaken { port, owner: owner() }));
        Requests {
            created: service.created,
            frontends: requests.into(),
            ports,
            health_check: health_check.filter(is_free),
            problems: problems.into(),
        }
    }

    /// All that it asks for.
    pub(super) fn all(&self) -> impl Iterator<Item = (Frontend, Scope)> {
        let health_check = self.health_check.into_iter().flat_map(health_check_frontends);
        let frontends = self.frontends.iter().map(|request| (request.frontend, request.scope));
        frontends.chain(health_check.map(|frontend| (frontend, Scope::External)))
    }
}

/// What a Service asks for that is to be asked for its health at a port.
pub(super) fn health_check_frontends(port: u16) -> impl Iterator<Item = Frontend> {
    Family::BOTH.into_iter().map(move |family| Frontend::NodePort(family, Protocol::Tcp, port))
}

/// The addresses of a Service that may be served: its ClusterIPs, and in their families its external ones. In
/// order, each once.
struct ServiceAddresses {
    cluster_ips: Vec<IpAddr>,
    external: Vec<IpAddr>,
}

impl ServiceAddresses {
    fn of(service: &Service) -> ServiceAddresses {
        let allowed = |address: &IpAddr| !is_special(*address);
        let cluster_ips = in_order(service.cluster_ips().iter().copied().filter(allowed));
        let is_of_family =
            |address: &IpAddr| cluster_ips.iter().any(|ip| Family::of(*ip) == Family::of(*address));
        let served =
            |address: &IpAddr| allowed(address) && is_of_family(address) && !cluster_ips.contains(address);
        let external = in_order(external_addresses(service).copied().filter(served));
        ServiceAddresses { cluster_ips, external }
    }

    /// How many frontends a port has.
    fn count(&self, port: &ServicePort) -> usize {
        let node_ports = port.node_port.map_or(0, |_| self.families().count());
        self.cluster_ips.len() + self.external.len() + node_ports
    }

    /// All frontends of one port: these addresses, and its NodePort.
    fn frontends(&self, port: &ServicePort) -> impl Iterator<Item = (Frontend, Scope)> {
        let at = move |address: &IpAddr| Frontend::Address(*address, port.protocol, port.port.get());
        let node_port = port.node_port.into_iter().flat_map(move |number| {
            self.families().map(move |family| Frontend::NodePort(family, port.protocol, number.get()))
        });
        let internal = self.cluster_ips.iter().map(move |address| (at(address), Scope::Internal));
        let external = self.external.iter().map(at).chain(node_port);
        internal.chain(external.map(|frontend| (frontend, Scope::External)))
    }

    fn families(&self) -> impl Iterator<Item = Family> {
        let has = |family: &Family| self.cluster_ips.iter().any(|address| Family::of(*address) == *family);
        Family::BOTH.into_iter().filter(has)
    }
}

fn in_order(addresses: impl Iterator<Item = IpAddr>) -> Vec<IpAddr> {
    let mut addresses: Vec<IpAddr> = addresses.collect();
    addresses.sort_unstable();
    addresses.dedup();
    addresses
}

fn external_addresses(service: &Service) -> impl Iterator<Item = &IpAddr> {
    service.external_ips.iter().chain(&service.load_balancer_ips)
}
