//! The daemon as a whole: sockets first, then the cluster, then one change after the other. The rules stay
//! when it ends.

use std::collections::BTreeSet;
use std::mem::take;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use jiff::Timestamp;
use tokio::sync::{Notify, mpsc};
use tokio::time::{MissedTickBehavior, interval, sleep, sleep_until};
use tracing::{debug, error, info, warn};
use weft_cluster::write::{Events, Recorder, Warning};
use weft_cluster::{Watch, WatchFilter};
use weft_daemon::{Signals, serve};
use weft_netlink::memory;
use weft_types::{ChangeSet, Kind, NamespacedName, ObjectKey, Snapshot};

use crate::config::NodePortAddresses;
use crate::conntrack::Conntrack;
use crate::conntrack::Register;
use crate::counters::{Counters, Question};
use crate::dataplane::{Author, ForeignChange};
use crate::error::Error;
use crate::firewall::Firewall;
use crate::foreign_changes::{ForeignChanges, News};
use crate::health::Health;
use crate::health_server::HealthServer;
use crate::host_ports::HostPorts;
use crate::http;
use crate::kube_proxy::configz::configz;
use crate::metrics::Metrics;
use crate::node_ports::NodePorts;
use crate::options::Options;
use crate::services::health_check::{self, Checks};
use crate::services::plan::Frontend;
use crate::services::planner::Totals;
use crate::services::problem::{Problem, summary};
use crate::sync::{Outcome, Sync};
use crate::sysctl;

/// What the proxy depends on.
const KINDS: [Kind; 4] = [Kind::Service, Kind::EndpointSlice, Kind::Node, Kind::ServiceCidr];
/// How often the ports that lead to containers are looked at.
const LOOK: Duration = Duration::from_secs(10);
/// How long to wait before the kernel is tried again after a failure.
const RETRY: Duration = Duration::from_secs(1);

/// Runs until SIGTERM or SIGINT.
///
/// # Errors
/// What fails at the start, and what to do. Later nothing is an error: what fails is tried again.
pub async fn run(options: Options) -> Result<(), Error> {
    let mut signals = Signals::new();
    let (health, metrics) = (Arc::new(Health::default()), Arc::new(Metrics::default()));
    let healthz = http::healthz(health.clone(), metrics.clone());
    serve("--healthz-bind-address", options.healthz_bind_address, healthz).await?;
    let configz = configz(&options).to_string();
    let (counters, questions) = Counters::new();
    let counters = options.service_counters.then_some(counters);
    let figures = http::metrics(metrics.clone(), counters, options.proxy_mode.name(), configz);
    serve("--metrics-bind-address", options.metrics_bind_address, figures).await?;
    let config = options.config()?;
    info!(node = config.node, "starting");
    for refused in sysctl::apply(&options.limits, options.settings_dir.clone()) {
        match refused.asked {
            true => warn!("{}", refused.error),
            false => info!("{}", refused.error),
        }
    }
    let node = config.node.clone();
    let needs_addresses = config.nodeport_addresses == NodePortAddresses::Primary;
    let node_ports = NodePorts::open(&config.nodeport_addresses)?;
    let sync = Sync::open(config)?;
    let client = weft_cluster::client(options.kubeconfig.as_deref()).await?;
    let events = Events::start(Recorder::new(client.clone(), "weft-proxy", node.clone()));
    let watch = Watch::start(client, &WatchFilter::service_proxy(), &KINDS);
    let mut proxy = Proxy {
        node,
        needs_addresses,
        sync,
        events,
        checks: Checks::new(),
        health_server: HealthServer::start(health.clone()),
        health,
        conntrack: Conntrack::start(metrics.clone())?,
        register: Register::new(options.terminate_removed_tcp),
        metrics,
        started: SystemTime::now(),
        triggered: Vec::new(),
        failed: false,
        loaded: false,
        host_ports: HostPorts::open()?,
        host_port_conflicts: BTreeSet::new(),
        node_ports,
        told: 0,
        questions,
        foreign_changes: ForeignChanges::default(),
        cooldown: tokio::time::Instant::now(),
        firewall: Firewall::open()?,
        others: Arc::default(),
    };
    tokio::select! {
        () = proxy.follow(watch) => {}
        _ = signals.next() => {}
    }
    info!("stopping; the rules stay");
    Ok(())
}

