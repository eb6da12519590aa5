//! The running agent: when to look, in which order to act, what to say. What to do is in [`crate::plan`].

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};
use tracing::info;
use weft_cluster::{Watch, WatchFilter, manifest};
use weft_cni_spec::Boot;
use weft_daemon::Signals;
use weft_types::{IpNetwork, Kind, Snapshot};

use crate::attachments::PluginPaths;
use crate::cni_config::file;
use crate::garbage_collection::cri::Cri;
use crate::health::{self, Status};
use crate::kernel::Kernel;
use crate::metrics::Metrics;
use crate::monitor::Monitor;
use crate::options::Options;
use crate::plan::{Config, NodePlan, plan};
use crate::problems::Problems;
use crate::routing::plan::{NextHop, NodeRoute};
use crate::routing::probe::Prober;
use crate::routing::vxlan::plan::DEVICE;
use crate::upkeep::Upkeep;
use crate::uplink::Uplink;
use crate::{Error, Result, garbage_collection, node_status, sysctls};

/// How often everything is looked at without cause: for what failed, and for what changes without a word, such as
/// sysctls, files and the rules of others' firewalls.
const RECHECK: Duration = Duration::from_secs(5);

/// How many addresses of other nodes are enough to see by which of its own this one reaches them.
const SOME: usize = 8;

/// The plan for this node, going by manifests instead of a cluster, as text.
pub fn dry_run(options: &Options) -> Result<String> {
    let snapshot = manifest::load(&WatchFilter::default(), &options.dry_run)?;
    let node = weft_daemon::node_name(options.hostname_override.as_deref())?;
    Ok(match plan(&snapshot, &node, &options.config(), &Uplink::shared()) {
        Ok(plan) => plan.to_string(),
        Err(notice) => format!("# {notice}\n"),
    })
}

/// Takes away everything that the agent set up. Goes on after an error, so that as much as can be is gone.
///
/// # Errors
/// The first one.
pub fn clean_up(options: &Options) -> Result<()> {
    let removed = file::remove(&options.cni_conf_dir).map(drop);
    let mut kernel = Kernel::open()?;
    let nothing = NodePlan::nothing();
    let errors = [removed, kernel.apply_masquerade(&nothing)].into_iter().filter_map(Result::err);
    let first = errors.chain(kernel.apply_routes(&nothing)).next();
    first.map_or(Ok(()), Err)
}

/// Runs until SIGTERM or SIGINT. Everything that was set up stays: pods go on without an agent.
pub async fn run(options: Options) -> Result<()> {
    let mut agent = Agent::new(&options)?;
    let (status, told) = watch::channel(Status::default());
    if let Some(address) = options.healthz_bind_address {
        health::serve(address, told.clone(), agent.metrics.clone()).await?;
    }
    let monitor = Monitor::open()?;
    let mut signals = Signals::new();
    let client = weft_cluster::client(options.kubeconfig.as_deref()).await?;
    // Both end with the runtime.
    tokio::spawn(node_status::keep(client.clone(), agent.node.clone(), told));
    if let Some(socket) = &options.cri_socket {
        let patience = Duration::from_secs(options.collect_after);
        let metrics = agent.metrics.clone();
        tokio::spawn(garbage_collection::run(place(&options), Cri::new(socket)?, patience, metrics));
    }
    let mut nodes = Watch::start(client, &WatchFilter::default(), &[Kind::Node]);
    let mut recheck = interval(RECHECK);
    recheck.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut is_known = false;
    loop {
        tokio::select! {
            _ = nodes.next() => is_known = true,
            () = monitor.changed() => {}
            () = agent.prober.changed() => {}
            _ = recheck.tick() => {}
            _ = signals.next() => return Ok(()),
        }
        agent.upkeep.mark_dirty(monitor.host_ports_changed());
        // Before the Nodes are listed, there seem to be none: nothing must be concluded from that.
        if is_known {
            status.send_replace(agent.reconcile(nodes.snapshot()));
        }
    }
}

/// Where everything of the pods' network is on this machine.
fn place(options: &Options) -> PluginPaths {
    PluginPaths {
        conflist: options.cni_conf_dir.join(file::FILE),
        bin_dir: options.cni_bin_dir.clone(),
        leases: options.cni_data_dir.join(options.network_name.as_str()),
        network: options.network_name.as_str().to_owned(),
    }
}

/// Two nodes change between the tunnel and the straight way one after the other: what comes the other way meanwhile must
/// be taken.
fn loosen(plan: &NodePlan) -> Option<Error> {
    let links = if plan.probes.is_empty() { &[] } else { plan.links.as_slice() };
    let mut problem = None;
    for link in links.iter().map(String::as_str).chain((!links.is_empty()).then_some(DEVICE)) {
        match sysctls::loosen(link) {
            Ok(true) => info!("set net.ipv4.conf.{link}.rp_filter to 2, as the way between nodes may change"),
            Ok(false) => {}
            Err(error) => problem = Some(error),
        }
    }
    problem
}

/// What reconciling needs from one time to the next.
struct Agent<'a> {
    options: &'a Options,
    node: String,
    config: Config,
    kernel: Kernel,
    problems: Problems,
    metrics: Metrics,
    upkeep: Upkeep,
    prober: Prober,
}

