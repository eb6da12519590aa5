//! A shorter way for the packets of connections that everybody has agreed to: from pod to pod, or from pod to
//! node to pod, past bridge, routing and rules. `plan` decides for which pods and nodes, `program` is what
//! packets meet, `kernel` brings both there.
//!
//! Which connections that are, connection tracking says, packet by packet. So whoever ends a connection there,
//! as a change of policies does, brings its next packet before the rules.

pub mod kernel;
pub mod plan;
mod program;

use std::collections::BTreeSet;

use clap::ValueEnum;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use tracing::info;
use weft_netlink::rtnl::{Link, RouteFilter, RtnetlinkClient};
use weft_netlink::sysctl::Originals;

use crate::Result;
use crate::attachments::PluginPaths;
use crate::fast_path::kernel::Programs;
use crate::fast_path::plan::{FastPathPlan, Interface, KernelRoute};
use crate::plan::NodePlan;
use crate::routing::plan::PROTOCOL;
use crate::routing::vxlan::plan::DEVICE;
use crate::subsystem::{Report, Round, Subsystem};

/// How packets of established connections between pods go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Mode {
    /// As all others do.
    #[default]
    None,
    /// Past the network stack of the host, by eBPF programs.
    Ebpf,
}

/// Keeps the programs as planned.
pub(crate) struct FastPath {
    mode: Mode,
    paths: PluginPaths,
    originals: Originals,
    route: RtnetlinkClient,
    programs: Option<Programs>,
    pods: Gauge,
    packets: Counter,
}

impl Subsystem for FastPath {
    fn name(&self) -> &'static str {
        "fast path"
    }

    fn reconcile(&mut self, round: &Round<'_>, report: &mut Report) {
        let Some(plan) = round.plan.filter(|_| self.mode == Mode::Ebpf) else { return };
        if let Err(error) = self.apply(plan) {
            report.problem(format!("--fast-path=ebpf: {error}; packets take the usual way meanwhile"));
        }
    }

    fn stop(&mut self) {
        self.programs = None;
    }
}

impl FastPath {
    /// In the calling thread's network namespace.
    pub(crate) fn new(
        mode: Mode,
        paths: PluginPaths,
        originals: Originals,
        registry: &mut Registry,
    ) -> Result<FastPath> {
        let (pods, packets) = (Gauge::default(), Counter::default());
        if mode == Mode::Ebpf {
            let help = "Addresses of pods whose packets take the fast path";
            registry.register("fast_path_addresses", help, pods.clone());
            let help = "Packets that took the fast path, as large as the kernel has them";
            registry.register("fast_path_packets", help, packets.clone());
        }
        Ok(FastPath {
            mode,
            paths,
            originals,
            route: RtnetlinkClient::open()?,
            programs: None,
            pods,
            packets,
        })
    }

    fn apply(&mut self, plan: &NodePlan) -> Result<()> {
        let plan = self.plan(plan)?;
        let programs = match &mut self.programs {
            Some(programs) => programs,
            programs => {
                let opened = programs.insert(Programs::open(self.originals.clone())?);
                info!("connections between pods take the fast path");
                opened
            }
        };
        programs.apply(&plan)?;
        self.packets.inc_by(programs.packets()?.saturating_sub(self.packets.get()));
        self.pods.set(i64::try_from(plan.pods.len()).unwrap_or(i64::MAX));
        Ok(())
    }

    fn plan(&mut self, plan: &NodePlan) -> Result<FastPathPlan> {
        let interfaces: Vec<Interface> =
            self.route.links()?.into_iter().filter(|link| link.up).map(|link| self.interface(link)).collect();
        let filter = RouteFilter { protocol: Some(PROTOCOL), ..RouteFilter::default() };
        let routes = self.route.routes(filter)?.into_iter();
        let routes: Vec<KernelRoute> = routes
            .filter(|route| plan.routing.destinations.contains(&route.destination))
            .filter_map(|route| {
                let (gateway, interface) = (route.gateway?, route.link?);
                Some(KernelRoute { destination: route.destination, gateway, interface })
            })
            .collect();
        let uplinks: BTreeSet<&str> = plan.routing.links.iter().map(String::as_str).chain([DEVICE]).collect();
        Ok(FastPathPlan::new(&interfaces, &self.paths.holders(), &routes, &uplinks))
    }

    fn interface(&self, link: Link) -> Interface {
        Interface {
            index: link.index,
            attachment: self.paths.attachment(&link),
            is_pair: link.kind.as_deref() == Some("veth"),
            is_ethernet: link.mac.is_some() && !link.point_to_point,
            queues: link.qdisc.is_some_and(|qdisc| qdisc != "noqueue"),
            name: link.name,
        }
    }
}
