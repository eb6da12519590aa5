//! Garbage collection: objects whose owners are gone go too, and an owner that is deleted in the foreground
//! waits for its dependents.

use serde_json::Value;

use super::{Action, Controller};
use crate::apiserver::history::Event;
use crate::apiserver::object::{self, Key, has_finalizer, is_terminating, items, text};
use crate::apiserver::registry::FOREGROUND;
use crate::apiserver::resource::by_kind;
use crate::apiserver::store::Store;

pub(super) struct Garbage;

impl Controller for Garbage {
    /// A deleted object concerns its dependents, and the owners that may wait for it; a new one or one in the
    /// foreground itself.
    fn concerns(&self, store: &Store, event: &Event) -> Vec<Key> {
        let object = event.object();
        match &event.new {
            Some(new) if event.old.is_none() || has_finalizer(new, FOREGROUND) => {
                vec![Key::of(event.plural, new)]
            }
            Some(_) => Vec::new(),
            None => {
                let mut keys = store.dependents(object::uid(object));
                let owners = items(&object["metadata"]["ownerReferences"]).iter();
                keys.extend(owners.filter_map(|owner| owner_key(owner, object::namespace(object))));
                keys
            }
        }
    }

    fn decide(&self, store: &Store, key: &Key) -> Vec<Action> {
        let Some(object) = store.get(key) else { return Vec::new() };
        if has_finalizer(object, FOREGROUND) {
            return wait_for_dependents(store, key, object);
        }
        let owners = items(&object["metadata"]["ownerReferences"]);
        let is_orphan =
            !owners.is_empty() && !owners.iter().any(|owner| exists(store, owner, &key.namespace));
        if is_orphan && !is_terminating(object) { vec![Action::Delete(key.clone())] } else { Vec::new() }
    }
}

fn wait_for_dependents(store: &Store, key: &Key, owner: &Value) -> Vec<Action> {
    let dependents = store.dependents(object::uid(owner));
    if dependents.is_empty() {
        let mut free = owner.clone();
        if let Some(finalizers) = free["metadata"]["finalizers"].as_array_mut() {
            finalizers.retain(|finalizer| finalizer != FOREGROUND);
        }
        return vec![Action::Update(key.plural, free)];
    }
    let left = dependents.into_iter().filter(|key| store.get(key).is_some_and(|one| !is_terminating(one)));
    left.map(Action::Delete).collect()
}

/// Where the owner of an object in that namespace stands; `None` for a kind that the server does not store.
fn owner_key(owner: &Value, namespace: &str) -> Option<Key> {
    let resource = by_kind(text(&owner["apiVersion"]), text(&owner["kind"]))?;
    Some(Key::new(resource.plural, if resource.namespaced { namespace } else { "" }, text(&owner["name"])))
}

/// Is that very owner there? One of an unknown kind counts as there: nothing is deleted on a guess.
fn exists(store: &Store, owner: &Value, namespace: &str) -> bool {
    owner_key(owner, namespace)
        .is_none_or(|key| store.get(&key).is_some_and(|found| object::uid(found) == text(&owner["uid"])))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn owned(name: &str, kind: &str, uid: &str) -> Value {
        let owner = json!({"apiVersion": "apps/v1", "kind": kind, "name": "web", "uid": uid});
        json!({"metadata": {"name": name, "namespace": "a", "uid": name, "ownerReferences": [owner]}})
    }

    fn put(store: &mut Store, plural: &'static str, object: Value) -> Key {
        let key = Key::of(plural, &object);
        store.put(key.clone(), object);
        key
    }

    #[test]
    fn an_object_goes_with_its_last_owner() {
        let mut store = Store::new(0, 20);
        let owner = json!({"metadata": {"name": "web", "namespace": "a", "uid": "u1"}});
        let owner = put(&mut store, "replicasets", owner);
        let pod = put(&mut store, "pods", owned("p", "ReplicaSet", "u1"));
        let stale = put(&mut store, "pods", owned("q", "ReplicaSet", "u0"));
        let unknown = put(&mut store, "pods", owned("r", "Machine", "u9"));
        assert!(Garbage.decide(&store, &pod).is_empty());
        assert!(Garbage.decide(&store, &unknown).is_empty());
        assert_eq!(Garbage.decide(&store, &stale), [Action::Delete(stale.clone())]);
        store.remove(&owner);
        let gone = store.events_since(0).unwrap().last().unwrap().clone();
        assert_eq!(Garbage.concerns(&store, &gone), std::slice::from_ref(&pod));
        assert_eq!(Garbage.decide(&store, &pod), [Action::Delete(pod.clone())]);
    }

    #[test]
    fn an_owner_in_the_foreground_goes_last() {
        let mut store = Store::new(0, 20);
        let metadata = json!({"name": "web", "namespace": "a", "uid": "u1", "finalizers": [FOREGROUND]});
        let owner = put(&mut store, "replicasets", json!({"metadata": metadata}));
        let pod = put(&mut store, "pods", owned("p", "ReplicaSet", "u1"));
        assert_eq!(Garbage.decide(&store, &owner), [Action::Delete(pod.clone())]);
        store.remove(&pod);
        let [Action::Update(_, free)] = &*Garbage.decide(&store, &owner) else { panic!() };
        assert_eq!(free["metadata"]["finalizers"], json!([]));
    }
}
