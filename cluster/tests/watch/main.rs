//! The watch against an API server on loopback: lists, changes, interruptions, garbage.

#![allow(clippy::unwrap_used, reason = "a test stops at the first thing that goes wrong")]

use std::collections::BTreeSet;
use std::time::Duration;

use axum::http::StatusCode;
use serde_json::{Value, json};
use weft_cluster::write::{Recorder, Severity, Warning};
use weft_cluster::{Watch, WatchFilter};
use weft_testkit::api_server::{FakeApiServer, GoneAs};
use weft_types::{ChangeSet, ClusterNetworkPolicy, Kind, NamespacedName, ObjectKey};

/// What a server of now says, and what it may do instead.
mod streams;
mod writes;

const NODES: &str = "/api/v1/nodes";
const CLUSTER_POLICIES: &str = "/apis/policy.networking.k8s.io/v1alpha2/clusternetworkpolicies";
const SERVICE_CIDRS: &str = "/apis/networking.k8s.io/v1/servicecidrs";
const NAMESPACES: &str = "/api/v1/namespaces";
const SERVICES: &str = "/api/v1/services";
const SLICES: &str = "/apis/discovery.k8s.io/v1/endpointslices";

fn node(name: &str) -> Value {
    json!({"metadata": {"name": name, "managedFields": [{"manager": "test"}]}, "spec": {"podCIDR": "10.244.1.0/24"}})
}

/// One as they are now, and one of old, which speaks JSON alone and knows no streaming lists.
fn of_every_age() -> [FakeApiServer; 2] {
    [FakeApiServer::start(), FakeApiServer::of_old()]
}

async fn client(server: &FakeApiServer) -> kube::Client {
    weft_cluster::client(Some(server.kubeconfig())).await.unwrap()
}

async fn watch_nodes(server: &FakeApiServer) -> Watch {
    Watch::start(client(server).await, &WatchFilter::default(), &[Kind::Node])
}

/// Waits, but not for ever.
async fn within<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(Duration::from_secs(30), future).await.expect("nothing came within 30 s")
}

/// The names of the Nodes that the next change set is about.
async fn changed(watch: &mut Watch) -> Vec<String> {
    let ChangeSet { nodes, services, namespaces, service_cidrs, .. } = within(watch.next()).await;
    assert!(services.is_empty() && namespaces.is_empty() && service_cidrs.is_empty());
    nodes.into_iter().collect()
}

fn names(watch: &Watch) -> Vec<&str> {
    watch.snapshot().nodes().map(|node| node.name.as_str()).collect()
}

