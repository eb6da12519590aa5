//! The running agent: its subsystems, in the order in which they act, and when they do. What each does is its
//! own.

use std::collections::BTreeSet;
use std::future::pending;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use prometheus_client::registry::Registry;
use tokio::sync::{mpsc, watch};
use tokio::time::{MissedTickBehavior, interval, sleep_until};
use tracing::{debug, info};
use weft_cluster::write::review_token;
use weft_cluster::{Client, WatchFilter, manifest};
use weft_cni_spec::Boot;
use weft_daemon::Signals;
use weft_netlink::sysctl::Originals;
use weft_policy::pending::GuardedNamespaces;
use weft_policy::ruleset::Denied;
use weft_types::well_known::access::AUDIENCE;
use weft_types::{Kind, Snapshot};

use crate::access;
use crate::announce::allocation::{self, Allocation};
use crate::announce::l2::{self, L2Announcement};
use crate::attachments::PluginPaths;
use crate::bfd::SharedBfd;
use crate::bgp::Bgp;
use crate::blocks::{BlockIpam, dry_run::claims};
use crate::cni_config::CniConfig;
use crate::cni_config::plan::FILE;
use crate::config::Config;
use crate::dhcp::Dhcp;
use crate::facts;
use crate::fast_path::FastPath;
use crate::flows::{self, SharedFlows};
use crate::garbage_collection::GarbageCollection;
use crate::health::{self, Status};
use crate::masquerade::Masquerade;
use crate::metrics::{self, Metrics};
use crate::monitor::Monitor;
use crate::node_status::NodeStatus;
use crate::options::{Options, PolicyDeny, PolicyLog};
use crate::plan::{NodePlan, plan};
use crate::policy::explain::{self, Question};
use crate::policy::{NetworkPolicies, Settings};
use crate::problems::Problems;
use crate::routing::Routing;
use crate::subsystem::{Cause, Environment, KernelChanges, Report, Round, Subsystem, Wake};
use crate::sysctls::Sysctls;
use crate::upkeep::Upkeep;
use crate::uplink::Uplink;
use crate::uplink::observe::UplinkObserver;
use crate::watches::Watches;
use crate::{Error, Result, leftovers, trace};

/// How often everything is looked at without cause: for what failed, and for what changes without a word,
/// such as sysctls, files and the rules of others' firewalls.
const RECHECK: Duration = Duration::from_secs(5);

/// The shortest time between two rounds that nothing calls for but the time.
const PAUSE: Duration = Duration::from_millis(100);

/// How many batches of denied packets may wait. Those beyond are counted, but not told of.
const BATCHES: usize = 16;

/// How many addresses of other nodes are enough to see by which of its own this one reaches them.
const SOME: usize = 8;

/// The subsystems, in the order in which they act. Each may rely on those before it; the CNI configuration,
/// which lets pods start, comes after all that pods need. They are cleaned up in the opposite order.
fn subsystems(
    options: &Options,
    flows: &SharedFlows,
    registry: &mut Registry,
) -> Result<Vec<Box<dyn Subsystem>>> {
    let (paths, bfd) = (plugin_paths(options), SharedBfd::default());
    let originals = Originals::below(&options.cni_data_dir);
    let patience = Duration::from_secs(options.collect_after);
    let blocks = options.block_settings()?.map(|settings| {
        let (bridge, file) = (options.bridge.to_string(), options.config().blocks.unwrap_or_default());
        Box::new(BlockIpam::new(settings, paths.clone(), bridge, file, registry)) as Box<dyn Subsystem>
    });
    let mut subsystems: Vec<Box<dyn Subsystem>> = vec![
        Box::new(Sysctls(originals.clone())),
        Box::new(Masquerade::open()?),
        Box::new(Upkeep::new(paths.clone(), registry)?),
        Box::new(Bgp::new(options.bgp.settings(options.backend)?, bfd.clone(), registry)),
        Box::new(Routing::open(originals.clone(), registry)?),
        Box::new(FastPath::new(options.fast_path, paths.clone(), originals, registry)?),
        Box::new(NetworkPolicies::open(policies(options), flows.clone(), registry)?),
    ];
    subsystems.extend(blocks);
    let after: Vec<Box<dyn Subsystem>> = vec![
        Box::new(CniConfig::new(options.cni_conf_dir.clone(), options.cni_bin_dir.clone())),
        Box::new(Allocation::new(addresses(options), registry)),
        Box::new(GarbageCollection::new(paths, options.cri_socket.clone(), patience, registry)),
        Box::new(L2Announcement::new(load_balancers(options), bfd, registry)),
        Box::new(Dhcp::new(options.dhcp.dhcp, options.dhcp.settings(&options.cni_data_dir), registry)),
        Box::new(NodeStatus),
    ];
    subsystems.extend(after);
    Ok(subsystems)
}

