//! The kinds of object as the API server has them: one file each, with the object as it travels, and what it
//! comes to. The rules of Kubernetes about defaults and what to ignore are obeyed here and nowhere else; a
//! value that comes out is valid, so nobody has to ask again.
//!
//! Objects are trimmed to the fields that Weft reads. Everything else (managed fields, other labels and
//! annotations) is read past and never held. Nothing here is I/O, and nothing is remembered from one object
//! to the next.

use std::cell::Cell;
use std::fmt;
use std::time::SystemTime;

use serde::de::DeserializeOwned;
use serde_json::Value;
use tracing::warn;
use weft_types::{KeyOf, Kind, Known, Object, ObjectKey};

use crate::field::{Fault, Faults, Field};
use crate::filter::WatchFilter;
use crate::message::Message;
use crate::source::{Json, Source};

mod address;
mod bfd_profile;
mod bgp_advertisement;
mod bgp_peer;
mod cluster_network_policy;
mod community;
mod config_map;
mod endpoint_slice;
mod ip_address_pool;
mod ipam_block;
mod l2_advertisement;
mod metadata;
mod metallb;
mod namespace;
mod network_policy;
mod node;
mod pod;
mod policy;
mod service;
mod service_cidr;
mod values;

use metadata::triggered;
pub(crate) use metadata::{METADATA, Metadata, ReadName, ends_initial_events, resource_version};

/// A kind of object, as the API server has it.
pub(crate) trait ApiResource: Known<Key: ReadName> {
    /// The version of the API, with its group: `discovery.k8s.io/v1`.
    const API_VERSION: &'static str;
    /// The kind's name in paths: `endpointslices`.
    const PLURAL: &'static str;
    /// Whether an API server may lack this kind. Then there are none.
    const OPTIONAL: Optional = Optional::No;
    /// Objects per page of a list: bounds the memory that a list takes while it is read.
    const PAGE: u32 = 500;

    /// The object as it travels.
    type Wire: WireObject<Kind = Self>;

    /// The one namespace that a filter looks at.
    fn namespace(_filter: &WatchFilter) -> Option<&str> {
        None
    }

    /// The label selector of a filter.
    fn label_selector(_filter: &WatchFilter) -> Option<String> {
        None
    }

    /// The field selector of a filter.
    fn field_selector(_filter: &WatchFilter) -> Option<String> {
        None
    }
}

/// Whether an API server may lack a kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Optional {
    /// Every API server has it.
    No,
    /// An older one lacks it, or does not show it to us: both mean that there are none.
    Version,
    /// It comes with a definition (CRD) that may be added at any time. That we may not see it does not mean
    /// that there are none.
    Definition,
}

/// An object as it travels, trimmed to what is read.
pub(crate) trait WireObject: DeserializeOwned + Send + 'static {
    /// The kind.
    type Kind: ApiResource;
    /// The object in protobuf, which then is what the API server is asked for first. For the kinds that there
    /// are many of.
    const MESSAGE: Option<Message> = None;

    /// The object's metadata.
    fn metadata(&self) -> &Field<Metadata>;

    /// What the object says; nothing if it is of no concern. Elements that cannot be used are left out, and
    /// go to `faults`.
    ///
    /// # Errors
    /// What makes the object useless altogether.
    fn convert(
        self,
        key: KeyOf<Self::Kind>,
        filter: &WatchFilter,
        faults: &mut Faults,
    ) -> Result<Option<Self::Kind>, Fault>;
}

/// Where the objects of a kind are found at an API server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Api {
    /// The version of the API, with its group.
    pub(crate) version: &'static str,
    /// The kind's name in paths.
    pub(crate) plural: &'static str,
}

impl Api {
    /// The path of all objects, or of those of one namespace.
    pub(crate) fn path(self, namespace: Option<&str>) -> String {
        // The first group has no name: https://kubernetes.io/docs/reference/using-api/#api-groups
        let root = if self.version.contains('/') { "/apis" } else { "/api" };
        match namespace {
            Some(namespace) => format!("{root}/{}/namespaces/{namespace}/{}", self.version, self.plural),
            None => format!("{root}/{}/{}", self.version, self.plural),
        }
    }
}

