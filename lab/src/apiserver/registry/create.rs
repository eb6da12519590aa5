//! Creating an object.

use std::sync::Arc;

use serde_json::{Value, json};
use uuid::Uuid;

use super::{Registry, Target, Write};
use crate::apiserver::error::{ApiError, Cause, Result};
use crate::apiserver::object::{self, Key};
use crate::apiserver::resource::{Resource, Status};
use crate::apiserver::{defaults, validation};

impl Registry {
    /// Creates an object in the target's collection; its name is the object's own, or made from its
    /// `generateName`.
    pub(crate) fn create(&mut self, target: &Target, mut object: Value, how: Write) -> Result<Arc<Value>> {
        let resource = target.resource;
        normalise(resource, &target.namespace, &mut object, how.strict)?;
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
        Ok(self.commit(key, object, how.dry_run))
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
pub(super) fn normalise(
    resource: &Resource,
    namespace: &str,
    object: &mut Value,
    strict: bool,
) -> Result<()> {
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
    check_shape(resource, object, strict)?;
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

/// Checks that the object has the shape of its kind, and if need be nothing beyond.
fn check_shape(resource: &Resource, object: &Value, strict: bool) -> Result<()> {
    let refuse = |error: String| {
        let (kind, version) = (resource.kind, resource.version);
        ApiError::BadRequest(format!("{kind} in version {version:?} cannot be handled as a {kind}: {error}"))
    };
    let known = (resource.decode)(object).map_err(refuse)?;
    let mut unknown = Vec::new();
    if strict {
        find_unknown(object, &known, "", &mut unknown);
    }
    let unknown: Vec<String> = unknown.iter().map(|field| format!("unknown field {field:?}")).collect();
    if unknown.is_empty() {
        Ok(())
    } else {
        Err(refuse(format!("strict decoding error: {}", unknown.join(", "))))
    }
}

/// Finds the fields of a value that are lost when it is read and written again as its kind.
fn find_unknown(value: &Value, known: &Value, path: &str, unknown: &mut Vec<String>) {
    match (value, known) {
        (Value::Object(fields), Value::Object(known)) => {
            for (field, value) in fields {
                let path = if path.is_empty() { field.clone() } else { format!("{path}.{field}") };
                match known.get(field) {
                    Some(known) => find_unknown(value, known, &path, unknown),
                    None => unknown.push(path),
                }
            }
        }
        (Value::Array(items), Value::Array(known)) => {
            for (index, (item, known)) in items.iter().zip(known).enumerate() {
                find_unknown(item, known, &format!("{path}[{index}]"), unknown);
            }
        }
        _ => {}
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::apiserver::resource::named;

    fn refused(object: &Value, strict: bool) -> Option<String> {
        check_shape(named("services"), object, strict).err().map(|error| error.to_string())
    }

    #[test]
    fn a_misspelt_field_is_named_where_the_client_asks_for_it() {
        let object = json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"labels": {"any": "label"}},
            "spec": {"ports": [{"port": 80, "targetprt": 8080}]}, "status": {},
        });
        let message = refused(&object, true).unwrap();
        assert!(message.ends_with(r#"unknown field "spec.ports[0].targetprt""#), "{message}");
        assert_eq!(refused(&object, false), None);
        let mut wrong = object.clone();
        wrong["spec"]["ports"][0]["port"] = json!("eighty");
        assert!(refused(&wrong, false).is_some());
    }
}
