//! Bidirectional Forwarding Detection (RFC 5880) in asynchronous mode, over one hop (RFC 5881) and over
//! several (RFC 5883): who is reached right now, known within a second. Without authentication, echo and
//! demand mode of its own.
//!
//! ```text
//! packet (codec)  session (one peer's state machine)  sessions (all of them)      pure: values and the time in
//! service (a thread with the sockets) -> Handle: who is to be watched, and who is up
//! ```

pub mod packet;
pub mod service;
pub mod session;
pub mod sessions;
mod socket;