/// Waits until the server has seen so many lists or watches of a path.
async fn until_seen(server: &FakeApiServer, path: &str, watches: bool, count: usize) {
    within(async {
        while server.queries(path, watches).len() < count {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn the_first_result_waits_for_every_kind() {
    let server = FakeApiServer::start();
    server.put(NAMESPACES, json!({"metadata": {"name": "shop"}}));
    for _ in 0..2 {
        server.answer_once(NODES, StatusCode::SERVICE_UNAVAILABLE, "not yet");
    }
    let client = client(&server).await;
    let mut watch = Watch::start(client, &WatchFilter::default(), &[Kind::Namespace, Kind::Node]);
    tokio::select! {
        _ = watch.next() => panic!("the Nodes were not listed yet"),
        () = until_seen(&server, NAMESPACES, true, 1) => {}
    }
    let changes = within(watch.next()).await;
    assert!(changes.nodes.is_empty());
    assert_eq!(changes.namespaces.into_iter().collect::<Vec<_>>(), ["shop"]);
}

#[tokio::test]
async fn an_empty_cluster_is_a_result_too() {
    let server = FakeApiServer::start();
    let mut watch = watch_nodes(&server).await;
    assert!(within(watch.next()).await.is_empty());
}

#[tokio::test]
async fn a_kind_that_the_server_lacks_or_hides_is_as_good_as_empty_unless_it_is_needed() {
    for status in [StatusCode::NOT_FOUND, StatusCode::FORBIDDEN] {
        let server = FakeApiServer::start();
        let code = status.as_u16();
        let body =
            json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "message": "no"});
        server.answer_once(SERVICE_CIDRS, status, &body.to_string());
        server.put(NODES, node("a"));
        let mut watch =
            Watch::start(client(&server).await, &WatchFilter::default(), &[Kind::Node, Kind::ServiceCidr]);
        assert_eq!(changed(&mut watch).await, ["a"]);
    }
    let server = FakeApiServer::start();
    server
        .put(SERVICE_CIDRS, json!({"metadata": {"name": "kubernetes"}, "spec": {"cidrs": ["10.96.0.0/16"]}}));
    let mut watch = Watch::start(client(&server).await, &WatchFilter::default(), &[Kind::ServiceCidr]);
    let changes = within(watch.next()).await;
    assert_eq!(changes.service_cidrs.into_iter().collect::<Vec<_>>(), ["kubernetes"]);
    let expected = ["10.96.0.0/16".parse().unwrap()];
    assert_eq!(watch.snapshot().service_cidrs().collect::<Vec<_>>(), [("kubernetes", &expected[..])]);
}

/// Who may not see policies must not go on as if there were none; where their definition is not there, there
/// are none.
#[tokio::test]
async fn policies_whose_definition_is_absent_are_none_and_hidden_ones_are_waited_for() {
    let server = FakeApiServer::start();
    let status = |code: u16| {
        json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "message": "no"})
            .to_string()
    };
    server.answer_once(CLUSTER_POLICIES, StatusCode::NOT_FOUND, &status(404));
    server.put(NODES, node("a"));
    let kinds = [Kind::Node, Kind::ClusterNetworkPolicy];
    let mut watch = Watch::start(client(&server).await, &WatchFilter::network_policies(), &kinds);
    assert_eq!(changed(&mut watch).await, ["a"]);
    assert_eq!(watch.snapshot().of::<ClusterNetworkPolicy>().iter().count(), 0);

    let server = FakeApiServer::start();
    let spec = json!({"tier": "Admin", "priority": 1, "subject": {"namespaces": {}}});
    server.put(CLUSTER_POLICIES, json!({"metadata": {"name": "guard"}, "spec": spec}));
    server.answer_once(CLUSTER_POLICIES, StatusCode::FORBIDDEN, &status(403));
    let mut watch = Watch::start(client(&server).await, &WatchFilter::network_policies(), &kinds[1..]);
    let changes = within(watch.next()).await;
    assert_eq!(changes.cluster_network_policies.into_iter().collect::<Vec<_>>(), ["guard"]);
}

/// So does an API server that starts, for as long as it has not read its roles.
#[tokio::test]
async fn a_refusal_takes_away_nothing_that_is_known() {
    let server = FakeApiServer::start();
    server
        .put(SERVICE_CIDRS, json!({"metadata": {"name": "kubernetes"}, "spec": {"cidrs": ["10.96.0.0/16"]}}));
    let mut watch = Watch::start(client(&server).await, &WatchFilter::default(), &[Kind::ServiceCidr]);
    assert_eq!(within(watch.next()).await.service_cidrs.len(), 1);
    until_seen(&server, SERVICE_CIDRS, true, 1).await;
    let body =
        json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 403, "message": "no"});
    server.answer_once(SERVICE_CIDRS, StatusCode::FORBIDDEN, &body.to_string());
    server.close_watches();
    until_seen(&server, SERVICE_CIDRS, true, 3).await;
    server.put(SERVICE_CIDRS, json!({"metadata": {"name": "more"}, "spec": {"cidrs": ["10.97.0.0/16"]}}));
    let changes = within(watch.next()).await;
    assert_eq!(changes.service_cidrs.into_iter().collect::<Vec<_>>(), ["more"]);
    assert_eq!(watch.snapshot().service_cidrs().count(), 2);
}

#[tokio::test]
async fn changes_follow_one_another() {
    for server in of_every_age() {
        server.put(NODES, node("a"));
        let mut watch = watch_nodes(&server).await;
        assert_eq!(changed(&mut watch).await, ["a"]);

        server.put(NODES, node("b"));
        assert_eq!(changed(&mut watch).await, ["b"]);

        // Nothing that Weft reads changed: no change set until something does.
        server.put(NODES, node("b"));
        server.delete(NODES, "a");
        assert_eq!(changed(&mut watch).await, ["a"]);
        assert_eq!(names(&watch), ["b"]);
    }
}

