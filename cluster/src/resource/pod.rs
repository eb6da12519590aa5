//! v1 Pod: its addresses, and whether its resolver searches the cluster's domains.

use std::net::IpAddr;

use serde::Deserialize;
use serde::de::IgnoredAny;
use weft_types::{ContainerPort, NamespacedName, Pod, PodAddresses, PodDetails};

use super::address::address;
use super::metadata::{METADATA, Metadata, created, labels, uid_on_node};
use super::policy::port_number;
use super::values::{each, protocol};
use super::{ApiResource, WireObject};
use crate::field::{Fault, Faults, Field};
use crate::filter::WatchFilter;
use crate::message::{Message, Type};

impl ApiResource for Pod {
    const API_VERSION: &'static str = "v1";
    const PLURAL: &'static str = "pods";

    type Wire = PodObject;

    fn label_selector(filter: &WatchFilter) -> Option<String> {
        filter.objects.clone()
    }

    fn field_selector(filter: &WatchFilter) -> Option<String> {
        let running = "status.phase!=Succeeded,status.phase!=Failed";
        let of_node = |node| format!("{running},spec.nodeName={node}");
        Some(filter.node.as_ref().map_or(running.to_owned(), of_node))
    }
}

/// v1 Pod
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct PodObject {
    metadata: Field<Metadata>,
    spec: Field<PodSpec>,
    status: Field<PodStatus>,
}

/// `spec` of a Pod.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct PodSpec {
    host_network: Field<bool>,
    node_name: Field<String>,
    containers: Field<Vec<Field<Container>>>,
    init_containers: Field<Vec<Field<Container>>>,
    dns_policy: Field<String>,
    dns_config: Field<DnsConfig>,
}

/// One of the containers of a Pod.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Container {
    ports: Field<Vec<Field<Port>>>,
    restart_policy: Field<String>,
}

/// One of the ports of a container.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Port {
    name: Field<String>,
    protocol: Field<String>,
    container_port: Field<i64>,
}

/// `spec.dnsConfig` of a Pod.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct DnsConfig {
    searches: Field<Vec<IgnoredAny>>,
}

/// `status` of a Pod.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct PodStatus {
    phase: Field<String>,
    #[serde(rename = "podIP")]
    pod_ip: Field<String>,
    #[serde(rename = "podIPs")]
    pod_ips: Field<Vec<Field<PodIp>>>,
}

/// One of `status.podIPs` of a Pod.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct PodIp {
    ip: Field<String>,
}

const POD: Message = &[
    (1, "metadata", Type::Nested(METADATA)),
    (2, "spec", Type::Nested(SPEC)),
    (3, "status", Type::Nested(STATUS)),
];

const SPEC: Message = &[
    (2, "containers", Type::List(&Type::Nested(CONTAINER))),
    (6, "dnsPolicy", Type::Text),
    (10, "nodeName", Type::Text),
    (11, "hostNetwork", Type::Flag),
    (20, "initContainers", Type::List(&Type::Nested(CONTAINER))),
    (26, "dnsConfig", Type::Nested(&[(2, "searches", Type::List(&Type::Text))])),
];

const CONTAINER: Message =
    &[(6, "ports", Type::List(&Type::Nested(PORT))), (24, "restartPolicy", Type::Text)];

const PORT: Message =
    &[(1, "name", Type::Text), (3, "containerPort", Type::Number), (4, "protocol", Type::Text)];

const STATUS: Message = &[
    (1, "phase", Type::Text),
    (6, "podIP", Type::Text),
    (12, "podIPs", Type::List(&Type::Nested(&[(1, "ip", Type::Text)]))),
];

impl WireObject for PodObject {
    type Kind = Pod;
    const MESSAGE: Option<Message> = Some(POD);

    fn metadata(&self) -> &Field<Metadata> {
        &self.metadata
    }

    fn convert(
        self,
        key: NamespacedName,
        filter: &WatchFilter,
        faults: &mut Faults,
    ) -> Result<Option<Pod>, Fault> {
        convert(key, self, filter, faults)
    }
}

