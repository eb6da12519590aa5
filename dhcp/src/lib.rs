//! Pods' addresses of a DHCP server (`ipam.type: dhcp`). A pure client (RFC 2131): messages ([`message`]), the
//! [`lease`], the state machine ([`client`]); and the [`daemon`] that the reference's CNI plugin `dhcp` calls
//! ([`rpc`], [`gob`]), which keeps a client and a file for each container's interface.
//!
//! Time and chance are given in to what is pure. Sockets, files and tasks are at the edge.

pub mod client;
pub mod daemon;
mod datagram;
pub mod gob;
mod keeper;
pub mod lease;
pub mod message;
mod port;
mod record;
pub mod rpc;
mod wishes;
