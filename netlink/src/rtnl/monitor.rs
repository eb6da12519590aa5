//! Notifications of rtnetlink: links, addresses, routes, neighbours and forwarding entries that came, changed
//! or went.

use std::os::fd::{AsFd, BorrowedFd};

use crate::notifications::Source;
use crate::{Frame, Protocol, Result, Socket};

/// Kinds of messages (linux/rtnetlink.h). Each kind of object has one for what is new or changed, and the
/// next for what is deleted.
const RTM_NEWLINK: u16 = 16;
const RTM_NEWADDR: u16 = 20;
const RTM_NEWROUTE: u16 = 24;
const RTM_NEWNEIGH: u16 = 28;
/// The family of forwarding entries (linux/socket.h).
const AF_BRIDGE: u8 = 7;
/// The state of an entry that stays until it is deleted (linux/neighbour.h).
const NUD_PERMANENT: u16 = 0x80;

/// A multicast group (`RTNLGRP_*`, linux/rtnetlink.h).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    /// Interfaces.
    Link = 1,
    /// Neighbours, and the forwarding databases of bridges and VXLAN devices.
    Neighbour = 3,
    /// IPv4 addresses of interfaces.
    Ipv4Address = 5,
    /// IPv4 routes. Those that go with their link are not told of.
    Ipv4Route = 7,
    /// IPv6 addresses of interfaces.
    Ipv6Address = 9,
    /// IPv6 routes.
    Ipv6Route = 11,
}

/// What a notification is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Object {
    /// The interface of that index.
    Link(u32),
    /// An address of an interface.
    Address,
    /// A route.
    Route,
    /// An entry of the neighbour table; permanent ones are those that somebody set.
    Neighbour {
        /// Whether it stays until it is deleted.
        permanent: bool,
    },
    /// An entry of a forwarding database.
    Fdb,
    /// Something else, by the kind of its message.
    Other(u16),
}

/// A notification.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// What it is about.
    pub object: Object,
    /// It is gone. Otherwise it is new, or changed.
    pub deleted: bool,
}

/// A subscription.
#[derive(Debug)]
pub struct Monitor(Socket);

impl Monitor {
    /// Subscribes to these groups, in the calling thread's network namespace.
    pub fn open(groups: &[Group]) -> Result<Monitor> {
        let mut socket = Socket::open(Protocol::Route)?;
        groups.iter().try_for_each(|group| socket.join(*group as u32))?;
        Ok(Monitor(socket))
    }

    /// Makes room for that many bytes of unread notifications.
    pub fn set_receive_buffer(&mut self, bytes: usize) -> Result<()> {
        self.0.set_receive_buffer(bytes)
    }
}

impl Source for Monitor {
    type Event = Event;

    fn read(&mut self) -> Result<Vec<Event>> {
        self.0.notifications(|frame| Ok(event(frame)))
    }
}

impl AsFd for Monitor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// The headers tell enough: attributes that this program does not know end no subscription.
fn event(frame: Frame<'_>) -> Event {
    let deleted = frame.kind & 1 == 1;
    let object = match frame.kind & !1 {
        // struct ifinfomsg: the index is at 4.
        RTM_NEWLINK => Object::Link(bytes(frame, 4).map_or(0, u32::from_ne_bytes)),
        RTM_NEWADDR => Object::Address,
        RTM_NEWROUTE => Object::Route,
        // struct ndmsg (linux/neighbour.h): the family is its first byte, the state is at 8.
        RTM_NEWNEIGH if frame.payload.first() == Some(&AF_BRIDGE) => Object::Fdb,
        RTM_NEWNEIGH => {
            let state = bytes(frame, 8).map_or(0, u16::from_ne_bytes);
            Object::Neighbour { permanent: state & NUD_PERMANENT != 0 }
        }
        _ => Object::Other(frame.kind),
    };
    Event { object, deleted }
}

fn bytes<const N: usize>(frame: Frame<'_>, at: usize) -> Option<[u8; N]> {
    frame.payload.get(at..)?.first_chunk().copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_tells_set_neighbours_and_forwarding_entries_from_learnt_ones() {
        let told = |kind, payload: &[u8]| event(Frame { kind, flags: 0, sequence: 0, payload });
        let neighbour = |family, state: u16| {
            let mut payload = [0; 12];
            payload[0] = family;
            payload[8..10].copy_from_slice(&state.to_ne_bytes());
            payload
        };
        let new = |object| Event { object, deleted: false };
        assert_eq!(told(28, &neighbour(2, 0x80)), new(Object::Neighbour { permanent: true }));
        assert_eq!(told(28, &neighbour(10, 2)), new(Object::Neighbour { permanent: false }));
        assert_eq!(told(28, &neighbour(7, 2)), new(Object::Fdb));
        assert_eq!(told(25, &[]), Event { object: Object::Route, deleted: true });
        assert_eq!(told(16, &[0, 0, 0, 0, 1, 1, 1, 1]), new(Object::Link(0x0101_0101)));
        assert_eq!(told(28, &[]), new(Object::Neighbour { permanent: false }), "a short message is no panic");
    }
}
