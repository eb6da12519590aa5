//! What the slices of a Service say.

use super::*;

fn service(spec: &Value) -> Value {
    let mut service = json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": "web", "namespace": "a", "uid": "u", "labels": {"team": "x"}},
        "spec": {"selector": {"app": "web"}, "ipFamilies": ["IPv4"], "clusterIP": "10.96.1.1",
                 "ports": [{"name": "http", "protocol": "TCP", "port": 80, "targetPort": "http"}]},
    });
    for (field, value) in spec.as_object().unwrap() {
        service["spec"][field] = value.clone();
    }
    service
}

fn pod(number: usize, ready: &str) -> Value {
    json!({
        "metadata": {"name": format!("p{number}"), "namespace": "a", "uid": format!("u{number}"), "labels": {"app": "web"}},
        "spec": {"nodeName": "n1", "containers": [
            {"ports": [{"name": "http", "protocol": "TCP", "containerPort": 8080}]}]},
        "status": {"podIP": format!("10.0.{}.{}", number / 256, number % 256),
                   "conditions": [{"type": "Ready", "status": ready}]},
    })
}

fn created(actions: &[Action]) -> Vec<&Value> {
    let slices = actions.iter().map(|action| match action {
        Action::Create(_, slice) => slice,
        other => panic!("{other:?}"),
    });
    slices.collect()
}

/// The slices after those actions, with the names that the server would give.
fn applied(mut slices: Vec<Value>, actions: Vec<Action>) -> Vec<Value> {
    for action in actions {
        match action {
            Action::Create(_, mut slice) => {
                slice["metadata"]["name"] = json!(format!("web-{}", slices.len()));
                slices.push(slice);
            }
            Action::Update(_, slice) => {
                let old = slices.iter_mut().find(|old| name(old) == name(&slice)).unwrap();
                *old = slice;
            }
            Action::Delete(key) => slices.retain(|slice| name(slice) != key.name),
            other => panic!("{other:?}"),
        }
    }
    slices
}

fn run(service: &Value, pods: &[Value], slices: &[Value]) -> Vec<Action> {
    let pods: Vec<&Value> = pods.iter().collect();
    let slices: Vec<&Value> = slices.iter().collect();
    reconcile(service, groups(service, &pods, &Zones::new()), &slices)
}

#[test]
fn a_slice_carries_the_resolved_port_and_the_state_of_every_pod() {
    let mut leaving = pod(3, "True");
    leaving["metadata"]["deletionTimestamp"] = json!("x");
    let actions = run(&service(&json!({})), &[pod(1, "True"), pod(2, "False"), leaving], &[]);
    let [slice] = created(&actions)[..] else { panic!("{actions:?}") };
    assert_eq!(slice["ports"], json!([{"name": "http", "protocol": "TCP", "port": 8080}]));
    let conditions: Vec<_> = items(&slice["endpoints"]).iter().map(|one| &one["conditions"]).collect();
    assert_eq!(*conditions[0], json!({"ready": true, "serving": true, "terminating": false}));
    assert_eq!(*conditions[1], json!({"ready": false, "serving": false, "terminating": false}));
    assert_eq!(*conditions[2], json!({"ready": false, "serving": true, "terminating": true}));
    assert_eq!(slice["endpoints"][0]["targetRef"]["name"], "p1");
    assert_eq!(slice["endpoints"][0]["nodeName"], "n1");
    let labels = json!({"team": "x", SERVICE_NAME: "web", MANAGED_BY: MANAGER});
    assert_eq!(slice["metadata"]["labels"], labels);
    assert_eq!(slice["metadata"]["ownerReferences"][0]["uid"], "u");
}

#[test]
fn pods_that_name_the_port_differently_are_apart() {
    let mut other = pod(2, "True");
    other["spec"]["containers"][0]["ports"][0]["containerPort"] = json!(9090);
    let actions = run(&service(&json!({})), &[pod(1, "True"), other, pod(3, "True")], &[]);
    let ports: Vec<_> = created(&actions).iter().map(|slice| slice["ports"][0]["port"].clone()).collect();
    assert_eq!(ports, [json!(8080), json!(9090)]);
    assert_eq!(items(&created(&actions)[0]["endpoints"]).len(), 2);
}

