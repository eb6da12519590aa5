//! StatefulSets: pods with stable names, `name-0` and on, one after the other.

use serde_json::{Value, json};

use super::{Action, Controller, is_ready, made_by, pod_template, ready_count, self_or_owner, status_update};
use crate::apiserver::history::Event;
use crate::apiserver::object::{self, Key, is_terminating, label, name, text};
use crate::apiserver::store::Store;

/// The label that tells the versions of a template apart.
const REVISION: &str = "controller-revision-hash";

pub(super) struct StatefulSets;

impl Controller for StatefulSets {
    fn concerns(&self, _: &Store, event: &Event) -> Vec<Key> {
        self_or_owner(event, "statefulsets", "StatefulSet", "pods")
    }

    fn decide(&self, store: &Store, key: &Key) -> Vec<Action> {
        let Some(set) = store.get(key) else { return Vec::new() };
        let pods = made_by(store, set, "pods");
        let mut actions: Vec<Action> = Vec::new();
        if !is_terminating(set) {
            actions.extend(step(set, &pods));
        }
        actions.extend(status_update("statefulsets", set, status(set, &pods)));
        actions
    }
}

/// The next thing to do. In order means: one pod at a time, upwards when they come and downwards when they
/// go, and never two of the same name.
fn step(set: &Value, pods: &[&Value]) -> Vec<Action> {
    let wanted = set["spec"]["replicas"].as_u64().unwrap_or(1);
    let in_parallel = set["spec"]["podManagementPolicy"] == "Parallel";
    let find = |ordinal: u64| pods.iter().copied().find(|pod| ordinal_of(set, pod) == Some(ordinal));
    let mut actions = Vec::new();
    for ordinal in 0..wanted {
        match find(ordinal) {
            None => actions.push(Action::Create("pods", pod(set, ordinal))),
            Some(pod) if has_ended(pod) => actions.push(Action::Delete(Key::of("pods", pod))),
            Some(pod) if is_ready(pod) && !is_terminating(pod) => continue,
            Some(_) => {}
        }
        if !in_parallel || actions.len() == pod_template::BURST {
            return actions;
        }
    }
    let mut others: Vec<(u64, &Value)> =
        pods.iter().filter_map(|pod| Some((ordinal_of(set, pod)?, *pod))).collect();
    others.sort_by_key(|(ordinal, _)| std::cmp::Reverse(*ordinal));
    for (ordinal, pod) in others {
        let is_surplus = ordinal >= wanted;
        if is_surplus || actions.is_empty() && is_outdated(set, pod, ordinal) {
            if !is_terminating(pod) {
                actions.push(Action::Delete(Key::of("pods", pod)));
            }
            if !in_parallel || !is_surplus {
                return actions;
            }
        }
    }
    actions
}

fn is_outdated(set: &Value, pod: &Value, ordinal: u64) -> bool {
    let strategy = &set["spec"]["updateStrategy"];
    let partition = strategy["rollingUpdate"]["partition"].as_u64().unwrap_or(0);
    strategy["type"] != "OnDelete" && ordinal >= partition && label(pod, REVISION) != Some(&revision(set))
}

fn has_ended(pod: &Value) -> bool {
    ["Succeeded", "Failed"].contains(&text(&pod["status"]["phase"])) && !is_terminating(pod)
}

fn ordinal_of(set: &Value, pod: &Value) -> Option<u64> {
    name(pod).strip_prefix(name(set))?.strip_prefix('-')?.parse().ok()
}

fn revision(set: &Value) -> String {
    format!("{}-{}", name(set), pod_template::hash(&set["spec"]["template"]))
}

/// The pod of that ordinal: its hostname is its name, under the Service that the set names.
fn pod(set: &Value, ordinal: u64) -> Value {
    let own_name = format!("{}-{ordinal}", name(set));
    let mut pod = pod_template::pod(set);
    pod["metadata"]["name"] = json!(own_name);
    pod_template::set_label(&mut pod, REVISION, &revision(set));
    pod_template::set_label(&mut pod, "statefulset.kubernetes.io/pod-name", &own_name);
    pod_template::set_label(&mut pod, "apps.kubernetes.io/pod-index", &ordinal.to_string());
    pod["spec"]["hostname"] = json!(own_name);
    if let Some(service) = set["spec"].get("serviceName").filter(|service| !text(service).is_empty()) {
        pod["spec"]["subdomain"] = service.clone();
    }
    pod
}

