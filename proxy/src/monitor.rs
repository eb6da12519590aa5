//! Word from the kernel of what others change in our tables. What is done about it is in `daemon.rs`.

use std::future::pending;
use std::os::fd::{AsFd, BorrowedFd};
use std::thread;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tracing::warn;
use weft_netlink::nft;

use crate::error::Error;
use crate::layout::TABLE;

/// How often the thread looks whether anybody still listens, in milliseconds.
const LOOK_AROUND: u16 = 1000;

/// What the kernel announced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Announced {
    /// Transactions of these numbers changed our tables.
    Transactions(Vec<u32>),
    /// Announcements were lost: anything may have changed.
    Lost,
}

/// A subscription, served by a thread that does nothing else: tokio waits for descriptors of others only by way of
/// `unsafe`.
#[derive(Debug)]
pub struct Monitor(UnboundedReceiver<Announced>);

impl Monitor {
    /// Subscribes, in the calling thread's network namespace.
    ///
    /// # Errors
    /// Where there is no socket or no thread to be had.
    pub fn open() -> Result<Monitor, Error> {
        let source = nft::Monitor::open(TABLE)?;
        let (sender, receiver) = unbounded_channel();
        let listen = move || {
            if let Err(errno) = listen(source, &sender) {
                warn!(%errno, "the kernel's announcements are lost; what others change is noticed later");
            }
        };
        thread::Builder::new().name("monitor".to_owned()).spawn(listen).map_err(Error::Runtime)?;
        Ok(Monitor(receiver))
    }

    /// Waits for announcements, and returns all that have come; waits for ever when there will be none. Nothing is lost if
    /// the future is dropped.
    pub async fn next(&mut self) -> Announced {
        let Some(mut all) = self.0.recv().await else { return pending().await };
        while let Ok(more) = self.0.try_recv() {
            all = all.and(more);
        }
        all
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
fn listen(mut source: nft::Monitor, listener: &UnboundedSender<Announced>) -> Result<(), Errno> {
    while !listener.is_closed() {
        if !is_readable(source.as_fd())? {
            continue;
        }
        let announced = match source.read() {
            Ok(numbers) if numbers.is_empty() => continue,
            Ok(numbers) => Announced::Transactions(numbers),
            Err(_) => Announced::Lost,
        };
        // That nobody listens any more is seen above.
        let _ = listener.send(announced);
    }
    Ok(())
}

fn is_readable(descriptor: BorrowedFd<'_>) -> Result<bool, Errno> {
    let mut descriptors = [PollFd::new(descriptor, PollFlags::POLLIN)];
    match poll(&mut descriptors, PollTimeout::from(LOOK_AROUND)) {
        Ok(count) => Ok(count > 0),
        Err(Errno::EINTR) => Ok(false),
        Err(errno) => Err(errno),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loss_outweighs_all_numbers() {
        let numbers = |numbers: &[u32]| Announced::Transactions(numbers.to_vec());
        assert_eq!(numbers(&[1]).and(numbers(&[2, 3])), numbers(&[1, 2, 3]));
        assert_eq!(numbers(&[1]).and(Announced::Lost), Announced::Lost);
        assert_eq!(Announced::Lost.and(numbers(&[1])), Announced::Lost);
    }
}
