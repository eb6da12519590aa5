//! What the one agent does that gives addresses: it watches, decides, writes and tells.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::future::pending;
use std::net::IpAddr;
use std::time::Duration;

use futures::stream::{StreamExt, iter};
use tokio::time::{Instant, sleep_until};
use tracing::info;
use weft_announce::allocation::{Allocator, Cluster, Decisions, Pools, Status};
use weft_cluster::write::{Events, NotWritten, Recorder, Warning, set_addresses};
use weft_cluster::{Watch, WatchFilter};
use weft_types::{
    ChangeSet, IpAddressPool, Kind, Labels, Namespace, NamespacedName, Node, ObjectKey, Service, Snapshot,
};

use super::metrics::Metrics;
use super::{Problem, Settings};

/// How many statuses are on their way to the API server at a time.
const WRITES: usize = 8;
/// How long to wait before what could not be written is tried again.
const PAUSE: Duration = Duration::from_secs(2);

/// Gives addresses.
pub(super) struct Leader {
    client: kube::Client,
    settings: Settings,
    metrics: Metrics,
    problem: Problem,
    events: Events,
}

/// What is remembered while this agent gives addresses.
#[derive(Default)]
struct Term {
    allocator: Allocator,
    /// What was written, and for which versions of the Services: until the watch shows it, it is not written
    /// again.
    written: BTreeMap<NamespacedName, Status>,
    /// What is wrong with Services and pools as they were read.
    malformed: BTreeMap<ObjectKey, String>,
    /// When what could not be written is tried again.
    retry: Option<Instant>,
}

impl Leader {
    pub(super) fn new(
        client: kube::Client,
        node: &str,
        settings: Settings,
        metrics: Metrics,
        problem: Problem,
    ) -> Leader {
        let recorder = Recorder::new(client.clone(), "weft-agent", node);
        Leader { events: Events::start(recorder), client, settings, metrics, problem }
    }

    /// Gives addresses, for as long as it is let.
    pub(super) async fn lead(&mut self) -> Infallible {
        let mut kinds = vec![Kind::Service, Kind::Node];
        if self.settings.reads_pools {
            kinds.extend([Kind::IpAddressPool, Kind::Namespace]);
        }
        // A new watch begins with what the cluster has now: another agent may have written until a moment ago.
        let mut watch = Watch::start(self.client.clone(), &WatchFilter::load_balancers(), &kinds);
        let mut term = Term::default();
        loop {
            tokio::select! {
                changes = watch.next() => term.note(&changes, watch.snapshot()),
                () = until(term.retry) => {}
            }
            self.decide(&mut term, watch.snapshot()).await;
        }
    }

    /// Another agent gives addresses.
    pub(super) fn retire(&mut self) {
        self.metrics.clear();
        self.problem.set(None);
    }

    async fn decide(&mut self, term: &mut Term, snapshot: &Snapshot) {
        let pools = Pools::new(&self.settings.pool, snapshot.of::<IpAddressPool>().iter());
        let services: Vec<&Service> = snapshot.services().collect();
        let namespaces: BTreeMap<String, Labels> =
            snapshot.of::<Namespace>().iter().map(|it| (it.name.to_string(), it.labels.clone())).collect();
        let decisions = term.allocator.decide(&Cluster {
            services: &services,
            unreadable: &term.unreadable(),
            pools: &pools,
            namespaces: &namespaces,
            class: self.settings.class.as_deref(),
            reserved: &reserved(snapshot),
        });
        self.metrics.set(&decisions);
        self.events.tell(warnings(&decisions, &term.malformed));
        self.write(term, decisions.statuses).await;
    }

