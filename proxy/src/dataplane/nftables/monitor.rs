//! Word from the kernel of what others change in our tables. What is done about it is decided in `daemon.rs`.

use std::io::{PipeReader, PipeWriter, pipe};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::thread;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tokio::sync::Notify;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tracing::warn;
use weft_nftables::{self as nft, Announcement};

use super::ruleset::TABLE;
use crate::error::Error;

/// What the kernel announced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Announced {
    /// These transactions changed our tables.
    Transactions(Vec<Announcement>),
    /// Announcements were lost: anything may have changed.
    Lost,
}

/// A subscription, served by a thread that does nothing else: tokio waits for descriptors of others only by way of
/// `unsafe`. Ends at once when it is dropped.
#[derive(Debug)]
pub(super) struct Monitor {
    announced: UnboundedReceiver<Announced>,
    /// Closed with the subscription, which the thread sees.
    _open: PipeWriter,
}

impl Monitor {
    /// Subscribes, in the calling thread's network namespace. `others` is told of changes of other programs' chains and rules.
    ///
    /// # Errors
    /// Where there is no socket or no thread to be had.
    pub(super) fn open(others: Arc<Notify>) -> Result<Monitor, Error> {
        let source = nft::Monitor::open(TABLE)?;
        let (sender, announced) = unbounded_channel();
        let (closed, open) = pipe().map_err(Error::Runtime)?;
        let listen = move || {
            if let Err(errno) = listen(source, &closed, &sender, &others) {
                warn!(%errno, "the kernel's announcements are lost; what others change is noticed later");
            }
        };
        thread::Builder::new().name("monitor".to_owned()).spawn(listen).map_err(Error::Runtime)?;
        Ok(Monitor { announced, _open: open })
    }

    /// All announcements that have come; wakes the task when there are some. None come where the thread has ended.
    pub(super) fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Announced> {
        let Some(mut all) = ready!(self.announced.poll_recv(context)) else { return Poll::Pending };
        while let Ok(more) = self.announced.try_recv() {
            all = all.and(more);
        }
        Poll::Ready(all)
    }
}

impl Announced {
    fn and(self, more: Announced) -> Announced {
        match (self, more) {
            (Announced::Transactions(mut all), Announced::Transactions(more)) => {
                all.extend(more);
                Announced::Transactions(all)
            }
            _ => Announced::Lost,
        }
    }
}

/// Listens until nobody wants to know any more.
fn listen(
    mut source: nft::Monitor,
    closed: &PipeReader,
    listener: &UnboundedSender<Announced>,
    others: &Notify,
) -> Result<(), Errno> {
    loop {
        let mut descriptors =
            [PollFd::new(source.as_fd(), PollFlags::POLLIN), PollFd::new(closed.as_fd(), PollFlags::POLLIN)];
        match poll(&mut descriptors, PollTimeout::NONE) {
            Err(Errno::EINTR) => continue,
            other => other?,
        };
        if descriptors[1].any() == Some(true) {
            return Ok(());
        }
        let read = source.read();
        if read.is_err() || source.others_changed() {
            others.notify_one();
        }
        let announced = match read {
            Ok(transactions) if transactions.is_empty() => continue,
            Ok(transactions) => Announced::Transactions(transactions),
            Err(_) => Announced::Lost,
        };
        // That nobody listens any more is seen above.
        let _ = listener.send(announced);
    }
}

#[cfg(test)]
mod tests {
    use weft_nftables::Author;

    use super::*;

    #[test]
    fn a_loss_outweighs_all_numbers() {
        let announcement = |number: &u32| Announcement { number: *number, author: Author::default() };
        let numbers = |numbers: &[u32]| Announced::Transactions(numbers.iter().map(announcement).collect());
        assert_eq!(numbers(&[1]).and(numbers(&[2, 3])), numbers(&[1, 2, 3]));
        assert_eq!(numbers(&[1]).and(Announced::Lost), Announced::Lost);
        assert_eq!(Announced::Lost.and(numbers(&[1])), Announced::Lost);
    }
}
