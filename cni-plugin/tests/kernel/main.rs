//! The built plugin against the real kernel, called as a runtime calls it. A node is a network namespace that
//! the test makes, and so are its pods; nothing outside of them is touched. Runs as root.

#![allow(clippy::unwrap_used, reason = "a test stops at the first thing that goes wrong")]

mod any_input;
mod attachment;
mod bandwidth;
mod chains;
mod check;
mod conformance;
mod dhcp;
mod documentation;
mod failures;
mod first_packet;
mod hostports;
mod limits;
mod masquerade;
mod node;
mod options;
mod outside;
mod peers;
mod pending;
mod ready;
mod reference;
mod repair;
mod service;
mod user_namespace;
mod vlan;
