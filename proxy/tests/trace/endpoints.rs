//! Which endpoints get connections: ready, shutting down, of several slices, by hints, with ports of their
//! own.

use weft_types::{Endpoint, Hints, NamespacedName, Object, Protocol, Service, TrafficPolicy};

use crate::cluster::{Cluster, at, port, ready, slices, slices_at, web, with};

/// An endpoint that is shutting down; it still serves, or not.
fn ending(address: &str, node: &str, serving: bool) -> [Endpoint; 2] {
    ready(address, node).map(|endpoint| Endpoint { ready: false, serving, terminating: true, ..endpoint })
}

fn unready(address: &str, node: &str) -> [Endpoint; 2] {
    ready(address, node).map(|endpoint| Endpoint { ready: false, serving: false, ..endpoint })
}

fn hinted(address: &str, node: &str, nodes: &[&str], zones: &[&str]) -> [Endpoint; 2] {
    let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    let hints = Hints { nodes: owned(nodes), zones: owned(zones) };
    ready(address, node).map(|endpoint| Endpoint { hints: Some(Box::new(hints.clone())), ..endpoint })
}

#[test]
fn unready_endpoints_get_nothing_while_others_are_ready_nor_when_none_is() {
    let client = "10.244.1.5 -> 10.96.0.80:80";
    Cluster::new(with(web(), slices([ready("10.244.1.2", "node1"), unready("10.244.1.3", "node1")])))
        .expect(&[(client, "10.244.1.2:8080")]);
    Cluster::new(with(web(), slices([unready("10.244.1.3", "node1")]))).expect(&[(client, "rejected")]);
}

#[test]
fn terminating_endpoints_serve_only_when_none_is_ready() {
    let ends = [ending("10.244.1.3", "node1", true), ending("10.244.2.3", "node2", false)];
    let client = "10.244.1.5 -> 10.96.0.80:80";
    Cluster::new(with(web(), slices(ends.clone()))).expect(&[(client, "10.244.1.3:8080")]);
    Cluster::new(with(web(), slices([&ends[..], &[ready("10.244.2.2", "node2")]].concat())))
        .expect(&[(client, "10.244.2.2:8080")]);
}

#[test]
fn under_a_policy_local_terminating_endpoints_of_this_node_serve_when_none_of_it_is_ready() {
    let service =
        Service { external_policy: TrafficPolicy::Local, internal_policy: TrafficPolicy::Local, ..web() };
    Cluster::new(with(service, slices([ending("10.244.1.3", "node1", true), ready("10.244.2.2", "node2")])))
        .expect(&[
            ("172.30.0.1 -> 172.30.0.11:30080", "10.244.1.3:8080"),
            ("172.30.0.1 -> 192.0.2.2:80", "10.244.1.3:8080"),
            ("10.244.1.5 -> 192.0.2.2:80", "10.244.2.2:8080"),
            ("10.244.1.5 -> 10.96.0.80:80", "10.244.1.3:8080"),
        ]);
}

#[test]
fn endpoints_of_several_slices_are_merged_and_ports_may_differ_per_endpoint() {
    let first = slices_at("web-a", 8080, [ready("10.244.1.2", "node1")]);
    let second = slices_at("web-b", 9090, [ready("10.244.2.2", "node2")]);
    Cluster::new(with(web(), [first, second].concat()))
        .expect(&[("10.244.1.5 -> 10.96.0.80:80", "10.244.1.2:8080, 10.244.2.2:9090")]);
}

#[test]
fn of_an_endpoint_that_is_in_two_slices_the_one_that_is_not_terminating_counts() {
    let first = slices_at("web-a", 8080, [ending("10.244.1.2", "node1", false)]);
    let second = slices_at("web-b", 8080, [ready("10.244.1.2", "node1")]);
    for slices in [[first.clone(), second.clone()].concat(), [second, first].concat()] {
        Cluster::new(with(web(), slices)).expect(&[("10.244.1.5 -> 10.96.0.80:80", "10.244.1.2:8080")]);
    }
}

#[test]
fn hints_for_this_node_count_before_hints_for_its_zone() {
    let by = |first: (&[&str], &[&str]), second: (&[&str], &[&str])| {
        let endpoints = [
            hinted("10.244.1.2", "node1", first.0, first.1),
            hinted("10.244.2.2", "node2", second.0, second.1),
        ];
        Cluster::new(with(web(), slices(endpoints)))
    };
    let client = "10.244.1.5 -> 10.96.0.80:80";
    by((&["node1"], &["b"]), (&["node2"], &["a"])).expect(&[(client, "10.244.1.2:8080")]);
    by((&["node2"], &["b"]), (&["node2"], &["a"])).expect(&[(client, "10.244.2.2:8080")]);
    by((&[], &["b"]), (&[], &["c"])).expect(&[(client, "10.244.1.2:8080, 10.244.2.2:8080")]);
    by((&[], &["a"]), (&[], &[])).expect(&[(client, "10.244.1.2:8080, 10.244.2.2:8080")]);
}

#[test]
fn hints_do_not_narrow_what_a_policy_local_allows() {
    let endpoints = [hinted("10.244.1.2", "node1", &[], &["b"]), hinted("10.244.2.2", "node2", &[], &["a"])];
    let service = Service { external_policy: TrafficPolicy::Local, ..web() };
    Cluster::new(with(service, slices(endpoints)))
        .expect(&[("172.30.0.1 -> 192.0.2.2:80", "10.244.1.2:8080")]);
}

#[test]
fn manual_endpoints_of_a_service_without_a_selector_get_connections_wherever_they_are() {
    let manual = ready("198.51.100.7", "").map(|endpoint| Endpoint { node: None, ..endpoint });
    Cluster::new(with(web(), slices([manual]))).expect(&[
        ("10.244.1.5 -> 10.96.0.80:80", "198.51.100.7:8080"),
        ("172.30.0.1 -> 172.30.0.11:30080", "198.51.100.7:8080 masqueraded"),
    ]);
}

#[test]
fn several_services_may_lead_to_one_endpoint() {
    let other = NamespacedName::new("shop", "other");
    let service = at(other.clone(), "10.96.0.81", [port(Protocol::Tcp, 80, None)]);
    let endpoints = slices([ready("10.244.1.2", "node1")]);
    let others =
        slices_at("other", 8080, [ready("10.244.1.2", "node1")]).into_iter().map(|object| match object {
            Object::EndpointSlice(slice) => {
                Object::EndpointSlice(weft_types::EndpointSlice { service: other.clone(), ..slice })
            }
            object => object,
        });
    let mut cluster = Cluster::new(with(web(), endpoints));
    cluster.put(with(service, others.collect()));
    cluster.expect(&[
        ("10.244.1.5 -> 10.96.0.80:80/tcp", "10.244.1.2:8080"),
        ("10.244.1.5 -> 10.96.0.81:80/tcp", "10.244.1.2:8080"),
    ]);
}
