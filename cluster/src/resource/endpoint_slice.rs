//! discovery.k8s.io/v1 EndpointSlice: what stands behind a Service.

use serde::Deserialize;
use weft_types::well_known::label::SERVICE_NAME;
use weft_types::{Endpoint, EndpointPort, EndpointSlice, Family, Hints, NamespacedName};

use super::address::address;
use super::metadata::{METADATA, Metadata, is_proxied};
use super::values::{each, label, port, port_name, protocol};
use super::{ApiResource, WireObject};
use crate::field::{Fault, Faults, Field};
use crate::filter::WatchFilter;
use crate::message::{Message, Type};

impl ApiResource for EndpointSlice {
    const API_VERSION: &'static str = "discovery.k8s.io/v1";
    const PLURAL: &'static str = "endpointslices";

    type Wire = EndpointSliceObject;

    fn label_selector(filter: &WatchFilter) -> Option<String> {
        filter.service_selector()
    }
}

/// discovery.k8s.io/v1 EndpointSlice
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct EndpointSliceObject {
    metadata: Field<Metadata>,
    address_type: Field<String>,
    endpoints: Field<Vec<Field<EndpointObject>>>,
    ports: Field<Vec<Field<EndpointPortObject>>>,
}

/// One of `endpoints` of an EndpointSlice.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct EndpointObject {
    addresses: Field<Vec<Field<String>>>,
    conditions: Field<EndpointConditions>,
    hostname: Field<String>,
    node_name: Field<String>,
    hints: Field<EndpointHints>,
    target_ref: Field<TargetRef>,
}

/// `targetRef` of an endpoint.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct TargetRef {
    kind: Field<String>,
    name: Field<String>,
}

/// `hints` of an endpoint.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct EndpointHints {
    for_nodes: Field<Vec<Field<Named>>>,
    for_zones: Field<Vec<Field<Named>>>,
}

/// A name in a list of hints.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Named {
    name: Field<String>,
}

/// `conditions` of an endpoint.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct EndpointConditions {
    ready: Field<bool>,
    serving: Field<bool>,
    terminating: Field<bool>,
}

/// One of `ports` of an EndpointSlice.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct EndpointPortObject {
    name: Field<String>,
    protocol: Field<String>,
    port: Field<u16>,
}

const ENDPOINT_SLICE: Message = &[
    (1, "metadata", Type::Nested(METADATA)),
    (2, "endpoints", Type::List(&Type::Nested(ENDPOINT))),
    (3, "ports", Type::List(&Type::Nested(PORT))),
    (4, "addressType", Type::Text),
];

const ENDPOINT: Message = &[
    (1, "addresses", Type::List(&Type::Text)),
    (2, "conditions", Type::Nested(CONDITIONS)),
    (3, "hostname", Type::Text),
    (4, "targetRef", Type::Nested(&[(1, "kind", Type::Text), (3, "name", Type::Text)])),
    (6, "nodeName", Type::Text),
    (8, "hints", Type::Nested(&[(1, "forZones", NAMED), (2, "forNodes", NAMED)])),
];

const CONDITIONS: Message =
    &[(1, "ready", Type::Flag), (2, "serving", Type::Flag), (3, "terminating", Type::Flag)];

const NAMED: Type = Type::List(&Type::Nested(&[(1, "name", Type::Text)]));

const PORT: Message = &[(1, "name", Type::Text), (2, "protocol", Type::Text), (3, "port", Type::Number)];

impl WireObject for EndpointSliceObject {
    type Kind = EndpointSlice;
    const MESSAGE: Option<Message> = Some(ENDPOINT_SLICE);

    fn metadata(&self) -> &Field<Metadata> {
        &self.metadata
    }

    fn convert(
        self,
        key: NamespacedName,
        filter: &WatchFilter,
        faults: &mut Faults,
    ) -> Result<Option<EndpointSlice>, Fault> {
        if filter.service_proxy && !is_proxied(&self.metadata) {
            return Ok(None);
        }
        let mut slice = convert(key, self, filter.endpoint_pod_names, faults)?;
        if let (false, Some(slice)) = (filter.service_proxy, &mut slice) {
            // Of no use to others; there are many, and they stay for long.
            slice.endpoints.iter_mut().for_each(|endpoint| (endpoint.node, endpoint.hints) = (None, None));
        }
        Ok(slice)
    }
}

