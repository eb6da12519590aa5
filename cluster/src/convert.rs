//! From trimmed API objects to Weft's own types. The rules of Kubernetes about defaults and what to ignore are
//! obeyed here and nowhere else; a value that comes out is valid, so nobody has to ask again.
//!
//! Nothing here is I/O, and nothing is remembered from one object to the next.

use std::borrow::Cow;
use std::fmt;
use std::num::NonZeroU16;
use std::time::SystemTime;

use jiff::Timestamp;
use tracing::warn;
use weft_types::{
    ConfigMap, Kind, Namespace, NamespacedName, Object, ObjectKey, Protocol, ServiceCidr, is_dns_label,
};

use crate::field::{Fault, Faults, Field};
use crate::view::{Scope, View};
use crate::wire::{self, Metadata, Wire};

mod address;
mod endpoint_slice;
mod node;
mod pod;
mod service;

use address::{address, network};

/// What one object from outside comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Reading {
    /// An object of Weft's vocabulary.
    Object(Object),
    /// An object of which some elements cannot be used. They are left out.
    InPart(Object, Malformed),
    /// An object that is of no concern, such as an EndpointSlice of host names.
    Ignored(ObjectKey),
    /// An object that breaks the rules of its kind.
    Malformed(Malformed),
}

/// An object that cannot be used as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Malformed {
    /// Its kind.
    pub(crate) kind: Kind,
    /// Its name, if it has a usable one.
    pub(crate) key: Option<ObjectKey>,
    /// What is wrong.
    pub(crate) faults: Faults,
    /// Whether all else of it is used.
    pub(crate) in_part: bool,
}

impl Malformed {
    fn new<W: Wire>(key: Option<ObjectKey>, mut faults: Faults, fault: Fault) -> Malformed {
        faults.add(fault);
        Malformed { kind: W::KIND, key, faults, in_part: false }
    }

    /// Writes it to the log.
    pub(crate) fn tell(&self) {
        match self.in_part {
            true => warn!("left out of {self}"),
            false => warn!("left out: {self}"),
        }
    }
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} ", self.kind)?;
        match &self.key {
            Some(
                ObjectKey::Service(key)
                | ObjectKey::EndpointSlice(key)
                | ObjectKey::Pod(key)
                | ObjectKey::ConfigMap(key),
            ) => write!(f, "{key}")?,
            Some(ObjectKey::Node(name) | ObjectKey::Namespace(name) | ObjectKey::ServiceCidr(name)) => {
                write!(f, "{name}")?;
            }
            None => f.write_str("without a usable name")?,
        }
        write!(f, ": {}", self.faults)
    }
}

impl Wire for wire::Service {
    const KIND: Kind = Kind::Service;
    const PATH: &'static str = "/api/v1/services";
    const VIEWED: bool = true;

    fn metadata(&self) -> &Field<Metadata> {
        &self.metadata
    }

    fn convert(self, faults: &mut Faults) -> Result<Option<Object>, Fault> {
        service::convert(named(&self.metadata)?, self, faults).map(|service| Some(Object::Service(service)))
    }
}

impl Wire for wire::EndpointSlice {
    const KIND: Kind = Kind::EndpointSlice;
    const PATH: &'static str = "/apis/discovery.k8s.io/v1/endpointslices";
    const VIEWED: bool = true;

    fn metadata(&self) -> &Field<Metadata> {
        &self.metadata
    }

    fn convert(self, faults: &mut Faults) -> Result<Option<Object>, Fault> {
        Ok(endpoint_slice::convert(named(&self.metadata)?, self, faults)?.map(Object::EndpointSlice))
    }
}

impl Wire for wire::Node {
    const KIND: Kind = Kind::Node;
    const PATH: &'static str = "/api/v1/nodes";
    const VIEWED: bool = false;
    // A Node tells all the images that it has: 10 KB and more, of which nothing is read.
    const PAGE: u32 = 50;

    fn metadata(&self) -> &Field<Metadata> {
        &self.metadata
    }

    fn convert(self, faults: &mut Faults) -> Result<Option<Object>, Fault> {
        node::convert(name(&self.metadata)?, self, faults).map(|node| Some(Object::Node(node)))
    }
}

impl Wire for wire::Namespace {
    const KIND: Kind = Kind::Namespace;
    const PATH: &'static str = "/api/v1/namespaces";
    const VIEWED: bool = false;

    fn metadata(&self) -> &Field<Metadata> {
        &self.metadata
    }

    fn convert(self, _faults: &mut Faults) -> Result<Option<Object>, Fault> {
        Ok(Some(Object::Namespace(Namespace::new(label(name(&self.metadata)?, "metadata.name")?))))
    }
}

impl Wire for wire::ServiceCidr {
    const KIND: Kind = Kind::ServiceCidr;
    const PATH: &'static str = "/apis/networking.k8s.io/v1/servicecidrs";
    const VIEWED: bool = false;
    const OPTIONAL: bool = true;

    fn metadata(&self) -> &Field<Metadata> {
        &self.metadata
    }

