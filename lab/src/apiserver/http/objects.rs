//! Requests about objects: from method, path, query and body to the registry's verbs.

use std::sync::Arc;

use axum::http::request::Parts;
use axum::http::{Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::form::{Form, now};
use super::parameters::Parameters;
use super::path::Place;
use super::{Door, body, watch};
use crate::apiserver::error::{ApiError, Result};
use crate::apiserver::object;
use crate::apiserver::registry::{Deleted, Part, Target};
use crate::apiserver::resource::Status;
use crate::apiserver::scale;

/// One request, read as far as every verb needs it.
struct Call<'a> {
    door: &'a Door,
    parts: &'a Parts,
    parameters: Parameters,
    form: Form,
    target: Target,
    bytes: &'a [u8],
}

/// What an object's path says beyond its name.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Subresource {
    None,
    Status,
    Scale,
    Eviction,
}

/// Answers one request.
pub(super) fn serve(door: &Door, parts: &Parts, place: Place, bytes: &[u8]) -> Result<Response> {
    let subresource = subresource(&place)?;
    let parameters = Parameters::of(&parts.uri)?;
    let form = Form::of(&parts.headers, &parameters);
    let call = Call { door, parts, parameters, form, target: place.target, bytes };
    match (&parts.method, call.target.name.is_empty(), subresource) {
        (&Method::GET, _, Subresource::None) if call.parameters.flag("watch") => call.watch(),
        (&Method::GET, true, _) => call.list(),
        (&Method::POST, true, _) => call.create(),
        (&Method::DELETE, true, _) => call.delete_collection(),
        (&Method::GET, false, Subresource::None | Subresource::Status) => call.get(),
        (&Method::PUT, false, Subresource::None) => call.update(Part::Main),
        (&Method::PUT, false, Subresource::Status) => call.update(Part::Status),
        (&Method::PATCH, false, Subresource::None) => call.patch(Part::Main),
        (&Method::PATCH, false, Subresource::Status) => call.patch(Part::Status),
        (&Method::DELETE, false, Subresource::None) => call.delete(call.bytes),
        (&Method::POST, false, Subresource::Eviction) => call.evict(),
        (&Method::GET, false, Subresource::Scale) => call.get_scale(),
        (&Method::PUT, false, Subresource::Scale) => call.put_scale(),
        (&Method::PATCH, false, Subresource::Scale) => call.patch_scale(),
        _ => Err(ApiError::MethodNotAllowed),
    }
}

fn subresource(place: &Place) -> Result<Subresource> {
    let resource = place.target.resource;
    match place.subresource.as_str() {
        "" => Ok(Subresource::None),
        "status" if resource.status != Status::None => Ok(Subresource::Status),
        "scale" if resource.scale => Ok(Subresource::Scale),
        "eviction" if resource.plural == "pods" => Ok(Subresource::Eviction),
        _ => Err(ApiError::NoSuchPath),
    }
}

