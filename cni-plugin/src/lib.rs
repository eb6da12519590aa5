//! The CNI plugin: it connects a container to the node by a veth pair and a bridge, gives it an address, and takes
//! all that away again. Under the name `loopback` it sets up a container's `lo`.
//!
//! ADD goes: options and facts in, a lease from IPAM, [`PodPlan`] out of the pure planner, the kernel made so, a
//! result. What fails on the way undoes what was done. Which traffic may flow, and Services, are other parts' business.

mod apply;
mod attach;
mod bandwidth;
mod bridge;
mod check;
mod detach;
mod error;
mod facts;
mod flows;
mod hostports;
mod ipam;
mod lock;
mod loopback;
mod mac;
mod masquerade;
mod options;
mod plan;
mod ports;
mod readiness;
mod record;
mod repair;
mod shared;
mod status;
mod sysctl;
mod text;
mod veth;
mod vlan;

pub use bandwidth::Limits;
pub use bridge::Bridge;
pub use error::Error;
pub use facts::{BridgeFacts, Facts};
pub use hostports::HostPorts;
pub use loopback::Loopback;
pub use masquerade::Masquerade;
pub use options::Options;
pub use plan::{BridgePlan, Pod, PodPlan, PodSide, VethPlan, plan};
pub use ports::PortMapping;
pub use repair::{Report, repair};
pub use sysctl::Sysctl;
pub use veth::host_name;
pub use vlan::{VlanGateway, Vlans};

/// The result of every operation of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;
