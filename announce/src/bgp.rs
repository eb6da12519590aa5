//! BGP (RFC 4271): the network around the cluster learns from each node which addresses it leads to, and
//! nodes learn from each other. A speaker of our own, as small as that: it passes nothing on that it learned.
//!
//! ```text
//! peers, announcements -> speaker: for each peer
//!     bytes <-> wire (codec) <-> fsm (states, fake clock) <-> rib (what was told, what was taken)
//!                                                     '-> best routes, status
//! ```

pub mod fsm;
mod neighbour;
pub mod peer;
pub mod rib;
pub mod session;
pub mod speaker;
pub mod status;
mod transport;
pub mod wire;
