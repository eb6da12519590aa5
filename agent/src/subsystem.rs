//! What the daemon knows of each of its parts, and what each is told.
//!
//! A subsystem is one concern of the node: it says what it watches, decides by a pure planner (a `plan`
//! file), brings the kernel or a file to that plan, and reports. The daemon calls them in one order, round by
//! round, whenever one of their causes comes up: those that asked for what changed where that is known
//! ([`Cause::Asked`]), all of them otherwise. None calls another. What several rely on is planned once for
//! all ([`NodePlan`]).
//!
//! It is a trait, as the daemon holds them in one list: a new subsystem is its own folder and one line there.
//! Every method but two has a default that does nothing, so that a subsystem writes down only what it has.
//! Reconciling is synchronous, as the kernel is asked synchronously and answers within microseconds; what
//! must wait for others (the API server, a runtime, probes) runs in a task that [`Subsystem::start`] spawns,
//! and wakes the daemon by [`Wake`].

use std::collections::BTreeSet;
use std::fmt::Display;
use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use tokio::sync::{Notify, mpsc, watch};
use weft_netlink::nflog;
use weft_netlink::notifications::Notified;
use weft_nftables::Announcement;
use weft_policy::plan::Packet;
use weft_policy::report::Report as PolicyReport;
use weft_types::{ChangeSet, Kind, Node, Snapshot};

use crate::health::Status;
use crate::plan::NodePlan;
use crate::uplink::Uplink;
use crate::watches::Watches;
use crate::{Error, Result};

/// One concern of the node.
pub(crate) trait Subsystem {
    /// Its name in messages.
    fn name(&self) -> &'static str;

    /// Starts what runs beside the rounds. Called once, within the runtime, before the first round.
    ///
    /// # Errors
    /// Where the agent should not go on without it.
    fn start(&mut self, _environment: &Environment) -> Result<()> {
        Ok(())
    }

    /// The kinds of object that it needs at present, besides Nodes. Asked before each round: a kind is
    /// watched as long as some subsystem needs it.
    fn kinds(&self) -> BTreeSet<Kind> {
        BTreeSet::new()
    }

    /// A kind without which nothing may be concluded: no round begins before all of it is listed.
    fn essential(&self) -> Option<Kind> {
        None
    }

    /// The Nodes with the ranges that their pods get addresses of, where these are not those that the objects
    /// say. Asked first in each round.
    ///
    /// # Errors
    /// Where that cannot be found out: then there is no plan in this round.
    fn allocate(&mut self, _cluster: &Watches) -> Result<Option<Snapshot>> {
        Ok(None)
    }

    /// The names of the tables of nf_tables whose changes it wants to hear of ([`Round::kernel`]). Asked
    /// once. A change of one calls for a round at once.
    fn tables(&self) -> &'static [&'static str] {
        &[]
    }

    /// What this node does with a connection that begins with that packet, where the subsystem has a say in
    /// it.
    fn explain(&mut self, _: &Packet) -> Option<Result<PolicyReport>> {
        None
    }

    /// Rules of the kernel denied these packets, and were to tell of them ([`Environment::denied`]).
    fn denied(&mut self, _: &[nflog::Packet]) {}

    /// What it has to say over HTTP, beside its part of `/healthz`. Asked once.
    fn endpoints(&self) -> Router {
        Router::new()
    }

    /// When it needs a round at the latest, if nothing else calls for one.
    fn due(&self) -> Option<Instant> {
        None
    }

    /// Adds what it knows and the node's plan depends on.
    ///
    /// # Errors
    /// Where it cannot be found out: then there is no plan in this round.
    fn observe(&mut self, _node: Option<&Node>, _uplink: &mut Uplink) -> Result<()> {
        Ok(())
    }

    /// Brings the machine to the plan, and reports.
    fn reconcile(&mut self, round: &Round<'_>, report: &mut Report);

    /// Ends what must not outlive the agent. What pods rely on stays: they go on without an agent.
    fn stop(&mut self) {}

    /// Takes away everything that it set up, for `--cleanup`. Never called after [`Subsystem::start`].
    fn clean_up(&mut self) -> Vec<Error> {
        Vec::new()
    }
}

/// What a subsystem may need from outside of its rounds.
pub(crate) struct Environment {
    /// To speak with the API server.
    pub(crate) client: kube::Client,
    /// This machine's Node.
    pub(crate) node: String,
    /// The state of the node after each round.
    pub(crate) status: watch::Receiver<Status>,
    /// To ask for a round.
    pub(crate) wake: Wake,
    /// Where packets go that rules denied, for [`Subsystem::denied`].
    pub(crate) denied: mpsc::Sender<Vec<nflog::Packet>>,
}

