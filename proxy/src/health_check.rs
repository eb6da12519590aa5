//! What a load balancer is told of this node when it asks at a Service's health check port
//! (`spec.healthCheckNodePort`). Pure; asked and answered in `health_server.rs`.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU16;

use serde_json::json;
use weft_types::{ChangeSet, NamespacedName, Service, Snapshot, TrafficPolicy};

/// The health checks of all Services that have one.
pub type Checks = BTreeMap<NamespacedName, Check>;

/// One Service's health check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Check {
    /// The port on the node's addresses.
    pub port: NonZeroU16,
    /// How many ready endpoints of the Service are on this node, each address counted once.
    pub local_endpoints: usize,
}

/// An answer, in the shape that kube-proxy gave it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Whether the load balancer should send clients to this node.
    pub is_well: bool,
    /// For the header `X-Load-Balancing-Endpoint-Weight`.
    pub weight: usize,
    /// JSON.
    pub body: String,
}

/// Takes in what changed.
pub fn update(checks: &mut Checks, snapshot: &Snapshot, changes: &ChangeSet, node: &str) {
    for key in &changes.services {
        match snapshot.service(key).and_then(|service| check(service, snapshot, node)) {
            Some(check) => drop(checks.insert(key.clone(), check)),
            None => drop(checks.remove(key)),
        }
    }
}

/// Only the nodes of a Service that keeps to each node's own endpoints differ in anything.
fn check(service: &Service, snapshot: &Snapshot, node: &str) -> Option<Check> {
    let port = service.health_check_port.filter(|_| service.external_policy == TrafficPolicy::Local)?;
    let endpoints = snapshot.slices_of(&service.key).flat_map(|slice| &slice.endpoints);
    let local = endpoints.filter(|endpoint| endpoint.ready && endpoint.node.as_deref() == Some(node));
    let addresses: BTreeSet<_> = local.map(|endpoint| endpoint.address).collect();
    Some(Check { port, local_endpoints: addresses.len() })
}

/// What is answered for a Service, where the proxy itself is well or not.
pub fn answer(service: &NamespacedName, check: Option<Check>, proxy_is_well: bool) -> Answer {
    let weight = check.map_or(0, |check| check.local_endpoints);
    let body = json!({
        "service": {"namespace": service.namespace, "name": service.name},
        "localEndpoints": weight,
        "serviceProxyHealthy": proxy_is_well,
    });
    Answer { is_well: weight > 0 && proxy_is_well, weight, body: body.to_string() }
}

#[cfg(test)]
mod tests {
    use weft_types::{Endpoint, EndpointSlice, Object, ObjectKey, ServiceKind};

    use super::*;

    fn name() -> NamespacedName {
        NamespacedName::new("shop", "web")
    }

    fn service(port: u16, policy: TrafficPolicy) -> Object {
        let kind = ServiceKind::ClusterIp(vec!["10.96.0.80".parse().unwrap()]);
        Object::Service(Service {
            external_policy: policy,
            health_check_port: NonZeroU16::new(port),
            ..Service::new(name(), kind, Vec::new())
        })
    }

    fn slice(slice: &str, endpoints: &[(&str, &str, bool)]) -> Object {
        let endpoint = |(address, node, ready): &(&str, &str, bool)| Endpoint {
            node: Some((*node).to_owned()),
            ready: *ready,
            ..Endpoint::ready(address.parse().unwrap())
        };
        Object::EndpointSlice(EndpointSlice {
            key: NamespacedName::new("shop", slice),
            service: name(),
            ports: Vec::new(),
            endpoints: endpoints.iter().map(endpoint).collect(),
        })
    }

    /// The checks after these objects came one after the other.
    fn after(objects: Vec<Object>) -> Checks {
        let (mut checks, mut snapshot) = (Checks::new(), Snapshot::default());
        for object in objects {
            let mut changes = ChangeSet::default();
            snapshot.apply(object, &mut changes);
            update(&mut checks, &snapshot, &changes, "node1");
        }
        checks
    }

    #[test]
    fn distinct_ready_addresses_of_this_node_count() {
        let checks = after(vec![
            service(32080, TrafficPolicy::Local),
            slice("a", &[("10.244.1.2", "node1", true), ("10.244.1.3", "node1", false)]),
            slice("b", &[("10.244.1.2", "node1", true), ("10.244.2.2", "node2", true)]),
            slice("c", &[("10.244.1.4", "node1", true)]),
        ]);
        assert_eq!(checks[&name()], Check { port: 32080.try_into().unwrap(), local_endpoints: 2 });
    }

    #[test]
    fn checks_follow_the_port_and_the_policy_and_go_with_the_service() {
        let checks = after(vec![service(32080, TrafficPolicy::Local), service(32081, TrafficPolicy::Local)]);
        assert_eq!(checks[&name()].port.get(), 32081);
        let checks =
            after(vec![service(32080, TrafficPolicy::Local), service(32080, TrafficPolicy::Cluster)]);
        assert!(checks.is_empty());
        let (mut snapshot, mut changes) = (Snapshot::default(), ChangeSet::default());
        snapshot.apply(service(32080, TrafficPolicy::Local), &mut changes);
        let mut checks = Checks::new();
        update(&mut checks, &snapshot, &changes, "node1");
        snapshot.delete(&ObjectKey::Service(name()), &mut changes);
        update(&mut checks, &snapshot, &changes, "node1");
        assert!(checks.is_empty());
    }

    #[test]
    fn a_node_is_well_with_an_endpoint_and_a_working_proxy_only() {
        let check = |local_endpoints| Some(Check { port: 32080.try_into().unwrap(), local_endpoints });
        let well = answer(&name(), check(2), true);
        assert_eq!((well.is_well, well.weight), (true, 2));
        let body: serde_json::Value = serde_json::from_str(&well.body).unwrap();
        let expected = json!({
            "service": {"namespace": "shop", "name": "web"}, "localEndpoints": 2, "serviceProxyHealthy": true,
        });
        assert_eq!(body, expected);
        assert!(!answer(&name(), check(0), true).is_well);
        assert!(!answer(&name(), check(1), false).is_well);
        assert!(!answer(&name(), None, true).is_well);
    }
}
