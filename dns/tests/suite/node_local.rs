//! A node-local server in the kernel of a node: whose traffic leaves no trace in connection tracking, who
//! answers while it is away, and what is left when it ends. The node, its pod and the cluster's other server
//! are network namespaces.

use std::net::{SocketAddr, UdpSocket};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::sys::signal::Signal;
use weft_netlink::netns::Namespace;
use weft_testkit::api_server::FakeApiServer;
use weft_testkit::namespace::{cable, end, forward, machine, route_by};
use weft_testkit::program::run_with_input;
use weft_testkit::rootless::Rootless;
use weft_testkit::wait::{eventually, eventually_ok};

use crate::api;
use crate::daemon::{Daemon, NOBODY, PROGRAM};
use crate::peers::dig;

/// An address of the server alone, and the DNS Service's two, which a service proxy rewrites.
const ADDRESSES: [&str; 3] = ["169.254.20.10", "10.96.0.10", "fd00:10:96::a"];
const NAME: &str = "backend.shop.svc.cluster.local A";
/// The node, as the pod reaches it.
const NODE: [&str; 2] = ["10.244.0.1", "fd00:10:244::1"];
/// The server behind the Service, and the node as it reaches it.
const OTHER: [&str; 2] = ["10.244.1.99", "fd00:10:244:1::99"];
const NODE_OF_OTHER: [&str; 2] = ["10.244.1.1", "fd00:10:244:1::1"];
/// The TTLs by which answers tell whose they are.
const ITS_OWN: &str = "\t30 IN";
const THE_OTHERS: &str = "\t7 IN";
/// What a service proxy has on the node, and what makes the kernel track connections.
const PROXY: &str = "add table ip proxy
    add chain ip proxy prerouting { type nat hook prerouting priority dstnat; }
    add rule ip proxy prerouting ip daddr 10.96.0.10 meta l4proto { tcp, udp } th dport 53 dnat to 10.244.1.99
    add chain ip proxy output { type nat hook output priority -100; }
    add rule ip proxy output ip daddr 10.96.0.10 meta l4proto { tcp, udp } th dport 53 dnat to 10.244.1.99
    add chain ip proxy postrouting { type nat hook postrouting priority srcnat; }
    add rule ip proxy postrouting ip saddr != 10.244.0.0/16 ct status dnat masquerade
    add table ip6 proxy
    add chain ip6 proxy prerouting { type nat hook prerouting priority dstnat; }
    add rule ip6 proxy prerouting ip6 daddr fd00:10:96::a meta l4proto { tcp, udp } th dport 53 dnat to fd00:10:244:1::99
    add chain ip6 proxy output { type nat hook output priority -100; }
    add rule ip6 proxy output ip6 daddr fd00:10:96::a meta l4proto { tcp, udp } th dport 53 dnat to fd00:10:244:1::99
    add chain ip6 proxy postrouting { type nat hook postrouting priority srcnat; }
    add rule ip6 proxy postrouting ip6 saddr != fd00:10:244::/56 ct status dnat masquerade";

fn run(program: &str, arguments: &str) -> (bool, String) {
    let output = Command::new(program).args(arguments.split(' ')).output().unwrap();
    (output.status.success(), String::from_utf8(output.stdout).unwrap())
}

/// A node, its pod, and the place of the server behind the Service, each joined to the node by a veth pair.
fn node_and_pods() -> [Namespace; 3] {
    let [node, pod, other] = [(); 3].map(|()| machine());
    let families = |[v4, v6]: [&str; 2]| [format!("{v4}/24"), format!("{v6}/64")];
    let links =
        [("pod", NODE, &pod, ["10.244.0.2", "fd00:10:244::2"]), ("other", NODE_OF_OTHER, &other, OTHER)];
    for (name, nodes, place, own) in links {
        cable(&end(&node, name, families(nodes)), &end(place, "eth0", families(own)));
        route_by(place, nodes);
    }
    forward(&node);
    node.run(|| run_with_input("nft", &["-f", "-"], PROXY)).unwrap();
    [node, pod, other]
}

/// The server behind the Service; waits until it knows the cluster.
fn start_other(place: &Namespace) -> (FakeApiServer, Daemon) {
    let [v4, v6] = OTHER.map(|address| SocketAddr::new(address.parse().unwrap(), 53).to_string());
    let flags = ["--listen", &v6, "--ttl", "7"];
    let api = place.run(api::start).unwrap();
    let other = place.run(|| Daemon::start_at(&v4, &api.address().to_string(), &flags)).unwrap();
    await_answer(&[place], &OTHER, THE_OTHERS);
    (api, other)
}

/// Asks until all of these are answered from everywhere, by the one who has that TTL.
fn await_answer(from: &[&Namespace], addresses: &[&str], ttl: &str) {
    for (place, address) in
        from.iter().flat_map(|place| addresses.iter().map(move |address| (place, address)))
    {
        eventually_ok(format!("{address}: an answer with TTL {ttl}"), || {
            let text = place.run(|| dig(address, 53, &format!("+time=1 {NAME}"))).unwrap();
            if text.contains("status: NOERROR") && text.contains(ttl) { Ok(()) } else { Err(text) }
        });
    }
}

fn is_answered(from: &Namespace) -> bool {
    from.run(|| dig(ADDRESSES[0], 53, NAME)).unwrap().contains("status: NOERROR")
}