struct Proxy {
    /// The name of the Node.
    node: String,
    /// NodePorts are served at the Node's addresses.
    needs_addresses: bool,
    sync: Sync,
    events: Events,
    checks: Checks,
    health_server: HealthServer,
    conntrack: Conntrack,
    /// Whose connections are to be ended when they go.
    register: Register,
    health: Arc<Health>,
    metrics: Arc<Metrics>,
    /// Since when it runs: what happened before is nothing that it was slow about.
    started: SystemTime,
    /// When that happened which made endpoints change and is not in the kernel yet.
    triggered: Vec<SystemTime>,
    /// The kernel is out of step, and is to be tried again.
    failed: bool,
    /// The kernel was brought into step as a whole, which takes far more memory than what is kept.
    loaded: bool,
    /// The ports that lead to containers.
    host_ports: HostPorts,
    /// What is to be said of them.
    host_port_conflicts: BTreeSet<Warning>,
    /// Where NodePorts are served.
    node_ports: NodePorts,
    /// How many problems had been found when they were last told.
    told: u64,
    /// Those who want to read the counters of Services.
    questions: mpsc::Receiver<Question>,
    /// Who else changes the rules.
    foreign_changes: ForeignChanges,
    /// Until when they are left alone.
    cooldown: tokio::time::Instant,
    /// What other programs' chains do with the packets of Services.
    firewall: Firewall,
    /// Woken when that may have changed.
    others: Arc<Notify>,
}

