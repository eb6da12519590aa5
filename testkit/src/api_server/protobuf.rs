//! Objects in JSON as an API server writes them in protobuf, by the full messages of the API (crate
//! `k8s-pb`), which share nothing with what Weft reads. As Go does, it writes plain fields even where they
//! are empty, and those behind pointers only where they are set; and with each object comes what Weft has no
//! use for.

use std::collections::BTreeMap;

use k8s_pb::api::core::v1 as core;
use k8s_pb::api::discovery::v1 as discovery;
use k8s_pb::apimachinery::pkg::api::resource::Quantity;
use k8s_pb::apimachinery::pkg::apis::meta::v1 as meta;
use k8s_pb::apimachinery::pkg::runtime;
use k8s_pb::apimachinery::pkg::util::intstr::IntOrString;
use prost::Message;
use serde_json::Value;

/// The media type.
pub const MEDIA_TYPE: &str = "application/vnd.kubernetes.protobuf";
/// That of a watch.
pub const WATCH_MEDIA_TYPE: &str = "application/vnd.kubernetes.protobuf;stream=watch";

/// The kind of the objects of a path, if they are written in protobuf.
pub fn kind_of(path: &str) -> Option<&'static str> {
    match path.rsplit('/').next()? {
        "endpointslices" => Some("EndpointSlice"),
        "nodes" => Some("Node"),
        "pods" => Some("Pod"),
        "services" => Some("Service"),
        _ => None,
    }
}

/// One object in its envelope.
///
/// # Panics
/// For a kind that is not written in protobuf.
pub fn object(kind: &str, object: &Value) -> Vec<u8> {
    envelope(kind, message(kind, object))
}

/// A list in its envelope.
pub(super) fn list<'a>(kind: &str, metadata: &Value, items: impl Iterator<Item = &'a Value>) -> Vec<u8> {
    let metadata = meta::ListMeta {
        resource_version: plain(&metadata["resourceVersion"]),
        r#continue: plain(&metadata["continue"]),
        remaining_item_count: Some(5),
        ..Default::default()
    };
    // All lists are alike: metadata (1), items (2).
    let mut list = Vec::new();
    prost::encoding::message::encode(1, &metadata, &mut list);
    for item in items {
        prost::encoding::bytes::encode(2, &message(kind, item), &mut list);
    }
    envelope(&format!("{kind}List"), list)
}

/// A line of a watch in JSON as the frame that it is in protobuf. What is no event is a frame as it is.
///
/// # Panics
/// For a kind that is not written in protobuf.
pub fn frame(kind: &str, line: &str) -> Vec<u8> {
    let event = serde_json::from_str::<Value>(line).ok().filter(|event| event["object"].is_object());
    let bytes = event.map_or_else(|| line.as_bytes().to_vec(), |event| self::event(kind, &event));
    [&u32::try_from(bytes.len()).unwrap().to_be_bytes()[..], &bytes].concat()
}

