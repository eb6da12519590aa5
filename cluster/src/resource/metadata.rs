//! `metadata` of any object: its name, its version, and what else is read of it.

use std::collections::{BTreeMap, btree_map};
use std::time::SystemTime;

use jiff::Timestamp;
use serde::Deserialize;
use serde::de::IgnoredAny;
use weft_types::well_known::label::{HEADLESS, SERVICE_PROXY_NAME};
use weft_types::{Labels, Name, NamespacedName, WireGuardEnd};

use super::values::label;
use crate::field::{Fault, Faults, Field};
use crate::filter::WatchFilter;
use crate::message::{Message, Type};

/// `ObjectMeta` of `meta/v1`.
pub(crate) const METADATA: Message = &[
    (1, "name", Type::Text),
    (3, "namespace", Type::Text),
    (5, "uid", Type::Text),
    (6, "resourceVersion", Type::Text),
    (8, "creationTimestamp", Type::Time),
    (9, "deletionTimestamp", Type::Time),
    (11, "labels", Type::Map),
    (12, "annotations", Type::Map),
];

/// `metadata` of an object.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct Metadata {
    pub(super) namespace: Field<String>,
    pub(super) name: Field<String>,
    pub(super) uid: Field<String>,
    pub(super) resource_version: Field<String>,
    pub(super) creation_timestamp: Field<String>,
    pub(super) deletion_timestamp: Field<IgnoredAny>,
    pub(super) labels: Field<Texts>,
    pub(super) annotations: Field<Annotations>,
}

/// The annotations that Weft reads.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Annotations {
    #[serde(rename = "endpoints.kubernetes.io/last-change-trigger-time")]
    last_change_trigger_time: Field<String>,
    /// The uid that a static pod has on its node; its object in the API has another one.
    #[serde(rename = "kubernetes.io/config.hash")]
    config_hash: Field<String>,
    /// At the bookmark that ends the initial events of a watch (KEP-3157).
    #[serde(rename = "k8s.io/initial-events-end")]
    initial_events_end: Field<String>,
    /// What a Service asks of its load balancer, in the words of MetalLB; and in those that it had before.
    #[serde(rename = "metallb.io/address-pool")]
    address_pool: Field<String>,
    #[serde(rename = "metallb.universe.tf/address-pool")]
    former_address_pool: Field<String>,
    #[serde(rename = "metallb.io/loadBalancerIPs")]
    load_balancer_ips: Field<String>,
    #[serde(rename = "metallb.universe.tf/loadBalancerIPs")]
    former_load_balancer_ips: Field<String>,
    #[serde(rename = "metallb.io/allow-shared-ip")]
    sharing_key: Field<String>,
    #[serde(rename = "metallb.universe.tf/allow-shared-ip")]
    former_sharing_key: Field<String>,
    /// What a node says of its end of the encrypted tunnel.
    #[serde(rename = "weft.internal/wireguard-public-key")]
    wireguard_key: Field<String>,
    #[serde(rename = "weft.internal/wireguard-endpoint")]
    wireguard_endpoint: Field<String>,
    #[serde(rename = "weft.internal/wireguard-retired-key")]
    wireguard_retired_key: Field<String>,
}

impl Annotations {
    /// The pool that a Service asks for.
    pub(super) fn address_pool(&self) -> Field<String> {
        present(&self.address_pool, &self.former_address_pool)
    }

    /// The addresses that a Service asks for.
    pub(super) fn load_balancer_ips(&self) -> Field<String> {
        present(&self.load_balancer_ips, &self.former_load_balancer_ips)
    }

    /// The key by which Services share an address.
    pub(super) fn sharing_key(&self) -> Field<String> {
        present(&self.sharing_key, &self.former_sharing_key)
    }

    /// A node's end of the encrypted tunnel.
    pub(super) fn wireguard(&self) -> Option<Box<WireGuardEnd>> {
        let text =
            |field: &Field<String>| if let Field::Is(text) = field { text.clone() } else { String::new() };
        let end = WireGuardEnd {
            key: text(&self.wireguard_key),
            endpoint: text(&self.wireguard_endpoint),
            retired_key: text(&self.wireguard_retired_key),
        };
        (end != WireGuardEnd::default()).then(|| Box::new(end))
    }
}

fn present(one: &Field<String>, former: &Field<String>) -> Field<String> {
    if one.is_present() { one.clone() } else { former.clone() }
}

/// The annotations of an object that mean something to Weft.
pub(super) fn annotations(metadata: &Field<Metadata>) -> Annotations {
    match metadata {
        Field::Is(Metadata { annotations: Field::Is(annotations), .. }) => annotations.clone(),
        _ => Annotations::default(),
    }
}

/// The uid of an object; empty for those that never were at an API server.
pub(super) fn uid(metadata: &Field<Metadata>) -> &str {
    match metadata {
        Field::Is(Metadata { uid: Field::Is(uid), .. }) => uid,
        _ => "",
    }
}

