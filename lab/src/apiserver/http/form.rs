//! The form in which a client wants its objects: whole, their metadata alone, or as rows of a table.

use axum::http::{HeaderMap, header};
use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Value, json};

use crate::apiserver::registry::List;
use crate::apiserver::resource::Resource;
use crate::apiserver::table;

use super::parameters::Parameters;

/// A form of answering objects (the `as` of an `Accept` header).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Form {
    Object,
    PartialMetadata,
    Table { version: &'static str, include: table::Include },
}

impl Form {
    /// The first form of the header that the server can write.
    pub(super) fn of(headers: &HeaderMap, parameters: &Parameters) -> Self {
        let accept = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
        accept.split(',').find_map(|clause| form(clause, parameters)).unwrap_or(Form::Object)
    }

    /// One object in this form. `now` is the time that ages are counted to, in seconds of the Unix epoch.
    pub(super) fn object(&self, resource: &Resource, object: &Value, now: i64) -> Value {
        match self {
            Form::Object => object.clone(),
            Form::PartialMetadata => table::partial(object),
            Form::Table { version, include } => {
                table::table(resource, std::iter::once(object), version, *include, now)
            }
        }
    }

    /// A list in this form, as JSON text.
    pub(super) fn list(&self, resource: &Resource, list: &List, now: i64) -> serde_json::Result<Vec<u8>> {
        let objects = list.items.iter().map(|object| &**object);
        let metadata = list_metadata(list);
        match self {
            Form::Object => serde_json::to_vec(&ListView {
                api_version: resource.api_version,
                kind: format!("{}List", resource.kind),
                metadata,
                items: objects.collect(),
            }),
            Form::PartialMetadata => serde_json::to_vec(&json!({
                "apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadataList",
                "metadata": metadata, "items": objects.map(table::partial).collect::<Vec<_>>(),
            })),
            Form::Table { version, include } => {
                let mut table = table::table(resource, objects, version, *include, now);
                table["metadata"] = metadata;
                serde_json::to_vec(&table)
            }
        }
    }
}

fn form(clause: &str, parameters: &Parameters) -> Option<Form> {
    let mut parts = clause.split(';').map(str::trim);
    if !matches!(parts.next()?, "application/json" | "*/*" | "application/*") {
        return None;
    }
    let parts: Vec<&str> = parts.collect();
    let has = |part: &str| parts.contains(&part);
    let version = if has("v=v1beta1") { "v1beta1" } else { "v1" };
    match parts.iter().find_map(|part| part.strip_prefix("as=")) {
        None => Some(Form::Object),
        Some("Table") => {
            let include = table::Include::of(parameters.text("includeObject"));
            Some(Form::Table { version, include })
        }
        Some("PartialObjectMetadata" | "PartialObjectMetadataList") => Some(Form::PartialMetadata),
        Some(_) => None,
    }
}

fn list_metadata(list: &List) -> Value {
    let mut metadata = json!({"resourceVersion": list.version.to_string()});
    if let Some(token) = &list.continue_token {
        metadata["continue"] = json!(token);
        metadata["remainingItemCount"] = json!(list.remaining);
    }
    metadata
}

/// A list around objects that are not copied for it: there may be ten thousand.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ListView<'a> {
    api_version: &'a str,
    kind: String,
    metadata: Value,
    items: Vec<&'a Value>,
}

pub(super) fn now() -> i64 {
    Timestamp::now().as_second()
}
