//! The service proxy: Services and EndpointSlices as elements of a few nf_tables maps.
//!
//! ```text
//! watch -> Snapshot -> Planner::update() -> Transaction -> commit                   (a change)
//!                      Planner::tables() --.
//!                      observe() ----------+-> diff() -> Transaction -> commit      (at the start, after a failure)
//! ```
//!
//! I/O is done by `sync`, `dataplane`, `conntrack`, `counters`, `firewall` and `sysctl` (the kernel), `events` (the cluster), `http`, `health_server`,
//! `options`, `dry_run`, `trace::live` and `daemon`, which ties all together; everything else is pure.

pub mod config;
pub mod conntrack;
pub mod counters;
pub mod daemon;
pub mod dataplane;
pub mod dry_run;
pub mod error;
pub mod events;
pub mod firewall;
pub mod foreign_changes;
pub mod health;
pub mod health_server;
pub mod host_ports;
pub mod http;
pub mod kube_proxy;
pub mod limits;
pub mod metrics;
pub mod options;
pub mod planner;
pub mod services;
pub mod sync;
pub mod sysctl;
pub mod trace;
