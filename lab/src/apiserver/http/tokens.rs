//! `POST` of a TokenRequest to a ServiceAccount's subresource `token`, and of a TokenReview.

use std::sync::PoisonError;

use axum::http::request::Parts;
use axum::http::{Method, StatusCode};
use axum::response::Response;
use jiff::Timestamp;
use uuid::Uuid;

use super::path::Place;
use super::{Door, body};
use crate::apiserver::error::{ApiError, Result};
use crate::apiserver::object;
use crate::apiserver::registry::Target;
use crate::apiserver::resource::named;

/// Makes a token of the ServiceAccount of that path.
pub(super) fn request(door: &Door, parts: &Parts, place: &Place, bytes: &[u8]) -> Result<Response> {
    let request = posted(parts, bytes)?;
    let account = door.cluster.read(|registry| registry.get(&place.target).cloned())?;
    let secret = format!("{}{}", Uuid::new_v4().simple(), Uuid::new_v4().simple());
    let mut tokens = door.tokens.lock().unwrap_or_else(PoisonError::into_inner);
    let answer = tokens.issue(&account, &request, &secret, Timestamp::now())?;
    Ok(super::json(StatusCode::CREATED, &answer))
}

/// Says whose a token is.
pub(super) fn review(door: &Door, parts: &Parts, bytes: &[u8]) -> Result<Response> {
    let review = posted(parts, bytes)?;
    let uid_of = |namespace: &str, name: &str| {
        let target = Target {
            resource: named("serviceaccounts"),
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        };
        door.cluster
            .read(|registry| registry.get(&target).ok().map(|account| object::uid(account).to_owned()))
    };
    let tokens = door.tokens.lock().unwrap_or_else(PoisonError::into_inner);
    Ok(super::json(StatusCode::CREATED, &tokens.review(&review, Timestamp::now(), uid_of)))
}

fn posted(parts: &Parts, bytes: &[u8]) -> Result<serde_json::Value> {
    match parts.method {
        Method::POST => body::object(&parts.headers, bytes),
        _ => Err(ApiError::MethodNotAllowed),
    }
}
