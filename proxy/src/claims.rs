//! Who has which frontend: what each Service asks for, and who gets it where several ask for the same. Pure; how the
//! others are told is in `problem.rs`.
//!
//! An address that is some Service's ClusterIP is that Service's alone: an external address never takes traffic that is
//! meant for it, at whatever port (CVE-2020-8554). Likewise at the node's own addresses a NodePort is before an external
//! address, which anybody may ask for. Where two ask for the same otherwise, the older one has it, and of two
//! of one age the first by name: who came later takes nothing from who was there.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use weft_types::{Family, NamespacedName, Protocol, Service, ServicePort};

use crate::endpoints::is_special;
use crate::problem::Problem;
use crate::service::{Frontend, Scope};

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
        Wanted { created: service.created, claims: claims.into(), ports, problems: problems.into() }
    }
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
pub struct Claims {
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
    fn holder(&self) -> Option<&Arc<NamespacedName>> {
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

impl Claims {
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
        if old.created != new.created || old.claims != new.claims {
            old.claims
                .iter()
                .for_each(|claim| self.change(claim, disputes, |claimants| claimants.remove(&name)));
            let claimant = (new.created, name.clone());
            new.claims
                .iter()
                .for_each(|claim| self.change(claim, disputes, |claimants| claimants.add(claimant.clone())));
        }
        if !(new.claims.is_empty() && new.problems.is_empty()) {
            self.services.insert(name, new);
        }
    }

    /// What a Service asks for, if anything.
    pub fn wanted(&self, service: &NamespacedName) -> Option<&Wanted> {
        self.services.get(service)
    }

    fn change(&mut self, claim: &Claim, disputes: &mut Disputes, change: impl FnOnce(&mut Claimants)) {
        match (claim.scope, claim.frontend) {
            (Scope::Internal, Frontend::Address(address, ..)) => {
                let claimants = self.cluster_ips.entry(address).or_default();
                disputes.cluster_ips.entry(address).or_insert_with(|| claimants.holder().cloned());
                change(claimants);
                if claimants.0.is_empty() {
                    self.cluster_ips.remove(&address);
                }
            }
            (_, frontend) => {
                let claimants = self.external.entry(frontend).or_default();
                disputes.external.entry(frontend).or_insert_with(|| claimants.holder().cloned());
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
            if claimants.and_then(Claimants::holder) != before.as_ref() {
                // Where nobody had it, nobody asks for it but those who just came.
                if before.is_some() {
                    concerned.extend(claimants.into_iter().flat_map(Claimants::names));
                }
                concerned.extend(self.claimants_at(address));
            }
        }
        for (frontend, before) in disputes.external {
            let claimants = self.external.get(&frontend);
            if claimants.and_then(Claimants::holder) != before.as_ref() {
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
    pub fn other_holder(&self, service: &NamespacedName, claim: &Claim) -> Option<&NamespacedName> {
        let first = match claim.frontend {
            Frontend::Address(address, protocol, port) => {
                let node_port = || Frontend::NodePort(Family::of(address), protocol, port);
                let at_node = || self.node.contains(&address).then(|| self.external.get(&node_port()));
                self.cluster_ips.get(&address).or_else(|| at_node().flatten())
            }
            Frontend::NodePort(..) => None,
        };
        let claimants = first.or_else(|| self.external.get(&claim.frontend))?;
        claimants.holder().map(|holder| &**holder).filter(|holder| *holder != service)
    }
}
