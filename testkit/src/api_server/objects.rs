//! Single objects: getting one, and merging a patch into it (RFC 7386), if it still is of the version that
//! the patch names.

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::{Store, refusal};

/// Where an object is: its collection, that of all namespaces, and its name.
struct Place {
    collection: String,
    everywhere: String,
    namespace: String,
    name: String,
}

/// The object of a namespace or of the core group without one, or the subresource of one, that a path leads to.
fn place(path: &str) -> Option<Place> {
    let Some((root, rest)) = path.split_once("/namespaces/") else { return place_of_all(path) };
    match rest.split('/').collect::<Vec<_>>()[..] {
        [namespace, plural, name] | [namespace, plural, name, _] => Some(Place {
            collection: format!("{root}/namespaces/{namespace}/{plural}"),
            everywhere: format!("{root}/{plural}"),
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        }),
        _ => None,
    }
}

/// The same for an object that is in no namespace.
fn place_of_all(path: &str) -> Option<Place> {
    let rest = path.strip_prefix("/api/v1/")?;
    let [plural, name] = *rest.split('/').take(2).collect::<Vec<_>>() else { return None };
    let collection = format!("/api/v1/{plural}");
    let (everywhere, namespace, name) = (collection.clone(), String::new(), name.to_owned());
    Some(Place { collection, everywhere, namespace, name })
}

fn not_found(name: &str) -> Response {
    let status = refusal(404, "NotFound", &format!("there is no {name}"));
    (StatusCode::NOT_FOUND, status.to_string()).into_response()
}

impl Store {
    /// The key of an object in this store.
    fn find(&self, place: &Place) -> Option<(String, String)> {
        let of = |collection: &str| (collection.to_owned(), place.name.clone());
        let is_it = |key: &(String, String)| {
            let object = self.objects.get(key);
            object
                .is_some_and(|it| it["metadata"]["namespace"].as_str().is_none_or(|of| of == place.namespace))
        };
        [of(&place.collection), of(&place.everywhere)].into_iter().find(is_it)
    }

    /// One object; nothing where the path leads to no object.
    pub(super) fn get(&self, path: &str) -> Option<Response> {
        let place = place(path)?;
        let found = self.find(&place);
        Some(
            found
                .map_or_else(|| not_found(&place.name), |key| self.objects[&key].to_string().into_response()),
        )
    }

    /// Merges a patch into an object; nothing where the path leads to no object.
    pub(super) fn merge(&mut self, path: &str, patch: &Value) -> Option<Response> {
        let place = place(path)?;
        let Some((collection, name)) = self.find(&place) else { return Some(not_found(&place.name)) };
        let mut object = self.objects[&(collection.clone(), name)].clone();
        let wanted = &patch["metadata"]["resourceVersion"];
        if wanted.is_string() && *wanted != object["metadata"]["resourceVersion"] {
            let status = refusal(409, "Conflict", "the object has been modified");
            return Some((StatusCode::CONFLICT, status.to_string()).into_response());
        }
        merge(&mut object, patch);
        Some(self.put(&collection, object).to_string().into_response())
    }
}

fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(changes) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = json!({});
    }
    for (name, change) in changes {
        if change.is_null() {
            target.as_object_mut().unwrap().remove(name);
        } else {
            merge(&mut target[name], change);
        }
    }
}
