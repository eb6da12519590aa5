//! What Services ask of their load balancers.

use serde_json::{Value, json};
use weft_types::{Kind, Labels, Object, Service};

use super::*;
use crate::WatchFilter;
use crate::resource::{Reading, read_document};

fn reading(annotations: Value, spec: Value, ingress: Value) -> Reading {
    let mut whole = json!({"type": "LoadBalancer", "clusterIPs": ["10.96.0.7", "fd00:96::7"]});
    whole.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
    let object = json!({
        "metadata": {
            "namespace": "shop", "name": "web", "uid": "1-2-3", "resourceVersion": "77",
            "labels": {"app": "web"}, "annotations": annotations,
        },
        "spec": whole,
        "status": {"loadBalancer": {"ingress": ingress}},
    });
    read_document(Kind::Service, object, &WatchFilter::load_balancers())
}

fn service(annotations: Value, spec: Value, ingress: Value) -> Service {
    match reading(annotations, spec, ingress) {
        Reading::Object(Object::Service(service)) => service,
        other => panic!("{other:?}"),
    }
}

fn asked(annotations: Value, spec: Value) -> LoadBalancer {
    *service(annotations, spec, json!([])).load_balancer.unwrap()
}

fn ips(texts: &[&str]) -> Box<[IpAddr]> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

#[test]
fn a_service_that_asks_for_nothing_particular_takes_any_address() {
    let asked = asked(json!({}), json!({"selector": {"b": "2", "a": "1"}}));
    let labels: Labels = [("app", "web")].into_iter().collect();
    let expected = LoadBalancer {
        is_wanted: true,
        labels,
        selector: "a=1,b=2".into(),
        uid: "1-2-3".into(),
        version: "77".into(),
        ..LoadBalancer::default()
    };
    assert_eq!(asked, expected);
}

#[test]
fn requests_are_read_under_both_names_of_the_annotations() {
    for prefix in ["metallb.io", "metallb.universe.tf"] {
        let annotations = json!({
            format!("{prefix}/address-pool"): "lan", format!("{prefix}/loadBalancerIPs"): "192.0.2.7, 2001:db8::7",
            format!("{prefix}/allow-shared-ip"): "dns",
        });
        let spec = json!({"loadBalancerClass": "example.com/lb", "ipFamilyPolicy": "RequireDualStack"});
        let asked = asked(annotations, spec);
        assert_eq!(asked.requested_ips, ips(&["192.0.2.7", "2001:db8::7"]));
        assert_eq!(
            (asked.requested_pool.as_deref(), asked.sharing_key.as_deref()),
            (Some("lan"), Some("dns"))
        );
        assert_eq!(asked.class.as_deref(), Some("example.com/lb"));
        assert_eq!((asked.families, asked.problem), (FamilyPolicy::RequireDualStack, None));
    }
    let both = json!({"metallb.io/address-pool": "new", "metallb.universe.tf/address-pool": "old"});
    assert_eq!(asked(both, json!({})).requested_pool.as_deref(), Some("new"));
    assert_eq!(asked(json!({}), json!({"loadBalancerIP": "192.0.2.7"})).requested_ips, ips(&["192.0.2.7"]));
}

#[test]
fn a_request_that_cannot_be_read_is_kept_as_such() {
    for (annotations, spec, expected) in [
        (
            json!({"metallb.io/loadBalancerIPs": "192.0.2.7,web"}),
            json!({}),
            "the annotation metallb.io/loadBalancerIPs: \"web\" is no IP address",
        ),
        (json!({}), json!({"loadBalancerIP": "web"}), "spec.loadBalancerIP: \"web\" is no IP address"),
        (
            json!({"metallb.io/loadBalancerIPs": "192.0.2.7"}),
            json!({"loadBalancerIP": "192.0.2.8"}),
            "spec.loadBalancerIP: asks for other addresses than the annotation metallb.io/loadBalancerIPs; \
             use one of them",
        ),
        (
            json!({}),
            json!({"ipFamilyPolicy": "Both"}),
            "spec.ipFamilyPolicy: \"Both\" is none of SingleStack, PreferDualStack, RequireDualStack",
        ),
    ] {
        let asked = asked(annotations, spec);
        assert_eq!(asked.problem.as_deref(), Some(expected));
        assert!(asked.requested_ips.is_empty());
    }
}

#[test]
fn what_stands_in_the_status_besides_addresses_is_known() {
    let of = |ingress: Value| service(json!({}), json!({}), ingress);
    let plain = of(json!([{"ip": "192.0.2.7", "ipMode": "VIP"}, {"ip": "2001:db8::7"}]));
    assert_eq!(*plain.load_balancer_ips, *ips(&["192.0.2.7", "2001:db8::7"]));
    assert!(!plain.load_balancer.unwrap().has_other_ingress);
    for other in [json!({"hostname": "lb.example.com"}), json!({"ip": "192.0.2.8", "ipMode": "Proxy"})] {
        let service = of(json!([{"ip": "192.0.2.7"}, other]));
        assert_eq!(*service.load_balancer_ips, *ips(&["192.0.2.7"]));
        assert!(service.load_balancer.unwrap().has_other_ingress);
    }
}

#[test]
fn services_that_have_and_want_no_load_balancer_are_not_held() {
    let other = json!({"type": "ClusterIP"});
    assert!(matches!(reading(json!({}), other.clone(), json!([])), Reading::Ignored(_)));
    let former = service(json!({}), other, json!([{"ip": "192.0.2.7"}]));
    assert!(former.load_balancer_ips.is_empty(), "nothing leads to it any more");
    let left = former.load_balancer.unwrap();
    assert!(!left.is_wanted);
    assert_eq!(left.left_behind, ips(&["192.0.2.7"]));
}
