//! Objects of the fake API server by version, as clients write that compete for them: created, and where they
//! are of no namespace read, replaced and deleted; and TokenReviews, which are not kept.

use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::{Store, name, refusal};

/// Where TokenReviews go.
pub(super) const TOKEN_REVIEWS: &str = "/apis/authentication.k8s.io/v1/tokenreviews";

/// Says whose a token is: `USER@AUDIENCE` is that user's, for that audience.
pub(super) fn review(review: &Value) -> Response {
    let user = review["spec"]["token"].as_str().and_then(|token| token.rsplit_once('@'));
    let audiences = || review["spec"]["audiences"].as_array().into_iter().flatten();
    let status = match user.filter(|(_, of)| audiences().any(|audience| audience == of)) {
        Some((user, of)) => json!({"authenticated": true, "user": {"username": user}, "audiences": [of]}),
        None => json!({"error": "invalid bearer token"}),
    };
    (StatusCode::CREATED, json!({"spec": review["spec"], "status": status}).to_string()).into_response()
}

impl Store {
    /// Answers a request for a single object of no namespace, if the path is one's.
    pub(super) fn single(&mut self, method: &Method, path: &str, body: &[u8]) -> Option<Response> {
        let (collection, name) = path.rsplit_once('/').filter(|_| !path.contains("/namespaces/"))?;
        let key = (collection.to_owned(), name.to_owned());
        let held = self.objects.get(&key).cloned();
        if *method == Method::GET {
            let is_collection = self.of_path(collection).next().is_some();
            return is_collection.then(|| held.map_or_else(missing, |held| held.to_string().into_response()));
        }
        let body: Value = serde_json::from_slice(body).unwrap_or_default();
        let wanted = match *method {
            Method::PUT => &body["metadata"],
            Method::DELETE => &body["preconditions"],
            _ => return None,
        };
        let Some(held) = held else { return Some(missing()) };
        let differs = |field: &str| wanted[field].is_string() && wanted[field] != held["metadata"][field];
        if ["uid", "resourceVersion"].into_iter().any(differs) {
            let status = refusal(409, "Conflict", "the object has been modified");
            return Some((StatusCode::CONFLICT, status.to_string()).into_response());
        }
        self.version += 1;
        let is_deleted = *method == Method::DELETE;
        let mut object = if is_deleted { held } else { body };
        object["metadata"]["resourceVersion"] = self.version.to_string().into();
        match is_deleted {
            true => self.objects.remove(&key),
            false => self.objects.insert(key, object.clone()),
        };
        let kind = if is_deleted { "DELETED" } else { "MODIFIED" };
        self.tell(collection, json!({"type": kind, "object": object}));
        Some(object.to_string().into_response())
    }

    /// Creates an object; the watches hear of it.
    pub(super) fn create(&mut self, path: &str, mut object: Value) -> Response {
        let key = (path.to_owned(), name(&object));
        if self.objects.contains_key(&key) {
            let status = refusal(409, "AlreadyExists", "there is one");
            return (StatusCode::CONFLICT, status.to_string()).into_response();
        }
        self.version += 1;
        object["metadata"]["uid"] = format!("uid-{}", self.version).into();
        object["metadata"]["resourceVersion"] = self.version.to_string().into();
        self.objects.insert(key, object.clone());
        self.tell(path, json!({"type": "ADDED", "object": object}));
        (StatusCode::CREATED, object.to_string()).into_response()
    }
}

fn missing() -> Response {
    (StatusCode::NOT_FOUND, refusal(404, "NotFound", "there is none").to_string()).into_response()
}
