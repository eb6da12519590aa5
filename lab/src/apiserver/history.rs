//! What changed, in order, as far back as memory allows: the source of every watch. It never waits for a
//! reader; one that falls behind the oldest event is told so and lists again.

use std::collections::VecDeque;
use std::sync::Arc;

use serde_json::Value;

/// One change of one object.
#[derive(Clone, Debug)]
pub(crate) struct Event {
    /// The resource version that the change made.
    pub(crate) version: u64,
    /// The plural of the object's kind.
    pub(crate) plural: &'static str,
    /// What the object was before; `None` when it is new.
    pub(crate) old: Option<Arc<Value>>,
    /// What the object is now; `None` when it is gone.
    pub(crate) new: Option<Arc<Value>>,
}

impl Event {
    /// The object as it is now, or as it last was.
    pub(crate) fn object(&self) -> &Arc<Value> {
        self.new.as_ref().or(self.old.as_ref()).expect("an event has an object before or after")
    }
}

/// The newest events.
#[derive(Debug)]
pub(crate) struct History {
    events: VecDeque<Arc<Event>>,
    capacity: usize,
    /// The version of the newest event that is no longer here: the oldest one a reader may continue from.
    floor: u64,
}

impl History {
    /// An empty history that begins after the version `floor` and keeps `capacity` events.
    pub(crate) fn new(floor: u64, capacity: usize) -> Self {
        Self { events: VecDeque::new(), capacity: capacity.max(1), floor }
    }

    /// Adds the newest event and lets go of the oldest one when full.
    pub(crate) fn push(&mut self, event: Event) {
        if self.events.len() == self.capacity
            && let Some(oldest) = self.events.pop_front()
        {
            self.floor = oldest.version;
        }
        self.events.push_back(Arc::new(event));
    }

    /// Every event after that version, oldest first; `None` when some of them are forgotten.
    pub(crate) fn since(&self, version: u64) -> Option<impl Iterator<Item = &Arc<Event>>> {
        if version < self.floor {
            return None;
        }
        let start = self.events.partition_point(|event| event.version <= version);
        Some(self.events.range(start..))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn event(version: u64) -> Event {
        Event { version, plural: "pods", old: None, new: Some(Arc::new(json!({}))) }
    }

    #[test]
    fn a_reader_continues_where_it_stopped_or_learns_that_it_cannot() {
        let mut history = History::new(10, 2);
        assert!(history.since(9).is_none());
        for version in [11, 12, 13] {
            history.push(event(version));
        }
        let versions = |from| history.since(from).map(|events| events.map(|e| e.version).collect::<Vec<_>>());
        assert_eq!(versions(10), None);
        assert_eq!(versions(11), Some(vec![12, 13]));
        assert_eq!(versions(13), Some(vec![]));
    }
}
