//! The Kubernetes cluster as this node sees it: watches of trimmed objects in, typed snapshots and change
//! sets out.
//!
//! ```text
//! API server -> watcher (all, changes, backoff) -> wire -> source (JSON, protobuf) -> resource (trimmed, by its kind) -> index -> Watch
//! files      -> manifest ------------------------------------^
//! ```
//!
//! [`Watch`] and [`manifest::load`] end in the same [`weft_types::Snapshot`], so that a plan made from files
//! is the plan that a cluster with these objects gets. What is done with a snapshot is not decided here.
//!
//! [`write`](mod@write) is the one place of Weft's daemons that writes to the API server.

mod client;
mod error;
mod field;
mod filter;
mod index;
pub mod manifest;
mod message;
mod resource;
mod source;
mod watch;
mod watcher;
mod wire;
pub mod write;

pub use client::{Access, client, client_by};
pub use error::Error;
pub use filter::WatchFilter;
pub use kube::Client;
pub use watch::Watch;

/// The result of this crate's operations.
pub type Result<T, E = Error> = std::result::Result<T, E>;
