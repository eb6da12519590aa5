//! Network policies: from the policies, pods, namespaces and nodes of a cluster to what one node lets
//! through, and why; and from there to nf_tables.
//!
//! [`plan`] is pure. It knows neither the kernel nor the API server.

pub mod pending;
pub mod plan;
pub mod report;
pub mod ruleset;
