//! The kinds that the API server knows, one row each. How a kind is defaulted, validated, printed or
//! controlled is said elsewhere; this file only names it.

use k8s_openapi::api::apps::v1::{ControllerRevision, DaemonSet, Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{
    ConfigMap, Endpoints, Event, Namespace, Node, Pod, Secret, Service, ServiceAccount,
};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::{NetworkPolicy, ServiceCIDR};
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, Role, RoleBinding};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::cluster_network_policy::ClusterNetworkPolicy;
use super::ipam_block::IpamBlock;

/// One kind of object that the server stores.
#[derive(Debug)]
pub(crate) struct Resource {
    /// The API group; empty for the core group.
    pub(crate) group: &'static str,
    /// The version within the group.
    pub(crate) version: &'static str,
    /// `group/version`, or the version alone in the core group.
    pub(crate) api_version: &'static str,
    /// The kind, as objects carry it.
    pub(crate) kind: &'static str,
    /// The plural, as URLs carry it. Unique in the table.
    pub(crate) plural: &'static str,
    /// The singular, as people type it.
    pub(crate) singular: &'static str,
    /// Abbreviations, as people type them.
    pub(crate) short: &'static [&'static str],
    /// Does an object of this kind live in a namespace?
    pub(crate) namespaced: bool,
    /// Which subresources it has.
    pub(crate) status: Status,
    /// Does it have the `scale` subresource?
    pub(crate) scale: bool,
    /// Is it part of `kubectl get all`?
    pub(crate) in_all: bool,
    /// Reads a value as this kind and writes it again; says where it cannot be of the kind. Fields that the
    /// kind does not have are lost in between.
    pub(crate) decode: fn(&Value) -> Result<Value, String>,
}

/// What becomes of `.status` in writes to the main resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Status {
    /// The kind has none, or it is a field like others.
    None,
    /// Written through the `status` subresource alone.
    Separate,
    /// The same, but a create may carry it: a kubelet registers its Node in one request.
    SeparateAfterCreate,
}

impl Resource {
    /// `plural.group`, or the plural alone in the core group, as messages name a resource.
    pub(crate) fn qualified(&self) -> String {
        match self.group {
            "" => self.plural.to_owned(),
            group => format!("{}.{group}", self.plural),
        }
    }

    const fn short(mut self, short: &'static [&'static str]) -> Self {
        self.short = short;
        self
    }

    const fn status(mut self, status: Status) -> Self {
        self.status = status;
        self
    }

    const fn scale(mut self) -> Self {
        self.scale = true;
        self
    }

    const fn in_all(mut self) -> Self {
        self.in_all = true;
        self
    }
}

const fn namespaced<K: k8s_openapi::Resource + DeserializeOwned + Serialize>(
    singular: &'static str,
) -> Resource {
    Resource {
        group: K::GROUP,
        version: K::VERSION,
        api_version: K::API_VERSION,
        kind: K::KIND,
        plural: K::URL_PATH_SEGMENT,
        singular,
        short: &[],
        namespaced: true,
        status: Status::None,
        scale: false,
        in_all: false,
        decode: decode::<K>,
    }
}

const fn cluster<K: k8s_openapi::Resource + DeserializeOwned + Serialize>(
    singular: &'static str,
) -> Resource {
    let mut row = namespaced::<K>(singular);
    row.namespaced = false;
    row
}

fn decode<K: DeserializeOwned + Serialize>(value: &Value) -> Result<Value, String> {
    K::deserialize(value).and_then(serde_json::to_value).map_err(|error| error.to_string())
}

/// Every kind that the server stores.
pub(crate) static RESOURCES: &[Resource] = &[
    cluster::<Namespace>("namespace").short(&["ns"]).status(Status::Separate),
    cluster::<Node>("node").short(&["no"]).status(Status::SeparateAfterCreate),
    namespaced::<Pod>("pod").short(&["po"]).status(Status::Separate).in_all(),
    namespaced::<Service>("service").short(&["svc"]).status(Status::Separate).in_all(),
    namespaced::<Endpoints>("endpoints").short(&["ep"]),
    namespaced::<ConfigMap>("configmap").short(&["cm"]),
    namespaced::<Secret>("secret"),
    namespaced::<ServiceAccount>("serviceaccount").short(&["sa"]),
    namespaced::<Event>("event").short(&["ev"]),
    namespaced::<EndpointSlice>("endpointslice"),
    namespaced::<Deployment>("deployment").short(&["deploy"]).status(Status::Separate).scale().in_all(),
    namespaced::<ReplicaSet>("replicaset").short(&["rs"]).status(Status::Separate).scale().in_all(),
    namespaced::<StatefulSet>("statefulset").short(&["sts"]).status(Status::Separate).scale().in_all(),
    namespaced::<DaemonSet>("daemonset").short(&["ds"]).status(Status::Separate).in_all(),
    namespaced::<ControllerRevision>("controllerrevision"),
    namespaced::<Lease>("lease"),
    namespaced::<NetworkPolicy>("networkpolicy").short(&["netpol"]),
    cluster::<ClusterNetworkPolicy>("clusternetworkpolicy").short(&["cnp"]).status(Status::Separate),
    cluster::<IpamBlock>("ipamblock").short(&["ipb"]),
    cluster::<ServiceCIDR>("servicecidr").status(Status::Separate),
    namespaced::<Role>("role"),
    namespaced::<RoleBinding>("rolebinding"),
    cluster::<ClusterRole>("clusterrole"),
    cluster::<ClusterRoleBinding>("clusterrolebinding"),
    // Kept alone: the kinds that are defined are not served.
    cluster::<CustomResourceDefinition>("customresourcedefinition")
        .short(&["crd", "crds"])
        .status(Status::Separate),
];

/// Finds the resource of a URL.
pub(crate) fn by_path(group: &str, version: &str, plural: &str) -> Option<&'static Resource> {
    RESOURCES.iter().find(|row| row.group == group && row.version == version && row.plural == plural)
}

/// Finds the resource of an object or of a reference to one.
pub(crate) fn by_kind(api_version: &str, kind: &str) -> Option<&'static Resource> {
    RESOURCES.iter().find(|row| row.api_version == api_version && row.kind == kind)
}

/// The row of a plural that this program itself names.
///
/// # Panics
/// When the table has no such row.
pub(crate) fn named(plural: &str) -> &'static Resource {
    RESOURCES.iter().find(|row| row.plural == plural).expect("a plural of the table")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn plurals_are_unique_so_that_they_can_be_keys() {
        let mut plurals: Vec<_> = RESOURCES.iter().map(|row| row.plural).collect();
        plurals.sort_unstable();
        plurals.dedup();
        assert_eq!(plurals.len(), RESOURCES.len());
    }

    #[test]
    fn a_row_takes_its_names_from_the_kind() {
        let row = by_path("apps", "v1", "deployments").unwrap();
        assert_eq!((row.kind, row.api_version), ("Deployment", "apps/v1"));
        assert_eq!(row.qualified(), "deployments.apps");
        assert!(by_path("", "v1", "deployments").is_none());
    }

    #[test]
    fn a_value_of_the_wrong_shape_is_told_apart() {
        let mut service =
            json!({"apiVersion": "v1", "kind": "Service", "metadata": {}, "spec": {"ports": [{"port": 80}]}});
        assert_eq!((named("services").decode)(&service), Ok(service.clone()));
        service["spec"]["ports"][0]["port"] = json!("eighty");
        assert!((named("services").decode)(&service).unwrap_err().contains("eighty"));
    }
}
