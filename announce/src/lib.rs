//! Load balancer addresses: which Service gets which address, and how the network around the cluster learns
//! where to send what is meant for it. The agent runs it; nothing here knows the API server.

pub mod allocation;
pub mod bfd;
pub mod bgp;
pub mod hosts;
pub mod l2;
mod waker;
