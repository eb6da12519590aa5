//! What is shown, from objects and answers as they come.

use super::*;
use serde_json::json;

const IMAGE: &str = "registry.example:5000/weft:0.1.0";

fn workload(name: &str, image: &str) -> Value {
    json!({"metadata": {"name": name}, "spec": {"template": {"spec": {"containers": [{"image": image}]}}}})
}

fn seen() -> Seen {
    let ready = json!([{"type": "Ready", "status": "True"}]);
    let pod = |component: &str, status: Value| {
        json!({"metadata": {"labels": {COMPONENT: component}}, "status": status,
               "spec": {"nodeName": "node1", "containers": [{"image": "registry.example:5000/weft:0.1.0"}]}})
    };
    Seen {
        nodes: vec![json!({"metadata": {"name": "node1"}, "spec": {"podCIDRs": ["10.244.0.0/24"]},
                           "status": {"conditions": ready}})],
        pods: vec![
            pod("agent", json!({"conditions": ready, "containerStatuses": [{"restartCount": 2}]})),
            pod("proxy", json!({"conditions": ready})),
            pod("dns", json!({"conditions": ready})),
        ],
        deployment: Some(json!({"metadata": {"name": "weft-dns"}, "spec": {"replicas": 1},
                                "status": {"updatedReplicas": 1, "availableReplicas": 1}})),
        service: Some(json!({"spec": {"clusterIP": "10.96.0.10"}})),
        node_dns: None,
        blocks: Vec::new(),
        daemon_sets: vec![workload("weft-agent", IMAGE), workload("weft-proxy", IMAGE)],
        health: BTreeMap::from([("node1".to_owned(), json!({"lastUpdated": "2026-08-01T12:00:00Z"}))]),
        ..Seen::default()
    }
}

#[test]
fn blocks_stand_in_the_place_of_pod_cidrs() {
    let block = json!({"spec": {"cidr": "10.244.3.64/26", "node": "node1"}});
    let status = status(&Seen { blocks: vec![block], ..seen() });
    assert_eq!(status.rows[0].pod_cidrs, "10.244.3.64/26");
}

#[test]
fn a_cluster_in_order() {
    let status = status(&seen());
    assert!(status.is_well());
    let text = status.to_string();
    let row: Vec<&str> = text.lines().nth(1).unwrap().split_whitespace().collect();
    assert_eq!(
        row,
        [
            "node1",
            "yes",
            "10.244.0.0/24",
            "ready",
            "(2",
            "restarts)",
            "ready",
            "0.1.0",
            "2026-08-01T12:00:00Z"
        ]
    );
    assert!(text.contains("DNS: weft-dns 1/1 ready (node1) at 10.96.0.10"), "{text}");
}

#[test]
fn a_node_s_own_dns_server_is_told_where_there_is_to_be_one() {
    let mut seen = seen();
    assert!(!status(&seen).to_string().contains("NODE DNS"));
    seen.node_dns = Some(json!({}));
    assert!(!status(&seen).is_well());
    assert!(status(&seen).to_string().contains("missing"));
    let of_node = json!({"metadata": {"labels": {COMPONENT: "node-dns"}}, "spec": {"nodeName": "node1"}});
    let ready = json!({"conditions": [{"type": "Ready", "status": "True"}]});
    seen.pods.extend([of_node.clone(), of_node]);
    assert_eq!(status(&seen).rows[0].node_dns.as_deref(), Some("not ready"));
    // The one before it answers, while the next one starts.
    seen.pods[3]["status"] = ready;
    assert_eq!(status(&seen).rows[0].node_dns.as_deref(), Some("ready"));
    assert!(status(&seen).is_well() && status(&seen).to_string().contains("NODE DNS"));
}

#[test]
fn restarts_of_init_containers_are_none_of_the_daemon() {
    let mut seen = seen();
    seen.pods[1]["status"]["initContainerStatuses"] = json!([{"restartCount": 3}]);
    assert_eq!(status(&seen).rows[0].proxy, "ready");
}

#[test]
fn a_pod_that_ends_is_not_counted_as_one_that_serves() {
    let mut seen = seen();
    let mut ending = seen.pods[2].clone();
    ending["metadata"]["deletionTimestamp"] = json!("2026-08-01T12:00:00Z");
    ending["spec"]["nodeName"] = json!("node2");
    seen.pods.push(ending);
    assert_eq!(status(&seen).dns, "weft-dns 1/1 ready (node1) at 10.96.0.10");
    seen.pods[1]["metadata"]["deletionTimestamp"] = json!("2026-08-01T12:00:00Z");
    assert_eq!(status(&seen).rows[0].proxy, "terminating");
    assert!(!status(&seen).is_well());
}