impl<'a> Agent<'a> {
    fn new(options: &'a Options) -> Result<Self> {
        let node = weft_daemon::node_name(options.hostname_override.as_deref())?;
        let config = Config { boot: Some(Boot::current().to_string()), ..options.config() };
        info!(%node, "starting");
        let (metrics, mut kernel) = (Metrics::new(), Kernel::open()?);
        let prober = Prober::start(kernel.direct_paths()?);
        Ok(Agent {
            options,
            node,
            config,
            kernel,
            problems: Problems::default(),
            upkeep: Upkeep::new(place(options), metrics.clone()),
            metrics,
            prober,
        })
    }

    /// Brings the machine to what the cluster says, as far as it can be, and says what is in the way.
    fn reconcile(&mut self, snapshot: &Snapshot) -> Status {
        let start = Instant::now();
        let status = self.bring_about(snapshot);
        self.metrics.seconds.observe(start.elapsed().as_secs_f64());
        self.metrics.ready.set(status.is_ready.into());
        self.metrics.problems.set(i64::try_from(status.problems.len()).unwrap_or(i64::MAX));
        self.problems.update(status.problems.clone()).log();
        status
    }

    fn bring_about(&mut self, snapshot: &Snapshot) -> Status {
        let mut status = Status::default();
        let is_installed = match self.plan(snapshot) {
            Ok(plan) => self.apply(&plan, &mut status),
            Err(problem) => {
                status.problems.insert(problem);
                false
            }
        };
        if !is_installed {
            let withdrawn = file::withdraw(&self.options.cni_conf_dir);
            status.problems.extend(withdrawn.err().map(|error| error.to_string()));
        }
        status
    }

    fn plan(&mut self, snapshot: &Snapshot) -> Result<NodePlan, String> {
        let addresses = snapshot.node(&self.node).map(|node| node.addresses.as_slice()).unwrap_or_default();
        let others = snapshot.nodes().filter(|node| node.name != self.node).flat_map(|node| &node.addresses);
        let others: Vec<IpAddr> = others.take(SOME).copied().collect();
        let uplink = self.kernel.uplink(addresses, &others, &self.config.leave_by);
        let uplink = uplink.map_err(|error| error.to_string())?;
        let current = snapshot.node(&self.node).map(|node| node.pod_cidrs.as_slice()).unwrap_or_default();
        let former = self.upkeep.former(current).map_err(|error| error.to_string())?;
        let uplink = Uplink { path_states: self.prober.path_states(), former, ..uplink };
        plan(snapshot, &self.node, &self.config, &uplink).map_err(|notice| notice.to_string())
    }

    /// The configuration comes last: it tells the runtime that pods can start. A route to another node that fails
    /// does not keep them from it, as it concerns that node's pods alone. Where the plugin itself says that it could start
    /// none, runtimes are told by it; the configuration stays. Returns whether there is one.
    fn apply(&mut self, plan: &NodePlan, status: &mut Status) -> bool {
        let mut errors = self.apply_essentials(plan);
        let missed = self.upkeep.look_after(plan, &mut self.kernel);
        let may_install = errors.is_empty() && !missed.is_fatal;
        status.problems.extend(missed.problems);
        errors.extend(self.kernel.apply_routes(plan));
        errors.extend(loosen(plan));
        self.prober.watch(&plan.probes);
        self.count(plan);
        errors.extend(self.kernel.test_offload(plan).err());
        errors.extend(self.kernel.apply_bridge_mtu(self.config.bridge.as_str(), plan).err());
        let mut is_installed = false;
        if let (true, Some(text)) = (may_install, plan.conflist_text()) {
            let installed = self.install(&text);
            is_installed = installed.is_ok();
            errors.extend(installed.err());
            let refusal = self.upkeep.refusal(&text);
            status.is_ready = is_installed && refusal.is_none();
            status.problems.extend(refusal);
        }
        errors.extend(file::first(&self.options.cni_conf_dir).err());
        let errors = errors.iter().map(ToString::to_string);
        status.problems.extend(errors.chain(plan.notices.iter().map(ToString::to_string)));
        is_installed
    }

    fn apply_essentials(&mut self, plan: &NodePlan) -> Vec<Error> {
        let mut errors = Vec::new();
        // Each may rely on the one before: forwarding is not switched on where that would cost the host its own routes.
        for setting in &plan.sysctls {
            match sysctls::set(setting) {
                Ok(true) => info!("set {} to {}", setting.name, setting.value),
                Ok(false) => {}
                Err(error) => {
                    errors.push(error);
                    break;
                }
            }
        }
        // A Node that registers anew has no pod CIDR for a moment. Its pods still run, and still leave the cluster.
        if !plan.masquerade.is_empty() {
            errors.extend(self.kernel.apply_masquerade(plan).err());
        }
        errors
    }

    fn count(&self, plan: &NodePlan) {
        let targets: BTreeSet<IpNetwork> = plan.probes.iter().map(|probe| probe.straight.1.into()).collect();
        let routes = plan.routes.iter().filter(|route| !targets.contains(&route.destination));
        let (tunnelled, straight): (Vec<&NodeRoute>, Vec<&NodeRoute>) =
            routes.partition(|route| route.hop == NextHop::Tunnel);
        for (gauge, routes) in [(&self.metrics.straight, straight), (&self.metrics.tunnelled, tunnelled)] {
            gauge.set(i64::try_from(routes.len()).unwrap_or(i64::MAX));
        }
    }

    fn install(&self, text: &str) -> Result<()> {
        file::check_plugin(&self.options.cni_bin_dir)?;
        if file::install(&self.options.cni_conf_dir, text)? {
            info!("wrote the CNI configuration {}", self.options.cni_conf_dir.join(file::FILE).display());
        }
        Ok(())
    }
}
