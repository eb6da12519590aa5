//! Events: words about an object that stand beside it in the cluster (events.k8s.io/v1). What is to be said, and how often,
//! is not decided here.

use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};

use jiff::Timestamp;
use kube::Client;
use kube::api::{GetParams, PostParams};
use kube::core::Request;
use serde_json::{Value, json};
use weft_types::{NamespacedName, ObjectKey};

use crate::error::chain;

/// The longest note that the API takes, in bytes (events.k8s.io/v1 Event).
const LONGEST_NOTE: usize = 1024;
/// How much of an object's name stands in its events' names, which have an end of their own (RFC 1123: 253).
const LONGEST_NAME: usize = 230;

/// A warning about an object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Warning {
    /// The object. Those without a namespace have no events here.
    pub about: ObjectKey,
    /// Why, in one word, as the API writes reasons: `FrontendTaken`.
    pub reason: &'static str,
    /// What is wrong, and what comes of it, for people.
    pub note: String,
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match target(&self.about) {
            Some((kind, _, _, key)) => write!(f, "{kind} {key}: {}", self.note),
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
        let Some((kind, api_version, collection, key)) = target(&warning.about) else { return Ok(()) };
        let uid = self.uid(collection, key).await;
        let event = json!({
            "apiVersion": "events.k8s.io/v1",
            "kind": "Event",
            "metadata": {"name": name(warning, key), "namespace": key.namespace},
            "eventTime": format!("{:.6}", Timestamp::now()),
            "type": "Warning",
            "reason": warning.reason,
            "action": "Program",
            "note": shortened(&warning.note, LONGEST_NOTE),
            "reportingController": self.component,
            "reportingInstance": format!("{}-{}", self.component, self.node),
            "regarding": {
                "apiVersion": api_version, "kind": kind, "namespace": key.namespace, "name": key.name, "uid": uid,
            },
        });
        let path = format!("/apis/events.k8s.io/v1/namespaces/{}/events", key.namespace);
        let request = Request::new(path).create(&PostParams::default(), event.to_string().into_bytes());
        let request = request.map_err(|error| chain(&error))?;
        match self.client.request::<Value>(request).await {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(()),
            Err(error) => Err(chain(&error)),
        }
    }

    /// By its uid, `kubectl describe` finds an object's events. Nobody else here asks for it, so it is not kept.
    async fn uid(&self, collection: &str, key: &NamespacedName) -> Option<String> {
        let (group, plural) = collection.rsplit_once('/')?;
        let path = format!("{group}/namespaces/{}/{plural}", key.namespace);
        let request = Request::new(path).get(&key.name, &GetParams::default()).ok()?;
        let object: Value = self.client.request(request).await.ok()?;
        object["metadata"]["uid"].as_str().map(str::to_owned)
    }
}

/// Kind, version, collection and name of an object.
fn target(key: &ObjectKey) -> Option<(&'static str, &'static str, &'static str, &NamespacedName)> {
    match key {
        ObjectKey::Service(key) => Some(("Service", "v1", "/api/v1/services", key)),
        ObjectKey::EndpointSlice(key) => {
            let collection = "/apis/discovery.k8s.io/v1/endpointslices";
            Some(("EndpointSlice", "discovery.k8s.io/v1", collection, key))
        }
        ObjectKey::Node(_)
        | ObjectKey::Namespace(_)
        | ObjectKey::ServiceCidr(_)
        | ObjectKey::Pod(_)
        | ObjectKey::ConfigMap(_) => None,
    }
}

/// The event's own name: the object's, and a number that follows from what is said.
fn name(warning: &Warning, key: &NamespacedName) -> String {
    let mut hasher = DefaultHasher::new();
    warning.hash(&mut hasher);
    format!("{}.{:016x}", shortened(&key.name, LONGEST_NAME), hasher.finish())
}

/// As much of a text as fits into so many bytes.
fn shortened(text: &str, longest: usize) -> &str {
    let end = (0..=longest.min(text.len())).rev().find(|end| text.is_char_boundary(*end));
    &text[..end.unwrap_or_default()]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn warning(name: &str, note: &str) -> Warning {
        let about = ObjectKey::Service(NamespacedName::new("shop", name));
        Warning { about, reason: "FrontendTaken", note: note.to_owned() }
    }

    fn event_name(warning: &Warning) -> String {
        name(warning, target(&warning.about).unwrap().3)
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
