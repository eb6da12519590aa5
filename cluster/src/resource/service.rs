//! v1 Service: how clients reach it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::num::NonZeroU16;
use std::time::Duration;

use ipnetwork::IpNetwork;
use serde::Deserialize;
use weft_types::{Family, NamespacedName, Service, ServiceKind, ServicePort, TrafficPolicy};

use super::address::{address, network};
use super::metadata::{METADATA, Metadata, Texts, created, is_proxied};
use super::values::{each, label, port, port_name, protocol};
use super::{ApiResource, WireObject};
use crate::field::{Fault, Faults, Field};
use crate::filter::WatchFilter;
use crate::message::{Message, Type};

mod load_balancer;

/// The value of `spec.clusterIP` that makes a Service headless.
const NONE: &str = "None";
/// The value of `spec.type` that asks for a load balancer.
const LOAD_BALANCER: &str = "LoadBalancer";
/// How long a client stays with its endpoint, and how long at most, in seconds (v1 ClientIPConfig).
const DEFAULT_AFFINITY: u32 = 10_800;
const LONGEST_AFFINITY: u32 = 86_400;

impl ApiResource for Service {
    const API_VERSION: &'static str = "v1";
    const PLURAL: &'static str = "services";

    type Wire = ServiceObject;

    fn label_selector(filter: &WatchFilter) -> Option<String> {
        filter.service_selector()
    }
}

/// v1 Service
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct ServiceObject {
    metadata: Field<Metadata>,
    spec: Field<ServiceSpec>,
    status: Field<ServiceStatus>,
}

/// `spec` of a Service.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct ServiceSpec {
    selector: Field<Texts>,
    #[serde(rename = "type")]
    type_: Field<String>,
    #[serde(rename = "clusterIP")]
    cluster_ip: Field<String>,
    #[serde(rename = "clusterIPs")]
    cluster_ips: Field<Vec<Field<String>>>,
    external_name: Field<String>,
    #[serde(rename = "externalIPs")]
    external_ips: Field<Vec<Field<String>>>,
    internal_traffic_policy: Field<String>,
    external_traffic_policy: Field<String>,
    #[serde(rename = "loadBalancerIP")]
    load_balancer_ip: Field<String>,
    load_balancer_class: Field<String>,
    ip_family_policy: Field<String>,
    load_balancer_source_ranges: Field<Vec<Field<String>>>,
    session_affinity: Field<String>,
    session_affinity_config: Field<SessionAffinityConfig>,
    health_check_node_port: Field<u16>,
    ports: Field<Vec<Field<ServicePortObject>>>,
}

/// `spec.sessionAffinityConfig` of a Service.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct SessionAffinityConfig {
    #[serde(rename = "clientIP")]
    client_ip: Field<ClientIpConfig>,
}

/// `spec.sessionAffinityConfig.clientIP` of a Service.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct ClientIpConfig {
    timeout_seconds: Field<u32>,
}

/// `status` of a Service.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct ServiceStatus {
    load_balancer: Field<LoadBalancerStatus>,
}

/// `status.loadBalancer` of a Service.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct LoadBalancerStatus {
    ingress: Field<Vec<Field<LoadBalancerIngress>>>,
}

/// One of `status.loadBalancer.ingress` of a Service.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct LoadBalancerIngress {
    ip: Field<String>,
    ip_mode: Field<String>,
}

/// One of `spec.ports` of a Service.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct ServicePortObject {
    name: Field<String>,
    protocol: Field<String>,
    port: Field<u16>,
    node_port: Field<u16>,
}

const SERVICE: Message = &[
    (1, "metadata", Type::Nested(METADATA)),
    (2, "spec", Type::Nested(SPEC)),
    (3, "status", Type::Nested(&[(1, "loadBalancer", Type::Nested(&[(1, "ingress", INGRESS)]))])),
];

const SPEC: Message = &[
    (1, "ports", Type::List(&Type::Nested(PORT))),
    (2, "selector", Type::Map),
    (3, "clusterIP", Type::Text),
    (4, "type", Type::Text),
    (5, "externalIPs", Type::List(&Type::Text)),
    (7, "sessionAffinity", Type::Text),
    (8, "loadBalancerIP", Type::Text),
    (9, "loadBalancerSourceRanges", Type::List(&Type::Text)),
    (10, "externalName", Type::Text),
    (11, "externalTrafficPolicy", Type::Text),
    (12, "healthCheckNodePort", Type::Number),
    (14, "sessionAffinityConfig", Type::Nested(&[(1, "clientIP", CLIENT_IP)])),
    (17, "ipFamilyPolicy", Type::Text),
    (18, "clusterIPs", Type::List(&Type::Text)),
    (21, "loadBalancerClass", Type::Text),
    (22, "internalTrafficPolicy", Type::Text),
];

const PORT: Message = &[
    (1, "name", Type::Text),
    (2, "protocol", Type::Text),
    (3, "port", Type::Number),
    (5, "nodePort", Type::Number),
];

const CLIENT_IP: Type = Type::Nested(&[(1, "timeoutSeconds", Type::Number)]);

const INGRESS: Type = Type::List(&Type::Nested(&[(1, "ip", Type::Text), (3, "ipMode", Type::Text)]));

