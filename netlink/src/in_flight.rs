//! A file that the kernel closes in its own time. What closing one may wait for is not known here.

use std::io::IoSlice;
use std::os::fd::{AsRawFd, BorrowedFd};

use nix::sys::socket::{AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, sendmsg, socketpair};

/// Puts a file into a message that nobody can get any more: when its owner closes it, it is open still, and
/// the kernel's collector of such messages, which is none of the caller's threads, closes it soon (since
/// Linux 6.8; before, it is closed by the caller, who waits as without this).
///
/// # Errors
/// Where the kernel refuses: then the file is closed by its owner as ever.
pub(crate) fn put(file: BorrowedFd<'_>) -> nix::Result<()> {
    let (one, other) = socketpair(AddressFamily::Unix, SockType::Datagram, None, SockFlag::SOCK_CLOEXEC)?;
    // The socket that is to get the message is in it, too: so the message keeps it, and itself.
    let files = [file.as_raw_fd(), other.as_raw_fd()];
    let message = [ControlMessage::ScmRights(&files)];
    sendmsg::<()>(one.as_raw_fd(), &[IoSlice::new(b"x")], &message, MsgFlags::empty(), None)?;
    Ok(())
}
