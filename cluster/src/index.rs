//! From events to a snapshot: what the watches say, put together. No I/O, no waiting, no logging.

use std::collections::{BTreeMap, BTreeSet};
use std::time::SystemTime;

use weft_types::{ChangeSet, InvalidObject, Kind, Object, ObjectKey, Snapshot};

use crate::resource::{Malformed, Reading};

/// What a watch of one kind has to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// These are all the objects that there are of the kind.
    Listed(Kind, Vec<Reading>),
    /// An object came or changed.
    Applied(Reading),
    /// An EndpointSlice came or changed, because of what happened in the cluster at that moment.
    Triggered(Reading, SystemTime),
    /// An object went.
    Deleted(ObjectKey),
}

/// An event, and when it came.
pub(crate) type Stamped = (tokio::time::Instant, Event);

/// The cluster as the events so far tell it.
#[derive(Debug, Default)]
pub(crate) struct Index {
    snapshot: Snapshot,
    changes: ChangeSet,
    /// The kinds that have not listed yet.
    missing: BTreeSet<Kind>,
    /// The malformed objects, each with the fault that was told.
    malformed: BTreeMap<ObjectKey, Malformed>,
}

impl Index {
    /// An empty index that is not complete until each of these kinds has listed.
    pub(crate) fn new(kinds: &[Kind]) -> Self {
        Index { missing: kinds.iter().copied().collect(), ..Index::default() }
    }

    /// Takes an event in. Returns the malformed objects among it, in whole or in part, that were not told
    /// before.
    pub(crate) fn take(&mut self, event: Event) -> Vec<Malformed> {
        match event {
            Event::Listed(kind, readings) => self.list(kind, readings),
            Event::Applied(reading) => self.apply(reading).into_iter().collect(),
            Event::Triggered(reading, moment) => {
                let before = self.changes.endpoint_slices;
                let malformed = self.apply(reading);
                if self.changes.endpoint_slices > before {
                    self.changes.triggered.push(moment);
                }
                malformed.into_iter().collect()
            }
            Event::Deleted(key) => {
                self.delete(&key);
                Vec::new()
            }
        }
    }

    /// Whether every kind has listed once.
    pub(crate) fn is_complete(&self) -> bool {
        self.missing.is_empty()
    }

    /// Whether something changed since the changes were last drained.
    pub(crate) fn has_changes(&self) -> bool {
        !self.changes.is_empty()
    }

    /// What changed since the last call.
    pub(crate) fn drain_changes(&mut self) -> ChangeSet {
        std::mem::take(&mut self.changes)
    }

    /// Counts a malformed object among the changes.
    pub(crate) fn leave_out(&mut self, object: Malformed) {
        let fault = match object.in_part {
            true => format!("left out, while the rest is used: {}", object.faults),
            false => object.faults.to_string(),
        };
        self.changes.invalid.push(InvalidObject { key: object.key, fault });
    }

    /// The cluster as it is known now.
    pub(crate) fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }

    /// The cluster as it is known now, for keeps.
    pub(crate) fn into_snapshot(self) -> Snapshot {
        self.snapshot
    }

    fn list(&mut self, kind: Kind, readings: Vec<Reading>) -> Vec<Malformed> {
        self.missing.remove(&kind);
        let (mut objects, mut malformed) = (Vec::with_capacity(readings.len()), Vec::new());
        for reading in readings {
            match reading {
                Reading::Object(object) => objects.push(object),
                Reading::InPart(object, faulty) => {
                    objects.push(object);
                    malformed.push(faulty);
                }
                Reading::Ignored(_) => {}
                Reading::Malformed(object) => malformed.push(object),
            }
        }
        let known = std::mem::take(&mut self.malformed);
        let (same_kind, others) = known.into_iter().partition(|(_, object)| object.kind == kind);
        self.malformed = others;
        self.snapshot.replace(kind, objects, &mut self.changes);
        malformed.into_iter().filter(|object| self.is_news(object, &same_kind)).collect()
    }

    /// Remembers a malformed object of a list; was it told before, with the same fault?
    fn is_news(&mut self, object: &Malformed, told: &BTreeMap<ObjectKey, Malformed>) -> bool {
        let Some(key) = &object.key else { return true };
        self.malformed.insert(key.clone(), object.clone());
        told.get(key) != Some(object)
    }

    fn apply(&mut self, reading: Reading) -> Option<Malformed> {
        match reading {
            Reading::Object(object) => self.put(object),
            Reading::InPart(object, malformed) => {
                self.snapshot.apply(object, &mut self.changes);
                return self.note(malformed);
            }
            Reading::Ignored(key) => self.delete(&key),
            Reading::Malformed(malformed) => {
                // What was known under this name is no longer so.
                malformed.key.iter().for_each(|key| self.snapshot.delete(key, &mut self.changes));
                return self.note(malformed);
            }
        }
        None
    }

    /// Remembers a malformed object. Returns it unless it was told before, with the same faults.
    fn note(&mut self, object: Malformed) -> Option<Malformed> {
        let Some(key) = &object.key else { return Some(object) };
        let told = self.malformed.insert(key.clone(), object.clone());
        (told.as_ref() != Some(&object)).then_some(object)
    }

    fn put(&mut self, object: Object) {
        if !self.malformed.is_empty() {
            self.malformed.remove(&object.key());
        }
        self.snapshot.apply(object, &mut self.changes);
    }

    fn delete(&mut self, key: &ObjectKey) {
        self.malformed.remove(key);
        self.snapshot.delete(key, &mut self.changes);
    }
}

