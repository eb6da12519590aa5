//! Defaults of Pods and of the pod templates inside workloads (core/v1).

use serde_json::{Value, json};

use crate::apiserver::object::set_default;

/// A Pod: its spec, and the status with which every pod begins.
pub(super) fn pod(object: &mut Value) {
    spec(&mut object["spec"]);
    set_default(&mut object["status"], "phase", "Pending");
    set_default(&mut object["status"], "qosClass", "BestEffort");
}

/// The spec of a pod or of a template.
pub(super) fn spec(spec: &mut Value) {
    set_default(spec, "restartPolicy", "Always");
    set_default(spec, "terminationGracePeriodSeconds", 30);
    set_default(spec, "dnsPolicy", "ClusterFirst");
    set_default(spec, "schedulerName", "default-scheduler");
    set_default(spec, "securityContext", json!({}));
    for list in ["initContainers", "containers"] {
        list_of(spec, list).for_each(container);
    }
}

fn container(container: &mut Value) {
    let image = container["image"].as_str().unwrap_or_default();
    let is_latest =
        image.ends_with(":latest") || !image.rsplit('/').next().unwrap_or_default().contains([':', '@']);
    set_default(container, "imagePullPolicy", if is_latest { "Always" } else { "IfNotPresent" });
    set_default(container, "terminationMessagePath", "/dev/termination-log");
    set_default(container, "terminationMessagePolicy", "File");
    set_default(container, "resources", json!({}));
    list_of(container, "ports").for_each(|port| set_default(port, "protocol", "TCP"));
    for name in ["livenessProbe", "readinessProbe", "startupProbe"] {
        container.get_mut(name).into_iter().for_each(probe);
    }
}

/// The items of a list, where there is one. Looking for it adds no field.
fn list_of<'a>(value: &'a mut Value, field: &str) -> impl Iterator<Item = &'a mut Value> {
    value.get_mut(field).and_then(Value::as_array_mut).into_iter().flatten()
}

fn probe(probe: &mut Value) {
    for (field, value) in
        [("timeoutSeconds", 1), ("periodSeconds", 10), ("successThreshold", 1), ("failureThreshold", 3)]
    {
        set_default(probe, field, value);
    }
    if probe["httpGet"].is_object() {
        set_default(&mut probe["httpGet"], "scheme", "HTTP");
        set_default(&mut probe["httpGet"], "path", "/");
    }
}
