//! Deployments: one ReplicaSet for each version of the template, and a rollout from the old ones to the new.

use serde_json::{Value, json};

use super::{Action, Controller, made_by, pod_template, self_or_owner};
use crate::apiserver::history::Event;
use crate::apiserver::object::{
    self, Condition, Key, controller_reference, is_terminating, label, name, set_condition, text,
};
use crate::apiserver::store::Store;

/// The label that tells the versions of a template apart.
const HASH: &str = "pod-template-hash";
/// The annotation that numbers the versions, as `kubectl rollout history` reads it.
const REVISION: &str = "deployment.kubernetes.io/revision";

pub(super) struct Deployments;

impl Controller for Deployments {
    fn concerns(&self, _: &Store, event: &Event) -> Vec<Key> {
        self_or_owner(event, "deployments", "Deployment", "replicasets")
    }

    fn decide(&self, store: &Store, key: &Key) -> Vec<Action> {
        let Some(deployment) = store.get(key) else { return Vec::new() };
        let sets = made_by(store, deployment, "replicasets");
        let mut actions = Vec::new();
        if !is_terminating(deployment) && deployment["spec"]["paused"] != true {
            actions.extend(roll(deployment, &sets));
        }
        actions.extend(super::status_update(
            "deployments",
            deployment,
            status(deployment, &sets, &store.now()),
        ));
        actions
    }
}

/// One step of the way to the wanted state. The change that it makes brings the next one.
fn roll(deployment: &Value, sets: &[&Value]) -> Vec<Action> {
    let hash = pod_template::hash(&deployment["spec"]["template"]);
    let is_new = |set: &&Value| label(set, HASH) == Some(&hash);
    let old: Vec<&Value> = sets.iter().copied().filter(|set| !is_new(set)).collect();
    let newest = old.iter().map(|set| revision(set)).max().unwrap_or(0);
    let Some(new) = sets.iter().copied().find(is_new) else {
        return vec![Action::Create("replicasets", new_set(deployment, &hash, newest + 1))];
    };
    let mut actions: Vec<Action> = match text(&deployment["spec"]["strategy"]["type"]) {
        "Recreate" => recreate(deployment, new, &old),
        _ => rolling(deployment, new, &old),
    };
    if revision(new) <= newest && actions.is_empty() {
        let mut numbered = new.clone();
        numbered["metadata"]["annotations"][REVISION] = json!((newest + 1).to_string());
        actions.push(Action::Update("replicasets", numbered));
    }
    actions.extend(forget(deployment, &old));
    actions
}

fn new_set(deployment: &Value, hash: &str, revision: i64) -> Value {
    let spec = &deployment["spec"];
    let metadata = &deployment["metadata"];
    let mut set = json!({
        "metadata": {
            "name": format!("{}-{hash}", name(deployment)), "namespace": metadata["namespace"],
            "labels": spec["template"]["metadata"]["labels"],
            "annotations": {REVISION: revision.to_string()},
            "ownerReferences": [controller_reference(deployment)],
        },
        "spec": {"replicas": 0, "selector": spec["selector"], "template": spec["template"]},
    });
    pod_template::set_label(&mut set, HASH, hash);
    pod_template::set_label(&mut set["spec"]["template"], HASH, hash);
    set["spec"]["selector"]["matchLabels"][HASH] = json!(hash);
    set
}

/// All old pods go before the new ones come.
fn recreate(deployment: &Value, new: &Value, old: &[&Value]) -> Vec<Action> {
    let wanted = count(&deployment["spec"]["replicas"]);
    let alive = old.iter().any(|set| count(&set["spec"]["replicas"]) + count(&set["status"]["replicas"]) > 0);
    if alive {
        return old.iter().filter_map(|set| resize(set, 0)).collect();
    }
    resize(new, wanted).into_iter().collect()
}

