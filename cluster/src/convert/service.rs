//! v1 Service: how clients reach it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::num::NonZeroU16;
use std::time::Duration;

use ipnetwork::IpNetwork;
use jiff::Timestamp;
use weft_types::{Family, NamespacedName, Service, ServiceKind, ServicePort, TrafficPolicy};

use super::{address, each, label, network, port, port_name, protocol};
use crate::field::{Fault, Faults, Field};
use crate::wire;

/// The value of `spec.clusterIP` that makes a Service headless.
const NONE: &str = "None";
/// How long a client stays with its endpoint, and how long at most, in seconds (v1 ClientIPConfig).
const DEFAULT_AFFINITY: u32 = 10_800;
const LONGEST_AFFINITY: u32 = 86_400;

pub(super) fn convert(
    key: NamespacedName,
    object: wire::Service,
    faults: &mut Faults,
) -> Result<Service, Fault> {
    let key = NamespacedName::new(key.namespace, label(key.name, "metadata.name")?);
    let spec = object.spec.required("spec")?;
    let type_ = spec.type_.optional("spec.type")?.unwrap_or_else(|| "ClusterIP".to_owned());
    let has_node_ports = matches!(type_.as_str(), "NodePort" | "LoadBalancer");
    let kind = match type_.as_str() {
        "ClusterIP" | "NodePort" | "LoadBalancer" => {
            cluster_ip_kind(spec.cluster_ip, spec.cluster_ips, faults)?
        }
        "ExternalName" => ServiceKind::ExternalName(external_name(spec.external_name)?),
        other => {
            let problem = format!("{other:?} is none of ClusterIP, NodePort, LoadBalancer, ExternalName");
            return Err(Fault::new("spec.type", problem));
        }
    };
    let is_load_balancer = type_ == "LoadBalancer";
    let ports =
        each(spec.ports, "spec.ports", faults, |port, faults| service_port(port, has_node_ports, faults));
    let policy =
        |field, path, faults: &mut Faults| faults.note(traffic_policy(field, path)).unwrap_or_default();
    let health_check_port = port(spec.health_check_node_port, "spec.healthCheckNodePort");
    Ok(Service {
        key,
        kind,
        ports,
        external_ips: each(spec.external_ips, "spec.externalIPs", faults, |text, _| address(&text, "")),
        load_balancer_ips: match is_load_balancer {
            true => load_balancer_ips(object.status, faults),
            false => Vec::new(),
        },
        source_ranges: source_ranges(spec.load_balancer_source_ranges, faults),
        affinity: faults.note(affinity(spec.session_affinity, spec.session_affinity_config)).flatten(),
        health_check_port: faults.note(health_check_port).flatten().filter(|_| is_load_balancer),
        // Who cannot say since when it asks for something takes it from nobody.
        created: faults.note(created(object.metadata)).unwrap_or(i64::MAX),
        internal_policy: policy(spec.internal_traffic_policy, "spec.internalTrafficPolicy", faults),
        external_policy: policy(spec.external_traffic_policy, "spec.externalTrafficPolicy", faults),
    })
}

fn traffic_policy(field: Field<String>, path: &str) -> Result<TrafficPolicy, Fault> {
    match field.or_default(path)?.as_str() {
        "" | "Cluster" => Ok(TrafficPolicy::Cluster),
        "Local" => Ok(TrafficPolicy::Local),
        other => Err(Fault::new(path, format!("{other:?} is none of Cluster, Local"))),
    }
}

/// When the object came to be. Objects that never were at an API server do not say.
fn created(metadata: Field<wire::Metadata>) -> Result<i64, Fault> {
    let path = "metadata.creationTimestamp";
    let Some(text) = metadata.or_default("metadata")?.creation_timestamp.optional(path)? else {
        return Ok(0);
    };
    let moment: Timestamp = text.parse().map_err(|_| Fault::new(path, format!("{text:?} is no moment")))?;
    Ok(moment.as_second())
}

