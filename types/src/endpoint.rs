//! Endpoints: what stands behind a Service.

use std::net::IpAddr;
use std::num::NonZeroU16;

use crate::{NamespacedName, Protocol};

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

impl EndpointSlice {
    /// Gives back the memory that its lists do not need, as of a Service.
    pub(crate) fn shrink(&mut self) {
        self.ports.shrink_to_fit();
        self.endpoints.shrink_to_fit();
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
