//! Load balancer addresses on a link: the node that is to have an address answers ARP (RFC 826) and Neighbor
//! Discovery (RFC 4861) for it, in user space. Nothing is put on an interface: when the process dies, nobody
//! answers any more, and another node may.
//!
//! ```text
//! plan     which nodes may have an address, and in which order                        the same on every node
//! choose   who has it: the first that is alive; and whether this node may answer yet
//! place    on which interfaces of this node it is answered
//! speaker  what is answered to a frame, and what is announced without being asked
//! service  the thread with sockets, links and timers -> Handle
//! ```

pub mod arp;
pub mod choose;
mod filter;
mod links;
pub mod ndp;
pub mod place;
pub mod plan;
pub mod service;
mod sockets;
pub mod speaker;