fn event(kind: &str, event: &Value) -> Vec<u8> {
    let raw = match event["type"] == "ERROR" {
        true => status(&event["object"]),
        false => object(kind, &event["object"]),
    };
    let object = Some(runtime::RawExtension { raw: Some(raw) });
    meta::WatchEvent { r#type: plain(&event["type"]), object }.encode_to_vec()
}

/// A `Status` in its envelope.
pub(super) fn status(status: &Value) -> Vec<u8> {
    let status = meta::Status {
        metadata: Some(meta::ListMeta::default()),
        status: plain(&status["status"]),
        message: plain(&status["message"]),
        reason: plain(&status["reason"]),
        code: number(&status["code"]),
        ..Default::default()
    };
    envelope("Status", status.encode_to_vec())
}

fn envelope(kind: &str, raw: Vec<u8>) -> Vec<u8> {
    let api_version = if kind.starts_with("EndpointSlice") { "discovery.k8s.io/v1" } else { "v1" };
    let text = |text: &str| Some(text.to_owned());
    let unknown = runtime::Unknown {
        type_meta: Some(runtime::TypeMeta { api_version: text(api_version), kind: text(kind) }),
        raw: Some(raw),
        content_encoding: text(""),
        content_type: text(""),
    };
    [&b"k8s\0"[..], &unknown.encode_to_vec()].concat()
}

fn message(kind: &str, object: &Value) -> Vec<u8> {
    match kind {
        "EndpointSlice" => endpoint_slice(object).encode_to_vec(),
        "Node" => node(object).encode_to_vec(),
        "Pod" => pod(object).encode_to_vec(),
        "Service" => service(object).encode_to_vec(),
        _ => panic!("no protobuf of {kind}"),
    }
}

/// A field that Go always writes.
fn plain(value: &Value) -> Option<String> {
    Some(value.as_str().unwrap_or_default().to_owned())
}

/// A field behind a pointer.
fn pointer(value: &Value) -> Option<String> {
    value.as_str().map(str::to_owned)
}

fn number<T: TryFrom<i64>>(value: &Value) -> Option<T> {
    T::try_from(value.as_i64().unwrap_or_default()).ok()
}

fn pointed<T: TryFrom<i64>>(value: &Value) -> Option<T> {
    value.as_i64().and_then(|number| T::try_from(number).ok())
}

fn each<T>(list: &Value, one: impl Fn(&Value) -> T) -> Vec<T> {
    list.as_array().into_iter().flatten().map(one).collect()
}

fn texts(list: &Value) -> Vec<String> {
    each(list, |text| text.as_str().unwrap_or_default().to_owned())
}

fn map(map: &Value) -> BTreeMap<String, String> {
    let entries = map.as_object().into_iter().flatten();
    entries.map(|(key, value)| (key.clone(), value.as_str().unwrap_or_default().to_owned())).collect()
}

/// A moment, or none, which is written as nothing.
fn time(value: &Value) -> meta::Time {
    let Some(text) = value.as_str() else { return meta::Time::default() };
    let seconds = text.parse::<jiff::Timestamp>().unwrap().as_second();
    meta::Time { seconds: Some(seconds), nanos: Some(0) }
}

fn metadata(object: &Value) -> Option<meta::ObjectMeta> {
    let object = &object["metadata"];
    let managed = |entry: &Value| meta::ManagedFieldsEntry {
        manager: plain(&entry["manager"]),
        operation: plain(&entry["operation"]),
        api_version: plain(&entry["apiVersion"]),
        time: Some(time(&entry["time"])),
        fields_type: plain(&entry["fieldsType"]),
        // These stay JSON.
        fields_v1: Some(meta::FieldsV1 { raw: Some(entry["fieldsV1"].to_string().into_bytes()) }),
        subresource: plain(&Value::Null),
    };
    Some(meta::ObjectMeta {
        name: plain(&object["name"]),
        generate_name: plain(&Value::Null),
        namespace: plain(&object["namespace"]),
        self_link: plain(&Value::Null),
        uid: plain(&object["uid"]),
        resource_version: plain(&object["resourceVersion"]),
        generation: Some(3),
        creation_timestamp: Some(time(&object["creationTimestamp"])),
        deletion_timestamp: object["deletionTimestamp"]
            .is_string()
            .then(|| time(&object["deletionTimestamp"])),
        deletion_grace_period_seconds: None,
        labels: map(&object["labels"]),
        annotations: map(&object["annotations"]),
        owner_references: vec![meta::OwnerReference { name: Some("owner".to_owned()), ..Default::default() }],
        finalizers: vec!["example.com/finalizer".to_owned()],
        managed_fields: each(&object["managedFields"], managed),
    })
}

fn service(object: &Value) -> core::Service {
    let (spec, balancer) = (&object["spec"], &object["status"]["loadBalancer"]);
    let affinity = &spec["sessionAffinityConfig"];
    let client_ip =
        |config: &Value| core::ClientIpConfig { timeout_seconds: pointed(&config["timeoutSeconds"]) };
    let spec = core::ServiceSpec {
        ports: each(&spec["ports"], |port| core::ServicePort {
            name: plain(&port["name"]),
            protocol: plain(&port["protocol"]),
            app_protocol: Some("http".to_owned()),
            port: number(&port["port"]),
            target_port: Some(IntOrString {
                r#type: Some(1),
                int_val: Some(0),
                str_val: Some("http".to_owned()),
            }),
            node_port: number(&port["nodePort"]),
        }),
        selector: map(&spec["selector"]),
        cluster_ip: plain(&spec["clusterIP"]),
        cluster_ips: texts(&spec["clusterIPs"]),
        r#type: plain(&spec["type"]),
        external_ips: texts(&spec["externalIPs"]),
        session_affinity: plain(&spec["sessionAffinity"]),
        load_balancer_ip: plain(&spec["loadBalancerIP"]),
        load_balancer_source_ranges: texts(&spec["loadBalancerSourceRanges"]),
        external_name: plain(&spec["externalName"]),
        external_traffic_policy: plain(&spec["externalTrafficPolicy"]),
        health_check_node_port: number(&spec["healthCheckNodePort"]),
        publish_not_ready_addresses: Some(false),
        session_affinity_config: affinity.is_object().then(|| core::SessionAffinityConfig {
            client_ip: affinity["clientIP"].is_object().then(|| client_ip(&affinity["clientIP"])),
        }),
        ip_families: vec!["IPv4".to_owned()],
        ip_family_policy: pointer(&spec["ipFamilyPolicy"]),
        allocate_load_balancer_node_ports: Some(true),
        load_balancer_class: pointer(&spec["loadBalancerClass"]),
        internal_traffic_policy: pointer(&spec["internalTrafficPolicy"]),
        traffic_distribution: Some("PreferClose".to_owned()),
    };
    let ingress = each(&balancer["ingress"], |ingress| core::LoadBalancerIngress {
        ip: plain(&ingress["ip"]),
        hostname: plain(&ingress["hostname"]),
        ip_mode: pointer(&ingress["ipMode"]),
        ports: vec![core::PortStatus { port: Some(80), protocol: Some("TCP".to_owned()), error: None }],
    });
    let status = core::ServiceStatus {
        load_balancer: Some(core::LoadBalancerStatus { ingress }),
        conditions: vec![meta::Condition { r#type: Some("Ready".to_owned()), ..Default::default() }],
    };
    core::Service { metadata: metadata(object), spec: Some(spec), status: Some(status) }
}

fn endpoint_slice(object: &Value) -> discovery::EndpointSlice {
    let endpoint = |endpoint: &Value| {
        let (conditions, hints) = (&endpoint["conditions"], &endpoint["hints"]);
        discovery::Endpoint {
            addresses: texts(&endpoint["addresses"]),
            conditions: Some(discovery::EndpointConditions {
                ready: conditions["ready"].as_bool(),
                serving: conditions["serving"].as_bool(),
                terminating: conditions["terminating"].as_bool(),
            }),
            hostname: pointer(&endpoint["hostname"]),
            target_ref: Some(core::ObjectReference { kind: Some("Pod".to_owned()), ..Default::default() }),
            deprecated_topology: BTreeMap::new(),
            node_name: pointer(&endpoint["nodeName"]),
            zone: Some("east".to_owned()),
            hints: hints.is_object().then(|| discovery::EndpointHints {
                for_zones: each(&hints["forZones"], |zone| discovery::ForZone { name: plain(&zone["name"]) }),
                for_nodes: each(&hints["forNodes"], |node| discovery::ForNode { name: plain(&node["name"]) }),
            }),
        }
    };
    discovery::EndpointSlice {
        metadata: metadata(object),
        address_type: plain(&object["addressType"]),
        endpoints: each(&object["endpoints"], endpoint),
        ports: each(&object["ports"], |port| discovery::EndpointPort {
            name: pointer(&port["name"]),
            protocol: pointer(&port["protocol"]),
            port: pointed(&port["port"]),
            app_protocol: Some("http".to_owned()),
        }),
    }
}

fn node(object: &Value) -> core::Node {
    let (spec, status) = (&object["spec"], &object["status"]);
    let taint = |taint: &Value| core::Taint {
        key: plain(&taint["key"]),
        value: plain(&taint["value"]),
        effect: plain(&taint["effect"]),
        time_added: None,
    };
    let image =
        |number| core::ContainerImage { names: vec![format!("image-{number}")], size_bytes: Some(1 << 30) };
    let spec = core::NodeSpec {
        pod_cidr: plain(&spec["podCIDR"]),
        pod_cid_rs: texts(&spec["podCIDRs"]),
        provider_id: Some("cloud://1".to_owned()),
        unschedulable: Some(false),
        taints: each(&spec["taints"], taint),
        ..Default::default()
    };
    let status = core::NodeStatus {
        capacity: BTreeMap::from([("cpu".to_owned(), Quantity { string: Some("8".to_owned()) })]),
        conditions: vec![core::NodeCondition { r#type: Some("Ready".to_owned()), ..Default::default() }],
        addresses: each(&status["addresses"], |address| core::NodeAddress {
            r#type: plain(&address["type"]),
            address: plain(&address["address"]),
        }),
        images: (0..50).map(image).collect(),
        ..Default::default()
    };
    core::Node { metadata: metadata(object), spec: Some(spec), status: Some(status) }
}

fn pod(object: &Value) -> core::Pod {
    let (spec, status) = (&object["spec"], &object["status"]);
    let container = |container: &Value| core::Container {
        name: Some("app".to_owned()),
        image: Some("example.com/app".to_owned()),
        env: vec![core::EnvVar { name: Some("A".to_owned()), value: Some("1".to_owned()), value_from: None }],
        ports: each(&container["ports"], |port| core::ContainerPort {
            name: plain(&port["name"]),
            host_port: Some(0),
            container_port: number(&port["containerPort"]),
            protocol: plain(&port["protocol"]),
            host_ip: plain(&Value::Null),
        }),
        restart_policy: pointer(&container["restartPolicy"]),
        ..Default::default()
    };
    let dns = &spec["dnsConfig"];
    let spec = core::PodSpec {
        volumes: vec![core::Volume { name: Some("data".to_owned()), volume_source: None }],
        init_containers: each(&spec["initContainers"], container),
        containers: each(&spec["containers"], container),
        restart_policy: Some("Always".to_owned()),
        dns_policy: plain(&spec["dnsPolicy"]),
        node_name: plain(&spec["nodeName"]),
        host_network: Some(spec["hostNetwork"].as_bool().unwrap_or_default()),
        dns_config: dns.is_object().then(|| core::PodDnsConfig {
            nameservers: vec!["192.0.2.53".to_owned()],
            searches: texts(&dns["searches"]),
            options: Vec::new(),
        }),
        ..Default::default()
    };
    let status = core::PodStatus {
        phase: plain(&status["phase"]),
        conditions: vec![core::PodCondition { r#type: Some("Ready".to_owned()), ..Default::default() }],
        message: plain(&Value::Null),
        host_ip: Some("172.30.0.11".to_owned()),
        pod_ip: plain(&status["podIP"]),
        pod_ips: each(&status["podIPs"], |ip| core::PodIp { ip: plain(&ip["ip"]) }),
        container_statuses: vec![core::ContainerStatus {
            name: Some("app".to_owned()),
            ..Default::default()
        }],
        ..Default::default()
    };
    core::Pod { metadata: metadata(object), spec: Some(spec), status: Some(status) }
}
