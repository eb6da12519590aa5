//! Reads a message as JSON is read: into the same types, by the same names, with the same faults. So there is
//! one description of what is read of a kind, and one conversion.
//!
//! A field of another form than it should have spoils only itself. Bytes that cannot be taken apart end the
//! message that they are in, and the reading says so. Nothing is copied but what is kept.

use std::borrow::Cow;
use std::cell::Cell;

use jiff::Timestamp;

use crate::message::{Fields, Message, NotWellFormed, Raw, Type};

/// One value.
pub(crate) struct Value<'a> {
    type_: Type,
    raw: Raw<'a>,
    /// The number of its field, and the fields after it: where the rest of a list is.
    number: u64,
    rest: Fields<'a>,
    is_whole: &'a Cell<bool>,
}

impl<'a> Value<'a> {
    pub(super) fn new(type_: Type, raw: Raw<'a>, is_whole: &'a Cell<bool>) -> Self {
        Value { type_, raw, number: 0, rest: Fields(&[]), is_whole }
    }

    /// Whether all bytes that were read so far are well-formed.
    pub(super) fn is_whole(&self) -> &'a Cell<bool> {
        self.is_whole
    }

    /// What it holds, by its type.
    pub(super) fn content(self) -> Content<'a> {
        let Value { type_, raw, number, rest, is_whole } = self;
        let occurrences = Occurrences { number, first: Some(raw), rest, is_whole };
        match (type_, raw) {
            (Type::List(&type_), _) => Content::List(Elements { type_, occurrences }),
            (Type::Map, _) => Content::Map(Entries { occurrences }),
            (Type::Nested(message), Raw::Bytes(bytes)) => {
                Content::Message(Members { message, fields: Fields(bytes), seen: 0, is_whole })
            }
            (Type::Text, Raw::Bytes(bytes)) => match std::str::from_utf8(bytes) {
                Ok(text) => Content::Text(text.into()),
                Err(_) => Content::Bytes(bytes),
            },
            (Type::Number, Raw::Number(number)) => match number.cast_signed() {
                negative @ ..0 => Content::Signed(negative),
                _ => Content::Unsigned(number),
            },
            (Type::Flag, Raw::Number(number)) => Content::Flag(number != 0),
            // So Go writes no time at all.
            (Type::Time, Raw::Bytes([])) => Content::Nothing,
            (Type::Time, Raw::Bytes(bytes)) => match time(bytes) {
                Some(time) => Content::Text(time.to_string().into()),
                None => Content::Bytes(bytes),
            },
            // Of another form than it should have: whoever wants it says so.
            (_, Raw::Number(number)) => Content::Unsigned(number),
            (_, Raw::Bytes(bytes)) => Content::Bytes(bytes),
        }
    }
}

/// What a value holds.
pub(super) enum Content<'a> {
    Nothing,
    Flag(bool),
    Signed(i64),
    Unsigned(u64),
    Text(Cow<'a, str>),
    Bytes(&'a [u8]),
    List(Elements<'a>),
    Map(Entries<'a>),
    Message(Members<'a>),
}

/// Seconds and nanoseconds since 1970.
fn time(bytes: &[u8]) -> Option<Timestamp> {
    let (mut fields, mut seconds, mut nanoseconds) = (Fields(bytes), 0, 0);
    while let Some((number, raw)) = fields.next().ok()? {
        match (number, raw) {
            (1, Raw::Number(number)) => seconds = number.cast_signed(),
            (2, Raw::Number(number)) => nanoseconds = i32::try_from(number.cast_signed()).ok()?,
            _ => {}
        }
    }
    Timestamp::new(seconds, nanoseconds).ok()
}

/// The known fields of a message.
pub(super) struct Members<'a> {
    message: Message,
    fields: Fields<'a>,
    /// Those that came already, a bit each. Go writes none twice but those of lists and maps, which are read
    /// at the first.
    seen: u32,
    is_whole: &'a Cell<bool>,
}

impl<'a> Iterator for Members<'a> {
    type Item = (Cow<'a, str>, Value<'a>);

    fn next(&mut self) -> Option<(Cow<'a, str>, Value<'a>)> {
        while let Some((number, raw)) = or_end(self.fields.next(), self.is_whole) {
            let known = self.message.iter().position(|(known, _, _)| *known == number);
            let Some(place) = known.filter(|place| self.seen & 1 << place == 0) else { continue };
            self.seen |= 1 << place;
            let (_, name, type_) = self.message[place];
            let value = Value { type_, raw, number, rest: self.fields, is_whole: self.is_whole };
            return Some((name.into(), value));
        }
        None
    }
}

/// All values of one field.
struct Occurrences<'a> {
    number: u64,
    first: Option<Raw<'a>>,
    rest: Fields<'a>,
    is_whole: &'a Cell<bool>,
}

impl<'a> Occurrences<'a> {
    fn next(&mut self) -> Option<Raw<'a>> {
        if let Some(first) = self.first.take() {
            return Some(first);
        }
        while let Some((number, raw)) = or_end(self.rest.next(), self.is_whole) {
            if number == self.number {
                return Some(raw);
            }
        }
        None
    }
}

/// What came, if it is well-formed; an end that is remembered if it is not.
fn or_end<T>(next: Result<Option<T>, NotWellFormed>, is_whole: &Cell<bool>) -> Option<T> {
    next.unwrap_or_else(|NotWellFormed| {
        is_whole.set(false);
        None
    })
}

/// The elements of a list.
pub(super) struct Elements<'a> {
    type_: Type,
    occurrences: Occurrences<'a>,
}

impl<'a> Iterator for Elements<'a> {
    type Item = Value<'a>;

    fn next(&mut self) -> Option<Value<'a>> {
        let raw = self.occurrences.next()?;
        Some(Value::new(self.type_, raw, self.occurrences.is_whole))
    }
}

/// The entries of a map: each a message of a key (1) and a value (2).
pub(super) struct Entries<'a> {
    occurrences: Occurrences<'a>,
}

impl<'a> Iterator for Entries<'a> {
    type Item = (Cow<'a, str>, Value<'a>);

    fn next(&mut self) -> Option<(Cow<'a, str>, Value<'a>)> {
        let is_whole = self.occurrences.is_whole;
        let Raw::Bytes(entry) = self.occurrences.next()? else {
            is_whole.set(false);
            return None;
        };
        let (mut fields, mut key, mut value) = (Fields(entry), Cow::Borrowed(""), Raw::Bytes(&[]));
        while let Some((number, raw)) = or_end(fields.next(), is_whole) {
            match (number, raw) {
                (1, Raw::Bytes(bytes)) => key = String::from_utf8_lossy(bytes),
                (2, raw) => value = raw,
                _ => {}
            }
        }
        Some((key, Value::new(Type::Text, value, is_whole)))
    }
}
