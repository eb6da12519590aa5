//! The objects of the Kubernetes API as they travel, trimmed to the fields that Weft reads. Everything else
//! (managed fields, other labels and annotations) is read past and never held. What the fields mean is in `convert`.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::{DeserializeOwned, IgnoredAny};
use weft_types::{Kind, Object};

use crate::field::{Fault, Faults, Field};
use crate::view::Scope;

/// A kind of object that can be listed and watched.
pub(crate) trait Wire: Clone + DeserializeOwned + Send + 'static {
    /// The kind as the snapshot has it.
    const KIND: Kind;
    /// The collection's path at the API server, over all namespaces.
    const PATH: &'static str;
    /// Whether the label selector of a [`crate::View`] applies to this kind.
    const VIEWED: bool;
    /// Whether an API server may lack this kind, or not show it to us. Then there are none.
    const OPTIONAL: bool = false;
    /// Objects per page of a list: bounds the memory that a list takes while it is read.
    const PAGE: u32 = 500;

    /// The path of what a scope leaves of the collection.
    fn path(_scope: &Scope) -> Cow<'static, str> {
        Cow::Borrowed(Self::PATH)
    }

    /// The field selector of a scope.
    fn fields(_scope: &Scope) -> Option<String> {
        None
    }

    /// The object's metadata.
    fn metadata(&self) -> &Field<Metadata>;

    /// What the object says; nothing if it is of no concern. Elements that cannot be used are left out, and go to `faults`.
    ///
    /// # Errors
    /// What makes the object useless altogether.
    fn convert(self, faults: &mut Faults) -> Result<Option<Object>, Fault>;
}

/// `metadata` of any object.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct Metadata {
    pub(crate) namespace: Field<String>,
    pub(crate) name: Field<String>,
    pub(crate) resource_version: Field<String>,
    pub(crate) creation_timestamp: Field<String>,
    pub(crate) deletion_timestamp: Field<IgnoredAny>,
    pub(crate) labels: Field<Labels>,
    pub(crate) annotations: Field<Annotations>,
}

/// The annotation that Weft reads.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Annotations {
    #[serde(rename = "endpoints.kubernetes.io/last-change-trigger-time")]
    pub(crate) last_change_trigger_time: Field<String>,
}

/// The labels that Weft reads.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Labels {
    #[serde(rename = "kubernetes.io/service-name")]
    pub(crate) service_name: Field<String>,
    #[serde(rename = "service.kubernetes.io/service-proxy-name")]
    pub(crate) service_proxy_name: Field<IgnoredAny>,
    #[serde(rename = "service.kubernetes.io/headless")]
    pub(crate) headless: Field<IgnoredAny>,
    #[serde(rename = "topology.kubernetes.io/zone")]
    pub(crate) zone: Field<String>,
}

/// v1 Service
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Service {
    pub(crate) metadata: Field<Metadata>,
    pub(crate) spec: Field<ServiceSpec>,
    pub(crate) status: Field<ServiceStatus>,
}

/// `spec` of a Service.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct ServiceSpec {
    #[serde(rename = "type")]
    pub(crate) type_: Field<String>,
    #[serde(rename = "clusterIP")]
    pub(crate) cluster_ip: Field<String>,
    #[serde(rename = "clusterIPs")]
    pub(crate) cluster_ips: Field<Vec<Field<String>>>,
    pub(crate) external_name: Field<String>,
    #[serde(rename = "externalIPs")]
    pub(crate) external_ips: Field<Vec<Field<String>>>,
    pub(crate) internal_traffic_policy: Field<String>,
    pub(crate) external_traffic_policy: Field<String>,
    pub(crate) load_balancer_source_ranges: Field<Vec<Field<String>>>,
    pub(crate) session_affinity: Field<String>,
    pub(crate) session_affinity_config: Field<SessionAffinityConfig>,
    pub(crate) health_check_node_port: Field<u16>,
    pub(crate) ports: Field<Vec<Field<ServicePort>>>,
}

/// `spec.sessionAffinityConfig` of a Service.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct SessionAffinityConfig {
    #[serde(rename = "clientIP")]
    pub(crate) client_ip: Field<ClientIpConfig>,
}

/// `spec.sessionAffinityConfig.clientIP` of a Service.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct ClientIpConfig {
    pub(crate) timeout_seconds: Field<u32>,
}

/// `status` of a Service.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct ServiceStatus {
    pub(crate) load_balancer: Field<LoadBalancerStatus>,
}

/// `status.loadBalancer` of a Service.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct LoadBalancerStatus {
    pub(crate) ingress: Field<Vec<Field<LoadBalancerIngress>>>,
}

/// One of `status.loadBalancer.ingress` of a Service.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct LoadBalancerIngress {
    pub(crate) ip: Field<String>,
    pub(crate) ip_mode: Field<String>,
}

