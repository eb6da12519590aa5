//! Events: words about an object that stand beside it in the cluster (events.k8s.io/v1). What is to be said, and how often,
//! is not decided here.

use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};

use jiff::Timestamp;
use kube::Client;
use kube::api::{GetParams, PostParams};
use kube::core::Request;
use serde_json::{Value, json};
use weft_types::ObjectKey;

use crate::error::chain;

/// The longest note that the API takes, in bytes (events.k8s.io/v1 Event).
const LONGEST_NOTE: usize = 1024;
/// How much of an object's name stands in its events' names, which have an end of their own (RFC 1123: 253).
const LONGEST_NAME: usize = 230;

/// A warning about an object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Warning {
    /// The object. Only Services, EndpointSlices, Nodes and ServiceCIDRs have events here.
    pub about: ObjectKey,
    /// Why, in one word, as the API writes reasons: `FrontendTaken`.
    pub reason: &'static str,
    /// What is wrong, and what comes of it, for people.
    pub note: String,
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match Target::of(&self.about) {
            Some(Target { kind, namespace: Some(namespace), name, .. }) => {
                write!(f, "{kind} {namespace}/{name}: {}", self.note)
            }
            Some(Target { kind, name, .. }) => write!(f, "{kind} {name}: {}", self.note),
            None => f.write_str(&self.note),
        }
    }
}

/// Writes events in the name of a daemon.
#[derive(Clone)]
pub struct Recorder {
    client: Client,
    /// The daemon's name: `weft-proxy`.
    component: &'static str,
    /// The Node that it runs on.
    node: String,
}

impl Recorder {
    /// One for the daemon of that name on that Node.
    pub fn new(client: Client, component: &'static str, node: impl Into<String>) -> Recorder {
        Recorder { client, component, node: node.into() }
    }

    /// Writes it down. All nodes give one warning one name, so that a cluster has it once, whoever was first.
    ///
    /// # Errors
    /// Why the API server did not take it, in one line.
    pub async fn record(&self, warning: &Warning) -> Result<(), String> {
        let Some(target) = Target::of(&warning.about) else { return Ok(()) };
        let uid = self.uid(&target).await;
        let place = target.event_namespace();
        let event = json!({
            "apiVersion": "events.k8s.io/v1",
            "kind": "Event",
            "metadata": {"name": name(warning, target.name), "namespace": place},
            "eventTime": format!("{:.6}", Timestamp::now()),
            "type": "Warning",
            "reason": warning.reason,
            "action": "Program",
            "note": shortened(&warning.note, LONGEST_NOTE),
            "reportingController": self.component,
            "reportingInstance": format!("{}-{}", self.component, self.node),
            "regarding": {
                "apiVersion": target.version(), "kind": target.kind, "namespace": target.namespace,
                "name": target.name, "uid": uid,
            },
        });
        let path = format!("/apis/events.k8s.io/v1/namespaces/{place}/events");
        let request = Request::new(path).create(&PostParams::default(), event.to_string().into_bytes());
        let request = request.map_err(|error| chain(&error))?;
        match self.client.request::<Value>(request).await {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(()),
            Err(error) => Err(chain(&error)),
        }
    }

    /// By its uid, `kubectl describe` finds an object's events. Nobody else here asks for it, so it is not kept.
    async fn uid(&self, target: &Target<'_>) -> Option<String> {
        let request = Request::new(target.collection()).get(target.name, &GetParams::default()).ok()?;
        let object: Value = self.client.request(request).await.ok()?;
        object["metadata"]["uid"].as_str().map(str::to_owned)
    }
}

/// An object that events can be about.
struct Target<'a> {
    kind: &'static str,
    /// The path of its API.
    api: &'static str,
    plural: &'static str,
    /// None for an object of the whole cluster.
    namespace: Option<&'a str>,
    name: &'a str,
}

