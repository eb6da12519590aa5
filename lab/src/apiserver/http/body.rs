//! The body of a request, read by its content type.

use axum::http::{HeaderMap, header};
use serde_json::Value;

use crate::apiserver::error::{ApiError, Result};
use crate::apiserver::object::text;
use crate::apiserver::patch::Patch;
use crate::apiserver::registry::{DeleteOptions, Preconditions, Propagation};

use super::parameters::Parameters;
use super::protobuf;

const PATCH_TYPES: &str = "application/json-patch+json, application/merge-patch+json, \
                           application/strategic-merge-patch+json, application/apply-patch+yaml";

const OBJECT_TYPES: &str = "application/json, application/yaml, application/vnd.kubernetes.protobuf";

/// Reads an object.
pub(super) fn object(headers: &HeaderMap, bytes: &[u8]) -> Result<Value> {
    match media_type(headers) {
        "" | "application/json" => json(bytes),
        "application/yaml" => yaml(bytes),
        "application/vnd.kubernetes.protobuf" => protobuf::read(bytes),
        _ => Err(ApiError::UnsupportedMediaType(OBJECT_TYPES)),
    }
}

/// Reads a patch.
pub(super) fn patch(headers: &HeaderMap, bytes: &[u8]) -> Result<Patch> {
    match media_type(headers) {
        "application/json-patch+json" => {
            let operations = serde_json::from_slice(bytes);
            operations.map(Patch::Json).map_err(|error| ApiError::BadRequest(error.to_string()))
        }
        "application/merge-patch+json" => json(bytes).map(Patch::Merge),
        "application/strategic-merge-patch+json" => json(bytes).map(Patch::Strategic),
        "application/apply-patch+yaml" => yaml(bytes).map(Patch::Apply),
        _ => Err(ApiError::UnsupportedMediaType(PATCH_TYPES)),
    }
}

/// Reads what a delete asks for, from the body and the query.
pub(super) fn delete_options(
    headers: &HeaderMap,
    bytes: &[u8],
    parameters: &Parameters,
) -> Result<DeleteOptions> {
    let body = if bytes.is_empty() { Value::Null } else { object(headers, bytes)? };
    let grace = parameters.number("gracePeriodSeconds")?.and_then(|seconds| i64::try_from(seconds).ok());
    let policy = Some(text(&body["propagationPolicy"])).filter(|policy| !policy.is_empty());
    let policy = policy.unwrap_or_else(|| parameters.text("propagationPolicy"));
    let orphan = body["orphanDependents"] == true || parameters.flag("orphanDependents");
    let propagation = match policy {
        "" if orphan => Propagation::Orphan,
        "" | "Background" => Propagation::Background,
        "Foreground" => Propagation::Foreground,
        "Orphan" => Propagation::Orphan,
        other => return Err(ApiError::BadRequest(format!("propagationPolicy: {other:?} is none"))),
    };
    let preconditions = Preconditions {
        uid: text(&body["preconditions"]["uid"]).to_owned(),
        resource_version: text(&body["preconditions"]["resourceVersion"]).to_owned(),
    };
    let dry_run = parameters.dry_run()? || body["dryRun"][0] == "All";
    Ok(DeleteOptions {
        grace: body["gracePeriodSeconds"].as_i64().or(grace),
        propagation,
        preconditions,
        dry_run,
    })
}

fn media_type(headers: &HeaderMap) -> &str {
    let value = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    value.split(';').next().unwrap_or_default().trim()
}

fn json(bytes: &[u8]) -> Result<Value> {
    serde_json::from_slice(bytes)
        .map_err(|error| ApiError::BadRequest(format!("the body is no JSON: {error}")))
}

/// JSON is YAML, and what most clients send as YAML; it is read faster as what it is.
fn yaml(bytes: &[u8]) -> Result<Value> {
    json(bytes).or_else(|_| {
        serde_saphyr::from_slice(bytes)
            .map_err(|error| ApiError::BadRequest(format!("the body is no YAML: {error}")))
    })
}
