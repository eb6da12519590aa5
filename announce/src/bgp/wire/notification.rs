//! NOTIFICATION: why one end closes a session (RFC 4271 section 4.5).

use std::fmt;

use super::reader::Reader;

/// Why a session ends, for the other end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notification {
    /// The error code.
    pub code: u8,
    /// What it is within the code; 0 where that is not said.
    pub subcode: u8,
    /// What belongs to it: the field that is wrong, or a text.
    pub data: Vec<u8>,
}

/// `Message Header Error`
const HEADER: u8 = 1;
/// `OPEN Message Error`
const OPEN: u8 = 2;
/// `UPDATE Message Error`
const UPDATE: u8 = 3;
/// `Hold Timer Expired`
const HOLD_TIMER: u8 = 4;
/// `Finite State Machine Error`
const STATE: u8 = 5;
/// `Cease`
const CEASE: u8 = 6;
/// `ROUTE-REFRESH Message Error` (RFC 7313 section 5)
const REFRESH: u8 = 7;

/// The longest text of a shutdown, in bytes (RFC 9003 section 2).
const LONGEST_TEXT: usize = 255;

impl Notification {
    /// Without data.
    pub const fn new(code: u8, subcode: u8) -> Notification {
        Notification { code, subcode, data: Vec::new() }
    }

    /// The sixteen bytes in front are not all ones.
    pub const NOT_SYNCHRONIZED: Notification = Notification::new(HEADER, 1);
    /// A field of OPEN is wrong, in a way that has no number.
    pub const MALFORMED_OPEN: Notification = Notification::new(OPEN, 0);
    /// The AS number is not the one that was agreed.
    pub const BAD_PEER_AS: Notification = Notification::new(OPEN, 2);
    /// The BGP identifier is zero or our own.
    pub const BAD_IDENTIFIER: Notification = Notification::new(OPEN, 3);
    /// The hold time is one or two seconds.
    pub const BAD_HOLD_TIME: Notification = Notification::new(OPEN, 6);
    /// Attributes cannot be told apart.
    pub const MALFORMED_ATTRIBUTES: Notification = Notification::new(UPDATE, 1);
    /// The reachable prefixes of MP_REACH_NLRI, or the withdrawn ones, cannot be told apart.
    pub const MALFORMED_OPTIONAL: Notification = Notification::new(UPDATE, 9);
    /// The prefixes cannot be told apart.
    pub const INVALID_NETWORK: Notification = Notification::new(UPDATE, 10);
    /// Nothing was heard for the hold time.
    pub const HOLD_TIMER_EXPIRED: Notification = Notification::new(HOLD_TIMER, 0);
    /// More routes than are taken (RFC 4486).
    pub const TOO_MANY_PREFIXES: Notification = Notification::new(CEASE, 1);
    /// The other end is no peer any more (RFC 4486).
    pub const DECONFIGURED: Notification = Notification::new(CEASE, 3);
    /// The peer's settings changed: the session begins anew (RFC 4486).
    pub const OTHER_CONFIGURATION: Notification = Notification::new(CEASE, 6);
    /// Another connection of the two stays (RFC 4486).
    pub const COLLISION: Notification = Notification::new(CEASE, 7);
    /// BFD says that the other end is not reached any more (RFC 9384).
    pub const BFD_DOWN: Notification = Notification::new(CEASE, 10);

    /// A message of the wrong length.
    pub fn bad_length(length: u16) -> Notification {
        Notification { data: length.to_be_bytes().to_vec(), ..Notification::new(HEADER, 2) }
    }

    /// A message of a kind that nobody knows.
    pub fn bad_kind(kind: u8) -> Notification {
        Notification { data: vec![kind], ..Notification::new(HEADER, 3) }
    }

    /// A version other than 4; that one is offered.
    pub fn bad_version() -> Notification {
        Notification { data: 4u16.to_be_bytes().to_vec(), ..Notification::new(OPEN, 1) }
    }

    /// A parameter of OPEN that nobody knows.
    pub fn bad_parameter() -> Notification {
        Notification::new(OPEN, 4)
    }

    /// An attribute that is well-known to others alone.
    pub fn unrecognized_attribute(attribute: &[u8]) -> Notification {
        Notification { data: attribute.to_vec(), ..Notification::new(UPDATE, 2) }
    }

    /// A message that has no place in that state (RFC 6608): 1 OpenSent, 2 OpenConfirm, 3 Established.
    pub fn unexpected(state: u8) -> Notification {
        Notification::new(STATE, state)
    }

    /// A ROUTE-REFRESH of the wrong length (RFC 7313 section 5).
    pub fn bad_refresh(body: &[u8]) -> Notification {
        Notification { data: body.to_vec(), ..Notification::new(REFRESH, 1) }
    }

    /// The administrator ends the session, and says why (RFC 9003).
    pub fn shutdown(text: &str) -> Notification {
        let mut length = text.len().min(LONGEST_TEXT);
        while !text.is_char_boundary(length) {
            length -= 1;
        }
        let mut data = vec![u8::try_from(length).unwrap_or_default()];
        data.extend(&text.as_bytes()[..length]);
        Notification { data, ..Notification::new(CEASE, 2) }
    }

