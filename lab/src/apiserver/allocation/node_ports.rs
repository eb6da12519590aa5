//! The ports of the nodes that Services may take.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;

/// The range, and what is taken of it.
#[derive(Debug)]
pub(super) struct NodePorts {
    range: RangeInclusive<u16>,
    taken: BTreeSet<u16>,
    next: u16,
}

impl NodePorts {
    /// A range with nothing taken.
    pub(super) fn new(range: RangeInclusive<u16>) -> Self {
        let mut ports = Self { range, taken: BTreeSet::new(), next: 0 };
        ports.next = ports.first_dynamic();
        ports
    }

    /// The range.
    pub(super) fn range(&self) -> &RangeInclusive<u16> {
        &self.range
    }

    /// Does somebody have it?
    pub(super) fn is_taken(&self, port: u16) -> bool {
        self.taken.contains(&port)
    }

    /// A free port that is none of `picked`, above the band for chosen ports while there is one (KEP-3668).
    pub(super) fn free(&self, picked: &[u16]) -> Option<u16> {
        let dynamic = (self.next..=*self.range.end()).chain(self.first_dynamic()..self.next);
        let mut all = dynamic.chain(*self.range.start()..self.first_dynamic());
        all.find(|port| !self.taken.contains(port) && !picked.contains(port))
    }

    /// Notes that a port is taken or free.
    pub(super) fn mark(&mut self, port: u16, is_taken: bool) {
        if !is_taken {
            self.taken.remove(&port);
        } else if self.taken.insert(port) && port >= self.first_dynamic() && self.range.contains(&port) {
            self.next = if port < *self.range.end() { port + 1 } else { self.first_dynamic() };
        }
    }

    /// The first port above the band of those that people choose: a thirty-second part of the range, at
    /// least 16 and at most 128 ports; none in a small range.
    fn first_dynamic(&self) -> u16 {
        let size = self.range.end().saturating_sub(*self.range.start());
        let band = if size < 32 { 0 } else { (size / 32).clamp(16, 128) };
        self.range.start() + band
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_given_once() {
        let mut ports = NodePorts::new(30000..=30002);
        assert_eq!(ports.free(&[]), Some(30000));
        assert_eq!(ports.free(&[30000]), Some(30001));
        for port in 30000..=30002 {
            ports.mark(port, true);
        }
        assert_eq!(ports.free(&[]), None);
        ports.mark(30001, false);
        assert_eq!(ports.free(&[]), Some(30001));
    }

    #[test]
    fn the_lower_ports_are_left_to_people() {
        let ports = NodePorts::new(30000..=32767);
        assert_eq!(ports.free(&[]), Some(30086));
        assert!(!ports.is_taken(30080));
    }
}
