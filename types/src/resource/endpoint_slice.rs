//! Endpoints: what stands behind a Service.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::num::NonZeroU16;
use std::sync::Arc;

use smallvec::SmallVec;
use smol_str::SmolStr;

use crate::ordered_set::{Keyed, OrderedSet};
use crate::{Changes, Index, NamespacedName, Protocol, Resource};

/// The names of so many nodes are not looked through for those that are gone.
const FEW_NODES: usize = 256;

/// An EndpointSlice: endpoints that share the same ports. A Service may have many (discovery.k8s.io/v1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointSlice {
    /// The slice's own namespace and name.
    pub key: NamespacedName,
    /// The Service that the slice belongs to (label `kubernetes.io/service-name`).
    pub service: NamespacedName,
    /// The ports of every endpoint of this slice.
    pub ports: Vec<EndpointPort>,
    /// The endpoints, in the order of the object.
    pub endpoints: Vec<Endpoint>,
}

/// A port that every endpoint of a slice serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointPort {
    /// The Service port's name; empty where it has none.
    pub name: SmolStr,
    /// The transport protocol.
    pub protocol: Protocol,
    /// The port on the endpoint's address.
    pub port: NonZeroU16,
}

/// One endpoint. Only the first address of an `endpoint.addresses` counts (KEP-752).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// The pod's (or other backend's) address.
    pub address: IpAddr,
    /// The label under which DNS names this endpoint, where the pod sets one.
    pub hostname: Option<Box<str>>,
    /// The node that runs it, where known.
    pub node: Option<Arc<str>>,
    /// May new connections be sent here? True where the object leaves it out.
    pub ready: bool,
    /// Does it still answer, ready or terminating? As `ready` where the object leaves it out.
    pub serving: bool,
    /// Is it being shut down?
    pub terminating: bool,
    /// For whom it is meant first, where that was said (`hints`).
    pub hints: Option<Box<Hints>>,
}

/// The nodes and zones whose clients should be sent to an endpoint (KEP-2433, KEP-3015).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hints {
    /// Names of Nodes (`hints.forNodes`).
    pub nodes: Vec<String>,
    /// Names of zones (`hints.forZones`).
    pub zones: Vec<String>,
}

impl Resource for EndpointSlice {
    const NAME: &'static str = "EndpointSlice";

    type Key = NamespacedName;
    type Stored = Arc<EndpointSlice>;
    type Index = ByService;
    // Nobody asks which: what counts is the Services that they are of.
    type Changes = usize;

    fn key(&self) -> &NamespacedName {
        &self.key
    }

    fn shrink(&mut self) {
        self.ports.shrink_to_fit();
        self.endpoints.shrink_to_fit();
    }

    fn part_of(&self) -> Option<&NamespacedName> {
        Some(&self.service)
    }
}

impl Changes<EndpointSlice> for usize {
    fn note(&mut self, _: &EndpointSlice) {
        *self += 1;
    }

    fn is_empty(&self) -> bool {
        *self == 0
    }
}

/// The EndpointSlices by their Services, which are of the same namespace.
#[derive(Clone, Debug, Default)]
pub struct ByService {
    services: OrderedSet<OfService>,
    nodes: NodeNames,
}

/// The names of nodes, each held once for all endpoints there.
#[derive(Clone, Debug, Default)]
struct NodeNames {
    names: BTreeSet<Arc<str>>,
    /// With so many names it is time to see which of them no endpoint has any more.
    enough: usize,
}

impl NodeNames {
    /// Lets an endpoint have its node's name from here.
    fn share(&mut self, node: &mut Arc<str>) {
        if let Some(known) = self.names.get(node) {
            *node = known.clone();
            return;
        }
        if self.names.len() >= self.enough {
            self.names.retain(|name| Arc::strong_count(name) > 1);
            self.enough = FEW_NODES.max(2 * self.names.len());
        }
        self.names.insert(node.clone());
    }
}

/// The EndpointSlices of one Service, in the order of their names; at least one, and nearly always one only.
#[derive(Clone, Debug)]
struct OfService(Slices);

type Slices = SmallVec<[Arc<EndpointSlice>; 1]>;

impl Keyed for OfService {
    type Key = NamespacedName;

    fn key(&self) -> &NamespacedName {
        let first = &self.0[0];
        &first.service
    }
}

impl ByService {
    /// The EndpointSlices of a Service, in the order of their names.
    pub fn slices(&self, service: &NamespacedName) -> &[Arc<EndpointSlice>] {
        self.services.get(service).map(|slices| &*slices.0).unwrap_or_default()
    }

    /// The Services that have any, in the order of their names, each with its EndpointSlices.
    pub fn iter(&self) -> impl Iterator<Item = (&NamespacedName, &[Arc<EndpointSlice>])> {
        self.services.iter().map(|slices| (slices.key(), &*slices.0))
    }

    fn take(&mut self, service: &NamespacedName) -> Slices {
        self.services.take(service).map(|slices| slices.0).unwrap_or_default()
    }
}

impl Index<EndpointSlice> for ByService {
    fn share(&mut self, slice: &mut EndpointSlice) {
        slice
            .endpoints
            .iter_mut()
            .filter_map(|endpoint| endpoint.node.as_mut())
            .for_each(|node| self.nodes.share(node));
    }

    fn add(&mut self, slice: &Arc<EndpointSlice>) {
        let mut slices = self.take(&slice.service);
        let place = slices.partition_point(|other| other.key < slice.key);
        slices.insert(place, slice.clone());
        self.services.put(OfService(slices));
    }

    fn remove(&mut self, slice: &EndpointSlice) {
        let mut slices = self.take(&slice.service);
        slices.retain(|other| other.key != slice.key);
        if !slices.is_empty() {
            self.services.put(OfService(slices));
        }
    }
}

impl Endpoint {
    /// A ready endpoint of which nothing but the address is known.
    pub fn ready(address: IpAddr) -> Endpoint {
        Endpoint {
            address,
            hostname: None,
            node: None,
            ready: true,
            serving: true,
            terminating: false,
            hints: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slice(service: usize, nodes: &[&str]) -> EndpointSlice {
        let endpoint = |node: &&str| {
            let ready = Endpoint::ready([10, 0, 0, 1].into());
            Endpoint { node: Some((*node).into()), ..ready }
        };
        let key = NamespacedName::new("shop", format!("service-{service}"));
        let endpoints = nodes.iter().map(endpoint).collect();
        EndpointSlice { key: key.clone(), service: key, ports: Vec::new(), endpoints }
    }

    #[test]
    fn the_name_of_a_node_is_held_once_and_forgotten_with_its_last_endpoint() {
        let mut store = crate::Store::default();
        store.put(slice(0, &["a", "b"]));
        store.put(slice(1, &["b"]));
        let nodes: Vec<_> = store
            .iter()
            .flat_map(|slice| &slice.endpoints)
            .map(|endpoint| endpoint.node.clone().unwrap())
            .collect();
        assert!(Arc::ptr_eq(&nodes[1], &nodes[2]));
        drop(nodes);
        for number in 0..2000 {
            store.put(slice(2, &[&format!("node-{number}")]));
        }
        let held = store.index().nodes.names.len();
        assert!(held <= FEW_NODES, "{held}");
        assert!(store.index().nodes.names.contains("a"));
    }
}
