//! A node with very many flows, in a process of its own, whose memory nothing else takes. Needs root and the
//! packages nftables and iproute2.

#![allow(clippy::unwrap_used, reason = "a test stops at the first thing that goes wrong")]

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;

use weft_netlink::netns::Namespace;
use weft_proxy::conntrack::{Cleaner, Register};
use weft_proxy::metrics::Metrics;
use weft_proxy::services::ownership::{Contested, Ownership};
use weft_testkit::program::run;
use weft_types::{
    ChangeSet, Endpoint, EndpointPort, EndpointSlice, NamespacedName, Object, Protocol, Service, ServiceKind,
    ServicePort, Snapshot,
};

const FLOWS: usize = 60_000;
/// More than that would be lost in a container with little memory.
const MAX_KIB: usize = 2048;

fn service() -> Object {
    let port = ServicePort {
        name: "".into(),
        protocol: Protocol::Udp,
        port: 53.try_into().unwrap(),
        node_port: None,
    };
    let kind = ServiceKind::ClusterIp(vec!["10.96.0.10".parse().unwrap()]);
    let service = Service::new(NamespacedName::new("shop", "dns"), kind, vec![port]);
    // So many frontends that the kernel is not asked for the flows of each.
    let external_ips = (1..=9).map(|last| [192, 0, 2, last].into()).collect();
    Object::Service(Service { external_ips, ..service })
}

fn slice(endpoints: &[&str]) -> Object {
    let port = EndpointPort { name: "".into(), protocol: Protocol::Udp, port: 5353.try_into().unwrap() };
    Object::EndpointSlice(EndpointSlice {
        key: NamespacedName::new("shop", "dns-1"),
        service: NamespacedName::new("shop", "dns"),
        ports: vec![port],
        endpoints: endpoints.iter().map(|ip| Endpoint::ready(ip.parse().unwrap())).collect(),
    })
}

/// The most memory that this process has ever had, in KiB.
fn peak() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// Sends a datagram each to as many ports of the address, and one to the Service.
fn send(sockets: &[UdpSocket], to: IpAddr) {
    for (socket, first) in sockets.iter().zip([1, FLOWS / 2 + 1]) {
        for port in first..first + FLOWS / 2 {
            socket.send_to(b"?", (to, port as u16)).unwrap();
        }
    }
    sockets[0].send_to(b"?", "10.96.0.10:53".parse::<SocketAddr>().unwrap()).unwrap();
}

#[test]
fn a_stale_flow_is_found_among_very_many_without_memory_for_them() {
    let machine = Namespace::temporary().unwrap();
    let (mut cleaner, sockets) = machine
        .run(|| {
            for line in ["link set lo up", "route add 10.0.0.0/8 dev lo"] {
                run("ip", &line.split(' ').collect::<Vec<_>>());
            }
            run("nft", &["table ip t {
                chain c { type nat hook output priority -100; ip daddr 10.96.0.10 udp dport 53 dnat to 10.244.1.2:5353; }
            }"]);
            let sockets = [(); 2].map(|()| UdpSocket::bind("127.0.0.1:0").unwrap());
            (Cleaner::open().unwrap(), sockets)
        })
        .unwrap();
    send(&sockets, "10.1.1.1".parse().unwrap());
    let (mut snapshot, mut register, mut ownership) =
        (Snapshot::default(), Register::new(false), Ownership::default());
    let mut put = |objects: Vec<Object>| {
        let mut changes = ChangeSet::default();
        objects.into_iter().for_each(|object| snapshot.apply(object, &mut changes));
        for key in &changes.services {
            ownership.replace(key, snapshot.service(key), &mut Contested::default());
        }
        let touched = register.update(&snapshot, &changes, &ownership);
        register.served(&touched, &snapshot, &ownership, &[])
    };
    put(vec![service(), slice(&["10.244.1.2"])]);
    let mut served = put(vec![slice(&["10.244.1.3"])]);
    let metrics = Arc::new(Metrics::default());
    let before = peak();
    cleaner.clean(&mut served, || None, &metrics).unwrap();
    let taken = peak() - before;
    assert!(metrics.text(&[]).contains("entries_total{ip_family=\"IPv4\"} 1\n"), "{}", metrics.text(&[]));
    let left = machine.run(|| run("sh", &["-c", "cat /proc/sys/net/netfilter/nf_conntrack_count"])).unwrap();
    assert!(left.trim().parse::<usize>().unwrap() >= FLOWS, "{left}");
    assert!(taken <= MAX_KIB, "{taken} KiB for {FLOWS} flows");
}
