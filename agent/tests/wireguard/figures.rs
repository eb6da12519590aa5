//! Throughput between pods of two nodes beside the other tunnel's and the bare link's. It proves nothing, and is run
//! by hand: `cargo test -p weft-agent --test wireguard -- --ignored --nocapture in_the_virtual_machine`.

use std::net::{IpAddr, UdpSocket};
use std::time::{Duration, Instant};

use weft_netlink::netns::Namespace;
use weft_testkit::namespace::{sh, sh_output};
use weft_testkit::wait::eventually;

use crate::FIGURES;
use crate::auto::Pair;
use crate::daemon::{KEY, NODES, node as node_object};
use crate::world::World;

#[test]
#[ignore = "figures"]
fn throughput_in_the_virtual_machine() {
    let said = FIGURES
        .run("--ignored --nocapture --test-threads=1 figures::throughput_between_pods figures::a_node_more");
    assert!(said.contains("ended with 0"), "{said}");
    said.lines().filter(|line| line.starts_with('|')).for_each(|line| println!("{line}"));
}

#[test]
#[ignore = "runs in the virtual machine"]
fn throughput_between_pods() {
    let mut world = World::new(2, true);
    println!("\n| | Mbit/s |\n|---|---|");
    let bare = rate(&world.sites[0].node, &world.sites[1].node, "172.30.2.12");
    println!("| bare link, IPv4 | {bare} |");
    for (name, backend) in
        [("VXLAN over IPv4", "--backend=vxlan"), ("WireGuard over IPv4", "--backend=wireguard")]
    {
        world.flags[0] = backend;
        match backend {
            "--backend=vxlan" => world.apply_once(),
            _ => world.settle(),
        }
        let mtu = world.plan(0).bridge_mtu().unwrap();
        world.sites.iter().for_each(|site| drop(sh(&site.pod, &format!("ip link set eth0 mtu {mtu}"))));
        for (family, to) in [("IPv4", "10.244.2.2"), ("IPv6", "fd00:10:2::2")] {
            world.assert_reached(0, 1);
            println!("| {name}, pods' {family} | {} |", rate(&world.sites[0].pod, &world.sites[1].pod, to));
        }
    }
}

/// From the moment at which two nodes hear of each other, each with its key, until the pod of one has answered that
/// of the other.
#[test]
#[ignore = "runs in the virtual machine"]
fn a_node_more() {
    let mut pair = Pair::new();
    for (node, number) in pair.nodes.iter_mut().zip(1..) {
        node.server.put(NODES, node_object(number, None));
        node.start();
    }
    let objects = pair.nodes.each_ref().map(|node| {
        node.until("its key", |node| node.said(KEY).is_some());
        node.object()
    });
    let socket = |pod: usize| {
        let address = IpAddr::from([10, 244, pod as u8 + 1, 2]);
        let socket = pair.pods[pod].run(|| UdpSocket::bind((address, 7))).unwrap().unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
        (socket, address)
    };
    let ((here, one), (there, two)) = (socket(0), socket(1));
    let (start, mut buffer) = (Instant::now(), [0; 8]);
    let [first, second] = objects;
    pair.nodes[0].server.put(NODES, second);
    pair.nodes[1].server.put(NODES, first);
    eventually("an answer", || {
        // Held at first.
        let _ = here.send_to(b"first", (two, 7));
        if there.recv_from(&mut buffer).is_ok() {
            let _ = there.send_to(b"answer", (one, 7));
        }
        here.recv_from(&mut buffer).is_ok()
    });
    println!(
        "\n| WireGuard, a Node is added, until its pod has answered another node's | {:?} |",
        start.elapsed()
    );
}

/// Of one TCP connection, in Mbit/s.
fn rate(client: &Namespace, server: &Namespace, to: &str) -> String {
    sh(server, "iperf3 -s -1 -D -I /tmp/iperf3.pid");
    let mut report = String::new();
    eventually("the server listens", || {
        let output = sh_output(client, &format!("iperf3 -c {to} -t 10 -f m"));
        report = String::from_utf8_lossy(&output.stdout).into_owned();
        output.status.success()
    });
    let line = report.lines().find(|line| line.ends_with("receiver")).unwrap_or_else(|| panic!("{report}"));
    let words: Vec<&str> = line.split_whitespace().collect();
    let unit = words.iter().position(|word| *word == "Mbits/sec").unwrap();
    words[unit - 1].to_owned()
}
