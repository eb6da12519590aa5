//! The Kubernetes cluster as this node sees it: watches of trimmed objects in, typed snapshots and change sets out.
//!
//! ```text
//! API server -> follow (list, watch, backoff) -> field, wire (trimmed JSON) -> convert -> index -> Watch
//! files      -> manifest ------------------------------^
//! ```
//!
//! [`Watch`] and [`manifest::load`] end in the same [`weft_types::Snapshot`], so that a plan made from files is the
//! plan that a cluster with these objects gets. What is done with a snapshot is not decided here.

mod client;
mod convert;
mod error;
pub mod event;
mod field;
mod follow;
mod index;
pub mod manifest;
mod view;
mod watch;
mod wire;

pub use client::client;
pub use error::Error;
pub use kube::Client;
pub use view::{Scope, View};
pub use watch::Watch;

/// The result of this crate's operations.
pub type Result<T, E = Error> = std::result::Result<T, E>;
