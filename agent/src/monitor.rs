//! Word from the kernel that somebody changed links, addresses, routes, neighbours or the tables of rules, so that what is
//! missing can be put back at once. What is missing is found out elsewhere.

use std::future::pending;
use std::time::Duration;

use tokio::select;
use tokio::time::{Instant, sleep_until};
use tracing::warn;
use weft_netlink::notifications::{Notifications, Notified, Source};
use weft_netlink::rtnl::{self, Group, Object};
use weft_nftables as nft;
use weft_types::well_known::table::HOST_PORTS;

use crate::Result;
use crate::masquerade;

/// Links too: an IPv4 route that goes with its link is not announced.
const GROUPS: [Group; 6] = [
    Group::Link,
    Group::Neighbour,
    Group::Ipv4Address,
    Group::Ipv4Route,
    Group::Ipv6Address,
    Group::Ipv6Route,
];
/// Changes come in flocks, as when a pod starts. What follows the first within this time counts as one with the next.
const GATHER: Duration = Duration::from_millis(20);

/// A subscription to the kernel's notifications.
#[derive(Debug)]
pub(crate) struct Monitor {
    /// None once it cannot be read any more; so is the next.
    links: Option<Notifications<rtnl::Monitor>>,
    tables: Option<Notifications<nft::Monitor>>,
    /// Until when changes are gathered.
    not_before: Instant,
    /// The plugin's ports of the host may have changed.
    host_ports: bool,
}

impl Monitor {
    /// Subscribes, for the calling thread's network namespace.
    pub(crate) fn open() -> Result<Monitor> {
        let links = Notifications::new(rtnl::Monitor::open(&GROUPS)?)?;
        let tables = Notifications::new(nft::Monitor::open([masquerade::TABLE, HOST_PORTS])?)?;
        let not_before = Instant::now();
        // What happened before is not known.
        Ok(Monitor { links: Some(links), tables: Some(tables), not_before, host_ports: true })
    }

    /// Waits until something changed since the last call. Nothing is lost if the future is dropped.
    pub(crate) async fn changed(&mut self) {
        sleep_until(self.not_before).await;
        loop {
            // What exactly happened does not matter; so it does not either if there was too much to tell of it.
            let changed = select! {
                notified = next(&mut self.links) => match notified {
                    Notified::Events(events) => events.iter().any(matters),
                    Notified::Overrun => true,
                },
                notified = next(&mut self.tables) => {
                    let touched = touched(&notified);
                    self.host_ports |= touched.contains(&HOST_PORTS);
                    !touched.is_empty()
                }
            };
            if changed {
                self.not_before = Instant::now() + GATHER;
                return;
            }
        }
    }

    /// Whether the plugin's ports of the host may have changed since the last call.
    pub(crate) fn host_ports_changed(&mut self) -> bool {
        std::mem::take(&mut self.host_ports)
    }
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

/// Whether a notification may be about something that the agent sets. Neighbours come and go all the time; those that
/// somebody set, and forwarding entries, do not.
fn matters(event: &rtnl::Event) -> bool {
    match event.object {
        Object::Neighbour { permanent } => permanent || event.deleted,
        _ => true,
    }
}

/// The names of the tables that may have changed.
fn touched(notified: &Notified<nft::Announcement>) -> Vec<&str> {
    match notified {
        Notified::Events(all) => all.iter().flat_map(|one| one.tables.iter().map(|name| &**name)).collect(),
        Notified::Overrun => vec![masquerade::TABLE, HOST_PORTS],
    }
}
