//! What Services and EndpointSlices mean on this node: which frontends there are, whose each of them is, and
//! which endpoints it leads to. Pure: it knows nothing of nf_tables or of any other data plane, of netlink,
//! of Kubernetes clients and of tokio.
//!
//! ```text
//! Snapshot, changes -> Planner -> ServicePlan, NodeConfig -> Stage (a data plane)
//! ```

pub mod endpoints;
pub mod health_check;
pub mod host_ports;
pub mod node;
pub mod ownership;
pub mod plan;
pub mod planner;
pub mod problem;
pub mod requests;
pub mod source_ranges;
pub mod valid_endpoints;
