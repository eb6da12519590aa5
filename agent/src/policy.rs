//! Network policies: what the cluster's policies let this node's pods send and get, as nf_tables. What that
//! is, is planned in the crate `weft-policy`; here it is kept in step with the cluster and the kernel.
//!
//! Pods start closed where they may have policies: `waiting` finds the pods that the plugin put into the set
//! of those that wait, and they get their rows and are let out in one transaction.

mod cut;
mod denials;
pub(crate) mod explain;
mod metrics;
pub(crate) mod remembered;
mod tables;
mod waiting;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use prometheus_client::registry::Registry;
use tokio::sync::mpsc;
use tracing::{debug, info};
use weft_cluster::write::{Events, Recorder, Warning};
use weft_netlink::nflog;
use weft_policy::pending::{GuardedNamespaces, TABLE};
use weft_policy::plan::{Packet, Planner, PolicyName, Problem};
use weft_policy::report::Report as PolicyReport;
use weft_policy::ruleset::{Denied, adopt};
use weft_types::{
    ChangeSet, ClusterNetworkPolicy, Kind, Namespace, NamespacedName, NetworkPolicy, Node, ObjectKey, Pod,
    Snapshot,
};

use self::cut::judge::Concerned;
use self::cut::{Cutter, Kernel};
use self::denials::Denials;
use self::metrics::Metrics;
use self::remembered::Remembered;
use self::tables::{PolicyTables, SharedClient};
use self::waiting::Assigned;
use crate::flows::SharedFlows;
use crate::subsystem::{Environment, Report, Round, Subsystem};
use crate::{Error, Result};

/// The kinds that are always watched.
const POLICIES: [Kind; 2] = [Kind::NetworkPolicy, Kind::ClusterNetworkPolicy];
/// The kinds that are watched once there is a policy.
const SELECTED: [Kind; 2] = [Kind::Pod, Kind::Namespace];
/// For how long a pod may wait before that is told of as a problem.
const PATIENCE: Duration = Duration::from_secs(10);

/// What the flags say.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// Whether policies are enforced at all.
    pub(crate) is_enabled: bool,
    /// What happens to denied traffic.
    pub(crate) denied: Denied,
    /// The group of nflog that denied traffic is logged to while somebody asks for flows.
    pub(crate) log_group: u16,
    /// Each denied packet has a line in the log, where they are told of at all.
    pub(crate) writes_lines: bool,
    /// Connections that a change of policies denies are ended.
    pub(crate) cuts: bool,
    /// Where the plugin reads which namespaces have policies.
    pub(crate) namespaces: PathBuf,
    /// The plugin's data folder.
    pub(crate) data_dir: PathBuf,
    /// The folder of the network's reservations.
    pub(crate) leases: PathBuf,
}

/// Enforces network policies.
pub(crate) struct NetworkPolicies {
    settings: Settings,
    tables: PolicyTables,
    /// What ends connections, where that is wanted.
    cutter: Option<Cutter>,
    /// Whose connections are to be judged once the kernel has the plan.
    owed: Concerned,
    remembered: Remembered,
    metrics: Metrics,
    denials: Denials,
    flows: SharedFlows,
    /// Where packets go that are read of a group of nflog, once the agent has started.
    to: Option<mpsc::Sender<Vec<nflog::Packet>>>,
    /// The name of this node, once it is known.
    node: String,
    events: Option<Events>,
    /// The planner, while there are policies.
    planner: Option<Planning>,
    /// What the plugin is to know; nothing before all policies are listed.
    selectable: Option<GuardedNamespaces>,
    /// What the plugin was told last; nothing before that.
    guarded: Option<GuardedNamespaces>,
    /// What is wrong with policies as they were read.
    malformed: BTreeMap<ObjectKey, String>,
    /// Since when addresses have been waiting.
    waiting_since: BTreeMap<IpAddr, Instant>,
    told: BTreeSet<Warning>,
}

