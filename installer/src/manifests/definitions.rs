//! The definitions of kinds in the manifests, against what agents read and write.

use serde_json::Value;

use super::CLUSTER_NETWORK_POLICIES;
use super::tests::{documents, rendered};

/// What it reads and what the API server takes must be one: as unknown, a field would be dropped there
/// without a word.
#[test]
fn the_definition_of_cluster_network_policies_has_the_limits_of_the_api() {
    assert!(!rendered(&[]).contains(CLUSTER_NETWORK_POLICIES), "only when it is asked for");
    let all = documents(&rendered(&["--cluster-network-policy"]));
    let definition = all.iter().find(|object| object["kind"] == "CustomResourceDefinition").unwrap();
    assert_eq!(definition["metadata"]["name"], CLUSTER_NETWORK_POLICIES);
    let version = &definition["spec"]["versions"][0];
    assert_eq!((&version["name"], &version["storage"]), (&"v1alpha2".into(), &true.into()));
    let spec = &version["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"];
    assert_eq!((&spec["priority"]["minimum"], &spec["priority"]["maximum"]), (&0.into(), &1000.into()));
    assert_eq!(spec["tier"]["enum"], serde_json::json!(["Admin", "Baseline"]));
    for (direction, peers, kinds) in [
        ("ingress", "from", &["namespaces", "pods"][..]),
        ("egress", "to", &["namespaces", "networks", "nodes", "pods"]),
    ] {
        let rules = &spec[direction];
        let rule = &rules["items"]["properties"];
        assert_eq!((&rules["maxItems"], &rule[peers]["maxItems"]), (&25.into(), &25.into()));
        assert_eq!(rule["action"]["enum"], serde_json::json!(["Accept", "Deny", "Pass"]));
        let keys = |object: &Value| {
            let mut keys: Vec<_> = object.as_object().unwrap().keys().cloned().collect();
            keys.sort();
            keys
        };
        assert_eq!(keys(&rule[peers]["items"]["properties"]), kinds);
        let protocols = keys(&rule["protocols"]["items"]["properties"]);
        assert_eq!(protocols, ["destinationNamedPort", "sctp", "tcp", "udp"]);
    }
}

#[test]
fn blocks_come_with_their_definition_and_the_agent_s_role() {
    let usual = rendered(&[]);
    let is_there = |part| usual.contains(part);
    assert!(
        !is_there("ipamblocks.weft.internal") && !is_there("weft-agent-ipam"),
        "only when they are asked for"
    );
    let all = documents(&rendered(&["--ipam=blocks"]));
    assert_eq!(all.len(), documents(&rendered(&[])).len() + 3);
    let definition = all.iter().find(|object| object["kind"] == "CustomResourceDefinition").unwrap();
    let spec = &definition["spec"];
    assert_eq!((&spec["group"], &spec["names"]["kind"]), (&"weft.internal".into(), &"IPAMBlock".into()));
    let fields = &spec["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"];
    for field in ["cidr", "claim", "node", "nodeUID"] {
        assert_eq!(fields[field]["type"], "string", "what is not defined is dropped without a word");
    }
    let role = all.iter().find(|object| object["metadata"]["name"] == "weft-agent-ipam").unwrap();
    let verbs = &role["rules"][0]["verbs"];
    assert_eq!(*verbs, serde_json::json!(["get", "list", "watch", "create", "update", "delete"]));
    assert!(rendered(&["--ipam=blocks"]).contains(r#""--ipam=blocks""#));
}

#[test]
fn dns_servers_listen_at_the_pods_addresses_of_every_family() {
    let all = documents(&rendered(&["--api-host=fd00:30::1", "--cluster-dns=fd00:10:96::a"]));
    let deployment = all.iter().find(|document| document["kind"] == "Deployment").unwrap();
    for container in deployment["spec"]["template"]["spec"]["containers"].as_array().unwrap() {
        assert!(container["command"].as_array().unwrap().contains(&"--listen=$(POD_IPS)".into()));
        let field = &container["env"][0]["valueFrom"]["fieldRef"]["fieldPath"];
        assert_eq!((&container["env"][0]["name"], field), (&"POD_IPS".into(), &"status.podIPs".into()));
    }
    let service = all.iter().find(|document| document["kind"] == "Service").unwrap();
    assert_eq!(service["spec"]["clusterIP"], "fd00:10:96::a");
}
