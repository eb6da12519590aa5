//! The values of fields that a client left out, as the Kubernetes API documents them. Only what somebody in
//! the lab, or a person at `kubectl`, relies on.

mod network_policies;
mod pods;
mod services;
mod workloads;

use serde_json::{Value, json};

use super::object::set_default;
use super::resource::Resource;

/// Fills in what is missing. Doing it twice changes nothing.
pub(crate) fn apply(resource: &Resource, object: &mut Value) {
    match resource.plural {
        "namespaces" => namespace(object),
        "pods" => pods::pod(object),
        "services" => services::service(object),
        "deployments" => workloads::deployment(object),
        "statefulsets" => workloads::stateful_set(object),
        "daemonsets" => workloads::daemon_set(object),
        "secrets" => set_default(object, "type", "Opaque"),
        "endpointslices" => endpoint_slice(object),
        "networkpolicies" => network_policies::network_policy(object),
        _ => {}
    }
}

/// A Namespace is kept by its own finalizer until its content is gone, and is named by a label.
fn namespace(object: &mut Value) {
    let name = object["metadata"]["name"].clone();
    object["metadata"]["labels"]["kubernetes.io/metadata.name"] = name;
    if !super::object::is_terminating(object) {
        set_default(&mut object["spec"], "finalizers", json!(["kubernetes"]));
        set_default(&mut object["status"], "phase", "Active");
    }
}

/// Ports without a name have an empty one, and TCP (discovery/v1).
fn endpoint_slice(object: &mut Value) {
    for port in object.get_mut("ports").and_then(Value::as_array_mut).into_iter().flatten() {
        set_default(port, "name", "");
        set_default(port, "protocol", "TCP");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::apiserver::resource::named;

    #[test]
    fn a_second_time_changes_nothing() {
        let template = json!({"metadata": {}, "spec": {"containers": [{"name": "a", "image": "x", "ports": [{"containerPort": 1}]}]}});
        for (plural, spec) in [
            ("pods", template["spec"].clone()),
            ("services", json!({"ports": [{"port": 80}]})),
            ("services", json!({"type": "ExternalName", "externalName": "a.b"})),
            ("deployments", json!({"template": template})),
            ("statefulsets", json!({"template": template})),
            ("daemonsets", json!({"template": template})),
            ("networkpolicies", json!({"egress": [{"ports": [{}]}]})),
        ] {
            let mut once = json!({"metadata": {"name": "x"}, "spec": spec});
            apply(named(plural), &mut once);
            let mut twice = once.clone();
            apply(named(plural), &mut twice);
            assert_eq!(once, twice, "{plural}");
        }
    }
}