/// As after an installation with `--node-local-dns` and an upgrade without it.
#[test]
fn parts_of_another_version_are_named() {
    let mut seen = seen();
    seen.daemon_sets.push(workload("weft-dns-node", "registry.example:5000/weft:0.0.9"));
    let status = status(&seen);
    assert!(!status.is_well());
    let text = status.to_string();
    assert!(text.contains("weft-dns-node runs registry.example:5000/weft:0.0.9"), "{text}");
}

#[test]
fn what_an_uninstallation_left_is_named_with_the_remedy() {
    let mut seen = seen();
    seen.daemon_sets.push(workload("weft-cleanup", IMAGE));
    let status = status(&seen);
    assert!(!status.is_well());
    assert!(status.to_string().contains("delete daemonset weft-cleanup"), "{status}");
}

#[test]
fn a_firewall_that_stops_connections_to_services_is_named_with_its_node() {
    let mut seen = seen();
    let obstacle = "the chain FORWARD of table ip filter stops what is passed on";
    seen.health.insert("node1".to_owned(), json!({"conflicts": [obstacle]}));
    let status = status(&seen);
    assert!(!status.is_well());
    assert!(status.to_string().ends_with(&format!("\nNode node1: {obstacle}\n")), "{status}");
    let meant = "the chain entering of table ip weft-policy stops what is passed on to endpoints";
    assert_eq!(dropped("node1", meant), None);
}

#[test]
fn pods_that_wait_for_their_policies_are_named_with_their_node() {
    let mut seen = seen();
    let text = "ok\nNetworkPolicy shop/db: spec.ingress[0] cannot be read\npendingPods: shop/a, shop/b\n";
    seen.agents.insert("node1".to_owned(), text.to_owned());
    let status = status(&seen);
    let told = "\nNode node1: NetworkPolicy shop/db: spec.ingress[0] cannot be read\n\nNode node1: pods that wait for \
                their network policies, and are closed until then: shop/a, shop/b\n";
    assert!(status.to_string().ends_with(told), "{status}");
    assert!(status.is_well(), "it passes, or is what a policy says");
}

#[test]
fn what_is_missing_or_waits_is_told() {
    let mut seen = seen();
    seen.pods.retain(|pod| pod["metadata"]["labels"][COMPONENT] != "proxy");
    seen.pods[0]["status"] =
        json!({"containerStatuses": [{"state": {"waiting": {"reason": "ImagePullBackOff"}}}]});
    seen.pods.retain(|pod| pod["metadata"]["labels"][COMPONENT] != "dns");
    seen.health.clear();
    let status = status(&seen);
    assert!(!status.is_well());
    let Row { agent, proxy, last_sync, .. } = &status.rows[0];
    assert_eq!([agent, proxy, last_sync], ["ImagePullBackOff", "missing", "-"]);
    assert_eq!(status.dns, "weft-dns 1/1 ready at 10.96.0.10");
}

#[test]
fn what_leads_beyond_the_nodes_has_a_line_each_where_some_node_has_it() {
    let list = |items: Value| {
        json!({"kind": "List", "apiVersion": "v1", "metadata": {}, "items": items}).to_string()
    };
    let node = json!({"metadata": {"name": "node1"}});
    let block = json!({"metadata": {"name": "b"}, "spec": {"cidr": "10.0.0.0/26", "node": "node1"}});
    let ipam = json!({"blocks": [{"cidr": "10.0.0.0/26", "usable": 61}], "held": ["10.0.0.7"]});
    let metrics = "weft_agent_bgp_peers 2\nweft_agent_bgp_sessions_established 1\nweft_agent_dhcp_leases 1\n";
    let kubeconfig = crate::scripted::cluster(vec![
        ("/api/v1/nodes", list(json!([node]))),
        ("/api/v1/pods", list(json!([]))),
        ("/api/v1/namespaces/kube-system/pods", list(json!([]))),
        ("/apis/apps/v1/namespaces/kube-system/daemonsets", list(json!([]))),
        ("/apis/weft.internal/v1/ipamblocks", list(json!([block]))),
        ("/api/v1/nodes/node1:10246/proxy/healthz", "ok\n".to_owned()),
        ("/api/v1/nodes/node1:10246/proxy/metrics", metrics.to_owned()),
        ("/api/v1/nodes/node1:10246/proxy/ipam", ipam.to_string()),
    ]);
    let connection = Connection { kubeconfig: Some(kubeconfig.path().to_owned()), ..Connection::default() };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let text = runtime.block_on(run(&Options { connection })).unwrap().to_string();
    let expected = "\nBlocks: 1 of 1 nodes; 1 of 61 addresses in use, 60 free, 1 kept for no pod\n\
        BGP: 1 of 2 sessions are up; not all of: node1 (1 of 2)\nDHCP: 1 leases; of: node1 (1)\n\
        \nNode node1 keeps addresses that no Pod has: 10.0.0.7;";
    assert!(text.contains(expected), "{text}");
}
