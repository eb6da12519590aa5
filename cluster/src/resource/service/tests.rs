//! What Services come to.

use serde_json::{Value, json};
use weft_types::{Object, Protocol};

use super::*;
use crate::resource::{Reading, read};

fn reading(spec: Value) -> Reading {
    let object = json!({"metadata": {"namespace": "shop", "name": "web"}, "spec": spec});
    read(serde_json::from_value::<ServiceObject>(object).unwrap(), &WatchFilter::default())
}

fn service(spec: Value) -> Service {
    match reading(spec) {
        Reading::Object(Object::Service(service)) => service,
        other => panic!("{other:?}"),
    }
}

fn fault(spec: Value) -> String {
    match reading(spec) {
        Reading::Malformed(malformed) | Reading::InPart(_, malformed) => malformed.to_string(),
        other => panic!("{other:?}"),
    }
}

/// What is left of a Service of which some cannot be used.
fn rest(spec: Value) -> Service {
    match reading(spec) {
        Reading::InPart(Object::Service(service), _) => service,
        other => panic!("{other:?}"),
    }
}

fn ips(texts: &[&str]) -> Vec<IpAddr> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

#[test]
fn addresses_are_read_as_kubernetes_reads_them() {
    let service = service(json!({
        "clusterIP": "010.096.000.007", "externalIPs": ["203.000.113.020", "::ffff:203.0.113.21"],
    }));
    assert_eq!(service.cluster_ips(), ips(&["10.96.0.7"]));
    assert_eq!(service.external_ips, ips(&["203.0.113.20", "203.0.113.21"]));
}

#[test]
fn what_cannot_be_used_is_left_out_and_the_rest_serves() {
    let service = rest(json!({
        "type": "NodePort", "clusterIPs": ["10.96.0.7", "10.96.0.8", "fd00::g", "fd00:96::7"],
        "externalIPs": ["203.0.113.20", "example.com", 5],
        "ports": [{"port": 80, "nodePort": 70000}, {"port": 0}, {"port": 443, "nodePort": 30443}],
        "sessionAffinity": "Cookie", "externalTrafficPolicy": "Nearby", "healthCheckNodePort": "x",
    }));
    assert_eq!(service.cluster_ips(), ips(&["10.96.0.7", "fd00:96::7"]));
    assert_eq!(service.external_ips, ips(&["203.0.113.20"]));
    assert_eq!(service.ports, [port("", Protocol::Tcp, 80, 0), port("", Protocol::Tcp, 443, 30443)]);
    assert_eq!((service.affinity, service.external_policy), (None, TrafficPolicy::Cluster));

    let ingress = json!([{"ip": "192.0.2.300"}, {"ip": "192.0.2.2"}]);
    let object = json!({
        "metadata": {"namespace": "shop", "name": "web"},
        "spec": {"type": "LoadBalancer", "clusterIP": "10.96.0.1"},
        "status": {"loadBalancer": {"ingress": ingress}},
    });
    let reading = read(serde_json::from_value::<ServiceObject>(object).unwrap(), &WatchFilter::default());
    let Reading::InPart(Object::Service(service), malformed) = reading else { panic!("{reading:?}") };
    assert_eq!(service.load_balancer_ips, ips(&["192.0.2.2"]));
    let told = malformed.to_string();
    assert!(told.ends_with("status.loadBalancer.ingress[0].ip: \"192.0.2.300\" is no IP address"), "{told}");
}

#[test]
fn a_source_range_that_cannot_be_read_opens_nothing() {
    let ranges = |ranges: Value| {
        let ranges =
            rest(json!({"clusterIP": "10.96.0.1", "loadBalancerSourceRanges": ranges})).source_ranges;
        ranges.iter().map(IpNetwork::to_string).collect::<Vec<_>>()
    };
    assert_eq!(ranges(json!(["198.51.100.0/33"])), ["0.0.0.0/32"], "IPv6 is as open as it was");
    assert_eq!(ranges(json!(["198.51.100.0/24", "2001:db8::/129"])), ["198.51.100.0/24", "::/128"]);
    for unclear in [json!(["everybody"]), json!([5]), json!([null]), json!([""]), json!(5)] {
        assert_eq!(ranges(unclear.clone()), ["0.0.0.0/32", "::/128"], "{unclear}");
    }
}

