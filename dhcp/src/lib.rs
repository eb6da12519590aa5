//! Pods' addresses of a DHCP server (`ipam.type: dhcp`). A pure client (RFC 2131): messages ([`message`]),
//! the [`lease`], the state machine ([`client`]).
//!
//! Time and chance are given in.

pub mod client;
pub mod gob;
pub mod lease;
pub mod message;
pub mod rpc;
