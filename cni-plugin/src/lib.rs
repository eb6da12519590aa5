//! The CNI plugin: it connects a container to the node by a veth pair and a bridge, gives it an address, and
//! takes all that away again. Under the name `loopback` it sets up a container's `lo`.
//!
//! ADD goes: options and facts in, a lease from IPAM, [`PodPlan`] out of the pure planner, the kernel made
//! so, a result. What fails on the way undoes what was done. Services are other parts' business, and so are
//! policies, but that a pod which may have some starts closed.

mod commands;
mod error;
mod interface;
mod kernel;
mod nft;
mod plan;

pub use commands::{Bridge, Loopback, Report, repair};
pub use error::Error;
pub use plan::{
    BridgePlan, BridgeState, HostPorts, HostState, Limits, Masquerade, Options, Pending, Pod, PodPlan,
    PodSide, PortMapping, Sysctl, VethPlan, VlanGateway, Vlans, host_name, plan,
};

/// The result of every operation of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;
