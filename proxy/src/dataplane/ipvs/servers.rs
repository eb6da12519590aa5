//! Plans of Services as virtual servers, and as addresses of the interface that has them for IPVS. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::mem::take;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use weft_netlink::genl::ipvs::{MARK, SCHEDULER_FLAG_1, SCHEDULER_FLAG_2, Scheduling, VirtualServer};
use weft_types::{Family, NamespacedName};

use crate::ipvs_options::{IpvsOptions, Scheduler};
use crate::services::plan::{Frontend, FrontendPlan, ServicePlan, Target};

/// A virtual server as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Server {
    /// How it chooses.
    pub(super) scheduling: Scheduling,
    /// Its destinations, in order, each of the same weight.
    pub(super) destinations: Box<[SocketAddr]>,
}

/// The addresses of this node that virtual servers depend on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct NodeAddresses {
    /// Those that serve NodePorts.
    pub(super) node_ports: Vec<IpAddr>,
    /// Those that the machine has anyway.
    pub(super) own: Vec<IpAddr>,
}

/// All virtual servers as they should be.
#[derive(Debug)]
pub(super) struct Servers {
    scheduler: Scheduler,
    node: NodeAddresses,
    /// Each with the Service that has it.
    desired: BTreeMap<VirtualServer, (Arc<NamespacedName>, Server)>,
    /// The addresses that the interface should have, and how many virtual servers want each.
    addresses: BTreeMap<IpAddr, usize>,
    touched: Touched,
}

/// What may have changed since it was taken.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Touched {
    pub(super) servers: BTreeSet<VirtualServer>,
    pub(super) addresses: BTreeSet<IpAddr>,
}

impl Servers {
    pub(super) fn new(config: &IpvsOptions) -> Servers {
        Servers {
            scheduler: config.scheduler,
            node: NodeAddresses::default(),
            desired: BTreeMap::new(),
            addresses: BTreeMap::new(),
            touched: Touched::default(),
        }
    }

    /// A Service has that plan instead of the other from now on.
    pub(super) fn replace(
        &mut self,
        service: &Arc<NamespacedName>,
        old: Option<&ServicePlan>,
        new: &ServicePlan,
    ) {
        let (old, new) = (old.map(|old| self.servers(old)).unwrap_or_default(), self.servers(new));
        // Another Service that has one now may have been planned before.
        let is_its = |server: &&VirtualServer| self.desired.get(server).is_some_and(|(of, _)| of == service);
        let gone = old.keys().filter(|server| !new.contains_key(server)).filter(is_its);
        for server in gone.copied().collect::<Vec<_>>() {
            self.remove(&server);
        }
        new.into_iter().for_each(|(server, new)| self.put(service, server, new));
    }