#[cfg(test)]
mod tests {
    use weft_types::Node;

    use super::*;
    use crate::field::{Fault, Faults};

    fn node(name: &str) -> Reading {
        Reading::Object(Object::Node(Node { name: name.to_owned(), ..Node::default() }))
    }

    fn malformed(name: &str, problem: &str) -> Reading {
        Reading::Malformed(faulty(name, problem, false))
    }

    fn faulty(name: &str, problem: &str, in_part: bool) -> Malformed {
        let (key, mut faults) = (Some(ObjectKey::Node(name.to_owned())), Faults::default());
        faults.add(Fault::new("spec", problem));
        Malformed { kind: Kind::Node, key, faults, in_part }
    }

    /// A Node of which something cannot be used.
    fn in_part(name: &str, problem: &str) -> Reading {
        let Reading::Object(node) = node(name) else { panic!("{name}") };
        Reading::InPart(node, faulty(name, problem, true))
    }

    fn names(index: &Index) -> Vec<&str> {
        index.snapshot().nodes().map(|node| node.name.as_str()).collect()
    }

    fn changed(index: &mut Index) -> Vec<String> {
        index.drain_changes().nodes.into_iter().collect()
    }

    #[test]
    fn complete_once_every_kind_has_listed() {
        let mut index = Index::new(&[Kind::Node, Kind::Namespace]);
        index.take(Event::Listed(Kind::Node, Vec::new()));
        assert!(!index.is_complete());
        index.take(Event::Listed(Kind::Namespace, Vec::new()));
        assert!(index.is_complete() && !index.has_changes());
    }

    #[test]
    fn a_second_list_replaces_the_first() {
        let mut index = Index::new(&[Kind::Node]);
        index.take(Event::Listed(Kind::Node, vec![node("a"), node("b")]));
        assert_eq!(changed(&mut index), ["a", "b"]);
        index.take(Event::Listed(Kind::Node, vec![node("b"), node("c")]));
        assert_eq!(names(&index), ["b", "c"]);
        assert_eq!(changed(&mut index), ["a", "c"]);
    }

    #[test]
    fn a_malformed_object_is_told_once_and_deleted() {
        let mut index = Index::new(&[Kind::Node]);
        index.take(Event::Listed(Kind::Node, vec![node("a"), node("b")]));
        index.drain_changes();
        assert_eq!(index.take(Event::Applied(malformed("a", "is bad"))).len(), 1);
        assert_eq!(names(&index), ["b"]);
        assert_eq!(changed(&mut index), ["a"]);

        assert_eq!(index.take(Event::Applied(malformed("a", "is bad"))), [], "told before");
        assert_eq!(index.take(Event::Listed(Kind::Node, vec![malformed("a", "is bad")])), [], "told before");
        assert_eq!(index.take(Event::Applied(malformed("a", "is worse"))).len(), 1, "another fault");
    }

    #[test]
    fn an_object_that_is_usable_in_part_stays_and_is_told_once() {
        let mut index = Index::new(&[Kind::Node]);
        assert_eq!(index.take(Event::Listed(Kind::Node, vec![in_part("a", "is bad")])).len(), 1);
        assert_eq!(names(&index), ["a"]);
        assert_eq!(index.take(Event::Applied(in_part("a", "is bad"))), [], "told before");
        assert_eq!(index.take(Event::Applied(in_part("a", "is worse"))).len(), 1, "another fault");
        assert_eq!(index.take(Event::Applied(node("a"))), []);
        let news = index.take(Event::Applied(in_part("a", "is bad")));
        assert_eq!((news.len(), names(&index)), (1, vec!["a"]));
        index.drain_changes();
        news.into_iter().for_each(|object| index.leave_out(object));
        assert_eq!(index.drain_changes().invalid[0].fault, "left out, while the rest is used: spec: is bad");
    }

    #[test]
    fn a_fault_that_comes_back_is_told_again() {
        let mut index = Index::new(&[Kind::Node]);
        for between in [
            Event::Applied(node("a")),
            Event::Deleted(ObjectKey::Node("a".to_owned())),
            Event::Listed(Kind::Node, vec![]),
        ] {
            assert_eq!(index.take(Event::Applied(malformed("a", "is bad"))).len(), 1);
            assert_eq!(index.take(between), []);
        }
        assert_eq!(index.take(Event::Listed(Kind::Node, vec![malformed("a", "is bad")])).len(), 1);
    }

    #[test]
    fn a_list_of_another_kind_forgets_nothing() {
        let mut index = Index::new(&[Kind::Node, Kind::Namespace]);
        index.take(Event::Applied(malformed("a", "is bad")));
        index.take(Event::Listed(Kind::Namespace, Vec::new()));
        assert_eq!(index.take(Event::Applied(malformed("a", "is bad"))), []);
    }

    #[test]
    fn what_became_of_no_concern_is_deleted() {
        let mut index = Index::new(&[Kind::Node]);
        index.take(Event::Applied(node("a")));
        index.take(Event::Applied(Reading::Ignored(ObjectKey::Node("a".to_owned()))));
        assert!(names(&index).is_empty());
    }
}
