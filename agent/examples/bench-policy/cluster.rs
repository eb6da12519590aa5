//! The cluster that is measured with: 10,000 pods on 100 nodes and in 100 namespaces, ten policies in each.
//! As the API server shows it, with the fields that nobody reads, and as values.

use std::fs;
use std::net::Ipv4Addr;

use serde_json::{Value, json};
use weft_cluster::{WatchFilter, manifest};
use weft_policy::plan::Planner;
use weft_types::{Namespace, NetworkPolicy, Pod, Snapshot};

/// The node that is measured: it has 100 of the pods.
pub(crate) const NODE: &str = "node0";
pub(crate) const PODS: u32 = 10_000;
pub(crate) const NAMESPACES: u32 = 100;
const NODES: u32 = 100;
const POLICIES_EACH: u32 = 10;
const APPS: u32 = 10;
const FIRST_ADDRESS: u32 = 0x0a80_0001;

pub(crate) fn namespace_of(pod: u32) -> u32 {
    pod % NAMESPACES
}

fn app_of(pod: u32) -> u32 {
    (pod / NAMESPACES) % APPS
}

/// One pod of each namespace is on the node.
fn node_of(pod: u32) -> u32 {
    (pod / NAMESPACES + pod) % NODES
}

/// The pods of the node that is measured.
pub(crate) fn pods_here() -> impl Iterator<Item = u32> {
    (0..PODS).filter(|pod| node_of(*pod) == 0)
}

pub(crate) fn address_of(pod: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(FIRST_ADDRESS + pod)
}

pub(crate) fn node(number: u32) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": {"name": format!("node{number}"), "labels": {"kubernetes.io/os": "linux"}},
        "spec": {"podCIDR": format!("10.{}.{}.0/24", 200 + number / 250, number % 250)},
        "status": {"addresses": [{"type": "InternalIP", "address": format!("172.30.0.{}", 11 + number)}]},
    })
}

/// A namespace; its team is its number modulo that.
pub(crate) fn namespace(number: u32, teams: u32) -> Value {
    let environment = ["prod", "dev", "test"][(number % 3) as usize];
    let labels = json!({"team": format!("t{}", number % teams), "env": environment});
    json!({
        "apiVersion": "v1", "kind": "Namespace",
        "metadata": {"name": format!("ns{number}"), "labels": labels},
    })
}

/// A pod whose application is that many further on than usual.
pub(crate) fn pod(number: u32, further: u32) -> Value {
    let app = (app_of(number) + further) % APPS;
    let address = address_of(number).to_string();
    let mut pod = new_pod(&format!("pod-{number}"), namespace_of(number), app, node_of(number));
    pod["metadata"]["labels"]["half"] = json!((number % 2).to_string());
    pod["status"]["podIP"] = json!(address);
    pod["status"]["podIPs"] = json!([{"ip": address}]);
    pod
}

/// A pod that has no address yet, with about as much around it as in a real cluster.
pub(crate) fn new_pod(name: &str, namespace: u32, app: u32, node: u32) -> Value {
    let tier = ["web", "api", "db"][(app % 3) as usize];
    let mount = json!({"name": "kube-api-access", "readOnly": true, "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount"});
    let variables =
        (0..12).map(|number| json!({"name": format!("SETTING_{number}"), "value": "x".repeat(24)}));
    let probe = json!({"httpGet": {"path": "/ready", "port": 8080, "scheme": "HTTP"}, "periodSeconds": 10, "failureThreshold": 3});
    let condition = |kind: &str| json!({"type": kind, "status": "True", "lastProbeTime": null, "lastTransitionTime": "2026-01-01T00:00:00Z"});
    let fields = json!({"f:metadata": {"f:labels": {".": {}, "f:app": {}, "f:tier": {}, "f:pod-template-hash": {}}},
        "f:spec": {"f:containers": {"k:{\"name\":\"server\"}": {".": {}, "f:env": {}, "f:image": {}, "f:ports": {}}}}});
    let conditions = ["Initialized", "Ready", "ContainersReady", "PodScheduled"].map(condition);
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "name": name, "namespace": format!("ns{namespace}"), "uid": format!("6fbf5a1e-0c1d-4d2b-9d0e-{name:0>12}"),
            "creationTimestamp": "2026-01-01T00:00:00Z", "generateName": format!("app-{app}-5d4f8c7b9-"),
            "labels": {"app": format!("a{app}"), "tier": tier, "pod-template-hash": format!("h{namespace}-{app}")},
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": format!("app-{app}-5d4f8c7b9"), "controller": true}],
            "managedFields": [{"manager": "kube-controller-manager", "operation": "Update", "fieldsType": "FieldsV1", "fieldsV1": fields}],
        },
        "spec": {
            "nodeName": format!("node{node}"), "serviceAccountName": "default", "restartPolicy": "Always",
            "containers": [{
                "name": "server", "image": "registry.example/team/server:1.0", "imagePullPolicy": "IfNotPresent",
                "ports": [{"name": "http", "containerPort": 8080, "protocol": "TCP"}],
                "env": variables.collect::<Vec<_>>(), "volumeMounts": [mount], "readinessProbe": probe,
                "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}, "limits": {"memory": "256Mi"}},
            }],
            "tolerations": [{"key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300}],
        },
        "status": {
            "phase": "Running", "hostIP": format!("172.30.0.{}", 11 + node), "qosClass": "Burstable",
            "conditions": conditions,
        },
    })
}