    fn convert(self, faults: &mut Faults) -> Result<Option<Object>, Fault> {
        let cidrs = self.spec.required("spec")?.cidrs;
        let cidrs = each(cidrs, "spec.cidrs", faults, |text, _| network(&text, ""));
        Ok(Some(Object::ServiceCidr(ServiceCidr { name: name(&self.metadata)?, cidrs })))
    }
}

impl Wire for wire::Pod {
    const KIND: Kind = Kind::Pod;
    const PATH: &'static str = "/api/v1/pods";
    const VIEWED: bool = false;

    fn fields(scope: &Scope) -> Option<String> {
        let running = "status.phase!=Succeeded,status.phase!=Failed";
        let of_node = |node| format!("{running},spec.nodeName={node}");
        Some(scope.node.as_ref().map_or(running.to_owned(), of_node))
    }

    fn metadata(&self) -> &Field<Metadata> {
        &self.metadata
    }

    fn convert(self, faults: &mut Faults) -> Result<Option<Object>, Fault> {
        Ok(pod::convert(named(&self.metadata)?, self, faults)?.map(Object::Pod))
    }
}

impl Wire for wire::ConfigMap {
    const KIND: Kind = Kind::ConfigMap;
    const PATH: &'static str = "/api/v1/configmaps";
    const VIEWED: bool = false;

    fn path(scope: &Scope) -> Cow<'static, str> {
        let of_namespace = |key: &NamespacedName| format!("/api/v1/namespaces/{}/configmaps", key.namespace);
        scope.config_map.as_ref().map_or(Cow::Borrowed(Self::PATH), |key| of_namespace(key).into())
    }

    fn fields(scope: &Scope) -> Option<String> {
        scope.config_map.as_ref().map(|key| format!("metadata.name={}", key.name))
    }

    fn metadata(&self) -> &Field<Metadata> {
        &self.metadata
    }

    // The settings in it belong together.
    fn convert(self, _faults: &mut Faults) -> Result<Option<Object>, Fault> {
        let data = self.data.or_default("data")?.into_iter();
        let value = |(key, text): (String, Field<String>)| {
            let text = text.required(&format!("data[{key}]"))?;
            Ok((key, text))
        };
        let data = data.map(value).collect::<Result<_, Fault>>()?;
        Ok(Some(Object::ConfigMap(ConfigMap { key: named(&self.metadata)?, data })))
    }
}

/// Reads one object.
pub(crate) fn read<W: Wire>(object: W, view: View) -> Reading {
    let key = match key(&object) {
        Ok(key) => key,
        Err(fault) => return Reading::Malformed(Malformed::new::<W>(None, Faults::default(), fault)),
    };
    if W::VIEWED && hidden(object.metadata(), view) {
        return Reading::Ignored(key);
    }
    let mut faults = Faults::default();
    match object.convert(&mut faults) {
        Ok(Some(object)) if faults.is_empty() => Reading::Object(view.of(object)),
        Ok(Some(object)) => {
            let malformed = Malformed { kind: W::KIND, key: Some(key), faults, in_part: true };
            Reading::InPart(view.of(object), malformed)
        }
        Ok(None) => Reading::Ignored(key),
        Err(fault) => Reading::Malformed(Malformed::new::<W>(Some(key), faults, fault)),
    }
}

/// Reads one object of a list, where even the object may be no object.
pub(crate) fn read_item<W: Wire>(item: Field<W>, view: View) -> Reading {
    match item.required("items") {
        Ok(object) => read(object, view),
        Err(fault) => Reading::Malformed(Malformed::new::<W>(None, Faults::default(), fault)),
    }
}

/// The name of an object, whatever else is wrong with it.
pub(crate) fn key<W: Wire>(object: &W) -> Result<ObjectKey, Fault> {
    let metadata = object.metadata();
    Ok(match W::KIND {
        Kind::Service => ObjectKey::Service(named(metadata)?),
        Kind::EndpointSlice => ObjectKey::EndpointSlice(named(metadata)?),
        Kind::Node => ObjectKey::Node(name(metadata)?),
        Kind::Namespace => ObjectKey::Namespace(name(metadata)?),
        Kind::ServiceCidr => ObjectKey::ServiceCidr(name(metadata)?),
        Kind::Pod => ObjectKey::Pod(named(metadata)?),
        Kind::ConfigMap => ObjectKey::ConfigMap(named(metadata)?),
    })
}

/// The version of the cluster's state that an object is of, to go on watching from.
pub(crate) fn resource_version<W: Wire>(object: &W) -> Option<&str> {
    match object.metadata() {
        Field::Is(Metadata { resource_version: Field::Is(version), .. }) => Some(version),
        _ => None,
    }
}

/// When that happened which made the control plane write an EndpointSlice, where it says so.
pub(crate) fn triggered<W: Wire>(object: &W) -> Option<SystemTime> {
    let Field::Is(Metadata { annotations: Field::Is(annotations), .. }) = object.metadata() else {
        return None;
    };
    let Field::Is(text) = &annotations.last_change_trigger_time else { return None };
    text.parse::<Timestamp>().ok().map(SystemTime::from)
}

