//! Who has which frontend: what each Service asks for, and who gets it where several ask for the same. Pure; how the
//! others are told is in `problem.rs`.
//!
//! An address that is some Service's ClusterIP is that Service's alone: an external address never takes traffic that is
//! meant for it, at whatever port (CVE-2020-8554). Likewise at the node's own addresses a NodePort is before an external
//! address, which anybody may ask for. Where two ask for the same otherwise, the older one has it, and of two
//! of one age the first by name: who came later takes nothing from who was there.
//!
//! At a `healthCheckNodePort` nothing is led anywhere, since the proxy itself answers there; but no NodePort can be served at it
//! either. So it is asked for like one.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::num::NonZeroU16;
use std::sync::Arc;

use weft_types::{Family, NamespacedName, Protocol, Service, ServicePort};

use super::endpoints::is_special;
use super::health_check;
use super::plan::{Frontend, Scope};
use super::problem::Problem;

/// More ports than any Service has that is meant well: each is looked for among those of its EndpointSlices.
pub const MAX_PORTS: usize = 10_000;
/// More frontends than any has: ports times addresses.
pub const MAX_CLAIMS: usize = 100_000;

/// A frontend that a Service asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim {
    /// Which of its ports, by index.
    pub port: usize,
    /// What it asks for.
    pub frontend: Frontend,
    /// Whether that is a ClusterIP's.
    pub scope: Scope,
}

/// What a Service asks for.
#[derive(Debug, Default)]
pub struct Wanted {
    /// When the Service was made.
    created: i64,
    /// In the order of its ports.
    pub claims: Box<[Claim]>,
    /// How many of its ports, from the first on, that is for.
    pub ports: usize,
    /// Where it is to be asked for its health, over TCP in both families.
    health_check: Option<u16>,
    /// What nobody may have of it.
    pub problems: Box<[Problem]>,
}

impl Wanted {
    fn of(service: &Service) -> Wanted {
        let addresses = service.cluster_ips().iter().chain(external_addresses(service));
        let forbidden = addresses.copied().filter(|address| is_special(*address));
        let mut problems: Vec<_> = forbidden.map(Problem::ForbiddenAddress).collect();
        let addresses = Addresses::of(service);
        let (mut claims, mut seen) = (Vec::with_capacity(service.ports.len()), BTreeSet::new());
        let mut ports = 0;
        for (index, port) in service.ports.iter().enumerate().take(MAX_PORTS) {
            if claims.len() + problems.len() + addresses.count(port) > MAX_CLAIMS {
                break;
            }
            ports += 1;
            for (frontend, scope) in addresses.frontends(port) {
                match seen.insert(frontend) {
                    true => claims.push(Claim { port: index, frontend, scope }),
                    false => problems.push(Problem::Repeated(frontend)),
                }
            }
        }
        let health_check = health_check::port(service).map(NonZeroU16::get);
        // Clients come before those who ask how it is.
        let is_free = |port: &u16| health_check_frontends(*port).all(|frontend| !seen.contains(&frontend));
        let taken = health_check.filter(|port| !is_free(port));
        let holder = || service.key.clone();
        problems.extend(taken.map(|port| Problem::HealthCheckPortTaken { port, holder: holder() }));
        Wanted {
            created: service.created,
            claims: claims.into(),
            ports,
            health_check: health_check.filter(is_free),
            problems: problems.into(),
        }
    }

    /// All that it asks for.
    fn asked_for(&self) -> impl Iterator<Item = (Frontend, Scope)> {
        let health_check = self.health_check.into_iter().flat_map(health_check_frontends);
        let claims = self.claims.iter().map(|claim| (claim.frontend, claim.scope));
        claims.chain(health_check.map(|frontend| (frontend, Scope::External)))
    }
}

/// What a Service asks for that is to be asked for its health at a port.
fn health_check_frontends(port: u16) -> impl Iterator<Item = Frontend> {
    Family::BOTH.into_iter().map(move |family| Frontend::NodePort(family, Protocol::Tcp, port))
}

/// The addresses of a Service that may be served: its ClusterIPs, and in their families its external ones. In order, each
/// once.
struct Addresses {
    cluster_ips: Vec<IpAddr>,
    external: Vec<IpAddr>,
}