/// The policy of a namespace that closes all pods, or that of an application, with a port that is that much
/// higher.
pub(crate) fn policy(namespace: u32, app: Option<u32>, higher: u32) -> Value {
    let object = |name: String, spec: Value| {
        json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
            "metadata": {"name": name, "namespace": format!("ns{namespace}")},
            "spec": spec,
        })
    };
    let Some(app) = app else {
        return object(format!("deny-ns{namespace}"), json!({"podSelector": {}, "policyTypes": ["Ingress"]}));
    };
    let labels = |key: &str, value: String| json!({"matchLabels": {key: value}});
    let peers = match (namespace + app) % 4 {
        0 => json!([{"podSelector": labels("app", format!("a{}", (app + 1) % APPS))}]),
        1 => {
            json!([{"namespaceSelector": labels("team", format!("t{}", namespace % 10)), "podSelector": labels("tier", "web".to_owned())}])
        }
        2 => json!([{"namespaceSelector": labels("env", "prod".to_owned())}]),
        _ => {
            let other = format!("ns{}", (namespace * 7) % NAMESPACES);
            let first = json!({"namespaceSelector": labels("kubernetes.io/metadata.name", other), "podSelector": labels("app", "a0".to_owned())});
            json!([first, {"podSelector": {}}])
        }
    };
    let mut ingress = json!({"from": peers});
    if app % 3 != 0 {
        ingress["ports"] = json!([{"port": 8080 + app + higher}, {"port": 9090}]);
    }
    let mut spec = json!({"podSelector": labels("app", format!("a{app}")), "ingress": [ingress]});
    if app % 3 == 0 {
        spec["policyTypes"] = json!(["Ingress", "Egress"]);
        spec["egress"] = json!([
            {"ports": [{"port": 53, "protocol": "UDP"}]},
            {"to": [{"namespaceSelector": {}, "podSelector": labels("tier", "api".to_owned())}], "ports": [{"port": 8080, "endPort": 8099}, {"port": 9090}]},
        ]);
    }
    object(format!("app-{app}-ns{namespace}"), spec)
}

/// A pod of another node that becomes one of another tier, so that policies of the node hold for it that did
/// not.
pub(crate) fn pod_elsewhere(round: u32) -> Value {
    let is_elsewhere = |pod: &u32| [0, 3, 6].contains(&app_of(*pod)) && node_of(*pod) != 0;
    let pods: Vec<u32> = (0..PODS).filter(is_elsewhere).collect();
    // Not all of one application one after the other.
    pod(pods[(round as usize * 37) % pods.len()], 1 + round / pods.len() as u32 % 2)
}

/// A policy of a pod of the node, with another port.
pub(crate) fn policy_here(round: u32) -> Value {
    let pods: Vec<u32> = pods_here().filter(|pod| !app_of(*pod).is_multiple_of(3)).collect();
    let pod = pods[round as usize % pods.len()];
    policy(namespace_of(pod), Some(app_of(pod)), 10 + round % 50)
}

/// A policy that tells all pods of the cluster apart in two halves.
pub(crate) fn halving() -> Value {
    let mut policy = policy(0, None, 0);
    policy["metadata"]["name"] = json!("halves");
    let half = json!({"namespaceSelector": {}, "podSelector": {"matchLabels": {"half": "1"}}});
    policy["spec"]["ingress"] = json!([{"from": [half]}]);
    policy
}

/// All policies.
pub(crate) fn policies() -> impl Iterator<Item = Value> {
    let of = |namespace| {
        std::iter::once(None)
            .chain((0..POLICIES_EACH - 1).map(Some))
            .map(move |app| policy(namespace, app, 0))
    };
    (0..NAMESPACES).flat_map(of)
}

/// Objects as the daemons read them.
pub(crate) fn read(objects: Vec<Value>) -> Snapshot {
    let file = tempfile::Builder::new().suffix(".json").tempfile().unwrap();
    fs::write(file.path(), json!({"kind": "List", "apiVersion": "v1", "items": objects}).to_string())
        .unwrap();
    manifest::load(&WatchFilter::network_policies(), &[file.path().to_owned()]).unwrap()
}

/// The whole cluster.
pub(crate) fn snapshot() -> Snapshot {
    let namespaces = (0..NAMESPACES).map(|number| namespace(number, 10));
    let pods = (0..PODS).map(|number| pod(number, 0));
    read(namespaces.chain(policies()).chain(pods).collect())
}

/// Tells a planner of all objects.
pub(crate) fn tell(planner: &mut Planner, snapshot: &Snapshot) {
    for namespace in snapshot.of::<Namespace>().iter() {
        planner.set_namespace(&namespace.name, Some(namespace));
    }
    for policy in snapshot.of::<NetworkPolicy>().iter() {
        planner.set_network_policy(&policy.key, Some(policy));
    }
    for pod in snapshot.of::<Pod>().iter() {
        planner.set_pod(&pod.key, Some(pod));
    }
}
