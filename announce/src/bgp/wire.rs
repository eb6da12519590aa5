//! The messages of BGP-4 and their bytes (RFC 4271 section 4).

pub mod attributes;
pub mod notification;
pub mod open;
mod prefix;
mod reader;
pub mod update;

#[cfg(test)]
mod tests;

use std::net::IpAddr;

use weft_types::{Family, IpNetwork};

pub use self::attributes::{Attributes, Community, LargeCommunity, Origin, Segment};
pub use self::notification::Notification;
pub use self::open::{Capabilities, GracefulRestart, Open};
pub use self::update::{Dialect, Reached, Update};

use self::prefix::{SAFI_UNICAST, afi, family};

/// What every message begins with: sixteen bytes of ones, the length of the whole, the kind.
const HEADER: usize = 19;
/// The longest message.
const LONGEST: usize = HEADER + update::LONGEST_BODY;

const OPEN: u8 = 1;
const UPDATE: u8 = 2;
const NOTIFICATION: u8 = 3;
const KEEPALIVE: u8 = 4;
/// RFC 2918
const ROUTE_REFRESH: u8 = 5;

/// A message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// Who somebody is and what he can do.
    Open(Open),
    /// Routes that come and go.
    Update(Update),
    /// Why the session ends.
    Notification(Notification),
    /// The sender lives.
    Keepalive,
    /// About the routes of a family; none of one that nobody here speaks of.
    RouteRefresh(Option<(Family, Refresh)>),
}

/// What a ROUTE-REFRESH says (RFC 7313 section 3.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refresh {
    /// Send them again.
    Request,
    /// All of them follow.
    Begin,
    /// Those were all: what did not come is gone.
    End,
}

/// Takes the first message off received bytes; none while it is not whole.
///
/// # Errors
/// What to tell the sender.
pub fn take(bytes: &mut Vec<u8>, dialect: Dialect) -> Result<Option<Message>, Notification> {
    let Some((length, kind)) = header(bytes)? else { return Ok(None) };
    if bytes.len() < length {
        return Ok(None);
    }
    let message = decode(kind, &bytes[HEADER..length], dialect);
    bytes.drain(..length);
    message.map(Some)
}

/// Length and kind of the first message. Both are judged before it is whole: nobody waits for 64 KB of
/// garbage (RFC 4271 section 6.1).
fn header(bytes: &[u8]) -> Result<Option<(usize, u8)>, Notification> {
    if bytes.iter().take(16).any(|&byte| byte != 0xff) {
        return Err(Notification::NOT_SYNCHRONIZED);
    }
    let Some(&[high, low, kind]) = bytes.get(16..HEADER) else { return Ok(None) };
    let told = u16::from_be_bytes([high, low]);
    let length = usize::from(told);
    let least = match kind {
        OPEN => HEADER + 10,
        UPDATE => HEADER + 4,
        NOTIFICATION => HEADER + 2,
        KEEPALIVE | ROUTE_REFRESH => HEADER,
        kind => return Err(Notification::bad_kind(kind)),
    };
    if !(least..=LONGEST).contains(&length) || (kind == KEEPALIVE && length != HEADER) {
        return Err(Notification::bad_length(told));
    }
    Ok(Some((length, kind)))
}

fn decode(kind: u8, body: &[u8], dialect: Dialect) -> Result<Message, Notification> {
    Ok(match kind {
        OPEN => Message::Open(Open::decode(body)?),
        UPDATE => Message::Update(Update::decode(body, dialect)?),
        NOTIFICATION => {
            let told = Notification::decode(body);
            Message::Notification(told.unwrap_or(Notification::new(0, 0)))
        }
        ROUTE_REFRESH => Message::RouteRefresh(refresh(body)?),
        _ => Message::Keepalive,
    })
}

/// The middle byte was once without meaning, and then says zero (RFC 7313 section 5).
fn refresh(body: &[u8]) -> Result<Option<(Family, Refresh)>, Notification> {
    let &[high, low, subtype, safi] = body else { return Err(Notification::bad_refresh(body)) };
    let family = family(u16::from_be_bytes([high, low])).filter(|_| safi == SAFI_UNICAST);
    let refresh = match subtype {
        0 => Some(Refresh::Request),
        1 => Some(Refresh::Begin),
        2 => Some(Refresh::End),
        _ => None,
    };
    Ok(family.zip(refresh))
}

fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = u16::try_from(HEADER + body.len()).unwrap_or(u16::MAX);
    [&[0xff; 16][..], &length.to_be_bytes(), &[kind], body].concat()
}

/// The bytes of an OPEN.
pub fn open(open: &Open) -> Vec<u8> {
    message(OPEN, &open.encode())
}

/// The bytes of a NOTIFICATION.
pub fn notification(notification: &Notification) -> Vec<u8> {
    message(NOTIFICATION, &notification.encode())
}

/// The bytes of a KEEPALIVE.
pub fn keepalive() -> Vec<u8> {
    message(KEEPALIVE, &[])
}

/// The bytes of a ROUTE-REFRESH.
pub fn route_refresh(of: Family, refresh: Refresh) -> Vec<u8> {
    let [high, low] = afi(of).to_be_bytes();
    let subtype = match refresh {
        Refresh::Request => 0,
        Refresh::Begin => 1,
        Refresh::End => 2,
    };
    message(ROUTE_REFRESH, &[high, low, subtype, SAFI_UNICAST])
}

/// The bytes that announce these prefixes, all of one family, by that next hop.
pub fn announce(
    next_hop: IpAddr,
    prefixes: &[IpNetwork],
    attributes: &Attributes,
    dialect: Dialect,
) -> Vec<u8> {
    updates(update::announce(next_hop, prefixes, attributes, dialect))
}

/// The bytes that withdraw these prefixes, all of one family.
pub fn withdraw(prefixes: &[IpNetwork], dialect: Dialect) -> Vec<u8> {
    updates(update::withdraw(prefixes, dialect))
}

/// The bytes that end the first routes of a family.
pub fn end_of_rib(family: Family) -> Vec<u8> {
    message(UPDATE, &update::end_of_rib(family))
}

fn updates(bodies: Vec<Vec<u8>>) -> Vec<u8> {
    bodies.into_iter().flat_map(|body| message(UPDATE, &body)).collect()
}
