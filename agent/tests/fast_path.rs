//! The fast path with real packets: between two pods of a node, and between a pod and a machine that stands for
//! the pods of other nodes. Runs as root.

#![allow(clippy::unwrap_used, reason = "a test stops at the first thing that goes wrong")]

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use weft_agent::fast_path::kernel::Programs;
use weft_agent::fast_path::plan::{FastPathPlan, Way};
use weft_netlink::conntrack::{ConntrackClient, CtStatus, Filter, Flow, TcpState};
use weft_netlink::netns::Namespace;
use weft_netlink::rtnl::RtnetlinkClient;
use weft_netlink::sysctl::Originals;
use weft_testkit::namespace::sh;
use weft_testkit::wait::eventually;
use weft_testkit::world::{Connection, PATIENCE, World, pod_address, put_on_bridge};
use weft_types::Family;

/// Rules as of policies: what is known passes; what else may is decided for its first packet.
const RULES: &str = "table inet rules {
    chain judged {
        type filter hook forward priority 0
        ct state established counter accept
        tcp flags & (syn | ack) != syn reject with tcp reset
    }
}";

/// A node whose two pods are ports of a bridge, and its fast path.
struct Node {
    world: World,
    programs: Option<Programs>,
    plan: FastPathPlan,
}

impl Node {
    fn new() -> Node {
        let world = World::new();
        world.serve(80);
        let node = &world.node;
        put_on_bridge(node);
        sh(node, &format!("nft '{RULES}'"));
        let pods = [1, 2].into_iter().flat_map(|number| {
            let index = index(node, &format!("pod{number}"));
            [Family::V4, Family::V6].map(|family| (pod_address(family, number), index))
        });
        let uplink = index(node, "outside");
        let ways =
            [("172.30.0.0/24", "172.30.0.1"), ("fd00:30::/64", "fd00:30::1")].map(|(range, gateway)| {
                (range.parse().unwrap(), Way { interface: uplink, gateway: gateway.parse().unwrap() })
            });
        let plan = FastPathPlan { pods: pods.collect(), ways: ways.into(), uplinks: [uplink].into() };
        let mut node = Node { world, programs: None, plan };
        node.start();
        node
    }

    fn start(&mut self) {
        self.programs = Some(self.world.node.run(|| Programs::open(Originals::default())).unwrap().unwrap());
        self.apply();
    }

    fn apply(&mut self) {
        let Node { world, programs, plan } = self;
        world.node.run(|| programs.as_mut().unwrap().apply(plan)).unwrap().unwrap();
    }

    /// How many packets have taken the fast path.
    fn packets(&self) -> u64 {
        self.programs.as_ref().unwrap().packets().unwrap()
    }

    /// Who connects to pod 1, and by which address of it: the other pod, and who is behind another node.
    fn clients(&self) -> Vec<(&Namespace, IpAddr)> {
        let clients = [&self.world.pods[1], &self.world.outside];
        let families = [Family::V4, Family::V6];
        clients.iter().flat_map(|client| families.map(|family| (*client, pod_address(family, 1)))).collect()
    }

    fn flows(&self, server: IpAddr) -> Vec<Flow> {
        let mut client = self.world.node.run(ConntrackClient::open).unwrap().unwrap();
        let family = if server.is_ipv6() { weft_netlink::Family::Ip6 } else { weft_netlink::Family::Ip };
        client.flows(family, &Filter { destination: Some(server), ..Filter::default() }).unwrap()
    }

    /// Has the node forget all connections.
    fn forget(&self) {
        let mut client = self.world.node.run(ConntrackClient::open).unwrap().unwrap();
        for family in [weft_netlink::Family::Ip, weft_netlink::Family::Ip6] {
            client.delete_where(family, &Filter::default(), |_| true).unwrap();
        }
    }

    /// How many packets the rules have let through as known.
    fn judged(&self) -> u64 {
        let text = sh(&self.world.node, "nft list table inet rules");
        let count = text.split("counter packets ").nth(1).unwrap().split(' ').next().unwrap();
        count.parse().unwrap()
    }
}

fn index(machine: &Namespace, link: &str) -> u32 {
    machine.run(RtnetlinkClient::open).unwrap().unwrap().link(link).unwrap().index
}

fn open(client: &Namespace, to: IpAddr) -> Connection {
    let mut connection = Connection::open(client, SocketAddr::new(to, 80)).unwrap();
    connection.ask();
    connection
}

