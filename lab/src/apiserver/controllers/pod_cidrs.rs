//! Gives every Node its part of the cluster's ranges (`spec.podCIDR`, `spec.podCIDRs`): the lowest free one.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde_json::{Value, json};
use weft_types::{IpNetwork, Ipv4Network, Ipv6Network};

use super::{Action, Controller};
use crate::apiserver::Config;
use crate::apiserver::history::Event;
use crate::apiserver::object::{Key, items, text};
use crate::apiserver::store::Store;

/// The ranges, and the length of a Node's part of each.
pub(super) struct PodCidrs {
    ranges: Vec<(IpNetwork, u8)>,
}

impl PodCidrs {
    pub(super) fn new(config: &Config) -> Self {
        let mask = |cidr: &IpNetwork| {
            if cidr.is_ipv4() { config.node_cidr_mask_ipv4 } else { config.node_cidr_mask_ipv6 }
        };
        Self { ranges: config.cluster_cidrs.iter().map(|cidr| (*cidr, mask(cidr))).collect() }
    }
}

impl Controller for PodCidrs {
    /// A Node without a range; all such Nodes when one is deleted and sets its range free.
    fn concerns(&self, store: &Store, event: &Event) -> Vec<Key> {
        let is_waiting = |node: &Value| node["spec"]["podCIDR"].is_null();
        match (event.plural, &event.new) {
            ("nodes", Some(node)) if is_waiting(node) => vec![Key::of("nodes", node)],
            ("nodes", None) => {
                let waiting = store.list("nodes", "", None).filter(|node| is_waiting(node));
                waiting.map(|node| Key::of("nodes", node)).collect()
            }
            _ => Vec::new(),
        }
    }

    fn decide(&self, store: &Store, key: &Key) -> Vec<Action> {
        let Some(node) = store.get(key).filter(|node| node["spec"]["podCIDR"].is_null()) else {
            return Vec::new();
        };
        let taken: Vec<IpNetwork> = store
            .list("nodes", "", None)
            .flat_map(|node| items(&node["spec"]["podCIDRs"]))
            .filter_map(|cidr| text(cidr).parse().ok())
            .collect();
        let mut given = Vec::new();
        for (range, mask) in &self.ranges {
            match free_part(*range, *mask, &taken) {
                Some(part) => given.push(part.to_string()),
                None => {
                    let advice = "delete Nodes that are gone, or give the cluster a wider range";
                    let name = &key.name;
                    return vec![Action::Report(format!(
                        "Node {name} gets no podCIDR: {range} has no free /{mask}; {advice}"
                    ))];
                }
            }
        }
        let Some(first) = given.first() else { return Vec::new() };
        let mut node = Value::clone(node);
        node["spec"]["podCIDR"] = json!(first);
        node["spec"]["podCIDRs"] = json!(given);
        vec![Action::Update("nodes", node)]
    }
}

/// The first part of that length that overlaps none of those taken.
fn free_part(range: IpNetwork, mask: u8, taken: &[IpNetwork]) -> Option<IpNetwork> {
    let bits = if range.is_ipv4() { 32 } else { 128 };
    let index_bits = mask.checked_sub(range.prefix())?;
    let step = bits - u32::from(mask.min(u8::try_from(bits).ok()?));
    let count = 1u64 << index_bits.min(63);
    let part = |index: u64| -> Option<IpNetwork> {
        let offset = u128::from(index) << step;
        match range.network() {
            IpAddr::V4(first) => {
                let first = Ipv4Addr::from_bits(first.to_bits() + u32::try_from(offset).ok()?);
                Ipv4Network::new(first, mask).ok().map(IpNetwork::V4)
            }
            IpAddr::V6(first) => {
                let first = Ipv6Addr::from_bits(first.to_bits() + offset);
                Ipv6Network::new(first, mask).ok().map(IpNetwork::V6)
            }
        }
    };
    let overlaps =
        |one: &IpNetwork, other: &IpNetwork| one.contains(other.network()) || other.contains(one.network());
    (0..count).filter_map(part).find(|part| !taken.iter().any(|other| overlaps(part, other)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cidr(text: &str) -> IpNetwork {
        text.parse().unwrap()
    }

    #[test]
    fn the_lowest_free_part() {
        let range = cidr("10.244.0.0/16");
        assert_eq!(free_part(range, 24, &[]), Some(cidr("10.244.0.0/24")));
        let taken = [cidr("10.244.0.0/24"), cidr("10.244.2.0/24")];
        assert_eq!(free_part(range, 24, &taken), Some(cidr("10.244.1.0/24")));
        assert_eq!(free_part(cidr("10.0.0.0/24"), 24, &[cidr("10.0.0.128/25")]), None);
        assert_eq!(
            free_part(cidr("fd00:244::/56"), 64, &[cidr("fd00:244::/64")]),
            Some(cidr("fd00:244:0:1::/64"))
        );
        assert_eq!(free_part(cidr("10.0.0.0/24"), 16, &[]), None);
    }

    #[test]
    fn a_full_range_is_reported_with_the_node() {
        let config = Config {
            cluster_cidrs: vec![cidr("10.244.0.0/24")],
            node_cidr_mask_ipv4: 25,
            ..Config::default()
        };
        let controller = PodCidrs::new(&config);
        let mut store = Store::new(0, 10);
        let node = |name: &str, spec: Value| json!({"metadata": {"name": name}, "spec": spec});
        for (name, range) in [("n1", "10.244.0.0/25"), ("n2", "10.244.0.128/25")] {
            let node = node(name, json!({"podCIDR": range, "podCIDRs": [range]}));
            store.put(Key::of("nodes", &node), node);
        }
        let late = node("n3", json!({}));
        let key = Key::of("nodes", &late);
        store.put(key.clone(), late);
        assert!(matches!(&*controller.decide(&store, &key), [Action::Report(text)] if text.contains("n3")));
        store.remove(&Key::new("nodes", "", "n1"));
        let [Action::Update(_, given)] = &*controller.decide(&store, &key) else { panic!() };
        assert_eq!(given["spec"]["podCIDRs"], json!(["10.244.0.0/25"]));
    }
}
