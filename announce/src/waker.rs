//! Threads beside the agent's rounds: waking one that waits in poll(2), and what is shared with it.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixDatagram;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Wakes the thread that has the other end.
#[derive(Debug)]
pub(crate) struct Waker(UnixDatagram);

/// What a thread waits for to be woken.
#[derive(Debug)]
pub(crate) struct Wakened(UnixDatagram);

/// Both ends.
pub(crate) fn waker() -> io::Result<(Waker, Wakened)> {
    let (waker, wakened) = UnixDatagram::pair()?;
    waker.set_nonblocking(true)?;
    wakened.set_nonblocking(true)?;
    Ok((Waker(waker), Wakened(wakened)))
}

impl Waker {
    /// Wakes it. What it was not woken of yet counts as one with this.
    pub(crate) fn wake(&self) {
        // Full, it is about to wake; closed, it ended.
        let _ = self.0.send(&[0]);
    }
}

impl Wakened {
    /// Takes notice.
    pub(crate) fn clear(&self) {
        while self.0.recv(&mut [0]).is_ok() {}
    }
}

impl AsFd for Wakened {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// What is shared, whether or not somebody panicked while holding it.
pub(crate) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
