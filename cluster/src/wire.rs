//! How objects travel: in JSON, which every API server speaks, or in Kubernetes' protobuf, where the kind has
//! a description of its messages and the server has protobuf. Both are read into the same types; which of
//! them it is, the answer says.
//!
//! A [`Codec`] has all that differs from kind to kind, so that the watcher is written, and compiled, once.

use std::fmt;
use std::time::SystemTime;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use weft_types::{Kind, Known, ObjectKey};

use crate::field::Field;
use crate::filter::WatchFilter;
use crate::message::{Fields, Message, Raw, Type, bytes_of};
use crate::resource::{
    ApiResource, METADATA, Metadata, Optional, Reading, WireObject, api, ends_initial_events, name, read,
    read_cut_off, read_item, resource_version, triggered,
};

mod answer;
mod frames;
mod protobuf;

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
            Encoding::Json => serde_json::from_slice(body).ok(),
            Encoding::Protobuf => message_of("Status", STATUS, body).ok().map(|(status, _)| status),
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
    has_protobuf: bool,
    list: fn(Encoding, &[u8], &WatchFilter) -> Result<Page, String>,
    event: fn(Encoding, &[u8], &WatchFilter) -> Result<Told, String>,
}

impl Codec {
    /// For the objects that a filter lets through.
    pub(crate) fn new<W: WireObject>(filter: WatchFilter) -> Codec {
        Codec {
            kind: W::Kind::KIND,
            optional: W::Kind::OPTIONAL,
            path: api(W::Kind::KIND).path(W::Kind::namespace(&filter)),
            label_selector: W::Kind::label_selector(&filter),
            field_selector: W::Kind::field_selector(&filter),
            page: W::Kind::PAGE,
            filter,
            has_protobuf: W::MESSAGE.is_some(),
            list: list::<W>,
            event: event::<W>,
        }
    }

    /// What an answer may be encoded as, as HTTP's `Accept` has it, the best first.
    pub(crate) fn accept(&self) -> &'static str {
        match self.has_protobuf {
            true => "application/vnd.kubernetes.protobuf, application/json",
            false => "application/json",
        }
    }

    /// Reads a list.
    pub(crate) fn list(&self, encoding: Encoding, body: &[u8]) -> Result<Page, String> {
        (self.list)(encoding, body, &self.filter)
    }

    /// Reads one frame of a watch.
    pub(crate) fn event(&self, encoding: Encoding, frame: &[u8]) -> Result<Told, String> {
        (self.event)(encoding, frame, &self.filter)
    }
}

/// A list as JSON has it.
#[derive(Debug, Deserialize)]
#[serde(default, bound = "W: Deserialize<'de>")]
struct List<W> {
    metadata: ListMetadata,
    items: Field<Vec<Field<W>>>,
}

