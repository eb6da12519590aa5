//! A node-local server in the kernel of a node: whose traffic leaves no trace in connection tracking, and what is left when
//! the server ends. The node and its pod are network namespaces.

use std::net::{SocketAddr, UdpSocket};
use std::process::Command;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use weft_netlink::netns::Namespace;

use crate::api::Api;
use crate::daemon::{Daemon, NOBODY, PROGRAM};
use crate::peers::dig;

/// An address of the server alone, and the DNS Service's two, which a service proxy rewrites.
const ADDRESSES: [&str; 3] = ["169.254.20.10", "10.96.0.10", "fd00:10:96::a"];
const NAME: &str = "backend.shop.svc.cluster.local A";
/// The node, as the pod reaches it.
const NODE: [&str; 2] = ["10.244.0.1", "fd00:10:244::1"];
/// What a service proxy has on the node, and what makes the kernel track connections.
const PROXY: &str = "add table ip proxy
    add chain ip proxy prerouting { type nat hook prerouting priority dstnat; }
    add rule ip proxy prerouting ip daddr 10.96.0.10 meta l4proto { tcp, udp } th dport 53 dnat to 10.244.0.99
    add chain ip proxy output { type nat hook output priority -100; }
    add rule ip proxy output ip daddr 10.96.0.10 meta l4proto { tcp, udp } th dport 53 dnat to 10.244.0.99
    add table ip6 proxy
    add chain ip6 proxy prerouting { type nat hook prerouting priority dstnat; }
    add rule ip6 proxy prerouting ip6 daddr fd00:10:96::a meta l4proto { tcp, udp } th dport 53 dnat to fd00:10:244::99
    add chain ip6 proxy output { type nat hook output priority -100; }
    add rule ip6 proxy output ip6 daddr fd00:10:96::a meta l4proto { tcp, udp } th dport 53 dnat to fd00:10:244::99";

fn run(program: &str, arguments: &str) -> (bool, String) {
    let output = Command::new(program).args(arguments.split(' ')).output().unwrap();
    (output.status.success(), String::from_utf8(output.stdout).unwrap())
}

fn ip(arguments: &str) {
    assert!(run("ip", arguments).0, "ip {arguments}");
}

/// A node and its pod, joined by a veth pair.
fn node_and_pod() -> [Namespace; 2] {
    let both = [(); 2].map(|()| Namespace::temporary().unwrap());
    let pod = both[1].path().display().to_string();
    let rules = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(rules.path(), PROXY).unwrap();
    let node = || {
        ip("link set lo up");
        ip(&format!("link add pod type veth peer name eth0 netns {pod}"));
        ip(&format!("addr add {}/24 dev pod", NODE[0]));
        ip(&format!("addr add {}/64 dev pod nodad", NODE[1]));
        ip("link set pod up");
        assert!(run("nft", &format!("-f {}", rules.path().display())).0);
    };
    both[0].run(node).unwrap();
    let pod = || {
        ip("addr add 10.244.0.2/24 dev eth0");
        ip("addr add fd00:10:244::2/64 dev eth0 nodad");
        ip("link set eth0 up");
        NODE.iter().for_each(|node| ip(&format!("route add default via {node}")));
    };
    both[1].run(pod).unwrap();
    both
}

fn start(node: &Namespace, api: &str) -> Daemon {
    let [own, v4, v6] = ADDRESSES.map(|address| SocketAddr::new(address.parse().unwrap(), 53).to_string());
    let flags = ["--listen", &v4, "--listen", &v6, "--node-local", "--handover", "--lameduck", "0"];
    node.run(|| Daemon::start_at(&own, api, &flags)).unwrap()
}

/// Whether the interface is there, and the tables.
fn traces(node: &Namespace) -> [bool; 3] {
    let table = |family| run("nft", &format!("list table {family} weft-dns")).0;
    node.run(|| [run("ip", "link show weft-dns").0, table("ip"), table("ip6")]).unwrap()
}

#[test]
fn questions_to_a_node_local_server_are_not_tracked() {
    let [node, pod] = node_and_pod();
    let api = node.run(|| Api::start().address.to_string()).unwrap();
    let mut server = start(&node, &api);
    let deadline = Instant::now() + Duration::from_secs(20);
    while !pod.run(|| dig(ADDRESSES[0], 53, NAME)).unwrap().contains("status: NOERROR") {
        assert!(Instant::now() < deadline, "it never lists the cluster");
    }
    for side in [&pod, &node] {
        for (address, protocol) in
            ADDRESSES.iter().flat_map(|address| [(address, "+notcp"), (address, "+tcp")])
        {
            let text = side.run(|| dig(address, 53, &format!("{protocol} {NAME}"))).unwrap();
            assert!(text.contains("10.96.0.20"), "{text}");
        }
    }
    // Anything else is tracked, or the test would show nothing.
    for (from, to, family) in [("0.0.0.0:0", NODE[0], "ipv4"), ("[::]:0", NODE[1], "ipv6")] {
        pod.run(|| UdpSocket::bind(from).unwrap().send_to(b"", (to, 9)).unwrap()).unwrap();
        let (_, tracked) = node.run(|| run("conntrack", &format!("-L -f {family}"))).unwrap();
        assert!(tracked.contains("dport=9 ") && !tracked.contains("port=53 "), "{tracked}");
    }

    // An upgrade leaves all of it to the next server, who removes it.
    let mut next = start(&node, &api);
    server.signal(Signal::SIGTERM);
    assert!(server.wait().success());
    assert_eq!(traces(&node), [true; 3]);
    assert!(pod.run(|| dig(ADDRESSES[1], 53, NAME)).unwrap().contains("10.96.0.20"));
    next.signal(Signal::SIGTERM);
    assert!(next.wait().success());
    assert_eq!(traces(&node), [false; 3]);
}

#[test]
fn what_a_killed_server_leaves_is_taken_over_or_cleaned_up() {
    let [node, _] = node_and_pod();
    drop(start(&node, NOBODY));
    assert_eq!(traces(&node), [true; 3]);
    drop(start(&node, NOBODY));
    assert!(node.run(|| run(PROGRAM, "--cleanup").0).unwrap());
    assert_eq!(traces(&node), [false; 3]);
    assert!(node.run(|| run(PROGRAM, "--cleanup").0).unwrap(), "again");
}
