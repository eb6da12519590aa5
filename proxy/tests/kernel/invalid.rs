//! Packets that connection tracking cannot tell what they belong to (kubernetes/kubernetes#74839).

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use weft_proxy::config::Config;

use super::world::{World, run};
use super::{Cluster, Family, cluster_ip, service, slices};

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

#[test]
fn invalid_packets_of_endpoints_are_dropped_before_they_end_their_clients_connections() {
    assert_eq!(after_an_invalid_packet(Config::default()), ErrorKind::WouldBlock, "silence");
}

#[test]
fn invalid_packets_go_through_where_connection_tracking_is_to_be_liberal() {
    let config = Config { conntrack_be_liberal: true, ..Config::default() };
    assert_eq!(
        after_an_invalid_packet(config),
        ErrorKind::ConnectionReset,
        "the client knows no such server"
    );
}
