//! What kubelets do, as far as the API server can tell: nodes that are ready, and pods that run as soon as
//! they are bound and end as soon as they are deleted.

use futures::TryStreamExt;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Client, ResourceExt};
use serde_json::json;
use tokio::task::JoinHandle;

/// Registers the nodes and plays their kubelets until the handle is aborted.
pub(crate) async fn play(client: &Client, nodes: &[&str]) -> JoinHandle<()> {
    let api: Api<Node> = Api::all(client.clone());
    for name in nodes {
        let node = json!({
            "metadata": {"name": name},
            "status": {"conditions": [{"type": "Ready", "status": "True"}],
                       "addresses": [{"type": "InternalIP", "address": "172.30.0.11"}],
                       "nodeInfo": {"kubeletVersion": "v1.33.0-test"}},
        });
        let mut node: Node = serde_json::from_value(complete(node)).expect("a Node");
        node = api.create(&PostParams::default(), &node).await.expect("the Node is registered");
        assert!(
            node.status.and_then(|status| status.conditions).is_some(),
            "a Node is created with its status"
        );
    }
    let api: Api<Pod> = Api::all(client.clone());
    let client = client.clone();
    tokio::spawn(async move {
        let pods = watcher(api, watcher::Config::default().fields("spec.nodeName!=")).applied_objects();
        pods.try_for_each(|pod| look_at(client.clone(), pod)).await.expect("the watch goes on");
    })
}

/// The fields of `nodeInfo` that the type demands.
fn complete(mut node: serde_json::Value) -> serde_json::Value {
    for field in [
        "architecture",
        "bootID",
        "containerRuntimeVersion",
        "kernelVersion",
        "kubeProxyVersion",
        "machineID",
        "operatingSystem",
        "osImage",
        "systemUUID",
    ] {
        node["status"]["nodeInfo"][field] = json!("test");
    }
    node
}

async fn look_at(client: Client, pod: Pod) -> Result<(), watcher::Error> {
    let api: Api<Pod> = Api::namespaced(client, &pod.namespace().unwrap_or_default());
    let name = pod.name_any();
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or_default();
    if pod.metadata.deletion_timestamp.is_some() {
        // Somebody else may have been faster.
        drop(api.delete(&name, &DeleteParams::default().grace_period(0)).await);
    } else if phase == "Pending" {
        let number: u32 = pod.uid().unwrap_or_default().bytes().map(u32::from).sum();
        let address = format!("10.244.{}.{}", number % 250, 1 + number % 200);
        let status = json!({"status": {
            "phase": "Running", "podIP": address, "podIPs": [{"ip": address}],
            "conditions": [{"type": "Ready", "status": "True"}],
            "containerStatuses": [{"name": "web", "ready": true, "restartCount": 0, "image": "x",
                                   "imageID": "x", "state": {"running": {}}}],
        }});
        drop(api.patch_status(&name, &PatchParams::default(), &Patch::Strategic(status)).await);
    }
    Ok(())
}
