//! The cluster DNS server: a zone compiled from the cluster's snapshot, and the daemon around it.
//!
//! In the middle, without I/O: [`zone`] (what the cluster's names are), [`answer`] and [`chase`] (question ->
//! answer, pure functions), [`message`] (datagram -> question, answer -> datagram) and the cache. At the ends:
//! the sockets, the upstreams and the HTTP endpoints. Nothing here watches the cluster (`weft-cluster` does)
//! and nothing decides how packets reach the server.

pub mod answer;
pub mod certificate;
pub mod chase;
pub mod daemon;
mod encode;
pub mod error;
pub mod explain;
pub mod fast;
pub mod feed;
pub mod files;
pub mod forward;
pub mod handler;
pub mod handover;
pub mod http;
pub mod keeper;
pub mod last_known;
pub mod limit;
pub mod message;
pub mod metrics;
pub mod name;
pub mod node_local;
pub mod options;
mod post;
pub mod query_log;
pub mod reason;
pub mod records;
mod rotation;
pub mod search;
pub mod server;
mod shares;
pub mod sources;
pub mod wire;
pub mod zone;
