//! The addresses and ports at which a Service answers, and those at which it does not.

use weft_proxy::config::Config;
use weft_types::{NamespacedName, Object, Protocol, Service, ServiceCidr, ServiceKind, TrafficPolicy};

use crate::cluster::{Cluster, at, both, in_networks, port, ready, slices, two, web, with};

#[test]
fn a_cluster_ip_leads_to_all_endpoints_over_tcp_udp_and_sctp() {
    Cluster::new(with(web(), two())).expect(&[
        ("10.244.1.5 -> 10.96.0.80:80", "10.244.1.2:8080, 10.244.2.2:8080"),
        ("node -> 10.96.0.80:80", "10.244.1.2:8080 masqueraded, 10.244.2.2:8080 masqueraded"),
    ]);
}

#[test]
fn what_is_for_no_service_is_untouched() {
    Cluster::new(with(web(), two())).expect(&[
        ("10.244.1.5 -> 10.244.2.2:8080", "untouched"),
        ("172.30.0.1 -> 172.30.0.11:22", "untouched"),
        ("node -> 198.51.100.7:443", "untouched"),
        ("node -> 127.0.0.1:80", "untouched"),
        ("10.244.1.5 -> 192.0.2.1:81", "untouched"),
    ]);
}

#[test]
fn what_would_go_back_where_it_came_from_is_rejected_at_external_addresses_and_nothing_else_is() {
    let service = Service { external_ips: both(["192.0.2.1", "10.244.1.9", "172.30.0.11"]), ..web() };
    Cluster::new(with(service, two())).expect(&[
        ("172.30.0.1 -> 192.0.2.1:81", "rejected"),
        ("172.30.0.1 -> 192.0.2.2:81", "rejected"),
        ("10.244.1.5 -> 192.0.2.1:81", "untouched"),
        ("10.244.1.5 -> 192.0.2.1:81 via uplink", "rejected"),
        ("node -> 192.0.2.1:81", "untouched"),
        ("10.244.1.5 -> 10.244.1.9:81", "untouched"),
        ("172.30.0.1 -> 172.30.0.11:81", "untouched"),
    ]);
}

#[test]
fn an_undefined_port_of_an_active_cluster_ip_is_rejected() {
    let service = at(NamespacedName::new("shop", "web"), "10.96.0.80", [port(Protocol::Tcp, 80, None)]);
    Cluster::new(with(service, two())).expect(&[
        ("10.244.1.5 -> 10.96.0.80:80/tcp", "10.244.1.2:8080, 10.244.2.2:8080"),
        ("10.244.1.5 -> 10.96.0.80:81", "rejected"),
        ("node -> 10.96.0.80:81", "rejected"),
        ("10.244.1.5 -> 10.96.0.80:80/udp", "rejected"),
    ]);
}

#[test]
fn an_unallocated_address_of_a_service_cidr_is_dropped_unless_it_is_the_nodes() {
    let cidrs = ["10.96.0.0/16", "fd00:96::/112"].map(|cidr| cidr.parse().unwrap()).to_vec();
    let mut cluster = Cluster::with(Config::default(), with(web(), two()));
    cluster.put([Object::ServiceCidr(ServiceCidr { name: "kubernetes".into(), cidrs })]);
    let mut node = cluster.snapshot.node("node1").unwrap().clone();
    node.addresses.extend(both(["10.96.0.254"]));
    cluster.put([Object::Node(node)]);
    cluster.expect(&[
        ("10.244.1.5 -> 10.96.0.99:80", "dropped"),
        ("node -> 10.96.0.99:80", "dropped"),
        ("10.244.1.5 -> 10.96.0.254:80", "untouched"),
        ("10.244.1.5 -> 10.96.0.80:81", "rejected"),
    ]);
}

#[test]
fn a_node_port_answers_at_the_nodes_primary_addresses_only() {
    Cluster::new(with(web(), two())).expect(&[
        ("172.30.0.1 -> 172.30.0.11:30080", "10.244.1.2:8080 masqueraded, 10.244.2.2:8080 masqueraded"),
        ("172.30.0.1 -> 172.30.0.12:30080", "untouched"),
        ("node -> 127.0.0.1:30080", "untouched"),
        ("10.244.1.5 -> 10.96.0.80:30080", "rejected"),
    ]);
}

#[test]
fn node_port_addresses_choose_networks_of_the_nodes_addresses_and_never_loopback() {
    let leads = "10.244.1.2:8080 masqueraded, 10.244.2.2:8080 masqueraded";
    let mut cluster = Cluster::with(in_networks(&["172.30.0.0/24", "fd00:30::/64"]), with(web(), two()));
    let mut node = cluster.snapshot.node("node1").unwrap().clone();
    node.addresses.extend(both(["172.30.9.11"]));
    cluster.put([Object::Node(node.clone())]);
    cluster.expect(&[
        ("172.30.0.1 -> 172.30.0.11:30080", leads),
        ("172.30.0.1 -> 172.30.9.11:30080", "untouched"),
        ("172.30.0.1 -> 172.30.0.12:30080", "untouched"),
    ]);
    let mut all = Cluster::with(in_networks(&["0.0.0.0/0", "::/0"]), with(web(), two()));
    all.put([Object::Node(node)]);
    all.expect(&[
        ("172.30.0.1 -> 172.30.0.11:30080", leads),
        ("172.30.0.1 -> 172.30.9.11:30080", leads),
        ("node -> 127.0.0.1:30080", "untouched"),
    ]);
}

