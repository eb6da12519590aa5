//! Descriptors whose readiness is awaited.

use std::io;
use std::os::fd::OwnedFd;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Registers a descriptor with the runtime of the calling task, for reading.
#[allow(unsafe_code, reason = "tokio leaves it to the caller that the descriptor stays open")]
pub(crate) fn register(descriptor: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an OwnedFd is open, and stays what it is, until it is dropped; the AsyncFd owns it and gives it
    // to nobody.
    unsafe { AsyncFd::register_with_interest(descriptor, Interest::READABLE) }
        .map_err(|error| error.into_parts().1)
}