/// Nothing for a slice that belongs to no Service or holds host names.
fn convert(
    key: NamespacedName,
    object: EndpointSliceObject,
    pod_names: bool,
    faults: &mut Faults,
) -> Result<Option<EndpointSlice>, Fault> {
    let Some(service) = service_name(object.metadata)? else { return Ok(None) };
    let Some(family) = family(object.address_type)? else { return Ok(None) };
    let service = NamespacedName::new(key.namespace.clone(), service);
    let ports = each(object.ports, "ports", faults, |port, _| endpoint_port(port));
    let endpoints =
        each(object.endpoints, "endpoints", faults, |it, faults| endpoint(it, family, pod_names, faults));
    let ports = ports.into_iter().flatten().collect();
    Ok(Some(EndpointSlice { key, service, ports, endpoints }))
}

fn service_name(metadata: Field<Metadata>) -> Result<Option<String>, Fault> {
    let labels = metadata.or_default("metadata")?.labels.or_default("metadata.labels")?;
    let path = "metadata.labels[kubernetes.io/service-name]";
    let name = labels.get(SERVICE_NAME).optional(path)?.filter(|name| !name.is_empty());
    name.map(|name| label(name.clone(), path)).transpose()
}

/// The family of the addresses; none for host names, which neither the proxy nor DNS serves.
fn family(address_type: Field<String>) -> Result<Option<Family>, Fault> {
    match address_type.required("addressType")?.as_str() {
        "IPv4" => Ok(Some(Family::V4)),
        "IPv6" => Ok(Some(Family::V6)),
        "FQDN" => Ok(None),
        other => Err(Fault::new("addressType", format!("{other:?} is none of IPv4, IPv6, FQDN"))),
    }
}

/// Nothing for a port without a number, which stands for all ports and has no meaning behind a Service.
fn endpoint_port(field: EndpointPortObject) -> Result<Option<EndpointPort>, Fault> {
    let Some(port) = port(field.port, "port")? else { return Ok(None) };
    Ok(Some(EndpointPort { name: port_name(field.name)?, protocol: protocol(field.protocol)?, port }))
}

fn endpoint(
    field: EndpointObject,
    family: Family,
    pod_names: bool,
    faults: &mut Faults,
) -> Result<Endpoint, Fault> {
    let conditions = field.conditions.or_default("conditions")?;
    // Defaults as kube-proxy takes them.
    let ready = conditions.ready.optional("conditions.ready")?.unwrap_or(true);
    let hostname = faults.note(field.hostname.optional("hostname")).flatten();
    let hostname = hostname.filter(|name| !name.is_empty());
    let pod = if pod_names && hostname.is_none() { pod_name(field.target_ref) } else { None };
    let hostname = hostname.or(pod);
    Ok(Endpoint {
        address: first_address(field.addresses, family)?,
        hostname: hostname.and_then(|name| faults.note(label(name, "hostname"))).map(Into::into),
        node: faults
            .note(field.node_name.optional("nodeName"))
            .flatten()
            .filter(|name| !name.is_empty())
            .map(Into::into),
        ready,
        serving: conditions.serving.optional("conditions.serving")?.unwrap_or(true),
        terminating: conditions.terminating.or_default("conditions.terminating")?,
        hints: hints(field.hints, faults),
    })
}

/// The name of the pod that an endpoint leads to, where it can be a label.
fn pod_name(target: Field<TargetRef>) -> Option<String> {
    let target = target.optional("targetRef").ok().flatten()?;
    let kind = target.kind.optional("targetRef.kind").ok().flatten()?;
    let name = target.name.optional("targetRef.name").ok().flatten()?;
    (kind == "Pod" && weft_types::is_dns_label(&name)).then_some(name)
}

/// Nothing where there are neither nodes nor zones.
fn hints(field: Field<EndpointHints>, faults: &mut Faults) -> Option<Box<Hints>> {
    let field = faults.note(field.optional("hints")).flatten()?;
    let named = |named: Named, _: &mut Faults| named.name.required("name");
    let nodes = each(field.for_nodes, "hints.forNodes", faults, named);
    let zones = each(field.for_zones, "hints.forZones", faults, named);
    (!nodes.is_empty() || !zones.is_empty()).then(|| Box::new(Hints { nodes, zones }))
}

