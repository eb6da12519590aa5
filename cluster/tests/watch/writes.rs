//! What is written besides events: Leases, the status of Services and annotations of Nodes.

use weft_cluster::write::{Candidate, NotWritten, annotate, set_addresses};

use super::*;

const LEASES: &str = "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases";

async fn candidate(server: &FakeApiServer, identity: &str) -> Candidate {
    Candidate::new(client(server).await, "kube-system", "weft-test", identity.to_owned())
}

fn lease(server: &FakeApiServer) -> Value {
    server.objects(LEASES).into_iter().next().unwrap_or_default()
}

/// A Lease of somebody else, who died.
fn left_behind(holder: &str, seconds: u64) -> Value {
    json!({
        "metadata": {"name": "weft-test", "annotations": {"kept": "yes"}},
        "spec": {"holderIdentity": holder, "leaseDurationSeconds": seconds, "leaseTransitions": 6},
    })
}

#[tokio::test]
async fn a_lease_is_made_by_the_first_and_renewed_while_the_others_wait() {
    let server = FakeApiServer::start();
    let (mut first, mut second) = (candidate(&server, "node1").await, candidate(&server, "node2").await);
    let since = within(first.acquire()).await;
    let made = lease(&server);
    assert_eq!(
        (&made["spec"]["holderIdentity"], &made["spec"]["leaseTransitions"]),
        (&json!("node1"), &json!(0))
    );
    let renewed = async {
        let mut versions = BTreeSet::new();
        while versions.len() < 3 {
            versions.insert(lease(&server)["spec"]["renewTime"].to_string());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::select! {
        why = first.keep(since) => panic!("{why}"),
        _ = second.acquire() => panic!("there are two"),
        () = renewed => {}
    }
    assert_eq!(lease(&server)["spec"]["acquireTime"], made["spec"]["acquireTime"]);
}

#[tokio::test]
async fn a_lease_goes_to_another_once_its_holder_is_gone() {
    let server = FakeApiServer::start();
    server.put(LEASES, left_behind("node1", 1));
    within(candidate(&server, "node2").await.acquire()).await;
    let taken = lease(&server);
    assert_eq!(
        (&taken["spec"]["holderIdentity"], &taken["spec"]["leaseTransitions"]),
        (&json!("node2"), &json!(7))
    );
    assert_eq!(taken["metadata"]["annotations"]["kept"], "yes");
}

#[tokio::test]
async fn who_starts_again_has_its_lease_at_once() {
    let server = FakeApiServer::start();
    server.put(LEASES, left_behind("node1", 3600));
    within(candidate(&server, "node1").await.acquire()).await;
    assert_eq!(lease(&server)["spec"]["leaseTransitions"], 6);
}

#[tokio::test]
async fn a_holder_gives_up_when_another_has_the_lease_and_when_it_cannot_renew_it() {
    let mut server = FakeApiServer::start();
    let mut holder = candidate(&server, "node1").await;
    let since = within(holder.acquire()).await;
    server.put(LEASES, left_behind("node9", 1));
    assert_eq!(within(holder.keep(since)).await, "it is held by node9");
    let since = within(holder.acquire()).await;
    server.stop();
    let why = within(holder.keep(since)).await;
    assert!(why.to_lowercase().contains("connect"), "{why}");
}

#[tokio::test]
async fn the_addresses_of_a_service_are_written_for_the_version_that_was_seen() {
    let server = FakeApiServer::start();
    let service = json!({"metadata": {"name": "web", "namespace": "shop"}, "spec": {"type": "LoadBalancer"}});
    server.put(SERVICES, service);
    let version = server.objects(SERVICES)[0]["metadata"]["resourceVersion"].as_str().unwrap().to_owned();
    let (client, name) = (client(&server).await, NamespacedName::new("shop", "web"));
    let addresses = ["192.0.2.7", "2001:db8::7"].map(|address| address.parse().unwrap());
    assert_eq!(within(set_addresses(&client, &name, &version, &addresses)).await, Ok(()));
    let written = server.objects(SERVICES)[0].clone();
    let expected = json!([{"ip": "192.0.2.7", "ipMode": "VIP"}, {"ip": "2001:db8::7", "ipMode": "VIP"}]);
    assert_eq!(written["status"]["loadBalancer"]["ingress"], expected);
    assert_eq!(written["spec"]["type"], "LoadBalancer");
    // It is another version by now, or gone.
    assert_eq!(within(set_addresses(&client, &name, &version, &[])).await, Err(NotWritten::Stale));
    let gone = NamespacedName::new("shop", "gone");
    assert_eq!(within(set_addresses(&client, &gone, &version, &[])).await, Err(NotWritten::Stale));
    let version = written["metadata"]["resourceVersion"].as_str().unwrap();
    let path = "/api/v1/namespaces/shop/services/web/status";
    server.answer_once(path, StatusCode::FORBIDDEN, "no");
    let refused = within(set_addresses(&client, &name, version, &[])).await;
    assert!(matches!(refused, Err(NotWritten::Problem(_))), "{refused:?}");
    assert_eq!(within(set_addresses(&client, &name, version, &[])).await, Ok(()));
    assert_eq!(server.objects(SERVICES)[0]["status"]["loadBalancer"], json!({}));
}

#[tokio::test]
async fn annotations_of_a_node_are_written_by_its_status_and_others_stay() {
    let server = FakeApiServer::start();
    server.put(NODES, json!({"metadata": {"name": "node1", "annotations": {"other": "x"}}, "status": {}}));
    let client = client(&server).await;
    let path = "/api/v1/nodes/node1/status";
    server.answer_once(path, StatusCode::FORBIDDEN, "no");
    assert!(within(annotate(&client, "node1", &[("key", "a")])).await.is_err());
    assert_eq!(within(annotate(&client, "node1", &[("key", "a"), ("place", "b")])).await, Ok(()));
    let written = server.objects(NODES)[0]["metadata"]["annotations"].clone();
    assert_eq!(written, json!({"other": "x", "key": "a", "place": "b"}));
}