impl<W> Default for List<W> {
    fn default() -> Self {
        List { metadata: ListMetadata::default(), items: Field::Absent }
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

/// An event of a watch as JSON has it.
#[derive(Debug, Deserialize)]
struct Event<T> {
    #[serde(rename = "type")]
    type_: String,
    object: T,
}

/// The object of a bookmark: it has nothing but metadata.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Bookmark {
    metadata: Field<Metadata>,
}

const BOOKMARK: Message = &[(1, "metadata", Type::Nested(METADATA))];

fn list<W: WireObject>(encoding: Encoding, body: &[u8], filter: &WatchFilter) -> Result<Page, String> {
    let (metadata, readings) = match encoding {
        Encoding::Json => {
            let list: List<W> = serde_json::from_slice(body).map_err(in_words)?;
            let items = list.items.or_default("items").map_err(in_words)?;
            (list.metadata, items.into_iter().map(|item| read_item(item, filter)).collect())
        }
        Encoding::Protobuf => items::<W>(body, filter)?,
    };
    let given = |field: Field<String>| field.or_nothing().filter(|text| !text.is_empty());
    Ok(Page { readings, token: given(metadata.continue_), version: given(metadata.resource_version) })
}

/// The metadata and the objects of a list in protobuf. Each object is read by itself, without a list of them
/// between.
fn items<W: WireObject>(body: &[u8], filter: &WatchFilter) -> Result<(ListMetadata, Vec<Reading>), String> {
    let list = unwrap(&format!("{}List", W::Kind::KIND.name()), body)?;
    let (mut metadata, mut readings) = (ListMetadata::default(), Vec::new());
    let mut fields = Fields(list);
    while let Some(field) = fields.next().map_err(in_words)? {
        match field {
            (1, Raw::Bytes(bytes)) => metadata = protobuf::read(LIST_METADATA, bytes)?.0,
            (2, Raw::Bytes(bytes)) => readings.push(match protobuf::read::<W>(described::<W>()?, bytes)? {
                (object, true) => read(object, filter),
                (object, false) => read_cut_off(&object),
            }),
            _ => {}
        }
    }
    Ok((metadata, readings))
}

fn event<W: WireObject>(encoding: Encoding, frame: &[u8], filter: &WatchFilter) -> Result<Told, String> {
    match encoding {
        Encoding::Json => {
            let event: Event<W> = serde_json::from_slice(frame).map_err(in_words)?;
            match event.type_.as_str() {
                "BOOKMARK" => Ok(bookmark(&again(frame)?)),
                "ERROR" => Ok(Told::Error(again(frame)?)),
                type_ => told(type_, event.object, true, filter),
            }
        }
        Encoding::Protobuf => {
            let type_ = String::from_utf8_lossy(bytes_of(frame, 1).map_err(in_words)?);
            let object = bytes_of(frame, 2).and_then(|object| bytes_of(object, 1)).map_err(in_words)?;
            let name = W::Kind::KIND.name();
            match &*type_ {
                "BOOKMARK" => Ok(bookmark(&message_of(name, BOOKMARK, object)?.0)),
                "ERROR" => Ok(Told::Error(message_of("Status", STATUS, object)?.0)),
                type_ => {
                    let (object, is_whole) = message_of::<W>(name, described::<W>()?, object)?;
                    told(type_, object, is_whole, filter)
                }
            }
        }
    }
}

/// What an event of one object tells.
fn told<W: WireObject>(type_: &str, object: W, is_whole: bool, filter: &WatchFilter) -> Result<Told, String> {
    let version = resource_version(object.metadata()).map(str::to_owned);
    match type_ {
        "ADDED" | "MODIFIED" => {
            let moment = triggered(object.metadata());
            let reading = if is_whole { read(object, filter) } else { read_cut_off(&object) };
            Ok(Told::Applied { reading, version, moment })
        }
        // A deleted object whose name is unreadable leaves only one way to know what is gone: to list.
        "DELETED" => {
            let key = W::Kind::object_key(name(&object).map_err(in_words)?);
            Ok(Told::Deleted { key, version })
        }
        other => Err(format!("an event of the type {other:?}, which is none")),
    }
}

/// The object of an event in JSON, as something else than an object of the kind.
fn again<T: DeserializeOwned>(frame: &[u8]) -> Result<T, String> {
    serde_json::from_slice(frame).map(|event: Event<T>| event.object).map_err(in_words)
}

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

/// Reads the message of an envelope; and whether all bytes that were read are well-formed.
fn message_of<T: DeserializeOwned>(kind: &str, message: Message, bytes: &[u8]) -> Result<(T, bool), String> {
    protobuf::read(message, unwrap(kind, bytes)?)
}

fn described<W: WireObject>() -> Result<Message, String> {
    W::MESSAGE.ok_or_else(|| "protobuf, which was not asked for".to_owned())
}

fn in_words(problem: impl fmt::Display) -> String {
    problem.to_string()
}

#[cfg(test)]
mod tests;