impl Addresses {
    fn of(service: &Service) -> Addresses {
        let allowed = |address: &IpAddr| !is_special(*address);
        let cluster_ips = in_order(service.cluster_ips().iter().copied().filter(allowed));
        let is_of_family =
            |address: &IpAddr| cluster_ips.iter().any(|ip| Family::of(*ip) == Family::of(*address));
        let served =
            |address: &IpAddr| allowed(address) && is_of_family(address) && !cluster_ips.contains(address);
        let external = in_order(external_addresses(service).copied().filter(served));
        Addresses { cluster_ips, external }
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

/// What all Services ask for.
#[derive(Debug, Default)]
pub struct Ownership {
    services: HashMap<Arc<NamespacedName>, Wanted>,
    cluster_ips: HashMap<IpAddr, Claimants>,
    /// External addresses and NodePorts. In order, so that those of one address stand together.
    external: BTreeMap<Frontend, Claimants>,
    /// The node's own addresses, where NodePorts are.
    node: Vec<IpAddr>,
}

/// Those who ask for one thing by age and name: the first one has it.
#[derive(Debug, Default)]
struct Claimants(Vec<(i64, Arc<NamespacedName>)>);

/// What was asked for anew or no longer, with who had it before.
#[derive(Debug, Default)]
pub struct Disputes {
    cluster_ips: BTreeMap<IpAddr, Option<Arc<NamespacedName>>>,
    external: BTreeMap<Frontend, Option<Arc<NamespacedName>>>,
}

impl Claimants {
    fn owner(&self) -> Option<&Arc<NamespacedName>> {
        self.0.first().map(|(_, service)| service)
    }

    fn names(&self) -> impl Iterator<Item = Arc<NamespacedName>> + use<'_> {
        self.0.iter().map(|(_, service)| service.clone())
    }

    fn add(&mut self, claimant: (i64, Arc<NamespacedName>)) {
        if let Err(index) = self.0.binary_search(&claimant) {
            self.0.reserve_exact(1); // Nearly always there is one only.
            self.0.insert(index, claimant);
        }
    }

    fn remove(&mut self, service: &NamespacedName) {
        self.0.retain(|(_, claimant)| **claimant != *service);
    }
}

impl Ownership {
    /// The Service's name, as it is kept here.
    pub fn name(&self, service: &NamespacedName) -> Arc<NamespacedName> {
        let known = self.services.get_key_value(service).map(|(name, _)| name.clone());
        known.unwrap_or_else(|| Arc::new(service.clone()))
    }

    /// Replaces what a Service asks for; one that is gone asks for nothing. What that touches is noted in `disputes`.
    pub fn replace(&mut self, name: &NamespacedName, service: Option<&Service>, disputes: &mut Disputes) {
        let name = self.name(name);
        let new = service.map(Wanted::of).unwrap_or_default();
        let old = self.services.remove(&name).unwrap_or_default();
        let what = |wanted: &Wanted| (wanted.created, wanted.health_check);
        if what(&old) != what(&new) || old.claims != new.claims {
            old.asked_for().for_each(|what| self.change(what, disputes, |claimants| claimants.remove(&name)));
            let claimant = (new.created, name.clone());
            new.asked_for()
                .for_each(|what| self.change(what, disputes, |claimants| claimants.add(claimant.clone())));
        }
        if new.asked_for().next().is_some() || !new.problems.is_empty() {
            self.services.insert(name, new);
        }
    }

    /// What a Service asks for, if anything.
    pub fn wanted(&self, service: &NamespacedName) -> Option<&Wanted> {
        self.services.get(service)
    }

    fn change(
        &mut self,
        (frontend, scope): (Frontend, Scope),
        disputes: &mut Disputes,
        change: impl FnOnce(&mut Claimants),
    ) {
        match (scope, frontend) {
            (Scope::Internal, Frontend::Address(address, ..)) => {
                let claimants = self.cluster_ips.entry(address).or_default();
                disputes.cluster_ips.entry(address).or_insert_with(|| claimants.owner().cloned());
                change(claimants);
                if claimants.0.is_empty() {
                    self.cluster_ips.remove(&address);
                }
            }
            (_, frontend) => {
                let claimants = self.external.entry(frontend).or_default();
                disputes.external.entry(frontend).or_insert_with(|| claimants.owner().cloned());
                change(claimants);
                if claimants.0.is_empty() {
                    self.external.remove(&frontend);
                }
            }
        }
    }