impl WireObject for ServiceObject {
    type Kind = Service;
    const MESSAGE: Option<Message> = Some(SERVICE);

    fn metadata(&self) -> &Field<Metadata> {
        &self.metadata
    }

    fn convert(
        self,
        key: NamespacedName,
        filter: &WatchFilter,
        faults: &mut Faults,
    ) -> Result<Option<Service>, Fault> {
        if filter.service_proxy && !is_proxied(&self.metadata) {
            return Ok(None);
        }
        if filter.load_balancers && !self.has_load_balancer() {
            return Ok(None);
        }
        convert(key, self, filter, faults).map(Some)
    }
}

impl ServiceObject {
    /// Whether it is to have addresses of a load balancer, or had some.
    fn has_load_balancer(&self) -> bool {
        let Field::Is(spec) = &self.spec else { return false };
        let is_wanted = matches!(&spec.type_, Field::Is(type_) if type_ == LOAD_BALANCER);
        is_wanted || matches!(&self.status, Field::Is(status) if !status.ingress().is_empty())
    }
}

impl ServiceStatus {
    /// All of `status.loadBalancer.ingress`, as far as it is a list.
    fn ingress(&self) -> &[Field<LoadBalancerIngress>] {
        match &self.load_balancer {
            Field::Is(LoadBalancerStatus { ingress: Field::Is(ingress) }) => ingress,
            _ => &[],
        }
    }
}

fn convert(
    key: NamespacedName,
    object: ServiceObject,
    filter: &WatchFilter,
    faults: &mut Faults,
) -> Result<Service, Fault> {
    let key = NamespacedName::new(key.namespace, label(key.name, "metadata.name")?);
    let mut spec = object.spec.required("spec")?;
    let type_ = std::mem::take(&mut spec.type_).optional("spec.type")?.filter(|type_| !type_.is_empty());
    let type_ = type_.unwrap_or_else(|| "ClusterIP".to_owned());
    let is_load_balancer = type_ == LOAD_BALANCER;
    // Who cannot say since when it asks for something takes it from nobody.
    let created = faults.note(created(&object.metadata)).unwrap_or(i64::MAX);
    let load_balancer = filter.load_balancers.then(|| {
        let ingress = object.status.by_ref().or_nothing().map(ServiceStatus::ingress).unwrap_or_default();
        load_balancer::read(object.metadata, &mut spec, ingress, (is_load_balancer, filter), faults).into()
    });
    let has_node_ports = matches!(type_.as_str(), "NodePort" | LOAD_BALANCER);
    let kind = match type_.as_str() {
        "ClusterIP" | "NodePort" | LOAD_BALANCER => {
            cluster_ip_kind(spec.cluster_ip, spec.cluster_ips, faults)?
        }
        "ExternalName" => ServiceKind::ExternalName(external_name(spec.external_name)?),
        other => {
            let problem = format!("{other:?} is none of ClusterIP, NodePort, LoadBalancer, ExternalName");
            return Err(Fault::new("spec.type", problem));
        }
    };
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
        source_ranges: source_ranges(spec.load_balancer_source_ranges, faults).into(),
        affinity: faults.note(affinity(spec.session_affinity, spec.session_affinity_config)).flatten(),
        health_check_port: faults.note(health_check_port).flatten().filter(|_| is_load_balancer),
        created,
        internal_policy: policy(spec.internal_traffic_policy, "spec.internalTrafficPolicy", faults),
        external_policy: policy(spec.external_traffic_policy, "spec.externalTrafficPolicy", faults),
        load_balancer,
    })
}

fn traffic_policy(field: Field<String>, path: &str) -> Result<TrafficPolicy, Fault> {
    match field.or_default(path)?.as_str() {
        "" | "Cluster" => Ok(TrafficPolicy::Cluster),
        "Local" => Ok(TrafficPolicy::Local),
        other => Err(Fault::new(path, format!("{other:?} is none of Cluster, Local"))),
    }
}

/// The networks of `spec.loadBalancerSourceRanges`. People write them with spaces around, and with host bits.
/// One that cannot be read lets nobody in, but it does not open the door either: its family stays restricted.
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

/// Networks of the family that a text seems to mean, of both where that cannot be told, from which nobody
/// comes: the unspecified address is no packet's source (RFC 1122 section 3.2.1.3, RFC 4291 section 2.5.2).
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
fn affinity(field: Field<String>, config: Field<SessionAffinityConfig>) -> Result<Option<Duration>, Fault> {
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

fn load_balancer_ips(status: Field<ServiceStatus>, faults: &mut Faults) -> Vec<IpAddr> {
    let status = faults.note(status.or_default("status")).unwrap_or_default().load_balancer;
    let status = faults.note(status.or_default("status.loadBalancer")).unwrap_or_default();
    let ips = each(status.ingress, "status.loadBalancer.ingress", faults, |ip, _| load_balancer_ip(ip));
    ips.into_iter().flatten().collect()
}

/// Nothing for a load balancer that is known by a host name, and for one that rewrites the destination itself
/// (`ipMode: Proxy`), so that no packet for its own address ever comes to a node (KEP-1860).
fn load_balancer_ip(ingress: LoadBalancerIngress) -> Result<Option<IpAddr>, Fault> {
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
    field: ServicePortObject,
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
mod tests;