fn fails(connection: &mut Connection) -> bool {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| connection.ask())).is_err()
}

/// Both ends of a flow of datagrams that has gone on for long enough to be known as one.
fn datagrams(node: &Node, client: &Namespace, to: IpAddr) -> [UdpSocket; 2] {
    let any: IpAddr = if to.is_ipv6() { [0u16; 8].into() } else { [0; 4].into() };
    let bind = |machine: &Namespace, address| {
        let socket = machine.run(|| UdpSocket::bind((address, 5000))).unwrap().unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket
    };
    let (server, client) = (bind(&node.world.pods[0], to), bind(client, any));
    client.connect((to, 5000)).unwrap();
    let ends = [client, server];
    eventually("a known flow", || {
        exchange(&ends);
        node.flows(to).iter().any(|flow| flow.status.contains(CtStatus::ASSURED))
    });
    ends
}

/// A datagram each way.
fn exchange([client, server]: &[UdpSocket; 2]) {
    client.send(b"question").unwrap();
    let (_, from) = server.recv_from(&mut [0; 16]).unwrap();
    server.send_to(b"answer", from).unwrap();
    client.recv(&mut [0; 16]).unwrap();
}

#[test]
fn what_is_between_the_first_packets_of_a_connection_and_its_last_takes_the_fast_path() {
    let node = Node::new();
    for (client, to) in node.clients() {
        let mut connection = open(client, to);
        let (before, judged) = (node.packets(), node.judged());
        (0..100).for_each(|_| drop(connection.ask()));
        // A question and an answer, which acknowledges the question; sometimes one more.
        assert!(node.packets() - before >= 200, "{to}: {}", node.packets() - before);
        assert_eq!(node.judged(), judged, "{to}");
        let is_open = |flow: &Flow| flow.tcp_state.is_some_and(TcpState::is_open);
        assert!(node.flows(to).iter().any(is_open));
        drop(connection);
        eventually("its end", || !node.flows(to).iter().any(is_open));
        node.forget();
    }
}

#[test]
fn a_connection_that_is_forgotten_goes_before_the_rules_with_its_next_packet() {
    let node = Node::new();
    for (client, to) in node.clients() {
        let mut connection = open(client, to);
        connection.ask();
        node.forget();
        assert!(fails(&mut connection), "{to}: it is reset");
        drop(open(client, to));
    }
}

#[test]
fn translated_connections_take_the_usual_way() {
    let node = Node::new();
    let rules = "table ip nat {
        chain services { type nat hook prerouting priority dstnat; ip daddr 10.96.0.1 dnat to 10.244.1.2; }
        chain leaving { type nat hook postrouting priority srcnat; tcp dport 80 ip daddr 10.244.2.2 masquerade; }
    }";
    sh(&node.world.node, &format!("nft '{rules}'"));
    let World { pods: [one, two], outside, .. } = &node.world;
    sh(outside, "ip route add 10.96.0.1 via 172.30.0.11");
    for (client, to) in [(two, "10.96.0.1"), (outside, "10.96.0.1"), (one, "10.244.2.2")] {
        let before = node.packets();
        let mut connection = open(client, to.parse().unwrap());
        (0..10).for_each(|_| drop(connection.ask()));
        assert_eq!(node.packets(), before, "{to}");
    }
}

