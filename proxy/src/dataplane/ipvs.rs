//! The data plane on IPVS, as kube-proxy has it in its mode of that name: a virtual server for each frontend,
//! whose addresses a dummy interface has. What IPVS does not do, nf_tables does, by the tables of the mode
//! nftables without what spreads connections: masquerading, source ranges, refusals.
//!
//! ```text
//! stage -> Servers, DesiredTables
//!          Servers ---.
//!          observe() -+-> difference -> what comes -> tables -> what goes
//! ```
//!
//! `kernel` and `sysctl` talk to the kernel; all else but this is pure.

mod difference;
mod kernel;
mod servers;
mod sysctl;
mod text;

use std::collections::HashMap;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Interval, MissedTickBehavior, interval};
use tracing::{info, warn};
use weft_netlink::genl::ipvs::{IpvsClient, Statistics, VirtualServer};
use weft_netlink::sysctl::Originals;
use weft_types::NamespacedName;

use super::nftables::{NftablesDataplane, Owners};
use super::{Dataplane, ForeignChange, Outcome, Through};
use crate::config::Config;
use crate::counters::{Meter, ReadCounters, Reading};
use crate::error::Error;
use crate::ipvs_options::IpvsOptions;
use crate::services::node::NodeConfig;
use crate::services::plan::{Frontend, ServicePlan};
use crate::services::planner::Stage;
use crate::trace::Packet;

use kernel::Kernel;
use servers::{NodeAddresses, Servers};
use text::{destination_line, server_line};

/// How often is looked whether the connections of endpoints that went have ended.
const DRAIN: Duration = Duration::from_secs(5);

/// The virtual servers and tables as they should be, and the kernel that follows them.
#[derive(Debug)]
pub struct IpvsDataplane {
    config: Config,
    tables: NftablesDataplane,
    servers: Servers,
    /// Opened when it is needed.
    kernel: Option<Kernel>,
    /// When what is there is compared with what should be.
    compare: Option<Interval>,
    /// When is looked for connections that have ended; none where no endpoint waits for that.
    drain: Option<Interval>,
}

impl IpvsDataplane {
    /// One that needs the kernel for nothing but to read it and to change it.
    pub fn new(config: &Config) -> IpvsDataplane {
        IpvsDataplane::with_tables(config, NftablesDataplane::new)
    }

    /// One for the kernel's IPVS and nf_tables in the network namespace of the calling thread.
    ///
    /// # Errors
    /// Where they cannot be used.
    pub fn open(config: &Config) -> Result<IpvsDataplane, Error> {
        let mut kernel = Kernel::open()?;
        sysctl::set(&config.ipvs, &Originals::at(config.settings_dir.clone()))?;
        kernel.set_timeouts(&config.ipvs)?;
        info!(
            "kube-proxy is about to drop the mode ipvs; --proxy-mode=nftables serves the same Services, changes as fast, \
             and needs no module of IPVS"
        );
        let tables = NftablesDataplane::open(&of_tables(config))?;
        Ok(IpvsDataplane { kernel: Some(kernel), ..IpvsDataplane::with_tables(config, |_| tables) })
    }

    /// One that deletes what an earlier run left in the network namespace of the calling thread, where it
    /// left something.
    ///
    /// # Errors
    /// Where the kernel cannot be asked.
    pub fn left() -> Result<Option<IpvsDataplane>, Error> {
        if !kernel::is_there()? {
            return Ok(None);
        }
        Ok(Some(IpvsDataplane { kernel: Some(Kernel::open()?), ..IpvsDataplane::new(&Config::default()) }))
    }

    fn with_tables(config: &Config, tables: impl FnOnce(&Config) -> NftablesDataplane) -> IpvsDataplane {
        IpvsDataplane {
            config: config.clone(),
            tables: tables(&of_tables(config)),
            servers: Servers::new(&config.ipvs),
            kernel: None,
            compare: None,
            drain: None,
        }
    }

    /// Takes over the addresses that serve NodePorts. The machine's own are asked for where the kernel is at
    /// hand.
    fn readdress(&mut self) -> Result<bool, Error> {
        let own = self.tables.node().addresses.clone();
        let node_ports = match (kernel::networks(&self.config.nodeport_addresses), &mut self.kernel) {
            (None, _) => self.tables.node().primary_addresses(),
            (Some(networks), Some(kernel)) => kernel.node_ports(networks)?,
            (Some(networks), None) => kernel::serving(networks, own.iter().copied()),
        };
        Ok(self.servers.readdress(NodeAddresses { node_ports, own }, self.tables.plans()))
    }