#[test]
fn external_ips_and_load_balancer_ingress_addresses_lead_to_all_endpoints() {
    let leads = "10.244.1.2:8080 masqueraded, 10.244.2.2:8080 masqueraded";
    for (client, address) in [("172.30.0.1", "192.0.2.1"), ("172.30.0.1", "192.0.2.2"), ("node", "192.0.2.2")]
    {
        Cluster::new(with(web(), two())).expect(&[(&format!("{client} -> {address}:80"), leads)]);
    }
}

fn restricted(ranges: &[&str]) -> Cluster {
    let source_ranges = ranges.iter().map(|range| range.parse().unwrap()).collect();
    Cluster::new(with(Service { source_ranges, ..web() }, two()))
}

#[test]
fn load_balancer_source_ranges_guard_the_load_balancers_address_and_nothing_else() {
    let leads = "10.244.1.2:8080 masqueraded, 10.244.2.2:8080 masqueraded";
    restricted(&["198.51.100.0/24", "2001:db8:100::/64", "172.30.0.1/32", "fd00:30::1/128"]).expect(&[
        ("198.51.100.7 -> 192.0.2.2:80", leads),
        ("172.30.0.1 -> 192.0.2.2:80", leads),
        ("172.30.0.2 -> 192.0.2.2:80", "dropped"),
        ("10.244.1.5 -> 192.0.2.2:80", "dropped"),
        ("node -> 192.0.2.2:80", "dropped"),
        ("172.30.0.2 -> 192.0.2.1:80", leads),
        ("172.30.0.2 -> 172.30.0.11:30080", leads),
        ("10.244.1.5 -> 10.96.0.80:80", "10.244.1.2:8080, 10.244.2.2:8080"),
    ]);
}

#[test]
fn a_zero_cidr_among_the_source_ranges_allows_all() {
    let leads = "10.244.1.2:8080 masqueraded, 10.244.2.2:8080 masqueraded";
    restricted(&["198.51.100.0/24", "0.0.0.0/0", "::/0"]).expect(&[("172.30.0.2 -> 192.0.2.2:80", leads)]);
}

#[test]
fn a_source_range_with_the_nodes_address_allows_the_load_balancers_own_address() {
    let leads = "10.244.1.2:8080 masqueraded, 10.244.2.2:8080 masqueraded";
    restricted(&["172.30.0.0/24", "fd00:30::/64"])
        .expect(&[("192.0.2.2 -> 192.0.2.2:80", leads), ("192.0.2.1 -> 192.0.2.2:80", "dropped")]);
    restricted(&["198.51.100.0/24", "2001:db8:100::/64"]).expect(&[("192.0.2.2 -> 192.0.2.2:80", "dropped")]);
}

#[test]
fn a_service_without_endpoints_is_rejected_at_every_frontend() {
    for external_policy in [TrafficPolicy::Cluster, TrafficPolicy::Local] {
        Cluster::new(with(Service { external_policy, ..web() }, slices([]))).expect(&[
            ("10.244.1.5 -> 10.96.0.80:80", "rejected"),
            ("node -> 10.96.0.80:80", "rejected"),
            ("172.30.0.1 -> 172.30.0.11:30080", "rejected"),
            ("172.30.0.1 -> 192.0.2.1:80", "rejected"),
            ("172.30.0.1 -> 192.0.2.2:80", "rejected"),
        ]);
    }
}

#[test]
fn headless_and_external_name_services_are_not_the_proxys() {
    for kind in [ServiceKind::Headless, ServiceKind::ExternalName("example.com".into())] {
        Cluster::new(with(Service { kind, ..web() }, two())).expect(&[
            ("10.244.1.5 -> 10.96.0.80:80", "untouched"),
            ("172.30.0.1 -> 172.30.0.11:30080", "untouched"),
            ("172.30.0.1 -> 192.0.2.1:80", "untouched"),
        ]);
    }
}

#[test]
fn each_of_several_ports_leads_to_its_own_and_one_number_may_serve_several_protocols() {
    let ports = [port(Protocol::Tcp, 53, None), port(Protocol::Udp, 53, None), port(Protocol::Tcp, 80, None)];
    let service = at(NamespacedName::new("shop", "web"), "10.96.0.80", ports);
    let mut objects = with(service, slices([ready("10.244.1.2", "node1")]));
    for object in &mut objects {
        if let Object::EndpointSlice(slice) = object {
            slice.ports.push(weft_types::EndpointPort {
                port: 5353.try_into().unwrap(),
                ..crate::cluster::serves(Protocol::Udp, 53)
            });
        }
    }
    Cluster::new(objects).expect(&[
        ("10.244.1.5 -> 10.96.0.80:53/udp", "10.244.1.2:5353"),
        ("10.244.1.5 -> 10.96.0.80:80/tcp", "10.244.1.2:8080"),
        ("10.244.1.5 -> 10.96.0.80:53/tcp", "rejected"),
        ("10.244.1.5 -> 10.96.0.80:53/sctp", "rejected"),
    ]);
}