/// The plan for this node, going by manifests instead of a cluster, as text.
pub fn dry_run(options: &Options) -> Result<String> {
    options.check_tunnel()?;
    let snapshot = manifest::load(&WatchFilter::default(), &options.dry_run)?;
    let node = weft_daemon::node_name(options.hostname_override.as_deref())?;
    let (snapshot, asked) = match options.block_settings()? {
        Some(settings) => claims(settings, &node, &snapshot),
        None => (snapshot, String::new()),
    };
    Ok(match plan(&snapshot, &node, &options.config(), &Uplink::shared()) {
        Ok(plan) => format!("{asked}{plan}"),
        Err(notice) => format!("{asked}# {notice}\n"),
    })
}

/// Takes away everything that the agent set up. Goes on after an error, so that as much as can be is gone.
///
/// # Errors
/// The first one.
pub fn clean_up(options: &Options) -> Result<()> {
    let mut registry = metrics::registry();
    let flows = flows::open(flows_settings(options), Wake::default(), &mut registry);
    let mut subsystems = subsystems(options, &flows, &mut registry)?;
    let errors: Vec<Error> = subsystems.iter_mut().rev().flat_map(|subsystem| subsystem.clean_up()).collect();
    errors.into_iter().chain(leftovers::remove(options)).next().map_or(Ok(()), Err)
}

/// Runs until SIGTERM or SIGINT. Everything that was set up stays: pods go on without an agent.
pub async fn run(options: Options) -> Result<()> {
    options.check_tunnel()?;
    let mut registry = metrics::registry();
    let wake = Wake::default();
    let flows = flows::open(flows_settings(&options), wake.clone(), &mut registry);
    let mut agent = Agent::new(&options, &flows, &mut registry)?;
    let (status, told) = watch::channel(Status::default());
    let client = weft_cluster::client(options.kubeconfig.as_deref()).await?;
    let mut questions = serve(&options, &agent, &flows, &told, &client, registry).await?;
    let mut monitor = Monitor::open(&agent.tables())?;
    let mut signals = Signals::new();
    let mut cluster = Watches::new(client.clone());
    let (denied, mut denials) = mpsc::channel(BATCHES);
    let node = agent.node.clone();
    flows.start();
    agent.start(&Environment { client, node, status: told, wake: wake.clone(), denied })?;
    let mut recheck = interval(RECHECK);
    recheck.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        cluster.want(&agent.kinds());
        let cause = tokio::select! {
            () = cluster.changed() => Cause::Asked,
            cause = monitor.changed() => cause,
            () = wake.woken() => Cause::Anything,
            Some(question) = questions.recv() => {
                agent.answer(question);
                continue;
            }
            Some(packets) = denials.recv() => {
                agent.subsystems.iter_mut().for_each(|subsystem| subsystem.denied(&packets));
                continue;
            }
            () = until(agent.due()) => Cause::Anything,
            _ = recheck.tick() => Cause::Anything,
            _ = signals.next() => {
                agent.stop();
                return Ok(());
            }
        };
        agent.kernel.merge(monitor.kernel_changes());
        // Before the Nodes are listed, there seem to be none: nothing must be concluded from that.
        match agent.unlisted(&cluster) {
            None => {
                status.send_replace(agent.round(&cluster, cause));
                cluster.forget_changes();
            }
            Some(kind) => {
                let refusal = cluster.refusal(kind).map(|problem| format!("cannot list {kind}s: {problem}"));
                status.send_replace(Status { problems: refusal.into_iter().collect(), ..Status::default() });
            }
        }
    }
}

/// Serves what the agent and its parts say to those who may ask, where an address is given. Returns the
/// questions that only the loop can answer.
async fn serve(
    options: &Options,
    agent: &Agent,
    flows: &SharedFlows,
    told: &watch::Receiver<Status>,
    client: &Client,
    registry: Registry,
) -> Result<mpsc::Receiver<Question>> {
    let (explaining, questions) = explain::endpoint();
    let place = trace::Place { paths: plugin_paths(options), proc: options.host_proc.clone() };
    let tracing = trace::endpoint(agent.node.clone(), place);
    let facts = facts::endpoint(facts_settings(options), told.clone());
    let telling = flows::endpoint::endpoint(flows.clone());
    let endpoints = agent.endpoints(explaining.merge(tracing).merge(facts).merge(telling), client);
    if let Some(address) = options.healthz_bind_address {
        health::serve(address, told.clone(), Arc::new(registry), endpoints).await?;
    }
    Ok(questions)
}

