//! Reading and writing the metadata of objects that are plain JSON values. No policy.

use serde_json::{Map, Value, json};

/// A stored object's place: its kind's plural, its namespace (empty for cluster scope) and its name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Key {
    /// The plural of the kind.
    pub(crate) plural: &'static str,
    /// The namespace; empty for a kind of cluster scope.
    pub(crate) namespace: String,
    /// The object's name.
    pub(crate) name: String,
}

impl Key {
    /// The key of an object of that kind.
    pub(crate) fn new(plural: &'static str, namespace: &str, name: &str) -> Self {
        Self { plural, namespace: namespace.to_owned(), name: name.to_owned() }
    }

    /// The key under which this object stands, or would stand.
    pub(crate) fn of(plural: &'static str, object: &Value) -> Self {
        Self::new(plural, namespace(object), name(object))
    }
}

/// `metadata.name`, or nothing.
pub(crate) fn name(object: &Value) -> &str {
    text(&object["metadata"]["name"])
}

/// `metadata.namespace`, or nothing.
pub(crate) fn namespace(object: &Value) -> &str {
    text(&object["metadata"]["namespace"])
}

/// `metadata.uid`, or nothing.
pub(crate) fn uid(object: &Value) -> &str {
    text(&object["metadata"]["uid"])
}

/// `metadata.resourceVersion`, or nothing.
pub(crate) fn resource_version(object: &Value) -> &str {
    text(&object["metadata"]["resourceVersion"])
}

/// The string in a value; empty when it is none.
pub(crate) fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// The elements of a list; none when the value is no list.
pub(crate) fn items(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

/// The value of a label.
pub(crate) fn label<'a>(object: &'a Value, key: &str) -> Option<&'a str> {
    object["metadata"]["labels"].get(key).and_then(Value::as_str)
}

/// Is the object on its way out?
pub(crate) fn is_terminating(object: &Value) -> bool {
    object["metadata"]["deletionTimestamp"].is_string()
}

/// Does it carry any finalizer?
pub(crate) fn has_finalizers(object: &Value) -> bool {
    !items(&object["metadata"]["finalizers"]).is_empty()
}

/// Is that finalizer among the object's?
pub(crate) fn has_finalizer(object: &Value, finalizer: &str) -> bool {
    items(&object["metadata"]["finalizers"]).iter().any(|value| value == finalizer)
}

/// The uids of all its owners.
pub(crate) fn owners(object: &Value) -> impl Iterator<Item = &str> {
    items(&object["metadata"]["ownerReferences"]).iter().map(|owner| text(&owner["uid"]))
}

/// The owner reference of the controller that made it.
pub(crate) fn controller(object: &Value) -> Option<&Value> {
    items(&object["metadata"]["ownerReferences"]).iter().find(|owner| owner["controller"] == true)
}

/// Is that the uid of the controller that made it?
pub(crate) fn is_controlled_by(object: &Value, owner_uid: &str) -> bool {
    controller(object).is_some_and(|owner| text(&owner["uid"]) == owner_uid)
}

/// A controller's owner reference to that object.
pub(crate) fn controller_reference(owner: &Value) -> Value {
    json!({
        "apiVersion": owner["apiVersion"], "kind": owner["kind"],
        "name": owner["metadata"]["name"], "uid": owner["metadata"]["uid"],
        "controller": true, "blockOwnerDeletion": true,
    })
}

/// A condition's status: `True`, `False`, `Unknown`, or nothing when it is not there.
pub(crate) fn condition<'a>(object: &'a Value, kind: &str) -> &'a str {
    let found = items(&object["status"]["conditions"]).iter().find(|condition| condition["type"] == kind);
    found.map(|condition| text(&condition["status"])).unwrap_or_default()
}

/// The fields of an object, made where the value is none yet.
pub(crate) fn fields(value: &mut Value) -> &mut Map<String, Value> {
    if !value.is_object() {
        *value = Value::Object(Map::new());
    }
    value.as_object_mut().expect("made an object just above")
}

/// The fields of `metadata`.
pub(crate) fn metadata(object: &mut Value) -> &mut Map<String, Value> {
    fields(&mut object["metadata"])
}

/// Sets a field where it is missing or null.
pub(crate) fn set_default(value: &mut Value, field: &str, default: impl Into<Value>) {
    if value[field].is_null() {
        value[field] = default.into();
    }
}

/// A condition as an object's status lists it.
pub(crate) struct Condition<'a> {
    /// Its type, as `Ready`.
    pub(crate) kind: &'a str,
    /// Does it hold?
    pub(crate) holds: bool,
    /// One word that says why.
    pub(crate) reason: &'a str,
    /// What a person reads.
    pub(crate) message: &'a str,
}

/// Replaces the condition of the same type; its transition time moves only when its status does.
pub(crate) fn set_condition(status: &mut Value, condition: &Condition, now: &str) {
    let word = if condition.holds { "True" } else { "False" };
    let mut fresh = json!({
        "type": condition.kind, "status": word, "reason": condition.reason, "message": condition.message,
        "lastTransitionTime": now,
    });
    let list = fields(status).entry("conditions").or_insert_with(|| json!([]));
    let Some(list) = list.as_array_mut() else { return };
    match list.iter_mut().find(|old| old["type"] == condition.kind) {
        Some(old) => {
            if old["status"] == word {
                fresh["lastTransitionTime"] = old["lastTransitionTime"].take();
            }
            *old = fresh;
        }
        None => list.push(fresh),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_condition_keeps_its_time_until_its_status_changes() {
        let mut object = json!({"status": {}});
        let mut set = |holds, now| {
            let condition = Condition { kind: "Ready", holds, reason: "R", message: "" };
            set_condition(&mut object["status"], &condition, now);
            assert_eq!(items(&object["status"]["conditions"]).len(), 1);
            object["status"]["conditions"][0]["lastTransitionTime"].clone()
        };
        assert_eq!(set(true, "1"), "1");
        assert_eq!(set(true, "2"), "1");
        assert_eq!(set(false, "3"), "3");
        assert_eq!(condition(&object, "Ready"), "False");
        assert_eq!(condition(&object, "Other"), "");
    }
}
