//! How objects travel: in JSON, which every API server speaks, or in Kubernetes' protobuf, where the kind has
//! a description of its messages and the server has protobuf. Both are read into the same types; which of
//! them it is, the answer says.
//!
//! A [`Codec`] has all that differs from kind to kind, so that the watcher is written, and compiled, once.

use std::cell::Cell;
use std::fmt;
use std::time::SystemTime;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use weft_types::{Kind, ObjectKey};

use crate::field::Field;
use crate::filter::WatchFilter;
use crate::message::{Fields, Message, Raw, Type, bytes_of};
use crate::resource::{
    ApiResource, METADATA, Malformed, Metadata, Optional, Read, Reader, Reading, WireObject, api,
    ends_initial_events, read_item, read_source, resource_version,
};
use crate::source::{Json, Source};

mod answer;
mod frames;

pub(crate) use answer::{Answer, Refusal, ask};
pub(crate) use frames::{Broken, Frames};

/// How an answer is encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Encoding {
    Json,
    Protobuf,
}

/// The media type of Kubernetes' protobuf (kubernetes.io "API Concepts", Protobuf encoding).
const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";

impl Encoding {
    /// The encoding that a media type names, whatever its parameters. What is not protobuf is read as JSON.
    fn of(media_type: &str) -> Encoding {
        let name = media_type.split(';').next().unwrap_or_default().trim();
        if name.eq_ignore_ascii_case(PROTOBUF) { Encoding::Protobuf } else { Encoding::Json }
    }
}

/// A list of objects, or one page of it.
#[derive(Debug)]
pub(crate) struct Page {
    pub(crate) readings: Vec<Reading>,
    /// What asks for the next page.
    pub(crate) token: Option<String>,
    /// The version that the list is of.
    pub(crate) version: Option<String>,
}

/// What an event of a watch tells.
#[derive(Debug, PartialEq)]
#[expect(clippy::large_enum_variant, reason = "nearly all are of the largest")]
pub(crate) enum Told {
    /// An object came or changed.
    Applied { reading: Reading, version: Option<String>, moment: Option<SystemTime> },
    /// An object went.
    Deleted { key: ObjectKey, version: Option<String> },
    /// The watch is at this version. The first one after the initial events says that these are complete.
    Bookmark { version: Option<String>, ends_initial_events: bool },
    /// The watch is over.
    Error(Status),
}

/// A `Status` of the API: why something is refused.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(crate) struct Status {
    code: Field<u16>,
    message: Field<String>,
}

const STATUS: Message = &[(3, "message", Type::Text), (6, "code", Type::Number)];

impl Status {
    /// The code, as HTTP has it.
    pub(crate) fn code(&self) -> Option<u16> {
        self.code.by_ref().or_nothing().copied()
    }

    /// What the server says.
    pub(crate) fn message(&self) -> Option<&str> {
        self.message.by_ref().or_nothing().map(String::as_str).filter(|text| !text.is_empty())
    }

    /// Reads the body of an answer that refuses; whatever else it may be is no fault.
    fn read(encoding: Encoding, body: &[u8]) -> Status {
        let read = match encoding {
            Encoding::Json => Json::parse(body).and_then(|json| Source::Json(json).read()),
            Encoding::Protobuf => read_message("Status", STATUS, body),
        };
        read.unwrap_or_default()
    }
}

/// How one kind is asked for and read.
#[derive(Clone, Debug)]
pub(crate) struct Codec {
    pub(crate) kind: Kind,
    pub(crate) optional: Optional,
    pub(crate) path: String,
    pub(crate) label_selector: Option<String>,
    pub(crate) field_selector: Option<String>,
    /// Objects per page of a list.
    pub(crate) page: u32,
    filter: WatchFilter,
    /// The object in protobuf, where it has it.
    message: Option<Message>,
    reader: Reader,
}

impl Codec {
    /// For the objects that a filter lets through.
    pub(crate) fn new<K: ApiResource>(filter: WatchFilter) -> Codec {
        Codec {
            kind: K::KIND,
            optional: K::OPTIONAL,
            path: api(K::KIND).path(K::namespace(&filter)),
            label_selector: K::label_selector(&filter),
            field_selector: K::field_selector(&filter),
            page: K::PAGE,
            filter,
            message: K::Wire::MESSAGE,
            reader: read_source::<K::Wire>,
        }
    }