async fn until(due: Option<Instant>) {
    match due {
        // Whoever is late every time must not keep the daemon from everything else.
        Some(due) => sleep_until(due.max(Instant::now() + PAUSE).into()).await,
        None => pending().await,
    }
}

/// What is to be done about network policies.
fn policies(options: &Options) -> Settings {
    Settings {
        is_enabled: options.network_policy,
        denied: Denied {
            rejects: options.policy_deny == PolicyDeny::Reject,
            log_group: (options.policy_log != PolicyLog::Off).then_some(options.policy_log_group),
        },
        log_group: options.policy_log_group,
        writes_lines: options.policy_log == PolicyLog::Lines,
        cuts: options.policy_cut_connections,
        namespaces: GuardedNamespaces::path(&options.cni_data_dir),
        data_dir: options.cni_data_dir.clone(),
        leases: plugin_paths(options).leases,
    }
}

/// When flows are looked at.
fn flows_settings(options: &Options) -> flows::Settings {
    flows::Settings {
        mode: options.flows.flows,
        keep: options.flows.keep(),
        own_port: options.healthz_bind_address.map(|address| address.port()),
    }
}

/// Which load balancer addresses are given, and to whom.
fn addresses(options: &Options) -> allocation::Settings {
    allocation::Settings {
        pool: options.lb_pool.clone(),
        reads_pools: options.lb_crds,
        class: options.lb_class.clone(),
    }
}

/// What is to be done about load balancer addresses on links.
fn load_balancers(options: &Options) -> l2::Settings {
    let interfaces = options.lb_interfaces.iter().map(ToString::to_string).collect();
    let (pool, reads_pools) = (options.lb_pool.clone(), options.lb_crds);
    let is_enabled = options.lb_l2.unwrap_or(!pool.is_empty() || reads_pools);
    l2::Settings { is_enabled, interfaces, pool, reads_pools }
}

/// What `/facts` tells of besides the kernel.
fn facts_settings(options: &Options) -> facts::Settings {
    facts::Settings {
        conf_dir: options.cni_conf_dir.clone(),
        paths: plugin_paths(options),
        enforces_policies: options.network_policy,
    }
}

/// Where everything of the pods' network is on this machine.
fn plugin_paths(options: &Options) -> PluginPaths {
    PluginPaths {
        conflist: options.cni_conf_dir.join(FILE),
        bin_dir: options.cni_bin_dir.clone(),
        leases: options.cni_data_dir.join(options.network_name.as_str()),
        network: options.network_name.as_str().to_owned(),
    }
}

/// The subsystems, and what is remembered from one round to the next.
struct Agent {
    node: String,
    config: Config,
    subsystems: Vec<Box<dyn Subsystem>>,
    /// The last report of each subsystem.
    reports: Vec<Report>,
    /// The Nodes as a subsystem gave them ranges, where one does, or why that could not be found out.
    allocated: Result<Option<Snapshot>, String>,
    /// The plan as of the last round about everything, or why there is none.
    plan: Option<Result<NodePlan, String>>,
    uplink: UplinkObserver,
    kernel: KernelChanges,
    problems: Problems,
    metrics: Metrics,
}

impl Agent {
    fn new(options: &Options, flows: &SharedFlows, registry: &mut Registry) -> Result<Agent> {
        let node = weft_daemon::node_name(options.hostname_override.as_deref())?;
        let config = Config { boot: Some(Boot::current().to_string()), ..options.config() };
        info!(%node, "starting");
        let subsystems = subsystems(options, flows, registry)?;
        Ok(Agent {
            node,
            config,
            metrics: Metrics::new(registry),
            reports: subsystems.iter().map(|_| Report::default()).collect(),
            subsystems,
            allocated: Ok(None),
            plan: None,
            uplink: UplinkObserver::open()?,
            kernel: KernelChanges::default(),
            problems: Problems::default(),
        })
    }

    fn start(&mut self, environment: &Environment) -> Result<()> {
        self.subsystems.iter_mut().try_for_each(|subsystem| {
            debug!(subsystem = subsystem.name(), "starting");
            subsystem.start(environment)
        })
    }

    fn stop(&mut self) {
        self.subsystems.iter_mut().rev().for_each(|subsystem| subsystem.stop());
    }

    /// Answers from what is known now, between two rounds.
    fn answer(&mut self, Question { packet, answer }: Question) {
        let report = self.subsystems.iter_mut().find_map(|subsystem| subsystem.explain(&packet));
        let nobody = || Err("this agent knows nothing of network policies".to_owned());
        // Whoever asked may be gone.
        let _ = answer.send(report.map_or_else(nobody, |report| report.map_err(|error| error.to_string())));
    }

