//! The Node object: created once, then kept up to date about whether the node's network is ready. As with a
//! real kubelet, that is so once the runtime has loaded a network configuration.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Node;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use super::Kubelet;
use crate::names::node_number;

/// How often the runtime looks for a network configuration.
const PERIOD: Duration = Duration::from_millis(100);
/// How often the status is published though nothing changed: somebody may have made the Node anew.
const HEARTBEAT: Duration = Duration::from_secs(5);

/// Registers the Node and follows the runtime's readiness for good. A Node that is deleted is not made again:
/// a kubelet registers when it starts.
pub(super) async fn keep(kubelet: Arc<Kubelet>) {
    let nodes: Api<Node> = Api::all(kubelet.config.client.clone());
    while let Err(error) = register(&kubelet, &nodes).await {
        tracing::warn!(node = kubelet.config.node, %error, "cannot register the Node; trying again");
        tokio::time::sleep(PERIOD).await;
    }
    let mut reported = Report { not_ready: None, since: Timestamp::now() };
    let mut published: Option<Instant> = None;
    loop {
        let not_ready = kubelet.runtime.load().err().map(|error| error.to_string());
        if published.is_none() || reported.not_ready != not_ready {
            reported = Report { not_ready, since: Timestamp::now() };
            published = None;
        }
        if published.is_none_or(|at| at.elapsed() > HEARTBEAT) {
            match publish(&kubelet, &nodes, &reported).await {
                Ok(()) => published = Some(Instant::now()),
                Err(error) => {
                    tracing::warn!(node = kubelet.config.node, %error, "cannot update the Node's status")
                }
            }
        }
        tokio::time::sleep(PERIOD).await;
    }
}

/// Whether the node's network is ready.
struct Report {
    /// Why it is not.
    not_ready: Option<String>,
    /// Since when it is, or is not.
    since: Timestamp,
}

async fn register(kubelet: &Kubelet, nodes: &Api<Node>) -> kube::Result<()> {
    let node = serde_json::from_value(node_object(&kubelet.config.node)).map_err(kube::Error::SerdeError)?;
    match nodes.create(&PostParams::default(), &node).await {
        Err(kube::Error::Api(status)) if status.is_already_exists() => Ok(()),
        result => result.map(drop),
    }
}

async fn publish(kubelet: &Kubelet, nodes: &Api<Node>, report: &Report) -> kube::Result<()> {
    let config = &kubelet.config;
    let mut status = node_status(&config.node, &config.addresses, &config.boot, report);
    // As kubelets do: others' conditions stay, while addresses, of which several are of one type, are all
    // replaced.
    if let Some(addresses) = status["addresses"].as_array_mut() {
        addresses.push(json!({"$patch": "replace"}));
    }
    let status = Patch::Strategic(json!({"status": status}));
    match nodes.patch_status(&config.node, &PatchParams::default(), &status).await {
        // Somebody deleted the Node: there is nothing to report on any more.
        Err(kube::Error::Api(status)) if status.is_not_found() => Ok(()),
        result => result.map(drop),
    }
}

fn node_object(name: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": name,
            "labels": {
                "kubernetes.io/hostname": name,
                "kubernetes.io/os": "linux",
                "kubernetes.io/arch": architecture(),
                "topology.kubernetes.io/region": "lab",
                "topology.kubernetes.io/zone": zone(name),
            }
        },
        "spec": {}
    })
}

/// Nodes stand in two zones by turns: node1 in zone-a, node2 in zone-b.
fn zone(node: &str) -> &'static str {
    if node_number(node) % 2 == 1 { "zone-a" } else { "zone-b" }
}

/// The architecture as Kubernetes names it, which is as Go does.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn node_status(name: &str, addresses: &[IpAddr], boot: &str, report: &Report) -> Value {
    let (status, reason, message) = match &report.not_ready {
        None => ("True", "KubeletReady", "the network is ready".to_owned()),
        Some(why) => ("False", "KubeletNotReady", format!("the network is not ready: {why}")),
    };
    let internal = addresses.iter().map(|address| json!({"type": "InternalIP", "address": address}));
    let hostname = json!({"type": "Hostname", "address": name});
    json!({
        "addresses": internal.chain([hostname]).collect::<Vec<_>>(),
        "conditions": [{
            "type": "Ready", "status": status, "reason": reason, "message": message,
            "lastHeartbeatTime": Timestamp::now().to_string(), "lastTransitionTime": report.since.to_string(),
        }],
        "capacity": {"cpu": "2", "memory": "4Gi", "pods": "250"},
        "allocatable": {"cpu": "2", "memory": "4Gi", "pods": "250"},
        "nodeInfo": {
            "architecture": architecture(),
            "operatingSystem": "linux",
            "osImage": "weft-lab",
            "kernelVersion": kernel_version(),
            "containerRuntimeVersion": concat!("weft-lab://", env!("CARGO_PKG_VERSION")),
            "kubeletVersion": concat!("v", env!("CARGO_PKG_VERSION"), "-lab"),
            "kubeProxyVersion": "", "bootID": boot, "machineID": "", "systemUUID": "",
        },
    })
}

fn kernel_version() -> String {
    std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_are_what_the_api_expects() {
        let report = Report { not_ready: Some("no configuration".to_owned()), since: Timestamp::now() };
        let mut object = node_object("node1");
        let addresses = ["172.30.0.11", "fd00:30::11"].map(|address| address.parse().unwrap());
        object["status"] = node_status("node1", &addresses, "b0", &report);
        let node: Node = serde_json::from_value(object).unwrap();
        let status = node.status.unwrap();
        let addresses = status.addresses.unwrap();
        let texts: Vec<&str> = addresses.iter().map(|address| address.address.as_str()).collect();
        assert_eq!(texts, ["172.30.0.11", "fd00:30::11", "node1"]);
        let ready = &status.conditions.unwrap()[0];
        assert_eq!((ready.type_.as_str(), ready.status.as_str()), ("Ready", "False"));
        assert!(ready.message.as_ref().unwrap().contains("no configuration"));
    }
}