/// A planner, and what it was told.
struct Planning {
    planner: Planner,
    /// The kinds of which it has all objects.
    fed: BTreeSet<Kind>,
    /// What the tables held at the start was taken over.
    is_adopted: bool,
    /// The pods that have addresses by word of the plugin.
    assigned: BTreeMap<NamespacedName, Assigned>,
    problems: Vec<Problem>,
}

impl NetworkPolicies {
    /// In the calling thread's network namespace.
    pub(crate) fn open(
        settings: Settings,
        flows: SharedFlows,
        registry: &mut Registry,
    ) -> Result<NetworkPolicies> {
        let (metrics, nft) = (Metrics::new(registry), SharedClient::open()?);
        let cutter = match settings.is_enabled && settings.cuts {
            true => Some(Cutter::start(Kernel::open(nft.clone())?, metrics.cuts.clone())?),
            false => None,
        };
        Ok(NetworkPolicies {
            tables: PolicyTables::new(nft, settings.denied),
            cutter,
            owed: Concerned::default(),
            remembered: Remembered::new(&settings.data_dir, &settings.leases),
            denials: Denials::new(settings.writes_lines, registry),
            flows,
            to: None,
            settings,
            metrics,
            node: String::new(),
            events: None,
            planner: None,
            selectable: None,
            guarded: None,
            malformed: BTreeMap::new(),
            waiting_since: BTreeMap::new(),
            told: BTreeSet::new(),
        })
    }
}

impl Subsystem for NetworkPolicies {
    fn name(&self) -> &'static str {
        "policy"
    }

    fn start(&mut self, environment: &Environment) -> Result<()> {
        self.node.clone_from(&environment.node);
        let recorder = Recorder::new(environment.client.clone(), "weft-agent", &environment.node);
        self.events = Some(Events::start(recorder));
        self.to = Some(environment.denied.clone());
        self.hear_of_denials();
        Ok(())
    }

    fn kinds(&self) -> BTreeSet<Kind> {
        let policies = POLICIES.into_iter().filter(|_| self.settings.is_enabled);
        policies.chain(SELECTED.into_iter().filter(|_| self.planner.is_some())).collect()
    }

    fn tables(&self) -> &'static [&'static str] {
        &[TABLE]
    }

    fn due(&self) -> Option<Instant> {
        self.waiting_since.values().min().map(|since| *since + PATIENCE).filter(|due| *due > Instant::now())
    }

    fn denied(&mut self, packets: &[nflog::Packet]) {
        if let Some(planning) = &self.planner {
            self.denials.tell(&planning.planner, packets, &self.flows);
        }
    }

    fn reconcile(&mut self, round: &Round<'_>, report: &mut Report) {
        self.tables.note(&round.kernel);
        self.hear_of_denials();
        if let Err(error) = self.bring(round) {
            report.problem(format!("network policies are not up to date: {error}"));
        }
        tell_refusals(round, &self.kinds(), report);
        self.cutter.iter().filter_map(Cutter::problem).for_each(|problem| report.problem(problem));
        if let Err(error) = self.denials.count(&mut self.tables) {
            report.problem(format!("denied traffic is not counted: {error}"));
        }
        report.problems(self.denials.problem());
        self.report(report);
    }

    fn explain(&mut self, packet: &Packet) -> Option<Result<PolicyReport>> {
        let planner = match (&self.planner, self.settings.is_enabled) {
            (_, false) => Err("network policies are not enforced on this node (--network-policy=false)"),
            (None, true) => Err("there is no network policy, as far as this node knows"),
            (Some(planning), true) => Ok(&planning.planner),
        };
        let tables = self.tables.held();
        Some(tables.map(|tables| explain::report(&self.node, planner, &tables, packet)))
    }

    fn clean_up(&mut self) -> Vec<Error> {
        self.open_all().err().into_iter().collect()
    }
}

