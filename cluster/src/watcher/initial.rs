//! What a watch tells before it has told everything: the initial events, and what changes among them. No I/O.

use std::collections::BTreeSet;

use weft_types::ObjectKey;

use crate::resource::Reading;

/// The initial events so far.
#[derive(Debug, Default)]
pub(super) struct InitialEvents {
    /// In the order in which they came; a deletion in the place of its object.
    events: Vec<Result<Reading, ObjectKey>>,
    /// Whether an object may have come more than once. Nearly never, and to find out which takes memory.
    has_changes: bool,
}

impl InitialEvents {
    /// An object is there: as it was when the watch began, if it `is_new`, or as it is since.
    pub(super) fn apply(&mut self, reading: Reading, is_new: bool) {
        self.has_changes |= !is_new;
        self.events.push(Ok(reading));
    }

    /// An object went while the others were told.
    pub(super) fn delete(&mut self, key: ObjectKey) {
        self.has_changes = true;
        self.events.push(Err(key));
    }

    /// All objects that there are, each as it was told last.
    pub(super) fn into_readings(self) -> Vec<Reading> {
        if !self.has_changes {
            return self.events.into_iter().filter_map(Result::ok).collect();
        }
        let mut told = BTreeSet::new();
        let mut last = |event: &Result<Reading, ObjectKey>| match event {
            Ok(reading) => reading.key().is_none_or(|key| told.insert(key)),
            Err(key) => {
                told.insert(key.clone());
                false
            }
        };
        let mut readings: Vec<Reading> =
            self.events.into_iter().rev().filter(|event| last(event)).flatten().collect();
        readings.reverse();
        readings
    }
}

#[cfg(test)]
mod tests {
    use weft_types::{Node, Object};

    use super::*;

    fn node(name: &str, zone: &str) -> Reading {
        Reading::Object(Object::Node(Node { name: name.into(), zone: Some(zone.into()), ..Node::default() }))
    }

    #[test]
    fn each_object_is_as_it_was_told_last() {
        let key = |name: &str| ObjectKey::Node(name.to_owned());
        let mut events = InitialEvents::default();
        ["a", "b", "c", "d"].into_iter().for_each(|name| events.apply(node(name, "old"), true));
        events.apply(node("a", "new"), false);
        events.delete(key("b"));
        events.delete(key("c"));
        events.apply(node("c", "again"), true);
        events.apply(Reading::Ignored(key("d")), false);
        let expected = [node("a", "new"), node("c", "again"), Reading::Ignored(key("d"))];
        assert_eq!(events.into_readings(), expected);
    }
}
