//! What the tests of several crates share: machines made of namespaces, waiting for a condition, an API
//! server, a container runtime. Tests and examples depend on it, and nothing else. A test stops at the first
//! thing that goes wrong, so this panics where something is not as it must be.

#![allow(clippy::unwrap_used, reason = "a test stops at the first thing that goes wrong")]
#![allow(clippy::new_without_default, reason = "a machine that is made is no default value")]

#[cfg(feature = "api-server")]
pub mod api_server;
pub mod cgroup;
#[cfg(feature = "containerd")]
pub mod containerd;
#[cfg(feature = "dataplane")]
pub mod dataplane;
pub mod dice;
pub mod namespace;
pub mod policy_oracle;
pub mod program;
pub mod rootless;
pub mod sctp;
#[cfg(feature = "dataplane")]
pub mod services;
pub mod virtual_machine;
pub mod wait;
pub mod world;
