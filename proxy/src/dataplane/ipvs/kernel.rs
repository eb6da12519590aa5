//! The kernel's IPVS, and the interface that has the addresses of Services: what they hold, and how that is
//! changed.

use std::collections::{BTreeSet, HashSet};
use std::net::{IpAddr, SocketAddr};

use nix::errno::Errno;
use tracing::debug;
use weft_netlink::Family;
use weft_netlink::conntrack::{ConntrackClient, CtStatus, Filter, Flow};
use weft_netlink::genl::ipvs::{Change, IpvsClient, MARK, Service, VirtualServer};
use weft_netlink::rtnl::{Address, RtnetlinkClient};
use weft_types::IpNetwork;

use super::difference::{Changes, Held, HeldServers, draining, record};
use super::servers::{Servers, Touched};
use crate::config::NodePortAddresses;
use crate::error::Error;
use crate::ipvs_options::IpvsOptions;

/// The name that kube-proxy gives it.
pub(super) const INTERFACE: &str = "kube-ipvs0";

/// A way to the kernel, and what it held last.
#[derive(Debug)]
pub(super) struct Kernel {
    ipvs: IpvsClient,
    route: RtnetlinkClient,
    held: HeldServers,
    addresses: BTreeSet<IpAddr>,
}

/// What was read.
type Observed = (HeldServers, BTreeSet<IpAddr>);

impl Kernel {
    /// One in the network namespace of the calling thread.
    ///
    /// # Errors
    /// Where the kernel has no IPVS.
    pub(super) fn open() -> Result<Kernel, Error> {
        let ipvs = match IpvsClient::open() {
            Err(error) if error.is_missing() => return Err(Error::NoIpvs),
            opened => opened?,
        };
        let (held, addresses) = (HeldServers::new(), BTreeSet::new());
        Ok(Kernel { ipvs, route: RtnetlinkClient::open()?, held, addresses })
    }

    /// Sets what holds for all virtual servers.
    pub(super) fn set_timeouts(&mut self, config: &IpvsOptions) -> Result<(), Error> {
        let held = self.ipvs.timeouts()?;
        let wanted = config.timeouts();
        let differs = |wanted: u32, held: u32| wanted != 0 && wanted != held;
        if differs(wanted.tcp, held.tcp)
            || differs(wanted.tcp_fin, held.tcp_fin)
            || differs(wanted.udp, held.udp)
        {
            self.ipvs.set_timeouts(&wanted)?;
        }
        Ok(())
    }

    /// Reads all that there is, but for virtual servers that are others', and makes the interface where it is
    /// missing.
    pub(super) fn read(&mut self, servers: &Servers, exclude: &[IpNetwork]) -> Result<(), Error> {
        if self.route.find_link(INTERFACE)?.is_none() {
            self.route.add_dummy(INTERFACE)?;
        }
        (self.held, self.addresses) = self.observe(servers, exclude)?;
        Ok(())
    }

    /// Whether what there is is no longer what there was after the last change.
    pub(super) fn has_changed(&mut self, servers: &Servers, exclude: &[IpNetwork]) -> Result<bool, Error> {
        let (held, addresses) = self.observe(servers, exclude)?;
        Ok(held != self.held || addresses != self.addresses)
    }

    /// What was read last, where it is none of what should be.
    pub(super) fn touched(&self) -> Touched {
        Touched { servers: self.held.keys().copied().collect(), addresses: self.addresses.clone() }
    }

