//! The door: HTTP requests in, JSON out. Says which verb a request is; what the verb does is the registry's.

mod body;
mod form;
mod logs;
mod objects;
mod parameters;
mod path;
mod protobuf;
mod proxy;
mod tokens;
mod watch;

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use self::path::Route;
use super::cluster::Cluster;
use super::discovery;
use super::error::{ApiError, Result};
use super::openapi;
use super::tokens::Tokens;
use crate::names::LabName;
use crate::state::LabDir;

/// The most bytes that the body of a request may have, as etcd and the real server take (about 3 MiB).
const BODY_LIMIT: usize = 3 << 20;

/// What every request needs.
#[derive(Clone, Debug)]
pub(crate) struct Door {
    pub(crate) cluster: Arc<Cluster>,
    /// Ends the watches when the server stops.
    pub(crate) shutdown: CancellationToken,
    /// How long a watch that asked for bookmarks is quiet before it gets one.
    pub(crate) bookmark_interval: std::time::Duration,
    /// Whose nodes `proxy` leads to.
    pub(crate) lab: Option<LabName>,
    /// Where pods' logs lie.
    pub(crate) pods: Option<LabDir>,
    /// The tokens that were made of ServiceAccounts.
    pub(crate) tokens: Arc<Mutex<Tokens>>,
}

/// The service for every path.
pub(crate) fn router(door: Door) -> Router {
    Router::new().fallback(handle).with_state(door)
}

async fn handle(State(door): State<Door>, request: Request) -> Response {
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let answer = match answer(&door, request).await {
        Ok(response) => response,
        Err(error) => refusal(&error),
    };
    tracing::debug!(%method, path, status = answer.status().as_u16(), "answered");
    answer
}

async fn answer(door: &Door, request: Request) -> Result<Response> {
    let (parts, body) = request.into_parts();
    match path::route(parts.uri.path()).ok_or(ApiError::NoSuchPath)? {
        Route::Health => Ok("ok".into_response()),
        Route::Version => Ok(json(StatusCode::OK, &discovery::version())),
        Route::Groups => Ok(json(StatusCode::OK, &discovery::groups())),
        Route::CoreVersions => Ok(json(StatusCode::OK, &discovery::core_versions())),
        Route::Group(name) => Ok(json(StatusCode::OK, &discovery::group(&name)?)),
        Route::Resources { group, version } => {
            Ok(json(StatusCode::OK, &discovery::resources(&group, &version)?))
        }
        Route::OpenApiV2 => Ok(openapi::v2(parts.headers.get(header::ACCEPT)).into_response()),
        Route::OpenApiV3(document) => Ok(json(StatusCode::OK, &openapi::v3(document.as_deref())?)),
        Route::Objects(place) if place.subresource == "proxy" => proxy::serve(door, &parts, place).await,
        Route::Objects(place) if place.subresource == "log" => logs::serve(door, &parts, &place),
        Route::TokenReviews => tokens::review(door, &parts, &whole(body).await?),
        Route::Objects(place) if place.is_token() => {
            tokens::request(door, &parts, &place, &whole(body).await?)
        }
        Route::Objects(place) => objects::serve(door, &parts, place, &whole(body).await?),
    }
}

async fn whole(body: Body) -> Result<Bytes> {
    axum::body::to_bytes(body, BODY_LIMIT).await.map_err(|_| ApiError::TooLarge(BODY_LIMIT))
}

fn refusal(error: &ApiError) -> Response {
    let code = StatusCode::from_u16(error.code()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    json(code, &error.status())
}

fn json(code: StatusCode, value: &impl Serialize) -> Response {
    match serde_json::to_vec(value) {
        Ok(bytes) => (code, [(header::CONTENT_TYPE, "application/json")], bytes).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, Body::from(error.to_string())).into_response(),
    }
}
