//! The service proxy: Services and EndpointSlices as elements of a few nf_tables maps.
//!
//! ```text
//! watch -> Snapshot -> Planner::update() -> Transaction -> commit                   (a change)
//!                      Planner::tables() --.
//!                      observe() ----------+-> diff() -> Transaction -> commit      (at the start, after a failure)
//! ```
//!
//! I/O is done by `sync`, `monitor`, `conntrack`, `traffic`, `firewall` and `sysctl` (the kernel), `events` (the cluster), `http`, `health_server`,
//! `options`, `dry_run`, `trace::live` and `daemon`, which ties all together; everything else is pure.

pub mod affinity;
pub mod claims;
pub mod config;
pub mod config_file;
pub mod conntrack;
pub mod daemon;
pub mod dry_run;
pub mod elements;
pub mod endpoints;
pub mod error;
pub mod events;
pub mod firewall;
pub mod health;
pub mod health_check;
pub mod health_server;
pub mod host_ports;
pub mod http;
pub mod kube_proxy_flags;
pub mod layout;
pub mod ledger;
pub mod limits;
pub mod metrics;
pub mod monitor;
pub mod options;
pub mod planner;
pub mod problem;
pub mod rivals;
pub mod service;
pub mod sources;
pub mod stale;
pub mod sync;
pub mod sysctl;
pub mod trace;
pub mod traffic;
