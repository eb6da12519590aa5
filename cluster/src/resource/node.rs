//! v1 Node: its pod ranges and addresses.

use std::net::IpAddr;

use serde::Deserialize;
use weft_types::{Family, IpNetwork, Node};

use super::address::{address, network};
use super::metadata::{METADATA, Metadata, labels};
use super::values::each;
use super::{ApiResource, WireObject};
use crate::field::{Fault, Faults, Field};
use crate::filter::WatchFilter;
use crate::message::{Message, Type};

/// The label of a Node's zone.
const ZONE: &str = "topology.kubernetes.io/zone";
/// The taint of a Node that the cluster autoscaler is about to delete.
const TO_BE_DELETED: &str = "ToBeDeletedByClusterAutoscaler";

impl ApiResource for Node {
    const API_VERSION: &'static str = "v1";
    const PLURAL: &'static str = "nodes";
    // A Node tells all the images that it has: 10 KB and more, of which nothing is read.
    const PAGE: u32 = 50;

    type Wire = NodeObject;
}

/// v1 Node
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct NodeObject {
    metadata: Field<Metadata>,
    spec: Field<NodeSpec>,
    status: Field<NodeStatus>,
}

/// `spec` of a Node.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct NodeSpec {
    #[serde(rename = "podCIDR")]
    pod_cidr: Field<String>,
    #[serde(rename = "podCIDRs")]
    pod_cidrs: Field<Vec<Field<String>>>,
    taints: Field<Vec<Field<Taint>>>,
}

/// One of `spec.taints` of a Node.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Taint {
    key: Field<String>,
}

/// `status` of a Node.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct NodeStatus {
    addresses: Field<Vec<Field<NodeAddress>>>,
    conditions: Field<Vec<Field<NodeCondition>>>,
}

/// One of `status.conditions` of a Node.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct NodeCondition {
    #[serde(rename = "type")]
    type_: Field<String>,
    status: Field<String>,
}

/// One of `status.addresses` of a Node.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct NodeAddress {
    #[serde(rename = "type")]
    type_: Field<String>,
    address: Field<String>,
}

const NODE: Message = &[
    (1, "metadata", Type::Nested(METADATA)),
    (2, "spec", Type::Nested(SPEC)),
    (3, "status", Type::Nested(STATUS)),
];

const SPEC: Message = &[
    (1, "podCIDR", Type::Text),
    (5, "taints", Type::List(&Type::Nested(&[(1, "key", Type::Text)]))),
    (7, "podCIDRs", Type::List(&Type::Text)),
];

const STATUS: Message = &[
    (4, "conditions", Type::List(&Type::Nested(&[(1, "type", Type::Text), (2, "status", Type::Text)]))),
    (5, "addresses", Type::List(&Type::Nested(ADDRESS))),
];

const ADDRESS: Message = &[(1, "type", Type::Text), (2, "address", Type::Text)];

impl WireObject for NodeObject {
    type Kind = Node;
    const MESSAGE: Option<Message> = Some(NODE);

    fn metadata(&self) -> &Field<Metadata> {
        &self.metadata
    }

    fn convert(self, name: String, filter: &WatchFilter, faults: &mut Faults) -> Result<Option<Node>, Fault> {
        convert(name, self, filter, faults).map(Some)
    }
}