#[test]
fn a_headless_service_names_the_pods_of_its_subdomain() {
    let headless = service(&json!({"clusterIP": "None", "publishNotReadyAddresses": true}));
    let mut named = pod(1, "False");
    named["spec"]["hostname"] = json!("db-0");
    named["spec"]["subdomain"] = json!("web");
    let mut foreign = pod(2, "True");
    foreign["spec"]["hostname"] = json!("x");
    foreign["spec"]["subdomain"] = json!("other");
    let actions = run(&headless, &[named, foreign], &[]);
    let slice = created(&actions)[0];
    assert_eq!(slice["endpoints"][0]["hostname"], "db-0");
    assert_eq!(slice["endpoints"][0]["conditions"]["ready"], true);
    assert!(slice["endpoints"][1].get("hostname").is_none());
    assert_eq!(label(slice, HEADLESS), Some(""));
}

#[test]
fn both_families_have_slices_of_their_own() {
    let mut dual = pod(1, "True");
    dual["status"]["podIPs"] = json!([{"ip": "10.0.0.1"}, {"ip": "fd00::1"}]);
    let actions = run(&service(&json!({"ipFamilies": ["IPv4", "IPv6"]})), &[dual, pod(2, "True")], &[]);
    let slices = created(&actions);
    assert_eq!((&slices[0]["addressType"], items(&slices[0]["endpoints"]).len()), (&json!("IPv4"), 2));
    assert_eq!((&slices[1]["addressType"], items(&slices[1]["endpoints"]).len()), (&json!("IPv6"), 1));
}

#[test]
fn a_change_touches_only_the_slice_that_has_the_endpoint() {
    let service = service(&json!({}));
    let mut pods: Vec<Value> = (1..=150).map(|number| pod(number, "True")).collect();
    let slices = applied(Vec::new(), run(&service, &pods, &[]));
    let sizes: Vec<usize> = slices.iter().map(|slice| items(&slice["endpoints"]).len()).collect();
    assert_eq!(sizes, [100, 50]);
    assert!(run(&service, &pods, &slices).is_empty(), "nothing to do the second time");
    pods[120] = pod(121, "False");
    let actions = run(&service, &pods, &slices);
    let [Action::Update(_, changed)] = &actions[..] else { panic!("{actions:?}") };
    assert_eq!(name(changed), "web-1");
    pods.truncate(99);
    let after = applied(slices.clone(), run(&service, &pods, &slices));
    assert_eq!(after.len(), 1);
    assert_eq!(items(&after[0]["endpoints"]).len(), 99);
}

#[test]
fn a_service_without_pods_keeps_one_empty_slice() {
    let service = service(&json!({}));
    let slices = applied(Vec::new(), run(&service, &[], &[]));
    assert_eq!(slices.len(), 1);
    assert_eq!((&slices[0]["endpoints"], &slices[0]["ports"]), (&json!([]), &json!([])));
    assert!(run(&service, &[], &slices).is_empty());
    let dual = self::service(&json!({"ipFamilies": ["IPv4", "IPv6"]}));
    let both = applied(slices.clone(), run(&dual, &[pod(1, "True")], &slices));
    assert_eq!(both.len(), 2);
    assert!(run(&dual, &[pod(1, "True")], &both).is_empty(), "an empty family keeps its slice too");
    let filled = applied(slices.clone(), run(&service, &[pod(1, "True")], &slices));
    assert_eq!(filled.len(), 1);
    assert_eq!(filled[0]["ports"][0]["port"], 8080);
}

#[test]
fn pods_that_share_an_address_are_endpoints_each() {
    let service = service(&json!({}));
    let mut pods = [pod(1, "True"), pod(2, "True")];
    pods[1]["status"]["podIP"] = pods[0]["status"]["podIP"].clone();
    let slices = applied(Vec::new(), run(&service, &pods, &[]));
    assert_eq!(items(&slices[0]["endpoints"]).len(), 2);
    assert!(run(&service, &pods, &slices).is_empty());
    let after = applied(slices.clone(), run(&service, &pods[1..], &slices));
    assert_eq!(after[0]["endpoints"][0]["targetRef"]["name"], "p2");
}
