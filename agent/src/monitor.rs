//! Word from the kernel that somebody changed links, addresses, routes or neighbours, so that what is missing can be put back at
//! once. What is missing is found out elsewhere.

use std::os::fd::AsFd;
use std::sync::{Arc, Weak};
use std::thread;
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tokio::sync::Notify;
use tracing::warn;
use weft_netlink::{Error as NetlinkError, Frame, Protocol, Socket};

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

/// A subscription to the kernel's notifications, by a thread that does nothing else: tokio waits on descriptors of
/// others only by way of `unsafe`.
#[derive(Debug)]
pub(crate) struct Monitor(Arc<Notify>);

impl Monitor {
    /// Subscribes, for the calling thread's network namespace.
    pub(crate) fn open() -> Result<Monitor> {
        let mut socket = Socket::open(Protocol::Route)?;
        for group in GROUPS {
            socket.join(group)?;
        }
        let changed = Arc::new(Notify::new());
        let told = Arc::downgrade(&changed);
        thread::Builder::new()
            .name("monitor".to_owned())
            .spawn(move || {
                if let Err(error) = listen(socket, &told) {
                    warn!(%error, "the kernel's notifications are lost; looking at routes every few seconds instead");
                }
            })
            .map_err(|problem| Error::Runtime { operation: "start a thread", problem })?;
        Ok(Monitor(changed))
    }

    /// Waits until something changed since the last call. Nothing is lost if the future is dropped.
    pub(crate) async fn changed(&self) {
        self.0.notified().await;
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
fn listen(mut socket: Socket, told: &Weak<Notify>) -> Result<()> {
    loop {
        let mut descriptors = [PollFd::new(socket.as_fd(), PollFlags::POLLIN)];
        match poll(&mut descriptors, PollTimeout::NONE) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => {
                let operation = "wait for the kernel's notifications";
                return Err(Error::Runtime { operation, problem: errno.into() });
            }
        }
        // What exactly happened does not matter; so it does not either if there was too much to tell of it.
        match socket.notifications(|frame| Ok(matters(frame))) {
            Ok(seen) if !seen.contains(&true) => continue,
            Ok(_) | Err(NetlinkError::Overrun) => {}
            Err(error) => return Err(error.into()),
        }
        let Some(changed) = told.upgrade() else { return Ok(()) };
        changed.notify_one();
        thread::sleep(GATHER);
    }
}
