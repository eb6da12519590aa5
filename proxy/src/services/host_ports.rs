//! Ports of this node that lead to containers (`hostPort`). Read from the kernel in the crate's
//! `host_ports.rs`.

use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;

use super::plan::Frontend;

/// A port of this node that leads to a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPort {
    /// The NodePort of its number.
    pub number: Frontend,
    /// The node's addresses at which it is one.
    pub at: RangeInclusive<IpAddr>,
    /// The container.
    pub container: SocketAddr,
}
