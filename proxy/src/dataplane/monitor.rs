//! Word from the kernel of what others change in our tables. What is done about it is decided in `daemon.rs`.

use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::sync::Notify;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::AbortHandle;
use tracing::warn;
use weft_netlink::notifications::{Notifications, Notified};
use weft_nftables::{self as nft, Announcement, IsOurs};

use crate::error::Error;

/// What the kernel announced: transactions that changed our tables, or that announcements were lost.
pub(super) type Announced = Notified<Announcement>;

/// A subscription, served by a task: other programs' rules are told of also while nobody waits for changes of
/// ours. Ends when it is dropped.
#[derive(Debug)]
pub(super) struct Monitor {
    announced: UnboundedReceiver<Announced>,
    task: AbortHandle,
}

impl Monitor {
    /// Subscribes, in the calling thread's network namespace. `others` is told of changes of other programs'
    /// chains and rules.
    ///
    /// # Errors
    /// Where there is no socket to be had.
    pub(super) fn open(
        tables: &[&'static str],
        is_ours: IsOurs,
        others: Arc<Notify>,
    ) -> Result<Monitor, Error> {
        let source = nft::Monitor::open(tables.iter().copied())?.of_shared(is_ours);
        let source = Notifications::new(source)?;
        let (sender, announced) = unbounded_channel();
        let task = tokio::spawn(listen(source, sender, others)).abort_handle();
        Ok(Monitor { announced, task })
    }

    /// All announcements that have come; wakes the task when there are some. None come where they cannot be
    /// read any more.
    pub(super) fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Announced> {
        let Some(mut all) = ready!(self.announced.poll_recv(context)) else { return Poll::Pending };
        while let Ok(more) = self.announced.try_recv() {
            all = all.and(more);
        }
        Poll::Ready(all)
    }
}

impl Drop for Monitor {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn listen(
    mut source: Notifications<nft::Monitor>,
    listener: UnboundedSender<Announced>,
    others: Arc<Notify>,
) {
    loop {
        let announced = match source.next().await {
            Ok(Notified::Events(mut all)) => {
                if all.iter().any(|announcement| announcement.others) {
                    others.notify_one();
                }
                all.retain(|announcement| !announcement.tables.is_empty());
                Notified::Events(all)
            }
            Ok(Notified::Overrun) => {
                others.notify_one();
                Notified::Overrun
            }
            Err(error) => {
                warn!(
                    "{error}; what others change in the rules is noticed only by the failure of a later change"
                );
                return others.notify_one();
            }
        };
        // The task ends with its listener.
        if announced != Notified::Events(Vec::new()) {
            let _ = listener.send(announced);
        }
    }
}