    /// The node has these addresses from now on, and these are the plans of all Services. Returns whether it
    /// had others.
    pub(super) fn readdress<'a>(
        &mut self,
        node: NodeAddresses,
        plans: impl Iterator<Item = (&'a Arc<NamespacedName>, &'a ServicePlan)>,
    ) -> bool {
        if self.node == node {
            return false;
        }
        let before: Vec<VirtualServer> = self.desired.keys().copied().collect();
        before.iter().for_each(|server| self.remove(server));
        self.node = node;
        for (service, plan) in plans {
            self.servers(plan).into_iter().for_each(|(server, new)| self.put(service, server, new));
        }
        true
    }

    /// What may have changed since this was called the last time.
    pub(super) fn take_touched(&mut self) -> Touched {
        take(&mut self.touched)
    }

    /// All that there should be, as if it had just come.
    pub(super) fn touch_all(&mut self) {
        self.touched.servers.extend(self.desired.keys());
        self.touched.addresses.extend(self.addresses.keys());
    }

    /// These may be other ones than they should be.
    pub(super) fn touch(&mut self, touched: Touched) {
        self.touched.servers.extend(touched.servers);
        self.touched.addresses.extend(touched.addresses);
    }

    pub(super) fn get(&self, server: &VirtualServer) -> Option<&Server> {
        self.desired.get(server).map(|(_, server)| server)
    }

    /// In order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&VirtualServer, &Server)> {
        self.desired.iter().map(|(at, (_, server))| (at, server))
    }

    /// Whether the interface should have that address.
    pub(super) fn has_address(&self, address: &IpAddr) -> bool {
        self.addresses.contains_key(address)
    }

    /// The addresses that the interface should have, in order.
    pub(super) fn addresses(&self) -> impl Iterator<Item = &IpAddr> {
        self.addresses.keys()
    }

    /// Where a frontend's virtual servers are.
    pub(super) fn at(&self, frontend: &Frontend) -> Vec<VirtualServer> {
        let (protocol, addresses, port) = match *frontend {
            Frontend::Address(address, protocol, port) => (protocol, vec![address], port),
            Frontend::NodePort(family, protocol, port) => {
                let of_family = |address: &IpAddr| Family::of(*address) == family;
                (protocol, self.node.node_ports.iter().copied().filter(of_family).collect(), port)
            }
        };
        let at =
            |address| VirtualServer { protocol: protocol.number(), address: SocketAddr::new(address, port) };
        addresses.into_iter().map(at).collect()
    }

    fn put(&mut self, service: &Arc<NamespacedName>, server: VirtualServer, new: Server) {
        let address = server.address.ip();
        match self.desired.insert(server, (service.clone(), new)) {
            Some((_, old)) if self.get(&server) == Some(&old) => {}
            Some(_) => drop(self.touched.servers.insert(server)),
            None => {
                self.touched.servers.insert(server);
                if self.is_bound(address) {
                    *self.addresses.entry(address).or_default() += 1;
                    self.touched.addresses.insert(address);
                }
            }
        }
    }

    fn remove(&mut self, server: &VirtualServer) {
        if self.desired.remove(server).is_none() {
            return;
        }
        self.touched.servers.insert(*server);
        let address = server.address.ip();
        match self.addresses.get_mut(&address) {
            Some(count) if *count > 1 => *count -= 1,
            Some(_) => {
                self.addresses.remove(&address);
                self.touched.addresses.insert(address);
            }
            None => {}
        }
    }

    /// Whether the interface is to have the address: no other one of the machine does.
    fn is_bound(&self, address: IpAddr) -> bool {
        !self.node.own.contains(&address) && !self.node.node_ports.contains(&address)
    }

    fn servers(&self, plan: &ServicePlan) -> BTreeMap<VirtualServer, Server> {
        let of_frontend = |plan: &FrontendPlan| {
            let server = Server { scheduling: self.scheduling(plan), destinations: destinations(plan) };
            self.at(&plan.frontend).into_iter().map(move |at| (at, server.clone())).collect::<Vec<_>>()
        };
        plan.frontends.iter().flat_map(of_frontend).collect()
    }

    fn scheduling(&self, plan: &FrontendPlan) -> Scheduling {
        Scheduling {
            scheduler: self.scheduler.name().to_owned(),
            flags: flags(self.scheduler) | MARK,
            persistence: plan.affinity,
        }
    }
}

/// The scheduler's own settings.
fn flags(scheduler: Scheduler) -> u32 {
    match scheduler {
        // Without it, clients of an endpoint that takes no new connections, since it shuts down, would be
        // refused (sh-fallback).
        Scheduler::Sh => SCHEDULER_FLAG_1,
        // As kube-proxy has it: connections of one client are spread too (mh-port).
        Scheduler::Mh => SCHEDULER_FLAG_2,
        _ => 0,
    }
}

/// A virtual server cannot tell clients from outside from others. Under an external policy Local they are why
/// there are endpoints of this node only; where it has none, nf_tables drops those from outside, and the
/// others may have all endpoints.
fn destinations(plan: &FrontendPlan) -> Box<[SocketAddr]> {
    let outside = plan.outside.as_ref().map(Target::endpoints).filter(|endpoints| !endpoints.is_empty());
    let mut destinations = outside.unwrap_or(plan.target.endpoints()).to_vec();
    destinations.sort_unstable();
    destinations.into()
}
