//! The tables of Nodes, Namespaces, Events, ConfigMaps, Secrets and Leases.

use serde_json::{Value, json};

use super::age::since;
use super::{Printer, age, column, joined, or_none, wide};
use crate::apiserver::object::{self, condition, items, text};

const ROLE: &str = "node-role.kubernetes.io/";

/// How Nodes are printed.
pub(super) const NODE: Printer = Printer {
    columns: &[
        column("Name"),
        column("Status"),
        column("Roles"),
        column("Age"),
        column("Version"),
        wide("Internal-IP"),
        wide("External-IP"),
        wide("OS-Image"),
        wide("Kernel-Version"),
        wide("Container-Runtime"),
    ],
    cells: |node, now| {
        let info = &node["status"]["nodeInfo"];
        let unknown = |value: &Value| if text(value).is_empty() { json!("<unknown>") } else { value.clone() };
        let labels = node["metadata"]["labels"].as_object().into_iter().flatten();
        vec![
            json!(object::name(node)),
            json!(node_status(node)),
            joined(labels.filter_map(|(key, _)| key.strip_prefix(ROLE))),
            age(node, now),
            json!(text(&info["kubeletVersion"])),
            address(node, "InternalIP"),
            address(node, "ExternalIP"),
            unknown(&info["osImage"]),
            unknown(&info["kernelVersion"]),
            unknown(&info["containerRuntimeVersion"]),
        ]
    },
};

fn node_status(node: &Value) -> String {
    let ready = match condition(node, "Ready") {
        "True" => "Ready",
        "" => "Unknown",
        _ => "NotReady",
    };
    let cordoned = node["spec"]["unschedulable"] == true;
    format!("{ready}{}", if cordoned { ",SchedulingDisabled" } else { "" })
}

fn address(node: &Value, kind: &str) -> Value {
    let found = items(&node["status"]["addresses"]).iter().find(|address| address["type"] == kind);
    found.map_or_else(|| json!("<none>"), |address| address["address"].clone())
}

/// How Namespaces are printed.
pub(super) const NAMESPACE: Printer = Printer {
    columns: &[column("Name"), column("Status"), column("Age")],
    cells: |object, now| {
        vec![json!(object::name(object)), json!(text(&object["status"]["phase"])), age(object, now)]
    },
};

/// How Events are printed.
pub(super) const EVENT: Printer = Printer {
    columns: &[
        column("Last Seen"),
        column("Type"),
        column("Reason"),
        column("Object"),
        wide("Source"),
        column("Message"),
        wide("Count"),
        wide("Name"),
    ],
    cells: |event, now| {
        let about = &event["involvedObject"];
        let times = [&event["lastTimestamp"], &event["eventTime"], &event["firstTimestamp"]];
        let last = times.into_iter().find(|time| time.is_string()).unwrap_or(&Value::Null);
        let source = [&event["source"]["component"], &event["reportingComponent"]];
        vec![
            since(last, now),
            json!(text(&event["type"])),
            json!(text(&event["reason"])),
            json!(format!("{}/{}", text(&about["kind"]).to_lowercase(), text(&about["name"]))),
            json!(source.into_iter().map(text).find(|word| !word.is_empty()).unwrap_or_default()),
            json!(text(&event["message"]).trim()),
            json!(event["count"].as_i64().unwrap_or(1)),
            json!(object::name(event)),
        ]
    },
};

/// How IPAMBlocks are printed.
pub(super) const IPAM_BLOCK: Printer = Printer {
    columns: &[column("Name"), column("CIDR"), column("Node"), column("Age")],
    cells: |block, now| {
        let spec = &block["spec"];
        vec![json!(object::name(block)), spec["cidr"].clone(), spec["node"].clone(), age(block, now)]
    },
};

/// How ConfigMaps are printed.
pub(super) const CONFIG_MAP: Printer = Printer {
    columns: &[column("Name"), column("Data"), column("Age")],
    cells: |map, now| {
        vec![json!(object::name(map)), json!(count(&map["data"]) + count(&map["binaryData"])), age(map, now)]
    },
};

/// How Secrets are printed.
pub(super) const SECRET: Printer = Printer {
    columns: &[column("Name"), column("Type"), column("Data"), column("Age")],
    cells: |secret, now| {
        let kind = secret["type"].clone();
        vec![json!(object::name(secret)), kind, json!(count(&secret["data"])), age(secret, now)]
    },
};

/// How Leases are printed.
pub(super) const LEASE: Printer = Printer {
    columns: &[column("Name"), column("Holder"), column("Age")],
    cells: |lease, now| {
        vec![json!(object::name(lease)), or_none(&lease["spec"]["holderIdentity"]), age(lease, now)]
    },
};

fn count(map: &Value) -> usize {
    map.as_object().map_or(0, serde_json::Map::len)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cordoned_node_with_a_role() {
        let node = json!({
            "metadata": {"name": "n1", "labels": {"node-role.kubernetes.io/control-plane": ""}},
            "spec": {"unschedulable": true},
            "status": {"conditions": [{"type": "Ready", "status": "True"}],
                       "addresses": [{"type": "InternalIP", "address": "172.30.0.11"}],
                       "nodeInfo": {"kubeletVersion": "v1.33.0"}},
        });
        let cells = (NODE.cells)(&node, 0);
        let words: Vec<&str> = cells.iter().map(text).collect();
        assert_eq!(
            words[..7],
            [
                "n1",
                "Ready,SchedulingDisabled",
                "control-plane",
                "<unknown>",
                "v1.33.0",
                "172.30.0.11",
                "<none>"
            ]
        );
    }

    #[test]
    fn an_event_tells_about_its_object() {
        let event = json!({
            "metadata": {"name": "x.1"}, "type": "Warning", "reason": "Failed", "message": "no\n",
            "involvedObject": {"kind": "Pod", "name": "x"}, "lastTimestamp": "1970-01-01T00:00:01Z",
        });
        let cells = (EVENT.cells)(&event, 4);
        assert_eq!(cells[..4], [json!("3s"), json!("Warning"), json!("Failed"), json!("pod/x")]);
        assert_eq!(cells[5], "no");
    }
}
