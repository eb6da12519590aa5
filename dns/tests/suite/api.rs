//! What the program's tests say to testkit's API server. No test lives here.

use serde_json::{Value, json};
use weft_testkit::api_server::FakeApiServer;

pub(crate) const SERVICES: &str = "/api/v1/services";
pub(crate) const SLICES: &str = "/apis/discovery.k8s.io/v1/endpointslices";
pub(crate) const PODS: &str = "/api/v1/pods";
pub(crate) const CONFIG_MAPS: &str = "/api/v1/namespaces/kube-system/configmaps";

/// The server of a cluster with the namespace `shop` and its Service `backend`, 10.96.0.20.
pub(crate) fn start() -> FakeApiServer {
    let api = FakeApiServer::start();
    api.put("/api/v1/namespaces", json!({"metadata": {"name": "shop", "uid": "2"}}));
    put_service(&api, "backend", "10.96.0.20");
    api
}

/// Puts a Service of `shop` with that ClusterIP in.
pub(crate) fn put_service(api: &FakeApiServer, name: &str, cluster_ip: &str) {
    let ports = json!([{"port": 80, "protocol": "TCP"}]);
    let spec =
        json!({"type": "ClusterIP", "clusterIP": cluster_ip, "clusterIPs": [cluster_ip], "ports": ports});
    api.put(SERVICES, json!({"metadata": {"name": name, "namespace": "shop", "uid": name}, "spec": spec}));
}

/// Puts a pod of `shop` with that address in.
pub(crate) fn put_pod(api: &FakeApiServer, name: &str, address: &str) {
    let status = json!({"podIPs": [{"ip": address}]});
    api.put(PODS, json!({"metadata": {"name": name, "namespace": "shop"}, "spec": {}, "status": status}));
}

/// Gives the ConfigMap `kube-dns` that data.
pub(crate) fn put_config_map(api: &FakeApiServer, data: &Value) {
    let metadata = json!({"name": "kube-dns", "namespace": "kube-system", "uid": "9"});
    api.put(CONFIG_MAPS, json!({"metadata": metadata, "data": data}));
}
