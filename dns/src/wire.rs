//! DNS messages: names in wire form, bytes -> message and message -> bytes. Pure. Which records a reply holds
//! is decided in [`crate::pipeline`].

pub mod decoder;
pub(crate) mod encoder;
pub mod extended_error;
pub mod format;
pub mod name;
pub mod reply;
pub(crate) mod rotation;
