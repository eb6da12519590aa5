//! The sync loop over a data plane that has no kernel. What holds here holds for whatever carries out the
//! plans.

#![allow(clippy::unwrap_used, reason = "a test stops at the first thing that goes wrong")]

use std::sync::Arc;

use futures::FutureExt;
use tokio::sync::Notify;
use weft_proxy::dataplane::{Dataplane, ForeignChange, Outcome};
use weft_proxy::services::planner::Planner;
use weft_proxy::sync::Sync;
use weft_testkit::dataplane::{MemoryDataplane, MemoryKernel};
use weft_types::{
    ChangeSet, Endpoint, EndpointPort, EndpointSlice, NamespacedName, Node, Object, ObjectKey, Protocol,
    Service, ServiceKind, ServicePort, Snapshot,
};

/// A cluster, and the proxy of its node1.
struct Cluster {
    snapshot: Snapshot,
    changes: ChangeSet,
    sync: Sync,
    kernel: MemoryKernel,
}

impl Cluster {
    /// Two Services, which are in effect.
    fn new() -> Cluster {
        let kernel = MemoryKernel::default();
        let sync = Sync::new(Planner::new("node1"), Box::new(MemoryDataplane::new(&kernel)));
        let mut cluster =
            Cluster { snapshot: Snapshot::default(), changes: ChangeSet::default(), sync, kernel };
        let addresses = vec!["172.30.0.11".parse().unwrap()];
        cluster.put(Object::Node(Node { name: "node1".into(), addresses, ..Node::default() }));
        cluster.put(service("web", 1));
        cluster.put(service("api", 2));
        cluster.put(slice("web", &["10.244.1.2"]));
        assert_eq!(cluster.apply().unwrap(), Outcome::Full);
        assert!(cluster.sync.watch(&Arc::new(Notify::new())).unwrap());
        cluster
    }

    fn put(&mut self, object: Object) {
        self.snapshot.apply(object, &mut self.changes);
    }

    fn apply(&mut self) -> Result<Outcome, String> {
        let changes = std::mem::take(&mut self.changes);
        self.sync.apply(&self.snapshot, &changes).map_err(|error| error.to_string())
    }

    /// What is in effect of a Service.
    fn rows(&self, service: &str) -> Vec<String> {
        let text = self.kernel.text();
        let prefix = format!("shop/{service} ");
        text.lines().filter_map(|line| line.strip_prefix(&prefix)).map(str::to_owned).collect()
    }
}

fn name(name: &str) -> NamespacedName {
    NamespacedName::new("shop", name)
}

fn service(key: &str, last: u8) -> Object {
    let (protocol, port) = (Protocol::Tcp, 80.try_into().unwrap());
    let port = ServicePort { name: "http".into(), protocol, port, node_port: None };
    Object::Service(Service::new(
        name(key),
        ServiceKind::ClusterIp(vec![[10, 96, 0, last].into()]),
        vec![port],
    ))
}

fn slice(service: &str, endpoints: &[&str]) -> Object {
    let port = EndpointPort { name: "http".into(), protocol: Protocol::Tcp, port: 8080.try_into().unwrap() };
    Object::EndpointSlice(EndpointSlice {
        key: name(&format!("{service}-1")),
        service: name(service),
        ports: vec![port],
        endpoints: endpoints.iter().map(|ip| Endpoint::ready(ip.parse().unwrap())).collect(),
    })
}