/// One of `spec.ports` of a Service.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct ServicePort {
    pub(crate) name: Field<String>,
    pub(crate) protocol: Field<String>,
    pub(crate) port: Field<u16>,
    pub(crate) node_port: Field<u16>,
}

/// discovery.k8s.io/v1 EndpointSlice
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct EndpointSlice {
    pub(crate) metadata: Field<Metadata>,
    pub(crate) address_type: Field<String>,
    pub(crate) endpoints: Field<Vec<Field<Endpoint>>>,
    pub(crate) ports: Field<Vec<Field<EndpointPort>>>,
}

/// One of `endpoints` of an EndpointSlice.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct Endpoint {
    pub(crate) addresses: Field<Vec<Field<String>>>,
    pub(crate) conditions: Field<EndpointConditions>,
    pub(crate) hostname: Field<String>,
    pub(crate) node_name: Field<String>,
    pub(crate) hints: Field<EndpointHints>,
}

/// `hints` of an endpoint.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct EndpointHints {
    pub(crate) for_nodes: Field<Vec<Field<Named>>>,
    pub(crate) for_zones: Field<Vec<Field<Named>>>,
}

/// A name in a list of hints.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Named {
    pub(crate) name: Field<String>,
}

/// `conditions` of an endpoint.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct EndpointConditions {
    pub(crate) ready: Field<bool>,
    pub(crate) serving: Field<bool>,
    pub(crate) terminating: Field<bool>,
}

/// One of `ports` of an EndpointSlice.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct EndpointPort {
    pub(crate) name: Field<String>,
    pub(crate) protocol: Field<String>,
    pub(crate) port: Field<u16>,
}

/// v1 Node
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Node {
    pub(crate) metadata: Field<Metadata>,
    pub(crate) spec: Field<NodeSpec>,
    pub(crate) status: Field<NodeStatus>,
}

/// `spec` of a Node.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct NodeSpec {
    #[serde(rename = "podCIDR")]
    pub(crate) pod_cidr: Field<String>,
    #[serde(rename = "podCIDRs")]
    pub(crate) pod_cidrs: Field<Vec<Field<String>>>,
    pub(crate) taints: Field<Vec<Field<Taint>>>,
}

/// One of `spec.taints` of a Node.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Taint {
    pub(crate) key: Field<String>,
}

/// `status` of a Node.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct NodeStatus {
    pub(crate) addresses: Field<Vec<Field<NodeAddress>>>,
}

/// One of `status.addresses` of a Node.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct NodeAddress {
    #[serde(rename = "type")]
    pub(crate) type_: Field<String>,
    pub(crate) address: Field<String>,
}

/// v1 Namespace
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Namespace {
    pub(crate) metadata: Field<Metadata>,
}

/// networking.k8s.io/v1 ServiceCIDR
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct ServiceCidr {
    pub(crate) metadata: Field<Metadata>,
    pub(crate) spec: Field<ServiceCidrSpec>,
}

/// `spec` of a ServiceCIDR.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct ServiceCidrSpec {
    pub(crate) cidrs: Field<Vec<Field<String>>>,
}

/// v1 Pod
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Pod {
    pub(crate) metadata: Field<Metadata>,
    pub(crate) spec: Field<PodSpec>,
    pub(crate) status: Field<PodStatus>,
}

/// `spec` of a Pod.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct PodSpec {
    pub(crate) host_network: Field<bool>,
    pub(crate) dns_policy: Field<String>,
    pub(crate) dns_config: Field<DnsConfig>,
}

/// `spec.dnsConfig` of a Pod.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct DnsConfig {
    pub(crate) searches: Field<Vec<IgnoredAny>>,
}

/// `status` of a Pod.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct PodStatus {
    pub(crate) phase: Field<String>,
    #[serde(rename = "podIP")]
    pub(crate) pod_ip: Field<String>,
    #[serde(rename = "podIPs")]
    pub(crate) pod_ips: Field<Vec<Field<PodIp>>>,
}

/// One of `status.podIPs` of a Pod.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct PodIp {
    pub(crate) ip: Field<String>,
}

/// v1 ConfigMap
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct ConfigMap {
    pub(crate) metadata: Field<Metadata>,
    pub(crate) data: Field<BTreeMap<String, Field<String>>>,
}

/// A list of objects, or one page of it.
#[derive(Clone, Debug, Deserialize)]
#[serde(default)]
pub(crate) struct List<W> {
    pub(crate) metadata: ListMetadata,
    pub(crate) items: Field<Vec<Field<W>>>,
}

/// `metadata` of a list.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct ListMetadata {
    pub(crate) resource_version: Field<String>,
    #[serde(rename = "continue")]
    pub(crate) continue_: Field<String>,
}

impl<W> Default for List<W> {
    fn default() -> Self {
        List { metadata: ListMetadata::default(), items: Field::Absent }
    }
}