/// Why there is a round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cause {
    /// Objects or tables changed that subsystems asked for: it is about those subsystems.
    Asked,
    /// Anything may have changed.
    Anything,
}

/// Asks the daemon for a round, from any task or thread. Asking again before it came counts as once.
#[derive(Clone, Debug, Default)]
pub(crate) struct Wake(Arc<Notify>);

/// What there is to act upon.
pub(crate) struct Round<'a> {
    /// What the node needs; none where that is not known, which is reported: then everything stays.
    pub(crate) plan: Option<&'a NodePlan>,
    /// The cluster, as far as it is watched.
    pub(crate) cluster: &'a Watches,
    /// The Nodes, with the ranges that their pods get addresses of ([`Subsystem::allocate`]).
    pub(crate) nodes: Option<&'a Snapshot>,
    /// What the kernel said since the last round.
    pub(crate) kernel: KernelChanges,
}

/// What the kernel told of the tables that subsystems declare. Anything else is looked at in every round
/// anyway.
#[derive(Clone, Debug, Default)]
pub(crate) struct KernelChanges {
    /// The transactions, in order.
    pub(crate) transactions: Vec<Announcement>,
    /// Some may have been missed: anything may have changed.
    pub(crate) is_unknown: bool,
}

/// What a round came to. Ends in `/readyz`, `/healthz`, the log and the metrics.
#[derive(Debug, Default)]
pub(crate) struct Report {
    problems: BTreeSet<String>,
    pending_pods: BTreeSet<String>,
    announced: BTreeSet<String>,
    is_blocked: bool,
    /// Those before had found that no pod can start.
    began_blocked: bool,
}

impl Wake {
    /// Asks for a round.
    pub(crate) fn wake(&self) {
        self.0.notify_one();
    }

    /// Waits until somebody asked.
    pub(crate) async fn woken(&self) {
        self.0.notified().await;
    }
}

impl KernelChanges {
    /// Anything may have changed.
    pub(crate) fn unknown() -> KernelChanges {
        KernelChanges { transactions: Vec::new(), is_unknown: true }
    }

    /// Takes in what came. Returns whether some table that a subsystem declares may have changed.
    pub(crate) fn take(&mut self, notified: Notified<Announcement>) -> bool {
        match notified {
            Notified::Events(mut events) => {
                events.retain(|event| !event.tables.is_empty());
                let changed = !events.is_empty();
                self.transactions.append(&mut events);
                changed
            }
            Notified::Overrun => {
                self.is_unknown = true;
                true
            }
        }
    }

    /// Takes in what came later.
    pub(crate) fn merge(&mut self, mut later: KernelChanges) {
        self.transactions.append(&mut later.transactions);
        self.is_unknown |= later.is_unknown;
    }

    /// Whether tables of that name may have changed.
    pub(crate) fn touched(&self, table: &str) -> bool {
        self.is_unknown || self.transactions.iter().any(|one| one.tables.iter().any(|name| **name == *table))
    }
}

impl Round<'_> {
    /// Whether something happened that the subsystem asked for.
    pub(crate) fn concerns(&self, subsystem: &dyn Subsystem) -> bool {
        subsystem.kinds().into_iter().any(|kind| self.changes(kind).next().is_some())
            || subsystem.tables().iter().any(|table| self.kernel.touched(table))
    }

    /// The objects of a kind, once all of them are listed. Nodes have the ranges that their pods get addresses
    /// of, whoever gave them, and are not known while these are not.
    pub(crate) fn objects(&self, kind: Kind) -> Option<&Snapshot> {
        if kind == Kind::Node { self.nodes } else { self.cluster.snapshot(kind) }
    }

    /// Why the API server does not let this agent read a kind.
    pub(crate) fn refusal(&self, kind: Kind) -> Option<String> {
        self.cluster.refusal(kind)
    }

    /// What changed of a kind since the last round.
    pub(crate) fn changes(&self, kind: Kind) -> impl Iterator<Item = &ChangeSet> {
        self.cluster.changes(kind)
    }
}

impl Report {
    /// The report of a subsystem whose predecessors came to `before`.
    pub(crate) fn after(before: &Report) -> Report {
        Report { began_blocked: before.is_blocked(), ..Report::default() }
    }

    /// Whether a report after `before` may come to something else than this one.
    pub(crate) fn depends_on(&self, before: &Report) -> bool {
        self.began_blocked != before.is_blocked()
    }

    /// Takes in what another part came to.
    pub(crate) fn add(&mut self, part: &Report) {
        self.problems.extend(part.problems.iter().cloned());
        self.pending_pods.extend(part.pending_pods.iter().cloned());
        self.announced.extend(part.announced.iter().cloned());
        self.is_blocked |= part.is_blocked;
    }

