//! The rules of writes, without HTTP.

use serde_json::json;

use super::*;
use crate::apiserver::object::{self, resource_version};
use crate::apiserver::resource::named;

fn registry() -> Registry {
    let allocations = Allocations::new(&["10.96.0.0/16".parse().unwrap()], 30000..=32767);
    let mut registry = Registry::new(Store::new(0, 100), allocations);
    make(&mut registry, "namespaces", "", json!({"metadata": {"name": "a"}})).unwrap();
    registry
}

fn target(plural: &str, namespace: &str, name: &str) -> Target {
    Target { resource: named(plural), namespace: namespace.to_owned(), name: name.to_owned() }
}

fn make(registry: &mut Registry, plural: &str, namespace: &str, object: Value) -> Result<Arc<Value>> {
    registry.create(&target(plural, namespace, ""), object, Write::default())
}

fn pod(name: &str) -> Value {
    json!({"metadata": {"name": name}, "spec": {"containers": [{"name": "c", "image": "x"}]}})
}

fn grace(seconds: i64) -> DeleteOptions {
    DeleteOptions { grace: Some(seconds), ..DeleteOptions::default() }
}

#[test]
fn a_new_object_is_named_defaulted_and_stripped_of_what_is_not_the_clients() {
    let mut registry = registry();
    let mut wanted = pod("");
    wanted["metadata"] =
        json!({"generateName": "web-", "uid": "mine", "deletionTimestamp": "2026-01-01T00:00:00Z"});
    wanted["status"] = json!({"phase": "Running"});
    let made = make(&mut registry, "pods", "a", wanted).unwrap();
    assert!(object::name(&made).starts_with("web-") && object::name(&made).len() == 9);
    assert_ne!(object::uid(&made), "mine");
    assert!(!object::is_terminating(&made));
    assert_eq!(
        (&made["status"]["phase"], &made["spec"]["restartPolicy"]),
        (&json!("Pending"), &json!("Always"))
    );
    assert_eq!(made["metadata"]["namespace"], "a");
}

#[test]
fn an_object_needs_its_namespace_its_kind_and_a_free_name() {
    let mut registry = registry();
    make(&mut registry, "pods", "a", pod("x")).unwrap();
    let code = |result: Result<Arc<Value>>| result.unwrap_err().code();
    assert_eq!(code(make(&mut registry, "pods", "a", pod("x"))), 409);
    assert_eq!(code(make(&mut registry, "pods", "b", pod("x"))), 404);
    assert_eq!(code(make(&mut registry, "pods", "", pod("x"))), 422);
    assert_eq!(code(make(&mut registry, "pods", "a", json!({"kind": "Cat"}))), 400);
    assert_eq!(code(make(&mut registry, "pods", "a", json!("text"))), 400);
    let mut elsewhere = pod("y");
    elsewhere["metadata"]["namespace"] = json!("b");
    assert_eq!(code(make(&mut registry, "pods", "a", elsewhere)), 400);
}

#[test]
fn status_and_spec_are_written_apart() {
    let mut registry = registry();
    let made = make(&mut registry, "pods", "a", pod("x")).unwrap();
    let x = target("pods", "a", "x");
    let mut changed = Value::clone(&made);
    changed["status"]["phase"] = json!("Running");
    changed["metadata"]["labels"] = json!({"l": "v"});
    let main = registry.update(&x, Part::Main, changed.clone(), Write::default()).unwrap();
    assert_eq!((&main["status"]["phase"], object::label(&main, "l")), (&json!("Pending"), Some("v")));
    object::metadata(&mut changed).remove("resourceVersion");
    changed["metadata"]["labels"] = json!({});
    let status = registry.update(&x, Part::Status, changed, Write::default()).unwrap();
    assert_eq!((&status["status"]["phase"], object::label(&status, "l")), (&json!("Running"), Some("v")));
}

#[test]
fn the_second_writer_of_the_same_version_is_refused_and_an_equal_write_is_none() {
    let mut registry = registry();
    let made = make(&mut registry, "configmaps", "a", json!({"metadata": {"name": "m"}})).unwrap();
    let m = target("configmaps", "a", "m");
    let same = registry.update(&m, Part::Main, Value::clone(&made), Write::default()).unwrap();
    assert_eq!(resource_version(&same), resource_version(&made));
    let mut changed = Value::clone(&made);
    changed["data"] = json!({"a": "b"});
    registry.update(&m, Part::Main, changed.clone(), Write::default()).unwrap();
    assert!(matches!(
        registry.update(&m, Part::Main, changed, Write::default()),
        Err(ApiError::Conflict { .. })
    ));
    let mut other = Value::clone(&made);
    other["metadata"] = json!({"name": "m", "uid": "another"});
    assert!(matches!(
        registry.update(&m, Part::Main, other, Write::default()),
        Err(ApiError::Conflict { .. })
    ));
}

#[test]
fn the_generation_counts_changes_of_the_spec() {
    let mut registry = registry();
    let template = json!({"metadata": {"labels": {"l": "v"}}, "spec": pod("")["spec"]});
    let spec = json!({"selector": {"matchLabels": {"l": "v"}}, "template": template});
    let made =
        make(&mut registry, "deployments", "a", json!({"metadata": {"name": "d"}, "spec": spec})).unwrap();
    assert_eq!(made["metadata"]["generation"], 1);
    let d = target("deployments", "a", "d");
    let mut labelled = Value::clone(&made);
    labelled["metadata"]["labels"] = json!({"l": "v"});
    let labelled = registry.update(&d, Part::Main, labelled, Write::default()).unwrap();
    assert_eq!(labelled["metadata"]["generation"], 1);
    let mut scaled = Value::clone(&labelled);
    scaled["spec"]["replicas"] = json!(3);
    let scaled = registry.update(&d, Part::Main, scaled, Write::default()).unwrap();
    assert_eq!(scaled["metadata"]["generation"], 2);
}

