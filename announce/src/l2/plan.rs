//! Which nodes may have each load balancer address, and in which order: from what the API server has, so that
//! every node comes to the same.
//!
//! The order is that of rendezvous hashing (Thaler and Ravishankar, 1998): each node has a weight for each
//! address, and the heaviest that is alive has it. So when a node goes, its addresses alone move, spread over
//! the others; when one comes, it takes those for which it is the heaviest, and no other moves. Nobody
//! remembers anything, so that nobody can disagree about what was before.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use weft_types::{
    AddressRange, IpAddressPool, L2Advertisement, LabelSelector, Node, Service, Snapshot, fnv1a,
};

use crate::hosts::{Hosts, by_address};

/// Addresses to announce, by whom and where; as MetalLB's L2Advertisement has it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Advertisement {
    /// The ranges of addresses; without any list: all addresses.
    pub ranges: Option<Vec<AddressRange>>,
    /// The Services, of which each is selected by one of these; none: all Services.
    pub services: Vec<LabelSelector>,
    /// The nodes, of which each is selected by one of these; none: all nodes.
    pub nodes: Vec<LabelSelector>,
    /// The nodes that come before others, by how much.
    pub preferred: Vec<(u8, LabelSelector)>,
    /// The names of the interfaces; none: those that suit an address.
    pub interfaces: Vec<String>,
}

/// Who may have which address.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// The addresses that are announced by somebody.
    pub addresses: BTreeMap<IpAddr, Candidates>,
    /// What is in the way of others, with the remedy.
    pub problems: BTreeSet<String>,
}

/// Who may have an address.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Candidates {
    /// The names of the nodes: the first that is alive has the address.
    pub nodes: Vec<Arc<str>>,
    /// The interfaces of this node on which it may be answered; none: those that suit.
    pub interfaces: Option<BTreeSet<String>>,
}

/// What a plan is made of.
#[derive(Clone, Copy, Debug)]
pub struct Input<'a> {
    /// This node's name.
    pub node: &'a str,
    /// All Services.
    pub services: &'a Snapshot,
    /// All EndpointSlices; none as long as they are not needed ([`crate::hosts::needs_endpoints`]) or not listed.
    pub slices: Option<&'a Snapshot>,
    /// All Nodes, with their labels.
    pub nodes: &'a Snapshot,
    /// What is to be announced; none: all, everywhere.
    pub advertisements: Option<&'a [Advertisement]>,
}

/// Makes the plan.
pub fn plan(input: &Input<'_>) -> Plan {
    let mut plan = Plan::default();
    let hosts = Hosts::new(input.nodes, input.slices);
    let all = [Advertisement::default()];
    let advertisements = input.advertisements.unwrap_or(&all);
    for (address, services) in by_address(input.services) {
        let of_address: Vec<&Advertisement> =
            advertisements.iter().filter(|it| it.holds(address) && it.is_for(&services)).collect();
        // Somebody else's address, or one that is announced in another way.
        if of_address.is_empty() {
            continue;
        }
        let mut names = hosts.of(&services);
        if names.is_empty() {
            // Nobody could serve it; it is announced again as soon as an endpoint is ready.
            continue;
        }
        names.retain(|node| of_address.iter().any(|advertisement| advertisement.selects(node)));
        if names.is_empty() {
            plan.problems.insert(format!(
                "no node announces {address} of Service {}: nodeSelectors of its L2Advertisement select no node that may, \
                 which with externalTrafficPolicy: Local is one with a ready endpoint",
                services[0].key
            ));
            continue;
        }
        let preference = |node: &Node| -> u32 {
            of_address.iter().map(|advertisement| advertisement.preference(node)).sum()
        };
        names.sort_by_key(|node| Reverse((preference(node), weight(address, &node.name), &node.name)));
        let interfaces = interfaces(&of_address, input.nodes.node(input.node));
        let nodes = names.iter().map(|node| node.name.as_str().into()).collect();
        plan.addresses.insert(address, Candidates { nodes, interfaces });
    }
    plan
}

/// Where this node may answer; none where it may wherever it suits.
fn interfaces(advertisements: &[&Advertisement], node: Option<&Node>) -> Option<BTreeSet<String>> {
    let of_node =
        advertisements.iter().filter(|advertisement| node.is_some_and(|node| advertisement.selects(node)));
    let mut named = BTreeSet::new();
    for advertisement in of_node {
        if advertisement.interfaces.is_empty() {
            return None;
        }
        named.extend(advertisement.interfaces.iter().cloned());
    }
    Some(named)
}

/// The weight of a node for an address: the same in every release, as nodes of two work side by side during
/// an upgrade.
fn weight(address: IpAddr, node: &str) -> u64 {
    let address = match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    };
    // FNV-1a alone gives names that end alike neighbouring values. What follows is the end of SplitMix64.
    let hash = fnv1a(address.into_iter().chain([0]).chain(node.bytes()));
    let mixed = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// What MetalLB's objects say: all L2Advertisements, over the pools that each selects.
pub fn advertisements(l2: &Snapshot, pools: &Snapshot) -> Vec<Advertisement> {
    l2.of::<L2Advertisement>()
        .iter()
        .map(|it: &L2Advertisement| {
            let pools = pools.of::<IpAddressPool>().iter();
            let selected = pools.filter(|pool| it.pools.selects(&pool.key.name, &pool.labels));
            Advertisement {
                ranges: Some(selected.flat_map(|pool| pool.ranges.iter().copied()).collect()),
                services: it.service_selectors.to_vec(),
                nodes: it.node_selectors.to_vec(),
                preferred: it.preferred_nodes.iter().map(|one| (one.weight, one.selector.clone())).collect(),
                interfaces: it.interfaces.iter().map(ToString::to_string).collect(),
            }
        })
        .collect()
}

impl Advertisement {
    /// These addresses, by all nodes.
    pub fn of_ranges(ranges: &[AddressRange]) -> Advertisement {
        Advertisement { ranges: Some(ranges.to_vec()), ..Advertisement::default() }
    }

    fn holds(&self, address: IpAddr) -> bool {
        self.ranges.as_ref().is_none_or(|ranges| ranges.iter().any(|range| range.contains(address)))
    }

    fn is_for(&self, services: &[&Service]) -> bool {
        let is_selected = |service: &&Service| {
            let labels = service.load_balancer.as_ref().map(|it| &it.labels);
            labels.is_some_and(|labels| self.services.iter().any(|selector| selector.matches(labels)))
        };
        self.services.is_empty() || services.iter().any(is_selected)
    }

    fn selects(&self, node: &Node) -> bool {
        LabelSelector::any_matches(&self.nodes, &node.labels)
    }

    fn preference(&self, node: &Node) -> u32 {
        let matching = self.preferred.iter().filter(|(_, selector)| selector.matches(&node.labels));
        matching.map(|(weight, _)| u32::from(*weight)).sum()
    }
}

#[cfg(test)]
mod tests;
