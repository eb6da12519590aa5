//! The same objects in JSON and in protobuf, and what is neither. The protobuf is made by others' messages,
//! or by hand.

use proptest::prelude::*;
use serde_json::{Value, json};
use weft_testkit::api_server::protobuf as server;
use weft_types::{EndpointSlice, Node, Object, Pod, Service};

use super::*;

/// A codec of every kind that travels as protobuf.
fn codecs(filter: &WatchFilter) -> Vec<Codec> {
    fn of<K: ApiResource>(filter: &WatchFilter) -> Codec {
        Codec::new::<K>(filter.clone())
    }
    vec![of::<Service>(filter), of::<EndpointSlice>(filter), of::<Node>(filter), of::<Pod>(filter)]
}

fn codec(kind: Kind) -> Codec {
    codecs(&WatchFilter::default()).into_iter().find(|codec| codec.kind == kind).unwrap()
}

/// An event of a watch in protobuf, without its length.
fn event_of(kind: Kind, event: &Value) -> Vec<u8> {
    server::frame(kind.name(), &event.to_string()).split_off(size_of::<u32>())
}

/// Values of a field: some that are right in some place, and some that are wrong everywhere.
fn text() -> impl Strategy<Value = Value> {
    const TEXTS: &str = "ClusterIP NodePort LoadBalancer ExternalName None ClientIP Local Cluster 10.96.0.1 010.0.0.7 fd00::7 \
        10.244.1.0/24 fd00::/64 nowhere web a.b A TCP UDP ICMP Succeeded Running Always ClusterFirst Default InternalIP \
        ExternalIP Hostname VIP Proxy ToBeDeletedByClusterAutoscaler ü";
    prop::sample::select(TEXTS.split_whitespace().collect::<Vec<_>>()).prop_map(Value::from)
}

fn number() -> impl Strategy<Value = Value> {
    prop_oneof![Just(0), Just(80), Just(65_535), Just(70_000), Just(-1), any::<i32>()].prop_map(Value::from)
}

fn flag() -> impl Strategy<Value = Value> {
    any::<bool>().prop_map(Value::from)
}

fn of(values: impl Strategy<Value = Value> + 'static) -> BoxedStrategy<Value> {
    values.boxed()
}

fn list(element: impl Strategy<Value = Value> + 'static) -> BoxedStrategy<Value> {
    prop::collection::vec(element, 0..4).prop_map(Value::from).boxed()
}