impl NetworkPolicies {
    /// Has denied packets logged and read where flags say so, and while somebody asks for flows.
    fn hear_of_denials(&mut self) {
        let by_flag = self.settings.denied.log_group.filter(|_| self.settings.is_enabled);
        let asked = (self.settings.is_enabled && self.flows.is_on()).then_some(self.settings.log_group);
        let group = by_flag.or(asked);
        self.tables.log_to(group);
        if let Some(to) = &self.to {
            self.denials.listen(group, to);
        }
    }

    /// Brings the plugin's file and the kernel to what the cluster says.
    fn bring(&mut self, round: &Round<'_>) -> Result<()> {
        if !self.settings.is_enabled {
            return self.open_all();
        }
        let [Some(policies), Some(cluster_policies)] = POLICIES.map(|kind| round.objects(kind)) else {
            return Ok(());
        };
        self.note_malformed(round);
        let has_changed = POLICIES.into_iter().any(|kind| round.changes(kind).next().is_some());
        if has_changed || self.selectable.is_none() {
            self.selectable = Some(guarded(policies, cluster_policies));
        }
        let count =
            policies.of::<NetworkPolicy>().len() + cluster_policies.of::<ClusterNetworkPolicy>().len();
        self.metrics.count(count, self.tables.waiting().len());
        if self.selectable.as_ref().is_none_or(GuardedNamespaces::is_empty) {
            return self.open_all();
        }
        let planning = self.planner.get_or_insert_with(|| Planning::new(&self.node));
        let is_complete = SELECTED.iter().all(|kind| round.objects(*kind).is_some());
        if is_complete {
            // Before anything can fail: a change is told once.
            planning.feed(round);
        }
        if self.guarded != self.selectable {
            self.guard(self.selectable.clone().unwrap_or_default())?;
        }
        // Until it is known whom they select, what was so before stands.
        if is_complete { self.enforce(round) } else { Ok(()) }
    }

    /// Plans, and writes what changed.
    fn enforce(&mut self, round: &Round<'_>) -> Result<()> {
        let (Some(planning), [Some(pods), Some(namespaces)]) =
            (&mut self.planner, SELECTED.map(|kind| round.objects(kind)))
        else {
            return Ok(());
        };
        let start = Instant::now();
        let observed = self.tables.look()?;
        if let Some(observed) = observed.as_ref().filter(|_| !planning.is_adopted) {
            planning.planner.adopt(adopt::classes(observed));
        }
        let path = self.remembered.path().to_owned();
        let unusable = |problem| Error::PolicyPods { path: path.clone(), problem };
        if !planning.is_adopted {
            let remembered = self.remembered.read().map_err(unusable)?;
            if waiting::is_early(&remembered, pods, namespaces) {
                return Ok(());
            }
            planning.assign(waiting::assignments(&remembered, pods, namespaces));
        }
        planning.is_adopted = true;
        planning.assign(waiting::assignments(self.tables.waiting(), pods, namespaces));
        // Before the pods are let out.
        self.remembered.keep(planning.unsettled(pods)).map_err(unusable)?;
        let delta = planning.planner.commit();
        let is_answered = |(address, remark): &&(IpAddr, String)| planning.answers(*address, remark);
        let answered: Vec<IpAddr> =
            self.tables.waiting().iter().filter(is_answered).map(|(address, _)| *address).collect();
        if !delta.is_empty() {
            self.denials.forget_policies(&planning.planner);
            planning.problems = planning.planner.problems();
            self.metrics.measure(planning.planner.endpoints(), planning.planner.rows());
            self.owed.extend(Concerned::by(&delta));
        }
        let is_resync = observed.is_some();
        if self.tables.commit(&delta, &answered, observed)? {
            if is_resync {
                // While something was missing, more than the plan allows may have begun.
                self.owed.extend(Concerned::All);
            }
            self.metrics.commit_seconds.observe(start.elapsed().as_secs_f64());
            match is_resync {
                true => info!("brought the rules of network policies to the plan"),
                false => debug!(?answered, "changed the rules of network policies"),
            }
        }
        if let Some(cutter) = &self.cutter {
            cutter.judge(planning.planner.plan(), std::mem::take(&mut self.owed));
        }
        Ok(())
    }

