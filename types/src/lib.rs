//! The vocabulary that every part of Weft shares: addresses, names, services, endpoints, nodes, pods, labels
//! and their selectors, and snapshots.
//!
//! Nothing here does I/O, spawns a task or knows the Kubernetes client. A value of one of these types is
//! valid by construction: parsing happens once, at the edge (`weft-cluster`).

mod address_range;
mod family;
pub mod flow;
mod hash;
mod labels;
mod name;
mod network;
pub mod node_facts;
mod ordered_set;
mod policy;
mod resource;
mod selector;
mod snapshot;
mod store;
pub mod well_known;

pub use address_range::{AddressRange, InvalidRange};
pub use family::Family;
pub use hash::{fnv1a, fnv1a_32};
pub use labels::Labels;
pub use name::{InvalidName, NamespacedName, is_dns_label};
pub use network::{is_subnet_of, overlap};
pub use policy::{IpBlock, Peers, PodPeer, PolicyPeer, PolicyRule, PortMatch, PortMatches};
pub use resource::*;
pub use selector::{InvalidSelector, LabelSelector, Requirement};
pub use snapshot::{ChangeSet, InvalidObject, Kind, Known, Object, ObjectKey, Snapshot};
pub use store::{Changes, Index, KeyOf, Name, Resource, Store};

/// An IPv4 or IPv6 network in CIDR form (re-exported so that all parts use one type).
pub use ipnetwork::{IpNetwork, Ipv4Network, Ipv6Network};
/// A text that does not change: up to 23 bytes are held in place (re-exported so that all parts use one type).
pub use smol_str::SmolStr;
