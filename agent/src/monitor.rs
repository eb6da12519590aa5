//! Word from the kernel that somebody changed links, addresses, routes, neighbours or the tables of rules, so that what is
//! missing can be put back at once. What is missing is found out elsewhere.

use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::thread;
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tokio::sync::Notify;
use tracing::warn;
use weft_netlink::{Error as NetlinkError, Frame, Protocol, Socket};
use weft_nftables as nft;

use crate::masquerade;
use crate::{Error, Result};

/// Multicast groups of rtnetlink (RTNLGRP_*, linux/rtnetlink.h). Links too: an IPv4 route that goes with its link is
/// not announced.
const GROUPS: [u32; 6] = [
    1,  // links
    3,  // neighbours, and the forwarding databases of VXLAN devices
    5,  // IPv4 addresses
    7,  // IPv4 routes
    9,  // IPv6 addresses
    11, // IPv6 routes
];
/// Notifications about neighbours (linux/rtnetlink.h).
const RTM_NEWNEIGH: u16 = 28;
const RTM_DELNEIGH: u16 = 29;
/// The family of forwarding entries (linux/socket.h).
const AF_BRIDGE: i32 = 7;
/// The state of an entry that stays until it is deleted (linux/neighbour.h).
const NUD_PERMANENT: u16 = 0x80;
/// Changes come in flocks, as when a pod starts. What follows the first within this time counts as one with the next.
const GATHER: Duration = Duration::from_millis(20);

/// The tables in which the plugin keeps the ports of the host.
const HOST_PORTS: &str = "weft-cni-hostports";

/// A subscription to the kernel's notifications, by a thread that does nothing else: tokio waits on descriptors of
/// others only by way of `unsafe`.
#[derive(Debug)]
pub(crate) struct Monitor(Arc<Told>);

/// What the thread tells.
#[derive(Debug, Default)]
struct Told {
    changed: Notify,
    host_ports: AtomicBool,
}

/// What it listens to.
struct Sources {
    route: Socket,
    masquerade: nft::Monitor,
    host_ports: nft::Monitor,
}

impl Monitor {
    /// Subscribes, for the calling thread's network namespace.
    pub(crate) fn open() -> Result<Monitor> {
        let mut route = Socket::open(Protocol::Route)?;
        for group in GROUPS {
            route.join(group)?;
        }
        let (masquerade, host_ports) =
            (nft::Monitor::open(masquerade::TABLE)?, nft::Monitor::open(HOST_PORTS)?);
        let sources = Sources { route, masquerade, host_ports };
        let shared = Arc::new(Told::default());
        // What happened before is not known.
        shared.host_ports.store(true, Ordering::Relaxed);
        let told = Arc::downgrade(&shared);
        thread::Builder::new()
            .name("monitor".to_owned())
            .spawn(move || {
                if let Err(error) = listen(sources, &told) {
                    warn!(%error, "the kernel's notifications are lost; looking every few seconds instead");
                }
            })
            .map_err(|problem| Error::Runtime { operation: "start a thread", problem })?;
        Ok(Monitor(shared))
    }

    /// Waits until something changed since the last call. Nothing is lost if the future is dropped.
    pub(crate) async fn changed(&self) {
        self.0.changed.notified().await;
    }

    /// Whether the plugin's ports of the host may have changed since the last call.
    pub(crate) fn host_ports_changed(&self) -> bool {
        self.0.host_ports.swap(false, Ordering::Relaxed)
    }
}

/// Whether a notification may be about something that the agent sets. Neighbours come and go all the time; those that
/// somebody set, and forwarding entries, do not.
fn matters(frame: Frame<'_>) -> bool {
    if ![RTM_NEWNEIGH, RTM_DELNEIGH].contains(&frame.kind) {
        return true;
    }
    // struct ndmsg (linux/neighbour.h): the family is its first byte, the state is at 8.
    let family = frame.payload.first().copied().map(i32::from);
    let state = frame.payload.get(8..10).map_or(0, |bytes| u16::from_ne_bytes([bytes[0], bytes[1]]));
    family == Some(AF_BRIDGE) || frame.kind == RTM_DELNEIGH || state & NUD_PERMANENT != 0
}

/// Listens until nobody wants to know any more.
fn listen(mut sources: Sources, told: &Weak<Told>) -> Result<()> {
    loop {
        sources.wait()?;
        // What exactly happened does not matter; so it does not either if there was too much to tell of it.
        let route =
            any(sources.route.notifications(|frame| Ok(matters(frame))), |seen| seen.contains(&true))?;
        let masquerade = any(sources.masquerade.read(), |seen| !seen.is_empty())?;
        let host_ports = any(sources.host_ports.read(), |seen| !seen.is_empty())?;
        if !(route || masquerade || host_ports) {
            continue;
        }
        let Some(told) = told.upgrade() else { return Ok(()) };
        told.host_ports.fetch_or(host_ports, Ordering::Relaxed);
        told.changed.notify_one();
        drop(told);
        thread::sleep(GATHER);
    }
}

impl Sources {
    /// Until one of them has something to tell.
    fn wait(&self) -> Result<()> {
        let descriptors = [self.route.as_fd(), self.masquerade.as_fd(), self.host_ports.as_fd()];
        let mut descriptors = descriptors.map(|descriptor| PollFd::new(descriptor, PollFlags::POLLIN));
        match poll(&mut descriptors, PollTimeout::NONE) {
            Ok(_) | Err(Errno::EINTR) => Ok(()),
            Err(errno) => {
                let operation = "wait for the kernel's notifications";
                Err(Error::Runtime { operation, problem: errno.into() })
            }
        }
    }
}

fn any<T>(read: weft_netlink::Result<T>, is_any: impl FnOnce(T) -> bool) -> Result<bool> {
    match read {
        Ok(seen) => Ok(is_any(seen)),
        Err(NetlinkError::Overrun) => Ok(true),
        Err(error) => Err(error.into()),
    }
}
