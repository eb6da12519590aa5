//! What objects are read from. There is one type for both encodings, so that the code that reads a kind, which
//! is long, is compiled once.

use std::borrow::Cow;
use std::cell::Cell;
use std::vec;

use serde::de::value::{CowStrDeserializer, Error};
use serde::de::{DeserializeOwned, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde::forward_to_deserialize_any;

use crate::message::{Message, Raw, Type};

mod json;
mod protobuf;

pub(crate) use json::Json;
use protobuf::Value;

/// One value.
pub(crate) enum Source<'a> {
    Json(Json<'a>),
    Protobuf(Value<'a>),
}

impl<'a> Source<'a> {
    /// A message. What is not well-formed in it is seen while it is read.
    pub(crate) fn message(message: Message, bytes: &'a [u8], is_whole: &'a Cell<bool>) -> Source<'a> {
        Source::Protobuf(Value::new(Type::Nested(message), Raw::Bytes(bytes), is_whole))
    }

    /// Where is told whether all bytes that were read are well-formed; JSON that is not is nothing at all.
    pub(crate) fn is_whole(&self) -> Option<&'a Cell<bool>> {
        match self {
            Source::Json(_) => None,
            Source::Protobuf(value) => Some(value.is_whole()),
        }
    }

    /// Reads it.
    pub(crate) fn read<T: DeserializeOwned>(self) -> Result<T, String> {
        T::deserialize(self).map_err(|error| error.to_string())
    }

    fn content(self) -> Content<'a> {
        match self {
            Source::Json(json) => match json {
                Json::Null => Content::Nothing,
                Json::Flag(flag) => Content::Flag(flag),
                Json::Signed(number) => Content::Signed(number),
                Json::Unsigned(number) => Content::Unsigned(number),
                Json::Float(number) => Content::Float(number),
                Json::Text(text) => Content::Text(text),
                Json::List(list) => Content::List(Elements::Json(list.into_iter())),
                Json::Map(members) => Content::Map(Entries::Json(members.into_iter())),
            },
            Source::Protobuf(value) => match value.content() {
                protobuf::Content::Nothing => Content::Nothing,
                protobuf::Content::Flag(flag) => Content::Flag(flag),
                protobuf::Content::Signed(number) => Content::Signed(number),
                protobuf::Content::Unsigned(number) => Content::Unsigned(number),
                protobuf::Content::Text(text) => Content::Text(text),
                protobuf::Content::Bytes(bytes) => Content::Bytes(bytes),
                protobuf::Content::List(list) => Content::List(Elements::Protobuf(list)),
                protobuf::Content::Map(entries) => Content::Map(Entries::Map(entries)),
                protobuf::Content::Message(members) => Content::Map(Entries::Message(members)),
            },
        }
    }
}

/// What a value holds, whatever its encoding.
enum Content<'a> {
    Nothing,
    Flag(bool),
    Signed(i64),
    Unsigned(u64),
    Float(f64),
    Text(Cow<'a, str>),
    Bytes(&'a [u8]),
    List(Elements<'a>),
    Map(Entries<'a>),
}

impl<'de> Deserializer<'de> for Source<'de> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.content() {
            Content::Nothing => visitor.visit_unit(),
            Content::Flag(flag) => visitor.visit_bool(flag),
            Content::Signed(number) => visitor.visit_i64(number),
            Content::Unsigned(number) => visitor.visit_u64(number),
            Content::Float(number) => visitor.visit_f64(number),
            Content::Text(Cow::Borrowed(text)) => visitor.visit_borrowed_str(text),
            Content::Text(Cow::Owned(text)) => visitor.visit_string(text),
            Content::Bytes(bytes) => visitor.visit_bytes(bytes),
            Content::List(elements) => visitor.visit_seq(elements),
            Content::Map(entries) => visitor.visit_map(Members { entries, value: Source::Json(Json::Null) }),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self {
            Source::Json(Json::Null) => visitor.visit_none(),
            some => visitor.visit_some(some),
        }
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_unit()
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct
        newtype_struct seq tuple tuple_struct map struct enum identifier
    }
}

/// The elements of a list.
enum Elements<'a> {
    Json(vec::IntoIter<Json<'a>>),
    Protobuf(protobuf::Elements<'a>),
}

impl<'a> SeqAccess<'a> for Elements<'a> {
    type Error = Error;

    fn next_element_seed<T: DeserializeSeed<'a>>(&mut self, seed: T) -> Result<Option<T::Value>, Error> {
        let next = match self {
            Elements::Json(list) => list.next().map(Source::Json),
            Elements::Protobuf(list) => list.next().map(Source::Protobuf),
        };
        next.map(|value| seed.deserialize(value)).transpose()
    }
}

/// What a map consists of.
enum Entries<'a> {
    Json(vec::IntoIter<(Cow<'a, str>, Json<'a>)>),
    Message(protobuf::Members<'a>),
    Map(protobuf::Entries<'a>),
}

/// The members of a map, of which one was named and is still to be read.
struct Members<'a> {
    entries: Entries<'a>,
    value: Source<'a>,
}

impl<'a> MapAccess<'a> for Members<'a> {
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'a>>(&mut self, seed: K) -> Result<Option<K::Value>, Error> {
        let next = match &mut self.entries {
            Entries::Json(members) => members.next().map(|(key, value)| (key, Source::Json(value))),
            Entries::Message(members) => members.next().map(|(key, value)| (key, Source::Protobuf(value))),
            Entries::Map(entries) => entries.next().map(|(key, value)| (key, Source::Protobuf(value))),
        };
        let Some((key, value)) = next else { return Ok(None) };
        self.value = value;
        seed.deserialize(CowStrDeserializer::new(key)).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'a>>(&mut self, seed: V) -> Result<V::Value, Error> {
        seed.deserialize(std::mem::replace(&mut self.value, Source::Json(Json::Null)))
    }
}
