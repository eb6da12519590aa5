//! Every object of the cluster, in memory, by kind, namespace and name, with one counter of versions. Knows
//! nothing of what an object means: what may be written is decided by the registry above it.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::history::{Event, History};
use super::object::{self, Key};

/// The objects and their history.
#[derive(Debug)]
pub(crate) struct Store {
    objects: BTreeMap<Key, Arc<Value>>,
    /// Owner uid -> the objects that name it in their `ownerReferences`.
    dependents: BTreeMap<String, BTreeSet<Key>>,
    history: History,
    version: u64,
    now: Timestamp,
}

impl Store {
    /// An empty store whose versions begin after `version`, with room for that many events.
    pub(crate) fn new(version: u64, history: usize) -> Self {
        Self {
            objects: BTreeMap::new(),
            dependents: BTreeMap::new(),
            history: History::new(version, history),
            version,
            now: Timestamp::UNIX_EPOCH,
        }
    }

    /// The version of the newest change.
    pub(crate) fn version(&self) -> u64 {
        self.version
    }

    /// The time of the current transaction, to the second, as objects carry it (RFC 3339).
    pub(crate) fn now(&self) -> String {
        format(self.now)
    }

    /// The current transaction's time plus so many seconds.
    pub(crate) fn later(&self, seconds: i64) -> String {
        format(self.now.saturating_add(jiff::SignedDuration::from_secs(seconds)).unwrap_or(self.now))
    }

    /// Sets the time of the current transaction.
    pub(crate) fn set_time(&mut self, now: Timestamp) {
        self.now = now;
    }

    /// The object under that key.
    pub(crate) fn get(&self, key: &Key) -> Option<&Arc<Value>> {
        self.objects.get(key)
    }

    /// All objects of a kind, in one namespace or (for an empty one) in all, by namespace and name; those
    /// after the given key alone where there is one.
    pub(crate) fn list<'a>(
        &'a self,
        plural: &'static str,
        namespace: &'a str,
        after: Option<&Key>,
    ) -> impl Iterator<Item = &'a Arc<Value>> {
        let start = match after {
            Some(key) => Bound::Excluded(key.clone()),
            None => Bound::Included(Key::new(plural, namespace, "")),
        };
        let within =
            move |key: &Key| key.plural == plural && (namespace.is_empty() || key.namespace == namespace);
        self.objects
            .range((start, Bound::Unbounded))
            .take_while(move |(key, _)| within(key))
            .map(|(_, object)| object)
    }

    /// The keys of all objects in a namespace.
    pub(crate) fn keys_in(&self, namespace: &str) -> Vec<Key> {
        self.objects.keys().filter(|key| key.namespace == namespace).cloned().collect()
    }

    /// The keys of the objects that name this owner.
    pub(crate) fn dependents(&self, owner_uid: &str) -> Vec<Key> {
        self.dependents.get(owner_uid).into_iter().flatten().cloned().collect()
    }

    /// Puts an object under that key, new or in place of the old one, with a new resource version.
    pub(crate) fn put(&mut self, key: Key, mut object: Value) -> Arc<Value> {
        self.version += 1;
        object["metadata"]["resourceVersion"] = json!(self.version.to_string());
        let object = Arc::new(object);
        let old = self.objects.insert(key.clone(), Arc::clone(&object));
        self.record(key, old, Some(Arc::clone(&object)));
        object
    }

    /// Takes an object away. Its last state, as watchers see it, has the version of the deletion.
    pub(crate) fn remove(&mut self, key: &Key) -> Option<Arc<Value>> {
        let old = self.objects.remove(key)?;
        self.version += 1;
        let mut last = Value::clone(&old);
        last["metadata"]["resourceVersion"] = json!(self.version.to_string());
        let last = Arc::new(last);
        self.record(key.clone(), Some(Arc::clone(&last)), None);
        Some(last)
    }

    fn record(&mut self, key: Key, old: Option<Arc<Value>>, new: Option<Arc<Value>>) {
        for owner in old.iter().flat_map(|object| object::owners(object)) {
            if let Some(keys) = self.dependents.get_mut(owner) {
                keys.remove(&key);
                if keys.is_empty() {
                    self.dependents.remove(owner);
                }
            }
        }
        for owner in new.iter().flat_map(|object| object::owners(object)) {
            self.dependents.entry(owner.to_owned()).or_default().insert(key.clone());
        }
        self.history.push(Event { version: self.version, plural: key.plural, old, new });
    }

    /// Every event after that version; `None` when it is too old, or from the future (of another server).
    pub(crate) fn events_since(&self, version: u64) -> Option<impl Iterator<Item = &Arc<Event>>> {
        if version > self.version { None } else { self.history.since(version) }
    }
}

fn format(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(namespace: &str, name: &str) -> (Key, Value) {
        let object = json!({"metadata": {"namespace": namespace, "name": name}});
        (Key::of("pods", &object), object)
    }

    fn store(pods: &[(&str, &str)]) -> Store {
        let mut store = Store::new(100, 16);
        for (namespace, name) in pods {
            let (key, object) = pod(namespace, name);
            store.put(key, object);
        }
        store
    }

    #[test]
    fn every_change_has_its_own_version() {
        let mut store = store(&[("a", "x"), ("a", "y")]);
        let (key, _) = pod("a", "x");
        assert_eq!(object::resource_version(store.get(&key).unwrap()), "101");
        let last = store.remove(&key).unwrap();
        assert_eq!(object::resource_version(&last), "103");
        assert!(store.get(&key).is_none());
        let kinds: Vec<_> =
            store.events_since(100).unwrap().map(|e| (e.old.is_some(), e.new.is_some())).collect();
        assert_eq!(kinds, [(false, true), (false, true), (true, false)]);
    }

    #[test]
    fn a_version_of_another_server_is_refused() {
        let store = store(&[("a", "x")]);
        assert!(store.events_since(102).is_none());
        assert!(store.events_since(99).is_none());
        assert_eq!(store.events_since(101).unwrap().count(), 0);
    }

    #[test]
    fn a_list_is_one_namespace_or_all_and_can_continue() {
        let store = store(&[("b", "z"), ("a", "x"), ("ab", "q"), ("a", "y")]);
        let names = |namespace, after: Option<&Key>| -> Vec<String> {
            store.list("pods", namespace, after).map(|o| object::name(o).to_owned()).collect()
        };
        assert_eq!(names("", None), ["x", "y", "q", "z"]);
        assert_eq!(names("a", None), ["x", "y"]);
        assert_eq!(names("", Some(&pod("a", "y").0)), ["q", "z"]);
        assert_eq!(names("a", Some(&pod("a", "x").0)), ["y"]);
        assert_eq!(store.list("services", "", None).count(), 0);
    }

    #[test]
    fn dependents_follow_owner_references() {
        let mut store = Store::new(0, 16);
        let (key, mut object) = pod("a", "x");
        object["metadata"]["ownerReferences"] = json!([{"uid": "u1"}]);
        store.put(key.clone(), object.clone());
        assert_eq!(store.dependents("u1"), std::slice::from_ref(&key));
        object["metadata"]["ownerReferences"] = json!([]);
        store.put(key, object);
        assert!(store.dependents("u1").is_empty());
    }
}
