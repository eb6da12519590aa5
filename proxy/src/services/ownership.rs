//! Which Service has which frontend: who gets it where several ask for the same. How the others are told is
//! in `problem.rs`.
//!
//! An address that is some Service's ClusterIP is that Service's alone: an external address never takes
//! traffic that is meant for it, at whatever port (CVE-2020-8554). Likewise at the node's own addresses a
//! NodePort is before an external address, which anybody may ask for. Where two ask for the same otherwise,
//! the older one has it, and of two of one age the first by name: who came later takes nothing from who was
//! there.
//!
//! At a `healthCheckNodePort` nothing is led anywhere, since the proxy itself answers there; but no NodePort
//! can be served at it either. So it is asked for like one.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use smallvec::SmallVec;
use weft_types::{Family, NamespacedName, Protocol, Service};

use super::plan::{Frontend, Scope};
use super::problem::Problem;
use super::requests::{Request, Requests, health_check_frontends};

/// What all Services ask for, and so who has what.
#[derive(Debug, Default)]
pub struct Ownership {
    services: HashMap<Arc<NamespacedName>, Requests>,
    cluster_ips: HashMap<IpAddr, Requesters>,
    /// External addresses and NodePorts. In order, so that those of one address stand together.
    external: BTreeMap<Frontend, Requesters>,
    /// The node's own addresses, where NodePorts are.
    node: Vec<IpAddr>,
}

/// Those who ask for one thing by age and name: the first one has it. Nearly always there is one only.
#[derive(Debug, Default)]
struct Requesters(SmallVec<[(i64, Arc<NamespacedName>); 1]>);

/// What was asked for anew or no longer, with who had it before.
#[derive(Debug, Default)]
pub struct Contested {
    cluster_ips: BTreeMap<IpAddr, Option<Arc<NamespacedName>>>,
    external: BTreeMap<Frontend, Option<Arc<NamespacedName>>>,
}

impl Requesters {
    fn owner(&self) -> Option<&Arc<NamespacedName>> {
        self.0.first().map(|(_, service)| service)
    }

    fn names(&self) -> impl Iterator<Item = Arc<NamespacedName>> + use<'_> {
        self.0.iter().map(|(_, service)| service.clone())
    }

    fn add(&mut self, requester: (i64, Arc<NamespacedName>)) {
        if let Err(index) = self.0.binary_search(&requester) {
            self.0.insert(index, requester);
        }
    }

    fn remove(&mut self, service: &NamespacedName) {
        self.0.retain(|(_, requester)| **requester != *service);
    }
}

impl Ownership {
    /// The Service's name, as it is kept here.
    pub fn name(&self, service: &NamespacedName) -> Arc<NamespacedName> {
        let known = self.services.get_key_value(service).map(|(name, _)| name.clone());
        known.unwrap_or_else(|| Arc::new(service.clone()))
    }

    /// Replaces what a Service asks for; one that is gone asks for nothing. What that touches is noted in
    /// `contested`.
    pub fn replace(&mut self, name: &NamespacedName, service: Option<&Service>, contested: &mut Contested) {
        let name = self.name(name);
        let new = service.map(Requests::of).unwrap_or_default();
        let old = self.services.remove(&name).unwrap_or_default();
        let what = |requests: &Requests| (requests.created, requests.health_check);
        if what(&old) != what(&new) || old.frontends != new.frontends {
            old.all().for_each(|what| self.change(what, contested, |requesters| requesters.remove(&name)));
            let requester = (new.created, name.clone());
            new.all().for_each(|what| {
                self.change(what, contested, |requesters| requesters.add(requester.clone()))
            });
        }
        if new.all().next().is_some() || !new.problems.is_empty() {
            self.services.insert(name, new);
        }
    }

    /// What a Service asks for, if anything.
    pub fn requests(&self, service: &NamespacedName) -> Option<&Requests> {
        self.services.get(service)
    }

    fn change(
        &mut self,
        (frontend, scope): (Frontend, Scope),
        contested: &mut Contested,
        change: impl FnOnce(&mut Requesters),
    ) {
        match (scope, frontend) {
            (Scope::Internal, Frontend::Address(address, ..)) => {
                let requesters = self.cluster_ips.entry(address).or_default();
                contested.cluster_ips.entry(address).or_insert_with(|| requesters.owner().cloned());
                change(requesters);
                if requesters.0.is_empty() {
                    self.cluster_ips.remove(&address);
                }
            }
            (_, frontend) => {
                let requesters = self.external.entry(frontend).or_default();
                contested.external.entry(frontend).or_insert_with(|| requesters.owner().cloned());
                change(requesters);
                if requesters.0.is_empty() {
                    self.external.remove(&frontend);
                }
            }
        }
    }

    /// The Services for which something else holds now than before: of every thing that changed hands, all
    /// that ask for it, but for those that did not before.
    pub fn affected(&self, contested: Contested) -> BTreeSet<Arc<NamespacedName>> {
        let mut concerned = BTreeSet::new();
        for (address, before) in contested.cluster_ips {
            let requesters = self.cluster_ips.get(&address);
            if requesters.and_then(Requesters::owner) != before.as_ref() {
                // Where nobody had it, nobody asks for it but those who just came.
                if before.is_some() {
                    concerned.extend(requesters.into_iter().flat_map(Requesters::names));
                }
                concerned.extend(self.requesters_at(address));
            }
        }
        for (frontend, before) in contested.external {
            let requesters = self.external.get(&frontend);
            if requesters.and_then(Requesters::owner) != before.as_ref() {
                if before.is_some() {
                    concerned.extend(requesters.into_iter().flat_map(Requesters::names));
                }
                concerned.extend(self.requesters_of_node_port(frontend));
            }
        }
        concerned
    }

