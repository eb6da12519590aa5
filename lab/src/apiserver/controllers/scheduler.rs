//! The scheduler: puts pods on nodes so that those of one owner are spread, and then evenly.

use serde_json::Value;

use super::{Action, Controller, is_active};
use crate::apiserver::history::Event;
use crate::apiserver::object::{
    Condition, Key, condition, controller, is_terminating, items, name, set_condition, text,
};
use crate::apiserver::selector::LabelSelector;
use crate::apiserver::store::Store;

pub(super) struct Scheduler;

impl Controller for Scheduler {
    /// A pod on no node; all of them when a Node changes.
    fn concerns(&self, store: &Store, event: &Event) -> Vec<Key> {
        let pending = |pod: &Value| pod["spec"]["nodeName"].is_null() && is_active(pod);
        match (event.plural, &event.new) {
            ("pods", Some(pod)) if pending(pod) => vec![Key::of("pods", pod)],
            ("nodes", Some(_)) => {
                let pods = store.list("pods", "", None).filter(|pod| pending(pod));
                pods.map(|pod| Key::of("pods", pod)).collect()
            }
            _ => Vec::new(),
        }
    }

    fn decide(&self, store: &Store, key: &Key) -> Vec<Action> {
        let Some(pod) =
            store.get(key).filter(|pod| pod["spec"]["nodeName"].is_null() && !is_terminating(pod))
        else {
            return Vec::new();
        };
        let nodes: Vec<&Value> = store.list("nodes", "", None).map(|node| &**node).collect();
        let pods: Vec<&Value> = store.list("pods", "", None).map(|pod| &**pod).collect();
        match choose(pod, &nodes, &pods) {
            Some(node) => vec![Action::Bind { pod: key.clone(), node: node.to_owned() }],
            None => unschedulable(pod, nodes.len(), &store.now()).into_iter().collect(),
        }
    }
}

/// The node with the fewest pods of the same owner, then the fewest pods, then the first name.
fn choose<'a>(pod: &Value, nodes: &[&'a Value], pods: &[&Value]) -> Option<&'a str> {
    let owner = |pod: &Value| controller(pod).map(|owner| owner["uid"].clone());
    let own = owner(pod);
    let load = |node: &Value| {
        let on_node = pods.iter().filter(|other| other["spec"]["nodeName"] == name(node) && is_active(other));
        let (mut same_owner, mut all) = (0, 0);
        for other in on_node {
            all += 1;
            same_owner += u32::from(own.is_some() && owner(other) == own);
        }
        (same_owner, all)
    };
    let candidates = nodes
        .iter()
        .filter(|node| node["spec"]["unschedulable"] != true && condition(node, "Ready") == "True");
    let candidates = candidates.filter(|node| fits(&pod["spec"], node));
    candidates.min_by_key(|node| (load(node), name(node))).map(|node| name(node))
}

/// May a pod of that spec run on the node: are its labels as the pod selects them, its taints tolerated?
pub(super) fn fits(spec: &Value, node: &Value) -> bool {
    let keeps_away = |taint: &&Value| ["NoSchedule", "NoExecute"].contains(&text(&taint["effect"]));
    LabelSelector::of_labels(&spec["nodeSelector"]).matches(node)
        && items(&node["spec"]["taints"])
            .iter()
            .filter(keeps_away)
            .all(|taint| items(&spec["tolerations"]).iter().any(|toleration| tolerates(toleration, taint)))
}

fn tolerates(toleration: &Value, taint: &Value) -> bool {
    let (key, effect) = (text(&toleration["key"]), text(&toleration["effect"]));
    let same_value =
        toleration["operator"] == "Exists" || text(&toleration["value"]) == text(&taint["value"]);
    (effect.is_empty() || taint["effect"] == effect)
        && (if key.is_empty() {
            toleration["operator"] == "Exists"
        } else {
            taint["key"] == key && same_value
        })
}

/// Says in the pod's status that no node takes it, unless it says so already.
fn unschedulable(pod: &Value, nodes: usize, now: &str) -> Option<Action> {
    let message = format!(
        "0/{nodes} nodes are available: none is ready, schedulable, and as the pod selects and tolerates"
    );
    let condition =
        Condition { kind: "PodScheduled", holds: false, reason: "Unschedulable", message: &message };
    let mut status = pod["status"].clone();
    set_condition(&mut status, &condition, now);
    super::status_update("pods", pod, status)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn node(name: &str, ready: &str, spec: Value) -> Value {
        json!({
            "metadata": {"name": name, "labels": {"disk": name}}, "spec": spec,
            "status": {"conditions": [{"type": "Ready", "status": ready}]},
        })
    }

    fn pod(node: Option<&str>, owner: &str) -> Value {
        json!({"metadata": {"ownerReferences": [{"controller": true, "uid": owner}]}, "spec": {"nodeName": node}})
    }

    #[test]
    fn pods_of_one_owner_are_spread_before_all_are_evened() {
        let nodes = [node("n1", "True", json!({})), node("n2", "True", json!({}))];
        let nodes: Vec<&Value> = nodes.iter().collect();
        let others = [pod(Some("n1"), "a"), pod(Some("n2"), "b"), pod(Some("n2"), "b"), pod(Some("n2"), "c")];
        let others: Vec<&Value> = others.iter().collect();
        assert_eq!(choose(&pod(None, "a"), &nodes, &others), Some("n2"));
        assert_eq!(choose(&pod(None, "b"), &nodes, &others), Some("n1"));
        assert_eq!(choose(&pod(None, "d"), &nodes, &others), Some("n1"));
    }

    #[test]
    fn only_nodes_that_can_take_it() {
        let nodes = [
            node("n1", "False", json!({})),
            node("n2", "True", json!({"unschedulable": true})),
            node("n3", "True", json!({"taints": [{"key": "k", "value": "v", "effect": "NoSchedule"}]})),
            node("n4", "True", json!({})),
        ];
        let nodes: Vec<&Value> = nodes.iter().collect();
        let mut wanting = pod(None, "a");
        assert_eq!(choose(&wanting, &nodes, &[]), Some("n4"));
        wanting["spec"]["nodeSelector"] = json!({"disk": "n3"});
        assert_eq!(choose(&wanting, &nodes, &[]), None);
        for toleration in [
            json!({"operator": "Exists"}),
            json!({"key": "k", "operator": "Exists", "effect": "NoSchedule"}),
            json!({"key": "k", "value": "v"}),
        ] {
            wanting["spec"]["tolerations"] = json!([toleration]);
            assert_eq!(choose(&wanting, &nodes, &[]), Some("n3"));
        }
        wanting["spec"]["tolerations"] = json!([{"key": "k", "value": "w"}]);
        assert_eq!(choose(&wanting, &nodes, &[]), None);
    }

    #[test]
    fn a_pod_that_fits_nowhere_says_so_once() {
        let pending = pod(None, "a");
        let Some(Action::UpdateStatus("pods", told)) = unschedulable(&pending, 0, "t") else { panic!() };
        assert_eq!(condition(&told, "PodScheduled"), "False");
        assert_eq!(unschedulable(&told, 0, "later"), None);
    }
}