/// Nothing for a pod that ended: its addresses may be another's by now.
fn convert(
    key: NamespacedName,
    object: PodObject,
    filter: &WatchFilter,
    faults: &mut Faults,
) -> Result<Option<Pod>, Fault> {
    let spec = object.spec.or_default("spec")?;
    let status = object.status.or_default("status")?;
    let phase = status.phase.or_default("status.phase")?;
    if phase == "Succeeded" || phase == "Failed" {
        return Ok(None);
    }
    let text = |ip: PodIp, _: &mut Faults| address(&ip.ip.required("ip")?, "ip");
    let mut addresses: Vec<IpAddr> = each(status.pod_ips, "status.podIPs", faults, text);
    let first = status.pod_ip.or_default("status.podIP")?;
    if addresses.is_empty() && !first.is_empty() {
        addresses.extend(faults.note(address(&first, "status.podIP")));
    }
    if let Some(more) = addresses.get(PodAddresses::MOST) {
        faults.add(Fault::new(
            "status.podIPs",
            format!("{more} is one too many: a pod has one of each family"),
        ));
    }
    let on_host = spec.host_network.or_default("spec.hostNetwork")?;
    let policy = spec.dns_policy.or_default("spec.dnsPolicy")?;
    let more =
        spec.dns_config.or_default("spec.dnsConfig")?.searches.or_default("spec.dnsConfig.searches")?;
    // Off the host's network, `ClusterFirstWithHostNet` is the same as `ClusterFirst`, which is the default.
    let by_default = ["", "ClusterFirst", "ClusterFirstWithHostNet"].contains(&policy.as_str());
    let searches = !on_host && by_default && more.is_empty();
    let details = filter.pod_details.then(|| {
        let node = faults.note(spec.node_name.optional("spec.nodeName")).flatten();
        let mut ports = Vec::new();
        named_ports(spec.containers, "spec.containers", false, &mut ports, faults);
        named_ports(spec.init_containers, "spec.initContainers", true, &mut ports, faults);
        Box::new(PodDetails {
            node: node.filter(|node| !node.is_empty()).map(Into::into),
            host_network: on_host,
            uid: uid_on_node(&object.metadata).into(),
            created: faults.note(created(&object.metadata)).unwrap_or_default(),
            ports: ports.into(),
        })
    });
    let labels = labels(object.metadata, filter, faults);
    Ok(Some(Pod { key, addresses: addresses.into_iter().collect(), searches, labels, details }))
}

