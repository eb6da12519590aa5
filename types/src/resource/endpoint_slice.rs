//! Endpoints: what stands behind a Service.

use std::net::IpAddr;
use std::num::NonZeroU16;
use std::sync::Arc;

use crate::ordered_set::{Keyed, OrderedSet};
use crate::{Changes, Index, NamespacedName, Protocol, Resource};

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
    pub name: String,
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
    pub hostname: Option<String>,
    /// The node that runs it, where known.
    pub node: Option<String>,
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
pub struct ByService(OrderedSet<OfService>);

/// The EndpointSlices of one Service, in the order of their names; at least one.
#[derive(Clone, Debug)]
struct OfService(Box<[Arc<EndpointSlice>]>);

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
        self.0.get(service).map(|slices| &*slices.0).unwrap_or_default()
    }

    /// The Services that have any, in the order of their names, each with its EndpointSlices.
    pub fn iter(&self) -> impl Iterator<Item = (&NamespacedName, &[Arc<EndpointSlice>])> {
        self.0.iter().map(|slices| (slices.key(), &*slices.0))
    }

    fn take(&mut self, service: &NamespacedName) -> Vec<Arc<EndpointSlice>> {
        let mut slices = self.0.take(service).map(|slices| slices.0.into_vec()).unwrap_or_default();
        slices.reserve_exact(1);
        slices
    }
}

impl Index<EndpointSlice> for ByService {
    fn add(&mut self, slice: &Arc<EndpointSlice>) {
        let mut slices = self.take(&slice.service);
        let place = slices.partition_point(|other| other.key < slice.key);
        slices.insert(place, slice.clone());
        self.0.put(OfService(slices.into()));
    }

    fn remove(&mut self, slice: &EndpointSlice) {
        let mut slices = self.take(&slice.service);
        slices.retain(|other| other.key != slice.key);
        if !slices.is_empty() {
            self.0.put(OfService(slices.into()));
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
