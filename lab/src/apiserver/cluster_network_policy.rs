//! The shape of ClusterNetworkPolicies (policy.networking.k8s.io/v1alpha2), which the client library does not
//! have. Fields that a cluster's definition of the kind has not are pruned, as everywhere.

use k8s_openapi::ClusterResourceScope;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, LabelSelector, ObjectMeta};
use serde::{Deserialize, Serialize};

/// A ClusterNetworkPolicy.
#[derive(Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ClusterNetworkPolicy {
    api_version: String,
    kind: String,
    metadata: ObjectMeta,
    spec: Spec,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<Status>,
}

impl k8s_openapi::Resource for ClusterNetworkPolicy {
    const API_VERSION: &'static str = "policy.networking.k8s.io/v1alpha2";
    const GROUP: &'static str = "policy.networking.k8s.io";
    const KIND: &'static str = "ClusterNetworkPolicy";
    const VERSION: &'static str = "v1alpha2";
    const URL_PATH_SEGMENT: &'static str = "clusternetworkpolicies";
    type Scope = ClusterResourceScope;
}

#[derive(Deserialize, Serialize)]
struct Spec {
    tier: String,
    priority: i32,
    subject: Pods,
    #[serde(skip_serializing_if = "Option::is_none")]
    ingress: Option<Vec<Rule>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    egress: Option<Vec<Rule>>,
}

#[derive(Deserialize, Serialize)]
struct Status {
    #[serde(default)]
    conditions: Vec<Condition>,
}

/// Pods, by their namespaces or by both.
#[derive(Deserialize, Serialize)]
struct Pods {
    #[serde(skip_serializing_if = "Option::is_none")]
    namespaces: Option<LabelSelector>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pods: Option<NamespacedPod>,
}

#[derive(Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
struct NamespacedPod {
    #[serde(default)]
    namespace_selector: LabelSelector,
    pod_selector: LabelSelector,
}

/// A rule: `from` of an ingress rule, `to` of an egress rule.
#[derive(Deserialize, Serialize)]
struct Rule {
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    action: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    from: Option<Vec<Peer>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    to: Option<Vec<Peer>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    protocols: Option<Vec<Protocol>>,
}

#[derive(Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
struct Peer {
    #[serde(skip_serializing_if = "Option::is_none")]
    namespaces: Option<LabelSelector>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pods: Option<NamespacedPod>,
    #[serde(skip_serializing_if = "Option::is_none")]
    nodes: Option<LabelSelector>,
    #[serde(skip_serializing_if = "Option::is_none")]
    networks: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    domain_names: Option<Vec<String>>,
}

#[derive(Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
struct Protocol {
    #[serde(skip_serializing_if = "Option::is_none")]
    tcp: Option<Ports>,
    #[serde(skip_serializing_if = "Option::is_none")]
    udp: Option<Ports>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sctp: Option<Ports>,
    #[serde(skip_serializing_if = "Option::is_none")]
    destination_named_port: Option<String>,
}

#[derive(Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
struct Ports {
    #[serde(skip_serializing_if = "Option::is_none")]
    destination_port: Option<Port>,
}

#[derive(Deserialize, Serialize)]
struct Port {
    #[serde(skip_serializing_if = "Option::is_none")]
    number: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    range: Option<Range>,
}

#[derive(Deserialize, Serialize)]
struct Range {
    start: i32,
    end: i32,
}