/// The ports with a name. Of the init containers, those that stay count, as for Services
/// (`restartPolicy: Always`).
fn named_ports(
    containers: Field<Vec<Field<Container>>>,
    path: &str,
    if_they_stay: bool,
    ports: &mut Vec<ContainerPort>,
    faults: &mut Faults,
) {
    let port = |object: Port, _: &mut Faults| {
        let Some(name) = object.name.optional("name")?.filter(|name| !name.is_empty()) else {
            return Ok(None);
        };
        let port = port_number(object.container_port.required("containerPort")?, "containerPort")?;
        Ok(Some(ContainerPort { name: name.into(), protocol: protocol(object.protocol)?, port }))
    };
    let of_container = |container: Container, faults: &mut Faults| {
        let stays = container.restart_policy.or_default("restartPolicy")? == "Always";
        Ok(match stays || !if_they_stay {
            true => each(container.ports, "ports", faults, port),
            false => Vec::new(),
        })
    };
    ports.extend(each(containers, path, faults, of_container).into_iter().flatten().flatten());
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use weft_types::{Kind, Object, Protocol};

    use super::*;
    use crate::resource::{Reading, read_document};

    fn reading(spec: Value, status: Value) -> Reading {
        let object =
            json!({"metadata": {"name": "db-0", "namespace": "shop"}, "spec": spec, "status": status});
        read_document(Kind::Pod, object, &WatchFilter::default())
    }

    fn pod(spec: Value, status: Value) -> (Vec<String>, bool) {
        let Reading::Object(Object::Pod(pod)) = reading(spec, status) else { panic!("no pod") };
        assert_eq!(pod.key.to_string(), "shop/db-0");
        (pod.addresses.iter().map(ToString::to_string).collect(), pod.searches)
    }

    #[test]
    fn a_pod_has_its_addresses_once_it_has_any() {
        let both = json!({"phase": "Running", "podIP": "10.244.1.7", "podIPs": [{"ip": "10.244.1.7"}, {"ip": "fd00::7"}]});
        assert_eq!(pod(json!({}), both).0, ["10.244.1.7", "fd00::7"]);
        assert_eq!(pod(json!({}), json!({"podIP": "10.244.1.7"})).0, ["10.244.1.7"]);
        assert_eq!(pod(json!({}), json!({"phase": "Pending"})).0, [""; 0]);
    }

    #[test]
    fn a_pod_that_ended_is_none() {
        for phase in ["Succeeded", "Failed"] {
            let reading = reading(json!({}), json!({"phase": phase, "podIP": "10.244.1.7"}));
            assert!(matches!(reading, Reading::Ignored(_)), "{phase}");
        }
    }

    #[test]
    fn only_a_pod_of_its_own_network_and_the_cluster_s_resolver_searches() {
        for (spec, searches) in [
            (json!({}), true),
            (json!({"dnsPolicy": "ClusterFirst"}), true),
            (json!({"dnsPolicy": "ClusterFirstWithHostNet"}), true),
            (json!({"dnsPolicy": "ClusterFirstWithHostNet", "hostNetwork": true}), false),
            (json!({"dnsPolicy": "Default"}), false),
            (json!({"dnsPolicy": "None"}), false),
            (json!({"dnsConfig": {"options": [{"name": "ndots", "value": "2"}]}}), true),
            (json!({"dnsConfig": {"searches": ["example.com"]}}), false),
        ] {
            assert_eq!(pod(spec.clone(), json!({})).1, searches, "{spec}");
        }
    }

    #[test]
    fn a_malformed_address_is_named_and_the_other_one_counts() {
        let status = json!({"podIPs": [{"ip": "10.1"}, {"ip": "fd00::7"}]});
        let Reading::InPart(Object::Pod(pod), malformed) = reading(json!({}), status) else {
            panic!("it is taken, or left out as a whole");
        };
        assert_eq!(*pod.addresses, ["fd00::7".parse::<std::net::IpAddr>().unwrap()]);
        assert_eq!(malformed.to_string(), "Pod shop/db-0: status.podIPs[0].ip: \"10.1\" is no IP address");
    }

    #[test]
    fn labels_are_read_for_those_who_ask_for_them() {
        let metadata =
            json!({"name": "db-0", "namespace": "shop", "labels": {"app": "db", "bad": 5, "tier": ""}});
        let labels =
            |filter: &WatchFilter| match read_document(Kind::Pod, json!({"metadata": metadata}), filter) {
                Reading::Object(Object::Pod(pod)) => (pod.labels, String::new()),
                Reading::InPart(Object::Pod(pod), malformed) => (pod.labels, malformed.to_string()),
                other => panic!("{other:?}"),
            };
        assert_eq!(labels(&WatchFilter::default()), (weft_types::Labels::default(), String::new()));
        let (labels, told) = labels(&WatchFilter { labels: true, ..WatchFilter::default() });
        assert_eq!(labels.iter().collect::<Vec<_>>(), [("app", "db"), ("tier", "")]);
        assert!(told.starts_with("Pod shop/db-0: metadata.labels[bad]: invalid type"), "{told}");
    }

    #[test]
    fn policies_are_told_node_network_age_and_named_ports() {
        let ports = json!([{"name": "http", "containerPort": 80}, {"containerPort": 81},
            {"name": "dns", "protocol": "UDP", "containerPort": 53}, {"name": "bad", "containerPort": 0}]);
        let object = json!({
            "metadata": {"name": "db-0", "namespace": "shop", "creationTimestamp": "1970-01-02T00:00:00Z"},
            "spec": {"nodeName": "node1", "hostNetwork": true, "containers": [{}, {"ports": ports}], "initContainers": [
                {"restartPolicy": "Always", "ports": [{"name": "side", "containerPort": 15}]},
                {"ports": [{"name": "once", "containerPort": 16}]},
            ]},
        });
        let details = |filter: &WatchFilter| match read_document(Kind::Pod, object.clone(), filter) {
            Reading::Object(Object::Pod(pod)) => (pod.details, String::new()),
            Reading::InPart(Object::Pod(pod), malformed) => (pod.details, malformed.to_string()),
            other => panic!("{other:?}"),
        };
        assert_eq!(details(&WatchFilter::default()), (None, String::new()));
        let (details, told) = details(&WatchFilter::network_policies());
        let details = *details.unwrap();
        let fields = (details.node.as_deref(), details.host_network, details.created);
        assert_eq!(fields, (Some("node1"), true, 86400));
        let ports: Vec<_> = details.ports.iter().map(|it| (&*it.name, it.protocol, it.port)).collect();
        assert_eq!(
            ports,
            [("http", Protocol::Tcp, 80), ("dns", Protocol::Udp, 53), ("side", Protocol::Tcp, 15)]
        );
        assert!(
            told.starts_with("Pod shop/db-0: spec.containers[1].ports[3].containerPort: 0 is no port"),
            "{told}"
        );
    }

    #[test]
    fn more_addresses_than_families_are_told() {
        let status = json!({"podIPs": [{"ip": "10.0.0.1"}, {"ip": "fd00::7"}, {"ip": "10.0.0.2"}]});
        let Reading::InPart(Object::Pod(pod), malformed) = reading(json!({}), status) else {
            panic!("taken")
        };
        assert_eq!(pod.addresses.len(), 2);
        assert!(malformed.to_string().contains("status.podIPs: 10.0.0.2 is one too many"), "{malformed}");
    }
}
