//! The four kinds of patches, each a pure function from the stored object to the wanted one.

mod merge_keys;
mod strategic;

use std::sync::Arc;

use serde_json::Value;

use super::error::{ApiError, Result};
use super::object;
use super::registry::{Part, Registry, Target, Write};

/// A patch as a client sends it.
#[derive(Clone, Debug)]
pub(crate) enum Patch {
    /// Operations one after the other (RFC 6902).
    Json(json_patch::Patch),
    /// Fields to set, null to take away (RFC 7396).
    Merge(Value),
    /// A merge that knows which lists have keys (Kubernetes).
    Strategic(Value),
    /// The fields that the client wants to be so (server-side apply, without field owners): fields that it
    /// does not name stay as they are, and a missing object is created.
    Apply(Value),
}

impl Patch {
    /// The object of that kind as the patch wants it.
    pub(crate) fn apply(&self, kind: &str, current: &Value) -> Result<Value> {
        let mut object = current.clone();
        match self {
            Self::Json(operations) => json_patch::patch(&mut object, operations)
                .map_err(|error| ApiError::BadRequest(format!("the JSON patch does not apply: {error}")))?,
            Self::Merge(patch) => json_patch::merge(&mut object, patch),
            Self::Strategic(patch) => strategic::merge(kind, &mut object, patch)?,
            Self::Apply(wanted) => strategic::apply(kind, &mut object, wanted)?,
        }
        Ok(object)
    }
}

/// What a patch made.
#[derive(Clone, Debug)]
pub(crate) struct Patched {
    /// The object as it is now.
    pub(crate) object: Arc<Value>,
    /// Was there none before?
    pub(crate) created: bool,
}

impl Registry {
    /// Patches an object, or creates it where an apply finds none.
    pub(crate) fn patch(
        &mut self,
        target: &Target,
        part: Part,
        patch: &Patch,
        how: Write,
    ) -> Result<Patched> {
        match (self.store.get(&target.key()).cloned(), patch) {
            (None, Patch::Apply(wanted)) if part == Part::Main => {
                if object::name(wanted) != target.name {
                    let message = "metadata.name of the applied object must be the name on the URL";
                    return Err(ApiError::BadRequest(message.to_owned()));
                }
                let object = self.create(target, wanted.clone(), how)?;
                Ok(Patched { object, created: true })
            }
            (None, _) => Err(ApiError::not_found(target.resource, &target.name)),
            (Some(current), _) => {
                let wanted = patch.apply(target.resource.kind, &current)?;
                let object = self.update(target, part, wanted, how)?;
                Ok(Patched { object, created: false })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_json_patch_that_fails_its_test_changes_nothing() {
        let current = json!({"spec": {"replicas": 1}});
        let patch = |value: u8| {
            let operations = json!([{"op": "test", "path": "/spec/replicas", "value": value},
                                    {"op": "replace", "path": "/spec/replicas", "value": 3}]);
            Patch::Json(serde_json::from_value(operations).unwrap())
        };
        assert_eq!(patch(1).apply("Deployment", &current).unwrap()["spec"]["replicas"], 3);
        assert!(matches!(patch(2).apply("Deployment", &current), Err(ApiError::BadRequest(_))));
    }

    #[test]
    fn what_is_applied_again_keeps_both_protocols_of_a_port() {
        let ports = json!([{"port": 53, "protocol": "UDP"}, {"port": 53, "protocol": "TCP"}]);
        let service = json!({"spec": {"ports": ports}});
        assert_eq!(Patch::Apply(service.clone()).apply("Service", &service).unwrap(), service);
    }

    #[test]
    fn a_merge_patch_replaces_lists_and_drops_nulls() {
        let current = json!({"data": {"a": "1", "b": "2"}, "list": [1, 2]});
        let patch = Patch::Merge(json!({"data": {"a": null, "c": "3"}, "list": [3]}));
        let want = json!({"data": {"b": "2", "c": "3"}, "list": [3]});
        assert_eq!(patch.apply("ConfigMap", &current).unwrap(), want);
    }
}
