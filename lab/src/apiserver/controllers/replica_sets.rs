//! ReplicaSets: as many pods of one template as they ask for.

use std::cmp::Reverse;

use serde_json::{Value, json};

use super::{
    Action, Controller, is_active, is_ready, made_by, pod_template, ready_count, self_or_owner, status_update,
};
use crate::apiserver::history::Event;
use crate::apiserver::object::{Key, is_terminating, name, text};
use crate::apiserver::store::Store;

pub(super) struct ReplicaSets;

impl Controller for ReplicaSets {
    fn concerns(&self, _: &Store, event: &Event) -> Vec<Key> {
        self_or_owner(event, "replicasets", "ReplicaSet", "pods")
    }

    fn decide(&self, store: &Store, key: &Key) -> Vec<Action> {
        let Some(set) = store.get(key) else { return Vec::new() };
        let pods: Vec<&Value> =
            made_by(store, set, "pods").into_iter().filter(|pod| is_active(pod)).collect();
        let mut actions = if is_terminating(set) { Vec::new() } else { scale(set, &pods) };
        actions.extend(status_update("replicasets", set, status(set, &pods)));
        actions
    }
}

/// Creates what is missing, or deletes what is too much: pods that serve last.
fn scale(set: &Value, pods: &[&Value]) -> Vec<Action> {
    let wanted = set["spec"]["replicas"].as_u64().and_then(|count| usize::try_from(count).ok()).unwrap_or(1);
    let missing = wanted.saturating_sub(pods.len()).min(pod_template::BURST);
    let mut pod = pod_template::pod(set);
    pod["metadata"]["generateName"] = json!(format!("{}-", name(set)));
    let mut surplus = pods.to_vec();
    surplus.sort_by_key(|pod| keep_order(pod));
    let surplus = surplus.into_iter().take(pods.len().saturating_sub(wanted));
    std::iter::repeat_n(Action::Create("pods", pod), missing)
        .chain(surplus.map(|pod| Action::Delete(Key::of("pods", pod))))
        .collect()
}

/// The order in which pods are given up: on no node, not ready, then the youngest.
fn keep_order(pod: &Value) -> (bool, bool, Reverse<&str>, &str) {
    let created = text(&pod["metadata"]["creationTimestamp"]);
    (pod["spec"]["nodeName"].is_string(), is_ready(pod), Reverse(created), name(pod))
}

fn status(set: &Value, pods: &[&Value]) -> Value {
    let ready = ready_count(pods);
    json!({
        "replicas": pods.len(), "fullyLabeledReplicas": pods.len(), "readyReplicas": ready,
        "availableReplicas": ready, "observedGeneration": set["metadata"]["generation"],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(replicas: u8) -> Value {
        json!({"metadata": {"name": "web", "namespace": "a", "uid": "u"}, "spec": {"replicas": replicas}})
    }

    fn pod(name: &str, node: Option<&str>, ready: &str) -> Value {
        json!({
            "metadata": {"name": name, "namespace": "a"}, "spec": {"nodeName": node},
            "status": {"conditions": [{"type": "Ready", "status": ready}]},
        })
    }

    #[test]
    fn missing_pods_are_created() {
        let one = pod("p", Some("n1"), "True");
        let actions = scale(&set(3), &[&one]);
        assert_eq!(actions.len(), 2);
        let Action::Create("pods", created) = &actions[0] else { panic!() };
        assert_eq!(created["metadata"]["generateName"], "web-");
    }

    #[test]
    fn pods_that_serve_are_kept() {
        let (serving, starting, waiting) =
            (pod("a", Some("n1"), "True"), pod("b", Some("n1"), "False"), pod("c", None, "False"));
        let deleted = |replicas| -> Vec<String> {
            let actions = scale(&set(replicas), &[&serving, &starting, &waiting]);
            let names = actions.into_iter().map(|action| match action {
                Action::Delete(key) => key.name,
                other => panic!("{other:?}"),
            });
            names.collect()
        };
        assert_eq!(deleted(2), ["c"]);
        assert_eq!(deleted(1), ["c", "b"]);
        assert!(deleted(3).is_empty());
    }

    #[test]
    fn very_many_pods_come_in_bursts() {
        let mut many = set(0);
        many["spec"]["replicas"] = json!(i32::MAX);
        assert_eq!(scale(&many, &[]).len(), pod_template::BURST);
    }
}
