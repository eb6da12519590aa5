//! How far a rollout is: from objects as the API server has them to a line for people, and whether it is
//! done.

use serde_json::Value;

use crate::cluster::name;

/// How far something is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Progress {
    pub(crate) is_done: bool,
    pub(crate) text: String,
}

impl Progress {
    /// Done when all are.
    pub(crate) fn all(parts: impl IntoIterator<Item = Progress>) -> Progress {
        let parts: Vec<Progress> = parts.into_iter().collect();
        Progress {
            is_done: parts.iter().all(|part| part.is_done),
            text: parts.into_iter().map(|part| part.text).collect::<Vec<_>>().join(", "),
        }
    }
}

/// A DaemonSet: on every node there is a pod of the newest template, and it is ready. One that fits no node
/// is never done: what it is for does not come about.
pub(crate) fn daemon_set(set: &Value) -> Progress {
    daemon_set_but(set, 0)
}

/// The same, where so many nodes are silent and not waited for.
pub(crate) fn daemon_set_but(set: &Value, silent: u64) -> Progress {
    let status = &set["status"];
    let desired = number(&status["desiredNumberScheduled"]);
    let ready = number(&status["numberReady"]).min(number(&status["updatedNumberScheduled"]));
    Progress {
        is_done: is_observed(set) && desired > 0 && ready + silent >= desired,
        text: format!("{} {ready}/{desired}", name(set)),
    }
}

/// A Deployment: as many pods of the newest template are available as it wants.
pub(crate) fn deployment(deployment: &Value) -> Progress {
    let status = &deployment["status"];
    let desired = deployment["spec"]["replicas"].as_u64().unwrap_or(1);
    let ready = number(&status["availableReplicas"]).min(number(&status["updatedReplicas"]));
    let text = format!("{} {ready}/{desired}", name(deployment));
    Progress { is_done: is_observed(deployment) && ready >= desired, text }
}

/// Nodes: all Ready. Names the first that is not, and why.
pub(crate) fn nodes(nodes: &[Value]) -> Progress {
    let waiting: Vec<&Value> = nodes.iter().filter(|node| !is_ready(node)).collect();
    let text = format!("nodes ready {}/{}", nodes.len() - waiting.len(), nodes.len());
    match waiting.first() {
        None => Progress { is_done: !nodes.is_empty(), text },
        Some(node) => {
            let reason = condition(node, "Ready")["message"].as_str().unwrap_or("its kubelet says nothing");
            Progress { is_done: false, text: format!("{text} ({}: {reason})", name(node)) }
        }
    }
}

/// Whether a Node's kubelet says nothing, as that of a machine that is off. One that says why it is not ready
/// is not silent.
pub(crate) fn is_silent(node: &Value) -> bool {
    condition(node, "Ready")["status"] == "Unknown"
}

/// Whether a Node or Pod is Ready.
pub(crate) fn is_ready(object: &Value) -> bool {
    condition(object, "Ready")["status"] == "True"
}

/// A condition of an object; null where it has none of that type.
fn condition<'a>(object: &'a Value, kind: &str) -> &'a Value {
    let conditions = object["status"]["conditions"].as_array();
    conditions.into_iter().flatten().find(|condition| condition["type"] == kind).unwrap_or(&Value::Null)
}

fn is_observed(object: &Value) -> bool {
    number(&object["status"]["observedGeneration"]) >= number(&object["metadata"]["generation"])
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_daemon_set_is_done_when_its_newest_pods_are_ready() {
        let set = |observed: u64, updated: u64, ready: u64| {
            json!({"metadata": {"name": "a", "generation": 2}, "status": {"observedGeneration": observed,
                   "desiredNumberScheduled": 3, "updatedNumberScheduled": updated, "numberReady": ready}})
        };
        assert_eq!(daemon_set(&set(2, 3, 3)), Progress { is_done: true, text: "a 3/3".to_owned() });
        assert!(!daemon_set(&set(1, 3, 3)).is_done, "the counts are those of the old template");
        assert_eq!(daemon_set(&set(2, 1, 3)), Progress { is_done: false, text: "a 1/3".to_owned() });
        assert!(!daemon_set(&json!({"metadata": {"name": "a"}})).is_done, "no node has it");
        assert!(daemon_set_but(&set(2, 2, 2), 1).is_done && !daemon_set_but(&set(2, 1, 2), 1).is_done);
    }

    #[test]
    fn a_deployment_is_done_when_its_newest_pods_are_available() {
        let of = |updated: u64, available: u64| {
            json!({"metadata": {"name": "d", "generation": 1}, "spec": {"replicas": 2}, "status": {
                   "observedGeneration": 1, "updatedReplicas": updated, "availableReplicas": available}})
        };
        assert!(deployment(&of(2, 2)).is_done);
        assert_eq!(deployment(&of(1, 2)), Progress { is_done: false, text: "d 1/2".to_owned() });
    }

    #[test]
    fn a_node_that_is_not_ready_is_named_with_the_reason() {
        let node = |name: &str, status: &str| {
            json!({"metadata": {"name": name}, "status": {"conditions": [
                   {"type": "Ready", "status": status, "message": "cni plugin not initialized"}]}})
        };
        let seen = nodes(&[node("a", "True"), node("b", "False")]);
        assert_eq!(seen.text, "nodes ready 1/2 (b: cni plugin not initialized)");
        assert!(!seen.is_done && nodes(&[node("a", "True")]).is_done && !nodes(&[]).is_done);
    }
}
