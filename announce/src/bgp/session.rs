//! A session as its two ends agreed on it, what happens to it, and what is to be done about that.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use weft_types::Family;

use crate::bgp::wire::{Dialect, GracefulRestart, Message, Notification, Open, Refresh, Update};

/// Who opened a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Side {
    /// We did.
    Outgoing,
    /// The peer did.
    Incoming,
}

/// How far a session is (RFC 4271 section 8.2.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    /// It waits until it may try again, or for the peer to connect.
    Active,
    /// It is being connected.
    Connect,
    /// Our OPEN is sent.
    OpenSent,
    /// The peer's came.
    OpenConfirm,
    /// Both agree.
    Established,
}

/// A connection, by the number that whoever made it gave it.
pub type Id = u64;

/// What happens.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// Time passed.
    Tick,
    /// There is a connection, which that end opened.
    Connected(Id, Side),
    /// An attempt to connect came to nothing.
    NotConnected(String),
    /// A connection is no more.
    Lost(Id, String),
    /// The peer sent a message.
    Received(Id, Message),
    /// The peer sent something that is no message, or is to go for another reason, and is to be told so.
    Malformed(Id, Notification),
    /// The session is to end: with these words, or without any, so that a peer with graceful restart keeps
    /// the routes.
    Stop(Option<Notification>),
}

/// What is to be done about it.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Connect to the peer.
    Connect,
    /// Do not connect any more.
    Cancel,
    /// Send these bytes.
    Send(Id, Vec<u8>),
    /// Close that connection, once everything is sent.
    Close(Id),
    /// The session is up, by that connection.
    Up(Id, Arc<Session>),
    /// It is not any more: why, and whether the peer's routes are kept while it restarts.
    Down(String, Option<GracefulRestart>),
    /// It did not come to one.
    Failed(String),
    /// Routes came.
    Routes(Update),
    /// The peer wants to hear our routes of that family again, or says so of its own.
    Refresh(Family, Refresh),
}

/// What the ends agreed on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    /// What the peer said of itself.
    pub open: Open,
    /// How they speak.
    pub dialect: Dialect,
    /// The families that both know.
    pub families: BTreeSet<Family>,
    /// After how many seconds of silence it ends; 0 for never.
    pub hold_time: u16,
}

impl Session {
    /// Between an end that sent `ours` and one that sent `open`.
    pub(super) fn new(ours: &Open, open: Open) -> Session {
        let (mine, theirs) = (&ours.capabilities, &open.capabilities);
        // RFC 4760 section 8: who says nothing speaks of IPv4.
        let mut families = theirs.families.clone();
        if families.is_empty() {
            families.insert(Family::V4);
        }
        families.retain(|family| mine.families.contains(family));
        let dialect = Dialect {
            four_octet_as: mine.four_octet_as && theirs.four_octet_as,
            extended_next_hop: mine.extended_next_hop && theirs.extended_next_hop,
            is_external: ours.asn != open.asn,
        };
        let hold_time = ours.hold_time.min(open.hold_time);
        Session { open, dialect, families, hold_time }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            State::Active => "Active",
            State::Connect => "Connect",
            State::OpenSent => "OpenSent",
            State::OpenConfirm => "OpenConfirm",
            State::Established => "Established",
        })
    }
}
