//! What the `weft` command does: it puts Weft on a cluster, looks at it there and takes it away again; it
//! prints the manifests; it finds faults; it checks a node's fitness and copies the plugins of a node; it asks the DNS server,
//! and the agents about network policies, flows, BGP and blocks of addresses.

pub mod bgp;
mod bgp_values;
pub mod chart;
mod cluster;
mod corefile_values;
mod dhcp_values;
mod distribution;
pub mod dns;
pub mod doctor;
mod ebpf_parts;
mod error;
mod fast_path_values;
pub mod finding;
pub mod flows;
mod flows_values;
pub mod install;
pub mod ipam;
mod ipam_values;
pub mod leftovers;
mod load_balancer_values;
pub mod manifests;
pub mod plugins;
pub mod policy;
mod policy_values;
pub mod preflight;
mod prerequisites;
mod prune;
mod rollout;
#[cfg(test)]
mod scripted;
pub mod self_test;
pub mod status;
pub mod trace;
pub mod uninstall;
mod wait;
mod wireguard_values;

pub use cluster::Connection;
pub use error::{Error, Result};