#[test]
fn changes_are_committed_and_nothing_is_where_nothing_changed() {
    let mut cluster = Cluster::new();
    assert_eq!(cluster.rows("web"), ["http 10.96.0.1:80 (tcp) -> 10.244.1.2:8080"]);
    assert_eq!(cluster.rows("api"), ["http 10.96.0.2:80 (tcp) -> reject"]);
    assert_eq!(cluster.kernel.commits(), 1);
    cluster.put(slice("api", &["10.244.2.3", "10.244.2.2"]));
    assert_eq!(cluster.apply().unwrap(), Outcome::Partial);
    assert_eq!(cluster.rows("api"), ["http 10.96.0.2:80 (tcp) -> 10.244.2.2:8080 10.244.2.3:8080"]);
    cluster.put(slice("api", &["10.244.2.2", "10.244.2.3"]));
    assert_eq!(cluster.apply().unwrap(), Outcome::Partial);
    assert_eq!(cluster.apply().unwrap(), Outcome::Partial);
    assert_eq!(cluster.kernel.commits(), 2, "the order of endpoints in a slice means nothing");
    cluster.snapshot.delete(&ObjectKey::Service(name("web")), &mut cluster.changes);
    assert_eq!(cluster.apply().unwrap(), Outcome::Partial);
    assert_eq!(cluster.rows("web"), [""; 0]);
    assert_eq!((cluster.rows("api").len(), cluster.kernel.commits()), (1, 3));
}

#[test]
fn a_refused_commit_is_made_up_for_at_once_or_with_the_next_call() {
    let mut cluster = Cluster::new();
    cluster.kernel.refuse(1);
    cluster.put(slice("web", &["10.244.1.3"]));
    assert_eq!(cluster.apply().unwrap(), Outcome::Full);
    assert_eq!(cluster.rows("web"), ["http 10.96.0.1:80 (tcp) -> 10.244.1.3:8080"]);
    cluster.kernel.refuse(2);
    cluster.put(slice("web", &["10.244.1.4"]));
    assert!(cluster.apply().unwrap_err().contains("refuses"));
    assert_eq!(cluster.rows("web"), ["http 10.96.0.1:80 (tcp) -> 10.244.1.3:8080"], "all or nothing");
    assert_eq!(cluster.apply().unwrap(), Outcome::Full, "for no change at all");
    assert_eq!(cluster.rows("web"), ["http 10.96.0.1:80 (tcp) -> 10.244.1.4:8080"]);
    cluster.put(slice("web", &["10.244.1.5"]));
    assert_eq!(cluster.apply().unwrap(), Outcome::Partial, "in step again");
}

#[test]
fn what_another_program_changes_is_noticed_and_put_back() {
    let mut cluster = Cluster::new();
    let before = cluster.kernel.text();
    assert_eq!(cluster.sync.foreign_change().now_or_never(), None, "our own changes are none");
    cluster.kernel.flush("nft");
    let Some(ForeignChange::By(author)) = cluster.sync.foreign_change().now_or_never() else {
        panic!("it was not noticed")
    };
    assert_eq!(author.to_string(), "nft (process 7)");
    assert_eq!(cluster.apply().unwrap(), Outcome::Full);
    assert_eq!(cluster.kernel.text(), before);
    assert_eq!(cluster.sync.foreign_change().now_or_never(), None);
}

#[test]
fn what_changed_while_nobody_watched_is_put_back_once_somebody_does() {
    let mut cluster = Cluster::new();
    let before = cluster.kernel.text();
    cluster.kernel.flush("nft");
    assert!(!cluster.sync.watch(&Arc::new(Notify::new())).unwrap());
    assert_eq!(cluster.apply().unwrap(), Outcome::Full);
    assert_eq!(cluster.kernel.text(), before);
}

#[test]
fn what_is_printed_is_what_comes_into_effect_and_a_clean_up_leaves_nothing() {
    let mut cluster = Cluster::new();
    cluster.put(slice("api", &["10.244.2.2"]));
    cluster.apply().unwrap();
    let kernel = MemoryKernel::default();
    let mut dataplane = MemoryDataplane::new(&kernel);
    Planner::new("node1").start(&cluster.snapshot, &mut dataplane);
    assert_eq!(dataplane.render(), cluster.kernel.text());
    assert_eq!(kernel.text(), "", "nothing was committed");
    dataplane.resync().unwrap();
    assert_eq!(kernel.text(), cluster.kernel.text());
    dataplane.clean_up().unwrap();
    assert_eq!(kernel.text(), "");
}
