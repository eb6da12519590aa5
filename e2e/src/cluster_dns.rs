//! The Service kube-dns, as every cluster has it: without a selector here, for its endpoints are the nodes' own
//! addresses, each ready while the node's DNS daemon says so.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{Api, Patch, PatchParams, PostParams};
use kube::{Client, Resource};
use serde_json::{Value, json};

use crate::addressing::CLUSTER_DNS;
use crate::client::http;
use crate::error::{Error, Result};
use crate::names::LabName;
use crate::netns;

/// The namespace of the Service.
pub const NAMESPACE: &str = "kube-system";
/// The name of the Service and of its EndpointSlice.
pub const NAME: &str = "kube-dns";
/// Where the DNS daemon says whether it is ready.
const READY_PORT: u16 = 8181;
/// How often it is asked.
const PERIOD: Duration = Duration::from_millis(200);

/// Makes the Service, then keeps its endpoints up to date until the process ends.
pub async fn start(client: Client, lab: LabName, nodes: Vec<(String, Ipv4Addr)>) -> Result<()> {
    let services: Api<Service> = Api::namespaced(client.clone(), NAMESPACE);
    create(&services, service()).await?;
    let slices: Api<EndpointSlice> = Api::namespaced(client, NAMESPACE);
    create(&slices, endpoint_slice(&nodes, &vec![false; nodes.len()])).await?;
    tokio::spawn(follow(slices, lab, nodes));
    Ok(())
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

async fn follow(slices: Api<EndpointSlice>, lab: LabName, nodes: Vec<(String, Ipv4Addr)>) {
    let mut published = vec![false; nodes.len()];
    loop {
        let ready = ready(&lab, &nodes).await;
        if ready != published {
            let patch = Patch::Merge(endpoint_slice(&nodes, &ready));
            match slices.patch(NAME, &PatchParams::default(), &patch).await {
                Ok(_) => published = ready,
                // Deleted by hand: as the user wishes.
                Err(kube::Error::Api(answer)) if answer.code == 404 => return,
                Err(error) => tracing::warn!(%error, "cannot update the endpoints of kube-dns"),
            }
        }
        tokio::time::sleep(PERIOD).await;
    }
}

async fn ready(lab: &LabName, nodes: &[(String, Ipv4Addr)]) -> Vec<bool> {
    let addresses: Vec<Ipv4Addr> = nodes.iter().map(|(_, address)| *address).collect();
    let underlay = lab.underlay();
    let ask = move || {
        netns::run(&underlay, move || {
            let is_ready = |address: &Ipv4Addr| {
                let address = SocketAddr::from((*address, READY_PORT));
                http::get(address, "dns", "/ready", PERIOD).is_ok()
            };
            Ok(addresses.iter().map(is_ready).collect())
        })
    };
    match tokio::task::spawn_blocking(ask).await {
        Ok(Ok(ready)) => ready,
        _ => vec![false; nodes.len()],
    }
}

fn service() -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "name": NAME,
            "labels": {"k8s-app": NAME, "kubernetes.io/cluster-service": "true", "kubernetes.io/name": "CoreDNS"},
        },
        "spec": {
            "clusterIP": CLUSTER_DNS.to_string(),
            "ports": [
                {"name": "dns", "port": 53, "protocol": "UDP"},
                {"name": "dns-tcp", "port": 53, "protocol": "TCP"},
            ],
        },
    })
}

fn endpoint_slice(nodes: &[(String, Ipv4Addr)], ready: &[bool]) -> Value {
    let endpoint = |((node, address), ready): (&(String, Ipv4Addr), &bool)| {
        json!({
            "addresses": [address.to_string()],
            "nodeName": node,
            "conditions": {"ready": ready, "serving": ready, "terminating": false},
        })
    };
    json!({
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": NAME, "labels": {
            "kubernetes.io/service-name": NAME,
            "endpointslice.kubernetes.io/managed-by": "weft-lab",
        }},
        "addressType": "IPv4",
        "ports": [
            {"name": "dns", "port": 53, "protocol": "UDP"},
            {"name": "dns-tcp", "port": 53, "protocol": "TCP"},
        ],
        "endpoints": nodes.iter().zip(ready).map(endpoint).collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_are_what_the_api_expects() {
        let service: Service = serde_json::from_value(service()).unwrap();
        assert_eq!(service.spec.unwrap().cluster_ip.as_deref(), Some("10.96.0.10"));
        let nodes = [("node1".to_owned(), Ipv4Addr::LOCALHOST), ("node2".to_owned(), Ipv4Addr::UNSPECIFIED)];
        let slice: EndpointSlice = serde_json::from_value(endpoint_slice(&nodes, &[true, false])).unwrap();
        let ready =
            |position: usize| slice.endpoints.as_ref().unwrap()[position].conditions.as_ref().unwrap().ready;
        assert_eq!((ready(0), ready(1)), (Some(true), Some(false)));
    }
}