/// The networks of `spec.loadBalancerSourceRanges`. People write them with spaces around, and with host bits. One that
/// cannot be read lets nobody in, but it does not open the door either: its family stays restricted.
fn source_ranges(field: Field<Vec<Field<String>>>, faults: &mut Faults) -> Vec<IpNetwork> {
    let path = "spec.loadBalancerSourceRanges";
    let Some(list) = faults.note(field.or_default(path)) else { return nobody("") };
    let mut ranges = Vec::with_capacity(list.len());
    for (place, element) in list.into_iter().enumerate() {
        let path = || format!("{path}[{place}]");
        let text = match element {
            Field::Is(text) => text.trim().to_owned(),
            other => {
                faults.note(other.required("").map_err(|fault| fault.within(path())));
                ranges.extend(nobody(""));
                continue;
            }
        };
        match network(&text, "") {
            Ok(range) => ranges.push(range),
            Err(fault) => {
                faults.add(fault.within(path()));
                ranges.extend(nobody(&text));
            }
        }
    }
    ranges
}

/// Networks of the family that a text seems to mean, of both where that cannot be told, from which nobody comes: the
/// unspecified address is no packet's source (RFC 1122 section 3.2.1.3, RFC 4291 section 2.5.2).
fn nobody(text: &str) -> Vec<IpNetwork> {
    let v4 = || IpAddr::from(Ipv4Addr::UNSPECIFIED).into();
    let v6 = || IpAddr::from(Ipv6Addr::UNSPECIFIED).into();
    let is_v4 = text.contains('.') && text.chars().all(|it| it.is_ascii_digit() || "./".contains(it));
    match (is_v4, text.contains(':') && !text.contains('.')) {
        (true, _) => vec![v4()],
        (_, true) => vec![v6()],
        _ => vec![v4(), v6()],
    }
}

/// How long a client stays with its endpoint.
fn affinity(
    field: Field<String>,
    config: Field<wire::SessionAffinityConfig>,
) -> Result<Option<Duration>, Fault> {
    match field.or_default("spec.sessionAffinity")?.as_str() {
        "" | "None" => return Ok(None),
        "ClientIP" => {}
        other => {
            let problem = format!("{other:?} is none of None, ClientIP");
            return Err(Fault::new("spec.sessionAffinity", problem));
        }
    }
    let path = "spec.sessionAffinityConfig.clientIP";
    let config = config.or_default("spec.sessionAffinityConfig")?.client_ip.or_default(path)?;
    let seconds = config.timeout_seconds.optional(path)?.unwrap_or(DEFAULT_AFFINITY);
    Ok(Some(Duration::from_secs(seconds.clamp(1, LONGEST_AFFINITY).into())))
}

fn load_balancer_ips(status: Field<wire::ServiceStatus>, faults: &mut Faults) -> Vec<IpAddr> {
    let status = faults.note(status.or_default("status")).unwrap_or_default().load_balancer;
    let status = faults.note(status.or_default("status.loadBalancer")).unwrap_or_default();
    let ips = each(status.ingress, "status.loadBalancer.ingress", faults, |ip, _| load_balancer_ip(ip));
    ips.into_iter().flatten().collect()
}

/// Nothing for a load balancer that is known by a host name, and for one that rewrites the destination itself (`ipMode:
/// Proxy`), so that no packet for its own address ever comes to a node (KEP-1860).
fn load_balancer_ip(ingress: wire::LoadBalancerIngress) -> Result<Option<IpAddr>, Fault> {
    let mode = ingress.ip_mode.optional("ipMode")?;
    let ip = ingress.ip.optional("ip")?.filter(|ip| !ip.is_empty());
    match mode.as_deref().unwrap_or("VIP") {
        "VIP" => ip.map(|ip| address(&ip, "ip")).transpose(),
        _ => Ok(None),
    }
}

