//! Strategic merge patch: a merge that knows the keys of lists, and the directives `$patch`,
//! `$deleteFromPrimitiveList`, `$setElementOrder` and `$retainKeys`
//! (kubernetes/community: sig-api-machinery/strategic-merge-patch.md).

use serde_json::{Map, Value};

use super::merge_keys::{ListStrategy, strategy};
use crate::apiserver::error::{ApiError, Result};
use crate::apiserver::object::{fields, items, text};

const DIRECTIVE: &str = "$patch";
const RETAIN_KEYS: &str = "$retainKeys";
const DELETE_FROM: &str = "$deleteFromPrimitiveList/";
const ELEMENT_ORDER: &str = "$setElementOrder/";

/// Merges the patch into an object of that kind.
pub(super) fn merge(kind: &str, object: &mut Value, patch: &Value) -> Result<()> {
    let Some(patch) = patch.as_object() else {
        return Err(ApiError::BadRequest("a strategic merge patch is an object".to_owned()));
    };
    merge_fields(Place { kind, field: "", is_applied: false }, object, patch)
}

/// The same for server-side apply, in which ports are told apart by their protocols too
/// (`x-kubernetes-list-map-keys`).
pub(super) fn apply(kind: &str, object: &mut Value, wanted: &Value) -> Result<()> {
    let Some(wanted) = wanted.as_object() else {
        return Err(ApiError::BadRequest("what is applied is an object".to_owned()));
    };
    merge_fields(Place { kind, field: "", is_applied: true }, object, wanted)
}

/// Where in an object a patch is being merged: the object's kind and the nearest named field; and whether by
/// apply.
#[derive(Clone, Copy)]
struct Place<'a> {
    kind: &'a str,
    field: &'a str,
    is_applied: bool,
}

fn merge_fields(place: Place, object: &mut Value, patch: &Map<String, Value>) -> Result<()> {
    if patch.get(DIRECTIVE).is_some_and(|directive| directive == "replace") {
        *object = Value::Object(plain_fields(patch));
        return Ok(());
    }
    let target = fields(object);
    if let Some(kept) = patch.get(RETAIN_KEYS) {
        target.retain(|field, _| items(kept).iter().any(|name| name == field));
    }
    for (field, value) in plain_fields(patch) {
        merge_field(place, target, &field, &value)?;
    }
    for (directive, values) in patch {
        if let Some(list) = directive.strip_prefix(DELETE_FROM).and_then(|field| target.get_mut(field)) {
            list.as_array_mut()
                .into_iter()
                .for_each(|list| list.retain(|item| !items(values).contains(item)));
        }
    }
    for (directive, order) in patch {
        if let Some(field) = directive.strip_prefix(ELEMENT_ORDER)
            && let Some(Value::Array(list)) = target.get_mut(field)
        {
            put_in_order(list, strategy(place.kind, place.field, field, items(order)), items(order));
        }
    }
    Ok(())
}

/// The fields that are no directives.
fn plain_fields(patch: &Map<String, Value>) -> Map<String, Value> {
    let plain = patch.iter().filter(|(field, _)| !field.starts_with('$'));
    plain.map(|(field, value)| (field.clone(), value.clone())).collect()
}

fn merge_field(place: Place, target: &mut Map<String, Value>, field: &str, patch: &Value) -> Result<()> {
    match patch {
        Value::Null => {
            target.remove(field);
        }
        Value::Object(inner) if inner.get(DIRECTIVE).is_some_and(|directive| directive == "delete") => {
            target.remove(field);
        }
        Value::Object(inner) => {
            let slot = target.entry(field).or_insert(Value::Null);
            merge_fields(Place { field, ..place }, slot, inner)?;
        }
        Value::Array(inner) => {
            let slot = target.entry(field).or_insert_with(|| Value::Array(Vec::new()));
            merge_list(
                Place { field, ..place },
                slot,
                inner,
                strategy(place.kind, place.field, field, inner),
            )?;
        }
        scalar => {
            target.insert(field.to_owned(), scalar.clone());
        }
    }
    Ok(())
}