/// An object of these fields, each there or not.
fn some(fields: Vec<(&'static str, BoxedStrategy<Value>)>) -> BoxedStrategy<Value> {
    let field = |(name, value): (&'static str, BoxedStrategy<Value>)| {
        prop::option::of(value).prop_map(move |it| (name, it))
    };
    let fields: Vec<_> = fields.into_iter().map(field).collect();
    let given = |(name, value): (&str, Option<Value>)| value.map(|value| (name.to_owned(), value));
    fields.prop_map(move |fields| Value::Object(fields.into_iter().filter_map(given).collect())).boxed()
}

/// An object of these fields, which are always there.
fn all(fields: Vec<(&'static str, BoxedStrategy<Value>)>) -> BoxedStrategy<Value> {
    let fields: Vec<_> =
        fields.into_iter().map(|(name, value)| value.prop_map(move |it| (name.to_owned(), it))).collect();
    fields.prop_map(|fields| Value::Object(fields.into_iter().collect())).boxed()
}

fn metadata() -> BoxedStrategy<Value> {
    let labels = vec![
        ("kubernetes.io/service-name", of(text())),
        ("service.kubernetes.io/headless", of(Just("".into()))),
        ("service.kubernetes.io/service-proxy-name", of(Just("other".into()))),
        ("topology.kubernetes.io/zone", of(text())),
        ("app", of(text())),
    ];
    let annotations = vec![
        ("endpoints.kubernetes.io/last-change-trigger-time", of(Just("2026-01-02T03:04:05.5Z".into()))),
        ("kubernetes.io/config.hash", of(text())),
        ("metallb.io/address-pool", of(text())),
        ("metallb.io/loadBalancerIPs", of(text())),
        ("metallb.universe.tf/allow-shared-ip", of(text())),
    ];
    let time = || of(Just("2024-02-03T04:05:06Z".into()));
    some(vec![
        ("uid", of(Just("7d9c".into()))),
        ("resourceVersion", of(Just("12".into()))),
        ("creationTimestamp", time()),
        ("deletionTimestamp", time()),
        ("labels", some(labels)),
        ("annotations", some(annotations)),
        ("managedFields", of(Just(json!([{"manager": "kubectl", "fieldsV1": {"f:spec": {}}}])))),
    ])
    .prop_map(|mut metadata| {
        metadata["name"] = "web-1".into();
        metadata["namespace"] = "shop".into();
        metadata
    })
    .boxed()
}

fn service() -> BoxedStrategy<Value> {
    let port = || {
        some(vec![
            ("name", of(text())),
            ("protocol", of(text())),
            ("port", of(number())),
            ("nodePort", of(number())),
        ])
    };
    let affinity = some(vec![("clientIP", some(vec![("timeoutSeconds", of(number()))]))]);
    let spec = some(vec![
        ("type", of(text())),
        ("clusterIP", of(text())),
        ("clusterIPs", list(text())),
        ("externalName", of(text())),
        ("externalIPs", list(text())),
        ("internalTrafficPolicy", of(text())),
        ("externalTrafficPolicy", of(text())),
        ("selector", some(vec![("app", of(text()))])),
        ("loadBalancerIP", of(text())),
        ("loadBalancerClass", of(text())),
        ("ipFamilyPolicy", of(text())),
        ("loadBalancerSourceRanges", list(text())),
        ("sessionAffinity", of(text())),
        ("sessionAffinityConfig", affinity),
        ("healthCheckNodePort", of(number())),
        ("ports", list(port())),
    ]);
    let ingress = list(some(vec![("ip", of(text())), ("hostname", of(text())), ("ipMode", of(text()))]));
    let status = all(vec![("loadBalancer", some(vec![("ingress", ingress)]))]);
    all(vec![("metadata", metadata()), ("spec", spec), ("status", status)])
}

fn endpoint_slice() -> BoxedStrategy<Value> {
    let named = || list(all(vec![("name", of(text()))]));
    let conditions = some(vec![("ready", of(flag())), ("serving", of(flag())), ("terminating", of(flag()))]);
    let endpoint = some(vec![
        ("addresses", list(text())),
        ("conditions", conditions),
        ("hostname", of(text())),
        ("nodeName", of(text())),
        ("hints", some(vec![("forNodes", named()), ("forZones", named())])),
    ]);
    let port = some(vec![("name", of(text())), ("protocol", of(text())), ("port", of(number()))]);
    let family = prop::sample::select(vec!["IPv4", "IPv6", "FQDN", "IPX", ""]).prop_map(Value::from);
    let lists = (list(endpoint), list(port));
    (metadata(), family, lists)
        .prop_map(|(metadata, family, (endpoints, ports))| {
            json!({"metadata": metadata, "addressType": family, "endpoints": endpoints, "ports": ports})
        })
        .boxed()
}

fn node() -> BoxedStrategy<Value> {
    let spec = some(vec![
        ("podCIDR", of(text())),
        ("podCIDRs", list(text())),
        ("taints", list(all(vec![("key", of(text())), ("effect", of(text()))]))),
    ]);
    let addresses = list(all(vec![("type", of(text())), ("address", of(text()))]));
    all(vec![("metadata", metadata()), ("spec", spec), ("status", some(vec![("addresses", addresses)]))])
}

fn pod() -> BoxedStrategy<Value> {
    let port = || {
        some(vec![("name", of(text())), ("protocol", of(text()))]).prop_flat_map(|port| {
            number().prop_map(move |number| {
                let mut port = port.clone();
                port["containerPort"] = number;
                port
            })
        })
    };
    let containers = || list(some(vec![("ports", list(port())), ("restartPolicy", of(text()))]));
    let spec = some(vec![
        ("hostNetwork", of(flag())),
        ("nodeName", of(text())),
        ("containers", containers()),
        ("initContainers", containers()),
        ("dnsPolicy", of(text())),
        ("dnsConfig", some(vec![("searches", list(text()))])),
    ]);
    let ips = list(all(vec![("ip", of(text()))]));
    let status = some(vec![("phase", of(text())), ("podIP", of(text())), ("podIPs", ips)]);
    all(vec![("metadata", metadata()), ("spec", spec), ("status", status)])
}

fn objects() -> impl Strategy<Value = (Kind, Value)> {
    let of = |kind, objects: BoxedStrategy<Value>| objects.prop_map(move |object| (kind, object));
    prop_oneof![
        of(Kind::Service, service()),
        of(Kind::EndpointSlice, endpoint_slice()),
        of(Kind::Node, node()),
        of(Kind::Pod, pod()),
    ]
}

fn filters() -> impl Strategy<Value = WatchFilter> {
    let filters = [
        WatchFilter::default(),
        WatchFilter::service_proxy(),
        WatchFilter::network_policies(),
        WatchFilter::load_balancers(),
    ];
    prop::sample::select(filters.to_vec())
}

proptest! {
    /// Faults and all.
    #[test]
    fn an_object_is_the_same_in_protobuf_as_in_json((kind, object) in objects(), filter in filters(), type_ in 0..3) {
        let type_ = ["ADDED", "MODIFIED", "DELETED"][usize::try_from(type_).unwrap()];
        let event = json!({"type": type_, "object": object});
        let codec = codecs(&filter).into_iter().find(|codec| codec.kind == kind).unwrap();
        let in_json = codec.event(Encoding::Json, event.to_string().as_bytes());
        prop_assert_eq!(codec.event(Encoding::Protobuf, &event_of(kind, &event)), in_json);
    }

    #[test]
    fn any_bytes_come_to_something(bytes: Vec<u8>, with_magic: bool) {
        for codec in codecs(&WatchFilter::default()) {
            let envelope = [bytes_field(1, &bytes_field(2, codec.kind.name().as_bytes())), bytes_field(2, &bytes)];
            let object = [MAGIC, &envelope.concat()].concat();
            let frame = [bytes_field(1, b"ADDED"), bytes_field(2, &bytes_field(1, &object))].concat();
            for bytes in if with_magic { [&object, &frame] } else { [&bytes, &bytes] } {
                for encoding in [Encoding::Protobuf, Encoding::Json] {
                    let _ = codec.event(encoding, bytes);
                    let _ = codec.list(encoding, bytes);
                }
            }
        }
    }

    #[test]
    fn a_frame_with_wrong_bytes_comes_to_something((kind, object) in objects(), wrong: Vec<(prop::sample::Index, u8)>) {
        let mut frame = event_of(kind, &json!({"type": "ADDED", "object": object}));
        wrong.into_iter().for_each(|(place, byte)| *place.get_mut(&mut frame) = byte);
        if let Ok(Told::Applied { reading: Reading::Malformed(malformed), .. }) = codec(kind).event(Encoding::Protobuf, &frame) {
            prop_assert!(malformed.to_string().starts_with(kind.name()));
        }
    }
}

fn varint(mut number: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while number >= 0x80 {
        bytes.push(number.to_le_bytes()[0] | 0x80);
        number >>= 7;
    }
    bytes.push(number.to_le_bytes()[0]);
    bytes
}

fn bytes_field(number: u64, bytes: &[u8]) -> Vec<u8> {
    [varint(number << 3 | 2), varint(bytes.len() as u64), bytes.to_vec()].concat()
}

fn number_field(number: u64, value: u64) -> Vec<u8> {
    [varint(number << 3), varint(value)].concat()
}

/// An envelope of this kind.
fn enveloped(kind: &str, raw: &[u8]) -> Vec<u8> {
    let type_meta = [bytes_field(1, b"v1"), bytes_field(2, kind.as_bytes())].concat();
    [MAGIC, &bytes_field(1, &type_meta), &bytes_field(2, raw), &bytes_field(3, b""), &bytes_field(4, b"")]
        .concat()
}

/// A Service of this spec.
fn service_bytes(name: &str, spec: &[u8]) -> Vec<u8> {
    let metadata = [bytes_field(1, name.as_bytes()), bytes_field(3, b"shop")].concat();
    [bytes_field(1, &metadata), bytes_field(2, spec)].concat()
}

fn listed(items: &[Vec<u8>]) -> Page {
    let items: Vec<u8> = items.iter().flat_map(|item| bytes_field(2, item)).collect();
    let metadata = [bytes_field(2, b"7"), bytes_field(3, b"more")].concat();
    let list = [bytes_field(1, &metadata), items].concat();
    codec(Kind::Service).list(Encoding::Protobuf, &enveloped("ServiceList", &list)).unwrap()
}

#[test]
fn a_field_of_another_form_costs_only_itself() {
    let spec = [
        bytes_field(3, b"10.96.0.7"),
        // A text that is none (UTF-8), a number for a text, a text for a number, a number for a message.
        bytes_field(5, b"\xff"),
        number_field(5, 3),
        bytes_field(5, b"203.0.113.20"),
        bytes_field(1, &[number_field(3, 80), bytes_field(5, b"x")].concat()),
        number_field(1, 5),
    ];
    let page = listed(&[service_bytes("web", &spec.concat())]);
    let [Reading::InPart(Object::Service(service), malformed)] = &page.readings[..] else {
        panic!("{page:?}")
    };
    assert_eq!(service.external_ips, ["203.0.113.20".parse::<std::net::IpAddr>().unwrap()]);
    assert_eq!(service.ports.len(), 1);
    let told = malformed.to_string();
    for fault in [
        "Service shop/web: spec.ports[0].nodePort: invalid type: byte array, expected u16; ",
        "spec.ports[1]: invalid type: integer `5`, expected struct",
        "spec.externalIPs[0]: invalid value: byte array, expected a string; ",
        "spec.externalIPs[1]: invalid type: integer `3`, expected a string",
    ] {
        assert!(told.contains(fault), "{fault} in {told}");
    }
}

#[test]
fn an_object_whose_bytes_are_cut_off_is_named_and_costs_only_itself() {
    let good = |name| service_bytes(name, &bytes_field(3, b"10.96.0.7"));
    let cut_off = |name| service_bytes(name, b"\x1a\x7f10.96");
    let page = listed(&[good("a"), cut_off("b"), b"\xff\xff".to_vec(), good("c")]);
    assert_eq!((page.token.as_deref(), page.version.as_deref()), (Some("more"), Some("7")));
    let told: Vec<String> = page
        .readings
        .iter()
        .map(|reading| match reading {
            Reading::Object(object) => object.key().to_string(),
            Reading::Malformed(malformed) => malformed.to_string(),
            other => panic!("{other:?}"),
        })
        .collect();
    let expected = [
        "Service shop/a",
        "Service shop/b: its protobuf: is not well-formed",
        "Service without a usable name: its protobuf: is not well-formed",
        "Service shop/c",
    ];
    assert_eq!(told, expected);
}

#[test]
fn what_comes_in_several_pieces_is_one_list() {
    let spec =
        [bytes_field(5, b"192.0.2.1"), bytes_field(3, b"10.96.0.7"), bytes_field(5, b"192.0.2.2")].concat();
    let page = listed(&[service_bytes("web", &spec)]);
    let [Reading::Object(Object::Service(service))] = &page.readings[..] else { panic!("{page:?}") };
    assert_eq!(service.external_ips.len(), 2);
}

#[test]
fn what_is_no_event_or_of_another_kind_is_refused() {
    let codec = codec(Kind::Service);
    let event = |type_: &str, object: &[u8]| {
        let frame = [bytes_field(1, type_.as_bytes()), bytes_field(2, &bytes_field(1, object))].concat();
        codec.event(Encoding::Protobuf, &frame)
    };
    let object = enveloped("Service", &service_bytes("web", &bytes_field(3, b"10.96.0.7")));
    assert!(matches!(event("ADDED", &object), Ok(Told::Applied { reading: Reading::Object(_), .. })));
    for (type_, object, problem) in [
        ("SURPRISE", &object, "an event of the type \"SURPRISE\", which is none"),
        ("ADDED", &enveloped("Pod", b""), "a Pod where a Service is expected"),
        ("ADDED", &b"{}".to_vec(), "no protobuf of Kubernetes: it does not begin with k8s"),
        ("ADDED", &[MAGIC, b"\x0a"].concat(), "protobuf that is not well-formed"),
        ("ADDED", &[object.clone(), bytes_field(3, b"gzip")].concat(), "an unknown encoding: gzip"),
        ("DELETED", &enveloped("Service", b""), "metadata: is missing"),
    ] {
        assert_eq!(event(type_, object).unwrap_err(), problem);
    }
    let frame =
        [bytes_field(1, b"ADDED"), bytes_field(2, &bytes_field(1, &enveloped("Namespace", b"")))].concat();
    let error = Codec::new::<weft_types::Namespace>(WatchFilter::default()).event(Encoding::Protobuf, &frame);
    assert_eq!(error.unwrap_err(), "protobuf, which was not asked for");
}

#[test]
fn bookmarks_and_errors_are_told_in_both_encodings() {
    let codec = codec(Kind::Pod);
    let both = |event: &Value| {
        let told = codec.event(Encoding::Json, event.to_string().as_bytes()).unwrap();
        assert_eq!(codec.event(Encoding::Protobuf, &event_of(Kind::Pod, event)).as_ref(), Ok(&told));
        told
    };
    let metadata = json!({"resourceVersion": "9", "annotations": {"k8s.io/initial-events-end": "true"}});
    let bookmark = |metadata: Value| both(&json!({"type": "BOOKMARK", "object": {"metadata": metadata}}));
    let at = |ends_initial_events| Told::Bookmark { version: Some("9".to_owned()), ends_initial_events };
    assert_eq!(bookmark(metadata), at(true));
    assert_eq!(bookmark(json!({"resourceVersion": "9"})), at(false));
    let status = json!({"kind": "Status", "code": 410, "message": "too old"});
    let Told::Error(status) = both(&json!({"type": "ERROR", "object": status})) else { panic!("no error") };
    assert_eq!((status.code(), status.message()), (Some(410), Some("too old")));
}

#[test]
fn the_media_type_tells_the_encoding_whatever_its_parameters() {
    for (media_type, expected) in [
        ("application/vnd.kubernetes.protobuf", Encoding::Protobuf),
        ("application/vnd.kubernetes.protobuf;stream=watch", Encoding::Protobuf),
        ("Application/VND.Kubernetes.Protobuf ; charset=utf-8", Encoding::Protobuf),
        ("application/json;charset=utf-8", Encoding::Json),
        ("text/html", Encoding::Json),
        ("", Encoding::Json),
    ] {
        assert_eq!(Encoding::of(media_type), expected, "{media_type}");
    }
}
