//! From events to a snapshot: what the watches say, put together. No I/O, no waiting, no logging.

use std::collections::{BTreeMap, BTreeSet};
use std::time::SystemTime;

use weft_types::{ChangeSet, InvalidObject, Kind, Object, ObjectKey, Snapshot};

use crate::resource::{Malformed, Reading};

/// What a watch of one kind has to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// From here on the objects of the kind are told, all of them.
    Listing(Kind),
    /// All of them were told: others are gone.
    Listed(Kind),
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
    /// Of the kinds that are being listed, what was known before and has not been told again. Nothing of what
    /// is listed for the first time.
    untold: BTreeMap<Kind, BTreeSet<ObjectKey>>,
    /// The malformed objects, each with the fault that was told.
    malformed: BTreeMap<ObjectKey, Malformed>,
}

impl Index {
    /// An empty index that is not complete until each of these kinds has listed.
    pub(crate) fn new(kinds: &[Kind]) -> Self {
        Index { missing: kinds.iter().copied().collect(), ..Index::default() }
    }

    /// Takes an event in. Returns its object if that is malformed, in whole or in part, and was not told
    /// before.
    pub(crate) fn take(&mut self, event: Event) -> Option<Malformed> {
        match event {
            Event::Listing(kind) => self.begin_list(kind),
            Event::Listed(kind) => self.end_list(kind),
            Event::Applied(reading) => return self.apply(reading),
            Event::Triggered(reading, moment) => {
                let before = self.changes.endpoint_slices;
                let malformed = self.apply(reading);
                if self.changes.endpoint_slices > before {
                    self.changes.triggered.push(moment);
                }
                return malformed;
            }
            Event::Deleted(key) => self.delete(&key),
        }
        None
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

    fn begin_list(&mut self, kind: Kind) {
        let malformed = self.malformed.keys().filter(|key| key.kind() == kind).cloned();
        let known: BTreeSet<ObjectKey> = self.snapshot.keys(kind).into_iter().chain(malformed).collect();
        self.untold.remove(&kind);
        if !known.is_empty() {
            self.untold.insert(kind, known);
        }
    }

    fn end_list(&mut self, kind: Kind) {
        self.missing.remove(&kind);
        self.untold.remove(&kind).iter().flatten().for_each(|gone| self.delete(gone));
    }

    /// Notes that an object was told.
    fn tell(&mut self, key: impl Fn() -> Option<ObjectKey>) {
        if self.untold.is_empty() {
            return;
        }
        if let Some(key) = key()
            && let Some(untold) = self.untold.get_mut(&key.kind())
        {
            untold.remove(&key);
        }
    }

    fn apply(&mut self, reading: Reading) -> Option<Malformed> {
        self.tell(|| reading.key());
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

    /// Lists these Nodes, and no others. Returns those of them that are malformed and were not told before.
    fn list(index: &mut Index, nodes: impl IntoIterator<Item = Reading>) -> Vec<Malformed> {
        assert_eq!(index.take(Event::Listing(Kind::Node)), None);
        let news = nodes.into_iter().filter_map(|node| index.take(Event::Applied(node))).collect();
        assert_eq!(index.take(Event::Listed(Kind::Node)), None);
        news
    }

    #[test]
    fn complete_once_every_kind_has_listed() {
        let mut index = Index::new(&[Kind::Node, Kind::Namespace]);
        list(&mut index, []);
        assert!(!index.is_complete());
        index.take(Event::Listing(Kind::Namespace));
        assert!(!index.is_complete());
        index.take(Event::Listed(Kind::Namespace));
        assert!(index.is_complete() && !index.has_changes());
    }

    #[test]
    fn a_second_list_replaces_the_first() {
        let mut index = Index::new(&[Kind::Node]);
        list(&mut index, ["a", "b"].map(node));
        assert_eq!(changed(&mut index), ["a", "b"]);
        list(&mut index, ["b", "c"].map(node));
        assert_eq!(names(&index), ["b", "c"]);
        assert_eq!(changed(&mut index), ["a", "c"]);
    }

    #[test]
    fn a_list_that_breaks_off_takes_nothing_away_and_the_next_one_does() {
        let mut index = Index::new(&[Kind::Node]);
        list(&mut index, ["a", "b"].map(node));
        index.take(Event::Listing(Kind::Node));
        index.take(Event::Applied(node("c")));
        assert_eq!(names(&index), ["a", "b", "c"]);
        list(&mut index, ["b"].map(node));
        assert_eq!(names(&index), ["b"]);
    }

    #[test]
    fn what_goes_and_comes_again_while_all_are_told_is_as_it_was_told_last() {
        let mut index = Index::new(&[Kind::Node]);
        list(&mut index, ["a", "b", "c"].map(node));
        index.take(Event::Listing(Kind::Node));
        for node in ["a", "b", "c"].map(node) {
            index.take(Event::Applied(node));
        }
        for name in ["a", "b"] {
            index.take(Event::Deleted(ObjectKey::Node(name.to_owned())));
        }
        index.take(Event::Applied(node("b")));
        index.take(Event::Listed(Kind::Node));
        assert_eq!(names(&index), ["b", "c"]);
    }

    #[test]
    fn a_malformed_object_is_told_once_and_deleted() {
        let mut index = Index::new(&[Kind::Node]);
        list(&mut index, ["a", "b"].map(node));
        index.drain_changes();
        assert!(index.take(Event::Applied(malformed("a", "is bad"))).is_some());
        assert_eq!(names(&index), ["b"]);
        assert_eq!(changed(&mut index), ["a"]);

        assert_eq!(index.take(Event::Applied(malformed("a", "is bad"))), None, "told before");
        assert_eq!(list(&mut index, [malformed("a", "is bad")]), [], "told before");
        assert!(index.take(Event::Applied(malformed("a", "is worse"))).is_some(), "another fault");
    }

    #[test]
    fn an_object_that_is_usable_in_part_stays_and_is_told_once() {
        let mut index = Index::new(&[Kind::Node]);
        assert_eq!(list(&mut index, [in_part("a", "is bad")]).len(), 1);
        assert_eq!(names(&index), ["a"]);
        assert_eq!(index.take(Event::Applied(in_part("a", "is bad"))), None, "told before");
        assert!(index.take(Event::Applied(in_part("a", "is worse"))).is_some(), "another fault");
        assert_eq!(index.take(Event::Applied(node("a"))), None);
        let news = index.take(Event::Applied(in_part("a", "is bad"))).unwrap();
        assert_eq!(names(&index), ["a"]);
        index.drain_changes();
        index.leave_out(news);
        assert_eq!(index.drain_changes().invalid[0].fault, "left out, while the rest is used: spec: is bad");
    }

    #[test]
    fn a_fault_that_comes_back_is_told_again() {
        let mut index = Index::new(&[Kind::Node]);
        for between in [Event::Applied(node("a")), Event::Deleted(ObjectKey::Node("a".to_owned()))] {
            assert!(index.take(Event::Applied(malformed("a", "is bad"))).is_some());
            assert_eq!(index.take(between), None);
        }
        assert!(index.take(Event::Applied(malformed("a", "is bad"))).is_some());
        assert_eq!(list(&mut index, []), []);
        assert_eq!(list(&mut index, [malformed("a", "is bad")]).len(), 1);
    }

    #[test]
    fn a_list_of_another_kind_forgets_nothing() {
        let mut index = Index::new(&[Kind::Node, Kind::Namespace]);
        index.take(Event::Applied(malformed("a", "is bad")));
        index.take(Event::Listing(Kind::Namespace));
        index.take(Event::Listed(Kind::Namespace));
        assert_eq!(index.take(Event::Applied(malformed("a", "is bad"))), None);
    }

    #[test]
    fn what_became_of_no_concern_is_deleted() {
        let mut index = Index::new(&[Kind::Node]);
        index.take(Event::Applied(node("a")));
        index.take(Event::Applied(Reading::Ignored(ObjectKey::Node("a".to_owned()))));
        assert!(names(&index).is_empty());
    }
}
