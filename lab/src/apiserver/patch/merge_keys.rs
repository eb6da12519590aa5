//! Which lists of the built-in kinds are merged by a key, as the `x-kubernetes-patch-merge-key` and
//! `x-kubernetes-patch-strategy` marks of the Kubernetes API say. Every other list is replaced whole.

use serde_json::Value;

/// How a patch changes a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ListStrategy {
    /// The patch's list replaces it.
    Replace,
    /// Items with the same value of this field are merged, others added.
    MergeBy(&'static str),
    /// A set of plain values: those of the patch are added.
    Union,
}

/// The strategy of the list `field` of an object of that kind. `patch` is what the patch has for it: the
/// ports of a container and of a Service have different keys.
pub(super) fn strategy(kind: &str, parent: &str, field: &str, patch: &[Value]) -> ListStrategy {
    use ListStrategy::{MergeBy, Replace, Union};
    match (field, parent) {
        ("finalizers", "metadata") | ("podCIDRs", "spec") => Union,
        ("ownerReferences", "metadata") => MergeBy("uid"),
        ("conditions", "status") => MergeBy("type"),
        ("addresses", "status") if kind == "Node" => MergeBy("type"),
        ("containers" | "initContainers" | "ephemeralContainers" | "volumes" | "imagePullSecrets", _) => {
            MergeBy("name")
        }
        ("env", _) => MergeBy("name"),
        ("volumeMounts", _) => MergeBy("mountPath"),
        ("volumeDevices", _) => MergeBy("devicePath"),
        ("hostAliases" | "podIPs" | "hostIPs", _) => MergeBy("ip"),
        ("topologySpreadConstraints", _) => MergeBy("topologyKey"),
        ("resourceClaims", "spec") => MergeBy("name"),
        ("secrets", "") if kind == "ServiceAccount" => MergeBy("name"),
        ("ports", "spec") if kind == "Service" => MergeBy("port"),
        ("ports", "containers" | "initContainers" | "ephemeralContainers") => MergeBy("containerPort"),
        _ if patch.iter().any(|item| item.get("$patch").is_some()) => guess(patch),
        _ => Replace,
    }
}

/// A list of an unknown field that nevertheless has directives: by its items' name, if they have one.
fn guess(patch: &[Value]) -> ListStrategy {
    match patch.iter().any(|item| item.get("name").is_some()) {
        true => ListStrategy::MergeBy("name"),
        false => ListStrategy::Replace,
    }
}
