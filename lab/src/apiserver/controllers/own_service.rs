//! Brings back the Service `default/kubernetes` and its endpoint when somebody deletes them.

use serde_json::Value;

use super::{Action, Controller};
use crate::apiserver::Config;
use crate::apiserver::history::Event;
use crate::apiserver::initial::own_service;
use crate::apiserver::object::Key;
use crate::apiserver::store::Store;

pub(super) struct OwnService {
    objects: Vec<(&'static str, Value)>,
}

impl OwnService {
    pub(super) fn new(config: &Config) -> Self {
        Self { objects: own_service(config) }
    }
}

impl Controller for OwnService {
    fn concerns(&self, _: &Store, event: &Event) -> Vec<Key> {
        let deleted = event.new.is_none().then(|| Key::of(event.plural, event.object()));
        deleted
            .into_iter()
            .filter(|key| self.objects.iter().any(|(plural, own)| Key::of(plural, own) == *key))
            .collect()
    }

    fn decide(&self, store: &Store, key: &Key) -> Vec<Action> {
        let missing = self.objects.iter().filter(|(plural, own)| Key::of(plural, own) == *key);
        let missing = missing.filter(|_| store.get(key).is_none());
        missing.map(|(plural, own)| Action::Create(plural, own.clone())).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_comes_back_only_when_it_is_gone() {
        let controller = OwnService::new(&Config::default());
        let (plural, service) = controller.objects[0].clone();
        let key = Key::of(plural, &service);
        let mut store = Store::new(0, 10);
        store.put(key.clone(), service);
        assert!(controller.decide(&store, &key).is_empty());
        store.remove(&key);
        let gone = store.events_since(1).unwrap().next().unwrap().clone();
        assert_eq!(controller.concerns(&store, &gone), std::slice::from_ref(&key));
        assert!(matches!(&*controller.decide(&store, &key), [Action::Create("services", _)]));
    }
}
