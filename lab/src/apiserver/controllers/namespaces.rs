//! Empties a Namespace that is being deleted, and lets it go when it is empty.

use serde_json::{Value, json};

use super::{Action, Controller};
use crate::apiserver::history::Event;
use crate::apiserver::object::{Key, is_terminating, namespace};
use crate::apiserver::store::Store;

pub(super) struct Namespaces;

impl Controller for Namespaces {
    fn concerns(&self, store: &Store, event: &Event) -> Vec<Key> {
        let object = event.object();
        let key = match event.plural {
            "namespaces" => Key::of("namespaces", object),
            _ => Key::new("namespaces", "", namespace(object)),
        };
        let is_closing = store.get(&key).is_some_and(|namespace| is_terminating(namespace));
        if is_closing { vec![key] } else { Vec::new() }
    }

    fn decide(&self, store: &Store, key: &Key) -> Vec<Action> {
        let Some(namespace) = store.get(key).filter(|namespace| is_terminating(namespace)) else {
            return Vec::new();
        };
        let content = store.keys_in(&key.name);
        if content.is_empty() {
            let mut empty = Value::clone(namespace);
            empty["spec"]["finalizers"] = json!([]);
            return vec![Action::Update("namespaces", empty)];
        }
        let left =
            content.into_iter().filter(|key| store.get(key).is_some_and(|object| !is_terminating(object)));
        left.map(Action::Delete).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_goes_first_and_what_takes_its_time_is_waited_for() {
        let mut store = Store::new(0, 10);
        let mut put = |plural, object: Value| {
            let key = Key::of(plural, &object);
            store.put(key.clone(), object);
            key
        };
        let closing = json!({"metadata": {"name": "a", "deletionTimestamp": "x"}, "spec": {"finalizers": ["kubernetes"]}});
        let key = put("namespaces", closing);
        let service = put("services", json!({"metadata": {"name": "s", "namespace": "a"}}));
        let pod = put("pods", json!({"metadata": {"name": "p", "namespace": "a", "deletionTimestamp": "x"}}));
        assert_eq!(Namespaces.decide(&store, &key), [Action::Delete(service.clone())]);
        store.remove(&service);
        assert!(Namespaces.decide(&store, &key).is_empty());
        store.remove(&pod);
        let [Action::Update(_, namespace)] = &*Namespaces.decide(&store, &key) else { panic!() };
        assert_eq!(namespace["spec"]["finalizers"], json!([]));
    }
}
