//! What rules write into expiring maps and into lists of iptables, and read again at later packets.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use crate::table::TableKey;
use crate::value::{Name, Tuple};

/// The elements that packets wrote. Time stands still until [`Memory::pass`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    now: Duration,
    /// What each map holds for a key, and until when.
    elements: BTreeMap<(TableKey, Name, Tuple), (Tuple, Duration)>,
    /// When somebody was put into a list of iptables (`-m recent`) last; none where that is not known.
    lists: BTreeMap<(Name, IpAddr), Option<Duration>>,
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

    /// Puts an address into a list of iptables.
    pub fn list(&mut self, list: &Name, address: IpAddr) {
        self.lists.insert((list.clone(), address), Some(self.now));
    }

    /// The same at a time that is not known.
    pub fn list_sometime(&mut self, list: &Name, address: IpAddr) {
        self.lists.insert((list.clone(), address), None);
    }

    /// Whether an address was put into a list within that time; none where that is not known.
    pub fn is_listed(&self, list: &Name, address: IpAddr, within: Duration) -> Option<bool> {
        match self.lists.get(&(list.clone(), address)) {
            Some(when) => when.map(|when| when + within >= self.now),
            None => Some(false),
        }
    }

    /// Deletes an element, whatever it holds. Returns whether it was there.
    pub fn delete(&mut self, table: &TableKey, map: &Name, key: &Tuple) -> bool {
        self.elements.remove(&(table.clone(), map.clone(), key.clone())).is_some()
    }
}