    /// What an answer may be encoded as, as HTTP's `Accept` has it, the best first.
    pub(crate) fn accept(&self) -> &'static str {
        match self.message.is_some() {
            true => "application/vnd.kubernetes.protobuf, application/json",
            false => "application/json",
        }
    }

    /// Reads a list.
    pub(crate) fn list(&self, encoding: Encoding, body: &[u8]) -> Result<Page, String> {
        let (metadata, readings) = match encoding {
            Encoding::Json => self.json_list(body)?,
            Encoding::Protobuf => self.protobuf_list(body)?,
        };
        let given = |field: Field<String>| field.or_nothing().filter(|text| !text.is_empty());
        Ok(Page { readings, token: given(metadata.continue_), version: given(metadata.resource_version) })
    }

    fn json_list(&self, body: &[u8]) -> Result<(ListMetadata, Vec<Reading>), String> {
        let mut list = Json::parse(body)?;
        let metadata: Field<ListMetadata> = Source::Json(list.take("metadata")).read()?;
        let items = match list.take("items") {
            Json::List(items) => items,
            Json::Null => Vec::new(),
            _ => return Err("items: is no list".to_owned()),
        };
        let readings = items.into_iter().map(|item| self.item(Source::Json(item))).collect();
        Ok((metadata.or_nothing().unwrap_or_default(), readings))
    }

    /// Each object is read by itself, without a list of them between.
    fn protobuf_list(&self, body: &[u8]) -> Result<(ListMetadata, Vec<Reading>), String> {
        let message = self.message()?;
        let list = unwrap(&format!("{}List", self.kind.name()), body)?;
        let (mut metadata, mut readings) = (ListMetadata::default(), Vec::new());
        let mut fields = Fields(list);
        while let Some(field) = fields.next().map_err(in_words)? {
            let is_whole = Cell::new(true);
            match field {
                (1, Raw::Bytes(bytes)) => {
                    metadata = Source::message(LIST_METADATA, bytes, &is_whole).read()?;
                }
                (2, Raw::Bytes(bytes)) => {
                    readings.push(self.item(Source::message(message, bytes, &is_whole)));
                }
                _ => {}
            }
        }
        Ok((metadata, readings))
    }

    fn item(&self, item: Source<'_>) -> Reading {
        read_item(self.kind, self.reader, item, &self.filter)
    }

    /// Reads one frame of a watch.
    pub(crate) fn event(&self, encoding: Encoding, frame: &[u8]) -> Result<Told, String> {
        match encoding {
            Encoding::Json => {
                let mut event = Json::parse(frame)?;
                let type_: String = Source::Json(event.take("type")).read()?;
                let object = Source::Json(event.take("object"));
                match type_.as_str() {
                    "BOOKMARK" => Ok(bookmark(&object.read()?)),
                    "ERROR" => Ok(Told::Error(object.read()?)),
                    type_ => self.told(type_, object),
                }
            }
            Encoding::Protobuf => {
                let type_ = String::from_utf8_lossy(bytes_of(frame, 1).map_err(in_words)?);
                let object = bytes_of(frame, 2).and_then(|object| bytes_of(object, 1)).map_err(in_words)?;
                let name = self.kind.name();
                match &*type_ {
                    "BOOKMARK" => Ok(bookmark(&read_message(name, BOOKMARK, object)?)),
                    "ERROR" => Ok(Told::Error(read_message("Status", STATUS, object)?)),
                    type_ => {
                        let (message, is_whole) = (self.message()?, Cell::new(true));
                        self.told(type_, Source::message(message, unwrap(name, object)?, &is_whole))
                    }
                }
            }
        }
    }

    /// What an event of one object tells.
    fn told(&self, type_: &str, object: Source<'_>) -> Result<Told, String> {
        let Read { reading, version, triggered } = (self.reader)(object, &self.filter)?;
        match (type_, reading) {
            ("ADDED" | "MODIFIED", reading) => Ok(Told::Applied { reading, version, moment: triggered }),
            // A deleted object whose name is unreadable leaves only one way to know what is gone: to list.
            ("DELETED", Reading::Malformed(Malformed { key: None, faults, .. })) => Err(faults.to_string()),
            ("DELETED", reading) => {
                let key = reading.key().ok_or("an object without a name")?;
                Ok(Told::Deleted { key, version })
            }
            (other, _) => Err(format!("an event of the type {other:?}, which is none")),
        }
    }

    fn message(&self) -> Result<Message, String> {
        self.message.ok_or_else(|| "protobuf, which was not asked for".to_owned())
    }
}

/// `metadata` of a list.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct ListMetadata {
    resource_version: Field<String>,
    #[serde(rename = "continue")]
    continue_: Field<String>,
}

const LIST_METADATA: Message = &[(2, "resourceVersion", Type::Text), (3, "continue", Type::Text)];

/// The object of a bookmark: it has nothing but metadata.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Bookmark {
    metadata: Field<Metadata>,
}

const BOOKMARK: Message = &[(1, "metadata", Type::Nested(METADATA))];

fn bookmark(bookmark: &Bookmark) -> Told {
    let version = resource_version(&bookmark.metadata).map(str::to_owned);
    Told::Bookmark { version, ends_initial_events: ends_initial_events(&bookmark.metadata) }
}

/// What every object in protobuf begins with.
const MAGIC: &[u8] = b"k8s\0";

/// The message within the envelope (`runtime.Unknown`), which must be of this kind.
fn unwrap<'a>(kind: &str, bytes: &'a [u8]) -> Result<&'a [u8], String> {
    let envelope =
        bytes.strip_prefix(MAGIC).ok_or("no protobuf of Kubernetes: it does not begin with k8s")?;
    let field = |message, number| bytes_of(message, number).map_err(in_words);
    let found = field(field(envelope, 1)?, 2)?;
    if found != kind.as_bytes() {
        return Err(format!("a {} where a {kind} is expected", String::from_utf8_lossy(found)));
    }
    match field(envelope, 3)? {
        [] => field(envelope, 2),
        encoding => Err(format!("an unknown encoding: {}", String::from_utf8_lossy(encoding))),
    }
}

/// Reads the message of an envelope, as far as it is well-formed.
fn read_message<T: DeserializeOwned>(kind: &str, message: Message, bytes: &[u8]) -> Result<T, String> {
    Source::message(message, unwrap(kind, bytes)?, &Cell::new(true)).read()
}

fn in_words(problem: impl fmt::Display) -> String {
    problem.to_string()
}

#[cfg(test)]
mod tests;