fn cluster_ip_kind(
    first: Field<String>,
    all: Field<Vec<Field<String>>>,
    faults: &mut Faults,
) -> Result<ServiceKind, Fault> {
    let path = "spec.clusterIP";
    let mut ips = each(all, "spec.clusterIPs", faults, |text, _| cluster_ip(&text, ""));
    // Only older API servers and hand-written manifests leave the plural out.
    if ips.is_empty() {
        let first = faults.note(first.or_default(path)).filter(|text| !text.is_empty());
        ips.extend(first.and_then(|text| faults.note(cluster_ip(&text, path))));
    }
    let Some(ips) = ips.into_iter().collect::<Option<Vec<IpAddr>>>() else {
        return Ok(ServiceKind::Headless);
    };
    let mut addresses: Vec<IpAddr> = Vec::with_capacity(ips.len());
    for ip in ips {
        match addresses.iter().any(|other| Family::of(*other) == Family::of(ip)) {
            true => faults.add(Fault::new("spec.clusterIPs", format!("{ip} is one too many of its family"))),
            false => addresses.push(ip),
        }
    }
    match addresses.is_empty() {
        true => Err(Fault::new(path, "is not set to an address; the API server assigns it")),
        false => Ok(ServiceKind::ClusterIp(addresses)),
    }
}

/// Nothing where there is to be none.
fn cluster_ip(text: &str, path: &str) -> Result<Option<IpAddr>, Fault> {
    if text == NONE { Ok(None) } else { address(text, path).map(Some) }
}

fn external_name(field: Field<String>) -> Result<String, Fault> {
    let name = field.or_default("spec.externalName")?;
    let name = name.strip_suffix('.').unwrap_or(&name).to_ascii_lowercase();
    if name.is_empty() { Err(Fault::new("spec.externalName", "is missing or empty")) } else { Ok(name) }
}

fn service_port(
    field: wire::ServicePort,
    has_node_ports: bool,
    faults: &mut Faults,
) -> Result<ServicePort, Fault> {
    let node_port: Option<NonZeroU16> = faults.note(port(field.node_port, "nodePort")).flatten();
    Ok(ServicePort {
        name: port_name(field.name)?,
        protocol: protocol(field.protocol)?,
        port: port(field.port, "port")?.ok_or_else(|| Fault::new("port", "is missing or 0"))?,
        node_port: node_port.filter(|_| has_node_ports),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use weft_types::{Object, Protocol};

    use super::*;
    use crate::convert::{Reading, read};
    use crate::view::View;

    fn reading(spec: Value) -> Reading {
        let object = json!({"metadata": {"namespace": "shop", "name": "web"}, "spec": spec});
        read(serde_json::from_value::<wire::Service>(object).unwrap(), View::Whole)
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
        let reading = read(serde_json::from_value::<wire::Service>(object).unwrap(), View::Whole);
        let Reading::InPart(Object::Service(service), malformed) = reading else { panic!("{reading:?}") };
        assert_eq!(service.load_balancer_ips, ips(&["192.0.2.2"]));
        let told = malformed.to_string();
        assert!(
            told.ends_with("status.loadBalancer.ingress[0].ip: \"192.0.2.300\" is no IP address"),
            "{told}"
        );
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
        ServicePort { name: name.to_owned(), protocol, port, node_port: NonZeroU16::new(node_port) }
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
        let convert =
            |object: Value| read(serde_json::from_value::<wire::Service>(object).unwrap(), View::Whole);
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
        assert_eq!(ranges(json!([" 198.51.100.7/24", "2001:db8::/32 "])), expected);
        assert_eq!(ranges(Value::Null), []);
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
        let timeout =
            |seconds: u32| json!({"sessionAffinityConfig": {"clientIP": {"timeoutSeconds": seconds}}});
        assert_eq!(affinity(json!({})), Some(Duration::from_secs(10_800)));
        assert_eq!(affinity(timeout(10)), Some(Duration::from_secs(10)));
        assert_eq!(
            affinity(timeout(u32::MAX)),
            Some(Duration::from_secs(86_400)),
            "as long as the API allows"
        );
        assert_eq!(affinity(json!({"sessionAffinity": "None"})), None);
        let fault = fault(json!({"clusterIP": "10.96.0.1", "sessionAffinity": "Cookie"}));
        assert!(fault.contains("spec.sessionAffinity: \"Cookie\" is none of None, ClientIP"), "{fault}");
    }

    #[test]
    fn the_age_of_an_object_is_read_from_its_metadata() {
        let created = |metadata: Value| {
            let object = json!({"metadata": metadata, "spec": {"clusterIP": "10.96.0.1"}});
            match read(serde_json::from_value::<wire::Service>(object).unwrap(), View::Whole) {
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
}
