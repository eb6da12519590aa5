//! Load balancer addresses. What they are and who gets which is decided in the crate `weft-announce`; here it
//! is fed from the cluster, and what it decides is written.

pub(crate) mod allocation;
pub(crate) mod l2;
mod l2_metrics;