/// Whether the view leaves an object with these labels out.
fn hidden(metadata: &Field<Metadata>, view: View) -> bool {
    let Field::Is(Metadata { labels: Field::Is(labels), .. }) = metadata else { return false };
    view == View::Proxied && (labels.service_proxy_name.is_present() || labels.headless.is_present())
}

/// The name of an object that has no namespace.
fn name(metadata: &Field<Metadata>) -> Result<String, Fault> {
    non_empty(&metadata.by_ref().required("metadata")?.name, "metadata.name")
}

/// The namespace and name of an object that has both.
fn named(metadata: &Field<Metadata>) -> Result<NamespacedName, Fault> {
    let name = name(metadata)?;
    let namespace = non_empty(&metadata.by_ref().required("metadata")?.namespace, "metadata.namespace")?;
    Ok(NamespacedName::new(label(namespace, "metadata.namespace")?, name))
}

fn non_empty(field: &Field<String>, path: &str) -> Result<String, Fault> {
    let text = field.by_ref().required(path)?;
    if text.is_empty() { Err(Fault::new(path, "is empty")) } else { Ok(text.clone()) }
}

/// A text that becomes one label of a DNS name, and so has to be fit for it.
fn label(text: String, path: &str) -> Result<String, Fault> {
    if is_dns_label(&text) {
        Ok(text)
    } else {
        Err(Fault::new(path, format!("{text:?} is no DNS label (1 to 63 of a-z, 0-9 and -)")))
    }
}

/// The name of a port, which may be empty.
fn port_name(field: Field<String>) -> Result<String, Fault> {
    let name = field.or_default("name")?;
    if name.is_empty() { Ok(name) } else { label(name, "name") }
}

/// The protocol of a port: TCP where none is given.
fn protocol(field: Field<String>) -> Result<Protocol, Fault> {
    let Some(text) = field.optional("protocol")?.filter(|text| !text.is_empty()) else {
        return Ok(Protocol::Tcp);
    };
    text.parse().map_err(|error| Fault::new("protocol", format!("{error}")))
}

/// A port number, where 0 means none.
fn port(field: Field<u16>, path: &str) -> Result<Option<NonZeroU16>, Fault> {
    Ok(field.optional(path)?.and_then(NonZeroU16::new))
}

/// Converts every element of a list. What cannot be used of it is left out, and each fault is told with its place.
fn each<T, U>(
    list: Field<Vec<Field<T>>>,
    path: &str,
    faults: &mut Faults,
    convert: impl Fn(T, &mut Faults) -> Result<U, Fault>,
) -> Vec<U> {
    let list = faults.note(list.or_default(path)).unwrap_or_default();
    // Not collected, which would convert in place and keep the room of what was read: several times what is needed. Given
    // back later, it would leave holes between what stays.
    let mut converted = Vec::with_capacity(list.len());
    for (place, element) in list.into_iter().enumerate() {
        let mut inner = Faults::default();
        let element = element.required("").and_then(|element| convert(element, &mut inner));
        converted.extend(inner.note(element));
        if !inner.is_empty() {
            faults.add_within(format_args!("{path}[{place}]"), inner);
        }
    }
    converted
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    /// Names and values of fields.
    const WORDS: &str = "metadata namespace name labels kubernetes.io/service-name spec type clusterIP clusterIPs \
        externalName ports port protocol nodePort addressType endpoints addresses address conditions ready hostname \
        nodeName podCIDR podCIDRs status NodePort ExternalName None UDP IPv4 InternalIP 10.96.0.1 10.244.1.0/24 fd00::/64";

    /// JSON of the fields' names and of values that some of them take, put together without sense.
    fn json() -> impl Strategy<Value = Value> {
        let word =
            || prop::sample::select(WORDS.split_whitespace().collect::<Vec<_>>()).prop_map(str::to_owned);
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i32>().prop_map(Value::from),
            any::<u16>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            word().prop_map(Value::from),
            ".*".prop_map(Value::from),
        ];
        leaf.prop_recursive(6, 64, 8, move |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map(word(), inner, 0..8)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    fn read_text<W: Wire>(text: &str) -> Reading {
        let item = serde_json::from_str::<Field<W>>(text).expect("reading a field never fails");
        read_item(item, View::Whole)
    }

    proptest! {
        #[test]
        fn any_json_comes_to_something(value in json()) {
            let text = value.to_string();
            let readings = [
                read_text::<wire::Service>(&text),
                read_text::<wire::EndpointSlice>(&text),
                read_text::<wire::Node>(&text),
                read_text::<wire::Namespace>(&text),
                read_text::<wire::ServiceCidr>(&text),
                read_text::<wire::Pod>(&text),
                read_text::<wire::ConfigMap>(&text),
            ];
            for reading in readings {
                if let Reading::Malformed(malformed) | Reading::InPart(_, malformed) = reading {
                    prop_assert!(malformed.to_string().contains(": "));
                }
            }
        }
    }
}
