//! The cluster DNS server: a zone compiled from the cluster's snapshot, and the daemon around it.
//!
//! ```text
//! wire       messages: names, bytes -> message, message -> bytes            pure
//! zone       the cluster's names, compiled from a snapshot                  pure
//! forward    names outside of the cluster: upstreams and what they answered
//! pipeline   a client's message -> the reply: parse, classify, resolve, encode
//! server     sockets and transports: UDP, TCP, TLS, HTTPS
//! corefile   a Corefile -> the flags that it sets, upstreams and rules               pure
//! daemon     flags -> all of the above, and what keeps them up to date
//! ```
//! Each uses those above it, and none below. Nothing here watches the cluster (`weft-cluster` does).

pub mod corefile;
pub mod daemon;
pub mod error;
pub mod forward;
pub mod metrics;
pub mod options;
pub mod pipeline;
pub mod server;
pub mod wire;
pub mod zone;