    fn observe(&mut self, servers: &Servers, exclude: &[IpNetwork]) -> Result<Observed, Error> {
        let is_excluded = |address: IpAddr| exclude.iter().any(|network| network.contains(address));
        let mut held = HeldServers::new();
        for service in self.ipvs.services()? {
            let at = service.server;
            if is_excluded(at.address.ip()) && servers.get(&at).is_none() {
                continue;
            }
            let destinations = match self.ipvs.destinations(&at) {
                Err(error) if error.is_missing() => continue, // Somebody has deleted it meanwhile.
                read => read?,
            };
            let weight = |to: &weft_netlink::genl::ipvs::Destination| to.is_nat.then_some(to.weight);
            let destinations = destinations.iter().map(|to| (to.address, weight(to))).collect();
            held.insert(at, Held { scheduling: service.scheduling, destinations });
        }
        let addresses = match self.route.find_link(INTERFACE)? {
            Some(link) => self.route.addresses(Some(link.index))?,
            None => Vec::new(),
        };
        let addresses = addresses.iter().map(|address| address.address.ip());
        let is_ours = |address: &IpAddr| {
            !is_link_local(address) && (!is_excluded(*address) || servers.has_address(address))
        };
        Ok((held, addresses.filter(is_ours).collect()))
    }

    /// What is to be done about what was touched.
    pub(super) fn changes(&self, servers: &Servers, touched: &Touched) -> Changes {
        let mut changes = Changes::default();
        for at in &touched.servers {
            changes.compare(*at, servers.get(at), self.held.get(at));
        }
        changes
    }

    /// Makes these changes.
    pub(super) fn apply(&mut self, changes: &[Change]) -> Result<(), Error> {
        changes.iter().for_each(|change| debug!("{change}"));
        let refused = self.ipvs.apply(changes)?;
        if let Some((change, refusal)) = refused.first() {
            let remedy = match change {
                Change::AddService(_, scheduling) if refusal.errno == Errno::ENOENT => {
                    format!("; load the kernel module ip_vs_{}", scheduling.scheduler)
                }
                _ => String::new(),
            };
            return Err(Error::Dataplane(format!("cannot {change}: {refusal}{remedy}")));
        }
        changes.iter().for_each(|change| record(&mut self.held, change));
        Ok(())
    }

    /// Gives the interface those of the addresses that it should have and lacks.
    pub(super) fn add_addresses(&mut self, servers: &Servers, touched: &Touched) -> Result<(), Error> {
        let missing = touched.addresses.iter().filter(|address| servers.has_address(address));
        let missing: Vec<IpAddr> =
            missing.filter(|address| !self.addresses.contains(address)).copied().collect();
        if missing.is_empty() {
            return Ok(());
        }
        let link = self.route.link(INTERFACE)?.index;
        for address in missing {
            self.route.add_address(Address { link, address: address.into() })?;
            self.addresses.insert(address);
        }
        Ok(())
    }

    /// Takes those of the addresses from it that it has and should not.
    pub(super) fn delete_addresses(&mut self, servers: &Servers, touched: &Touched) -> Result<(), Error> {
        let gone = touched.addresses.iter().filter(|address| !servers.has_address(address));
        let gone: Vec<IpAddr> = gone.filter(|address| self.addresses.contains(address)).copied().collect();
        if gone.is_empty() {
            return Ok(());
        }
        let link = self.route.link(INTERFACE)?.index;
        for address in gone {
            self.route.delete_address(Address { link, address: address.into() })?;
            self.addresses.remove(&address);
        }
        Ok(())
    }

    /// Deletes the destinations that got no new connections any more and have none left. Returns whether
    /// others are left.
    pub(super) fn drain(&mut self, servers: &Servers) -> Result<bool, Error> {
        let draining: Vec<(VirtualServer, Vec<_>)> = self
            .held
            .iter()
            .map(|(at, held)| (*at, draining(servers.get(at), held).collect::<Vec<_>>()))
            .filter(|(_, destinations)| !destinations.is_empty())
            .collect();
        let (mut drained, mut are_left) = (Vec::new(), false);
        for (at, destinations) in draining {
            let read = self.ipvs.destinations(&at)?;
            for to in destinations {
                match read.iter().find(|read| read.address == to) {
                    Some(read) if read.connections > 0 => are_left = true,
                    _ => drained.push(Change::DeleteDestination(at, to)),
                }
            }
        }
        self.apply(&drained)?;
        Ok(are_left)
    }

