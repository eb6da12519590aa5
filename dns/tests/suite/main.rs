//! What users rely on: the Kubernetes DNS specification clause by clause, properties over random clusters and
//! garbage, and the real server asked by the real `dig`.

#![allow(clippy::unwrap_used)] // a test that cannot go on must fail; clippy only knows this of #[test] functions

mod api;
mod api_server_away;
mod cached;
mod capabilities;
mod changes;
mod clauses;
mod connections;
mod corefile;
mod corefile_options;
mod daemon;
mod encrypted;
mod extended_errors;
mod failover;
mod fixture;
mod forwarding;
mod handover;
mod hostile;
mod large;
mod node_local;
mod operation;
mod peers;
mod pods;
mod properties;
#[cfg(feature = "quic")]
mod quic;
#[cfg(feature = "quic")]
mod quic_client;
mod scripted_upstream;
mod search;
mod server;
mod spec;
mod stubs;
mod transparent;
