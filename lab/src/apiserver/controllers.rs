//! The controllers: what the cluster does by itself. Each is two pure functions: which objects a change
//! concerns, and what is to be done about one of them. The loop that feeds them is in `runner`.

mod daemon_sets;
mod deployments;
mod endpoint_slices;
mod endpoints;
mod garbage;
mod lost_pods;
mod namespaces;
mod own_service;
mod pod_cidrs;
mod pod_template;
mod replica_sets;
mod runner;
mod scheduler;
mod stateful_sets;

use serde_json::Value;

pub(crate) use self::runner::run;
use super::Config;
use super::history::Event;
use super::object::{self, Key, text};
use super::store::Store;

/// Something that a controller wants done.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Action {
    /// Create this object of that kind.
    Create(&'static str, Value),
    /// Change the object, but not its status.
    Update(&'static str, Value),
    /// Change its status alone.
    UpdateStatus(&'static str, Value),
    /// Put a pod on a node.
    Bind { pod: Key, node: String },
    /// Delete the object as a client would.
    Delete(Key),
    /// Delete the object without any grace.
    Remove(Key),
    /// Tell the operator something.
    Report(String),
}

/// A part of the cluster's own behaviour.
pub(crate) trait Controller: Send {
    /// The objects that must be looked at because of a change.
    fn concerns(&self, store: &Store, event: &Event) -> Vec<Key>;

    /// What is to be done about one of them, so that it becomes as it should be.
    fn decide(&self, store: &Store, key: &Key) -> Vec<Action>;
}

/// All controllers of the cluster.
pub(crate) fn all(config: &Config) -> Vec<Box<dyn Controller>> {
    vec![
        Box::new(pod_cidrs::PodCidrs::new(config)),
        Box::new(own_service::OwnService::new(config)),
        Box::new(namespaces::Namespaces),
        Box::new(garbage::Garbage),
        Box::new(lost_pods::LostPods),
        Box::new(deployments::Deployments),
        Box::new(replica_sets::ReplicaSets),
        Box::new(stateful_sets::StatefulSets),
        Box::new(daemon_sets::DaemonSets),
        Box::new(scheduler::Scheduler),
        Box::new(endpoint_slices::EndpointSlices),
        Box::new(endpoints::Endpoints),
    ]
}

/// The object itself, if it is of that kind, or else the owner of that kind that made it: what a controller
/// of owners must look at.
fn self_or_owner(event: &Event, plural: &'static str, kind: &str, owned: &str) -> Vec<Key> {
    let object = event.object();
    if event.plural == plural {
        return vec![Key::of(plural, object)];
    }
    let owner = object::controller(object).filter(|owner| event.plural == owned && owner["kind"] == kind);
    owner.map(|owner| Key::new(plural, object::namespace(object), text(&owner["name"]))).into_iter().collect()
}

/// The objects of that kind that this owner made.
fn made_by<'a>(store: &'a Store, owner: &Value, plural: &str) -> Vec<&'a Value> {
    let uid = object::uid(owner);
    let keys = store.dependents(uid).into_iter().filter(|key| key.plural == plural);
    let objects = keys.filter_map(|key| store.get(&key).map(|object| &**object));
    objects.filter(|object| object::is_controlled_by(object, uid)).collect()
}

/// Does the pod still count: neither ended nor on its way out?
fn is_active(pod: &Value) -> bool {
    let phase = text(&pod["status"]["phase"]);
    phase != "Succeeded" && phase != "Failed" && !object::is_terminating(pod)
}

/// Is the pod ready to serve?
fn is_ready(pod: &Value) -> bool {
    object::condition(pod, "Ready") == "True"
}

/// How many of the pods are ready.
fn ready_count(pods: &[&Value]) -> usize {
    pods.iter().filter(|pod| is_ready(pod)).count()
}

/// An update of the status, if there is anything to update.
fn status_update(plural: &'static str, old: &Value, status: Value) -> Option<Action> {
    if old["status"] == status {
        return None;
    }
    let mut object = old.clone();
    object["status"] = status;
    Some(Action::UpdateStatus(plural, object))
}
