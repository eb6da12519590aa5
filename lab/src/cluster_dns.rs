//! The Service kube-dns, as every cluster has it: without a selector here, for its endpoints are the nodes'
//! own addresses, each ready while the node's DNS daemon says so.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use k8s_openapi::api::core::v1::{Node, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{Api, ListParams, Patch, PatchParams, PostParams};
use kube::{Client, Resource, ResourceExt};
use serde_json::{Value, json};
use weft_types::Family;

use crate::addressing::IpFamily;
use crate::client::http;
use crate::error::{Error, Result};
use crate::names::LabName;
use crate::netns;

/// The namespace of the Service.
pub const NAMESPACE: &str = "kube-system";
/// The name of the Service.
pub const NAME: &str = "kube-dns";
/// Where the DNS daemon says whether it is ready.
const READY_PORT: u16 = 8181;
/// How often it is asked.
const PERIOD: Duration = Duration::from_millis(200);
/// How often it is asked while a node's DNS is not ready.
const EAGER: Duration = Duration::from_millis(50);

/// A node, as far as it matters for names.
#[derive(Clone, Debug, PartialEq, Eq)]
struct DnsNode {
    name: String,
    addresses: Vec<IpAddr>,
    ready: bool,
}

/// Makes the Service, then keeps its endpoints up to date until the process ends.
pub async fn start(client: Client, lab: LabName, families: IpFamily) -> Result<()> {
    let services: Api<Service> = Api::namespaced(client.clone(), NAMESPACE);
    create(&services, service(families)).await?;
    let slices: Api<EndpointSlice> = Api::namespaced(client.clone(), NAMESPACE);
    for &family in families.families() {
        create(&slices, endpoint_slice(family, &[])).await?;
    }
    tokio::spawn(async move {
        let mut published = Vec::new();
        loop {
            if let Err(error) = publish_ready_nodes(&client, &lab, families, &mut published).await {
                tracing::warn!(%error, "cannot update the endpoints of kube-dns");
            }
            let all_ready = !published.is_empty() && published.iter().all(|node: &DnsNode| node.ready);
            tokio::time::sleep(if all_ready { PERIOD } else { EAGER }).await;
        }
    });
    Ok(())
}

/// The slice's name of a family.
fn slice_name(family: Family) -> String {
    format!("{NAME}-{}", family.to_string().to_lowercase())
}

async fn create<K>(api: &Api<K>, object: Value) -> Result<()>
where
    K: Resource + Clone + std::fmt::Debug + serde::Serialize + serde::de::DeserializeOwned,
{
    let failed = Error::api("create", format!("{NAMESPACE}/{NAME}"));
    let made = async {
        let object = serde_json::from_value(object).map_err(kube::Error::SerdeError)?;
        api.create(&PostParams::default(), &object).await
    };
    made.await.map(drop).map_err(failed)
}

/// Brings the slices in step with the nodes, once.
async fn publish_ready_nodes(
    client: &Client,
    lab: &LabName,
    families: IpFamily,
    published: &mut Vec<DnsNode>,
) -> kube::Result<()> {
    let listed = Api::<Node>::all(client.clone()).list(&ListParams::default()).await?;
    let nodes = ask(lab, listed.iter().map(dns_node).collect()).await;
    if nodes == *published {
        return Ok(());
    }
    let slices: Api<EndpointSlice> = Api::namespaced(client.clone(), NAMESPACE);
    for &family in families.families() {
        let patch = Patch::Merge(endpoint_slice(family, &nodes));
        match slices.patch(&slice_name(family), &PatchParams::default(), &patch).await {
            // Deleted by hand: as the user wishes.
            Err(kube::Error::Api(answer)) if answer.code == 404 => {}
            result => drop(result?),
        }
    }
    *published = nodes;
    Ok(())
}

/// A Node as it is registered, its DNS not asked yet.
fn dns_node(node: &Node) -> DnsNode {
    let addresses = node.status.iter().flat_map(|status| status.addresses.iter().flatten());
    let internal = addresses.filter(|address| address.type_ == "InternalIP");
    let addresses = internal.filter_map(|address| address.address.parse().ok()).collect();
    DnsNode { name: node.name_any(), addresses, ready: false }
}

/// Asks every node whether its DNS is ready.
async fn ask(lab: &LabName, mut nodes: Vec<DnsNode>) -> Vec<DnsNode> {
    let underlay = lab.underlay();
    let unasked = nodes.clone();
    let asking = move || {
        netns::run(&underlay, move || {
            for node in &mut nodes {
                let primary = node.addresses.first();
                node.ready = primary.is_some_and(|&address| {
                    http::get(SocketAddr::new(address, READY_PORT), "dns", "/ready", PERIOD).is_ok()
                });
            }
            Ok(nodes)
        })
    };
    match tokio::task::spawn_blocking(asking).await {
        Ok(Ok(nodes)) => nodes,
        _ => unasked,
    }
}

fn service(families: IpFamily) -> Value {
    let addresses: Vec<String> = families.cluster_dns().iter().map(IpAddr::to_string).collect();
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "name": NAME,
            "labels": {"k8s-app": NAME, "kubernetes.io/cluster-service": "true", "kubernetes.io/name": "CoreDNS"},
        },
        "spec": {
            "clusterIP": addresses[0],
            "clusterIPs": addresses,
            "ipFamilyPolicy": "PreferDualStack",
            "ports": [
                {"name": "dns", "port": 53, "protocol": "UDP"},
                {"name": "dns-tcp", "port": 53, "protocol": "TCP"},
            ],
        },
    })
}

fn endpoint_slice(family: Family, nodes: &[DnsNode]) -> Value {
    let endpoint = |node: &DnsNode| {
        let address = node.addresses.iter().find(|address| Family::of(**address) == family)?;
        Some(json!({
            "addresses": [address.to_string()],
            "nodeName": node.name,
            "conditions": {"ready": node.ready, "serving": node.ready, "terminating": false},
        }))
    };
    json!({
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": slice_name(family), "labels": {
            "kubernetes.io/service-name": NAME,
            "endpointslice.kubernetes.io/managed-by": "weft-lab",
        }},
        "addressType": family.to_string(),
        "ports": [
            {"name": "dns", "port": 53, "protocol": "UDP"},
            {"name": "dns-tcp", "port": 53, "protocol": "TCP"},
        ],
        "endpoints": nodes.iter().filter_map(endpoint).collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_are_what_the_api_expects() {
        let service: Service = serde_json::from_value(service(IpFamily::Dual)).unwrap();
        let spec = service.spec.unwrap();
        assert_eq!(spec.cluster_ip.as_deref(), Some("10.96.0.10"));
        assert_eq!(spec.cluster_ips.unwrap(), ["10.96.0.10", "fd00:10:96::a"]);
        let node = |number, families: IpFamily, ready| DnsNode {
            name: format!("node{number}"),
            addresses: families.node(number),
            ready,
        };
        let nodes = [node(1, IpFamily::Dual, true), node(2, IpFamily::Ipv4, false)];
        let slice: EndpointSlice = serde_json::from_value(endpoint_slice(Family::V4, &nodes)).unwrap();
        let endpoints = slice.endpoints.unwrap();
        let ready = |position: usize| endpoints[position].conditions.as_ref().unwrap().ready;
        assert_eq!((ready(0), ready(1)), (Some(true), Some(false)));
        let slice: EndpointSlice = serde_json::from_value(endpoint_slice(Family::V6, &nodes)).unwrap();
        assert_eq!(slice.endpoints.unwrap()[0].addresses, ["fd00:30::11"]);
    }
}
