//! A table as changes make it, which refuses changes that a kernel would.

use std::collections::BTreeMap;
use std::net::IpAddr;

use weft_policy::plan::{ClassId, Delta, Direction, PolicyPlan, RowPorts, Verdict};

type RowKey = (Direction, IpAddr, ClassId, RowPorts);

#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Table {
    peers: BTreeMap<IpAddr, ClassId>,
    networks: BTreeMap<IpAddr, (IpAddr, ClassId)>,
    sides: BTreeMap<(Direction, IpAddr), Verdict>,
    rows: BTreeMap<RowKey, Verdict>,
}

fn set<K: Ord + std::fmt::Debug, V>(map: &mut BTreeMap<K, V>, key: K, value: Option<V>) {
    let text = format!("{key:?}");
    match value {
        Some(value) => drop(map.insert(key, value)),
        None => assert!(map.remove(&key).is_some(), "{text} is taken out, but was never put in"),
    }
}

impl Table {
    pub(crate) fn of(plan: &PolicyPlan) -> Table {
        let mut table = Table::default();
        table.apply(&plan.whole());
        table
    }

    pub(crate) fn apply(&mut self, delta: &Delta) {
        for (address, class) in &delta.peers {
            assert_ne!(*class, Some(ClassId::NONE));
            set(&mut self.peers, *address, *class);
        }
        let (new, gone): (Vec<_>, Vec<_>) = delta.networks.iter().partition(|(_, _, class)| class.is_some());
        for (first, last, _) in gone {
            assert_eq!(self.networks.remove(&first).map(|it| it.0), Some(last));
        }
        for (first, last, class) in new {
            let before = self.networks.range(..=last).next_back();
            assert!(before.is_none_or(|(_, (end, _))| *end < first), "networks overlap");
            assert_eq!(self.networks.insert(first, (last, class.unwrap())), None);
        }
        for (direction, address, base) in &delta.sides {
            set(&mut self.sides, (*direction, *address), base.map(|base| base.verdict));
        }
        for row in &delta.rows {
            let key = (row.direction, row.address, row.class, row.ports);
            set(&mut self.rows, key, row.decision.map(|decision| decision.verdict));
        }
        self.check_ranges();
    }

    fn check_ranges(&self) {
        let ranges = self.rows.keys().filter_map(|(direction, address, class, ports)| match ports {
            RowPorts::Range(protocol, first, last) => {
                Some(((direction, address, class, protocol), (first, last)))
            }
            _ => None,
        });
        let ranges: Vec<_> = ranges.collect();
        for pair in ranges.windows(2) {
            assert!(pair[0].0 != pair[1].0 || pair[0].1.1 < pair[1].1.0, "ranges overlap: {pair:?}");
        }
    }

    /// How much there is of each: equal for equal clusters, whatever the numbers of classes.
    pub(crate) fn sizes(&self) -> [usize; 5] {
        let mut classes: Vec<(bool, ClassId)> =
            self.peers.iter().map(|(address, class)| (address.is_ipv4(), *class)).collect();
        classes.extend(self.networks.iter().map(|(first, (_, class))| (first.is_ipv4(), *class)));
        classes.sort_unstable();
        classes.dedup();
        [classes.len(), self.peers.len(), self.networks.len(), self.sides.len(), self.rows.len()]
    }
}
