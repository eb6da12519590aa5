//! What a load balancer is told of this node when it asks at a Service's health check port
//! (`spec.healthCheckNodePort`). Pure; asked and answered in `health_server.rs`.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::num::NonZeroU16;

use serde_json::json;
use weft_types::{ChangeSet, Family, NamespacedName, Service, Snapshot, TrafficPolicy};

/// The health checks of all Services that have one.
pub type Checks = BTreeMap<NamespacedName, Check>;

/// One Service's health check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Check {
    /// The port on the node's addresses.
    pub port: NonZeroU16,
    /// How many ready endpoints of the Service are on this node, each address counted once: IPv4, IPv6.
    /// Nothing of a family that the Service does not have.
    pub local_endpoints: [Option<usize>; 2],
}

impl Check {
    /// What a load balancer of that family is told, which sends its clients to endpoints of that family: as
    /// kube-proxy's two halves tell it. One that asks by a family that the Service does not have is told of
    /// the other.
    fn weight(&self, family: Family) -> usize {
        let [v4, v6] = self.local_endpoints;
        match family {
            Family::V4 => v4.or(v6),
            Family::V6 => v6.or(v4),
        }
        .unwrap_or_default()
    }
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

/// Where health checks of a Service are answered. Only the nodes of one that keeps to each node's own
/// endpoints differ in anything.
pub fn port(service: &Service) -> Option<NonZeroU16> {
    service.health_check_port.filter(|_| service.external_policy == TrafficPolicy::Local)
}

fn check(service: &Service, snapshot: &Snapshot, node: &str) -> Option<Check> {
    let port = port(service)?;
    let endpoints = snapshot.slices_of(&service.key).flat_map(|slice| &slice.endpoints);
    let local = endpoints.filter(|endpoint| endpoint.ready && endpoint.node.as_deref() == Some(node));
    let addresses: BTreeSet<IpAddr> = local.map(|endpoint| endpoint.address).collect();
    let local_endpoints = Family::BOTH.map(|family| {
        let is_of_family = |address: &&IpAddr| Family::of(**address) == family;
        let has_family = service.cluster_ips().iter().any(|address| is_of_family(&address));
        has_family.then(|| addresses.iter().filter(is_of_family).count())
    });
    Some(Check { port, local_endpoints })
}

/// What is answered for a Service to a load balancer that asks by that family, where the proxy itself is well
/// or not.
pub fn answer(service: &NamespacedName, check: Option<Check>, family: Family, proxy_is_well: bool) -> Answer {
    let weight = check.map_or(0, |check| check.weight(family));
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
            node: Some((*node).into()),
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
        assert_eq!(
            checks[&name()],
            Check { port: 32080.try_into().unwrap(), local_endpoints: [Some(2), None] }
        );
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
        let check =
            |count| Some(Check { port: 32080.try_into().unwrap(), local_endpoints: [Some(count), None] });
        let answer = |check, is_well| answer(&name(), check, Family::V4, is_well);
        let well = answer(check(2), true);
        assert_eq!((well.is_well, well.weight), (true, 2));
        let body: serde_json::Value = serde_json::from_str(&well.body).unwrap();
        let expected = json!({
            "service": {"namespace": "shop", "name": "web"}, "localEndpoints": 2, "serviceProxyHealthy": true,
        });
        assert_eq!(body, expected);
        assert!(!answer(check(0), true).is_well);
        assert!(!answer(check(1), false).is_well);
        assert!(!answer(None, true).is_well);
    }

    #[test]
    fn of_a_dual_stack_service_a_load_balancer_is_told_of_the_family_that_it_asks_by() {
        let Object::Service(dual) = service(32080, TrafficPolicy::Local) else { panic!("no Service") };
        let ips = ["10.96.0.80", "fd00:96::80"].map(|ip| ip.parse().unwrap()).to_vec();
        let checks = after(vec![
            Object::Service(Service { kind: ServiceKind::ClusterIp(ips), ..dual }),
            slice("a", &[("10.244.1.2", "node1", true), ("10.244.1.3", "node1", true)]),
            slice("b", &[("fd00:244:1::2", "node1", true), ("fd00:244:1::3", "node1", false)]),
        ]);
        let weights =
            |check: Check| Family::BOTH.map(|family| answer(&name(), Some(check), family, true).weight);
        assert_eq!(weights(checks[&name()]), [2, 1]);
        let single = after(vec![
            service(32080, TrafficPolicy::Local),
            slice("a", &[("10.244.1.2", "node1", true), ("10.244.1.3", "node1", true)]),
        ]);
        assert_eq!(weights(single[&name()]), [2, 2], "there is no other family to tell of");
    }

    #[test]
    fn terminating_endpoints_do_not_count_though_they_serve_where_none_is_ready() {
        let Object::EndpointSlice(mut ending) = slice("a", &[("10.244.1.2", "node1", false)]) else {
            panic!("no slice")
        };
        (ending.endpoints[0].serving, ending.endpoints[0].terminating) = (true, true);
        let checks = after(vec![service(32080, TrafficPolicy::Local), Object::EndpointSlice(ending)]);
        assert!(!answer(&name(), Some(checks[&name()]), Family::V4, true).is_well);
    }
}
