//! The `scale` subresource (autoscaling/v1): a small view of an object that has replicas.

use serde_json::{Value, json};

use super::error::{ApiError, Result};
use super::object::text;

/// The scale of an object.
pub(crate) fn of(object: &Value) -> Value {
    let metadata = &object["metadata"];
    json!({
        "kind": "Scale", "apiVersion": "autoscaling/v1",
        "metadata": {
            "name": metadata["name"], "namespace": metadata["namespace"], "uid": metadata["uid"],
            "resourceVersion": metadata["resourceVersion"],
            "creationTimestamp": metadata["creationTimestamp"],
        },
        "spec": {"replicas": object["spec"]["replicas"].as_i64().unwrap_or(0)},
        "status": {
            "replicas": object["status"]["replicas"].as_i64().unwrap_or(0),
            "selector": selector_text(&object["spec"]["selector"]["matchLabels"]),
        },
    })
}

/// The object with the replicas of that scale, and its version as the precondition.
pub(crate) fn set(object: &Value, scale: &Value) -> Result<Value> {
    let replicas = scale["spec"].get("replicas").map_or(Some(0), Value::as_i64);
    let replicas = replicas.ok_or_else(|| ApiError::BadRequest("spec.replicas is no number".to_owned()))?;
    let mut object = object.clone();
    object["spec"]["replicas"] = json!(replicas);
    if scale["metadata"]["resourceVersion"].is_string() {
        object["metadata"]["resourceVersion"] = scale["metadata"]["resourceVersion"].clone();
    }
    Ok(object)
}

fn selector_text(labels: &Value) -> String {
    let labels = labels.as_object().into_iter().flatten();
    labels.map(|(key, value)| format!("{key}={}", text(value))).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scale_is_read_from_and_written_to_the_object() {
        let object = json!({
            "metadata": {"name": "web", "resourceVersion": "7"},
            "spec": {"replicas": 2, "selector": {"matchLabels": {"app": "web"}}}, "status": {"replicas": 1},
        });
        let mut scale = of(&object);
        assert_eq!(scale["spec"]["replicas"], 2);
        assert_eq!(scale["status"], json!({"replicas": 1, "selector": "app=web"}));
        scale["spec"]["replicas"] = json!(5);
        scale["metadata"]["resourceVersion"] = json!("6");
        let scaled = set(&object, &scale).unwrap();
        assert_eq!(
            (&scaled["spec"]["replicas"], &scaled["metadata"]["resourceVersion"]),
            (&json!(5), &json!("6"))
        );
        assert!(set(&object, &json!({"spec": {"replicas": "many"}})).is_err());
    }
}