fn port(name: &str, protocol: Protocol, port: u16, node_port: u16) -> ServicePort {
    let port = NonZeroU16::new(port).unwrap();
    ServicePort { name: name.into(), protocol, port, node_port: NonZeroU16::new(node_port) }
}

#[test]
fn external_addresses_and_policies() {
    let object = json!({
        "metadata": {"namespace": "shop", "name": "web"},
        "spec": {"type": "LoadBalancer", "clusterIP": "10.96.0.1", "externalIPs": ["192.0.2.1"],
            "internalTrafficPolicy": "Local", "externalTrafficPolicy": "Local"},
        "status": {"loadBalancer": {"ingress": [
            {"ip": "192.0.2.2"}, {"ip": "192.0.2.3", "ipMode": "VIP"}, {"ip": "192.0.2.4", "ipMode": "Proxy"},
            {"hostname": "balancer.example.com"}]}},
    });
    let convert = |object: Value| {
        read(serde_json::from_value::<ServiceObject>(object).unwrap(), &WatchFilter::default())
    };
    let Reading::Object(Object::Service(service)) = convert(object.clone()) else { panic!() };
    assert_eq!(service.external_ips, ips(&["192.0.2.1"]));
    assert_eq!(service.load_balancer_ips, ips(&["192.0.2.2", "192.0.2.3"]));
    assert_eq!([service.internal_policy, service.external_policy], [TrafficPolicy::Local; 2]);
    let mut node_port = object.clone();
    node_port["spec"]["type"] = json!("NodePort");
    let Reading::Object(Object::Service(service)) = convert(node_port) else { panic!() };
    assert!(service.load_balancer_ips.is_empty(), "what another type left behind");
    let mut odd = object;
    odd["spec"]["internalTrafficPolicy"] = json!("Nearby");
    let Reading::InPart(_, malformed) = convert(odd) else { panic!() };
    assert!(malformed.to_string().contains("spec.internalTrafficPolicy: \"Nearby\""), "{malformed}");
}

#[test]
fn source_ranges_are_trimmed_and_lose_their_host_bits() {
    let ranges = |ranges: Value| {
        let ports = json!([]);
        service(json!({"clusterIP": "10.96.0.1", "ports": ports, "loadBalancerSourceRanges": ranges}))
            .source_ranges
    };
    let expected = ["198.51.100.0/24", "2001:db8::/32"].map(|range| range.parse().unwrap());
    assert_eq!(*ranges(json!([" 198.51.100.7/24", "2001:db8::/32 "])), expected);
    assert!(ranges(Value::Null).is_empty());
    let bad = json!({"clusterIP": "10.96.0.1", "loadBalancerSourceRanges": ["0.0.0.0/0", "everybody"]});
    let fault = fault(bad);
    assert!(fault.contains("spec.loadBalancerSourceRanges[1]: \"everybody\" is no network"), "{fault}");
}

#[test]
fn client_ip_affinity_lasts_three_hours_unless_told_otherwise() {
    let affinity = |config: Value| {
        let mut spec = json!({"clusterIP": "10.96.0.1", "sessionAffinity": "ClientIP"});
        spec.as_object_mut().unwrap().extend(config.as_object().unwrap().clone());
        service(spec).affinity
    };
    let timeout = |seconds: u32| json!({"sessionAffinityConfig": {"clientIP": {"timeoutSeconds": seconds}}});
    assert_eq!(affinity(json!({})), Some(Duration::from_secs(10_800)));
    assert_eq!(affinity(timeout(10)), Some(Duration::from_secs(10)));
    assert_eq!(affinity(timeout(u32::MAX)), Some(Duration::from_secs(86_400)), "as long as the API allows");
    assert_eq!(affinity(json!({"sessionAffinity": "None"})), None);
    let fault = fault(json!({"clusterIP": "10.96.0.1", "sessionAffinity": "Cookie"}));
    assert!(fault.contains("spec.sessionAffinity: \"Cookie\" is none of None, ClientIP"), "{fault}");
}

