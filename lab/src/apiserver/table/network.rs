//! The tables of Services, EndpointSlices, Endpoints, NetworkPolicies and ClusterNetworkPolicies.

use serde_json::{Value, json};

use super::{Printer, age, column, joined, labels, or_none, wide};
use crate::apiserver::object::{self, items, text};
use crate::apiserver::selector::LabelSelector;

/// How Services are printed.
pub(super) const SERVICE: Printer = Printer {
    columns: &[
        column("Name"),
        column("Type"),
        column("Cluster-IP"),
        column("External-IP"),
        column("Port(s)"),
        column("Age"),
        wide("Selector"),
    ],
    cells: |service, now| {
        let spec = &service["spec"];
        vec![
            json!(object::name(service)),
            spec["type"].clone(),
            or_none(&spec["clusterIP"]),
            json!(external(service)),
            joined(items(&spec["ports"]).iter().map(port)),
            age(service, now),
            labels(&spec["selector"]),
        ]
    },
};

fn port(port: &Value) -> String {
    let protocol = text(&port["protocol"]);
    match port["nodePort"].as_i64() {
        Some(node_port) => format!("{}:{node_port}/{protocol}", port["port"]),
        None => format!("{}/{protocol}", port["port"]),
    }
}

/// Where a Service is reached from outside of the cluster.
fn external(service: &Value) -> String {
    let spec = &service["spec"];
    let mut addresses: Vec<&str> = Vec::new();
    for ingress in items(&service["status"]["loadBalancer"]["ingress"]) {
        let address = text(&ingress["ip"]);
        addresses.push(if address.is_empty() { text(&ingress["hostname"]) } else { address });
    }
    addresses.extend(items(&spec["externalIPs"]).iter().map(text));
    match text(&spec["type"]) {
        "ExternalName" => text(&spec["externalName"]).to_owned(),
        "LoadBalancer" if addresses.is_empty() => "<pending>".to_owned(),
        _ if addresses.is_empty() => "<none>".to_owned(),
        _ => addresses.join(","),
    }
}

/// How EndpointSlices are printed.
pub(super) const ENDPOINT_SLICE: Printer = Printer {
    columns: &[column("Name"), column("AddressType"), column("Ports"), column("Endpoints"), column("Age")],
    cells: |slice, now| {
        let ports: Vec<String> = items(&slice["ports"]).iter().map(|port| port["port"].to_string()).collect();
        let addresses: Vec<&str> =
            items(&slice["endpoints"]).iter().flat_map(|one| items(&one["addresses"])).map(text).collect();
        vec![
            json!(object::name(slice)),
            slice["addressType"].clone(),
            if ports.is_empty() { json!("<unset>") } else { some(&ports) },
            if addresses.is_empty() { json!("<unset>") } else { some(&addresses) },
            age(slice, now),
        ]
    },
};

/// The first three words, and how many more there are.
fn some<T: AsRef<str>>(words: &[T]) -> Value {
    let first: Vec<&str> = words.iter().take(3).map(AsRef::as_ref).collect();
    let first = first.join(",");
    json!(match words.len().saturating_sub(3) {
        0 => first,
        more => format!("{first} + {more} more..."),
    })
}

/// How Endpoints are printed.
pub(super) const ENDPOINTS: Printer = Printer {
    columns: &[column("Name"), column("Endpoints"), column("Age")],
    cells: |endpoints, now| {
        let mut words: Vec<String> = Vec::new();
        for subset in items(&endpoints["subsets"]) {
            for address in items(&subset["addresses"]) {
                let ports = items(&subset["ports"]).iter();
                words.extend(ports.map(|port| format!("{}:{}", text(&address["ip"]), port["port"])));
            }
        }
        let words = if words.is_empty() { json!("<none>") } else { some(&words) };
        vec![json!(object::name(endpoints)), words, age(endpoints, now)]
    },
};

/// How NetworkPolicies are printed.
pub(super) const NETWORK_POLICY: Printer = Printer {
    columns: &[column("Name"), column("Pod-Selector"), column("Age")],
    cells: |policy, now| {
        let selector = LabelSelector::of_object(&policy["spec"]["podSelector"]);
        let shown = if selector.is_empty() { json!("<none>") } else { json!(selector.to_string()) };
        vec![json!(object::name(policy)), shown, age(policy, now)]
    },
};

/// How ClusterNetworkPolicies are printed.
pub(super) const CLUSTER_NETWORK_POLICY: Printer = Printer {
    columns: &[column("Name"), column("Tier"), column("Priority"), column("Age")],
    cells: |policy, now| {
        let spec = &policy["spec"];
        vec![json!(object::name(policy)), spec["tier"].clone(), spec["priority"].clone(), age(policy, now)]
    },
};

#[cfg(test)]
mod tests {
    use super::*;

    fn service(spec: Value) -> Vec<String> {
        let cells = (SERVICE.cells)(&json!({"metadata": {"name": "x"}, "spec": spec}), 0);
        cells.iter().map(|cell| text(cell).to_owned()).collect()
    }

    #[test]
    fn services_of_every_type() {
        let ports =
            json!([{"port": 80, "protocol": "TCP", "nodePort": 30080}, {"port": 53, "protocol": "UDP"}]);
        let node_port =
            json!({"type": "NodePort", "clusterIP": "10.96.0.1", "ports": ports, "selector": {"a": "b"}});
        let want = ["x", "NodePort", "10.96.0.1", "<none>", "80:30080/TCP,53/UDP", "<unknown>", "a=b"];
        assert_eq!(service(node_port), want);
        let external = service(json!({"type": "ExternalName", "externalName": "a.example"}));
        assert_eq!(external[2..5], ["<none>", "a.example", "<none>"]);
        assert_eq!(service(json!({"type": "LoadBalancer"}))[3], "<pending>");
    }

    #[test]
    fn many_endpoints_are_counted() {
        let endpoint = |n: u8| json!({"addresses": [format!("10.0.0.{n}")]});
        let slice = json!({
            "metadata": {"name": "x"}, "addressType": "IPv4", "ports": [{"port": 80}],
            "endpoints": (1..=5).map(endpoint).collect::<Vec<_>>(),
        });
        let cells = (ENDPOINT_SLICE.cells)(&slice, 0);
        assert_eq!(
            cells[1..4],
            [json!("IPv4"), json!("80"), json!("10.0.0.1,10.0.0.2,10.0.0.3 + 2 more...")]
        );
    }
}