fn merge_list(place: Place, slot: &mut Value, patch: &[Value], strategy: ListStrategy) -> Result<()> {
    let replace = patch
        .iter()
        .any(|item| item[DIRECTIVE] == "replace" && item.as_object().is_some_and(|o| o.len() == 1));
    let list = match slot {
        Value::Array(list) if !replace => list,
        _ => {
            *slot = Value::Array(Vec::new());
            slot.as_array_mut().expect("made a list just above")
        }
    };
    // What replaces a list is not merged within itself: a Node has several addresses of one type.
    match if replace { ListStrategy::Replace } else { strategy } {
        ListStrategy::Replace => *list = patch.iter().filter(|item| !is_directive(item)).cloned().collect(),
        ListStrategy::Union => {
            for item in patch {
                if !list.contains(item) {
                    list.push(item.clone());
                }
            }
        }
        ListStrategy::MergeBy(key) => {
            for item in patch.iter().filter(|item| !is_directive(item)) {
                merge_item(place, list, item, key)?;
            }
        }
    }
    Ok(())
}

/// Is it `{"$patch": "replace"}`, which says something of the list and is no item of it?
fn is_directive(item: &Value) -> bool {
    item.as_object().is_some_and(|fields| fields.len() == 1 && fields.contains_key(DIRECTIVE))
}

fn merge_item(place: Place, list: &mut Vec<Value>, patch: &Value, key: &str) -> Result<()> {
    let Some(fields) = patch.as_object().filter(|fields| fields.contains_key(key)) else {
        let message =
            format!("an item of {:?} in the patch lacks its merge key {key:?}: {patch}", place.field);
        return Err(ApiError::BadRequest(message));
    };
    let protocol = |item: &Value| item["protocol"].as_str().unwrap_or("TCP").to_owned();
    let has_protocol = place.is_applied && place.field == "ports";
    let same = |item: &Value| item[key] == patch[key] && (!has_protocol || protocol(item) == protocol(patch));
    match text(&patch[DIRECTIVE]) {
        "delete" => list.retain(|item| !same(item)),
        _ => match list.iter_mut().find(|item| same(item)) {
            Some(item) => merge_fields(place, item, fields)?,
            None => {
                let mut item = Value::Null;
                merge_fields(place, &mut item, fields)?;
                list.push(item);
            }
        },
    }
    Ok(())
}

