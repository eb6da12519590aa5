//! Notifications: what the kernel tells of changes that others make. A [`Source`] is a subscription that is
//! read without waiting; with the feature `tokio`, [`Notifications`] waits for one, without a thread of its
//! own.

use std::os::fd::AsFd;

use crate::{Error, Result};

/// A subscription to some of the kernel's notifications.
pub trait Source: AsFd {
    /// What it tells.
    type Event;

    /// Reads all that has come, without waiting.
    ///
    /// # Errors
    /// [`Error::Overrun`] where notifications were lost; the next call reads on.
    fn read(&mut self) -> Result<Vec<Self::Event>>;
}

/// What came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notified<E> {
    /// These events, in order.
    Events(Vec<E>),
    /// Notifications were lost (ENOBUFS): anything may have changed, so that everything is to be read again.
    Overrun,
}

impl<E> Notified<E> {
    /// What a source read; `None` where nothing came.
    ///
    /// # Errors
    /// Those of the source, but for an overrun.
    pub fn of(read: Result<Vec<E>>) -> Result<Option<Notified<E>>> {
        match read {
            Ok(events) if events.is_empty() => Ok(None),
            Ok(events) => Ok(Some(Notified::Events(events))),
            Err(Error::Overrun) => Ok(Some(Notified::Overrun)),
            Err(error) => Err(error),
        }
    }

    /// Both, in this order.
    pub fn and(self, more: Notified<E>) -> Notified<E> {
        match (self, more) {
            (Notified::Events(mut all), Notified::Events(more)) => {
                all.extend(more);
                Notified::Events(all)
            }
            _ => Notified::Overrun,
        }
    }
}

#[cfg(feature = "tokio")]
pub use waiting::Notifications;

#[cfg(feature = "tokio")]
mod waiting {
    use std::io;
    use std::os::fd::OwnedFd;

    use tokio::io::unix::AsyncFd;

    use super::{Notified, Source};
    use crate::readiness::register;
    use crate::{Error, Result};

    /// A subscription whose notifications are awaited. Ends when it is dropped.
    #[derive(Debug)]
    pub struct Notifications<S> {
        /// A descriptor of its own for the subscription's socket.
        ready: AsyncFd<OwnedFd>,
        source: S,
    }

    impl<S: Source> Notifications<S> {
        /// Registers a subscription with the runtime of the calling task.
        ///
        /// # Errors
        /// What the operating system refused.
        pub fn new(source: S) -> Result<Notifications<S>> {
            let descriptor = source.as_fd().try_clone_to_owned();
            let registered = descriptor.and_then(register).map_err(failed("wait for"));
            registered.map(|ready| Notifications { ready, source })
        }

        /// Waits for notifications, and returns all that have come. Nothing is lost if the future is dropped.
        ///
        /// # Errors
        /// Where the subscription can no longer be read. To ask again is of no use.
        pub async fn next(&mut self) -> Result<Notified<S::Event>> {
            loop {
                let mut ready = self.ready.readable().await.map_err(failed("wait for"))?;
                let notified = Notified::of(self.source.read())?;
                // An overrun is told before what came ahead of it, which is still to be read.
                if !matches!(notified, Some(Notified::Overrun)) {
                    ready.clear_ready();
                }
                if let Some(notified) = notified {
                    return Ok(notified);
                }
            }
        }
    }

    fn failed(operation: &'static str) -> impl FnOnce(io::Error) -> Error {
        move |source| Error::Socket { operation, source }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_overrun_outweighs_all_events() {
        let events = |events: &[u32]| Notified::Events(events.to_vec());
        assert_eq!(events(&[1]).and(events(&[2, 3])), events(&[1, 2, 3]));
        assert_eq!(events(&[1]).and(Notified::Overrun), Notified::Overrun);
        assert_eq!(Notified::Overrun.and(events(&[1])), Notified::Overrun);
        assert_eq!(Notified::<u32>::of(Err(Error::Overrun)).unwrap(), Some(Notified::Overrun));
        assert_eq!(Notified::<u32>::of(Ok(vec![])).unwrap(), None);
    }
}
