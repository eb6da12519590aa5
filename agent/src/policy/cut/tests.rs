//! The thread with a table of connections that is played, and that goes on only when the test lets it.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use prometheus_client::registry::Registry;
use weft_netlink::conntrack::{CtStatus, Tuple};
use weft_policy::plan::Planner;
use weft_types::{LabelSelector, NamespacedName, NetworkPolicy, Pod, PodDetails};

use super::*;
use crate::policy::metrics::Metrics;

const SOON: Duration = Duration::from_secs(30);

/// Connections, each of which is looked at when the test says so.
struct Played {
    flows: Vec<Flow>,
    /// Tells of what is about to be looked at.
    looks: Sender<&'static str>,
    go: Receiver<Go>,
    ended: Sender<SocketAddr>,
}

enum Go {
    On,
    Fail,
}

impl Connections for Played {
    fn count(&mut self) -> weft_netlink::Result<usize> {
        Ok(self.flows.len())
    }

    fn end(
        &mut self,
        family: Family,
        filter: &Filter,
        is_denied: &dyn Fn(&Flow) -> bool,
    ) -> weft_netlink::Result<usize> {
        let next = |what| {
            self.looks.send(what).unwrap();
            match self.go.recv().unwrap() {
                Go::On => Ok(()),
                Go::Fail => Err(weft_netlink::Error::Malformed("the table".to_owned())),
            }
        };
        next("read")?;
        let is_read = |flow: &Flow| {
            Family::of(flow.original.source.ip()) == family && filter.passes(flow) && is_denied(flow)
        };
        let read: Vec<Flow> = self.flows.iter().filter(|flow| is_read(flow)).cloned().collect();
        next("end")?;
        let gone: Vec<Flow> = read.into_iter().filter(is_denied).collect();
        self.flows.retain(|flow| !gone.contains(flow));
        gone.iter().for_each(|flow| self.ended.send(flow.original.source).unwrap());
        Ok(gone.len())
    }
}

/// A cutter, and the strings that its table hangs on.
struct Stage {
    cutter: Cutter,
    /// The planner's.
    plan: RefCell<Arc<PolicyPlan>>,
    looks: Receiver<&'static str>,
    go: Sender<Go>,
    ended: Receiver<SocketAddr>,
}

impl Stage {
    fn new(flows: Vec<Flow>) -> Stage {
        let ((looking, looks), (go, going), (ending, ended)) = (channel(), channel(), channel());
        let played = Played { flows, looks: looking, go: going, ended: ending };
        let metrics = Metrics::new(&mut Registry::default());
        let cutter = Cutter::start(played, metrics.cuts).unwrap();
        Stage { cutter, plan: RefCell::default(), looks, go, ended }
    }

    fn judge(&self, plan: Arc<PolicyPlan>, concerned: Concerned) {
        self.cutter.judge(&plan, concerned);
        self.plan.replace(plan);
    }

    fn is_about_to(&self, what: &str) {
        assert_eq!(self.looks.recv_timeout(SOON).unwrap(), what);
    }

    fn go(&self, go: Go) {
        self.go.send(go).unwrap();
    }

    /// Reads and ends.
    fn pass(&self) {
        for what in ["read", "end"] {
            self.is_about_to(what);
            self.go(Go::On);
        }
    }

    /// Lets it go on from where it waits, as [`Stage::rest`].
    fn go_on(&self) -> Vec<SocketAddr> {
        self.go(Go::On);
        self.rest()
    }

    /// Lets it go on until it is idle, and tells what was ended since the last call.
    fn rest(&self) -> Vec<SocketAddr> {
        while self.cutter.0.state().is_busy() {
            if self.looks.recv_timeout(Duration::from_millis(1)).is_ok() {
                self.go(Go::On);
            }
        }
        self.ended.try_iter().collect()
    }
}

/// A plan by which nobody enters these pods of this node.
fn denying(pods: &[u8]) -> Arc<PolicyPlan> {
    let mut planner = Planner::new("here");
    for last in pods {
        let key = NamespacedName::new("shop", format!("web{last}"));
        let pod = Pod {
            key: key.clone(),
            addresses: [ip(*last)].into_iter().collect(),
            searches: true,
            labels: Default::default(),
            details: Some(Box::new(PodDetails { node: Some("here".into()), ..PodDetails::default() })),
        };
        planner.set_pod(&key, Some(&pod));
    }
    let key = NamespacedName::new("shop", "closed");
    let (pods, ingress) = (LabelSelector::default(), Some(Default::default()));
    planner.set_network_policy(&key, Some(&NetworkPolicy { key: key.clone(), pods, ingress, egress: None }));
    planner.commit();
    planner.plan().clone()
}

