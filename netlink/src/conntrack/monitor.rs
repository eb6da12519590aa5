//! Notifications of connection tracking: flows that begin, change or end.

use std::os::fd::{AsFd, BorrowedFd};

use super::flow::Event;
use super::message;
use crate::notifications::Source;
use crate::{Protocol, Result, Socket};

/// A multicast group (`NFNLGRP_CONNTRACK_*`, linux/netfilter/nfnetlink_compat.h).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    /// Flows that begin.
    New = 1,
    /// Flows that change.
    Update = 2,
    /// Flows that end.
    Destroy = 3,
}

/// A subscription.
#[derive(Debug)]
pub struct Monitor(Socket);

impl Monitor {
    /// Subscribes to these groups, in the calling thread's network namespace. The kernel tells of flows that
    /// begin while somebody listens, or all where `net.netfilter.nf_conntrack_events` is 1.
    pub fn open(groups: &[Group]) -> Result<Monitor> {
        let mut socket = Socket::open(Protocol::Netfilter)?;
        groups.iter().try_for_each(|group| socket.join(*group as u32))?;
        Ok(Monitor(socket))
    }

    /// Makes room for that many bytes of notifications that are not read yet.
    ///
    /// # Errors
    /// What the operating system refused.
    pub fn set_receive_buffer(&mut self, bytes: usize) -> Result<()> {
        self.0.set_receive_buffer(bytes)
    }

    /// Shows all that has come, one by one, without waiting.
    ///
    /// # Errors
    /// [`Error::Overrun`](crate::Error::Overrun) where notifications were lost; the next call reads on.
    pub fn for_each(&mut self, mut show: impl FnMut(Event)) -> Result<()> {
        self.0.for_each_notification(|frame| {
            show(message::event(frame)?);
            Ok(())
        })
    }
}

impl Source for Monitor {
    type Event = Event;

    fn read(&mut self) -> Result<Vec<Event>> {
        self.0.notifications(message::event)
    }
}

impl AsFd for Monitor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
