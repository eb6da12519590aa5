//! What a watcher is told: the history, as seen through its selection. Sending it is the work of
//! `http::watch`.

use std::sync::Arc;

use serde_json::{Value, json};

use super::error::{ApiError, Result};
use super::history::Event;
use super::registry::Selection;
use super::store::Store;

/// The type of a watch event, as it is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ChangeType {
    Added,
    Modified,
    Deleted,
}

impl ChangeType {
    /// The word on the wire.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Added => "ADDED",
            Self::Modified => "MODIFIED",
            Self::Deleted => "DELETED",
        }
    }
}

/// One change as a watcher sees it.
pub(crate) type Change = (ChangeType, Arc<Value>);

/// The changes after a version, at most about `limit`, and the version up to which they are told.
pub(crate) fn changes(
    store: &Store,
    plural: &str,
    selection: &Selection,
    after: u64,
    limit: usize,
) -> Result<(Vec<Change>, u64)> {
    let Some(events) = store.events_since(after) else {
        let message = format!("too old resource version: {after} ({})", store.version());
        return Err(ApiError::Expired(message));
    };
    let mut told = Vec::new();
    for event in events {
        if event.plural == plural {
            told.extend(seen(event, selection));
        }
        if told.len() >= limit {
            return Ok((told, event.version));
        }
    }
    Ok((told, store.version()))
}

/// How one event looks through a selection: an object that enters it is new, one that leaves it is gone.
fn seen(event: &Event, selection: &Selection) -> Option<Change> {
    let before = event.old.as_ref().filter(|object| selection.takes(object));
    let now = event.new.as_ref().filter(|object| selection.takes(object));
    match (before, now) {
        (None, None) => None,
        (None, Some(new)) => Some((ChangeType::Added, Arc::clone(new))),
        (Some(_), Some(new)) => Some((ChangeType::Modified, Arc::clone(new))),
        (Some(old), None) => {
            let mut last = Value::clone(old);
            last["metadata"]["resourceVersion"] = json!(event.version.to_string());
            Some((ChangeType::Deleted, Arc::new(last)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::apiserver::object::{Key, resource_version};
    use crate::apiserver::selector::LabelSelector;

    fn write(store: &mut Store, name: &str, app: &str) {
        let object = json!({"metadata": {"name": name, "namespace": "a", "labels": {"app": app}}});
        store.put(Key::of("pods", &object), object);
    }

    fn told(store: &Store, selection: &Selection, after: u64) -> Vec<(ChangeType, String)> {
        let (changes, _) = changes(store, "pods", selection, after, 100).unwrap();
        changes.into_iter().map(|(kind, object)| (kind, resource_version(&object).to_owned())).collect()
    }

    #[test]
    fn entering_and_leaving_a_selection_is_birth_and_death() {
        let mut store = Store::new(0, 16);
        for app in ["db", "web", "web", "db"] {
            write(&mut store, "x", app);
        }
        store.remove(&Key::new("pods", "a", "x"));
        let labels = LabelSelector::parse("app=web").unwrap();
        let selection = Selection { labels, ..Selection::default() };
        let at = |version: u64| version.to_string();
        assert_eq!(
            told(&store, &selection, 0),
            [(ChangeType::Added, at(2)), (ChangeType::Modified, at(3)), (ChangeType::Deleted, at(4))]
        );
        assert_eq!(
            told(&store, &Selection::default(), 3),
            [(ChangeType::Modified, at(4)), (ChangeType::Deleted, at(5))]
        );
    }

    #[test]
    fn a_watcher_that_is_too_far_behind_is_told_so() {
        let mut store = Store::new(0, 2);
        for name in ["x", "y", "z"] {
            write(&mut store, name, "web");
        }
        let all = Selection::default();
        assert!(matches!(changes(&store, "pods", &all, 0, 100), Err(ApiError::Expired(_))));
        assert_eq!(changes(&store, "pods", &all, 1, 1).unwrap().1, 2);
        assert_eq!(changes(&store, "services", &all, 1, 1).unwrap().1, 3);
    }
}