macro_rules! kinds {
    ($($(#[$doc:meta])* $field:ident: $kind:ident,)*) => {
        /// All kinds.
        pub(crate) const KINDS: &[Kind] = &[$(Kind::$kind),*];

        /// Where the objects of a kind are found.
        pub(crate) fn api(kind: Kind) -> Api {
            match kind {
                $(Kind::$kind => Api {
                    version: <weft_types::$kind as ApiResource>::API_VERSION,
                    plural: <weft_types::$kind as ApiResource>::PLURAL,
                },)*
            }
        }

        /// Reads an object of that kind.
        pub(crate) fn read_document(kind: Kind, document: Value, filter: &WatchFilter) -> Reading {
            let reader = match kind {
                $(Kind::$kind => read_source::<<weft_types::$kind as ApiResource>::Wire>,)*
            };
            read_item(kind, reader, Source::Json(document.into()), filter)
        }
    };
}

weft_types::for_each_kind!(kinds);

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

impl Reading {
    /// The object's name, if it has a usable one.
    pub(crate) fn key(&self) -> Option<ObjectKey> {
        match self {
            Reading::Object(object) | Reading::InPart(object, _) => Some(object.key()),
            Reading::Ignored(key) => Some(key.clone()),
            Reading::Malformed(malformed) => malformed.key.clone(),
        }
    }
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
    fn new(kind: Kind, key: Option<ObjectKey>, mut faults: Faults, fault: Fault) -> Malformed {
        faults.add(fault);
        Malformed { kind, key, faults, in_part: false }
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
        match &self.key {
            Some(key) => write!(f, "{key}: {}", self.faults),
            None => write!(f, "{} without a usable name: {}", self.kind, self.faults),
        }
    }
}

/// One object as it came: what it comes to, and what its metadata says besides.
#[derive(Debug)]
pub(crate) struct Read {
    pub(crate) reading: Reading,
    /// The version of the cluster's state that it is of.
    pub(crate) version: Option<String>,
    /// When that happened which made the control plane write it.
    pub(crate) triggered: Option<SystemTime>,
}

/// Reads one object of a kind, which fails where there is no object at all.
pub(crate) type Reader = fn(Source<'_>, &WatchFilter) -> Result<Read, String>;

/// The reader of a kind.
pub(crate) fn read_source<W: WireObject>(source: Source<'_>, filter: &WatchFilter) -> Result<Read, String> {
    let is_whole = source.is_whole();
    let object: W = source.read()?;
    let version = resource_version(object.metadata()).map(str::to_owned);
    let triggered = triggered(object.metadata());
    let reading = match is_whole.is_none_or(Cell::get) {
        true => read(object, filter),
        false => read_cut_off(&object),
    };
    Ok(Read { reading, version, triggered })
}

/// Reads one object of a list, where even the object may be no object.
pub(crate) fn read_item(kind: Kind, reader: Reader, item: Source<'_>, filter: &WatchFilter) -> Reading {
    let problem = match item {
        Source::Json(Json::Null) => "is missing".to_owned(),
        item => match reader(item, filter) {
            Ok(read) => return read.reading,
            Err(problem) => problem,
        },
    };
    Reading::Malformed(Malformed::new(kind, None, Faults::default(), Fault::new("items", problem)))
}

/// Reads one object.
fn read<W: WireObject>(object: W, filter: &WatchFilter) -> Reading {
    let kind = W::Kind::KIND;
    let name = match name(&object) {
        Ok(name) => name,
        Err(fault) => return Reading::Malformed(Malformed::new(kind, None, Faults::default(), fault)),
    };
    let key = W::Kind::object_key(name.clone());
    let mut faults = Faults::default();
    match object.convert(name, filter, &mut faults) {
        Ok(Some(object)) if faults.is_empty() => Reading::Object(object.into()),
        Ok(Some(object)) => {
            Reading::InPart(object.into(), Malformed { kind, key: Some(key), faults, in_part: true })
        }
        Ok(None) => Reading::Ignored(key),
        Err(fault) => Reading::Malformed(Malformed::new(kind, Some(key), faults, fault)),
    }
}

/// An object whose bytes end within it, or are none of any object: nothing of it counts but its name.
fn read_cut_off<W: WireObject>(object: &W) -> Reading {
    let key = name(object).ok().map(W::Kind::object_key);
    let fault = Fault::new("its protobuf", "is not well-formed");
    Reading::Malformed(Malformed::new(W::Kind::KIND, key, Faults::default(), fault))
}

/// The name of an object, whatever else is wrong with it.
fn name<W: WireObject>(object: &W) -> Result<KeyOf<W::Kind>, Fault> {
    <<W::Kind as weft_types::Resource>::Key as ReadName>::read(object.metadata())
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

    proptest! {
        #[test]
        fn any_json_comes_to_something(value in json(), labels: bool, service_proxy: bool) {
            let filter = WatchFilter { labels, service_proxy, ..WatchFilter::default() };
            for &kind in KINDS {
                let reading = read_document(kind, value.clone(), &filter);
                if let Reading::Malformed(malformed) | Reading::InPart(_, malformed) = reading {
                    prop_assert!(malformed.to_string().starts_with(kind.name()));
                    prop_assert!(malformed.to_string().contains(": "));
                }
            }
        }
    }
}
