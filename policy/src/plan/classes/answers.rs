//! Which addresses answer which questions with yes.

use std::net::IpAddr;

use hashbrown::HashMap;
use weft_types::LabelSelector;

use super::{AddressId, Classes};
use crate::plan::features::{Feature, FeatureId, Features};
use crate::plan::networks::{Networks, address};
use crate::plan::world::{World, node_addresses};

/// Which of the questions about pods of all namespaces are about those of a namespace, as far as that was
/// asked for: it is the same for all its pods.
#[derive(Default)]
pub(super) struct ByNamespace(HashMap<Box<str>, Vec<FeatureId>>);

impl ByNamespace {
    fn of(&mut self, namespace: &str, world: &World, features: &Features) -> &[FeatureId] {
        self.0.entry_ref(namespace).or_insert_with(|| {
            let is_about = |id: &&FeatureId| match features.get(**id).map(|feature| &**feature) {
                Some(Feature::Everywhere { namespaces, .. }) => {
                    world.namespace_matches(namespaces, namespace)
                }
                _ => false,
            };
            features.everywhere().iter().filter(is_about).copied().collect()
        })
    }
}

/// What a question about pods says of their labels.
fn labels_of(feature: &Feature) -> Option<&LabelSelector> {
    match feature {
        Feature::Own { pods, .. } | Feature::Everywhere { pods, .. } => Some(pods),
        Feature::Networks(_) | Feature::Nodes(_) | Feature::Ports { .. } => None,
    }
}

impl Classes {
    /// The addresses that answer a question with yes.
    pub(super) fn matching(&self, feature: &Feature, world: &World) -> Vec<AddressId> {
        let of = |address: &IpAddr| self.by_address.get(address).copied();
        match feature {
            Feature::Networks(networks) => self.inside(networks),
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

    fn inside(&self, networks: &Networks) -> Vec<AddressId> {
        let at = |number| address(self.family, number);
        let intervals = networks.intervals(self.family).iter();
        let found = intervals.flat_map(|(first, last)| self.by_address.range(at(*first)..=at(*last)));
        found.map(|(_, id)| *id).collect()
    }

    /// The questions that an address answers with yes, in order.
    pub(super) fn answers(
        &self,
        id: AddressId,
        world: &World,
        features: &mut Features,
        by_namespace: &mut ByNamespace,
    ) -> Vec<FeatureId> {
        let Some(state) = self.state(id).filter(|state| state.owner.is_some() || !state.nodes.is_empty())
        else {
            return Vec::new();
        };
        let mut vector = Vec::new();
        if let Some(pod) = state.owner.and_then(|owner| world.pod(owner)) {
            let namespace = &pod.pod.key.namespace;
            let asked = by_namespace.of(namespace, world, features).iter().chain(features.own(namespace));
            let says_yes = |id: &&FeatureId| {
                let labels = features.get(**id).and_then(|feature| labels_of(feature));
                labels.is_some_and(|labels| labels.matches(&pod.pod.labels))
            };
            vector.extend(asked.filter(says_yes));
            let named: Vec<_> =
                features.port_names().map(|name| (Box::<str>::from(name), pod.ports(name, None))).collect();
            vector.extend(named.into_iter().filter_map(|(name, ports)| features.ports(&name, ports)));
        }
        for id in features.networks() {
            if let Some(Feature::Networks(networks)) = features.get(*id).map(|feature| &**feature)
                && networks.contains(state.address)
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
