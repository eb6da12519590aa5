//! v1 Node: its pod ranges and addresses.

use std::net::IpAddr;

use weft_types::{IpNetwork, Node};

use super::{address, each, network};
use crate::field::{Fault, Field};
use crate::wire;

/// The taint of a Node that the cluster autoscaler is about to delete.
const TO_BE_DELETED: &str = "ToBeDeletedByClusterAutoscaler";

pub(super) fn convert(name: String, object: wire::Node) -> Result<Node, Fault> {
    let mut spec = object.spec.or_default("spec")?;
    let status = object.status.or_default("status")?;
    let addresses = each(status.addresses, "status.addresses", internal_ip)?.into_iter().flatten().collect();
    let metadata = object.metadata.or_default("metadata")?;
    let labels = metadata.labels.or_default("metadata.labels")?;
    let zone = labels.zone.optional("metadata.labels[topology.kubernetes.io/zone]")?;
    let doomed = Field::Is(TO_BE_DELETED.to_owned());
    let taints = each(std::mem::take(&mut spec.taints), "spec.taints", Ok)?;
    let leaving = metadata.deletion_timestamp.is_present() || taints.iter().any(|taint| taint.key == doomed);
    let zone = zone.filter(|zone| !zone.is_empty());
    Ok(Node { name, pod_cidrs: pod_cidrs(spec)?, addresses, zone, leaving })
}

fn pod_cidrs(spec: wire::NodeSpec) -> Result<Vec<IpNetwork>, Fault> {
    let mut texts = each(spec.pod_cidrs, "spec.podCIDRs", Ok)?;
    if texts.is_empty() {
        texts.extend(spec.pod_cidr.optional("spec.podCIDR")?.filter(|text| !text.is_empty()));
    }
    texts.iter().map(|text| network(text, "spec.podCIDRs")).collect()
}

/// Nothing for an address that the other nodes do not use.
fn internal_ip(field: wire::NodeAddress) -> Result<Option<IpAddr>, Fault> {
    if field.type_ != Field::Is("InternalIP".to_owned()) {
        return Ok(None);
    }
    address(&field.address.required("address")?, "address").map(Some)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use weft_types::Object;

    use super::*;
    use crate::convert::{Reading, read};
    use crate::view::View;

    fn reading(object: Value) -> Reading {
        read(serde_json::from_value::<wire::Node>(object).unwrap(), View::Whole)
    }

    fn node(spec: Value, addresses: Value) -> Reading {
        reading(json!({"metadata": {"name": "node1"}, "spec": spec, "status": {"addresses": addresses}}))
    }

    #[test]
    fn both_families_in_the_objects_order() {
        let reading = node(
            json!({"podCIDR": "10.244.1.0/24", "podCIDRs": ["10.244.1.0/24", "fd00:10:244:1::/64"]}),
            json!([
                {"type": "Hostname", "address": "node1"},
                {"type": "ExternalIP", "address": "192.0.2.1"},
                {"type": "InternalIP", "address": "172.30.0.11"},
                {"type": "InternalIP", "address": "fd00:30::11"},
            ]),
        );
        let expected = Node {
            name: "node1".to_owned(),
            pod_cidrs: vec!["10.244.1.0/24".parse().unwrap(), "fd00:10:244:1::/64".parse().unwrap()],
            addresses: vec!["172.30.0.11".parse().unwrap(), "fd00:30::11".parse().unwrap()],
            ..Node::default()
        };
        assert_eq!(reading, Reading::Object(Object::Node(expected)));
    }

    #[test]
    fn the_singular_stands_in_for_the_plural() {
        let Reading::Object(Object::Node(node)) = node(json!({"podCIDR": "10.244.1.0/24"}), Value::Null)
        else {
            panic!()
        };
        assert_eq!(node.pod_cidrs, ["10.244.1.0/24".parse().unwrap()]);
    }

    #[test]
    fn a_node_may_have_nothing_yet() {
        let expected = Node { name: "node1".to_owned(), ..Node::default() };
        let bare = json!({"metadata": {"name": "node1"}});
        assert_eq!(reading(bare), Reading::Object(Object::Node(expected)));
    }

    #[test]
    fn zone_and_whether_it_is_about_to_go() {
        let read = |metadata: Value, spec: Value| match reading(json!({"metadata": metadata, "spec": spec})) {
            Reading::Object(Object::Node(node)) => (node.zone, node.leaving),
            other => panic!("{other:?}"),
        };
        let labels = json!({"topology.kubernetes.io/zone": "east", "other": "x"});
        assert_eq!(read(json!({"name": "node1", "labels": labels}), json!({})), (Some("east".into()), false));
        let deleted = json!({"name": "node1", "deletionTimestamp": "2024-02-03T04:05:06Z"});
        assert_eq!(read(deleted, json!({})), (None, true));
        let taints = |key: &str| json!({"taints": [{"key": key, "effect": "NoSchedule"}]});
        assert_eq!(read(json!({"name": "node1"}), taints("ToBeDeletedByClusterAutoscaler")), (None, true));
        assert_eq!(read(json!({"name": "node1"}), taints("dedicated")), (None, false));
    }

    #[test]
    fn faults_name_the_object_and_the_field() {
        for (reading, expected) in [
            (
                node(json!({"podCIDR": "10.244.1.0"}), Value::Null),
                "Node node1: spec.podCIDRs: \"10.244.1.0\" is no",
            ),
            (
                node(json!({"podCIDR": "10.244.1.7/24"}), Value::Null),
                "Node node1: spec.podCIDRs: 10.244.1.7/24 has",
            ),
            (
                node(json!({}), json!([{"type": "InternalIP", "address": "node1"}])),
                "Node node1: status.addresses[0].address: \"node1\" is no IP address",
            ),
            (
                reading(json!({"metadata": {"name": ""}})),
                "Node without a usable name: metadata.name: is empty",
            ),
            (reading(json!({"metadata": 5})), "Node without a usable name: metadata: invalid type"),
        ] {
            let Reading::Malformed(malformed) = reading else { panic!("{reading:?}") };
            assert!(malformed.to_string().starts_with(expected), "{malformed}");
        }
    }
}
