//! What an object must not be: the rules that people meet, with the field named. The shape of an object is
//! checked before, by its kind's own types.

mod names;
mod pods;
mod policies;
mod services;

use serde_json::Value;

use super::error::{ApiError, Cause, Result};
use super::object;
use super::resource::Resource;
use super::selector::LabelSelector;

/// Checks a new or changed object.
pub(crate) fn check(resource: &Resource, object: &Value) -> Result<()> {
    let mut causes = names::metadata(resource, object);
    match resource.plural {
        "pods" => causes.extend(pods::spec(&object["spec"], "spec")),
        "services" => causes.extend(services::spec(&object["spec"])),
        "networkpolicies" => causes.extend(policies::network_policy(&object["spec"])),
        "clusternetworkpolicies" => causes.extend(policies::cluster_network_policy(&object["spec"])),
        "deployments" | "statefulsets" | "daemonsets" | "replicasets" => {
            causes.extend(workload(&object["spec"]))
        }
        _ => {}
    }
    refuse(resource, object, causes)
}

/// Checks what may not change once an object is there.
pub(crate) fn check_update(resource: &Resource, old: &Value, new: &Value) -> Result<()> {
    let causes = match resource.plural {
        "pods" => pods::update(old, new),
        "services" => services::update(&old["spec"], &new["spec"]),
        "deployments" | "statefulsets" | "daemonsets" | "replicasets" => {
            immutable("spec.selector", &old["spec"]["selector"], &new["spec"]["selector"])
        }
        "endpointslices" => immutable("addressType", &old["addressType"], &new["addressType"]),
        _ => Vec::new(),
    };
    refuse(resource, new, causes)
}

fn refuse(resource: &Resource, object: &Value, causes: Vec<Cause>) -> Result<()> {
    if causes.is_empty() {
        return Ok(());
    }
    Err(ApiError::Invalid { kind: resource.kind, name: object::name(object).to_owned(), causes })
}

fn immutable(field: &str, old: &Value, new: &Value) -> Vec<Cause> {
    if old == new { Vec::new() } else { vec![Cause::invalid(field, new, "field is immutable")] }
}

/// Deployments and the like: a count, a selector that takes the template's own pods, and the template.
fn workload(spec: &Value) -> Vec<Cause> {
    let mut causes = Vec::new();
    if spec["replicas"].as_i64().is_some_and(|replicas| replicas < 0) {
        let detail = "must be greater than or equal to 0";
        causes.push(Cause::invalid("spec.replicas", &spec["replicas"], detail));
    }
    let selector = LabelSelector::of_object(&spec["selector"]);
    let labels = &spec["template"]["metadata"]["labels"];
    if selector.is_empty() {
        causes.push(Cause::required("spec.selector", ""));
    } else if !selector.matches_labels(labels) {
        let detail = "`selector` does not match template `labels`";
        causes.push(Cause::invalid("spec.template.metadata.labels", labels, detail));
    }
    causes.extend(pods::spec(&spec["template"]["spec"], "spec.template.spec"));
    causes
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::apiserver::resource::named;

    fn fields(plural: &str, object: &Value) -> Vec<String> {
        match check(named(plural), object) {
            Ok(()) => Vec::new(),
            Err(ApiError::Invalid { causes, .. }) => causes.into_iter().map(|cause| cause.field).collect(),
            Err(other) => panic!("{other}"),
        }
    }

    #[test]
    fn a_deployment_must_select_its_own_pods() {
        let mut object = json!({
            "metadata": {"name": "web"},
            "spec": {"replicas": 1, "selector": {"matchLabels": {"app": "web"}},
                     "template": {"metadata": {"labels": {"app": "web"}},
                                  "spec": {"restartPolicy": "Always", "containers": [{"name": "a", "image": "x"}]}}},
        });
        assert!(fields("deployments", &object).is_empty());
        object["spec"]["template"]["metadata"]["labels"]["app"] = json!("db");
        object["spec"]["replicas"] = json!(-1);
        assert_eq!(fields("deployments", &object), ["spec.replicas", "spec.template.metadata.labels"]);
        let mut changed = object.clone();
        changed["spec"]["selector"]["matchLabels"]["app"] = json!("db");
        assert!(check_update(named("deployments"), &object, &changed).is_err());
    }
}
