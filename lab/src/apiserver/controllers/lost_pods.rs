//! Removes the pods of Nodes that are gone: no kubelet is left to let go of them.

use super::{Action, Controller};
use crate::apiserver::history::Event;
use crate::apiserver::object::{Key, is_terminating, name, text};
use crate::apiserver::store::Store;

pub(super) struct LostPods;

impl Controller for LostPods {
    /// The pods of a deleted Node, and a pod that is deleted. A pod that only waits for its Node to appear is
    /// left alone.
    fn concerns(&self, store: &Store, event: &Event) -> Vec<Key> {
        match (event.plural, &event.new) {
            ("nodes", None) => {
                let node = name(event.object());
                let pods = store.list("pods", "", None).filter(|pod| pod["spec"]["nodeName"] == node);
                pods.map(|pod| Key::of("pods", pod)).collect()
            }
            ("pods", Some(pod)) if is_terminating(pod) => vec![Key::of("pods", pod)],
            _ => Vec::new(),
        }
    }

    fn decide(&self, store: &Store, key: &Key) -> Vec<Action> {
        let Some(pod) = store.get(key) else { return Vec::new() };
        let node = Key::new("nodes", "", text(&pod["spec"]["nodeName"]));
        if node.name.is_empty() || store.get(&node).is_some() {
            return Vec::new();
        }
        vec![Action::Remove(key.clone())]
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn pods_go_with_their_node() {
        let mut store = Store::new(0, 10);
        let node = json!({"metadata": {"name": "n1"}});
        let node_key = Key::of("nodes", &node);
        store.put(node_key.clone(), node);
        let pod = json!({"metadata": {"name": "p", "namespace": "a"}, "spec": {"nodeName": "n1"}});
        let key = Key::of("pods", &pod);
        store.put(key.clone(), pod);
        assert!(LostPods.decide(&store, &key).is_empty());
        store.remove(&node_key);
        let gone = store.events_since(2).unwrap().next().unwrap().clone();
        assert_eq!(LostPods.concerns(&store, &gone), std::slice::from_ref(&key));
        assert_eq!(LostPods.decide(&store, &key), [Action::Remove(key.clone())]);
    }
}
