//! The node agent: it makes one machine a node of the pod network, and keeps it so.
//!
//! ```text
//! Nodes (weft-cluster) -> Snapshot -> plan() -> NodePlan --> subsystems, each: diff -> kernel or file -> Report
//!      kernel: Uplink, path states ------'                                            '-> /readyz, log, metrics
//! ```
//!
//! What a node needs is decided in [`plan`], from values alone, by the planners of the subsystems. Each
//! subsystem is one folder, and one line in [`daemon`]: `subsystem` says what it may declare. The agent sets
//! up no pods (that is `weft-cni`) and touches no route, table or file but its own.

mod access;
mod announce;
mod attachments;
mod bfd;
mod bgp;
mod blocks;
mod cidr_allocations;
pub mod cni_config;
pub mod config;
pub mod daemon;
mod dhcp;
mod error;
mod facts;
pub mod fast_path;
mod flows;
mod garbage_collection;
mod health;
mod leftovers;
pub mod masquerade;
mod metrics;
mod monitor;
mod node_status;
pub mod notice;
pub mod options;
pub mod plan;
mod plan_text;
mod plugin;
mod policy;
mod problems;
pub mod routing;
mod subsystem;
pub mod sysctls;
mod trace;
pub mod upkeep;
pub mod uplink;
mod watches;

pub use error::Error;

/// The result of this crate's operations.
pub type Result<T, E = Error> = std::result::Result<T, E>;