fn start(node: &Namespace, api: &str) -> Daemon {
    let [own, v4, v6] = ADDRESSES.map(|address| SocketAddr::new(address.parse().unwrap(), 53).to_string());
    let flags = ["--listen", &v4, "--listen", &v6, "--node-local", "--handover", "--lameduck", "0"];
    node.run(|| Daemon::start_at(&own, api, &flags)).unwrap()
}

/// Whether the interface is there, and the tables.
fn traces(node: &Namespace) -> [bool; 3] {
    let has_table = |family| run("nft", &format!("list tables {family}")).1.contains(" weft-dns");
    node.run(|| [run("ip", "link show weft-dns").0, has_table("ip"), has_table("ip6")]).unwrap()
}

#[test]
fn a_node_local_server_works_as_root_of_a_user_namespace() {
    let machine = Rootless::new();
    let node = machine.namespace();
    let api_server = node.run(api::start).unwrap();
    let api = api_server.address().to_string();
    let own = SocketAddr::new(ADDRESSES[0].parse().unwrap(), 53).to_string();
    let start = || Daemon::start_by(machine.command(PROGRAM), &own, &api, &["--node-local"]);
    let mut server = node.run(start).unwrap();
    eventually("it answers", || is_answered(&node));
    assert_eq!(traces(&node), [true, true, false], "its address is IPv4");
    server.signal(Signal::SIGTERM);
    assert!(server.wait().success());
    assert_eq!(traces(&node), [false; 3]);
}

#[test]
fn questions_to_a_node_local_server_are_not_tracked() {
    let [node, pod, _] = node_and_pods();
    let api_server = node.run(api::start).unwrap();
    let api = api_server.address().to_string();
    let mut server = start(&node, &api);
    eventually("it lists the cluster", || is_answered(&pod));
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

/// The kernel takes the rules back with the process, and the service proxy's are asked again.
#[test]
fn while_a_node_local_server_is_dead_the_cluster_s_servers_answer() {
    let [node, pod, place] = node_and_pods();
    let _other = start_other(&place);
    let api_server = node.run(api::start).unwrap();
    let api = api_server.address().to_string();
    for _ in 0..2 {
        let server = start(&node, &api);
        await_answer(&[&pod, &node], &ADDRESSES[1..], ITS_OWN);
        // Kills it.
        drop(server);
        await_answer(&[&pod, &node], &ADDRESSES[1..], THE_OTHERS);
    }
}

/// Or names that exist would be denied, or fail, for a moment after each first start.
#[test]
fn until_a_node_local_server_knows_the_cluster_the_cluster_s_servers_answer() {
    let [node, pod, place] = node_and_pods();
    let _other = start_other(&place);
    let mut server = node.run(|| Daemon::spawn_at("10.96.0.10:53", NOBODY, &["--node-local"])).unwrap();
    server.await_log("other servers answer");
    await_answer(&[&pod, &node], &ADDRESSES[1..2], THE_OTHERS);
    assert!(!traces(&node)[1], "questions are led to a server that knows nothing");
}

/// Told to stop, it leaves the queries to the others first, and answers those that it has.
#[test]
fn a_node_local_server_that_ends_loses_no_question() {
    let [node, pod, place] = node_and_pods();
    let _other = start_other(&place);
    let api_server = node.run(api::start).unwrap();
    let api = api_server.address().to_string();
    let mut server = start(&node, &api);
    await_answer(&[&pod], &ADDRESSES[1..], ITS_OWN);
    let ending = AtomicBool::new(false);
    std::thread::scope(|threads| {
        let asked = threads.spawn(|| {
            let mut lost = Vec::new();
            while !ending.load(Ordering::SeqCst) {
                let text = pod.run(|| dig(ADDRESSES[1], 53, &format!("+time=2 {NAME}"))).unwrap();
                lost.extend((!text.contains("10.96.0.20")).then_some(text));
            }
            lost
        });
        server.signal(Signal::SIGTERM);
        assert!(server.wait().success());
        await_answer(&[&pod], &ADDRESSES[1..], THE_OTHERS);
        ending.store(true, Ordering::SeqCst);
        assert_eq!(asked.join().unwrap(), Vec::<String>::new());
    });
    assert_eq!(traces(&node), [false; 3]);
}

#[test]
fn what_a_killed_server_leaves_is_taken_over_or_cleaned_up() {
    let [node, _, _] = node_and_pods();
    let api_server = node.run(api::start).unwrap();
    let api = api_server.address().to_string();
    drop(start(&node, &api));
    assert!(traces(&node)[0]);
    // What an earlier version left, whose rules stayed.
    let left = "table ip weft-dns { chain prerouting { type filter hook prerouting priority raw; \
                ip daddr 10.96.0.10 udp dport 53 notrack; }; }";
    let add = || Command::new("nft").arg(left).status().unwrap().success();
    assert!(node.run(add).unwrap());
    drop(start(&node, &api));
    eventually("only the interface is left", || traces(&node) == [true, false, false]);
    assert!(node.run(add).unwrap());
    assert!(node.run(|| run(PROGRAM, "--cleanup").0).unwrap());
    assert_eq!(traces(&node), [false; 3]);
    assert!(node.run(|| run(PROGRAM, "--cleanup").0).unwrap(), "again");
}