/// Sorts a list as the client wants it; what the client does not name stays behind, in its own order.
fn put_in_order(list: &mut [Value], strategy: ListStrategy, order: &[Value]) {
    let position = |item: &Value| {
        let found = order.iter().position(|wanted| match strategy {
            ListStrategy::MergeBy(key) => wanted[key] == item[key],
            ListStrategy::Union | ListStrategy::Replace => wanted == item,
        });
        found.unwrap_or(order.len())
    };
    list.sort_by_key(position);
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn merged(kind: &str, mut object: Value, patch: &Value) -> Value {
        merge(kind, &mut object, patch).unwrap();
        object
    }

    #[test]
    fn containers_are_merged_by_name_and_their_env_and_ports_by_their_own_keys() {
        let object = json!({"spec": {"containers": [
            {"name": "a", "image": "1", "args": ["x", "y"], "env": [{"name": "K", "value": "v"}],
             "ports": [{"containerPort": 80, "name": "http"}]},
            {"name": "b", "image": "1"},
        ]}});
        let patch = json!({"spec": {"containers": [
            {"name": "a", "image": "2", "args": ["z"], "env": [{"name": "L", "value": "w"}],
             "ports": [{"containerPort": 80, "protocol": "UDP"}, {"containerPort": 81}]},
            {"name": "b", "$patch": "delete"},
            {"name": "c", "image": "3"},
        ]}});
        let want = json!({"spec": {"containers": [
            {"name": "a", "image": "2", "args": ["z"],
             "env": [{"name": "K", "value": "v"}, {"name": "L", "value": "w"}],
             "ports": [{"containerPort": 80, "name": "http", "protocol": "UDP"}, {"containerPort": 81}]},
            {"name": "c", "image": "3"},
        ]}});
        assert_eq!(merged("Pod", object, &patch), want);
    }

    #[test]
    fn ports_have_a_key_in_a_service_and_none_in_an_endpoint_slice() {
        let service = json!({"spec": {"ports": [{"port": 80, "name": "http"}, {"port": 443}]}});
        let patch = json!({"spec": {"ports": [{"port": 80, "targetPort": 8080}]}});
        let want =
            json!({"spec": {"ports": [{"port": 80, "name": "http", "targetPort": 8080}, {"port": 443}]}});
        assert_eq!(merged("Service", service, &patch), want);
        let slice = json!({"ports": [{"port": 80}, {"port": 443}]});
        let patch = json!({"ports": [{"port": 81}]});
        assert_eq!(merged("EndpointSlice", slice, &patch), json!({"ports": [{"port": 81}]}));
    }

    #[test]
    fn conditions_are_merged_by_type() {
        let node =
            json!({"status": {"conditions": [{"type": "Ready", "status": "False"}, {"type": "Disk"}]}});
        let patch = json!({"status": {"conditions": [{"type": "Ready", "status": "True"}],
                                      "$setElementOrder/conditions": [{"type": "Ready"}]}});
        let want = json!({"status": {"conditions": [{"type": "Ready", "status": "True"}, {"type": "Disk"}]}});
        assert_eq!(merged("Node", node, &patch), want);
    }

    #[test]
    fn directives_replace_delete_order_and_retain() {
        let object = json!({
            "metadata": {"finalizers": ["a", "b"], "labels": {"x": "1"}},
            "spec": {"containers": [{"name": "a"}, {"name": "b"}], "selector": {"x": "1"},
                     "strategy": {"type": "RollingUpdate", "rollingUpdate": {}}},
        });
        let patch = json!({
            "metadata": {"$deleteFromPrimitiveList/finalizers": ["a"], "finalizers": ["c"], "labels": null},
            "spec": {"$setElementOrder/containers": [{"name": "c"}, {"name": "b"}, {"name": "a"}],
                     "containers": [{"name": "c"}],
                     "selector": {"$patch": "replace", "y": "2"},
                     "strategy": {"$retainKeys": ["type"], "type": "Recreate"}},
        });
        let want = json!({
            "metadata": {"finalizers": ["b", "c"]},
            "spec": {"containers": [{"name": "c"}, {"name": "b"}, {"name": "a"}], "selector": {"y": "2"},
                     "strategy": {"type": "Recreate"}},
        });
        assert_eq!(merged("Pod", object, &patch), want);
    }

    #[test]
    fn a_list_replaced_by_directive_and_an_item_without_its_key() {
        let object = json!({"spec": {"containers": [{"name": "a"}]}});
        let patch = json!({"spec": {"containers": [{"$patch": "replace"}, {"name": "b"}]}});
        assert_eq!(merged("Pod", object.clone(), &patch), json!({"spec": {"containers": [{"name": "b"}]}}));
        let address = |address: &str| json!({"type": "InternalIP", "address": address});
        let node = json!({"status": {"addresses": [address("a"), address("b")]}});
        let patch = json!({"status": {"addresses": [address("c"), address("d"), {"$patch": "replace"}]}});
        let want = json!({"status": {"addresses": [address("c"), address("d")]}});
        assert_eq!(merged("Node", node, &patch), want, "both of one type");
        let mut object = object;
        assert!(merge("Pod", &mut object, &json!({"spec": {"containers": [{"image": "x"}]}})).is_err());
        assert!(merge("Pod", &mut object, &json!([])).is_err());
    }
}
