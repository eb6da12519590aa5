//! A snapshot as a text that `kubectl` could read too: a `List` of what the zone is made of, and nothing
//! else. It is read again by [`weft_cluster::manifest`]; where it is kept is the business of
//! [`crate::daemon::snapshot_file`]. Pure.

use serde_json::{Value, json};
use weft_types::{Endpoint, EndpointPort, EndpointSlice, Pod, Service, ServiceKind, ServicePort, Snapshot};

/// The cluster's names as JSON.
pub fn text(snapshot: &Snapshot) -> String {
    let namespaces = snapshot.namespaces().map(namespace);
    let services = snapshot.services().flat_map(|service| {
        let slices = snapshot.slices_of(&service.key).filter_map(endpoint_slice);
        std::iter::once(self::service(service)).chain(slices)
    });
    let mut text = String::from(r#"{"apiVersion":"v1","kind":"List","items":["#);
    for (place, item) in namespaces.chain(services).chain(snapshot.pods().map(pod)).enumerate() {
        text.push_str(if place == 0 { "\n" } else { ",\n" });
        // One by one: the whole as values would be many times larger than the text.
        text.push_str(&item.to_string());
    }
    text.push_str("\n]}\n");
    text
}

fn namespace(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
}

fn pod(pod: &Pod) -> Value {
    let ips: Vec<Value> = pod.addresses.iter().map(|ip| json!({"ip": ip})).collect();
    // One of many policies that tell the same: the resolver is the pod's own business.
    let policy = if pod.searches { "ClusterFirst" } else { "Default" };
    json!({
        "apiVersion": "v1", "kind": "Pod", "spec": {"dnsPolicy": policy}, "status": {"podIPs": ips},
        "metadata": {"namespace": pod.key.namespace, "name": pod.key.name},
    })
}

fn service(service: &Service) -> Value {
    let spec = match &service.kind {
        ServiceKind::ClusterIp(addresses) => json!({"clusterIPs": addresses}),
        ServiceKind::Headless => json!({"clusterIP": "None"}),
        ServiceKind::ExternalName(target) => json!({"type": "ExternalName", "externalName": target}),
    };
    let port = |port: &ServicePort| json!({"name": port.name, "protocol": protocol(port.protocol), "port": port.port});
    let mut object = json!({
        "apiVersion": "v1", "kind": "Service", "spec": spec,
        "metadata": {"namespace": service.key.namespace, "name": service.key.name},
    });
    object["spec"]["ports"] = service.ports.iter().map(port).collect();
    object
}

/// None for a slice without endpoints: it makes no name.
fn endpoint_slice(slice: &EndpointSlice) -> Option<Value> {
    let family = if slice.endpoints.first()?.address.is_ipv4() { "IPv4" } else { "IPv6" };
    let port = |port: &EndpointPort| json!({"name": port.name, "protocol": protocol(port.protocol), "port": port.port});
    Some(json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": family,
        "metadata": {
            "namespace": slice.key.namespace, "name": slice.key.name,
            "labels": {"kubernetes.io/service-name": slice.service.name},
        },
        "ports": slice.ports.iter().map(port).collect::<Vec<_>>(),
        "endpoints": slice.endpoints.iter().map(endpoint).collect::<Vec<_>>(),
    }))
}

fn endpoint(endpoint: &Endpoint) -> Value {
    json!({
        "addresses": [endpoint.address], "hostname": endpoint.hostname,
        "conditions": {"ready": endpoint.ready},
    })
}

/// As the API writes it.
fn protocol(protocol: weft_types::Protocol) -> String {
    protocol.lower_case().to_uppercase()
}