#[test]
fn a_running_pod_is_given_its_grace_and_one_that_runs_nowhere_is_not() {
    let mut registry = registry();
    make(&mut registry, "pods", "a", pod("nowhere")).unwrap();
    let gone = registry.delete(&target("pods", "a", "nowhere"), &DeleteOptions::default()).unwrap();
    assert!(matches!(gone, Deleted::Gone(_)));
    make(&mut registry, "pods", "a", pod("x")).unwrap();
    let x = target("pods", "a", "x");
    registry.bind(&x, "n1").unwrap();
    assert!(registry.bind(&x, "n2").is_err());
    let Deleted::Marked(marked) = registry.delete(&x, &DeleteOptions::default()).unwrap() else { panic!() };
    assert_eq!(marked["metadata"]["deletionGracePeriodSeconds"], 30);
    assert_eq!(marked["metadata"]["deletionTimestamp"], "1970-01-01T00:00:30Z");
    let Deleted::Marked(shorter) = registry.delete(&x, &grace(5)).unwrap() else { panic!() };
    assert_eq!(shorter["metadata"]["deletionGracePeriodSeconds"], 5);
    let Deleted::Marked(same) = registry.delete(&x, &grace(60)).unwrap() else { panic!() };
    assert_eq!(same, shorter, "the time is never made longer");
    assert!(matches!(registry.delete(&x, &grace(0)).unwrap(), Deleted::Gone(_)));
    assert!(registry.get(&x).is_err());
}

#[test]
fn finalizers_keep_an_object_until_the_last_is_taken_off() {
    let mut registry = registry();
    let map = json!({"metadata": {"name": "m", "finalizers": ["example.org/one", "example.org/two"]}});
    make(&mut registry, "configmaps", "a", map).unwrap();
    let m = target("configmaps", "a", "m");
    let Deleted::Marked(marked) = registry.delete(&m, &DeleteOptions::default()).unwrap() else { panic!() };
    for left in [json!(["example.org/two"]), json!([])] {
        assert!(registry.get(&m).is_ok());
        let mut less = Value::clone(&marked);
        object::metadata(&mut less).remove("resourceVersion");
        less["metadata"]["finalizers"] = left;
        registry.update(&m, Part::Main, less, Write::default()).unwrap();
    }
    assert!(registry.get(&m).is_err());
}

#[test]
fn dependents_are_orphaned_or_waited_for() {
    let mut registry = registry();
    for (name, propagation) in [("kept", Propagation::Orphan), ("waiting", Propagation::Foreground)] {
        let owner = make(&mut registry, "configmaps", "a", json!({"metadata": {"name": name}})).unwrap();
        let reference =
            json!({"apiVersion": "v1", "kind": "ConfigMap", "name": name, "uid": object::uid(&owner)});
        let dependent =
            json!({"metadata": {"name": format!("{name}-child"), "ownerReferences": [reference]}});
        make(&mut registry, "configmaps", "a", dependent).unwrap();
        let options = DeleteOptions { propagation, ..DeleteOptions::default() };
        let deleted = registry.delete(&target("configmaps", "a", name), &options).unwrap();
        let child = registry.get(&target("configmaps", "a", &format!("{name}-child"))).unwrap();
        let owners = object::owners(child).count();
        match (propagation, deleted) {
            (Propagation::Orphan, Deleted::Gone(_)) => assert_eq!(owners, 0),
            (Propagation::Foreground, Deleted::Marked(owner)) => {
                assert!(owners == 1 && object::has_finalizer(&owner, FOREGROUND));
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_namespace_that_is_closing_takes_nothing_new_and_the_first_ones_stay() {
    let mut registry = registry();
    registry.delete(&target("namespaces", "", "a"), &DeleteOptions::default()).unwrap();
    assert_eq!(registry.get(&target("namespaces", "", "a")).unwrap()["status"]["phase"], "Terminating");
    assert_eq!(make(&mut registry, "pods", "a", pod("x")).unwrap_err().code(), 403);
    make(&mut registry, "namespaces", "", json!({"metadata": {"name": "default"}})).unwrap();
    let refused = registry.delete(&target("namespaces", "", "default"), &DeleteOptions::default());
    assert_eq!(refused.unwrap_err().code(), 403);
}

#[test]
fn a_deleted_service_frees_its_address_and_a_dry_run_takes_none() {
    let mut registry = registry();
    let service = |address: &str| json!({"metadata": {"name": "s"}, "spec": {"clusterIP": address, "ports": [{"port": 80}]}});
    let dry = Write { dry_run: true, ..Write::default() };
    registry.create(&target("services", "a", ""), service("10.96.0.10"), dry).unwrap();
    for _ in 0..2 {
        make(&mut registry, "services", "a", service("10.96.0.10")).unwrap();
        registry.delete(&target("services", "a", "s"), &DeleteOptions::default()).unwrap();
    }
}
