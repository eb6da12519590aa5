//! In which form the fake API server answers: JSON or protobuf.

use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use serde_json::Value;

use super::protobuf;

/// How an answer is written: in protobuf with the kind of its objects.
#[derive(Clone, Copy)]
pub(super) enum Form {
    Json,
    Protobuf(&'static str),
}

impl Form {
    pub(super) fn of_watch(self) -> &'static str {
        match self {
            Form::Json => "application/json",
            Form::Protobuf(_) => protobuf::WATCH_MEDIA_TYPE,
        }
    }

    pub(super) fn frame(self, line: String) -> Vec<u8> {
        match self {
            Form::Json => (line + "\n").into_bytes(),
            Form::Protobuf(kind) => protobuf::frame(kind, &line),
        }
    }

    pub(super) fn refuse(self, code: StatusCode, status: &Value) -> Response {
        match self {
            Form::Json => (code, status.to_string()).into_response(),
            Form::Protobuf(_) => {
                (code, [(CONTENT_TYPE, protobuf::MEDIA_TYPE)], protobuf::status(status)).into_response()
            }
        }
    }
}
