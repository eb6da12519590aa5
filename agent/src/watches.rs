//! The cluster as the agent sees it: a watch for each kind of object that some subsystem needs, for as long
//! as it does.

use std::collections::{BTreeMap, BTreeSet};
use std::future::pending;

use futures::future::select_all;
use weft_cluster::{Watch, WatchFilter};
use weft_netlink::memory;
use weft_types::{ChangeSet, Kind, Snapshot};

/// The watches, and what they said since the last round.
pub(crate) struct Watches {
    client: kube::Client,
    watched: BTreeMap<Kind, Watched>,
}

struct Watched {
    watch: Watch,
    /// Before all are listed, there seem to be none: nothing must be concluded from that.
    is_listed: bool,
    /// All were listed since the last round.
    is_new: bool,
    changes: Vec<ChangeSet>,
}

/// What subsystems need of objects: labels and details of pods for policies; for load balancer addresses the
/// Services that have some, and the nodes of endpoints.
fn filter() -> WatchFilter {
    WatchFilter { service_proxy: true, load_balancers: true, ..WatchFilter::network_policies() }
}

impl Watches {
    /// Watches nothing yet.
    pub(crate) fn new(client: kube::Client) -> Watches {
        Watches { client, watched: BTreeMap::new() }
    }

    /// Watches these kinds from now on, and no others. Must be called within the runtime.
    pub(crate) fn want(&mut self, kinds: &BTreeSet<Kind>) {
        self.watched.retain(|kind, _| kinds.contains(kind));
        for &kind in kinds {
            self.watched.entry(kind).or_insert_with(|| Watched {
                watch: Watch::start(self.client.clone(), &filter(), &[kind]),
                is_listed: false,
                is_new: false,
                changes: Vec::new(),
            });
        }
    }

    /// Waits until something changed. Nothing is lost if the future is dropped.
    pub(crate) async fn changed(&mut self) {
        if self.watched.is_empty() {
            return pending().await;
        }
        let next = self.watched.values_mut().map(|watched| {
            Box::pin(async move {
                let changes = watched.watch.next().await;
                watched.is_new |= !std::mem::replace(&mut watched.is_listed, true);
                watched.changes.push(changes);
            })
        });
        select_all(next).await;
    }

    /// All objects of a kind; none before they are listed, and where nobody wants that kind.
    pub(crate) fn snapshot(&self, kind: Kind) -> Option<&Snapshot> {
        self.watched.get(&kind).filter(|watched| watched.is_listed).map(|watched| watched.watch.snapshot())
    }

    /// Why the API server does not let this agent read a kind.
    pub(crate) fn refusal(&self, kind: Kind) -> Option<String> {
        self.watched.get(&kind)?.watch.refusal(kind)
    }

    /// What changed of a kind since the last round, in order.
    pub(crate) fn changes(&self, kind: Kind) -> impl Iterator<Item = &ChangeSet> {
        self.watched.get(&kind).into_iter().flat_map(|watched| &watched.changes)
    }

    /// A round is over: what changed was acted upon.
    pub(crate) fn forget_changes(&mut self) {
        // A list is decoded beside what it becomes, and planned from the beginning: for a moment that takes
        // much more than what stays.
        if self.watched.values_mut().any(|watched| std::mem::take(&mut watched.is_new)) {
            memory::trim();
        }
        self.watched.values_mut().for_each(|watched| watched.changes = Vec::new());
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use tokio::time::{Duration, timeout};
    use weft_testkit::api_server::FakeApiServer;

    use super::*;

    const SOON: Duration = Duration::from_secs(30);

    fn node(name: &str) -> Value {
        json!({"metadata": {"name": name}})
    }

    fn service() -> Value {
        let spec = json!({"clusterIP": "10.96.0.7", "clusterIPs": ["10.96.0.7"], "ports": [{"port": 80}], "type": "LoadBalancer"});
        json!({"metadata": {"name": "web", "namespace": "default"}, "spec": spec})
    }

    async fn until(watches: &mut Watches, is_so: impl Fn(&Watches) -> bool) {
        timeout(SOON, async {
            while !is_so(watches) {
                watches.changed().await;
            }
        })
        .await
        .unwrap();
    }

    #[tokio::test]
    async fn a_kind_is_watched_while_somebody_needs_it_and_nobody_waits_for_it() {
        let server = FakeApiServer::start();
        server.put("/api/v1/nodes", node("node1"));
        server.put("/api/v1/services", service());
        let mut watches = Watches::new(weft_cluster::client(Some(server.kubeconfig())).await.unwrap());
        watches.want(&[Kind::Node].into());
        until(&mut watches, |watches| watches.snapshot(Kind::Node).is_some()).await;
        assert!(watches.snapshot(Kind::Service).is_none());
        watches.forget_changes();

        watches.want(&[Kind::Node, Kind::Service].into());
        assert!(watches.snapshot(Kind::Node).is_some(), "a kind more is no reason to list the others again");
        until(&mut watches, |watches| watches.snapshot(Kind::Service).is_some()).await;
        assert_eq!(watches.snapshot(Kind::Service).unwrap().services().count(), 1);
        assert_eq!((watches.changes(Kind::Service).count(), watches.changes(Kind::Node).count()), (1, 0));

        watches.want(&[Kind::Node].into());
        assert!(watches.snapshot(Kind::Service).is_none());
        server.put("/api/v1/nodes", node("node2"));
        until(&mut watches, |watches| watches.snapshot(Kind::Node).unwrap().nodes().count() == 2).await;
    }
}
