//! What rules write into expiring maps, and read again at later packets.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::table::TableKey;
use crate::value::{Name, Tuple};

/// The elements that packets wrote. Time stands still until [`Memory::pass`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    now: Duration,
    /// What each map holds for a key, and until when.
    elements: BTreeMap<(TableKey, Name, Tuple), (Tuple, Duration)>,
}

impl Memory {
    /// Lets time pass.
    pub fn pass(&mut self, time: Duration) {
        self.now += time;
        let now = self.now;
        self.elements.retain(|_, (_, end)| *end > now);
    }

    /// What a map holds for a key.
    pub fn get(&self, table: &TableKey, map: &Name, key: &Tuple) -> Option<&Tuple> {
        self.elements.get(&(table.clone(), map.clone(), key.clone())).map(|(data, _)| data)
    }

    /// Writes an element; one that is there already only lives on, as in the kernel. Returns what the map
    /// holds then.
    pub fn update(
        &mut self,
        table: &TableKey,
        map: &Name,
        key: Tuple,
        data: Tuple,
        time: Duration,
    ) -> &Tuple {
        let end = self.now + time;
        let (data, until) = self.elements.entry((table.clone(), map.clone(), key)).or_insert((data, end));
        *until = end;
        data
    }

    /// Deletes an element, whatever it holds. Returns whether it was there.
    pub fn delete(&mut self, table: &TableKey, map: &Name, key: &Tuple) -> bool {
        self.elements.remove(&(table.clone(), map.clone(), key.clone())).is_some()
    }
}