#[test]
fn the_age_of_an_object_is_read_from_its_metadata() {
    let created = |metadata: Value| {
        let object = json!({"metadata": metadata, "spec": {"clusterIP": "10.96.0.1"}});
        match read(serde_json::from_value::<ServiceObject>(object).unwrap(), &WatchFilter::default()) {
            Reading::Object(Object::Service(service)) => Some(service.created),
            Reading::InPart(Object::Service(service), _) => Some(service.created),
            _ => None,
        }
    };
    let metadata = |moment: &str| json!({"namespace": "a", "name": "b", "creationTimestamp": moment});
    assert_eq!(created(metadata("2024-02-03T04:05:06Z")), Some(1_706_933_106));
    assert_eq!(created(json!({"namespace": "a", "name": "b"})), Some(0));
    assert_eq!(created(metadata("yesterday")), Some(i64::MAX), "it is before nobody");
}

#[test]
fn a_node_port_service() {
    let service = service(json!({
        "type": "NodePort", "clusterIP": "10.96.0.7", "clusterIPs": ["10.96.0.7", "fd00:96::7"],
        "ports": [
            {"name": "http", "port": 80, "targetPort": "web", "nodePort": 30080},
            {"name": "dns", "protocol": "UDP", "port": 53, "nodePort": 0},
        ],
    }));
    let addresses = vec!["10.96.0.7".parse().unwrap(), "fd00:96::7".parse().unwrap()];
    let ports = vec![port("http", Protocol::Tcp, 80, 30080), port("dns", Protocol::Udp, 53, 0)];
    let key = NamespacedName::new("shop", "web");
    assert_eq!(service, Service::new(key, ServiceKind::ClusterIp(addresses), ports));
}

#[test]
fn the_type_defaults_to_cluster_ip_and_the_plural_to_the_singular() {
    let service = service(json!({"clusterIP": "10.96.0.7", "ports": [{"port": 80, "nodePort": 30080}]}));
    assert_eq!(service.cluster_ips(), ["10.96.0.7".parse::<IpAddr>().unwrap()]);
    assert_eq!(service.ports, [port("", Protocol::Tcp, 80, 0)], "a ClusterIP Service has no node port");
}

#[test]
fn headless_services() {
    assert_eq!(service(json!({"clusterIP": "None"})).kind, ServiceKind::Headless);
    assert_eq!(service(json!({"clusterIP": "None", "clusterIPs": ["None"]})).kind, ServiceKind::Headless);
}

#[test]
fn an_external_name_loses_its_dot_and_its_case() {
    let kind = service(json!({"type": "ExternalName", "externalName": "DB.Example.com."})).kind;
    assert_eq!(kind, ServiceKind::ExternalName("db.example.com".to_owned()));
}

#[test]
fn faults_name_the_object_and_the_field() {
    for (spec, expected) in [
        (Value::Null, "spec: is missing"),
        (json!({"type": "Cluster"}), r#"spec.type: "Cluster" is none of ClusterIP"#),
        (json!({}), "spec.clusterIP: is not set"),
        (json!({"clusterIP": "10.96.0"}), r#"spec.clusterIP: "10.96.0" is no IP address"#),
        (json!({"clusterIPs": ["10.96.0.1", "10.96.0.2"]}), "spec.clusterIPs: 10.96.0.2 is one too many"),
        (json!({"type": "ExternalName", "externalName": "."}), "spec.externalName: is missing or empty"),
        (
            json!({"clusterIP": "None", "ports": [{"port": 80}, {"port": 0}]}),
            "spec.ports[1].port: is missing",
        ),
        (json!({"clusterIP": "None", "ports": [{"port": 70000}]}), "spec.ports[0].port: invalid value"),
        (json!({"clusterIP": "None", "ports": [7]}), "spec.ports[0]: invalid type"),
        (
            json!({"clusterIP": "None", "ports": [{"port": 1, "protocol": "ICMP"}]}),
            r#"spec.ports[0].protocol: protocol "ICMP" is none of"#,
        ),
        (json!({"clusterIP": "None", "ports": [{"port": 1, "name": "A.b"}]}), "spec.ports[0].name: "),
    ] {
        let fault = fault(spec);
        assert!(fault.starts_with(&format!("Service shop/web: {expected}")), "{fault}");
    }
}
