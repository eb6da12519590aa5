//! The node agent: it makes one machine a node of the pod network, and keeps it so.
//!
//! ```text
//! Nodes (weft-cluster) -> Snapshot -> plan() -> NodePlan --+-> routes::diff, nft::diff -> kernel
//!                                     kernel: observed ----'-> sysctls, and the CNI configuration last
//! ```
//!
//! What a node needs is decided in [`plan`], from values alone; `kernel`, `sysctl` and `conflist` bring it about;
//! `daemon` decides when. Beside that, `collector` has freed what is kept for containers that are gone, and `condition`
//! tells the cluster that the node's network works. The agent sets up no pods (that is `weft-cni`) and touches no route, table or file but its
//! own.

mod attachments;
pub mod backend;
pub mod claims;
mod collector;
mod condition;
pub mod conflist;
mod cri;
pub mod daemon;
mod error;
pub mod garbage;
mod health;
mod keeper;
pub mod kernel;
mod masquerade;
mod metrics;
mod monitor;
pub mod offload;
pub mod options;
pub mod overlay;
pub mod plan;
mod plugin;
mod prober;
mod problems;
pub mod proof;
pub mod routes;
pub mod sysctl;
pub mod upkeep;

pub use error::Error;

/// The result of this crate's operations.
pub type Result<T, E = Error> = std::result::Result<T, E>;
