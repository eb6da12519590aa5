//! Reads a message as JSON is read: into the same types, by the same names, with the same faults. So there is
//! one description of what is read of a kind, and one conversion.
//!
//! A field of another form than it should have spoils only itself. Bytes that cannot be taken apart end the
//! message that they are in, and the reading says so. Nothing is copied but what is kept.

use std::borrow::Cow;
use std::cell::Cell;

use jiff::Timestamp;
use serde::de::value::{BorrowedStrDeserializer, CowStrDeserializer, Error};
use serde::de::{DeserializeOwned, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde::forward_to_deserialize_any;

use crate::message::{Fields, Message, NotWellFormed, Raw, Type};

/// What a message says, and whether all bytes that were read are well-formed.
pub(super) fn read<T: DeserializeOwned>(message: Message, bytes: &[u8]) -> Result<(T, bool), String> {
    let is_whole = Cell::new(true);
    let value = Value::new(Type::Nested(message), Raw::Bytes(bytes), &is_whole);
    let value = T::deserialize(value).map_err(|error| error.to_string())?;
    Ok((value, is_whole.get()))
}

/// One value.
struct Value<'a> {
    type_: Type,
    raw: Raw<'a>,
    /// The number of its field, and the fields after it: where the rest of a list is.
    number: u64,
    rest: Fields<'a>,
    is_whole: &'a Cell<bool>,
}

impl<'a> Value<'a> {
    fn new(type_: Type, raw: Raw<'a>, is_whole: &'a Cell<bool>) -> Self {
        Value { type_, raw, number: 0, rest: Fields(&[]), is_whole }
    }
}

impl<'de> Deserializer<'de> for Value<'de> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let Value { type_, raw, number, rest, is_whole } = self;
        let occurrences = Occurrences { number, first: Some(raw), rest, is_whole };
        match (type_, raw) {
            (Type::List(&type_), _) => visitor.visit_seq(Elements { type_, occurrences }),
            (Type::Map, _) => visitor.visit_map(Entries { occurrences, value: Raw::Bytes(&[]) }),
            (Type::Nested(message), Raw::Bytes(bytes)) => {
                visitor.visit_map(Members { message, fields: Fields(bytes), seen: 0, value: None, is_whole })
            }
            (Type::Text, Raw::Bytes(bytes)) => match std::str::from_utf8(bytes) {
                Ok(text) => visitor.visit_borrowed_str(text),
                Err(_) => visitor.visit_bytes(bytes),
            },
            (Type::Number, Raw::Number(number)) => match number.cast_signed() {
                negative @ ..0 => visitor.visit_i64(negative),
                _ => visitor.visit_u64(number),
            },
            (Type::Flag, Raw::Number(number)) => visitor.visit_bool(number != 0),
            // So Go writes no time at all.
            (Type::Time, Raw::Bytes([])) => visitor.visit_unit(),
            (Type::Time, Raw::Bytes(bytes)) => match time(bytes) {
                Some(time) => visitor.visit_string(time.to_string()),
                None => visitor.visit_bytes(bytes),
            },
            // Of another form than it should have: whoever wants it says so.
            (_, Raw::Number(number)) => visitor.visit_u64(number),
            (_, Raw::Bytes(bytes)) => visitor.visit_bytes(bytes),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_some(self)
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_unit()
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct
        newtype_struct seq tuple tuple_struct map struct enum identifier
    }
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
struct Members<'a> {
    message: Message,
    fields: Fields<'a>,
    /// Those that came already, a bit each. Go writes none twice but those of lists and maps, which are read
    /// at the first.
    seen: u32,
    value: Option<Value<'a>>,
    is_whole: &'a Cell<bool>,
}

impl<'a> MapAccess<'a> for Members<'a> {
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'a>>(&mut self, seed: K) -> Result<Option<K::Value>, Error> {
        while let Some((number, raw)) = or_end(self.fields.next(), self.is_whole) {
            let known = self.message.iter().position(|(known, _, _)| *known == number);
            let Some(place) = known.filter(|place| self.seen & 1 << place == 0) else { continue };
            self.seen |= 1 << place;
            let (_, name, type_) = self.message[place];
            self.value = Some(Value { type_, raw, number, rest: self.fields, is_whole: self.is_whole });
            return seed.deserialize(BorrowedStrDeserializer::new(name)).map(Some);
        }
        Ok(None)
    }

    fn next_value_seed<V: DeserializeSeed<'a>>(&mut self, seed: V) -> Result<V::Value, Error> {
        let nothing = || Value::new(Type::Text, Raw::Bytes(&[]), self.is_whole);
        seed.deserialize(self.value.take().unwrap_or_else(nothing))
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
struct Elements<'a> {
    type_: Type,
    occurrences: Occurrences<'a>,
}

impl<'a> SeqAccess<'a> for Elements<'a> {
    type Error = Error;

    fn next_element_seed<T: DeserializeSeed<'a>>(&mut self, seed: T) -> Result<Option<T::Value>, Error> {
        let next = self.occurrences.next();
        let value = next.map(|raw| Value::new(self.type_, raw, self.occurrences.is_whole));
        value.map(|value| seed.deserialize(value)).transpose()
    }
}

/// The entries of a map: each a message of a key (1) and a value (2).
struct Entries<'a> {
    occurrences: Occurrences<'a>,
    value: Raw<'a>,
}

impl<'a> MapAccess<'a> for Entries<'a> {
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'a>>(&mut self, seed: K) -> Result<Option<K::Value>, Error> {
        let is_whole = self.occurrences.is_whole;
        let Some(raw) = self.occurrences.next() else { return Ok(None) };
        let Raw::Bytes(entry) = raw else {
            is_whole.set(false);
            return Ok(None);
        };
        let (mut fields, mut key) = (Fields(entry), Cow::Borrowed(""));
        self.value = Raw::Bytes(&[]);
        while let Some((number, raw)) = or_end(fields.next(), is_whole) {
            match (number, raw) {
                (1, Raw::Bytes(bytes)) => key = String::from_utf8_lossy(bytes),
                (2, raw) => self.value = raw,
                _ => {}
            }
        }
        seed.deserialize(CowStrDeserializer::new(key)).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'a>>(&mut self, seed: V) -> Result<V::Value, Error> {
        seed.deserialize(Value::new(Type::Text, self.value, self.occurrences.is_whole))
    }
}