    /// Tells the plugin which pods start closed, before there are any rules for them.
    fn guard(&mut self, guarded: GuardedNamespaces) -> Result<()> {
        if self.guarded.as_ref() != Some(&guarded) {
            let path = &self.settings.namespaces;
            guarded.write(path).map_err(|problem| Error::PolicyFile { path: path.clone(), problem })?;
            self.guarded = Some(guarded);
        }
        Ok(())
    }

    /// There is no policy: nothing is closed.
    fn open_all(&mut self) -> Result<()> {
        self.planner = None;
        self.owed = Concerned::default();
        self.metrics.measure(0, 0);
        if let Some(cutter) = &self.cutter {
            cutter.forget();
        }
        if self.tables.remove()? {
            self.denials.forget_tables();
            info!("removed the rules of network policies, as there is no policy any more");
        }
        // After the tables: where there is no file, the plugin does not ask who waits in them.
        self.guard(GuardedNamespaces::default())
    }

    /// Remembers what is wrong with policies as they were read. The watch logs it.
    fn note_malformed(&mut self, round: &Round<'_>) {
        for changes in POLICIES.into_iter().flat_map(|kind| round.changes(kind)) {
            let changed = changes.network_policies.iter().cloned().map(ObjectKey::NetworkPolicy);
            let of_cluster =
                changes.cluster_network_policies.iter().cloned().map(ObjectKey::ClusterNetworkPolicy);
            for key in changed.chain(of_cluster) {
                self.malformed.remove(&key);
            }
            for invalid in &changes.invalid {
                if let Some(key) = invalid.key.clone() {
                    self.malformed.insert(key, invalid.fault.clone());
                }
            }
        }
    }

    /// Says what is wrong, and which pods wait.
    fn report(&mut self, report: &mut Report) {
        let malformed = self.malformed.iter().map(|(about, fault)| Warning {
            about: about.clone(),
            reason: "Malformed",
            note: fault.clone(),
        });
        let problems = self.planner.iter().flat_map(|planning| &planning.problems);
        let warnings: BTreeSet<Warning> = malformed.chain(problems.map(warning)).collect();
        for new in warnings.difference(&self.told) {
            self.events.iter().for_each(|events| events.write(new.clone()));
        }
        report.problems(&warnings);
        self.told = warnings;
        let waiting = self.tables.waiting();
        self.waiting_since.retain(|address, _| waiting.iter().any(|(it, _)| it == address));
        let now = Instant::now();
        for (address, remark) in waiting {
            let name = waiting::name(*address, remark);
            let since = *self.waiting_since.entry(*address).or_insert(now);
            if now.duration_since(since) >= PATIENCE {
                report.problem(format!(
                    "Pod {name} ({address}) is closed, as it waits for its policies: the API server has not told of \
                     this pod or its namespace"
                ));
            }
            report.pending_pod(name);
        }
    }
}

impl Planning {
    fn new(node: &str) -> Planning {
        Planning {
            planner: Planner::new(node),
            fed: BTreeSet::new(),
            is_adopted: false,
            assigned: BTreeMap::new(),
            problems: Vec::new(),
        }
    }

    /// Tells the planner of what changed, and of all objects of a kind that it does not know yet.
    fn feed(&mut self, round: &Round<'_>) {
        for kind in POLICIES.into_iter().chain(SELECTED).chain([Kind::Node]) {
            let Some(snapshot) = round.objects(kind) else { continue };
            if self.fed.insert(kind) {
                self.planner.apply(snapshot, &everything(snapshot));
            } else {
                round.changes(kind).for_each(|changes| self.planner.apply(snapshot, changes));
            }
        }
        let Some(pods) = round.objects(Kind::Pod) else { return };
        let planner = &mut self.planner;
        self.assigned.retain(|key, assigned| {
            let is_there = pods.of::<Pod>().get(key).is_some_and(|pod| waiting::uid(pod) == &*assigned.uid);
            if !is_there {
                planner.assign(key, &[]);
            }
            is_there
        });
    }

