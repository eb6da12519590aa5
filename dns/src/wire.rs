//! DNS messages: names in wire form, bytes -> message and message -> bytes. Pure. Which records a reply holds is decided
//! in [`crate::pipeline`].

pub mod decoder;
mod encoder;
pub mod extended_error;
pub mod format;
pub mod message;
pub mod name;
pub(crate) mod rotation;
