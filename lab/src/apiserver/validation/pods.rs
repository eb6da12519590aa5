//! Rules for Pods and pod templates.

use serde_json::Value;

use super::names::is_label;
use crate::apiserver::error::Cause;
use crate::apiserver::object::{items, text};

/// Checks a pod spec that stands under that path.
pub(super) fn spec(spec: &Value, path: &str) -> Vec<Cause> {
    let mut causes = Vec::new();
    if items(&spec["containers"]).is_empty() {
        causes.push(Cause::required(format!("{path}.containers"), ""));
    }
    let mut names: Vec<&str> = Vec::new();
    for list in ["initContainers", "containers"] {
        for (index, container) in items(&spec[list]).iter().enumerate() {
            let at = format!("{path}.{list}[{index}]");
            let name = text(&container["name"]);
            if name.is_empty() {
                causes.push(Cause::required(format!("{at}.name"), ""));
            } else if !is_label(name) {
                causes.push(Cause::invalid(format!("{at}.name"), &container["name"], "must be a DNS label"));
            } else if names.contains(&name) {
                causes.push(Cause::duplicate(format!("{at}.name"), &container["name"]));
            }
            names.push(name);
            causes.extend(self::container(container, &at));
        }
    }
    if !["Always", "OnFailure", "Never"].contains(&text(&spec["restartPolicy"])) {
        let supported = ["Always", "Never", "OnFailure"];
        causes.push(Cause::unsupported(format!("{path}.restartPolicy"), &spec["restartPolicy"], &supported));
    }
    for field in ["hostname", "subdomain"] {
        if spec.get(field).is_some_and(|value| !is_label(text(value))) {
            causes.push(Cause::invalid(format!("{path}.{field}"), &spec[field], "must be a DNS label"));
        }
    }
    causes
}

fn container(container: &Value, at: &str) -> Vec<Cause> {
    let mut causes = Vec::new();
    if text(&container["image"]).is_empty() {
        causes.push(Cause::required(format!("{at}.image"), ""));
    }
    for (index, port) in items(&container["ports"]).iter().enumerate() {
        let number = &port["containerPort"];
        if !number.as_i64().is_some_and(|number| (1..=65535).contains(&number)) {
            let field = format!("{at}.ports[{index}].containerPort");
            causes.push(Cause::invalid(field, number, "must be between 1 and 65535, inclusive"));
        }
    }
    causes
}

/// Checks a change: a pod that exists keeps its spec but for images, deadlines and added tolerations, and is
/// put on a node once.
pub(super) fn update(old: &Value, new: &Value) -> Vec<Cause> {
    if frozen(&old["spec"], old) == frozen(&new["spec"], old) {
        return Vec::new();
    }
    let detail = "pod updates may not change fields other than `spec.containers[*].image`, \
                  `spec.initContainers[*].image`, `spec.activeDeadlineSeconds`, \
                  `spec.terminationGracePeriodSeconds` or `spec.tolerations`";
    vec![Cause::forbidden("spec", detail)]
}

/// The spec without what may change.
fn frozen(spec: &Value, old: &Value) -> Value {
    let mut spec = spec.clone();
    for list in ["initContainers", "containers"] {
        for container in spec[list].as_array_mut().into_iter().flatten() {
            container["image"] = Value::Null;
            container["imagePullPolicy"] = Value::Null;
        }
    }
    for field in ["activeDeadlineSeconds", "terminationGracePeriodSeconds", "tolerations"] {
        spec[field] = Value::Null;
    }
    if old["spec"]["nodeName"].is_null() {
        spec["nodeName"] = Value::Null;
    }
    spec
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn fields(spec: &Value) -> Vec<String> {
        super::spec(spec, "spec").into_iter().map(|cause| cause.field).collect()
    }

    #[test]
    fn containers_need_names_images_and_true_ports() {
        assert_eq!(fields(&json!({"restartPolicy": "Always"})), ["spec.containers"]);
        let spec = json!({"restartPolicy": "Sometimes", "hostname": "a.b", "containers": [
            {"name": "a", "image": "x", "ports": [{"containerPort": 0}]},
            {"name": "a", "image": "x"}, {"name": "", "image": ""},
        ]});
        assert_eq!(
            fields(&spec),
            [
                "spec.containers[0].ports[0].containerPort",
                "spec.containers[1].name",
                "spec.containers[2].name",
                "spec.containers[2].image",
                "spec.restartPolicy",
                "spec.hostname",
            ]
        );
    }

    #[test]
    fn a_pod_is_bound_once_and_keeps_its_command() {
        let pod = |node: Value, image: &str, command: &str| json!({"spec": {"nodeName": node, "containers": [{"name": "a", "image": image, "command": [command]}]}});
        let pending = pod(Value::Null, "x:1", "run");
        let bound = pod(json!("n1"), "x:2", "run");
        assert!(update(&pending, &bound).is_empty());
        assert!(!update(&bound, &pod(json!("n2"), "x:2", "run")).is_empty());
        assert!(!update(&bound, &pod(json!("n1"), "x:2", "walk")).is_empty());
    }
}