#[test]
fn datagrams_take_it_once_both_ends_have_sent_some_and_keep_their_connection_alive() {
    let node = Node::new();
    sh(&node.world.node, "sysctl -qw net.netfilter.nf_conntrack_udp_timeout_stream=4");
    let mut node = node;
    node.apply();
    let to = pod_address(Family::V4, 1);
    let ends = datagrams(&node, &node.world.outside, to);
    let flow = node.flows(to).remove(0);
    let (start, before, judged) = (Instant::now(), node.packets(), node.judged());
    let mut rounds = 0;
    // For longer than it would last without a packet.
    while start.elapsed() < Duration::from_secs(6) {
        exchange(&ends);
        rounds += 1;
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(node.packets() - before, 2 * rounds);
    assert_eq!(node.judged(), judged);
    assert_eq!(node.flows(to).iter().map(|flow| flow.id).collect::<Vec<_>>(), [flow.id]);
}

#[test]
fn who_sends_under_another_pods_address_gains_nothing() {
    let node = Node::new();
    let to = pod_address(Family::V4, 1);
    let [client, server] = datagrams(&node, &node.world.pods[1], to);
    let before = node.packets();
    exchange(&[client, server.try_clone().unwrap()]);
    assert_eq!(node.packets() - before, 2);
    // Another pod, with the address of the first one's peer.
    let thief = Namespace::temporary().unwrap();
    sh(&node.world.node, "ip link add thief type veth peer name far && ip link set thief up master cni0");
    let holder = thief.run(|| std::process::Command::new("sleep").arg("60").spawn()).unwrap();
    let mut holder = holder.unwrap();
    sh(&node.world.node, &format!("ip link set far netns {}", holder.id()));
    holder.kill().unwrap();
    holder.wait().unwrap();
    let mac = sh(&node.world.node, "ip -br link show dev cni0 | awk '{ print $3 }'");
    sh(&thief, "ip link set far up && ip addr add 10.244.2.2/32 dev far");
    sh(&thief, &format!("ip neigh add 10.244.2.1 lladdr {} dev far", mac.trim()));
    sh(&thief, "ip route add 10.244.2.1 dev far && ip route add default via 10.244.2.1");
    let mut node = node;
    node.plan.pods.insert("10.244.2.3".parse().unwrap(), index(&node.world.node, "thief"));
    node.apply();
    let socket = thief.run(|| UdpSocket::bind(("10.244.2.2", 5000))).unwrap().unwrap();
    let before = node.packets();
    socket.send_to(b"stolen", (to, 5000)).unwrap();
    server.recv_from(&mut [0; 16]).unwrap();
    assert_eq!(node.packets(), before, "it came by the usual way");
}

#[test]
fn connections_outlive_the_agent_and_take_the_fast_path_again_with_the_next_one() {
    let mut node = Node::new();
    let to = pod_address(Family::V4, 1);
    let mut connections: Vec<Connection> =
        [&node.world.pods[1], &node.world.outside].map(|from| open(from, to)).into();
    connections.iter_mut().for_each(|it| drop(it.ask()));
    node.programs = None;
    let judged = node.judged();
    connections.iter_mut().for_each(|it| drop(it.ask()));
    assert!(node.judged() >= judged + 4);
    node.start();
    connections.iter_mut().for_each(|it| drop(it.ask()));
    assert!(node.packets() >= 4);
}

#[test]
fn a_pod_that_takes_over_the_address_of_one_that_went_is_reached() {
    let mut node = Node::new();
    let to = pod_address(Family::V4, 1);
    let mut old = open(&node.world.outside, to);
    old.ask();
    let before = node.packets();
    // The interface is another one, and so is all behind it.
    sh(&node.world.pods[0], "ip link del eth0");
    // By a plan of before.
    node.apply();
    node.plan.pods.retain(|address, _| *address != to && *address != pod_address(Family::V6, 1));
    node.apply();
    assert!(node.packets() >= before, "what has been counted stays");
    let ends = [("pod1", &node.world.node), ("eth0", &node.world.pods[0])];
    let [host, pod] = ends.map(|(name, machine)| weft_testkit::namespace::bare_end(machine, name));
    weft_testkit::namespace::cable(&host, &pod);
    sh(&node.world.node, "ip link set pod1 master cni0 && bridge link set dev pod1 isolated on");
    sh(&node.world.pods[0], "ip addr add 10.244.1.2/24 dev eth0 && ip route add default via 10.244.1.1");
    node.plan.pods.insert(to, index(&node.world.node, "pod1"));
    node.apply();
    let before = node.packets();
    let mut new = open(&node.world.outside, to);
    new.ask();
    assert!(node.packets() > before);
}

/// As through a tunnel: the sender must hear of it.
#[test]
fn a_packet_that_is_too_large_for_the_way_is_answered() {
    let mut node = Node::new();
    let World { node: host, pods: [one, _], outside } = &node.world;
    let to = pod_address(Family::V4, 1);
    sh(host, "ip link set outside mtu 1400");
    let ends = datagrams(&node, outside, to);
    let server = &ends[1];
    let client = SocketAddr::new("172.30.0.1".parse().unwrap(), 5000);
    sh(one, "ip route flush cache");
    let large = [7; 1450];
    server.send_to(&large, client).unwrap();
    eventually("a word about the MTU", || sh(one, "ip route get 172.30.0.1").contains("mtu 1400"));
    node.apply();
}
