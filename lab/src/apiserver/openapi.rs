//! OpenAPI documents, as little of them as clients need: they name no schema, so a client that validates
//! objects by them leaves that to the server, which checks every object against its kind.

use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::error::{ApiError, Result};

/// The type of the document as a protocol buffer. Clients also ask for it with an `@` before the version,
/// which their own readers of content types refuse (RFC 2045 section 5.1 has no such token).
const PROTOBUF: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";

/// The protocol buffer of `openapi.v2.Document {swagger: "2.0", info: {title: "Kubernetes", version: "v1"}}`
/// (gnostic's OpenAPIv2.proto: swagger = 1, info = 2, Info.title = 1, Info.version = 2).
const DOCUMENT: &[u8] = b"\x0a\x032.0\x12\x10\x0a\x0aKubernetes\x12\x02v1";

/// `/openapi/v2`, in the form that the client accepts.
pub(crate) fn v2(accept: Option<&HeaderValue>) -> Response {
    let accept = accept.and_then(|value| value.to_str().ok()).unwrap_or_default();
    let answer = |kind: &'static str, bytes: Vec<u8>| ([(header::CONTENT_TYPE, kind)], bytes).into_response();
    if accept.contains("proto-openapi") {
        return answer(PROTOBUF, DOCUMENT.to_vec());
    }
    let document = json!({
        "swagger": "2.0", "info": {"title": "Kubernetes", "version": "v1"}, "paths": {}, "definitions": {},
    });
    answer("application/json", document.to_string().into_bytes())
}

/// `/openapi/v3`: the list of documents, which is empty.
pub(crate) fn v3(document: Option<&str>) -> Result<Value> {
    match document {
        None => Ok(json!({"paths": {}})),
        Some(_) => Err(ApiError::NoSuchPath),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_protocol_buffer_has_the_lengths_that_it_says() {
        // Field 1 is three bytes long, field 2 the rest, which holds strings of ten and two bytes.
        assert_eq!(DOCUMENT[1], 3);
        assert_eq!(usize::from(DOCUMENT[6]), DOCUMENT.len() - 7);
        assert_eq!(&DOCUMENT[9..19], b"Kubernetes");
        assert_eq!(DOCUMENT[8], 10);
    }
}