#[tokio::test]
async fn a_long_list_comes_in_pages() {
    let server = FakeApiServer::of_old();
    for number in 0..101 {
        server.put(NODES, node(&format!("node{number}")));
    }
    let mut watch = watch_nodes(&server).await;
    assert_eq!(changed(&mut watch).await.len(), 101);
    assert_eq!(server.queries(NODES, false).len(), 3);
}

#[tokio::test]
async fn the_filter_is_asked_of_the_server() {
    for server in of_every_age() {
        let kinds = [Kind::Service, Kind::EndpointSlice, Kind::Node];
        let mut watch = Watch::start(client(&server).await, &WatchFilter::service_proxy(), &kinds);
        within(watch.next()).await;
        let selector = "!service.kubernetes.io/service-proxy-name,!service.kubernetes.io/headless";
        for path in [SERVICES, SLICES] {
            until_seen(&server, path, true, 1).await;
            assert_eq!(server.queries(path, false)[0]["labelSelector"], selector);
            assert_eq!(server.queries(path, true)[0]["labelSelector"], selector);
        }
        assert!(!server.queries(NODES, false)[0].contains_key("labelSelector"));
    }
}

#[tokio::test]
async fn a_filter_asks_for_the_pods_of_one_node_and_for_one_config_map() {
    let server = FakeApiServer::start();
    let (pods, config_maps) = ("/api/v1/pods", "/api/v1/namespaces/kube-system/configmaps");
    let status = json!({"podIPs": [{"ip": "10.244.1.7"}]});
    server.put(pods, json!({"metadata": {"name": "db-0", "namespace": "shop"}, "status": status}));
    server.put(
        config_maps,
        json!({"metadata": {"name": "kube-dns", "namespace": "kube-system"}, "data": {"stubDomains": "{}"}}),
    );
    let name = NamespacedName::new("kube-system", "kube-dns");
    let filter = WatchFilter {
        node: Some("node1".to_owned()),
        config_map: Some(name.clone()),
        ..WatchFilter::default()
    };
    let mut watch = Watch::start(client(&server).await, &filter, &[Kind::Pod, Kind::ConfigMap]);
    let changes = within(watch.next()).await;
    assert_eq!((changes.pods.len(), changes.config_maps.len()), (1, 1));
    assert_eq!(watch.snapshot().pods().next().unwrap().addresses[0].to_string(), "10.244.1.7");
    assert_eq!(watch.snapshot().config_map(&name).unwrap()["stubDomains"], "{}");
    let of_node = "status.phase!=Succeeded,status.phase!=Failed,spec.nodeName=node1";
    for (path, selector) in [(pods, of_node), (config_maps, "metadata.name=kube-dns")] {
        until_seen(&server, path, true, 1).await;
        assert_eq!(server.queries(path, false)[0]["fieldSelector"], selector);
        assert_eq!(server.queries(path, true)[0]["fieldSelector"], selector);
    }
    server.delete(config_maps, "kube-dns");
    assert_eq!(within(watch.next()).await.config_maps.len(), 1);
    assert_eq!(watch.snapshot().config_map(&name), None);
}

#[tokio::test]
async fn a_watch_that_ends_goes_on_from_its_last_bookmark() {
    for server in of_every_age() {
        server.put(NODES, node("a"));
        let mut watch = watch_nodes(&server).await;
        changed(&mut watch).await;
        until_seen(&server, NODES, true, 1).await;
        let version = server.bookmark(NODES, "Node");
        server.close_watches();
        until_seen(&server, NODES, true, 2).await;
        assert_eq!(server.queries(NODES, true)[1]["resourceVersion"], version);
        assert_eq!(server.queries(NODES, false).len(), 1, "no second list");

        server.put(NODES, node("b"));
        assert_eq!(changed(&mut watch).await, ["b"]);
    }
}

#[tokio::test]
async fn a_slow_watch_that_ends_in_the_midst_of_events_loses_none() {
    for server in of_every_age() {
        server.put(NODES, node("node0"));
        server.slow_down(NODES);
        let mut watch = watch_nodes(&server).await;
        assert_eq!(changed(&mut watch).await, ["node0"]);
        for number in 1..6 {
            until_seen(&server, NODES, true, number).await;
            server.put(NODES, node(&format!("node{number}")));
            // Some of its bytes have come by then.
            tokio::time::sleep(Duration::from_millis(5)).await;
            server.close_watches();
        }
        server.delete(NODES, "node0");
        within(async {
            while names(&watch) != ["node1", "node2", "node3", "node4", "node5"] {
                watch.next().await;
            }
        })
        .await;
    }
}

