//! What users rely on: the Kubernetes DNS specification clause by clause, properties over random clusters and
//! garbage, and the real server asked by the real `dig`.

#![allow(clippy::unwrap_used)] // a test that cannot go on must fail; clippy only knows this of #[test] functions

mod api;
mod away;
mod changes;
mod clauses;
mod connections;
mod daemon;
mod encrypted;
mod failover;
mod fixture;
mod forwarding;
mod habits;
mod handover;
mod hostile;
mod large;
mod node_local;
mod operation;
mod peers;
mod pods;
mod properties;
mod reasons;
mod remembered;
// Shared with the tests of the other programs.
mod rogue;
mod search;
mod server;
mod spec;
mod stubs;
mod transparent;