/// Labels by their keys; what is not a text costs only itself.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(transparent)]
pub(crate) struct Texts(BTreeMap<String, Field<String>>);

impl Texts {
    /// The value of one label.
    pub(super) fn get(&self, key: &str) -> Field<&String> {
        self.0.get(key).map_or(Field::Absent, Field::by_ref)
    }
}

impl IntoIterator for Texts {
    type Item = (String, Field<String>);
    type IntoIter = btree_map::IntoIter<String, Field<String>>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

/// Whether a Service, or an EndpointSlice, is for Weft's service proxy to serve (see
/// [`crate::WatchFilter::service_selector`]).
pub(super) fn is_proxied(metadata: &Field<Metadata>) -> bool {
    let Field::Is(Metadata { labels: Field::Is(labels), .. }) = metadata else { return true };
    ![SERVICE_PROXY_NAME, HEADLESS].into_iter().any(|key| labels.get(key).is_present())
}

/// The labels of an object, for the store; none where nobody asks for them.
pub(super) fn labels(metadata: Field<Metadata>, filter: &WatchFilter, faults: &mut Faults) -> Labels {
    let labels =
        metadata.or_default("metadata").and_then(|metadata| metadata.labels.or_default("metadata.labels"));
    let labels = faults.note(labels).filter(|_| filter.labels).unwrap_or_default();
    let label = |(key, value): (String, Field<String>)| {
        let value = faults.note(value.required(&format!("metadata.labels[{key}]")))?;
        Some((key, value))
    };
    labels.into_iter().filter_map(label).collect()
}

/// When the object came to be, in seconds since 1970. Objects that never were at an API server do not say.
pub(super) fn created(metadata: &Field<Metadata>) -> Result<i64, Fault> {
    let path = "metadata.creationTimestamp";
    let Some(metadata) = metadata.by_ref().optional("metadata")? else { return Ok(0) };
    let Some(text) = metadata.creation_timestamp.by_ref().optional(path)? else { return Ok(0) };
    let moment: Timestamp = text.parse().map_err(|_| Fault::new(path, format!("{text:?} is no moment")))?;
    Ok(moment.as_second())
}

/// The uid by which its node knows a pod; empty for objects that never were at an API server.
pub(super) fn uid_on_node(metadata: &Field<Metadata>) -> &str {
    let Field::Is(metadata) = metadata else { return "" };
    match (&metadata.annotations, &metadata.uid) {
        (Field::Is(Annotations { config_hash: Field::Is(hash), .. }), _) if !hash.is_empty() => hash,
        (_, Field::Is(uid)) => uid,
        _ => "",
    }
}

/// A kind's names, as its objects' metadata tells them.
pub(crate) trait ReadName: Name {
    /// The name of an object, whatever else is wrong with it.
    fn read(metadata: &Field<Metadata>) -> Result<Self::Owned, Fault>;
}

impl ReadName for str {
    fn read(metadata: &Field<Metadata>) -> Result<String, Fault> {
        non_empty(&metadata.by_ref().required("metadata")?.name, "metadata.name")
    }
}

impl ReadName for NamespacedName {
    fn read(metadata: &Field<Metadata>) -> Result<NamespacedName, Fault> {
        let name = str::read(metadata)?;
        let namespace = non_empty(&metadata.by_ref().required("metadata")?.namespace, "metadata.namespace")?;
        Ok(NamespacedName::new(label(namespace, "metadata.namespace")?, name))
    }
}

fn non_empty(field: &Field<String>, path: &str) -> Result<String, Fault> {
    let text = field.by_ref().required(path)?;
    if text.is_empty() { Err(Fault::new(path, "is empty")) } else { Ok(text.clone()) }
}

/// The version of the cluster's state that an object is of, to go on watching from.
pub(crate) fn resource_version(metadata: &Field<Metadata>) -> Option<&str> {
    match metadata {
        Field::Is(Metadata { resource_version: Field::Is(version), .. }) if !version.is_empty() => {
            Some(version)
        }
        _ => None,
    }
}

/// Whether the metadata is of a bookmark that says that the initial events are complete.
pub(crate) fn ends_initial_events(metadata: &Field<Metadata>) -> bool {
    let Field::Is(Metadata { annotations: Field::Is(annotations), .. }) = metadata else { return false };
    matches!(&annotations.initial_events_end, Field::Is(value) if value == "true")
}

/// When that happened which made the control plane write an EndpointSlice, where it says so.
pub(crate) fn triggered(metadata: &Field<Metadata>) -> Option<SystemTime> {
    let Field::Is(Metadata { annotations: Field::Is(annotations), .. }) = metadata else { return None };
    let Field::Is(text) = &annotations.last_change_trigger_time else { return None };
    text.parse::<Timestamp>().ok().map(SystemTime::from)
}