fn convert(
    name: String,
    object: NodeObject,
    filter: &WatchFilter,
    faults: &mut Faults,
) -> Result<Node, Fault> {
    let mut spec = object.spec.or_default("spec")?;
    let status = object.status.or_default("status")?;
    let metadata = object.metadata.required("metadata")?;
    let zone = metadata
        .labels
        .by_ref()
        .optional("metadata.labels")?
        .map(|labels| labels.get(ZONE))
        .unwrap_or_default();
    let zone = faults.note(zone.optional(&format!("metadata.labels[{ZONE}]"))).flatten();
    let zone = zone.filter(|zone| !zone.is_empty()).cloned();
    let doomed = Field::Is(TO_BE_DELETED.to_owned());
    let taints = each(std::mem::take(&mut spec.taints), "spec.taints", faults, |taint, _| Ok(taint));
    let leaving = metadata.deletion_timestamp.is_present() || taints.iter().any(|taint| taint.key == doomed);
    let is_ready = |condition: &NodeCondition| {
        (&condition.type_, &condition.status) == (&Field::Is("Ready".into()), &Field::Is("True".into()))
    };
    let conditions = each(status.conditions, "status.conditions", faults, |condition, _| Ok(condition));
    let found = each(status.addresses, "status.addresses", faults, |field, _| address_of(field));
    let (mut all_addresses, mut uid) = (Vec::new(), String::new());
    if filter.labels {
        uid = faults
            .note(metadata.uid.by_ref().optional("metadata.uid"))
            .flatten()
            .cloned()
            .unwrap_or_default();
        found.iter().flatten().for_each(|(_, address)| put_once(&mut all_addresses, *address));
    }
    let wireguard = match &metadata.annotations {
        Field::Is(annotations) => annotations.wireguard(),
        _ => None,
    };
    Ok(Node {
        name,
        pod_cidrs: pod_cidrs(spec, faults),
        addresses: addresses(&found),
        zone,
        leaving,
        ready: filter.labels && conditions.iter().any(is_ready),
        uid,
        wireguard,
        labels: labels(Field::Is(metadata), filter, faults),
        all_addresses,
    })
}

fn pod_cidrs(spec: NodeSpec, faults: &mut Faults) -> Vec<IpNetwork> {
    let mut cidrs = each(spec.pod_cidrs, "spec.podCIDRs", faults, |text, _| network(&text, ""));
    if cidrs.is_empty() {
        let first = faults.note(spec.pod_cidr.optional("spec.podCIDR")).flatten();
        let first = first.filter(|text| !text.is_empty());
        cidrs.extend(first.and_then(|text| faults.note(network(&text, "spec.podCIDR"))));
    }
    cidrs
}

/// The addresses under which the other nodes and clients reach the node, as kube-proxy takes them: of each
/// family its InternalIPs, and where it has none, its ExternalIPs.
fn addresses(all: &[Option<(Reach, IpAddr)>]) -> Vec<IpAddr> {
    let of = |wanted| all.iter().flatten().filter(move |(kind, _)| *kind == wanted).map(|(_, ip)| *ip);
    let mut addresses: Vec<IpAddr> = Vec::with_capacity(all.len());
    for address in of(Reach::Internal) {
        put_once(&mut addresses, address);
    }
    let has = |family| of(Reach::Internal).any(|internal| Family::of(internal) == family);
    for address in of(Reach::External).filter(|external| !has(Family::of(*external))) {
        put_once(&mut addresses, address);
    }
    addresses
}

fn put_once(addresses: &mut Vec<IpAddr>, address: IpAddr) {
    if !addresses.contains(&address) {
        addresses.push(address);
    }
}

/// From where an address is meant to be used.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Reach {
    Internal,
    External,
}