impl Proxy {
    async fn follow(&mut self, mut watch: Watch) {
        let mut look = interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                changes = watch.next() => self.apply(watch.snapshot(), &changes),
                () = sleep(RETRY), if self.failed => self.apply(watch.snapshot(), &ChangeSet::default()),
                _ = look.tick() => self.look_at_host_ports(),
                // An asker that has gone wants nothing.
                Some(question) = self.questions.recv() => drop(question.send(self.sync.counters())),
                () = self.firewall.may_have_changed(&self.others) => {
                    self.firewall.look(&self.node, watch.snapshot(), &self.health);
                }
                change = foreign_change(&mut self.sync, self.cooldown) => self.put_right(&change, watch.snapshot()),
            }
            // Only now all is freed that it took, the list of changes too.
            if take(&mut self.loaded) {
                memory::trim();
            }
        }
    }

    /// Puts right what others have changed.
    fn put_right(&mut self, change: &ForeignChange, snapshot: &Snapshot) {
        if let ForeignChange::By(author) = change {
            self.tell_of(author);
        }
        self.apply(snapshot, &ChangeSet::default());
        self.cooldown = tokio::time::Instant::now() + self.foreign_changes.cooldown();
    }

    /// Tells of somebody else who changes the rules.
    fn tell_of(&mut self, author: &Author) {
        match self.foreign_changes.came(author, Instant::now()) {
            Some(News::Changed(line)) => warn!("{line}"),
            Some(News::Contested(line)) => {
                warn!("{line}");
                let about = ObjectKey::Node(self.node.clone());
                self.events.write(Warning { about, reason: "RulesContested", note: line });
            }
            None => {}
        }
    }

    fn apply(&mut self, snapshot: &Snapshot, changes: &ChangeSet) {
        let start = Instant::now();
        self.metrics.queued(changes);
        self.triggered.extend(changes.triggered.iter().filter(|moment| **moment >= self.started));
        if !changes.nodes.is_empty() {
            self.others.notify_one();
        }
        if changes.nodes.contains(&self.node) {
            self.look_at_node(snapshot);
        }
        health_check::update(&mut self.checks, snapshot, changes, &self.node);
        self.conntrack.expect(|| self.register.coming(snapshot, changes));
        let applied = self.sync.apply(snapshot, changes);
        self.failed = applied.is_err();
        self.clean_up_conntrack(snapshot, changes, applied.as_ref().ok().copied());
        self.tell(changes);
        match applied {
            Ok(outcome) => self.succeeded(outcome, changes.services.len(), start),
            Err(error) => {
                error!("{error}; trying again in {} s", RETRY.as_secs());
                self.health.out_of_step(start);
                self.metrics.failed();
            }
        }
    }

    fn look_at_node(&mut self, snapshot: &Snapshot) {
        let node = snapshot.node(&self.node);
        self.health.node_leaves(node.is_none_or(|node| node.leaving));
        if self.needs_addresses && node.is_some_and(|node| node.addresses.is_empty()) {
            warn!(
                "Node {} has neither an InternalIP nor an ExternalIP: no NodePort is served here; set \
                 --nodeport-addresses to serve them at other addresses",
                self.node
            );
        }
    }

    /// Has connections ended that go by what the rules were before, after the rules are in.
    fn clean_up_conntrack(&mut self, snapshot: &Snapshot, changes: &ChangeSet, done: Option<Outcome>) {
        let touched = self.register.update(snapshot, changes, self.sync.ownership());
        let Some(outcome) = done else { return }; // When the rules are in, all will be looked at.
        let is_node_port = |frontend: &Frontend| matches!(frontend, Frontend::NodePort(..));
        let node = match outcome == Outcome::Full || touched.iter().any(is_node_port) {
            true => self.node_ports.addresses(self.sync.addresses()),
            false => Vec::new(),
        };
        let ownership = self.sync.ownership();
        self.conntrack.look_at(match outcome {
            // Rules were missing for a while, and flows came by meanwhile.
            Outcome::Full => self.register.everything(snapshot, ownership, &node),
            Outcome::Partial => self.register.served(&touched, snapshot, ownership, &node),
        });
    }

    /// Tells users of what cannot be served.
    fn tell(&mut self, changes: &ChangeSet) {
        for object in &changes.invalid {
            // The watch has told of it in the log.
            if let Some(about) = object.key.clone() {
                self.events.write(Warning { about, reason: "Malformed", note: object.fault.clone() });
            }
        }
        let found = self.sync.totals().problems;
        if self.told != found {
            self.tell_of_problems();
            self.told = found;
        }
    }

    fn tell_of_problems(&mut self) {
        let of_services = self.sync.problems().iter().filter_map(|(key, problems)| warning(key, problems));
        self.events.tell(of_services.chain(self.host_port_conflicts.iter().cloned()).collect());
    }

    /// Looks at the ports that lead to containers: what others map by them is not announced here.
    fn look_at_host_ports(&mut self) {
        // Where they cannot be read for the moment, they are at the next look.
        let Ok(host_ports) = self.host_ports.read() else { return };
        let found = self.sync.host_port_conflicts(&host_ports);
        let found = found.iter().filter_map(|(key, problem)| warning(key, std::slice::from_ref(problem)));
        let found: BTreeSet<Warning> = found.collect();
        if found != self.host_port_conflicts {
            self.host_port_conflicts = found;
            self.tell_of_problems();
        }
    }

    fn succeeded(&mut self, outcome: Outcome, services: usize, start: Instant) {
        let took = start.elapsed();
        match outcome {
            Outcome::Full => info!(?took, "the kernel is in step with the cluster"),
            Outcome::Partial => debug!(services, ?took, "committed"),
        }
        self.loaded |= outcome == Outcome::Full;
        match self.sync.watch(&self.others) {
            // Where somebody came in between, the kernel is read again.
            Ok(undisturbed) => self.failed = !undisturbed,
            Err(error) => {
                warn!("{error}; changes that others make are noticed only when a later change fails");
            }
        }
        let programs = self.sync.programs();
        self.metrics.led_by_programs(programs.as_ref().map_or(0, |programs| programs.led));
        self.health.set_programs(programs);
        let Totals { without_internal, without_external, .. } = self.sync.totals();
        self.metrics.without_local_endpoints(without_internal, without_external);
        let now = SystemTime::now();
        for moment in self.triggered.drain(..) {
            // The clock that it was taken by may be ahead of ours.
            self.metrics.programmed(now.duration_since(moment).unwrap_or_default());
        }
        self.health_server.serve(&self.checks, |service| self.sync.answers_health_checks(service));
        self.health.in_step(Timestamp::now());
        self.metrics.synced(outcome, took);
    }
}

/// What is to be said about the problems of a Service, all in one.
fn warning(key: &NamespacedName, problems: &[Problem]) -> Option<Warning> {
    let about = ObjectKey::Service(key.clone());
    Some(Warning { about, reason: problems.first()?.reason(), note: summary(problems) })
}

/// Waits for what others change, and not less than until that moment.
async fn foreign_change(sync: &mut Sync, not_before: tokio::time::Instant) -> ForeignChange {
    sleep_until(not_before).await;
    sync.foreign_change().await
}