    /// The Services for which something else holds now than before: of every thing that changed hands, all that ask for
    /// it, but for those that did not before.
    pub fn settle(&self, disputes: Disputes) -> BTreeSet<Arc<NamespacedName>> {
        let mut concerned = BTreeSet::new();
        for (address, before) in disputes.cluster_ips {
            let claimants = self.cluster_ips.get(&address);
            if claimants.and_then(Claimants::owner) != before.as_ref() {
                // Where nobody had it, nobody asks for it but those who just came.
                if before.is_some() {
                    concerned.extend(claimants.into_iter().flat_map(Claimants::names));
                }
                concerned.extend(self.claimants_at(address));
            }
        }
        for (frontend, before) in disputes.external {
            let claimants = self.external.get(&frontend);
            if claimants.and_then(Claimants::owner) != before.as_ref() {
                if before.is_some() {
                    concerned.extend(claimants.into_iter().flat_map(Claimants::names));
                }
                concerned.extend(self.claimants_of_node_port(frontend));
            }
        }
        concerned
    }

    /// Those who ask for a NodePort as a port of an external address that is the node's own.
    fn claimants_of_node_port(&self, frontend: Frontend) -> impl Iterator<Item = Arc<NamespacedName>> {
        let external = move |address: &IpAddr| match frontend {
            Frontend::NodePort(family, protocol, port) if Family::of(*address) == family => {
                self.external.get(&Frontend::Address(*address, protocol, port))
            }
            _ => None,
        };
        self.node.iter().filter_map(external).flat_map(Claimants::names)
    }

    /// Takes over the node's own addresses. Returns the Services that this may give a frontend or take one from.
    pub fn readdress(&mut self, node: &[IpAddr]) -> BTreeSet<Arc<NamespacedName>> {
        if self.node == node {
            return BTreeSet::new();
        }
        let old = std::mem::replace(&mut self.node, node.to_vec());
        old.iter().chain(node).flat_map(|address| self.claimants_at(*address)).collect()
    }

    /// Those who ask for an address as an external one.
    fn claimants_at(&self, address: IpAddr) -> impl Iterator<Item = Arc<NamespacedName>> {
        let all = Frontend::Address(address, Protocol::Tcp, 0)
            ..=Frontend::Address(address, Protocol::Sctp, u16::MAX);
        self.external.range(all).flat_map(|(_, claimants)| claimants.names())
    }

    /// Who has it, if not that Service.
    pub fn other_owner(&self, service: &NamespacedName, claim: &Claim) -> Option<&NamespacedName> {
        self.owner(&claim.frontend).map(|holder| &**holder).filter(|holder| *holder != service)
    }

    /// Who has a frontend; a NodePort for its clients, or for those who ask how it is.
    pub fn owner(&self, frontend: &Frontend) -> Option<&Arc<NamespacedName>> {
        let first = match *frontend {
            Frontend::Address(address, protocol, port) => {
                let node_port = || Frontend::NodePort(Family::of(address), protocol, port);
                let at_node = || self.node.contains(&address).then(|| self.external.get(&node_port()));
                self.cluster_ips.get(&address).or_else(|| at_node().flatten())
            }
            Frontend::NodePort(..) => None,
        };
        first.or_else(|| self.external.get(frontend))?.owner()
    }

    /// What is to be said where another Service has it.
    pub fn taken(&self, service: &NamespacedName, claim: &Claim) -> Option<Problem> {
        let (frontend, holder) = (claim.frontend, self.other_owner(service, claim)?.clone());
        let (Frontend::NodePort(_, protocol, port) | Frontend::Address(_, protocol, port)) = frontend;
        let asked_there = self.wanted(&holder).is_some_and(|wanted| wanted.health_check == Some(port));
        match asked_there && protocol == Protocol::Tcp && !self.is_cluster_ip(frontend) {
            true => Some(Problem::TakenForHealthChecks { frontend, holder }),
            false => Some(Problem::Taken { frontend, holder }),
        }
    }

    fn is_cluster_ip(&self, frontend: Frontend) -> bool {
        matches!(frontend, Frontend::Address(address, ..) if self.cluster_ips.contains_key(&address))
    }

    /// What is to be said where a Service cannot be asked for its health at its port, or by one family only.
    pub fn health_check_taken(&self, service: &NamespacedName) -> Option<Problem> {
        let port = self.wanted(service)?.health_check?;
        let mut holders =
            health_check_frontends(port).filter_map(|frontend| self.external.get(&frontend)?.owner());
        let holder = holders.find(|holder| ***holder != *service)?;
        Some(Problem::HealthCheckPortTaken { port, holder: NamespacedName::clone(holder) })
    }