/// New pods as far as `maxSurge` lets them, old ones away as far as `maxUnavailable` lets them.
fn rolling(deployment: &Value, new: &Value, old: &[&Value]) -> Vec<Action> {
    let wanted = count(&deployment["spec"]["replicas"]);
    let (surge, unavailable) = limits(&deployment["spec"]["strategy"]["rollingUpdate"], wanted);
    let now = count(&new["spec"]["replicas"]);
    let old_total: i64 = old.iter().map(|set| count(&set["spec"]["replicas"])).sum();
    let room = (wanted + surge - now - old_total).max(0);
    let target = if now > wanted { wanted } else { now + room.min(wanted - now) };
    let mut actions: Vec<Action> = resize(new, target).into_iter().collect();

    let least = wanted - unavailable;
    let new_available = count(&new["status"]["availableReplicas"]).min(now);
    let mut spare = (now + old_total - least - (now - new_available)).max(0);
    for set in old {
        let size = count(&set["spec"]["replicas"]);
        let broken = size - count(&set["status"]["availableReplicas"]).min(size);
        // What does not serve can go without harm; of what serves, only as much as is not needed.
        let harmless = broken.min(spare);
        let served: i64 = old.iter().map(|set| count(&set["status"]["availableReplicas"])).sum();
        let useful = (size - broken).min((served + new_available - least).max(0)).min(spare - harmless);
        spare -= harmless + useful;
        actions.extend(resize(set, size - harmless - useful));
    }
    actions
}

/// `maxSurge` and `maxUnavailable` as numbers of pods; never both zero.
fn limits(strategy: &Value, wanted: i64) -> (i64, i64) {
    let percent = |value: &Value| text(value).strip_suffix('%').and_then(|number| number.parse::<i64>().ok());
    let resolve = |value: &Value, round_up: i64| match percent(value) {
        Some(percent) => (wanted * percent + round_up) / 100,
        None => value.as_i64().unwrap_or(0),
    };
    match (resolve(&strategy["maxSurge"], 99), resolve(&strategy["maxUnavailable"], 0)) {
        (0, 0) => (0, 1),
        limits => limits,
    }
}

fn resize(set: &Value, replicas: i64) -> Option<Action> {
    if count(&set["spec"]["replicas"]) == replicas {
        return None;
    }
    let mut set = set.clone();
    set["spec"]["replicas"] = json!(replicas);
    Some(Action::Update("replicasets", set))
}

/// Deletes the oldest empty ReplicaSets beyond the history that the Deployment keeps.
fn forget(deployment: &Value, old: &[&Value]) -> Vec<Action> {
    let kept = usize::try_from(count(&deployment["spec"]["revisionHistoryLimit"])).unwrap_or_default();
    let is_empty = |set: &&&Value| count(&set["spec"]["replicas"]) + count(&set["status"]["replicas"]) == 0;
    let mut empty: Vec<&Value> = old.iter().filter(is_empty).copied().collect();
    empty.sort_by_key(|set| revision(set));
    let surplus = empty.len().saturating_sub(kept);
    empty.into_iter().take(surplus).map(|set| Action::Delete(Key::of("replicasets", set))).collect()
}

fn status(deployment: &Value, sets: &[&Value], now: &str) -> Value {
    let hash = pod_template::hash(&deployment["spec"]["template"]);
    let wanted = count(&deployment["spec"]["replicas"]);
    let sum = |field: &str| -> i64 { sets.iter().map(|set| count(&set["status"][field])).sum() };
    let updated = sets.iter().find(|set| label(set, HASH) == Some(&hash));
    let updated = updated.map_or(0, |set| count(&set["status"]["replicas"]));
    let (total, available) = (sum("replicas"), sum("availableReplicas"));
    let mut status = json!({
        "observedGeneration": deployment["metadata"]["generation"], "replicas": total,
        "updatedReplicas": updated, "readyReplicas": sum("readyReplicas"), "availableReplicas": available,
        "unavailableReplicas": (wanted - available).max(0),
        "conditions": deployment["status"].get("conditions").cloned().unwrap_or_else(|| json!([])),
    });
    let (_, unavailable) = limits(&deployment["spec"]["strategy"]["rollingUpdate"], wanted);
    let is_available = available >= wanted - unavailable;
    let is_complete = updated == wanted && total == wanted && available == wanted;
    let conditions = [
        Condition {
            kind: "Available",
            holds: is_available,
            reason: if is_available { "MinimumReplicasAvailable" } else { "MinimumReplicasUnavailable" },
            message: "",
        },
        Condition {
            kind: "Progressing",
            holds: true,
            reason: if is_complete { "NewReplicaSetAvailable" } else { "ReplicaSetUpdated" },
            message: "",
        },
    ];
    for condition in &conditions {
        set_condition(&mut status, condition, now);
    }
    status
}

fn count(value: &Value) -> i64 {
    value.as_i64().unwrap_or(0)
}

