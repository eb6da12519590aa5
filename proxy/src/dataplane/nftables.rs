//! The data plane on nf_tables: fixed chains, and maps whose elements are all that there is of a Service.

pub mod affinity_numbers;
pub mod elements;
pub mod monitor;
pub mod refcounts;
pub mod ruleset;
