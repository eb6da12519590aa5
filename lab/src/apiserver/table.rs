//! Tables, as `kubectl get` prints them: the server says which columns a kind has and what stands in them
//! (meta.k8s.io/v1 Table). Only pure functions of objects and the time.

mod age;
mod cluster;
mod network;
mod pods;
mod workloads;

use serde_json::{Value, json};

use super::object::{self, text};
use super::resource::Resource;

pub(crate) use self::age::age;

/// What of the object stands beside a row's cells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Include {
    None,
    Metadata,
    Object,
}

impl Include {
    /// Reads the query's `includeObject`.
    pub(crate) fn of(query: &str) -> Self {
        match query {
            "None" => Self::None,
            "Object" => Self::Object,
            _ => Self::Metadata,
        }
    }
}

/// A column: its heading, and whether only `-o wide` shows it.
#[derive(Clone, Copy, Debug)]
struct Column {
    name: &'static str,
    wide: bool,
}

const fn column(name: &'static str) -> Column {
    Column { name, wide: false }
}

const fn wide(name: &'static str) -> Column {
    Column { name, wide: true }
}

/// How a kind is printed: its columns, and the cells of one object at a time in seconds of the Unix epoch.
struct Printer {
    columns: &'static [Column],
    cells: fn(&Value, i64) -> Vec<Value>,
}

const PLAIN: Printer = Printer {
    columns: &[column("Name"), column("Age")],
    cells: |object, now| vec![json!(object::name(object)), age(object, now)],
};

fn printer(resource: &Resource) -> &'static Printer {
    match resource.plural {
        "pods" => &pods::POD,
        "services" => &network::SERVICE,
        "endpoints" => &network::ENDPOINTS,
        "endpointslices" => &network::ENDPOINT_SLICE,
        "networkpolicies" => &network::NETWORK_POLICY,
        "clusternetworkpolicies" => &network::CLUSTER_NETWORK_POLICY,
        "nodes" => &cluster::NODE,
        "namespaces" => &cluster::NAMESPACE,
        "events" => &cluster::EVENT,
        "ipamblocks" => &cluster::IPAM_BLOCK,
        "configmaps" => &cluster::CONFIG_MAP,
        "secrets" => &cluster::SECRET,
        "leases" => &cluster::LEASE,
        "deployments" => &workloads::DEPLOYMENT,
        "replicasets" => &workloads::REPLICA_SET,
        "statefulsets" => &workloads::STATEFUL_SET,
        "daemonsets" => &workloads::DAEMON_SET,
        _ => &PLAIN,
    }
}

/// A table of those objects.
pub(crate) fn table<'a>(
    resource: &Resource,
    objects: impl Iterator<Item = &'a Value>,
    version: &str,
    include: Include,
    now: i64,
) -> Value {
    let printer = printer(resource);
    let mut newest = Value::Null;
    let rows: Vec<Value> = objects
        .map(|object| {
            newest = object["metadata"]["resourceVersion"].clone();
            let mut row = json!({"cells": (printer.cells)(object, now)});
            match include {
                Include::None => {}
                Include::Metadata => row["object"] = partial(object),
                Include::Object => row["object"] = object.clone(),
            }
            row
        })
        .collect();
    json!({
        "kind": "Table", "apiVersion": format!("meta.k8s.io/{version}"),
        "metadata": {"resourceVersion": newest},
        "columnDefinitions": printer.columns.iter().map(definition).collect::<Vec<_>>(),
        "rows": rows,
    })
}

fn definition(column: &Column) -> Value {
    json!({
        "name": column.name, "type": "string", "format": if column.name == "Name" { "name" } else { "" },
        "description": "", "priority": u8::from(column.wide),
    })
}

/// An object's metadata alone.
pub(crate) fn partial(object: &Value) -> Value {
    json!({
        "kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": object["metadata"],
    })
}

/// A text, or what `kubectl` shows where there is none.
fn or_none(value: &Value) -> Value {
    match text(value) {
        "" => json!("<none>"),
        text => json!(text),
    }
}

/// Words with commas between them, or what `kubectl` shows where there are none.
fn joined<T: AsRef<str>>(words: impl IntoIterator<Item = T>) -> Value {
    let words: Vec<T> = words.into_iter().collect();
    let words: Vec<&str> = words.iter().map(AsRef::as_ref).collect();
    json!(if words.is_empty() { "<none>".to_owned() } else { words.join(",") })
}

/// A map of labels as `a=b,c=d`.
fn labels(labels: &Value) -> Value {
    let labels = labels.as_object().into_iter().flatten();
    joined(labels.map(|(key, value)| format!("{key}={}", text(value))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::apiserver::resource::{RESOURCES, named};

    #[test]
    fn every_row_has_as_many_cells_as_there_are_columns() {
        let bare = json!({"metadata": {"name": "x"}});
        for resource in RESOURCES {
            let printer = printer(resource);
            assert_eq!((printer.cells)(&bare, 0).len(), printer.columns.len(), "{}", resource.plural);
            assert_eq!(printer.columns[0].name == "Name", resource.plural != "events", "{}", resource.plural);
        }
    }

    #[test]
    fn rows_carry_what_the_client_asks_for() {
        let object = json!({"metadata": {"name": "x", "resourceVersion": "7"}, "data": {"a": "b"}});
        let rows = |include| table(named("configmaps"), std::iter::once(&object), "v1", include, 0);
        assert_eq!(rows(Include::Object)["rows"][0]["object"], object);
        assert_eq!(rows(Include::Metadata)["rows"][0]["object"]["kind"], "PartialObjectMetadata");
        assert!(rows(Include::None)["rows"][0].get("object").is_none());
        assert_eq!(rows(Include::None)["metadata"]["resourceVersion"], "7");
    }
}