fn revision(set: &Value) -> i64 {
    object::text(&set["metadata"]["annotations"][REVISION]).parse().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn deployment(replicas: i64, strategy: Value) -> Value {
        json!({
            "metadata": {"name": "web", "namespace": "a", "uid": "u", "generation": 1},
            "spec": {"replicas": replicas, "revisionHistoryLimit": 1, "strategy": strategy,
                     "selector": {"matchLabels": {"app": "web"}},
                     "template": {"metadata": {"labels": {"app": "web"}}, "spec": {}}},
        })
    }

    fn surge_one() -> Value {
        json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}})
    }

    fn set(hash: &str, size: i64, available: i64) -> Value {
        json!({
            "metadata": {"name": format!("web-{hash}"), "namespace": "a", "labels": {HASH: hash}},
            "spec": {"replicas": size}, "status": {"replicas": size, "availableReplicas": available},
        })
    }

    fn sizes(actions: &[Action]) -> Vec<(String, i64)> {
        let sizes = actions.iter().filter_map(|action| match action {
            Action::Update(_, set) => Some((name(set).to_owned(), count(&set["spec"]["replicas"]))),
            _ => None,
        });
        sizes.collect()
    }

    #[test]
    fn the_first_set_is_made_and_filled_at_once() {
        let deployment = deployment(3, surge_one());
        let [Action::Create("replicasets", new)] = &*roll(&deployment, &[]) else { panic!() };
        let hash = label(new, HASH).unwrap();
        assert_eq!(new["spec"]["selector"]["matchLabels"], json!({"app": "web", HASH: hash}));
        assert_eq!(new["spec"]["template"]["metadata"]["labels"][HASH], hash);
        assert_eq!(sizes(&rolling(&deployment, &set("n", 0, 0), &[])), [("web-n".to_owned(), 3)]);
    }

    #[test]
    fn a_rollout_never_serves_with_less() {
        let deployment = deployment(3, surge_one());
        let (mut new, mut old) = ((0, 0), (3, 3));
        let mut steps = Vec::new();
        for _ in 0..12 {
            let actions = rolling(&deployment, &set("n", new.0, new.1), &[&set("o", old.0, old.1)]);
            for (name, size) in sizes(&actions) {
                if name == "web-n" { new.0 = size } else { old.0 = size }
            }
            assert!(new.0 + old.0 <= 4, "at most one more than wanted");
            old.1 = old.0.min(old.1);
            assert!(new.1 + old.1 >= 3, "never fewer that serve");
            steps.push((new.0, old.0));
            // The pods that were asked for become ready.
            (new.1, old.1) = (new.0, old.0);
        }
        assert_eq!(steps.last(), Some(&(3, 0)));
    }

    #[test]
    fn pods_that_never_became_ready_make_room() {
        let deployment = deployment(2, surge_one());
        let actions = rolling(&deployment, &set("n", 0, 0), &[&set("b", 1, 0), &set("o", 2, 2)]);
        assert_eq!(sizes(&actions), [("web-b".to_owned(), 0)]);
    }

    #[test]
    fn recreate_empties_the_old_first() {
        let deployment = deployment(2, json!({"type": "Recreate"}));
        let (new, old) = (set("n", 0, 0), set("o", 2, 2));
        assert_eq!(sizes(&recreate(&deployment, &new, &[&old])), [("web-o".to_owned(), 0)]);
        assert_eq!(sizes(&recreate(&deployment, &new, &[&set("o", 0, 0)])), [("web-n".to_owned(), 2)]);
    }

    #[test]
    fn percentages_are_rounded_as_documented() {
        let strategy = json!({"maxSurge": "25%", "maxUnavailable": "25%"});
        assert_eq!(limits(&strategy, 3), (1, 0));
        assert_eq!(limits(&strategy, 10), (3, 2));
        assert_eq!(limits(&json!({"maxSurge": 0, "maxUnavailable": 0}), 3), (0, 1));
    }

    #[test]
    fn the_status_says_when_a_rollout_is_complete() {
        let deployment = deployment(2, surge_one());
        let hash = pod_template::hash(&deployment["spec"]["template"]);
        let done = status(&deployment, &[&set(&hash, 2, 2), &set("o", 0, 0)], "now");
        assert_eq!(
            (&done["updatedReplicas"], &done["replicas"], &done["availableReplicas"]),
            (&json!(2), &json!(2), &json!(2))
        );
        assert_eq!(done["conditions"][1]["reason"], "NewReplicaSetAvailable");
        let under_way = status(&deployment, &[&set(&hash, 1, 0), &set("o", 2, 2)], "now");
        assert_eq!((&under_way["updatedReplicas"], &under_way["replicas"]), (&json!(1), &json!(3)));
        assert_eq!(under_way["conditions"][0]["status"], "True");
    }
}