fn status(set: &Value, pods: &[&Value]) -> Value {
    let alive: Vec<&Value> = pods.iter().copied().filter(|pod| !is_terminating(pod)).collect();
    let newest = revision(set);
    let updated = alive.iter().filter(|pod| label(pod, REVISION) == Some(&newest)).count();
    let wanted = set["spec"]["replicas"].as_u64().unwrap_or(1);
    let is_complete =
        updated as u64 == wanted && pods.len() as u64 == wanted && ready_count(&alive) as u64 == wanted;
    let before = object::text(&set["status"]["currentRevision"]);
    let current = if is_complete || before.is_empty() { newest.clone() } else { before.to_owned() };
    let on_current = alive.iter().filter(|pod| label(pod, REVISION) == Some(&current)).count();
    json!({
        "observedGeneration": set["metadata"]["generation"], "replicas": pods.len(), "collisionCount": 0,
        "readyReplicas": ready_count(&alive), "availableReplicas": ready_count(&alive),
        "currentReplicas": on_current, "updatedReplicas": updated,
        "currentRevision": current, "updateRevision": newest,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(replicas: u64, policy: &str) -> Value {
        json!({
            "metadata": {"name": "db", "namespace": "a", "uid": "u"},
            "spec": {"replicas": replicas, "serviceName": "db-peers", "podManagementPolicy": policy,
                     "template": {"metadata": {"labels": {"app": "db"}}, "spec": {}}},
        })
    }

    fn made(set: &Value, ordinal: u64, ready: &str) -> Value {
        let mut pod = pod(set, ordinal);
        pod["status"] = json!({"conditions": [{"type": "Ready", "status": ready}]});
        pod
    }

    fn words(actions: &[Action]) -> Vec<String> {
        let word = |action: &Action| match action {
            Action::Create(_, pod) => format!("+{}", name(pod)),
            Action::Delete(key) => format!("-{}", key.name),
            other => panic!("{other:?}"),
        };
        actions.iter().map(word).collect()
    }

    #[test]
    fn a_pod_carries_its_stable_name() {
        let pod = pod(&set(1, "OrderedReady"), 0);
        assert_eq!(
            (&pod["spec"]["hostname"], &pod["spec"]["subdomain"]),
            (&json!("db-0"), &json!("db-peers"))
        );
        assert_eq!(label(&pod, "apps.kubernetes.io/pod-index"), Some("0"));
    }

    #[test]
    fn pods_come_one_by_one_as_the_earlier_are_ready() {
        let set = set(3, "OrderedReady");
        assert_eq!(words(&step(&set, &[])), ["+db-0"]);
        let (waiting, ready) = (made(&set, 0, "False"), made(&set, 0, "True"));
        assert!(step(&set, &[&waiting]).is_empty());
        assert_eq!(words(&step(&set, &[&ready])), ["+db-1"]);
        let mut parallel = set.clone();
        parallel["spec"]["podManagementPolicy"] = json!("Parallel");
        assert_eq!(words(&step(&parallel, &[&waiting])), ["+db-1", "+db-2"]);
    }

    #[test]
    fn pods_go_from_the_end() {
        let set = set(1, "OrderedReady");
        let pods: Vec<Value> = (0..3).map(|ordinal| made(&set, ordinal, "True")).collect();
        let mut pods: Vec<&Value> = pods.iter().collect();
        assert_eq!(words(&step(&set, &pods)), ["-db-2"]);
        let mut leaving = pods[2].clone();
        leaving["metadata"]["deletionTimestamp"] = json!("x");
        pods[2] = &leaving;
        assert!(step(&set, &pods).is_empty(), "the next waits until this one is gone");
        pods.pop();
        assert_eq!(words(&step(&set, &pods)), ["-db-1"]);
    }

    #[test]
    fn a_new_template_replaces_the_last_pod_first() {
        let old = set(2, "OrderedReady");
        let pods: Vec<Value> = (0..2).map(|ordinal| made(&old, ordinal, "True")).collect();
        let pods: Vec<&Value> = pods.iter().collect();
        let mut new = old.clone();
        new["spec"]["template"]["spec"]["dnsPolicy"] = json!("Default");
        assert_eq!(words(&step(&new, &pods)), ["-db-1"]);
        let fresh = made(&new, 1, "True");
        assert_eq!(words(&step(&new, &[pods[0], &fresh])), ["-db-0"]);
        let done = status(&new, &[&made(&new, 0, "True"), &fresh]);
        assert_eq!(done["currentRevision"], done["updateRevision"]);
    }

    #[test]
    fn an_ended_pod_makes_way_for_its_successor() {
        let set = set(1, "OrderedReady");
        let mut failed = made(&set, 0, "False");
        failed["status"]["phase"] = json!("Failed");
        assert_eq!(words(&step(&set, &[&failed])), ["-db-0"]);
    }
}