    /// Tells the planner of addresses that pods have by word of the plugin.
    fn assign(&mut self, found: BTreeMap<NamespacedName, Assigned>) {
        for (key, found) in found {
            let assigned = self.assigned.entry(key.clone()).or_default();
            assigned.renew(found);
            self.planner.assign(&key, &assigned.addresses);
        }
    }

    /// The addresses that pods have by word of the plugin alone, each with its remark.
    fn unsettled(&self, pods: &Snapshot) -> BTreeMap<IpAddr, String> {
        let mut unsettled = BTreeMap::new();
        for (key, assigned) in &self.assigned {
            let known = pods.of::<Pod>().get(key).map(|pod| pod.addresses).unwrap_or_default();
            let unknown = assigned.addresses.iter().filter(|address| !known.contains(address));
            let NamespacedName { namespace, name } = key;
            unsettled
                .extend(unknown.map(|address| (*address, format!("{namespace}/{name}/{}", assigned.uid))));
        }
        unsettled
    }

    /// Whether an address that waits has its rows in the plan.
    fn answers(&self, address: IpAddr, remark: &str) -> bool {
        let is_assigned = || self.assigned.values().any(|assigned| assigned.addresses.contains(&address));
        let is_foreign = weft_policy::pending::WaitingPod::parse(remark).is_none();
        self.planner.is_planned(address) && (is_foreign || is_assigned())
    }
}

/// All objects of a snapshot, as if they were new.
fn everything(snapshot: &Snapshot) -> ChangeSet {
    ChangeSet {
        nodes: snapshot.of::<Node>().iter().map(|node| node.name.clone()).collect(),
        namespaces: snapshot.of::<Namespace>().iter().map(|it| it.name.to_string()).collect(),
        pods: snapshot.of::<Pod>().iter().map(|pod| pod.key.clone()).collect(),
        network_policies: snapshot.of::<NetworkPolicy>().iter().map(|it| it.key.clone()).collect(),
        cluster_network_policies: snapshot
            .of::<ClusterNetworkPolicy>()
            .iter()
            .map(|policy| policy.name.clone())
            .collect(),
        ..ChangeSet::default()
    }
}

/// The namespaces whose pods a policy may select.
fn guarded(policies: &Snapshot, cluster_policies: &Snapshot) -> GuardedNamespaces {
    let names = policies.of::<NetworkPolicy>().iter().map(|policy| policy.key.namespace.to_string());
    let every = !cluster_policies.of::<ClusterNetworkPolicy>().is_empty();
    GuardedNamespaces { every, names: names.collect() }
}

/// Says what this agent may not read. What is not seen is not taken for nothing: running pods keep their
/// rules, and no pod starts that a policy may select which was never seen.
fn tell_refusals(round: &Round<'_>, kinds: &BTreeSet<Kind>, report: &mut Report) {
    for kind in kinds {
        let Some(refusal) = round.refusal(*kind) else { continue };
        let problem =
            format!("network policies are not up to date, as this agent cannot read every {kind}: {refusal}");
        match round.objects(*kind) {
            Some(_) => report.problem(problem),
            None => report.blocking(format!("{problem}; no pod starts on this node until then")),
        }
    }
}

fn warning(problem: &Problem) -> Warning {
    let about = match problem.policy.clone() {
        PolicyName::Network(key) => ObjectKey::NetworkPolicy(key),
        PolicyName::Cluster(name) => ObjectKey::ClusterNetworkPolicy(name),
    };
    Warning { about, reason: "PolicyTooLarge", note: problem.to_string() }
}
