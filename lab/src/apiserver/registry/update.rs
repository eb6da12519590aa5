//! Replacing an object, whole or its status alone.

use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::create::{has_generation, normalise};
use super::{Part, Registry, Target, Write};
use crate::apiserver::error::{ApiError, Result};
use crate::apiserver::object;
use crate::apiserver::resource::{Resource, Status};
use crate::apiserver::{defaults, validation};

/// What the client believes about the object that it changes. Empty texts ask for nothing.
#[derive(Clone, Debug, Default)]
pub(crate) struct Preconditions {
    /// The uid it must have.
    pub(crate) uid: String,
    /// The version it must have.
    pub(crate) resource_version: String,
}

impl Preconditions {
    /// Those of an object that was read, changed and is sent back.
    pub(crate) fn of(object: &Value) -> Self {
        let resource_version = object::resource_version(object).to_owned();
        Self { uid: object::uid(object).to_owned(), resource_version }
    }

    /// Does the stored object meet them?
    pub(crate) fn check(&self, target: &Target, stored: &Value) -> Result<()> {
        let differs = |wanted: &str, found: &str| !wanted.is_empty() && wanted != found;
        let detail = if differs(&self.uid, object::uid(stored)) {
            let (wanted, found) = (&self.uid, object::uid(stored));
            format!("Precondition failed: UID in precondition: {wanted}, UID in object meta: {found}")
        } else if differs(&self.resource_version, object::resource_version(stored)) {
            "the object has been modified; please apply your changes to the latest version and try again"
                .to_owned()
        } else {
            return Ok(());
        };
        Err(ApiError::conflict(target.resource, &target.name, detail))
    }
}

impl Registry {
    /// Puts a new version of an object in place of the stored one. An equal one changes nothing; one that
    /// was only kept by its finalizers goes when the last of them does.
    pub(crate) fn update(
        &mut self,
        target: &Target,
        part: Part,
        mut object: Value,
        how: Write,
    ) -> Result<Arc<Value>> {
        let resource = target.resource;
        let old = Arc::clone(self.get(target)?);
        normalise(resource, &target.namespace, &mut object, how.strict)?;
        if object::name(&object) != target.name {
            let name = object::name(&object);
            let message = format!("the name of the object ({name}) does not match the name on the URL");
            return Err(ApiError::BadRequest(message));
        }
        Preconditions::of(&object).check(target, &old)?;
        let mut new = merge_parts(resource, part, &old, object);
        if part == Part::Main {
            defaults::apply(resource, &mut new);
            self.allocations.assign(resource, Some(&old), &mut new)?;
            validation::check(resource, &new)?;
            validation::check_update(resource, &old, &new)?;
            raise_generation(resource, &old, &mut new);
        }
        if new == *old {
            return Ok(old);
        }
        let key = target.key();
        let new = self.commit(key.clone(), new, how.dry_run);
        if !how.dry_run && is_released(&new) {
            self.remove(&key);
        }
        Ok(new)
    }
}

/// The object as it will be: the half that the client may change from its object, the rest as it was.
fn merge_parts(resource: &Resource, part: Part, old: &Value, object: Value) -> Value {
    let (mut new, mut other) = match part {
        Part::Main => (object, old.clone()),
        Part::Status => (old.clone(), object),
    };
    if part == Part::Status || resource.status != Status::None {
        match other["status"].take() {
            Value::Null => object::fields(&mut new).remove("status"),
            status => object::fields(&mut new).insert("status".to_owned(), status),
        };
    }
    keep_system_metadata(old, object::metadata(&mut new));
    new
}

/// Carries over what the server alone writes.
fn keep_system_metadata(old: &Value, metadata: &mut Map<String, Value>) {
    let system = [
        "uid",
        "creationTimestamp",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "generation",
        "resourceVersion",
    ];
    for field in system {
        match old["metadata"].get(field) {
            Some(value) => metadata.insert(field.to_owned(), value.clone()),
            None => metadata.remove(field),
        };
    }
}

/// Counts a change of anything but metadata and status.
fn raise_generation(resource: &Resource, old: &Value, new: &mut Value) {
    let rest = |object: &Value| -> Map<String, Value> {
        let fields = object.as_object().into_iter().flatten();
        let fields = fields.filter(|(field, _)| *field != "metadata" && *field != "status");
        fields.map(|(field, value)| (field.clone(), value.clone())).collect()
    };
    if has_generation(resource) && rest(old) != rest(new) {
        let generation = old["metadata"]["generation"].as_i64().unwrap_or(0);
        new["metadata"]["generation"] = json!(generation + 1);
    }
}

/// Is it marked for deletion with nothing left to wait for?
pub(super) fn is_released(object: &Value) -> bool {
    let grace = object["metadata"]["deletionGracePeriodSeconds"].as_i64().unwrap_or(0);
    object::is_terminating(object)
        && !object::has_finalizers(object)
        && grace == 0
        && object["spec"]["finalizers"].as_array().is_none_or(Vec::is_empty)
}
