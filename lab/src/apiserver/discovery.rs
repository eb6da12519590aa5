//! Discovery: which groups, versions and resources there are, as `kubectl` asks before anything else.

use serde_json::{Value, json};

use super::error::{ApiError, Result};
use super::resource::{RESOURCES, Resource, Status};

/// The Kubernetes version whose behaviour the server follows.
const MINOR: &str = "32";

/// `/version`
pub(crate) fn version() -> Value {
    json!({
        "major": "1", "minor": MINOR, "gitVersion": format!("v1.{MINOR}.0+weft"), "gitCommit": "",
        "gitTreeState": "clean", "buildDate": "1970-01-01T00:00:00Z", "goVersion": "", "compiler": "rustc",
        "platform": format!("{}/{}", std::env::consts::OS, std::env::consts::ARCH),
    })
}

/// `/api`
pub(crate) fn core_versions() -> Value {
    json!({"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []})
}

/// `/apis`
pub(crate) fn groups() -> Value {
    let mut groups: Vec<Value> = Vec::new();
    for row in RESOURCES.iter().filter(|row| !row.group.is_empty()) {
        if !groups.iter().any(|group| group["name"] == row.group) {
            groups.push(group_object(row));
        }
    }
    json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
}

/// `/apis/<group>`
pub(crate) fn group(name: &str) -> Result<Value> {
    let row = RESOURCES.iter().find(|row| row.group == name).ok_or(ApiError::NoSuchPath)?;
    let mut group = group_object(row);
    group["kind"] = json!("APIGroup");
    group["apiVersion"] = json!("v1");
    Ok(group)
}

fn group_object(row: &Resource) -> Value {
    let version = json!({"groupVersion": row.api_version, "version": row.version});
    json!({"name": row.group, "versions": [version], "preferredVersion": version})
}

/// `/api/v1` and `/apis/<group>/<version>`
pub(crate) fn resources(group: &str, version: &str) -> Result<Value> {
    let rows = RESOURCES.iter().filter(|row| row.group == group && row.version == version);
    let resources: Vec<Value> = rows.flat_map(entries).collect();
    if resources.is_empty() {
        return Err(ApiError::NoSuchPath);
    }
    let group_version = if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") };
    Ok(json!({
        "kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group_version, "resources": resources,
    }))
}

/// A resource and its subresources.
fn entries(row: &Resource) -> Vec<Value> {
    let mut main = json!({
        "name": row.plural, "singularName": row.singular, "namespaced": row.namespaced, "kind": row.kind,
        "verbs": ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"],
        "shortNames": row.short,
    });
    if row.in_all {
        main["categories"] = json!(["all"]);
    }
    let sub = |name: &str, group: &str, version: &str, kind: &str, verbs: &[&str]| {
        json!({
            "name": format!("{}/{name}", row.plural), "singularName": "", "namespaced": row.namespaced,
            "group": group, "version": version, "kind": kind, "verbs": verbs,
        })
    };
    let mut all = vec![main];
    if row.status != Status::None {
        all.push(sub("status", row.group, row.version, row.kind, &["get", "patch", "update"]));
    }
    if row.scale {
        all.push(sub("scale", "autoscaling", "v1", "Scale", &["get", "patch", "update"]));
    }
    if row.plural == "serviceaccounts" {
        all.push(sub("token", "authentication.k8s.io", "v1", "TokenRequest", &["create"]));
    }
    if row.plural == "pods" {
        all.push(sub("eviction", "policy", "v1", "Eviction", &["create"]));
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_listed_once() {
        let groups = groups();
        let names: Vec<_> = groups["groups"].as_array().unwrap().iter().map(|group| &group["name"]).collect();
        assert_eq!(names.iter().filter(|name| **name == "apps").count(), 1);
        assert!(!names.iter().any(|name| *name == ""));
    }

    #[test]
    fn subresources_stand_beside_their_resource() {
        let list = resources("apps", "v1").unwrap();
        let names: Vec<_> = list["resources"].as_array().unwrap().iter().map(|row| &row["name"]).collect();
        for name in ["deployments", "deployments/status", "deployments/scale", "daemonsets"] {
            assert!(names.iter().any(|found| *found == name), "{name}");
        }
        assert_eq!(resources("cats", "v1"), Err(ApiError::NoSuchPath));
    }
}
