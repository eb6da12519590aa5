//! Word from the kernel that somebody changed links, addresses, routes, neighbours or the tables of rules, so
//! that what is missing can be put back at once. What is missing is found out elsewhere.

use std::future::pending;
use std::time::Duration;

use tokio::select;
use tokio::time::{Instant, sleep_until};
use tracing::warn;
use weft_netlink::notifications::{Notifications, Notified, Source};
use weft_netlink::rtnl::{self, Group, Object};
use weft_nftables as nft;

use crate::Result;
use crate::subsystem::{Cause, KernelChanges};

/// Links too: an IPv4 route that goes with its link is not announced.
const GROUPS: [Group; 6] = [
    Group::Link,
    Group::Neighbour,
    Group::Ipv4Address,
    Group::Ipv4Route,
    Group::Ipv6Address,
    Group::Ipv6Route,
];
/// Changes come in flocks, as when a pod starts. What follows the first within this time counts as one with
/// the next.
const GATHER: Duration = Duration::from_millis(20);

/// A subscription to the kernel's notifications.
#[derive(Debug)]
pub(crate) struct Monitor {
    /// None once it cannot be read any more; so is the next.
    links: Option<Notifications<rtnl::Monitor>>,
    tables: Option<Notifications<nft::Monitor>>,
    /// Until when changes of links, addresses and routes are gathered.
    not_before: Instant,
    /// What happened to the tables.
    kernel: KernelChanges,
}

impl Monitor {
    /// Subscribes, for the calling thread's network namespace, to changes of tables of these names among
    /// others.
    pub(crate) fn open(tables: &[&'static str]) -> Result<Monitor> {
        let links = Notifications::new(rtnl::Monitor::open(&GROUPS)?)?;
        let tables = Notifications::new(nft::Monitor::open(tables.iter().copied())?)?;
        // What happened before is not known.
        let kernel = KernelChanges::unknown();
        Ok(Monitor { links: Some(links), tables: Some(tables), not_before: Instant::now(), kernel })
    }

    /// Waits until something changed since the last call. Nothing is lost if the future is dropped. Tables
    /// are told of at once, as pods may wait for the answer.
    pub(crate) async fn changed(&mut self) -> Cause {
        loop {
            // What exactly happened to links does not matter; so it does not either if there was too much to
            // tell of it.
            let changed = select! {
                notified = next(&mut self.tables) => {
                    if self.kernel.take(notified) {
                        return Cause::Asked;
                    }
                    false
                }
                notified = next_after(self.not_before, &mut self.links) => {
                    let changed = match notified {
                        Notified::Events(events) => events.iter().any(matters),
                        Notified::Overrun => true,
                    };
                    if changed {
                        self.not_before = Instant::now() + GATHER;
                    }
                    changed
                }
            };
            if changed {
                return Cause::Anything;
            }
        }
    }

    /// What happened to the tables since the last call.
    pub(crate) fn kernel_changes(&mut self) -> KernelChanges {
        std::mem::take(&mut self.kernel)
    }
}

/// The same as [`next`], but not before that moment.
async fn next_after<S: Source>(moment: Instant, source: &mut Option<Notifications<S>>) -> Notified<S::Event> {
    sleep_until(moment).await;
    next(source).await
}

/// Waits for what comes next, for ever where nothing will.
async fn next<S: Source>(source: &mut Option<Notifications<S>>) -> Notified<S::Event> {
    let Some(open) = source else { return pending().await };
    match open.next().await {
        Ok(notified) => notified,
        Err(error) => {
            warn!(%error, "the kernel's notifications are lost; looking every few seconds instead");
            *source = None;
            pending().await
        }
    }
}

/// Whether a notification may be about something that the agent sets. Neighbours come and go all the time;
/// those that somebody set, and forwarding entries, do not.
fn matters(event: &rtnl::Event) -> bool {
    match event.object {
        Object::Neighbour { permanent } => permanent || event.deleted,
        _ => true,
    }
}