    /// Writes what is not written yet.
    async fn write(&mut self, term: &mut Term, statuses: Vec<Status>) {
        let wanted: BTreeSet<NamespacedName> = statuses.iter().map(|status| status.service.clone()).collect();
        term.written.retain(|service, _| wanted.contains(service));
        let new: Vec<Status> =
            statuses.into_iter().filter(|status| term.written.get(&status.service) != Some(status)).collect();
        let client = &self.client;
        let writes = iter(new).map(|status| async {
            let Status { service, version, addresses, .. } = &status;
            let written = set_addresses(client, service, version, addresses).await;
            (status, written)
        });
        let results: Vec<(Status, Result<(), NotWritten>)> = writes.buffer_unordered(WRITES).collect().await;
        let mut problem = None;
        for (status, written) in results {
            match written {
                Ok(()) => {
                    self.tell(&status);
                    term.written.insert(status.service.clone(), status);
                }
                // The watch brings what is so by now.
                Err(NotWritten::Stale) => {}
                Err(NotWritten::Problem(why)) => {
                    let service = status.service;
                    problem =
                        Some(format!("cannot write the addresses of Service {service}: {why}; trying again"));
                }
            }
        }
        term.retry = problem.is_some().then(|| Instant::now() + PAUSE);
        self.problem.set(problem);
    }

    /// Says what a Service has now.
    fn tell(&self, status: &Status) {
        let Status { service, addresses, pools, .. } = status;
        let addresses: Vec<String> = addresses.iter().map(ToString::to_string).collect();
        let (addresses, pools) = (addresses.join(" and "), pools.join(" and "));
        if addresses.is_empty() {
            info!(%service, "took its load balancer addresses back");
            return;
        }
        info!(%service, %addresses, %pools, "gave it its load balancer addresses");
        let note = match pools.is_empty() {
            true => format!("its addresses are {addresses}"),
            false => format!("its addresses are {addresses}, of the pool {pools}"),
        };
        let about = ObjectKey::Service(service.clone());
        self.events.inform(Warning { about, reason: "IPAllocated", note });
    }
}

impl Term {
    /// Remembers what cannot be used as it is.
    fn note(&mut self, changes: &ChangeSet, snapshot: &Snapshot) {
        let services = changes.services.iter().cloned().map(ObjectKey::Service);
        let pools = changes.ip_address_pools.iter().cloned().map(ObjectKey::IpAddressPool);
        services.chain(pools).for_each(|key| drop(self.malformed.remove(&key)));
        for invalid in &changes.invalid {
            let is_of_concern =
                |key: &&ObjectKey| matches!(key, ObjectKey::Service(_) | ObjectKey::IpAddressPool(_));
            if let Some(key) = invalid.key.as_ref().filter(is_of_concern) {
                self.malformed.insert(key.clone(), invalid.fault.clone());
            }
        }
        // What of a Service can be used is used, and the proxies tell of the rest.
        self.malformed.retain(|key, _| match key {
            ObjectKey::Service(name) => snapshot.service(name).is_none(),
            _ => true,
        });
    }

    /// The Services that are there, but cannot be read.
    fn unreadable(&self) -> BTreeSet<NamespacedName> {
        let services = self.malformed.keys().filter_map(|key| match key {
            ObjectKey::Service(name) => Some(name.clone()),
            _ => None,
        });
        services.collect()
    }
}

/// What users are told of.
fn warnings(decisions: &Decisions, malformed: &BTreeMap<ObjectKey, String>) -> BTreeSet<Warning> {
    let of_services = decisions.problems.iter().map(|problem| Warning {
        about: ObjectKey::Service(problem.service.clone()),
        reason: problem.kind.reason(),
        note: problem.note.clone(),
    });
    let of_pools = malformed.iter().filter(|(key, _)| matches!(key, ObjectKey::IpAddressPool(_)));
    let of_pools =
        of_pools.map(|(key, fault)| Warning { about: key.clone(), reason: "Malformed", note: fault.clone() });
    of_services.chain(of_pools).collect()
}

/// The addresses of Nodes: a Service that had one would cut its node off.
fn reserved(snapshot: &Snapshot) -> BTreeMap<IpAddr, String> {
    let of = |node: &Node| {
        let owner = format!("Node {}", node.name);
        node.all_addresses.iter().map(|address| (*address, owner.clone())).collect::<Vec<_>>()
    };
    snapshot.nodes().flat_map(of).collect()
}

async fn until(moment: Option<Instant>) {
    match moment {
        Some(moment) => sleep_until(moment).await,
        None => pending().await,
    }
}
