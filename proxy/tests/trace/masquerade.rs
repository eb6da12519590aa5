//! Whose address the endpoints see.

use weft_proxy::config::{Config, DetectLocal};

use crate::cluster::{Cluster, ready, slices, two, web, with};

const ONE: &str = "10.244.2.2:8080";
const ONE_MASQUERADED: &str = "10.244.2.2:8080 masqueraded";

fn of(config: Config) -> Cluster {
    Cluster::with(config, with(web(), slices([ready("10.244.2.2", "node2")])))
}

#[test]
fn an_endpoint_that_reaches_itself_is_masqueraded() {
    let cluster = Cluster::new(with(web(), two()));
    for frontend in ["10.96.0.80:80", "172.30.0.11:30080", "192.0.2.2:80"] {
        let outside =
            if frontend.starts_with("10.96") { "10.244.2.2:8080" } else { "10.244.2.2:8080 masqueraded" };
        let expected = format!("10.244.1.2:8080 masqueraded, {outside}");
        cluster.expect(&[(&format!("10.244.1.2 -> {frontend}"), &expected)]);
    }
}

#[test]
fn local_detection_by_cluster_cidr_masquerades_what_comes_from_elsewhere_to_a_cluster_ip() {
    let cluster_cidrs = ["10.244.0.0/16", "fd00:244::/32"].map(|cidr| cidr.parse().unwrap()).to_vec();
    of(Config { cluster_cidrs, ..Config::default() }).expect(&[
        ("10.244.1.5 -> 10.96.0.80:80", ONE),
        ("10.244.7.5 -> 10.96.0.80:80", ONE),
        ("172.30.0.1 -> 10.96.0.80:80", ONE_MASQUERADED),
        ("node -> 10.96.0.80:80", ONE_MASQUERADED),
    ]);
}

#[test]
fn local_detection_by_node_cidr_takes_only_this_nodes_pods_for_local() {
    of(Config { detect_local: DetectLocal::NodeCidr, ..Config::default() }).expect(&[
        ("10.244.1.5 -> 10.96.0.80:80", ONE),
        ("10.244.7.5 -> 10.96.0.80:80", ONE_MASQUERADED),
        ("172.30.0.1 -> 10.96.0.80:80", ONE_MASQUERADED),
        ("node -> 10.96.0.80:80", ONE_MASQUERADED),
    ]);
}

#[test]
fn local_detection_by_bridge_interface_asks_for_the_interface_alone() {
    of(Config { detect_local: DetectLocal::Interface("cni0".into()), ..Config::default() }).expect(&[
        ("10.244.1.5 -> 10.96.0.80:80 via cni0", ONE),
        ("10.244.1.5 -> 10.96.0.80:80 via cni01", ONE_MASQUERADED),
        ("10.244.1.5 -> 10.96.0.80:80 via eth0", ONE_MASQUERADED),
        ("node -> 10.96.0.80:80", ONE_MASQUERADED),
    ]);
}

#[test]
fn local_detection_by_interface_name_prefix_takes_all_that_begin_so() {
    of(Config { detect_local: DetectLocal::Interface("veth*".into()), ..Config::default() }).expect(&[
        ("10.244.1.5 -> 10.96.0.80:80 via veth1234", ONE),
        ("10.244.1.5 -> 10.96.0.80:80 via eth0", ONE_MASQUERADED),
        ("node -> 10.96.0.80:80", ONE_MASQUERADED),
    ]);
}

#[test]
fn without_local_detection_no_cluster_ip_traffic_is_masqueraded_but_hairpins() {
    of(Config::default()).expect(&[
        ("172.30.0.1 -> 10.96.0.80:80", ONE),
        ("node -> 10.96.0.80:80", ONE),
        ("172.30.0.1 -> 172.30.0.11:30080", ONE_MASQUERADED),
    ]);
    Cluster::with(Config::default(), with(web(), slices([ready("10.244.1.2", "node1")])))
        .expect(&[("10.244.1.2 -> 10.96.0.80:80", "10.244.1.2:8080 masqueraded")]);
}

#[test]
fn masquerade_all_masquerades_pods_too_but_nothing_that_is_for_no_service() {
    of(Config { masquerade_all: true, ..Config::default() }).expect(&[
        ("10.244.1.5 -> 10.96.0.80:80", ONE_MASQUERADED),
        ("172.30.0.1 -> 10.96.0.80:80", ONE_MASQUERADED),
        ("10.244.1.5 -> 10.244.2.2:8080", "untouched"),
    ]);
}
