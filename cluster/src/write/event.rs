//! Events: words about an object that stand beside it in the cluster (events.k8s.io/v1). What is to be said,
//! and how often, is not decided here.

use std::fmt;

use jiff::Timestamp;
use kube::Client;
use kube::api::{GetParams, PostParams};
use kube::core::Request;
use serde_json::{Value, json};
use weft_types::{ObjectKey, fnv1a};

use crate::error::chain;
use crate::resource::api;

/// The longest note that the API takes, in bytes (events.k8s.io/v1 Event).
const LONGEST_NOTE: usize = 1024;
/// How much of an object's name stands in its events' names, which have an end of their own (RFC 1123: 253).
const LONGEST_NAME: usize = 230;

/// A warning about an object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Warning {
    /// The object.
    pub about: ObjectKey,
    /// Why, in one word, as the API writes reasons: `FrontendTaken`.
    pub reason: &'static str,
    /// What is wrong, and what comes of it, for people.
    pub note: String,
}

/// Whether an event is about something wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// It is news.
    Normal,
    /// It is about something wrong.
    Warning,
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.about, self.note)
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
    pub async fn record(&self, severity: Severity, warning: &Warning) -> Result<(), String> {
        let (namespace, name) = warning.about.parts();
        let place = event_namespace(&warning.about);
        let event = json!({
            "apiVersion": "events.k8s.io/v1",
            "kind": "Event",
            "metadata": {"name": event_name(warning), "namespace": place},
            "eventTime": format!("{:.6}", Timestamp::now()),
            "type": if severity == Severity::Normal { "Normal" } else { "Warning" },
            "reason": warning.reason,
            "action": "Program",
            "note": shortened(&warning.note, LONGEST_NOTE),
            "reportingController": self.component,
            "reportingInstance": format!("{}-{}", self.component, self.node),
            "regarding": {
                "apiVersion": api(warning.about.kind()).version, "kind": warning.about.kind().name(),
                "namespace": namespace, "name": name, "uid": self.uid(&warning.about).await,
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

    /// By its uid, `kubectl describe` finds an object's events. Nobody else here asks for it, so it is not
    /// kept.
    async fn uid(&self, about: &ObjectKey) -> Option<String> {
        let (namespace, name) = about.parts();
        let path = api(about.kind()).path(namespace);
        let request = Request::new(path).get(name, &GetParams::default()).ok()?;
        let object: Value = self.client.request(request).await.ok()?;
        object["metadata"]["uid"].as_str().map(str::to_owned)
    }
}

/// Every event has a namespace: for an object of the whole cluster this one, as the API demands.
fn event_namespace(about: &ObjectKey) -> &str {
    about.parts().0.unwrap_or("default")
}

/// The event's own name: the object's, and 16 hexadecimal digits that follow from what is said, so that all
/// nodes, in all releases, give one warning one name. They are the 64-bit FNV-1a hash of kind, namespace,
/// name, reason and note, each followed by a byte 0, which none of them has; an object of the whole cluster
/// has an empty namespace.
fn event_name(warning: &Warning) -> String {
    let (namespace, name) = warning.about.parts();
    let said =
        [warning.about.kind().name(), namespace.unwrap_or_default(), name, warning.reason, &warning.note];
    let bytes: Vec<u8> = said.iter().flat_map(|part| part.bytes().chain([0])).collect();
    format!("{}.{:016x}", shortened(name, LONGEST_NAME), fnv1a(&bytes))
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

    #[test]
    fn events_of_nodes_stand_in_the_default_namespace() {
        let place = |about: ObjectKey| {
            let path = api(about.kind()).path(about.parts().0);
            (path, event_namespace(&about).to_owned())
        };
        let node = ObjectKey::Node("node1".to_owned());
        assert_eq!(place(node), ("/api/v1/nodes".to_owned(), "default".to_owned()));
        let slice = ObjectKey::EndpointSlice(NamespacedName::new("shop", "web-1"));
        let path = "/apis/discovery.k8s.io/v1/namespaces/shop/endpointslices".to_owned();
        assert_eq!(place(slice), (path, "shop".to_owned()));
    }

    #[test]
    fn one_warning_has_one_name_and_another_has_another() {
        let name = event_name(&warning("web", "taken"));
        assert!(name.starts_with("web.") && name == event_name(&warning("web", "taken")), "{name}");
        assert_ne!(name, event_name(&warning("web", "also taken")));
        assert!(event_name(&warning(&"x".repeat(253), "")).len() <= 253);
    }

    /// A cluster in the midst of an upgrade runs two releases: a change here gives it every warning twice.
    #[test]
    fn an_event_has_the_same_name_in_every_release() {
        assert_eq!(event_name(&warning("web", "taken")), "web.894f7ab6250f0bfa");
        let about = ObjectKey::Node("node1".to_owned());
        let of_node = Warning { about, reason: "RulesContested", note: "Who changes them?".to_owned() };
        assert_eq!(event_name(&of_node), "node1.d41f1e4c3c15a35e");
    }

    #[test]
    fn long_notes_are_cut_between_letters() {
        assert_eq!(shortened("Überlauf", 1), "");
        assert_eq!(shortened("Überlauf", 3), "Üb");
        assert_eq!(shortened("short", 1024), "short");
    }
}
