//! Which addresses answer which questions with yes.

use std::net::IpAddr;

use weft_types::{Family, IpBlock};

use super::{AddressId, Classes};
use crate::plan::features::{Feature, FeatureId, Features};
use crate::plan::networks::{address, contains, ends};
use crate::plan::world::{World, node_addresses};

impl Classes {
    /// The addresses that answer a question with yes.
    pub(super) fn matching(&self, feature: &Feature, world: &World) -> Vec<AddressId> {
        let of = |address: &IpAddr| self.by_address.get(address).copied();
        match feature {
            Feature::Network(block) => self.inside(block),
            Feature::Nodes(selector) => {
                let nodes = world.nodes().filter(|node| selector.matches(&node.labels));
                let mut found: Vec<AddressId> = nodes.flat_map(node_addresses).filter_map(of).collect();
                found.sort_unstable();
                found.dedup();
                found
            }
            Feature::Own { .. } | Feature::Everywhere { .. } | Feature::Ports { .. } => {
                let mut found = Vec::new();
                for pod_id in world.pods_that_answer(feature) {
                    let addresses = world.pod(pod_id).map(|pod| pod.addresses()).unwrap_or_default();
                    let owned = addresses.iter().filter_map(of);
                    found.extend(
                        owned.filter(|id| self.state(*id).is_some_and(|it| it.owner == Some(pod_id))),
                    );
                }
                found
            }
        }
    }

    fn inside(&self, block: &IpBlock) -> Vec<AddressId> {
        if Family::of_network(&block.cidr) != self.family {
            return Vec::new();
        }
        let (first, last) = ends(&block.cidr);
        let all = self.by_address.range(address(self.family, first)..=address(self.family, last));
        all.filter(|(address, _)| contains(block, **address)).map(|(_, id)| *id).collect()
    }

    /// The questions that an address answers with yes, in order.
    pub(super) fn answers(&self, id: AddressId, world: &World, features: &mut Features) -> Vec<FeatureId> {
        let Some(state) = self.state(id).filter(|state| state.owner.is_some() || !state.nodes.is_empty())
        else {
            return Vec::new();
        };
        let mut vector = Vec::new();
        if let Some(pod) = state.owner.and_then(|owner| world.pod(owner)) {
            let asked = features.own(&pod.pod.key.namespace).iter().chain(features.everywhere());
            let says_yes =
                |id: &&FeatureId| features.get(**id).is_some_and(|feature| world.pod_answers(pod, feature));
            vector.extend(asked.filter(says_yes));
            let named: Vec<_> =
                features.port_names().map(|name| (Box::<str>::from(name), pod.ports(name, None))).collect();
            vector.extend(named.into_iter().filter_map(|(name, ports)| features.ports(&name, ports)));
        }
        for id in features.networks() {
            if let Some(Feature::Network(block)) = features.get(*id).map(|feature| &**feature)
                && contains(block, state.address)
            {
                vector.push(*id);
            }
        }
        for id in features.nodes() {
            let Some(Feature::Nodes(selector)) = features.get(*id).map(|feature| &**feature) else {
                continue;
            };
            let mut nodes = state.nodes.iter().filter_map(|name| world.node(name));
            if nodes.any(|node| selector.matches(&node.labels)) {
                vector.push(*id);
            }
        }
        vector.sort_unstable();
        vector
    }
}