    /// Carries out what was touched: what comes before the tables lead there, and what goes after they no
    /// longer do.
    fn carry_out(
        &mut self,
        tables: impl FnOnce(&mut NftablesDataplane) -> Result<Outcome, Error>,
    ) -> Result<Outcome, Error> {
        let touched = self.servers.take_touched();
        let kernel = opened(&mut self.kernel)?;
        let changes = kernel.changes(&self.servers, &touched);
        kernel.apply(&changes.first)?;
        kernel.add_addresses(&self.servers, &touched)?;
        let outcome = tables(&mut self.tables)?;
        kernel.delete_addresses(&self.servers, &touched)?;
        kernel.apply(&changes.last)?;
        if !changes.last.is_empty() || outcome == Outcome::Full {
            self.look_for_ended()?;
        }
        Ok(outcome)
    }

    /// Deletes the destinations whose connections have ended.
    fn look_for_ended(&mut self) -> Result<(), Error> {
        let are_left = opened(&mut self.kernel)?.drain(&self.servers)?;
        match (are_left, &self.drain) {
            // Outside of a runtime, each change looks again.
            (true, None) if tokio::runtime::Handle::try_current().is_ok() => self.drain = Some(every(DRAIN)),
            (false, _) => self.drain = None,
            _ => {}
        }
        Ok(())
    }

    /// Whether others have changed virtual servers, or the node its addresses.
    fn has_changed(&mut self) -> Result<bool, Error> {
        if self.readdress()? {
            return Ok(true);
        }
        let changed =
            opened(&mut self.kernel)?.has_changed(&self.servers, &self.config.ipvs.exclude_cidrs)?;
        if changed {
            warn!(
                "another program changed the virtual servers of IPVS or the addresses of kube-ipvs0; restoring them"
            );
        }
        Ok(changed)
    }
}

/// Puts the settings of the kernel into effect that IPVS needs, which takes more privileges than NET_ADMIN. What
/// they were is kept in that folder, where there is one.
///
/// # Errors
/// Where the kernel has no IPVS, and what cannot be set.
pub fn prepare(options: &IpvsOptions, settings_dir: Option<PathBuf>) -> Result<(), Error> {
    Kernel::open()?;
    sysctl::set(options, &Originals::at(settings_dir))
}

/// What the tables are configured with: virtual servers count by themselves.
fn of_tables(config: &Config) -> Config {
    Config { service_counters: false, ..config.clone() }
}

fn opened(kernel: &mut Option<Kernel>) -> Result<&mut Kernel, Error> {
    match kernel {
        Some(kernel) => Ok(kernel),
        none => Ok(none.insert(Kernel::open()?)),
    }
}

/// Beginning in so long.
fn every(period: Duration) -> Interval {
    let mut every = interval(period);
    every.set_missed_tick_behavior(MissedTickBehavior::Delay);
    every.reset();
    every
}

impl Stage for IpvsDataplane {
    fn stage(&mut self, service: &Arc<NamespacedName>, plan: ServicePlan) {
        self.servers.replace(service, self.tables.plan(service), &plan);
        self.tables.stage(service, plan);
    }

    fn stage_node(&mut self, node: &NodeConfig) {
        self.tables.stage_node(node);
        // What cannot be read now is compared at the next look.
        if let Err(error) = self.readdress() {
            warn!("{error}; NodePorts may lack at some address");
        }
    }
}

impl Dataplane for IpvsDataplane {
    fn adopt(&mut self) -> Result<(), Error> {
        self.tables.adopt()
    }

    fn commit(&mut self) -> Result<Outcome, Error> {
        self.carry_out(Dataplane::commit)
    }

    fn resync(&mut self) -> Result<(), Error> {
        opened(&mut self.kernel)?;
        self.readdress()?;
        let kernel = opened(&mut self.kernel)?;
        kernel.read(&self.servers, &self.config.ipvs.exclude_cidrs)?;
        self.servers.touch_all();
        self.servers.touch(kernel.touched());
        self.carry_out(|tables| tables.resync().map(|()| Outcome::Full)).map(drop)
    }