    /// Those who ask for a NodePort as a port of an external address that is the node's own.
    fn requesters_of_node_port(&self, frontend: Frontend) -> impl Iterator<Item = Arc<NamespacedName>> {
        let external = move |address: &IpAddr| match frontend {
            Frontend::NodePort(family, protocol, port) if Family::of(*address) == family => {
                self.external.get(&Frontend::Address(*address, protocol, port))
            }
            _ => None,
        };
        self.node.iter().filter_map(external).flat_map(Requesters::names)
    }

    /// Takes over the node's own addresses. Returns the Services that this may give a frontend or take one
    /// from.
    pub fn readdress(&mut self, node: &[IpAddr]) -> BTreeSet<Arc<NamespacedName>> {
        if self.node == node {
            return BTreeSet::new();
        }
        let old = std::mem::replace(&mut self.node, node.to_vec());
        old.iter().chain(node).flat_map(|address| self.requesters_at(*address)).collect()
    }

    /// Those who ask for an address as an external one.
    fn requesters_at(&self, address: IpAddr) -> impl Iterator<Item = Arc<NamespacedName>> {
        let all = Frontend::Address(address, Protocol::Tcp, 0)
            ..=Frontend::Address(address, Protocol::Sctp, u16::MAX);
        self.external.range(all).flat_map(|(_, requesters)| requesters.names())
    }

    /// Who has it, if not that Service.
    pub fn other_owner(&self, service: &NamespacedName, request: &Request) -> Option<&NamespacedName> {
        self.owner(&request.frontend).map(|owner| &**owner).filter(|owner| *owner != service)
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
    pub fn taken(&self, service: &NamespacedName, request: &Request) -> Option<Problem> {
        let (frontend, owner) = (request.frontend, self.other_owner(service, request)?.clone());
        let (Frontend::NodePort(_, protocol, port) | Frontend::Address(_, protocol, port)) = frontend;
        let asked_there = self.requests(&owner).is_some_and(|requests| requests.health_check == Some(port));
        match asked_there && protocol == Protocol::Tcp && !self.is_cluster_ip(frontend) {
            true => Some(Problem::TakenForHealthChecks { frontend, owner }),
            false => Some(Problem::Taken { frontend, owner }),
        }
    }

    fn is_cluster_ip(&self, frontend: Frontend) -> bool {
        matches!(frontend, Frontend::Address(address, ..) if self.cluster_ips.contains_key(&address))
    }

    /// What is to be said where a Service cannot be asked for its health at its port, or by one family only.
    pub fn health_check_taken(&self, service: &NamespacedName) -> Option<Problem> {
        let port = self.requests(service)?.health_check?;
        let mut owners =
            health_check_frontends(port).filter_map(|frontend| self.external.get(&frontend)?.owner());
        let owner = owners.find(|owner| ***owner != *service)?;
        Some(Problem::HealthCheckPortTaken { port, owner: NamespacedName::clone(owner) })
    }

    /// The port at which a Service is to be asked for its health, if it has it at least in one family.
    pub fn health_check(&self, service: &NamespacedName) -> Option<u16> {
        let port = self.requests(service)?.health_check?;
        let mut owners =
            health_check_frontends(port).filter_map(|frontend| self.external.get(&frontend)?.owner());
        owners.any(|owner| **owner == *service).then_some(port)
    }

    /// Whether a Service has that port.
    pub fn answers_health_checks(&self, service: &NamespacedName) -> bool {
        self.health_check(service).is_some()
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU16;

    use weft_types::{ServiceKind, ServicePort, TrafficPolicy};

    use super::*;

    /// A Service of that age with a NodePort, and perhaps a port at which it is asked for its health.
    fn service(name: &str, created: i64, node_port: u16, health_check: Option<u16>) -> Service {
        let port = ServicePort {
            name: "".into(),
            protocol: Protocol::Tcp,
            port: 80.try_into().unwrap(),
            node_port: node_port.try_into().ok(),
        };
        let kind = ServiceKind::ClusterIp(vec![[10, 96, 0, created as u8].into()]);
        let service = Service::new(NamespacedName::new("shop", name), kind, vec![port]);
        let health_check_port = health_check.and_then(NonZeroU16::new);
        Service { created, health_check_port, external_policy: TrafficPolicy::Local, ..service }
    }

    /// What is wrong with each of these Services, which came in this order, and whether its health checks are
    /// answered.
    fn settled(services: &[&Service]) -> Vec<(Vec<&'static str>, bool)> {
        let mut ownership = Ownership::default();
        for service in services {
            ownership.replace(&service.key, Some(service), &mut Contested::default());
        }
        let outcome = |service: &&Service| {
            let requests = ownership.requests(&service.key).unwrap();
            let taken =
                requests.frontends.iter().filter_map(|request| ownership.taken(&service.key, request));
            let all = requests.problems.iter().cloned().chain(taken);
            let all = all.chain(ownership.health_check_taken(&service.key));
            (all.map(|problem| problem.reason()).collect(), ownership.answers_health_checks(&service.key))
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
        let mut ownership = Ownership::default();
        for service in [&older, &younger] {
            ownership.replace(&service.key, Some(service), &mut Contested::default());
        }
        let mut contested = Contested::default();
        ownership.replace(&older.key, Some(&service("checked", 1, 0, None)), &mut contested);
        let concerned: Vec<_> =
            ownership.affected(contested).into_iter().map(|name| name.name.to_string()).collect();
        assert_eq!(concerned, ["ports"]);
        let request = ownership.requests(&younger.key).unwrap().frontends.last().copied().unwrap();
        assert_eq!(ownership.taken(&younger.key, &request), None);
    }
}