    /// The addresses of the machine itself that serve NodePorts.
    pub(super) fn node_ports(&mut self, networks: &[IpNetwork]) -> Result<Vec<IpAddr>, Error> {
        let interface = self.route.find_link(INTERFACE)?.map(|link| link.index);
        let addresses = self.route.addresses(None)?;
        let own = addresses.iter().filter(|address| Some(address.link) != interface);
        Ok(serving(networks, own.map(|address| address.address.ip())))
    }

    /// Deletes the virtual servers of an earlier run, by their mark, and their addresses. The interface goes
    /// unless others, as kube-proxy, have virtual servers at addresses of it.
    pub(super) fn clean_up(&mut self) -> Result<(), Error> {
        let services = self.ipvs.services()?.into_iter();
        let (ours, others): (Vec<_>, Vec<_>) =
            services.partition(|service| service.scheduling.flags & MARK != 0);
        let at = |services: &[Service]| -> Vec<VirtualServer> {
            services.iter().map(|service| service.server).collect()
        };
        let (ours, others) = (at(&ours), at(&others));
        self.apply(&ours.iter().copied().map(Change::DeleteService).collect::<Vec<_>>())?;
        self.clean_up_addresses(&ours, &others)?;
        forget_connections(&ours)
    }

    fn clean_up_addresses(&mut self, ours: &[VirtualServer], others: &[VirtualServer]) -> Result<(), Error> {
        let Some(link) = self.route.find_link(INTERFACE)? else { return Ok(()) };
        let have = |servers: &[VirtualServer], address: &Address| {
            servers.iter().any(|server| server.address.ip() == address.address.ip())
        };
        let addresses = self.route.addresses(Some(link.index))?;
        if !addresses.iter().any(|address| have(others, address)) {
            return Ok(self.route.delete_link(link.index)?);
        }
        for address in addresses.into_iter().filter(|address| have(ours, address) && !have(others, address)) {
            self.route.delete_address(address)?;
        }
        Ok(())
    }
}

/// Has the kernel forget the connections that virtual servers led: what comes of them next is led as a new
/// connection is, by whoever leads those now. So clients are told that their connections have ended, those
/// that are just connecting reach an endpoint with their next packet, and so do datagrams.
fn forget_connections(servers: &[VirtualServer]) -> Result<(), Error> {
    if servers.is_empty() {
        return Ok(());
    }
    let servers: HashSet<(u8, SocketAddr)> =
        servers.iter().map(|server| (server.protocol, server.address)).collect();
    let mut conntrack = ConntrackClient::open()?;
    // IPVS rewrites packets without telling connection tracking that it does.
    let filter = Filter { without: CtStatus::DST_NAT, ..Filter::default() };
    for family in Family::BOTH {
        let is_led = |flow: &Flow| servers.contains(&(flow.protocol, flow.original.destination));
        conntrack.delete_where(family, &filter, is_led)?;
    }
    Ok(())
}

/// Whether the interface is there, in the network namespace of the calling thread.
pub(super) fn is_there() -> Result<bool, Error> {
    Ok(RtnetlinkClient::open()?.find_link(INTERFACE)?.is_some())
}

/// The kernel gives one to an interface when it is set up.
fn is_link_local(address: &IpAddr) -> bool {
    matches!(address, IpAddr::V6(address) if address.is_unicast_link_local())
}

/// Those of the addresses that serve NodePorts, where networks are asked for.
pub(super) fn serving(networks: &[IpNetwork], addresses: impl Iterator<Item = IpAddr>) -> Vec<IpAddr> {
    let serves = |address: &IpAddr| {
        let is_asked_for = networks.iter().any(|network| network.contains(*address));
        is_asked_for && !address.is_loopback() && !is_link_local(address)
    };
    let mut serving: Vec<IpAddr> = addresses.filter(serves).collect();
    serving.sort_unstable();
    serving.dedup();
    serving
}

/// The networks whose addresses serve NodePorts; none where it is the Node's first ones.
pub(super) fn networks(addresses: &NodePortAddresses) -> Option<&[IpNetwork]> {
    match addresses {
        NodePortAddresses::Primary => None,
        NodePortAddresses::Networks(networks) => Some(networks),
    }
}
