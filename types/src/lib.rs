//! The vocabulary that every part of Weft shares: addresses, names, services, endpoints, nodes, pods, snapshots
//! and the CNI network configuration.
//!
//! Nothing here does I/O, spawns a task or knows the Kubernetes client. A value of one of these types is
//! valid by construction: parsing happens once, at the edge (`weft-cluster`, `weft-cni`).

pub mod cni;
mod endpoint;
mod family;
mod labels;
mod name;
mod node;
mod pod;
mod selector;
mod service;
mod snapshot;

pub use endpoint::{Endpoint, EndpointPort, EndpointSlice, Hints};
pub use family::Family;
pub use labels::Labels;
pub use name::{InvalidName, NamespacedName, is_dns_label};
pub use node::Node;
pub use pod::Pod;
pub use selector::{InvalidSelector, LabelSelector, Requirement};
pub use service::{Protocol, Service, ServiceKind, ServicePort, TrafficPolicy, UnknownProtocol};
pub use snapshot::{ChangeSet, Kind, LeftOut, Object, ObjectKey, Snapshot};

/// An IPv4 or IPv6 network in CIDR form (re-exported so that all parts use one type).
pub use ipnetwork::{IpNetwork, Ipv4Network, Ipv6Network};
