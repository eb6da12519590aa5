//! Reading objects as the API server has them. What is missing or of another type is as if it were not there.

use serde_json::Value;

use crate::cluster::{DNS_SERVICE, NAMESPACE, name};
use crate::rollout;

/// A list; empty where it is none.
pub(super) fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

/// A list's texts.
pub(super) fn texts(value: &Value) -> impl Iterator<Item = &str> {
    list(value).filter_map(Value::as_str)
}

pub(super) fn namespace(object: &Value) -> &str {
    object["metadata"]["namespace"].as_str().unwrap_or_default()
}

/// `namespace/name`
pub(super) fn key(object: &Value) -> String {
    format!("{}/{}", namespace(object), name(object))
}

pub(super) fn labels(object: &Value) -> &Value {
    &object["metadata"]["labels"]
}

/// Whether a pod runs, or is about to: not one that ended, or ends.
pub(super) fn is_live(pod: &Value) -> bool {
    let is_over = ["Succeeded", "Failed"].iter().any(|phase| pod["status"]["phase"] == *phase);
    !is_over && pod["metadata"]["deletionTimestamp"].is_null()
}

pub(super) fn is_ready(pod: &Value) -> bool {
    rollout::is_ready(pod)
}

/// A condition of an object; null where it has none of that type.
pub(super) fn condition<'a>(object: &'a Value, kind: &str) -> &'a Value {
    list(&object["status"]["conditions"]).find(|one| one["type"] == kind).unwrap_or(&Value::Null)
}

/// Whether a Service is the one by which pods reach DNS.
pub(super) fn is_dns(service: &Value) -> bool {
    namespace(service) == NAMESPACE && name(service) == DNS_SERVICE
}

/// The addresses of a pod in the pod network.
pub(super) fn pod_addresses(pod: &Value) -> impl Iterator<Item = &str> {
    let is_own = pod["spec"]["hostNetwork"] != true;
    list(&pod["status"]["podIPs"]).filter(move |_| is_own).filter_map(|one| one["ip"].as_str())
}

/// The addresses of a Node in the network between nodes.
pub(super) fn node_addresses(node: &Value) -> impl Iterator<Item = &str> {
    let own = list(&node["status"]["addresses"]).filter(|one| one["type"] == "InternalIP");
    own.filter_map(|one| one["address"].as_str())
}

/// The requirements of a map of labels.
pub(super) fn equals(map: &Value) -> impl Iterator<Item = (&str, &str)> {
    let pairs = map.as_object().into_iter().flatten();
    pairs.filter_map(|(key, value)| Some((key.as_str(), value.as_str()?)))
}

/// Whether labels fulfil a LabelSelector. An operator that is not known fulfils none.
pub(super) fn selects(selector: &Value, labels: &Value) -> bool {
    let has_all = equals(&selector["matchLabels"]).all(|(key, value)| labels[key] == value);
    has_all && list(&selector["matchExpressions"]).all(|one| fulfils(one, labels))
}

fn fulfils(requirement: &Value, labels: &Value) -> bool {
    let Some(key) = requirement["key"].as_str() else { return false };
    let value = labels[key].as_str();
    let is_one = || value.is_some_and(|value| texts(&requirement["values"]).any(|one| one == value));
    match requirement["operator"].as_str() {
        Some("In") => is_one(),
        Some("NotIn") => !is_one(),
        Some("Exists") => value.is_some(),
        Some("DoesNotExist") => value.is_none(),
        _ => false,
    }
}

/// So many of these, and how many more there are.
pub(super) fn some<T: std::fmt::Display>(all: &[T]) -> String {
    const MOST: usize = 5;
    let shown: Vec<String> = all.iter().take(MOST).map(ToString::to_string).collect();
    match all.len().saturating_sub(MOST) {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn selectors_mean_what_the_api_says() {
        let labels = json!({"app": "web", "tier": "front"});
        for (selector, expected) in [
            (json!({}), true),
            (json!({"matchLabels": {"app": "web"}}), true),
            (json!({"matchLabels": {"app": "db"}}), false),
            (json!({"matchExpressions": [{"key": "app", "operator": "In", "values": ["db", "web"]}]}), true),
            (json!({"matchExpressions": [{"key": "app", "operator": "NotIn", "values": ["web"]}]}), false),
            (json!({"matchExpressions": [{"key": "zone", "operator": "NotIn", "values": ["a"]}]}), true),
            (json!({"matchExpressions": [{"key": "zone", "operator": "Exists"}]}), false),
            (json!({"matchExpressions": [{"key": "zone", "operator": "DoesNotExist"}]}), true),
            (json!({"matchExpressions": [{"key": "app", "operator": "Near"}]}), false),
        ] {
            assert_eq!(selects(&selector, &labels), expected, "{selector}");
        }
    }

    #[test]
    fn long_lists_are_cut_short() {
        assert_eq!(some(&["a", "b"]), "a, b");
        assert_eq!(some(&[1, 2, 3, 4, 5, 6, 7]), "1, 2, 3, 4, 5 and 2 more");
    }
}