impl Call<'_> {
    fn answer(&self, code: StatusCode, object: &Value) -> Response {
        super::json(code, &self.form.object(self.target.resource, object, now()))
    }

    fn get(&self) -> Result<Response> {
        let object = self.door.cluster.read(|registry| registry.get(&self.target).cloned())?;
        Ok(self.answer(StatusCode::OK, &object))
    }

    fn list(&self) -> Result<Response> {
        let options = self.parameters.list_options(&self.target)?;
        let list = self.door.cluster.read(|registry| registry.list(&self.target, &options))?;
        let text = self.form.list(self.target.resource, &list, now());
        let text = text.map_err(|error| ApiError::BadRequest(error.to_string()))?;
        Ok(([(header::CONTENT_TYPE, "application/json")], text).into_response())
    }

    fn watch(&self) -> Result<Response> {
        watch::serve(self.door, &self.target, &self.parameters, self.form.clone())
    }

    fn create(&self) -> Result<Response> {
        let object = body::object(&self.parts.headers, self.bytes)?;
        let how = self.parameters.write()?;
        let object = self.door.cluster.write(|registry| registry.create(&self.target, object, how))?;
        Ok(self.answer(StatusCode::CREATED, &object))
    }

    fn update(&self, part: Part) -> Result<Response> {
        let object = body::object(&self.parts.headers, self.bytes)?;
        let how = self.parameters.write()?;
        let update = |registry: &mut crate::apiserver::registry::Registry| {
            registry.update(&self.target, part, object, how)
        };
        Ok(self.answer(StatusCode::OK, &*self.door.cluster.write(update)?))
    }

    fn patch(&self, part: Part) -> Result<Response> {
        let patch = body::patch(&self.parts.headers, self.bytes)?;
        let how = self.parameters.write()?;
        let patched = self.door.cluster.write(|registry| registry.patch(&self.target, part, &patch, how))?;
        let code = if patched.created { StatusCode::CREATED } else { StatusCode::OK };
        Ok(self.answer(code, &patched.object))
    }

    fn delete(&self, options: &[u8]) -> Result<Response> {
        let options = body::delete_options(&self.parts.headers, options, &self.parameters)?;
        match self.door.cluster.write(|registry| registry.delete(&self.target, &options))? {
            Deleted::Marked(object) => Ok(self.answer(StatusCode::OK, &object)),
            Deleted::Gone(last) => Ok(super::json(StatusCode::OK, &self.gone(&last))),
        }
    }

    /// The real server answers a `Status`, but for pods the pod.
    fn gone(&self, last: &Value) -> Value {
        let resource = self.target.resource;
        if resource.plural == "pods" {
            return last.clone();
        }
        json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success",
            "details": {
                "name": self.target.name, "group": resource.group, "kind": resource.plural,
                "uid": object::uid(last),
            },
        })
    }

    fn evict(&self) -> Result<Response> {
        let eviction = body::object(&self.parts.headers, self.bytes)?;
        let options = eviction["deleteOptions"].to_string();
        self.delete(if eviction["deleteOptions"].is_object() { options.as_bytes() } else { &[] })?;
        let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"});
        Ok(super::json(StatusCode::CREATED, &status))
    }

    fn delete_collection(&self) -> Result<Response> {
        let selection = self.parameters.list_options(&self.target)?;
        let options = body::delete_options(&self.parts.headers, self.bytes, &self.parameters)?;
        let delete = |registry: &mut crate::apiserver::registry::Registry| {
            registry.delete_collection(&self.target, &selection, &options)
        };
        let list = self.door.cluster.write(delete)?;
        let text = self.form.list(self.target.resource, &list, now());
        let text = text.map_err(|error| ApiError::BadRequest(error.to_string()))?;
        Ok(([(header::CONTENT_TYPE, "application/json")], text).into_response())
    }

    fn get_scale(&self) -> Result<Response> {
        let object = self.door.cluster.read(|registry| registry.get(&self.target).cloned())?;
        Ok(super::json(StatusCode::OK, &scale::of(&object)))
    }

    fn put_scale(&self) -> Result<Response> {
        let scale = body::object(&self.parts.headers, self.bytes)?;
        self.write_scale(|_| Ok(scale))
    }

    fn patch_scale(&self) -> Result<Response> {
        let patch = body::patch(&self.parts.headers, self.bytes)?;
        self.write_scale(|current| patch.apply("Scale", &current))
    }

    fn write_scale(&self, change: impl FnOnce(Value) -> Result<Value>) -> Result<Response> {
        let how = self.parameters.write()?;
        let object: Arc<Value> = self.door.cluster.write(|registry| {
            let current = Arc::clone(registry.get(&self.target)?);
            let wanted = change(scale::of(&current))?;
            let object = scale::set(&current, &wanted)?;
            registry.update(&self.target, Part::Main, object, how)
        })?;
        Ok(super::json(StatusCode::OK, &scale::of(&object)))
    }
}
