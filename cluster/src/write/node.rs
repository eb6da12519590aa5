//! Conditions and annotations of Nodes. When one is set, and to what, is decided by who sets it.

use std::collections::BTreeMap;

use jiff::Timestamp;
use kube::Client;
use kube::api::{Patch, PatchParams};
use kube::core::Request;
use serde_json::{Value, json};
use weft_types::Kind;

use crate::error::chain;
use crate::resource::api;

/// A condition of a Node that is not fulfilled (core/v1 NodeCondition with the status False).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FalseCondition {
    /// Which, as `NetworkUnavailable`.
    pub kind: &'static str,
    /// Why, in one word.
    pub reason: &'static str,
    /// Why, for people.
    pub message: &'static str,
}

/// Sets a condition of a Node, and leaves the others as they are.
///
/// # Errors
/// Why the API server did not take it, in one line.
pub async fn set_condition(client: &Client, node: &str, condition: &FalseCondition) -> Result<(), String> {
    let patch = Patch::Strategic(status(condition, Timestamp::now()));
    let request = Request::new(api(Kind::Node).path(None))
        .patch_subresource("status", node, &PatchParams::default(), &patch)
        .map_err(|error| chain(&error))?;
    client.request::<Value>(request).await.map(drop).map_err(|error| chain(&error))
}

/// Sets annotations of a Node, and leaves the others as they are. It goes by the Node's status, which daemons
/// may write anyway: there the API server takes annotations too.
///
/// # Errors
/// Why the API server did not take it, in one line.
pub async fn annotate(client: &Client, node: &str, annotations: &[(&str, &str)]) -> Result<(), String> {
    let annotations: BTreeMap<&str, &str> = annotations.iter().copied().collect();
    let patch = Patch::Merge(json!({"metadata": {"annotations": annotations}}));
    let request = Request::new(api(Kind::Node).path(None))
        .patch_subresource("status", node, &PatchParams::default(), &patch)
        .map_err(|error| chain(&error))?;
    client.request::<Value>(request).await.map(drop).map_err(|error| chain(&error))
}

fn status(condition: &FalseCondition, now: Timestamp) -> Value {
    let now = now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    json!({"status": {"conditions": [{
        "type": condition.kind,
        "status": "False",
        "reason": condition.reason,
        "message": condition.message,
        "lastHeartbeatTime": now,
        "lastTransitionTime": now,
    }]}})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_in_whole_seconds_as_kubernetes_has_them() {
        let condition = FalseCondition { kind: "NetworkUnavailable", reason: "Up", message: "it is up" };
        let status = status(&condition, "2026-08-01T12:00:00.123456Z".parse().unwrap());
        let written = &status["status"]["conditions"][0];
        assert_eq!(written["lastTransitionTime"], "2026-08-01T12:00:00Z");
        assert_eq!((&written["type"], &written["status"]), (&json!("NetworkUnavailable"), &json!("False")));
    }
}