fn ip(last: u8) -> std::net::IpAddr {
    [10, 244, 1, last].into()
}

fn about(pods: &[u8]) -> Concerned {
    Concerned::Addresses(pods.iter().copied().map(ip).collect())
}

fn client(last: u8) -> SocketAddr {
    (ip(100), 4000 + u16::from(last)).into()
}

/// A connection of a client to that pod.
fn flow(last: u8) -> Flow {
    let (client, server) = (client(last), (ip(last), 80).into());
    Flow {
        id: last.into(),
        zone: 0,
        protocol: 6,
        original: Tuple { source: client, destination: server },
        reply: Tuple { source: server, destination: client },
        status: CtStatus::SEEN_REPLY,
        tcp_state: None,
    }
}

#[test]
fn what_a_change_denies_is_ended_and_the_rest_goes_on() {
    let stage = Stage::new([1, 2].map(flow).to_vec());
    stage.judge(denying(&[1]), about(&[1, 2]));
    assert_eq!(stage.rest(), [client(1)]);
    stage.judge(denying(&[1, 2]), Concerned::All);
    assert_eq!(stage.rest(), [client(2)]);
}

/// Were it otherwise, the second call would wait for ever.
#[test]
fn changes_do_not_wait_while_connections_are_judged_and_are_then_judged_together() {
    let stage = Stage::new([1, 2, 3].map(flow).to_vec());
    stage.judge(denying(&[1]), about(&[1]));
    stage.is_about_to("read");
    stage.judge(denying(&[1, 2]), about(&[2]));
    stage.judge(denying(&[1, 2, 3]), about(&[3]));
    stage.go(Go::On);
    stage.is_about_to("end");
    stage.go(Go::On);
    // What changed meanwhile is read for at once.
    stage.pass();
    assert_eq!(stage.rest(), [1, 2, 3].map(client));
    assert!(stage.looks.try_recv().is_err(), "all is judged");
}

#[test]
fn a_plan_that_is_being_changed_is_waited_for_and_nothing_is_copied() {
    let stage = Stage::new(vec![flow(1)]);
    stage.judge(denying(&[1]), Concerned::All);
    stage.is_about_to("read");
    let mut plan = stage.plan.take();
    assert!(Arc::get_mut(&mut plan).is_none() && Arc::strong_count(&plan) == 1, "it is only known, not held");
    // As where it is changed in place: it moves.
    let plan = Arc::new(Arc::unwrap_or_clone(plan));
    stage.go(Go::On);
    (0..3).for_each(|_| {
        stage.looks.recv_timeout(SOON).unwrap();
        stage.go(Go::On);
    });
    stage.judge(plan, Concerned::default());
    assert_eq!(stage.rest(), [client(1)]);
}

#[test]
fn nothing_is_denied_once_there_is_no_policy() {
    let stage = Stage::new(vec![flow(1)]);
    stage.judge(denying(&[1]), Concerned::All);
    stage.is_about_to("read");
    stage.cutter.forget();
    stage.plan.take();
    assert_eq!(stage.go_on(), []);
}

#[test]
fn a_connection_that_a_newer_plan_allows_goes_on() {
    let stage = Stage::new(vec![flow(1)]);
    stage.judge(denying(&[1]), Concerned::All);
    stage.is_about_to("read");
    stage.go(Go::On);
    stage.is_about_to("end");
    stage.judge(Arc::default(), Concerned::default());
    assert_eq!(stage.go_on(), []);
}

#[test]
fn a_connection_that_a_newer_plan_denies_is_ended_though_it_was_judged_before() {
    let stage = Stage::new([1, 2].map(flow).to_vec());
    stage.judge(denying(&[1]), Concerned::All);
    stage.is_about_to("read");
    stage.go(Go::On);
    stage.is_about_to("end");
    stage.judge(denying(&[1, 2]), about(&[2]));
    assert_eq!(stage.go_on(), [1, 2].map(client));
}

#[test]
fn a_table_that_cannot_be_read_is_told_of_and_read_again() {
    let stage = Stage::new(vec![flow(1)]);
    stage.judge(denying(&[1]), Concerned::All);
    stage.is_about_to("read");
    stage.go(Go::Fail);
    stage.is_about_to("read");
    assert!(stage.cutter.problem().unwrap().contains("may go on"));
    assert_eq!(stage.go_on(), [client(1)]);
    assert_eq!(stage.cutter.problem(), None);
}
