//! What the benchmarks of several crates share: the cluster that they are measured with, an API server that
//! shows it, a daemon's costs as `/proc` has them, and the table of what was seen beside what was asked.
//! Nothing is measured here, and no program but a benchmark links it.

#![allow(clippy::unwrap_used, reason = "a benchmark stops at the first thing that goes wrong")]

pub mod api;
pub mod cluster;
pub mod process;
pub mod table;
