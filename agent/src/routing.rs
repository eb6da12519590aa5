//! The way to the pods of other nodes. `plan` decides from what is known: directly by their nodes' addresses,
//! or through a tunnel. `probe` tries the direct paths; `routes` brings the kernel's routes to the plan,
//! `vxlan` and `wireguard` the tunnels.

pub(crate) mod addresses;
pub mod plan;
pub mod probe;
pub mod routes;
pub mod vxlan;
pub mod wireguard;

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use tracing::info;
use weft_announce::bgp::rib::Routes as Learned;
use weft_netlink::sysctl::Originals;
use weft_types::{IpNetwork, Node};

use crate::plan::NodePlan;
use crate::routing::plan::{NextHop, NodeRoute, RoutingPlan};
use crate::routing::probe::Prober;
use crate::routing::routes::Routes;
use crate::routing::vxlan::checksum_test::OffloadTest;
use crate::routing::vxlan::plan::DEVICE;
use crate::routing::wireguard::announcer::Announcer;
use crate::subsystem::{Environment, Report, Round, Subsystem, Wake};
use crate::sysctls::proc::loosen;
use crate::uplink::Uplink;
use crate::{Error, Result};

/// For how long ways that were learned before a start are kept, until all peers have told theirs: as long as
/// peers keep those to this node, where nobody says otherwise.
const KEPT: Duration = Duration::from_secs(60);

/// Keeps routes and tunnel as planned. A route that fails concerns that node's pods alone, and keeps none
/// from starting.
pub(crate) struct Routing {
    routes: Routes,
    originals: Originals,
    offload: OffloadTest,
    prober: Option<Prober>,
    announcer: Announcer,
    wake: Wake,
    /// What an agent before this one learned by BGP, and until when it is kept.
    kept: Learned,
    kept_until: Option<Instant>,
    direct: Gauge,
    tunnelled: Gauge,
    handshakes: wireguard::metrics::Metrics,
}

impl Subsystem for Routing {
    fn name(&self) -> &'static str {
        "routing"
    }

    fn start(&mut self, environment: &Environment) -> Result<()> {
        let (direct, held) = (self.routes.direct_paths()?, self.routes.destinations()?);
        self.announcer.start(environment);
        self.wake = environment.wake.clone();
        self.prober = Some(Prober::start(direct, held, environment.wake.clone()));
        self.kept = self.routes.learned()?;
        self.kept_until = (!self.kept.is_empty()).then(|| Instant::now() + KEPT);
        Ok(())
    }

    fn observe(&mut self, _node: Option<&Node>, uplink: &mut Uplink) -> Result<()> {
        if uplink.is_settled || self.kept_until.is_some_and(|until| until <= Instant::now()) {
            self.kept.clear();
            self.kept_until = None;
        }
        uplink.kept.clone_from(&self.kept);
        uplink.wireguard = self.routes.wireguard_key()?;
        uplink.path_states = self.prober.as_ref().map(Prober::path_states).unwrap_or_default();
        Ok(())
    }

    fn due(&self) -> Option<Instant> {
        self.kept_until
    }

    fn reconcile(&mut self, round: &Round<'_>, report: &mut Report) {
        let Some(plan) = round.plan.map(|plan| &plan.routing) else { return };
        report.problems(self.routes.apply(plan));
        report.problems(accept_both_ways(plan, &self.originals));
        report.problems(self.tell(plan));
        if let Some(prober) = &self.prober {
            prober.watch(&plan.probes, plan.held());
        }
        self.count(plan);
        self.handshakes.set(self.routes.handshakes());
        match self.routes.tunnel() {
            Ok(tunnel) => self.offload.look(tunnel, plan.overlay.as_ref()),
            Err(error) => report.problem(error),
        }
    }

    fn clean_up(&mut self) -> Vec<Error> {
        self.routes.apply(&NodePlan::default().routing)
    }
}

impl Routing {
    /// In the calling thread's network namespace.
    pub(crate) fn open(originals: Originals, registry: &mut Registry) -> Result<Routing> {
        let (direct, tunnelled) = (Gauge::default(), Gauge::default());
        let help = "Other nodes' pod CIDRs that are reached directly";
        registry.register("direct_ranges", help, direct.clone());
        let help = "Other nodes' pod CIDRs that are reached through a tunnel";
        registry.register("tunnelled_ranges", help, tunnelled.clone());
        Ok(Routing {
            routes: Routes::open()?,
            originals,
            offload: OffloadTest::default(),
            prober: None,
            announcer: Announcer::default(),
            wake: Wake::default(),
            kept: Learned::new(),
            kept_until: None,
            direct,
            tunnelled,
            handshakes: wireguard::metrics::Metrics::new(registry),
        })
    }

    /// Tells the other nodes of this one's key. Returns what is in the way.
    fn tell(&mut self, plan: &RoutingPlan) -> Option<String> {
        let wireguard = plan.wireguard.as_ref()?;
        // The device has just been made, or has another key: the plan must know it.
        if self.routes.wireguard_key().is_ok_and(|key| key.is_some() && key != wireguard.own) {
            self.wake.wake();
        }
        self.announcer.tell(wireguard.announcement.as_ref())
    }

    fn count(&self, plan: &RoutingPlan) {
        let tried: BTreeSet<IpNetwork> = plan.probes.iter().map(|probe| probe.direct.1.into()).collect();
        let leads = |route: &&NodeRoute| {
            route.next_hop != NextHop::Unreachable && !tried.contains(&route.destination)
        };
        let routes = plan.routes.iter().filter(leads);
        let (tunnelled, direct): (Vec<&NodeRoute>, Vec<&NodeRoute>) =
            routes.partition(|route| matches!(route.next_hop, NextHop::Tunnel | NextHop::WireGuard));
        for (gauge, routes) in [(&self.direct, direct), (&self.tunnelled, tunnelled)] {
            gauge.set(i64::try_from(routes.len()).unwrap_or(i64::MAX));
        }
    }
}

/// Two nodes change between the tunnel and the direct path one after the other: what comes the other way
/// meanwhile must be taken.
fn accept_both_ways(plan: &RoutingPlan, originals: &Originals) -> Option<Error> {
    let links = if plan.probes.is_empty() { &[] } else { plan.links.as_slice() };
    // Two nodes begin to use the encrypted tunnel one after the other, too.
    let tunnels =
        [plan.overlay.as_ref().map(|_| DEVICE), plan.wireguard.as_ref().map(|_| wireguard::plan::DEVICE)];
    let is_one_of_two = tunnels.iter().flatten().count() > 1;
    let tunnels = tunnels.into_iter().flatten().filter(|_| is_one_of_two || !links.is_empty());
    let mut problem = None;
    for link in links.iter().map(String::as_str).chain(tunnels) {
        match loosen(link, originals) {
            Ok(true) => info!("set net.ipv4.conf.{link}.rp_filter to 2, as the way between nodes may change"),
            Ok(false) => {}
            Err(error) => problem = Some(error),
        }
    }
    problem
}
