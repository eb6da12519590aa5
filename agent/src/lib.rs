//! The node agent: it makes one machine a node of the pod network, and keeps it so.
//!
//! ```text
//! Nodes (weft-cluster) -> Snapshot -> plan() -> NodePlan --+-> routes::diff, nft::diff -> kernel
//!                                     kernel: observed ----'-> sysctls, and the CNI configuration last
//! ```
//!
//! What a node needs is decided in [`plan`], from values alone; `kernel`, `sysctl` and `conflist` bring it about;
//! `daemon` decides when. The agent sets up no pods (that is `weft-cni`) and touches no route, table or file but its
//! own.

pub mod backend;
pub mod claims;
pub mod conflist;
pub mod daemon;
mod error;
mod health;
pub mod kernel;
mod masquerade;
mod monitor;
pub mod options;
pub mod overlay;
pub mod plan;
pub mod ports;
mod problems;
pub mod routes;
pub mod sysctl;

pub use error::Error;

/// The result of this crate's operations.
pub type Result<T, E = Error> = std::result::Result<T, E>;