    /// Whether a Service has the port at which it is to be asked for its health, at least in one family.
    pub fn answers_health_checks(&self, service: &NamespacedName) -> bool {
        let port = self.wanted(service).and_then(|wanted| wanted.health_check);
        let mut holders = port
            .into_iter()
            .flat_map(health_check_frontends)
            .filter_map(|frontend| self.external.get(&frontend)?.owner());
        holders.any(|holder| **holder == *service)
    }
}

#[cfg(test)]
mod tests {
    use weft_types::{ServiceKind, TrafficPolicy};

    use super::*;

    /// A Service of that age with a NodePort, and perhaps a port at which it is asked for its health.
    fn service(name: &str, created: i64, node_port: u16, health_check: Option<u16>) -> Service {
        let port = ServicePort {
            name: String::new(),
            protocol: Protocol::Tcp,
            port: 80.try_into().unwrap(),
            node_port: node_port.try_into().ok(),
        };
        let kind = ServiceKind::ClusterIp(vec![[10, 96, 0, created as u8].into()]);
        let service = Service::new(NamespacedName::new("shop", name), kind, vec![port]);
        let health_check_port = health_check.and_then(NonZeroU16::new);
        Service { created, health_check_port, external_policy: TrafficPolicy::Local, ..service }
    }

    /// What is wrong with each of these Services, which came in this order, and whether its health checks are answered.
    fn settled(services: &[&Service]) -> Vec<(Vec<&'static str>, bool)> {
        let mut claims = Ownership::default();
        for service in services {
            claims.replace(&service.key, Some(service), &mut Disputes::default());
        }
        let outcome = |service: &&Service| {
            let wanted = claims.wanted(&service.key).unwrap();
            let taken = wanted.claims.iter().filter_map(|claim| claims.taken(&service.key, claim));
            let all = wanted.problems.iter().cloned().chain(taken);
            let all = all.chain(claims.health_check_taken(&service.key));
            (all.map(|problem| problem.reason()).collect(), claims.answers_health_checks(&service.key))
        };
        services.iter().map(outcome).collect()
    }

    #[test]
    fn the_older_of_a_node_port_and_another_services_health_check_port_stays() {
        let (ports, checked) = (service("ports", 1, 32000, None), service("checked", 2, 0, Some(32000)));
        let by_ipv6 = (vec!["HealthCheckPortTaken"], true);
        assert_eq!(settled(&[&ports, &checked]), [(vec![], false), by_ipv6]);
        let checked = service("checked", 1, 0, Some(32000));
        let ports = service("ports", 2, 32000, None);
        assert_eq!(settled(&[&ports, &checked]), [(vec!["FrontendTaken"], false), (vec![], true)]);
        let udp = ServicePort { protocol: Protocol::Udp, ..ports.ports[0].clone() };
        let udp = Service { ports: vec![udp], ..ports };
        assert_eq!(settled(&[&udp, &checked]), [(vec![], false), (vec![], true)], "checks are over TCP");
    }

    #[test]
    fn of_two_services_with_one_health_check_port_the_older_is_asked_there() {
        let (older, younger) = (service("z", 1, 0, Some(32000)), service("a", 2, 0, Some(32000)));
        assert_eq!(settled(&[&younger, &older]), [(vec!["HealthCheckPortTaken"], false), (vec![], true)]);
    }

    #[test]
    fn a_service_whose_ports_are_one_serves_its_clients_there() {
        let service = service("web", 1, 32000, Some(32000));
        assert_eq!(settled(&[&service]), [(vec!["HealthCheckPortTaken"], false)]);
    }

    #[test]
    fn a_port_that_becomes_free_goes_to_the_one_that_waited() {
        let (older, younger) = (service("checked", 1, 0, Some(32000)), service("ports", 2, 32000, None));
        let mut claims = Ownership::default();
        for service in [&older, &younger] {
            claims.replace(&service.key, Some(service), &mut Disputes::default());
        }
        let mut disputes = Disputes::default();
        claims.replace(&older.key, Some(&service("checked", 1, 0, None)), &mut disputes);
        let concerned: Vec<_> = claims.settle(disputes).into_iter().map(|name| name.name.clone()).collect();
        assert_eq!(concerned, ["ports"]);
        let claim = claims.wanted(&younger.key).unwrap().claims.last().copied().unwrap();
        assert_eq!(claims.taken(&younger.key, &claim), None);
    }
}
