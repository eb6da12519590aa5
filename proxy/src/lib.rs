//! The service proxy: Services and EndpointSlices as elements of a few nf_tables maps.
//!
//! ```text
//! watch -> Snapshot -> Planner (services/) -> ServicePlan -> Dataplane (dataplane/) -> kernel
//!                      `----------------- Sync ------------------'
//! ```
//!
//! `services` and `kube_proxy` are pure, and so are `limits`, `foreign_changes`, `health` and all that
//! `dataplane::nftables` says of itself. I/O is done by `dataplane` (the kernel), `conntrack`, `firewall`,
//! `host_ports`, `node_ports` and `sysctl` (the kernel, whatever the data plane), `events` (the cluster),
//! `http`, `health_server`, `options`, `dry_run`, `trace::live` and `daemon`, which ties all together.

pub mod config;
pub mod conntrack;
pub mod counters;
pub mod daemon;
pub mod dataplane;
pub mod dry_run;
pub mod ebpf_options;
pub mod error;
pub mod firewall;
pub mod foreign_changes;
pub mod health;
pub mod health_server;
pub mod host_ports;
pub mod http;
pub mod ipvs_options;
pub mod kube_proxy;
pub mod limits;
pub mod metrics;
pub mod node_ports;
pub mod options;
pub mod services;
pub mod sync;
pub mod sysctl;
pub mod trace;
