//! Internal and external traffic policies, with the short-circuits, and what they do where endpoints are
//! missing.

use weft_types::{Service, TrafficPolicy};

use crate::cluster::{Cluster, ready, slices, two, web, with};

fn external(external_policy: TrafficPolicy) -> Service {
    Service { external_policy, ..web() }
}

fn internal_local() -> Service {
    Service { internal_policy: TrafficPolicy::Local, ..web() }
}

#[test]
fn external_traffic_policy_cluster_masquerades_everybody() {
    let leads = "10.244.1.2:8080 masqueraded, 10.244.2.2:8080 masqueraded";
    for frontend in ["172.30.0.11:30080", "192.0.2.1:80", "192.0.2.2:80"] {
        for client in ["172.30.0.1", "10.244.1.5", "node"] {
            let packet = format!("{client} -> {frontend}");
            Cluster::new(with(external(TrafficPolicy::Cluster), two())).expect(&[(&packet, leads)]);
        }
    }
}

#[test]
fn external_traffic_policy_local_keeps_the_clients_address_and_short_circuits_pods_and_the_node() {
    let cluster = Cluster::new(with(external(TrafficPolicy::Local), two()));
    for frontend in ["172.30.0.11:30080", "192.0.2.1:80", "192.0.2.2:80"] {
        cluster.expect(&[
            (&format!("172.30.0.1 -> {frontend}"), "10.244.1.2:8080"),
            (&format!("10.244.1.5 -> {frontend}"), "10.244.1.2:8080, 10.244.2.2:8080"),
            (&format!("node -> {frontend}"), "10.244.1.2:8080 masqueraded, 10.244.2.2:8080 masqueraded"),
        ]);
    }
}

#[test]
fn external_traffic_policy_local_without_local_endpoints_drops_and_the_short_circuit_still_works() {
    let cluster = Cluster::new(with(external(TrafficPolicy::Local), slices([ready("10.244.2.2", "node2")])));
    for frontend in ["172.30.0.11:30080", "192.0.2.1:80", "192.0.2.2:80"] {
        cluster.expect(&[
            (&format!("172.30.0.1 -> {frontend}"), "dropped"),
            (&format!("10.244.1.5 -> {frontend}"), "10.244.2.2:8080"),
            (&format!("node -> {frontend}"), "10.244.2.2:8080 masqueraded"),
        ]);
    }
}

#[test]
fn external_traffic_policy_local_without_any_endpoint_rejects() {
    let cluster = Cluster::new(with(external(TrafficPolicy::Local), slices([])));
    for client in ["172.30.0.1", "10.244.1.5", "node"] {
        cluster.expect(&[
            (&format!("{client} -> 172.30.0.11:30080"), "rejected"),
            (&format!("{client} -> 192.0.2.2:80"), "rejected"),
        ]);
    }
}

#[test]
fn external_traffic_policy_says_nothing_of_the_cluster_ip() {
    Cluster::new(with(external(TrafficPolicy::Local), two()))
        .expect(&[("10.244.1.5 -> 10.96.0.80:80", "10.244.1.2:8080, 10.244.2.2:8080")]);
}

#[test]
fn internal_traffic_policy_local_uses_endpoints_of_this_node_only_and_says_nothing_of_external_frontends() {
    Cluster::new(with(internal_local(), two())).expect(&[
        ("10.244.1.5 -> 10.96.0.80:80", "10.244.1.2:8080"),
        ("node -> 10.96.0.80:80", "10.244.1.2:8080 masqueraded"),
        ("172.30.0.1 -> 172.30.0.11:30080", "10.244.1.2:8080 masqueraded, 10.244.2.2:8080 masqueraded"),
        ("172.30.0.1 -> 192.0.2.2:80", "10.244.1.2:8080 masqueraded, 10.244.2.2:8080 masqueraded"),
    ]);
}

#[test]
fn internal_traffic_policy_local_without_local_endpoints_drops_and_without_any_rejects() {
    Cluster::new(with(internal_local(), slices([ready("10.244.2.2", "node2")]))).expect(&[
        ("10.244.1.5 -> 10.96.0.80:80", "dropped"),
        ("node -> 10.96.0.80:80", "dropped"),
        ("172.30.0.1 -> 172.30.0.11:30080", "10.244.2.2:8080 masqueraded"),
    ]);
    Cluster::new(with(internal_local(), slices([]))).expect(&[("10.244.1.5 -> 10.96.0.80:80", "rejected")]);
}