    /// The body of the message.
    pub(super) fn encode(&self) -> Vec<u8> {
        [&[self.code, self.subcode][..], &self.data].concat()
    }

    /// From the body of a message, whose length was checked.
    pub(super) fn decode(body: &[u8]) -> Option<Notification> {
        let mut reader = Reader(body);
        Some(Notification { code: reader.u8()?, subcode: reader.u8()?, data: reader.rest().to_vec() })
    }

    /// The text of a shutdown or reset (RFC 9003).
    fn text(&self) -> Option<String> {
        let text = match (self.code, self.subcode) {
            (CEASE, 2 | 4) => self.data.get(1..=usize::from(*self.data.first()?))?,
            _ => return None,
        };
        let text: String = String::from_utf8_lossy(text).chars().filter(|it| !it.is_control()).collect();
        (!text.is_empty()).then_some(text)
    }

    /// The names of RFC 4271 section 4.5, RFC 4486, RFC 5492, RFC 6608, RFC 7313, RFC 8538, and RFC 9384.
    fn names(&self) -> (&'static str, &'static str) {
        match (self.code, self.subcode) {
            (HEADER, 1) => ("message header error", "connection not synchronized"),
            (HEADER, 2) => ("message header error", "bad message length"),
            (HEADER, 3) => ("message header error", "bad message type"),
            (HEADER, _) => ("message header error", ""),
            (OPEN, 1) => ("OPEN message error", "unsupported version number"),
            (OPEN, 2) => ("OPEN message error", "bad peer AS"),
            (OPEN, 3) => ("OPEN message error", "bad BGP identifier"),
            (OPEN, 4) => ("OPEN message error", "unsupported optional parameter"),
            (OPEN, 5) => ("OPEN message error", "authentication failure"),
            (OPEN, 6) => ("OPEN message error", "unacceptable hold time"),
            (OPEN, 7) => ("OPEN message error", "unsupported capability"),
            (OPEN, _) => ("OPEN message error", ""),
            (UPDATE, 1) => ("UPDATE message error", "malformed attribute list"),
            (UPDATE, 2) => ("UPDATE message error", "unrecognized well-known attribute"),
            (UPDATE, 3) => ("UPDATE message error", "missing well-known attribute"),
            (UPDATE, 4) => ("UPDATE message error", "attribute flags error"),
            (UPDATE, 5) => ("UPDATE message error", "attribute length error"),
            (UPDATE, 6) => ("UPDATE message error", "invalid ORIGIN attribute"),
            (UPDATE, 8) => ("UPDATE message error", "invalid NEXT_HOP attribute"),
            (UPDATE, 9) => ("UPDATE message error", "optional attribute error"),
            (UPDATE, 10) => ("UPDATE message error", "invalid network field"),
            (UPDATE, 11) => ("UPDATE message error", "malformed AS_PATH"),
            (UPDATE, _) => ("UPDATE message error", ""),
            (HOLD_TIMER, _) => ("hold timer expired", ""),
            (STATE, 1) => ("finite state machine error", "unexpected message in OpenSent"),
            (STATE, 2) => ("finite state machine error", "unexpected message in OpenConfirm"),
            (STATE, 3) => ("finite state machine error", "unexpected message in Established"),
            (STATE, _) => ("finite state machine error", ""),
            (CEASE, 1) => ("cease", "maximum number of prefixes reached"),
            (CEASE, 2) => ("cease", "administrative shutdown"),
            (CEASE, 3) => ("cease", "peer de-configured"),
            (CEASE, 4) => ("cease", "administrative reset"),
            (CEASE, 5) => ("cease", "connection rejected"),
            (CEASE, 6) => ("cease", "other configuration change"),
            (CEASE, 7) => ("cease", "connection collision resolution"),
            (CEASE, 8) => ("cease", "out of resources"),
            (CEASE, 9) => ("cease", "hard reset"),
            (CEASE, 10) => ("cease", "BFD down"),
            (CEASE, _) => ("cease", ""),
            (REFRESH, _) => ("ROUTE-REFRESH message error", "invalid message length"),
            _ => ("unknown error", ""),
        }
    }
}

impl fmt::Display for Notification {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (code, subcode) = self.names();
        f.write_str(code)?;
        if !subcode.is_empty() {
            write!(f, ": {subcode}")?;
        }
        write!(f, " ({}/{})", self.code, self.subcode)?;
        match self.text() {
            Some(text) => write!(f, ", {text:?}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_told_by_its_names_and_an_administrator_by_his_words() {
        assert_eq!(Notification::BAD_PEER_AS.to_string(), "OPEN message error: bad peer AS (2/2)");
        let shutdown = Notification::shutdown("maintenance until six");
        let told = "cease: administrative shutdown (6/2), \"maintenance until six\"";
        assert_eq!(shutdown.to_string(), told);
        assert_eq!(Notification::decode(&shutdown.encode()), Some(shutdown));
        let long = Notification::shutdown(&"é".repeat(200));
        assert_eq!((long.data[0], long.data.len()), (254, 255));
        let broken = Notification { data: vec![9, b'a', b'\n'], ..Notification::new(6, 2) };
        assert_eq!(broken.to_string(), "cease: administrative shutdown (6/2)");
        assert_eq!(Notification::new(99, 1).to_string(), "unknown error (99/1)");
    }
}
