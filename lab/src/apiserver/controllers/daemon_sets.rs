//! DaemonSets: one pod on every Node that the template may run on.

use serde_json::{Value, json};

use super::scheduler::fits;
use super::{
    Action, Controller, is_active, made_by, pod_template, ready_count, self_or_owner, status_update,
};
use crate::apiserver::history::Event;
use crate::apiserver::object::{Key, is_terminating, label, name};
use crate::apiserver::store::Store;

/// The label that tells the versions of a template apart.
const REVISION: &str = "controller-revision-hash";

pub(super) struct DaemonSets;

impl Controller for DaemonSets {
    fn concerns(&self, store: &Store, event: &Event) -> Vec<Key> {
        match event.plural {
            "nodes" => store.list("daemonsets", "", None).map(|set| Key::of("daemonsets", set)).collect(),
            _ => self_or_owner(event, "daemonsets", "DaemonSet", "pods"),
        }
    }

    fn decide(&self, store: &Store, key: &Key) -> Vec<Action> {
        let Some(set) = store.get(key) else { return Vec::new() };
        let template = &set["spec"]["template"]["spec"];
        let nodes: Vec<&str> = store
            .list("nodes", "", None)
            .filter(|node| fits(template, node))
            .map(|node| name(node))
            .collect();
        let pods = made_by(store, set, "pods");
        let mut actions = if is_terminating(set) { Vec::new() } else { place(set, &nodes, &pods) };
        actions.extend(status_update("daemonsets", set, status(set, &nodes, &pods)));
        actions
    }
}

/// A pod for each node without one, none where it may not run, and an outdated one replaced at a time.
fn place(set: &Value, nodes: &[&str], pods: &[&Value]) -> Vec<Action> {
    let hash = pod_template::hash(&set["spec"]["template"]);
    let on = |node: &str| pods.iter().find(|pod| pod["spec"]["nodeName"] == node);
    let missing = nodes.iter().filter(|node| on(node).is_none());
    let mut actions: Vec<Action> =
        missing.map(|node| Action::Create("pods", pod(set, node, &hash))).collect();
    let is_wrong =
        |pod: &&&Value| !is_active(pod) || !nodes.iter().any(|node| pod["spec"]["nodeName"] == *node);
    let wrong = pods.iter().filter(is_wrong).filter(|pod| !is_terminating(pod));
    actions.extend(wrong.map(|pod| Action::Delete(Key::of("pods", pod))));
    let all_serve =
        actions.is_empty() && ready_count(pods) == pods.len() && pods.iter().all(|pod| is_active(pod));
    if all_serve && set["spec"]["updateStrategy"]["type"] != "OnDelete" {
        let outdated = pods.iter().find(|pod| label(pod, REVISION) != Some(&hash));
        actions.extend(outdated.map(|pod| Action::Delete(Key::of("pods", pod))));
    }
    actions
}

fn pod(set: &Value, node: &str, hash: &str) -> Value {
    let mut pod = pod_template::pod(set);
    pod["metadata"]["generateName"] = json!(format!("{}-", name(set)));
    pod_template::set_label(&mut pod, REVISION, hash);
    pod["spec"]["nodeName"] = json!(node);
    pod
}

fn status(set: &Value, nodes: &[&str], pods: &[&Value]) -> Value {
    let hash = pod_template::hash(&set["spec"]["template"]);
    let is_placed =
        |pod: &&&Value| is_active(pod) && nodes.iter().any(|node| pod["spec"]["nodeName"] == *node);
    let placed: Vec<&Value> = pods.iter().filter(is_placed).copied().collect();
    let ready = ready_count(&placed);
    json!({
        "observedGeneration": set["metadata"]["generation"], "desiredNumberScheduled": nodes.len(),
        "currentNumberScheduled": placed.len(), "numberReady": ready, "numberAvailable": ready,
        "numberUnavailable": nodes.len().saturating_sub(ready),
        "numberMisscheduled": pods.len() - placed.len(),
        "updatedNumberScheduled": placed.iter().filter(|pod| label(pod, REVISION) == Some(&hash)).count(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set() -> Value {
        json!({"metadata": {"name": "dns", "namespace": "a", "uid": "u"}, "spec": {"template": {"spec": {}}}})
    }

    fn made(set: &Value, node: &str) -> Value {
        let hash = pod_template::hash(&set["spec"]["template"]);
        let mut pod = pod(set, node, &hash);
        pod["metadata"]["name"] = json!(format!("dns-{node}"));
        pod["status"] = json!({"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]});
        pod
    }

    #[test]
    fn one_pod_on_each_node() {
        let set = set();
        let (one, gone) = (made(&set, "n1"), made(&set, "n9"));
        let actions = place(&set, &["n1", "n2"], &[&one, &gone]);
        let [Action::Create("pods", created), Action::Delete(deleted)] = &*actions else {
            panic!("{actions:?}")
        };
        assert_eq!((&created["spec"]["nodeName"], &*deleted.name), (&json!("n2"), "dns-n9"));
        let status = status(&set, &["n1", "n2"], &[&one, &gone]);
        assert_eq!((&status["desiredNumberScheduled"], &status["numberReady"]), (&json!(2), &json!(1)));
        assert_eq!(status["numberMisscheduled"], 1);
    }

    #[test]
    fn a_new_template_replaces_one_pod_at_a_time() {
        let old = set();
        let pods = [made(&old, "n1"), made(&old, "n2")];
        let mut new = old.clone();
        new["spec"]["template"]["spec"]["dnsPolicy"] = json!("Default");
        let actions = place(&new, &["n1", "n2"], &[&pods[0], &pods[1]]);
        assert_eq!(actions, [Action::Delete(Key::of("pods", &pods[0]))]);
        let actions = place(&new, &["n1", "n2"], &[&pods[1]]);
        assert!(matches!(&*actions, [Action::Create(..)]));
    }
}
