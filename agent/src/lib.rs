//! The node agent: it makes one machine a node of the pod network, and keeps it so.
//!
//! ```text
//! Nodes (weft-cluster) -> Snapshot -> plan() -> NodePlan --+-> routes::diff, nft::diff -> kernel
//!                                     kernel: observed ----'-> sysctls, and the CNI configuration last
//! ```
//!
//! What a node needs is decided in [`plan`], from values alone; `kernel`, `sysctls` and `cni_config` bring it about;
//! `daemon` decides when. Beside that, `garbage_collection` has freed what is kept for containers that are gone, and `node_status`
//! tells the cluster that the node's network works. The agent sets up no pods (that is `weft-cni`) and touches no route, table or file but its
//! own.

mod attachments;
pub mod cidr_allocations;
pub mod cni_config;
pub mod daemon;
mod error;
mod garbage_collection;
mod health;
pub mod kernel;
mod masquerade;
mod metrics;
mod monitor;
mod node_status;
pub mod options;
pub mod plan;
mod plugin;
mod problems;
pub mod routing;
pub mod sysctls;
pub mod upkeep;
pub mod uplink;

pub use error::Error;

/// The result of this crate's operations.
pub type Result<T, E = Error> = std::result::Result<T, E>;
