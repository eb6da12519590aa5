//! Creating an object.

use std::sync::Arc;

use serde_json::{Value, json};
use uuid::Uuid;

use super::{Registry, Target};
use crate::apiserver::error::{ApiError, Cause, Result};
use crate::apiserver::object::{self, Key};
use crate::apiserver::resource::{Resource, Status};
use crate::apiserver::{defaults, validation};

impl Registry {
    /// Creates an object in the target's collection; its name is the object's own, or made from its
    /// `generateName`.
    pub(crate) fn create(&mut self, target: &Target, mut object: Value, dry_run: bool) -> Result<Arc<Value>> {
        let resource = target.resource;
        normalise(resource, &target.namespace, &mut object)?;
        self.check_namespace(target, object::name(&object))?;
        self.begin_metadata(resource, &mut object);
        if resource.status == Status::Separate {
            object::fields(&mut object).remove("status");
        }
        defaults::apply(resource, &mut object);
        validation::check(resource, &object)?;
        let key = Key::of(resource.plural, &object);
        if self.store.get(&key).is_some() {
            return Err(ApiError::AlreadyExists { resource: resource.qualified(), name: key.name });
        }
        self.allocations.assign(resource, None, &mut object)?;
        Ok(self.commit(key, object, dry_run))
    }

    fn begin_metadata(&self, resource: &Resource, object: &mut Value) {
        let metadata = object::metadata(object);
        for foreign in ["deletionTimestamp", "deletionGracePeriodSeconds", "resourceVersion", "selfLink"] {
            metadata.remove(foreign);
        }
        let base = metadata.get("generateName").map(object::text).unwrap_or_default().to_owned();
        let unnamed = metadata.get("name").map(object::text).unwrap_or_default().is_empty();
        if unnamed && !base.is_empty() {
            metadata.insert("name".to_owned(), json!(format!("{base}{}", suffix())));
        }
        metadata.insert("uid".to_owned(), json!(Uuid::new_v4().to_string()));
        metadata.insert("creationTimestamp".to_owned(), json!(self.store.now()));
        metadata.remove("generation");
        if has_generation(resource) {
            metadata.insert("generation".to_owned(), json!(1));
        }
    }
}

/// Brings a client's object into the form that the store holds, or says why it cannot be one of that kind.
pub(super) fn normalise(resource: &Resource, namespace: &str, object: &mut Value) -> Result<()> {
    for (field, expected) in [("apiVersion", resource.api_version), ("kind", resource.kind)] {
        let fields = object.as_object_mut();
        let fields = fields.ok_or_else(|| ApiError::BadRequest("the body is no object".to_owned()))?;
        let given = fields.entry(field).or_insert_with(|| json!(expected));
        if given != expected {
            let message =
                format!("the {field} in the data ({given}) does not match the expected ({expected:?})");
            return Err(ApiError::BadRequest(message));
        }
    }
    prune_nulls(object);
    (resource.check)(object).map_err(|error| {
        let message =
            format!("{} in version {:?} cannot be handled: {error}", resource.kind, resource.version);
        ApiError::BadRequest(message)
    })?;
    let metadata = object::metadata(object);
    metadata.remove("managedFields");
    if !resource.namespaced {
        metadata.remove("namespace");
        return Ok(());
    }
    let given = metadata.entry("namespace").or_insert_with(|| json!(namespace));
    if given != namespace {
        let message =
            format!("the namespace of the object ({given}) does not match that of the request ({namespace})");
        return Err(ApiError::BadRequest(message));
    }
    Ok(())
}

/// Takes away the fields that are null, which JSON clients send for "not set".
fn prune_nulls(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|_, value| !value.is_null());
            fields.values_mut().for_each(prune_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(prune_nulls),
        _ => {}
    }
}

/// Does `metadata.generation` count the changes of such an object's spec?
pub(super) fn has_generation(resource: &Resource) -> bool {
    matches!(resource.group, "apps" | "discovery.k8s.io" | "networking.k8s.io")
}

/// Five letters and digits that make no word, as Kubernetes appends them to a `generateName`.
fn suffix() -> String {
    const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    let random = Uuid::new_v4();
    random
        .as_bytes()
        .iter()
        .take(5)
        .map(|byte| ALPHABET[usize::from(*byte) % ALPHABET.len()] as char)
        .collect()
}

impl Registry {
    fn check_namespace(&self, target: &Target, name: &str) -> Result<()> {
        if !target.resource.namespaced {
            return Ok(());
        }
        if target.namespace.is_empty() {
            let cause = Cause::required("metadata.namespace", "the kind lives in a namespace");
            return Err(ApiError::Invalid {
                kind: target.resource.kind,
                name: name.to_owned(),
                causes: vec![cause],
            });
        }
        self.require_namespace(target, name)
    }
}