impl<'a> Target<'a> {
    fn of(key: &'a ObjectKey) -> Option<Target<'a>> {
        let (kind, api, plural) = match key {
            ObjectKey::Service(_) => ("Service", "/api/v1", "services"),
            ObjectKey::EndpointSlice(_) => ("EndpointSlice", "/apis/discovery.k8s.io/v1", "endpointslices"),
            ObjectKey::Node(_) => ("Node", "/api/v1", "nodes"),
            ObjectKey::ServiceCidr(_) => ("ServiceCIDR", "/apis/networking.k8s.io/v1", "servicecidrs"),
            ObjectKey::Namespace(_) | ObjectKey::Pod(_) | ObjectKey::ConfigMap(_) => return None,
        };
        let (namespace, name) = match key {
            ObjectKey::Node(name) | ObjectKey::Namespace(name) | ObjectKey::ServiceCidr(name) => (None, name),
            ObjectKey::Service(key)
            | ObjectKey::EndpointSlice(key)
            | ObjectKey::Pod(key)
            | ObjectKey::ConfigMap(key) => (Some(&*key.namespace), &key.name),
        };
        Some(Target { kind, api, plural, namespace, name })
    }

    fn version(&self) -> &'static str {
        self.api.trim_start_matches("/apis/").trim_start_matches("/api/")
    }

    fn collection(&self) -> String {
        match self.namespace {
            Some(namespace) => format!("{}/namespaces/{namespace}/{}", self.api, self.plural),
            None => format!("{}/{}", self.api, self.plural),
        }
    }

    /// Every event has a namespace: for an object of the whole cluster this one, as the API demands.
    fn event_namespace(&self) -> &'a str {
        self.namespace.unwrap_or("default")
    }
}

/// The event's own name: the object's, and a number that follows from what is said.
fn name(warning: &Warning, object: &str) -> String {
    let mut hasher = DefaultHasher::new();
    warning.hash(&mut hasher);
    format!("{}.{:016x}", shortened(object, LONGEST_NAME), hasher.finish())
}

/// As much of a text as fits into so many bytes.
fn shortened(text: &str, longest: usize) -> &str {
    let end = (0..=longest.min(text.len())).rev().find(|end| text.is_char_boundary(*end));
    &text[..end.unwrap_or_default()]
}

#[cfg(test)]
mod tests {
    use weft_types::NamespacedName;

    use super::*;

    fn warning(name: &str, note: &str) -> Warning {
        let about = ObjectKey::Service(NamespacedName::new("shop", name));
        Warning { about, reason: "FrontendTaken", note: note.to_owned() }
    }

    fn event_name(warning: &Warning) -> String {
        name(warning, Target::of(&warning.about).unwrap().name)
    }

    #[test]
    fn events_of_nodes_stand_in_the_default_namespace() {
        let about = ObjectKey::Node("node1".to_owned());
        let node = Target::of(&about).unwrap();
        assert_eq!(
            (node.version(), &*node.collection(), node.event_namespace()),
            ("v1", "/api/v1/nodes", "default")
        );
        let about = ObjectKey::EndpointSlice(NamespacedName::new("shop", "web-1"));
        let slice = Target::of(&about).unwrap();
        let path = "/apis/discovery.k8s.io/v1/namespaces/shop/endpointslices";
        assert_eq!(
            (slice.version(), &*slice.collection(), slice.event_namespace()),
            ("discovery.k8s.io/v1", path, "shop")
        );
    }

    #[test]
    fn one_warning_has_one_name_and_another_has_another() {
        let name = event_name(&warning("web", "taken"));
        assert!(name.starts_with("web.") && name == event_name(&warning("web", "taken")), "{name}");
        assert_ne!(name, event_name(&warning("web", "also taken")));
        assert!(event_name(&warning(&"x".repeat(253), "")).len() <= 253);
    }

    #[test]
    fn long_notes_are_cut_between_letters() {
        assert_eq!(shortened("Überlauf", 1), "");
        assert_eq!(shortened("Überlauf", 3), "Üb");
        assert_eq!(shortened("short", 1024), "short");
    }
}