#[tokio::test]
async fn a_version_that_is_gone_means_a_new_list() {
    for (gone_as, server) in
        [GoneAs::Event, GoneAs::Status].into_iter().flat_map(|how| of_every_age().map(|server| (how, server)))
    {
        server.put(NODES, node("a"));
        server.put(NODES, node("b"));
        let mut watch = watch_nodes(&server).await;
        changed(&mut watch).await;
        until_seen(&server, NODES, true, 1).await;
        server.delete_in_silence(NODES, "a", gone_as);
        server.close_watches();
        assert_eq!(changed(&mut watch).await, ["a"], "{gone_as:?}");
        assert_eq!(names(&watch), ["b"]);
    }
}

#[tokio::test]
async fn an_outage_costs_nothing_but_time() {
    for mut server in of_every_age() {
        server.put(NODES, node("a"));
        let mut watch = watch_nodes(&server).await;
        changed(&mut watch).await;
        until_seen(&server, NODES, true, 1).await;

        server.stop();
        server.put(NODES, node("b"));
        server.delete(NODES, "a");
        assert_eq!(names(&watch), ["a"], "what is known stays");
        server.restart();

        let mut nodes = Vec::new();
        while nodes.len() < 2 {
            nodes.extend(changed(&mut watch).await);
        }
        assert_eq!(names(&watch), ["b"]);
        assert_eq!(server.queries(NODES, false).len(), 1, "the watch went on where it was");
    }
}

#[tokio::test]
async fn an_api_server_may_come_late() {
    let mut server = FakeApiServer::start();
    server.put(NODES, node("a"));
    server.stop();
    let mut watch = watch_nodes(&server).await;
    server.restart();
    assert_eq!(changed(&mut watch).await, ["a"]);
}

