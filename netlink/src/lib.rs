//! The kernel's door: netlink sockets, network namespaces, rtnetlink, conntrack, nflog, IPVS and eBPF; packet
//! sockets and what of other sockets has no safe wrapper.
//!
//! Everything blocks: a request goes out, its answers come back, no thread and no async runtime is involved.
//! What a daemon *wants* the kernel to hold is not decided here; this crate carries requests and answers.

pub mod attribute;
pub mod barrier;
pub mod bpf;
pub mod conntrack;
pub mod datagram;
mod detached;
mod error;
pub mod ethtool;
mod family;
mod frame;
pub mod genl;
mod in_flight;
pub mod memory;
pub mod netns;
pub mod nflog;
pub mod notifications;
pub mod packet;
#[cfg(feature = "tokio")]
mod readiness;
pub mod realtime;
pub mod rtnl;
pub mod sock_diag;
mod socket;
pub mod sysctl;
pub mod tcp;

pub use error::{Error, Refusal};
pub use family::Family;
pub use frame::{Frame, Frames, Request};
pub use socket::{Batch, Protocol, Socket};

/// The result of every operation of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;
