//! What is taken over from tables that the kernel has from before.

use std::net::IpAddr;

use weft_nftables::{Data, DataType, Family, Observed, ObservedSet, TableKey, Tuple, Value};

use super::{PENDING, Ruleset, TABLE};
use crate::plan::ClassId;

/// The classes of addresses and of the first addresses of networks, for [`Planner::adopt`](crate::plan::Planner::adopt).
pub fn classes(observed: &Observed) -> Vec<(IpAddr, ClassId)> {
    let class = |data: &Data| match data {
        Data::Tuple(tuple) => match *tuple.values(&[DataType::ClassId])? {
            [Value::ClassId(class)] => Some(ClassId(class)),
            _ => None,
        },
        Data::None | Data::Verdict(_) => None,
    };
    let mut classes = Vec::new();
    for family in Family::BOTH {
        for set in ["networks", "peers"].into_iter().filter_map(|name| find(observed, family, name)) {
            let element = |(key, data)| Some((address(family, key)?, class(data)?));
            classes.extend(set.elements.iter().filter_map(element));
        }
    }
    classes
}

/// The addresses of pods that wait for their policies, each with the remark that the plugin put on it.
pub fn pending(observed: &Observed) -> Vec<(IpAddr, String)> {
    let mut pending = Vec::new();
    for family in Family::BOTH {
        let Some(set) = find(observed, family, PENDING) else { continue };
        for key in set.elements.keys() {
            let remark =
                set.details.get(key).and_then(|detail| detail.comment.as_deref()).unwrap_or_default();
            pending.extend(address(family, key).map(|address| (address, remark.to_owned())));
        }
    }
    pending
}

impl Ruleset {
    /// Makes the addresses that wait part of the tables, so that a comparison with what was observed leaves them alone.
    pub fn keep_pending(&mut self, observed: &Observed) {
        for (family, table) in Family::BOTH.into_iter().zip(&mut self.tables) {
            let (Some(set), Some(held)) = (table.sets.get_mut(PENDING), find(observed, family, PENDING))
            else {
                continue;
            };
            set.elements = held.elements.clone();
            set.details = held.details.clone();
        }
    }
}

fn find<'a>(observed: &'a Observed, family: Family, set: &str) -> Option<&'a ObservedSet> {
    let key: TableKey = (family.into(), TABLE.into());
    observed.tables.get(&key)?.sets.get(set)
}

/// The address that a key is, or that its range begins with.
fn address(family: Family, key: &Tuple) -> Option<IpAddr> {
    match *key.values(&[DataType::address(family)])? {
        [Value::Address(address)] => Some(address),
        _ => None,
    }
}