/// Nothing for names.
fn address_of(field: NodeAddress) -> Result<Option<(Reach, IpAddr)>, Fault> {
    let reach = match field.type_ {
        Field::Is(kind) if kind == "InternalIP" => Reach::Internal,
        Field::Is(kind) if kind == "ExternalIP" => Reach::External,
        _ => return Ok(None),
    };
    Ok(Some((reach, address(&field.address.required("address")?, "address")?)))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use weft_types::{Kind, Object, WireGuardEnd};

    use super::*;
    use crate::resource::{Reading, read, read_document};

    fn reading(object: Value) -> Reading {
        read(serde_json::from_value::<NodeObject>(object).unwrap(), &WatchFilter::default())
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

    fn addresses_of(addresses: &[(&str, &str)]) -> Vec<String> {
        let address = |(kind, address): &(&str, &str)| json!({"type": kind, "address": address});
        let addresses = addresses.iter().map(address).collect();
        match node(json!({}), addresses) {
            Reading::Object(Object::Node(node)) | Reading::InPart(Object::Node(node), _) => {
                node.addresses.iter().map(IpAddr::to_string).collect()
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn an_external_address_stands_in_for_an_internal_one_of_its_family() {
        let external = ("ExternalIP", "192.0.2.1");
        assert_eq!(addresses_of(&[external, ("Hostname", "node1"), external]), ["192.0.2.1"]);
        assert_eq!(addresses_of(&[external, ("InternalIP", "172.30.0.11")]), ["172.30.0.11"]);
        assert_eq!(addresses_of(&[external, ("InternalIP", "fd00:30::11")]), ["fd00:30::11", "192.0.2.1"]);
        assert_eq!(addresses_of(&[external, ("InternalIP", "nowhere")]), ["192.0.2.1"]);
    }

    #[test]
    fn what_cannot_be_used_is_left_out_and_the_rest_counts() {
        let reading = node(
            json!({"podCIDRs": ["10.244.001.7/24", "10.244.1.0", "fd00:10:244:1::/64"], "taints": [5]}),
            json!([
                {"type": "InternalIP", "address": "node1"},
                {"type": "InternalIP", "address": "::ffff:172.30.0.11"},
            ]),
        );
        let Reading::InPart(Object::Node(node), malformed) = reading else { panic!("{reading:?}") };
        let cidrs = ["10.244.1.0/24", "fd00:10:244:1::/64"].map(|cidr| cidr.parse().unwrap());
        assert_eq!((node.pod_cidrs, node.addresses), (cidrs.to_vec(), vec!["172.30.0.11".parse().unwrap()]));
        let told = malformed.to_string();
        assert!(told.contains("; spec.podCIDRs[1]: \"10.244.1.0\" is no network"), "{told}");
        assert!(told.contains("; status.addresses[0].address: \"node1\" is no IP address"), "{told}");
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
    fn labels_all_addresses_and_whether_it_is_ready_are_read_for_those_who_select_nodes() {
        let object = json!({
            "metadata": {"name": "node1", "labels": {"role": "gateway", "topology.kubernetes.io/zone": "east"}},
            "status": {
                "addresses": [
                    {"type": "InternalIP", "address": "172.30.0.11"},
                    {"type": "ExternalIP", "address": "192.0.2.1"},
                ],
                "conditions": [{"type": "DiskPressure", "status": "False"}, {"type": "Ready", "status": "True"}],
            },
        });
        let node = |filter: &WatchFilter| match read_document(Kind::Node, object.clone(), filter) {
            Reading::Object(Object::Node(node)) => node,
            other => panic!("{other:?}"),
        };
        let (plain, full) = (node(&WatchFilter::default()), node(&WatchFilter::network_policies()));
        assert_eq!((plain.labels.is_empty(), plain.all_addresses.len()), (true, 0));
        assert_eq!((full.labels.get("role"), full.all_addresses.len()), (Some("gateway"), 2));
        assert_eq!((plain.ready, full.ready), (false, true));
        assert_eq!((plain.zone, full.zone), (Some("east".to_owned()), Some("east".to_owned())));
        assert_eq!(plain.addresses, full.addresses);
    }

    #[test]
    fn the_end_of_the_encrypted_tunnel_is_read_as_it_stands_and_spoils_no_node() {
        let read = |annotations: Value| match reading(
            json!({"metadata": {"name": "node1", "annotations": annotations}}),
        ) {
            Reading::Object(Object::Node(node)) => node.wireguard,
            other => panic!("{other:?}"),
        };
        let end = read(json!({
            "weft.internal/wireguard-public-key": "a key",
            "weft.internal/wireguard-endpoint": "somewhere",
            "weft.internal/wireguard-retired-key": "an old one",
            "other": "x",
        }));
        let text = str::to_owned;
        let expected =
            WireGuardEnd { key: text("a key"), endpoint: text("somewhere"), retired_key: text("an old one") };
        assert_eq!(end.as_deref(), Some(&expected));
        assert_eq!(read(json!({"other": "x"})), None);
        assert_eq!(read(json!({"weft.internal/wireguard-public-key": 5})), None);
        assert_eq!(read(json!("none")), None);
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
                "Node node1: spec.podCIDR: \"10.244.1.0\" is no",
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
            let (Reading::Malformed(malformed) | Reading::InPart(_, malformed)) = reading else {
                panic!("{reading:?}")
            };
            assert!(malformed.to_string().starts_with(expected), "{malformed}");
        }
    }
}
