//! A message that a process of its own sends. The kernel does what a message asks for within the call that
//! sends it, and with some that lasts far beyond the moment from which nobody else notices. Which messages
//! those are is not known here.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;
use nix::sys::socket::{MsgFlags, send};
use nix::unistd::{ForkResult, Pid, fork, getpid, getppid, pipe2};

/// The process that sends a message. Nobody waits for its end: it becomes the child of init when the caller
/// ends first.
#[derive(Debug)]
pub(crate) struct Sender {
    /// A pipe that nobody holds the other end of when the process has ended.
    ended: OwnedFd,
}

impl Sender {
    /// Starts the process. What the kernel answers is for the caller to read from the socket.
    ///
    /// # Errors
    /// Where no process can be started.
    #[allow(
        unsafe_code,
        reason = "processes that go on as their parents' copies are made so and not otherwise"
    )]
    pub(crate) fn start(socket: BorrowedFd<'_>, message: &[u8]) -> io::Result<Sender> {
        let (ended, held) = pipe2(OFlag::O_CLOEXEC)?;
        let parent = getpid();
        // SAFETY: until it ends, the child makes system calls and nothing else: no lock and no memory of
        // another thread's is touched.
        match unsafe { fork() }? {
            ForkResult::Parent { .. } => Ok(Sender { ended }),
            ForkResult::Child => {
                send_and_wait(socket.as_raw_fd(), held.as_raw_fd(), parent, message);
                // SAFETY: nothing of the parent's is to be cleaned up here.
                unsafe { libc::_exit(0) }
            }
        }
    }

    /// Waits until there is something to read on the socket, which may be the process's last sign of life.
    /// False where it has ended and there is nothing.
    pub(crate) fn await_answer(&self, socket: BorrowedFd<'_>) -> io::Result<bool> {
        let mut files =
            [PollFd::new(socket, PollFlags::POLLIN), PollFd::new(self.ended.as_fd(), PollFlags::POLLIN)];
        loop {
            match poll(&mut files, PollTimeout::NONE) {
                Err(Errno::EINTR) => {}
                outcome => {
                    outcome?;
                    return Ok(files[0].any().unwrap_or_default());
                }
            }
        }
    }
}

/// Runs in the process itself. Whatever fails, the parent finds that there is no answer.
fn send_and_wait(socket: RawFd, held: RawFd, parent: Pid, message: &[u8]) {
    // Who kills the plugin must not see it act any more.
    if set_pdeathsig(Signal::SIGKILL).is_err() || getppid() != parent {
        return;
    }
    close_all_but([socket, held]);
    let _ = send(socket, message, MsgFlags::empty());
}

/// Runtimes wait for the end of what a plugin prints; and neither a container's namespace nor a lock is to be
/// held longer because of this process. Where the kernel cannot do it (before Linux 5.9), all that waits a
/// little.
#[allow(unsafe_code, reason = "there is no other interface to this system call")]
fn close_all_but(mut kept: [RawFd; 2]) {
    kept.sort_unstable();
    let [low, high] = kept;
    for (first, last) in [(0, low - 1), (low + 1, high - 1), (high + 1, RawFd::MAX)] {
        if first <= last {
            // SAFETY: the files are this process's own, and nothing in it uses them any more.
            unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) };
        }
    }
}