#[tokio::test]
async fn answers_that_are_garbage_are_tried_again() {
    for server in of_every_age() {
        server.put(NODES, node("a"));
        for (status, body) in [
            (StatusCode::OK, "<html>welcome to the login page</html>"),
            (StatusCode::OK, r#"{"items": 5, "metadata": {"resourceVersion": "1"}}"#),
            (StatusCode::OK, r#"{"items": []}"#),
            (StatusCode::FORBIDDEN, r#"{"kind": "Status", "code": 403, "message": "nodes is forbidden"}"#),
        ] {
            server.answer_once(NODES, status, body);
        }
        let mut watch = watch_nodes(&server).await;
        assert_eq!(changed(&mut watch).await, ["a"]);
    }
}

#[tokio::test]
async fn a_line_that_is_garbage_hides_no_change() {
    for server in of_every_age() {
        server.put(NODES, node("a"));
        let mut watch = watch_nodes(&server).await;
        changed(&mut watch).await;
        for garbage in ["}{", r#"{"type": "SURPRISE", "object": {}}"#, r#"{"type": "DELETED", "object": {}}"#]
        {
            let lists = server.queries(NODES, false).len();
            until_seen(&server, NODES, true, lists).await;
            server.send_line(NODES, garbage);
            until_seen(&server, NODES, false, lists + 1).await;
        }
        server.put(NODES, node("b"));
        assert_eq!(changed(&mut watch).await, ["b"]);
    }
}

#[tokio::test]
async fn a_malformed_object_costs_only_itself() {
    let server = FakeApiServer::of_old();
    let bad = |name: &str| json!({"metadata": {"name": name}, "status": "not an object"});
    server.put(NODES, bad("bad"));
    server.put(NODES, node("good"));
    let mut watch = watch_nodes(&server).await;
    let changes = within(watch.next()).await;
    assert_eq!(Vec::from_iter(changes.nodes), ["good"]);
    assert_eq!(changes.invalid[0].key, Some(ObjectKey::Node("bad".to_owned())), "told with the changes");

    server.put(NODES, bad("good"));
    server.put(NODES, node("bad"));
    let mut nodes = Vec::new();
    while nodes.len() < 2 {
        nodes.extend(changed(&mut watch).await);
    }
    assert_eq!(names(&watch), ["bad"], "good and bad have changed places");
}

#[tokio::test]
async fn a_malformed_element_costs_only_itself_and_is_told() {
    let server = FakeApiServer::of_old();
    let mut odd = node("odd");
    odd["spec"] = json!({"podCIDRs": [{"not": ["a", "text"]}, "10.244.001.0/24"]});
    server.put(NODES, odd);
    let mut watch = watch_nodes(&server).await;
    let changes = within(watch.next()).await;
    assert_eq!(Vec::from_iter(changes.nodes), ["odd"]);
    let told = &changes.invalid[0];
    assert_eq!(told.key, Some(ObjectKey::Node("odd".to_owned())));
    let expected = "left out, while the rest is used: spec.podCIDRs[0]: invalid type: map";
    assert!(told.fault.starts_with(expected), "{}", told.fault);
    let cidrs = &watch.snapshot().node("odd").unwrap().pod_cidrs;
    assert_eq!(*cidrs, ["10.244.1.0/24".parse().unwrap()]);
}

#[tokio::test]
async fn what_made_endpoints_change_is_known_by_its_moment() {
    for server in of_every_age() {
        let slice = |pod: &str, moment: &str| {
            json!({
                "metadata": {"name": "web-1", "namespace": "shop", "labels": {"kubernetes.io/service-name": "web"},
                    "annotations": {"endpoints.kubernetes.io/last-change-trigger-time": moment}},
                "addressType": "IPv4", "endpoints": [{"addresses": [pod]}],
            })
        };
        let mut watch =
            Watch::start(client(&server).await, &WatchFilter::service_proxy(), &[Kind::EndpointSlice]);
        within(watch.next()).await;
        until_seen(&server, SLICES, true, 1).await;
        server.put(SLICES, slice("10.0.0.1", "1970-01-01T00:00:07Z"));
        let changes = within(watch.next()).await;
        let moment = |seconds| std::time::SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        assert_eq!((changes.endpoint_slices, changes.triggered), (1, vec![moment(7)]));
        // The same endpoints again, and a moment that is none.
        server.put(SLICES, slice("10.0.0.1", "1970-01-01T00:00:08Z"));
        server.put(SLICES, slice("10.0.0.2", "soon"));
        let changes = within(watch.next()).await;
        assert_eq!((changes.endpoint_slices, changes.triggered), (1, vec![]));
    }
}

#[tokio::test]
async fn a_warning_is_one_event_however_often_it_is_recorded() {
    let server = FakeApiServer::start();
    let warning = Warning {
        about: ObjectKey::Service(NamespacedName::new("shop", "web")),
        reason: "FrontendTaken",
        note: "NodePort 30080 is another's".to_owned(),
    };
    server.answer_once(
        "/api/v1/namespaces/shop/services/web",
        StatusCode::OK,
        r#"{"metadata": {"uid": "u-1"}}"#,
    );
    for node in ["node1", "node2"] {
        let recorder = Recorder::new(client(&server).await, "weft-proxy", node);
        assert_eq!(within(recorder.record(Severity::Warning, &warning)).await, Ok(()));
    }
    let events = server.objects("/apis/events.k8s.io/v1/namespaces/shop/events");
    let [event] = &events[..] else { panic!("{events:?}") };
    let regarding = json!({
        "apiVersion": "v1", "kind": "Service", "namespace": "shop", "name": "web", "uid": "u-1",
    });
    assert_eq!(event["regarding"], regarding);
    assert_eq!((&event["reason"], &event["note"]), (&json!(warning.reason), &json!(warning.note)));
    assert_eq!(event["reportingInstance"], "weft-proxy-node1");
    let moment = event["eventTime"].as_str().unwrap();
    assert!(
        moment.len() == "2026-01-02T03:04:05.123456Z".len() && moment.ends_with('Z'),
        "MicroTime: {moment}"
    );

    server.answer_once("/apis/events.k8s.io/v1/namespaces/shop/events", StatusCode::FORBIDDEN, "no");
    let recorder = Recorder::new(client(&server).await, "weft-proxy", "node3");
    assert!(within(recorder.record(Severity::Warning, &warning)).await.is_err());
}
