//! Counters for each Service: what they count, and that switching them on and off touches nothing else.

use std::net::SocketAddr;

use weft_nftables::Family as Table;
use weft_proxy::config::Config;
use weft_proxy::counters::{Meter, Reading};
use weft_proxy::dataplane::nftables::ruleset::SetName;
use weft_proxy::services::plan::Frontend;
use weft_testkit::world::{Connection, World, tcp, udp};
use weft_types::Protocol;

use super::{Cluster, Family, NODE_PORT, cluster_ip, service, slices};

fn counting() -> Config {
    Config { service_counters: true, ..Config::default() }
}

fn read(cluster: &Cluster<'_>) -> Vec<Reading> {
    let read = cluster.sync.counters();
    cluster.world.node.run(read).unwrap().unwrap()
}

/// Packets and bytes at a frontend.
fn at(readings: &[Reading], frontend: Frontend, meter: Meter) -> (u64, u64) {
    let mut found = readings.iter().filter(|reading| (reading.frontend, reading.meter) == (frontend, meter));
    let reading = found.next().unwrap_or_else(|| panic!("no {meter:?} of {frontend}"));
    assert_eq!((reading.service.to_string(), found.next()), ("shop/web".to_owned(), None));
    (reading.packets, reading.bytes)
}

#[test]
fn connections_packets_and_bytes_of_each_service_are_counted_where_that_is_asked_for() {
    let world = World::new();
    world.serve(8080);
    let mut cluster = Cluster::new(&world, counting());
    cluster.put([service()].into_iter().chain(slices(&[1, 2])));
    for (family, node, header) in [(Family::V4, "172.30.0.11", 20 + 8), (Family::V6, "fd00:30::11", 40 + 8)] {
        let at_ip = SocketAddr::new(cluster_ip(family), 80);
        let at_node = SocketAddr::new(node.parse().unwrap(), NODE_PORT);
        let (ip, node_port) = (
            |protocol| Frontend::Address(cluster_ip(family), protocol, 80),
            |protocol| Frontend::NodePort(family, protocol, NODE_PORT),
        );
        // One byte there and so many back, each way through this node once: from a machine, a pod, the node
        // itself.
        let mut answered = 0;
        for from in [&world.outside, &world.pods[0], &world.node] {
            answered += udp(from, at_ip).unwrap().len() as u64 + header;
        }
        let readings = read(&cluster);
        assert_eq!(at(&readings, ip(Protocol::Udp), Meter::Connections).0, 3);
        assert_eq!(at(&readings, ip(Protocol::Udp), Meter::Received), (3, 3 * (1 + header)));
        assert_eq!(at(&readings, ip(Protocol::Udp), Meter::Sent), (3, answered));
        assert_eq!(at(&readings, ip(Protocol::Tcp), Meter::Received), (0, 0));
        assert_eq!(at(&readings, node_port(Protocol::Udp), Meter::Sent), (0, 0));

        (0..5).for_each(|_| drop(tcp(&world.outside, at_node)));
        let readings = read(&cluster);
        assert_eq!(at(&readings, node_port(Protocol::Tcp), Meter::Connections).0, 5);
        for meter in [Meter::Received, Meter::Sent] {
            let (packets, bytes) = at(&readings, node_port(Protocol::Tcp), meter);
            assert!(packets >= 5 * 3 && bytes > packets * 40, "{meter:?}: {packets} packets, {bytes} bytes");
        }
    }
    let listed = cluster.nft(&["list", "set", "ip", "weft", "connections"]);
    assert!(listed.contains("10.96.0.80 . udp . 80 counter packets 3 bytes 87"), "{listed}");
}

#[test]
fn counters_go_on_through_changes_of_endpoints_and_a_restart() {
    let world = World::new();
    world.serve(8080);
    let mut cluster = Cluster::new(&world, counting());
    cluster.put([service()].into_iter().chain(slices(&[1, 2])));
    let frontend = Frontend::Address(cluster_ip(Family::V4), Protocol::Tcp, 80);
    let to = SocketAddr::new(cluster_ip(Family::V4), 80);
    let connections = |cluster: &Cluster<'_>| at(&read(cluster), frontend, Meter::Connections).0;
    tcp(&world.outside, to);
    cluster.put(slices(&[2]));
    tcp(&world.outside, to);
    cluster.restart();
    tcp(&world.outside, to);
    assert_eq!(connections(&cluster), 3);
    // What another program destroyed comes back, and begins anew.
    cluster.nft(&["flush", "set", "ip", "weft", "connections"]);
    cluster.sync.mark_dirty();
    cluster.try_put([]);
    tcp(&world.outside, to);
    assert_eq!(connections(&cluster), 1);
}

#[test]
fn counters_are_switched_on_and_off_over_running_rules_by_the_difference_alone() {
    let world = World::new();
    world.serve(8080);
    let mut cluster = Cluster::new(&world, Config::default());
    cluster.put([service()].into_iter().chain(slices(&[1, 2])));
    let (without, tables) = (cluster.rules(), cluster.nft(&["-a", "list", "tables"]));
    let maps = |cluster: &Cluster<'_>| cluster.nft(&["-a", "list", "map", "ip", "weft", "frontends"]);
    let map = maps(&cluster);
    assert!(read(&cluster).is_empty());
    let mut connection =
        Connection::open(&world.outside, SocketAddr::new(cluster_ip(Family::V4), 80)).unwrap();
    let answer = connection.ask();
    cluster.config.service_counters = true;
    cluster.restart();
    assert_eq!(connection.ask(), answer);
    assert!(!read(&cluster).is_empty());
    assert_eq!((cluster.nft(&["-a", "list", "tables"]), maps(&cluster)), (tables.clone(), map.clone()));
    cluster.config.service_counters = false;
    cluster.restart();
    assert_eq!(connection.ask(), answer);
    assert_eq!((cluster.nft(&["-a", "list", "tables"]), maps(&cluster)), (tables, map));
    assert_eq!(cluster.rules(), without);
}

/// A set whose elements do not count would be taken for one that is as planned.
#[test]
fn a_set_of_counters_that_another_program_made_without_them_is_made_anew() {
    let world = World::new();
    let mut cluster = Cluster::new(&world, counting());
    cluster.put([service()].into_iter().chain(slices(&[1])));
    let rules = cluster.rules();
    let declaration = SetName::Sent.declaration(Table::Ip);
    let comment = declaration.comment.unwrap();
    cluster.nft(&[
        "delete chain ip weft count-postrouting; delete chain ip weft count-input; delete chain ip weft \
                   count-sent; delete set ip weft sent",
    ]);
    cluster.nft(&[&format!(
        "add set ip weft sent {{ type ipv4_addr . inet_proto . inet_service; comment \"{comment}\"; }}"
    )]);
    cluster.sync.mark_dirty();
    cluster.try_put([]);
    assert_eq!(cluster.rules(), rules);
}