    /// The kinds of object that somebody needs.
    fn kinds(&self) -> BTreeSet<Kind> {
        let wanted = self.subsystems.iter().flat_map(|subsystem| subsystem.kinds());
        wanted.chain([Kind::Node]).collect()
    }

    /// What the subsystems and `others` say over HTTP, to those who may ask.
    fn endpoints(&self, others: Router, client: &Client) -> Router {
        let all = self.subsystems.iter().map(|subsystem| subsystem.endpoints()).fold(others, Router::merge);
        let client = client.clone();
        access::guarded(all, move |token: String| {
            let client = client.clone();
            async move { review_token(&client, &token, AUDIENCE).await }
        })
    }

    /// A kind without which there can be no round, and that is not listed yet.
    fn unlisted(&self, cluster: &Watches) -> Option<Kind> {
        self.essential().find(|kind| cluster.snapshot(*kind).is_none())
    }

    /// The kinds that the plan is made from.
    fn essential(&self) -> impl Iterator<Item = Kind> {
        let essential = self.subsystems.iter().filter_map(|subsystem| subsystem.essential());
        essential.chain([Kind::Node])
    }

    /// The tables that somebody wants to hear of.
    fn tables(&self) -> Vec<&'static str> {
        self.subsystems.iter().flat_map(|subsystem| subsystem.tables()).copied().collect()
    }

    fn due(&self) -> Option<Instant> {
        self.subsystems.iter().filter_map(|subsystem| subsystem.due()).min()
    }

    /// Brings the machine to what the cluster says, as far as it can be, and says what is in the way.
    fn round(&mut self, cluster: &Watches, cause: Cause) -> Status {
        let start = Instant::now();
        let status = self.reconcile(cluster, cause).into_status();
        self.metrics.seconds.observe(start.elapsed().as_secs_f64());
        self.metrics.ready.set(status.is_ready.into());
        self.metrics.problems.set(i64::try_from(status.problems.len()).unwrap_or(i64::MAX));
        self.problems.update(status.problems.clone()).log();
        status
    }

    fn reconcile(&mut self, cluster: &Watches, cause: Cause) -> Report {
        let is_known = cause == Cause::Asked && !self.kernel.is_unknown;
        let are_planned_by = self.essential().any(|kind| cluster.changes(kind).next().is_some());
        let is_whole = !is_known || self.plan.is_none() || are_planned_by;
        if is_whole {
            self.plan = Some(self.plan(cluster));
        }
        let mut report = Report::default();
        let plan = match &self.plan {
            Some(Ok(plan)) => Some(plan),
            Some(Err(problem)) => {
                report.blocking(problem);
                None
            }
            None => None,
        };
        report.problems(plan.iter().flat_map(|plan| &plan.notices));
        let nodes = nodes(&self.allocated, cluster);
        let round = Round { plan, cluster, nodes, kernel: std::mem::take(&mut self.kernel) };
        for (subsystem, own) in self.subsystems.iter_mut().zip(&mut self.reports) {
            if is_whole || round.concerns(&**subsystem) || own.depends_on(&report) {
                *own = Report::after(&report);
                subsystem.reconcile(&round, own);
            }
            report.add(own);
        }
        report
    }

    fn plan(&mut self, cluster: &Watches) -> Result<NodePlan, String> {
        let allocated = self.subsystems.iter_mut().map(|subsystem| subsystem.allocate(cluster));
        let allocated = allocated.filter_map(Result::transpose).next().transpose();
        self.allocated = allocated.map_err(|error| error.to_string());
        if let Err(problem) = &self.allocated {
            return Err(problem.clone());
        }
        let nothing = Snapshot::default();
        let snapshot = nodes(&self.allocated, cluster).unwrap_or(&nothing);
        let node = snapshot.node(&self.node);
        let addresses = node.map(|node| node.addresses.as_slice()).unwrap_or_default();
        let others = snapshot.nodes().filter(|node| node.name != self.node).flat_map(|node| &node.addresses);
        let others: Vec<IpAddr> = others.take(SOME).copied().collect();
        let mut uplink = self
            .uplink
            .observe(addresses, &others, &self.config.leave_by)
            .map_err(|error| error.to_string())?;
        for subsystem in &mut self.subsystems {
            subsystem.observe(node, &mut uplink).map_err(|error| error.to_string())?;
        }
        plan(snapshot, &self.node, &self.config, &uplink).map_err(|notice| notice.to_string())
    }
}

/// The Nodes that plans are made from: with the ranges that their pods get addresses of. None while these are not
/// known.
fn nodes<'a>(allocated: &'a Result<Option<Snapshot>, String>, cluster: &'a Watches) -> Option<&'a Snapshot> {
    allocated.as_ref().ok()?.as_ref().or(cluster.snapshot(Kind::Node))
}
