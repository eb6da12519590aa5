//! The lab: a whole cluster on one machine. Nodes are network namespaces, daemons and plugins are the real
//! programs, the API server is embedded, and pods are processes in namespaces made through CNI.
//!
//! The lab only drives programs that were built elsewhere; nothing here knows how Weft works inside.

mod access;
pub mod addressing;
pub mod apiserver;
pub mod backoff;
pub mod cgroup;
pub mod cli;
pub mod client;
pub mod cluster_dns;
pub mod cni;
pub mod commands;
pub mod control;
pub mod daemons;
pub mod demo;
pub mod echo;
pub mod error;
pub mod kubeconfig;
pub mod kubelet;
pub mod lab;
pub mod names;
pub mod netns;
pub mod nodes;
pub mod outside;
pub mod process;
pub mod requirements;
pub mod sandbox;
pub mod shape;
pub mod state;
pub mod teardown;
pub mod tour;
pub mod underlay;