    /// Something is wrong. Pods can start all the same.
    pub(crate) fn problem(&mut self, problem: impl Display) {
        self.problems.insert(problem.to_string());
    }

    /// All of these are wrong. Pods can start all the same.
    pub(crate) fn problems(&mut self, problems: impl IntoIterator<Item = impl Display>) {
        problems.into_iter().for_each(|problem| self.problem(problem));
    }

    /// A pod waits for its policies. That is no problem yet.
    pub(crate) fn pending_pod(&mut self, pod: impl Display) {
        self.pending_pods.insert(pod.to_string());
    }

    /// This node answers for a load balancer address.
    pub(crate) fn announces(&mut self, address: impl Display) {
        self.announced.insert(address.to_string());
    }

    /// Something is wrong, and no pod can start until it is mended.
    pub(crate) fn blocking(&mut self, problem: impl Display) {
        self.problem(problem);
        self.block();
    }

    /// No pod can start, for a reason that is reported already.
    pub(crate) fn block(&mut self) {
        self.is_blocked = true;
    }

    /// Whether no pod can start, as far as it is known by now.
    pub(crate) fn is_blocked(&self) -> bool {
        self.is_blocked || self.began_blocked
    }

    /// The state of the node.
    pub(crate) fn into_status(self) -> Status {
        let is_ready = !self.is_blocked();
        let Report { problems, pending_pods, announced, .. } = self;
        Status { is_ready, problems, pending_pods, announced }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use tokio::time::{Duration, timeout};
    use weft_testkit::api_server::FakeApiServer;

    use super::*;

    /// Wants Pods, and to hear of a table.
    struct OfPods;

    impl Subsystem for OfPods {
        fn name(&self) -> &'static str {
            "pods"
        }

        fn kinds(&self) -> BTreeSet<Kind> {
            [Kind::Pod].into()
        }

        fn tables(&self) -> &'static [&'static str] {
            &["weft-policy"]
        }

        fn reconcile(&mut self, _: &Round<'_>, _: &mut Report) {}
    }

    /// Wants nothing but Nodes.
    struct OfNodes;

    impl Subsystem for OfNodes {
        fn name(&self) -> &'static str {
            "nodes"
        }

        fn reconcile(&mut self, _: &Round<'_>, _: &mut Report) {}
    }

    #[test]
    fn a_node_is_ready_unless_something_blocks_it() {
        let mut report = Report::default();
        report.problem("a route is missing");
        assert!(!report.is_blocked());
        report.blocking("the plugin is missing");
        let status = report.into_status();
        assert_eq!((status.is_ready, status.problems.len()), (false, 2));
    }

    #[test]
    fn what_a_part_said_stands_until_it_says_something_else() {
        let mut first = Report::default();
        first.blocking("there is no bridge");
        let mut second = Report::after(&first);
        assert!(second.is_blocked(), "who installs the CNI configuration must know it");
        second.problem("no plugin");
        let mut all = Report::default();
        all.add(&first);
        all.add(&second);
        assert!(!second.depends_on(&first) && second.depends_on(&Report::default()));
        assert_eq!(all.into_status().problems.len(), 2);
        let mut mended = Report::default();
        mended.add(&second);
        assert!(mended.into_status().is_ready, "only the first had found that no pod can start");
    }

    #[tokio::test]
    async fn a_round_about_pods_or_a_table_is_for_those_who_asked_for_them() {
        let server = FakeApiServer::start();
        server.put("/api/v1/nodes", json!({"metadata": {"name": "node1"}}));
        server.put("/api/v1/pods", json!({"metadata": {"name": "web", "namespace": "shop"}}));
        let mut cluster = Watches::new(weft_cluster::client(Some(server.kubeconfig())).await.unwrap());
        cluster.want(&[Kind::Node, Kind::Pod].into());
        let listed = async {
            while [Kind::Node, Kind::Pod].iter().any(|kind| cluster.snapshot(*kind).is_none()) {
                cluster.changed().await;
            }
        };
        timeout(Duration::from_secs(30), listed).await.unwrap();
        let concerned = |cluster: &Watches, kernel: KernelChanges| {
            let round = Round { plan: None, cluster, nodes: None, kernel };
            [round.concerns(&OfPods), round.concerns(&OfNodes)]
        };
        assert_eq!(concerned(&cluster, KernelChanges::default()), [true, false], "Pods were listed");
        cluster.forget_changes();
        assert_eq!(concerned(&cluster, KernelChanges::default()), [false, false]);
        assert_eq!(
            concerned(&cluster, KernelChanges::unknown()),
            [true, false],
            "the table may have changed"
        );
    }
}
