//! Packets that connection tracking cannot tell what they belong to (kubernetes/kubernetes#74839).

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use weft_proxy::config::{Config, ProxyMode};
use weft_testkit::program::run;
use weft_testkit::world::{World, tcp};

use super::{Cluster, Family, cluster_ip, service, slices};
use crate::of;

/// What becomes of a server's connection when one of its packets is invalid on its way to the client.
fn after_an_invalid_packet(config: Config) -> ErrorKind {
    let world = World::new();
    let mut cluster = Cluster::new(&world, config);
    cluster.put([service()].into_iter().chain(slices(&[1])));
    // A packet that belongs to nothing is invalid, and not taken for the beginning of something.
    let strict = || std::fs::write("/proc/sys/net/netfilter/nf_conntrack_tcp_loose", "0").unwrap();
    world.node.run(strict).unwrap();
    let listener = world.pods[0].run(|| TcpListener::bind("0.0.0.0:8080")).unwrap().unwrap();
    let to = SocketAddr::new(cluster_ip(Family::V4), 80);
    let _client = world.outside.run(|| TcpStream::connect(to)).unwrap().unwrap();
    let (mut server, _) = listener.accept().unwrap();
    world.node.run(|| run("conntrack", &["-F"])).unwrap();
    server.write_all(b"untranslated").unwrap();
    server.set_read_timeout(Some(Duration::from_millis(700))).unwrap();
    server.read(&mut [0]).unwrap_err().kind()
}

in_every_mode!(invalid_packets_of_endpoints_are_dropped_before_they_end_their_clients_connections);

fn invalid_packets_of_endpoints_are_dropped_before_they_end_their_clients_connections(mode: ProxyMode) {
    assert_eq!(after_an_invalid_packet(of(mode)), ErrorKind::WouldBlock, "silence");
}

// IPVS translates packets by its own table of connections.
in_modes_of_rules!(invalid_packets_go_through_where_connection_tracking_is_to_be_liberal);

fn invalid_packets_go_through_where_connection_tracking_is_to_be_liberal(mode: ProxyMode) {
    let config = Config { conntrack_be_liberal: true, ..of(mode) };
    assert_eq!(
        after_an_invalid_packet(config),
        ErrorKind::ConnectionReset,
        "the client knows no such server"
    );
}

#[test]
fn traffic_of_no_service_goes_on_where_its_two_ways_lead_over_different_machines() {
    let world = World::new();
    world.serve(8080);
    world.serve(9090);
    let mut cluster = Cluster::new(&world, Config::default());
    cluster.put([service()].into_iter().chain(slices(&[1])));
    // The node has led connections to the pod's served port, and sees of others only what the pod answers.
    assert!(tcp(&world.outside, SocketAddr::new(cluster_ip(Family::V4), 80)).starts_with("1 "));
    let past_the_node = |address: &str| {
        let path = world.pods[0].path().display().to_string();
        run("ip", &["link", "add", "direct", "type", "veth", "peer", "name", "direct", "netns", &path]);
        run("ip", &["address", "add", "10.1.1.1/24", "dev", "direct"]);
        run("ip", &["link", "set", "direct", "up"]);
        run("ip", &["route", "add", address, "via", "10.1.1.2", "dev", "direct", "src", "172.30.0.1"]);
    };
    world.outside.run(|| past_the_node("10.244.1.2")).unwrap();
    let arrive = || {
        run("ip", &["address", "add", "10.1.1.2/24", "dev", "direct"]);
        run("ip", &["link", "set", "direct", "up"]);
        for path in ["all", "direct"] {
            std::fs::write(format!("/proc/sys/net/ipv4/conf/{path}/rp_filter"), "0").unwrap();
        }
    };
    world.pods[0].run(arrive).unwrap();
    assert_eq!(tcp(&world.outside, "10.244.1.2:9090".parse().unwrap()), "1 172.30.0.1");
}
