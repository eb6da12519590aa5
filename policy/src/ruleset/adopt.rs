//! What is taken over from tables that the kernel has from before.

use std::collections::BTreeMap;
use std::net::IpAddr;

use weft_nftables::{Data, DataType, Detail, Family, Observed, ObservedSet, TableKey, Tuple, Value};

use super::{PENDING, Ruleset, TABLE};
use crate::plan::ClassId;

/// The classes of addresses and of the first addresses of networks, for
/// [`Planner::adopt`](crate::plan::Planner::adopt).
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
    /// Makes the addresses that wait part of the tables, each with the plugin's remark, and no others: so a
    /// comparison with what was observed leaves these alone, and puts them back where they are missing.
    pub fn set_pending(&mut self, waiting: &[(IpAddr, String)]) {
        for table in &mut self.tables {
            let Some(set) = table.sets.get_mut(PENDING) else { continue };
            let is_v6 = set.declaration.key == [DataType::Ipv6Addr];
            let of_family = waiting.iter().filter(|(address, _)| address.is_ipv6() == is_v6);
            let (mut elements, mut details) = (BTreeMap::new(), BTreeMap::new());
            for (address, remark) in of_family {
                let key = Tuple::new(&[Value::Address(*address)]);
                if !remark.is_empty() {
                    let detail = Detail { comment: Some(remark.as_str().into()), timeout: None };
                    details.insert(key.clone(), detail);
                }
                elements.insert(key, Data::None);
            }
            (set.elements, set.details) = (elements, details);
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