/// The one address that counts: consumers use the first, and producers give no other (KEP-752).
fn first_address(addresses: Field<Vec<Field<String>>>, family: Family) -> Result<std::net::IpAddr, Fault> {
    let first = addresses.or_default("addresses")?.into_iter().next().unwrap_or_default();
    let address = address(&first.required("addresses[0]")?, "addresses[0]")?;
    if Family::of(address) == family {
        Ok(address)
    } else {
        Err(Fault::new("addresses[0]", format!("{address} is not of the slice's family {family}")))
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU16;

    use serde_json::{Value, json};
    use weft_types::{Object, Protocol};

    use super::*;
    use crate::resource::{Reading, read};

    fn reading(change: Value) -> Reading {
        seen(change, &WatchFilter::service_proxy())
    }

    fn seen(change: Value, filter: &WatchFilter) -> Reading {
        let mut object = json!({
            "metadata": {"namespace": "shop", "name": "web-x7", "labels": {"kubernetes.io/service-name": "web"}},
            "addressType": "IPv4",
        });
        object.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        read(serde_json::from_value::<EndpointSliceObject>(object).unwrap(), filter)
    }

    #[test]
    fn only_a_proxy_is_told_of_nodes_and_hints() {
        let endpoint =
            json!({"addresses": ["10.0.0.1"], "nodeName": "node1", "hints": {"forZones": [{"name": "a"}]}});
        let told = |filter| match seen(json!({"endpoints": [endpoint]}), &filter) {
            Reading::Object(Object::EndpointSlice(slice)) => {
                (slice.endpoints[0].node.is_some(), slice.endpoints[0].hints.is_some())
            }
            other => panic!("{other:?}"),
        };
        assert_eq!(
            (told(WatchFilter::service_proxy()), told(WatchFilter::default())),
            ((true, true), (false, false))
        );
    }

    fn slice(change: Value) -> EndpointSlice {
        match reading(change) {
            Reading::Object(Object::EndpointSlice(slice)) => slice,
            other => panic!("{other:?}"),
        }
    }

    fn fault(change: Value) -> String {
        match reading(change) {
            Reading::Malformed(malformed) | Reading::InPart(_, malformed) => malformed.to_string(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_cannot_be_used_is_left_out_and_the_rest_serves() {
        let reading = reading(json!({
            "ports": [{"port": 70000}, {"name": "http", "port": 80}, {"port": 81, "protocol": "ICMP"}],
            "endpoints": [
                {"addresses": ["10.244.1.300"]},
                {"addresses": ["010.244.001.007"], "hostname": "A.b", "hints": {"forZones": [5, {"name": "a"}]}},
                {"addresses": ["::ffff:10.244.1.8"]},
                {"addresses": ["fd00::1"]},
                5,
            ],
        }));
        let Reading::InPart(Object::EndpointSlice(slice), malformed) = reading else { panic!("{reading:?}") };
        let addresses: Vec<String> = slice.endpoints.iter().map(|it| it.address.to_string()).collect();
        assert_eq!(addresses, ["10.244.1.7", "10.244.1.8"]);
        assert_eq!((&slice.endpoints[0].hostname, slice.ports.len()), (&None, 1));
        assert_eq!(slice.endpoints[0].hints.as_ref().unwrap().zones, ["a"]);
        let told = malformed.to_string();
        assert!(told.starts_with("EndpointSlice shop/web-x7: ports[0].port: invalid value"), "{told}");
        assert!(told.ends_with("; and 3 more faults"), "{told}");
    }

    #[test]
    fn lists_take_no_more_room_than_they_need() {
        let endpoints = json!([{"addresses": ["10.0.0.1"]}, {"addresses": ["10.0.0.2"]}]);
        assert_eq!(slice(json!({"endpoints": endpoints})).endpoints.capacity(), 2);
    }

    #[test]
    fn only_the_first_address_counts() {
        let slice = slice(json!({"endpoints": [{
            "addresses": ["10.244.1.7", "10.244.1.8"], "hostname": "db-0", "nodeName": "node1",
        }]}));
        let endpoint = Endpoint {
            hostname: Some("db-0".into()),
            node: Some("node1".into()),
            ..Endpoint::ready("10.244.1.7".parse().unwrap())
        };
        assert_eq!(slice.endpoints, [endpoint]);
        assert_eq!(slice.service, NamespacedName::new("shop", "web"));
    }

    #[test]
    fn conditions_that_are_not_there_are_ready_serving_and_not_terminating() {
        for (conditions, expected) in [
            (Value::Null, (true, true, false)),
            (json!({}), (true, true, false)),
            (json!({"ready": null, "serving": null, "terminating": null}), (true, true, false)),
            (json!({"ready": false}), (false, true, false)),
            (json!({"ready": false, "serving": false}), (false, false, false)),
            (json!({"ready": false, "serving": true, "terminating": true}), (false, true, true)),
        ] {
            let endpoint = json!({"addresses": ["10.0.0.1"], "conditions": conditions});
            let slice = slice(json!({"endpoints": [endpoint]}));
            let endpoint = &slice.endpoints[0];
            assert_eq!((endpoint.ready, endpoint.serving, endpoint.terminating), expected, "{conditions}");
        }
    }

    #[test]
    fn hints_name_nodes_and_zones() {
        let hints = |hints: Value| {
            let endpoint = json!({"addresses": ["10.0.0.1"], "hints": hints});
            slice(json!({"endpoints": [endpoint]})).endpoints.remove(0).hints.map(|hints| *hints)
        };
        let named = json!({"forZones": [{"name": "a"}, {"name": "b"}], "forNodes": [{"name": "node1"}]});
        let expected = Hints { nodes: vec!["node1".into()], zones: vec!["a".into(), "b".into()] };
        assert_eq!(hints(named), Some(expected));
        assert_eq!(hints(json!({"forZones": []})), None);
        assert_eq!(hints(Value::Null), None);
    }

    #[test]
    fn ports_without_a_number_are_left_out() {
        let slice = slice(json!({"ports": [
            {"name": "any", "port": null},
            {"name": "dns", "protocol": "UDP", "port": 53},
            {"port": 80},
        ]}));
        let port = |name: &str, protocol, number| EndpointPort {
            name: name.into(),
            protocol,
            port: NonZeroU16::new(number).unwrap(),
        };
        assert_eq!(slice.ports, [port("dns", Protocol::Udp, 53), port("", Protocol::Tcp, 80)]);
    }

    #[test]
    fn slices_of_host_names_or_of_no_service_are_ignored() {
        for change in [
            json!({"addressType": "FQDN", "endpoints": [{"addresses": ["db.example.com"]}]}),
            json!({"metadata": {"namespace": "shop", "name": "web-x7"}}),
        ] {
            assert!(matches!(reading(change), Reading::Ignored(_)));
        }
    }

    #[test]
    fn slices_of_another_proxy_are_ignored() {
        let label = |label: &str| {
            json!({"metadata": {"namespace": "shop", "name": "web-x7", "labels": {
                "kubernetes.io/service-name": "web", label: "",
            }}})
        };
        assert!(matches!(reading(label("service.kubernetes.io/service-proxy-name")), Reading::Ignored(_)));
        assert!(matches!(reading(label("service.kubernetes.io/headless")), Reading::Ignored(_)));
    }

    #[test]
    fn faults_name_the_object_and_the_field() {
        for (change, expected) in [
            (json!({"addressType": null}), "addressType: is missing"),
            (json!({"addressType": "IPX"}), r#"addressType: "IPX" is none of"#),
            (json!({"endpoints": [{}]}), "endpoints[0].addresses[0]: is missing"),
            (
                json!({"endpoints": [{"addresses": ["x"]}]}),
                r#"endpoints[0].addresses[0]: "x" is no IP address"#,
            ),
            (
                json!({"endpoints": [{"addresses": ["fd00::1"]}]}),
                "endpoints[0].addresses[0]: fd00::1 is not of",
            ),
            (json!({"endpoints": [{"addresses": ["10.0.0.1"], "hostname": "A"}]}), "endpoints[0].hostname: "),
            (
                json!({"endpoints": [{"addresses": ["10.0.0.1"], "conditions": {"ready": "yes"}}]}),
                "endpoints[0].conditions.ready: invalid type",
            ),
            (json!({"ports": [{"port": -1}]}), "ports[0].port: invalid value"),
        ] {
            let fault = fault(change);
            assert!(fault.starts_with(&format!("EndpointSlice shop/web-x7: {expected}")), "{fault}");
        }
    }
}