    fn plan(&self, service: &NamespacedName) -> Option<&ServicePlan> {
        self.tables.plan(service)
    }

    fn services(&self) -> usize {
        self.tables.services()
    }

    fn render(&self) -> String {
        format!("{}\n{}", self.servers, self.tables.render())
    }

    fn trace(&mut self, packet: &str, through: Through) -> Result<String, Error> {
        let mut text = self.tables.trace(packet, through)?;
        // Where it comes from is nothing to a virtual server.
        let anybody = [Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()];
        let Packet { destination, protocol, .. } = Packet::parse(packet, &anybody)?;
        let packet = VirtualServer { protocol: protocol.number(), address: destination };
        let is_of = |at: &VirtualServer| *at == packet;
        match through {
            Through::Staged => {
                for (at, server) in self.servers.iter().filter(|(at, _)| is_of(at)) {
                    text += &format!("IPVS:\n{}\n", server_line(at, &server.scheduling));
                    let line = |to| destination_line(to, difference::WEIGHT, 0) + "\n";
                    text.extend(server.destinations.iter().map(line));
                }
            }
            Through::Kernel => {
                let mut ipvs = IpvsClient::open()?;
                for service in ipvs.services()?.iter().filter(|service| is_of(&service.server)) {
                    text += &format!("IPVS:\n{}\n", server_line(&service.server, &service.scheduling));
                    for to in ipvs.destinations(&service.server)? {
                        text += &(destination_line(&to.address, to.weight, to.connections) + "\n");
                    }
                }
            }
        }
        Ok(text)
    }

    fn counters(&self) -> ReadCounters {
        let owners = self.tables.owners();
        let servers = owners.keys().map(|frontend| (*frontend, self.servers.at(frontend))).collect();
        Box::new(move || read_counters(&owners, &servers))
    }

    fn watch(&mut self, other_programs: &Arc<Notify>) -> Result<bool, Error> {
        self.compare.get_or_insert_with(|| every(self.config.ipvs.sync_period()));
        self.tables.watch(other_programs)
    }

    fn poll_foreign_change(&mut self, context: &mut Context<'_>) -> Poll<ForeignChange> {
        while self.drain.as_mut().is_some_and(|drain| drain.poll_tick(context).is_ready()) {
            if let Err(error) = self.look_for_ended() {
                warn!("{error}");
                return Poll::Ready(ForeignChange::Unknown);
            }
        }
        while self.compare.as_mut().is_some_and(|compare| compare.poll_tick(context).is_ready()) {
            match self.has_changed() {
                Ok(false) => {}
                Ok(true) => return Poll::Ready(ForeignChange::Unknown),
                Err(error) => {
                    warn!("{error}");
                    return Poll::Ready(ForeignChange::Unknown);
                }
            }
        }
        self.tables.poll_foreign_change(context)
    }

    /// Deletes the virtual servers that are ours, and their interface. The tables are those of the mode nftables, which
    /// deletes them.
    fn clean_up(&mut self) -> Result<(), Error> {
        // To ask for IPVS would load its module.
        if self.kernel.is_none() && !kernel::is_there()? {
            return Ok(());
        }
        opened(&mut self.kernel)?.clean_up()
    }
}

/// Reads what virtual servers have counted, in the calling thread's network namespace. A NodePort has
/// several.
fn read_counters(
    owners: &Owners,
    servers: &HashMap<Frontend, Vec<VirtualServer>>,
) -> Result<Vec<Reading>, Error> {
    let services = IpvsClient::open()?.services()?;
    let counted: HashMap<VirtualServer, Statistics> =
        services.into_iter().map(|service| (service.server, service.statistics)).collect();
    let reading = |frontend: &Frontend, service: &Arc<NamespacedName>, meter: Meter| {
        let at = servers.get(frontend).into_iter().flatten().filter_map(|at| counted.get(at));
        let (packets, bytes) = at
            .map(|counted| match meter {
                Meter::Connections => (counted.connections, 0),
                Meter::Received => counted.received,
                Meter::Sent => counted.sent,
            })
            .fold((0, 0), |sum, next| (sum.0 + next.0, sum.1 + next.1));
        Reading { service: service.clone(), frontend: *frontend, meter, packets, bytes }
    };
    let of_frontend = |(frontend, service)| Meter::ALL.map(|meter| reading(frontend, service, meter));
    Ok(owners.iter().flat_map(of_frontend).collect())
}
