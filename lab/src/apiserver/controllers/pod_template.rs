//! Pods from the template of a workload.

use serde_json::{Value, json};
use weft_types::fnv1a_32;

use crate::apiserver::object::{self, controller_reference};

/// The most pods that one step creates, so that a slip of the finger in `replicas` stops nobody else.
pub(super) const BURST: usize = 500;

/// A short name for the content of a template: equal templates have equal ones.
pub(super) fn hash(template: &Value) -> String {
    const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    // The text has its fields in order of their names.
    let mut number = fnv1a_32(template.to_string().bytes());
    let mut word = String::new();
    while number > 0 {
        word.push(ALPHABET[number as usize % ALPHABET.len()] as char);
        number /= 27;
    }
    word
}

/// A pod of the owner's template, without a name, in the owner's namespace.
pub(super) fn pod(owner: &Value) -> Value {
    let template = &owner["spec"]["template"];
    let mut pod = json!({"spec": template["spec"], "metadata": template["metadata"]});
    let metadata = object::metadata(&mut pod);
    for field in ["name", "generateName", "creationTimestamp"] {
        metadata.remove(field);
    }
    metadata.insert("namespace".to_owned(), owner["metadata"]["namespace"].clone());
    metadata.insert("ownerReferences".to_owned(), json!([controller_reference(owner)]));
    pod
}

/// A label with that value on the object.
pub(super) fn set_label(object: &mut Value, key: &str, value: &str) {
    object["metadata"]["labels"][key] = json!(value);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_tells_templates_apart_and_fits_into_a_label() {
        let one = hash(&json!({"a": 1}));
        assert_eq!(one, hash(&json!({"a": 1})));
        assert_ne!(one, hash(&json!({"a": 2})));
        assert!((1..=10).contains(&one.len()));
    }

    #[test]
    fn a_pod_belongs_to_its_owner() {
        let owner = json!({
            "apiVersion": "apps/v1", "kind": "ReplicaSet",
            "metadata": {"name": "web", "namespace": "a", "uid": "u"},
            "spec": {"template": {"metadata": {"labels": {"app": "web"}, "name": "x"}, "spec": {"containers": []}}},
        });
        let pod = pod(&owner);
        assert_eq!(pod["metadata"]["ownerReferences"][0]["uid"], "u");
        assert_eq!((&pod["metadata"]["namespace"], &pod["metadata"]["name"]), (&json!("a"), &Value::Null));
        assert!(object::is_controlled_by(&pod, "u"));
    }
}
