//! How long denied connections go on once the kernel has a change that denies them.

use std::fs;
use std::net::{IpAddr, UdpSocket};
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use weft_bench::table::{Table, ms, thousands};
use weft_netlink::Family;
use weft_netlink::conntrack::{ConntrackClient, Filter};
use weft_netlink::netns::Namespace;
use weft_testkit::namespace::sh;
use weft_testkit::world::{World, pod_address};

use crate::cluster::NODE;
use crate::daemon::{Machine, NAMESPACES_PATH, PATIENCE, PODS_PATH, POLICIES_PATH};

/// How many flows are cut, and how often that is measured.
const FLOWS: [(u16, usize); 2] = [(1_000, 10), (30_000, 5)];
/// A socket has a flow to each of so many ports at the most.
const PORTS: u16 = 15_000;
/// So many flows may be others', as of the agent and the API server.
const OTHERS: usize = 50;
/// Between two looks at the kernel's count.
const PAUSE: Duration = Duration::from_millis(1);

pub(crate) fn measure(agent: &Path, table: &mut Table) {
    let World { node, pods: [_server, client], outside: _outside } = World::new();
    // So that all flows are tracked.
    sh(
        &node,
        "nft 'add table inet services { chain tracked { type filter hook forward priority 0; ct state new accept; }; }'",
    );
    let machine = Machine::at(agent, node);
    machine.server.put(NAMESPACES_PATH, json!({"metadata": {"name": "shop"}}));
    for (number, name) in [(1, "web"), (2, "client")] {
        machine.server.put(PODS_PATH, pod(name, pod_address(weft_types::Family::V4, number)));
    }
    let _agent = machine.start();
    let mut commits = machine.commits();
    machine.server.put(POLICIES_PATH, policy(Some(PORTS)));
    commits.next();
    let mut conntrack = machine.node.run(ConntrackClient::open).unwrap().unwrap();
    for (flows, rounds) in FLOWS {
        let mut times: Vec<Duration> = Vec::new();
        for _ in 0..rounds {
            let before = tracked(&machine.node);
            let _sockets = open(&client, flows);
            assert!(
                tracked(&machine.node) + OTHERS >= before + usize::from(flows),
                "some were lost on the way"
            );
            commits.drain();
            machine.server.put(POLICIES_PATH, policy(None));
            commits.next();
            let committed = Instant::now();
            let wait = || {
                assert!(committed.elapsed() < PATIENCE, "denied flows go on");
                sleep(PAUSE);
            };
            while tracked(&machine.node) > before + OTHERS {
                wait();
            }
            while !conntrack.flows(Family::Ip, &of_client()).unwrap().is_empty() {
                wait();
            }
            times.push(committed.elapsed());
            commits.drain();
            machine.server.put(POLICIES_PATH, policy(Some(PORTS)));
            commits.next();
        }
        let longest = times.into_iter().max().unwrap_or_default();
        let what = format!(
            "{} flows that a change denies: from its commit until the last is cut, longest of {rounds}",
            thousands(flows.into())
        );
        table.at_most(what, ms(longest), 1000.0, "ms");
    }
}

/// How many flows the kernel has.
fn tracked(node: &Namespace) -> usize {
    let read = || fs::read_to_string("/proc/sys/net/netfilter/nf_conntrack_count");
    node.run(read).unwrap().unwrap().trim().parse().unwrap()
}

fn of_client() -> Filter {
    let source = Some(pod_address(weft_types::Family::V4, 2));
    Filter { protocol: Some(17), source, ..Filter::default() }
}

/// So many flows from the client to the server, and their sockets.
fn open(client: &Namespace, flows: u16) -> Vec<UdpSocket> {
    let ends = [2, 1].map(|pod| pod_address(weft_types::Family::V4, pod));
    let ports = PORTS.min(flows);
    let sockets =
        client.run(|| (0..flows / ports).map(|_| UdpSocket::bind((ends[0], 0)).unwrap()).collect::<Vec<_>>());
    let sockets = sockets.unwrap();
    for socket in &sockets {
        for port in 1..=ports {
            socket.send_to(b"x", (ends[1], port)).unwrap();
        }
    }
    sockets
}

fn pod(name: &str, address: IpAddr) -> Value {
    json!({
        "metadata": {"name": name, "namespace": "shop", "uid": format!("uid-{name}"), "labels": {"app": name}},
        "spec": {"nodeName": NODE},
        "status": {"phase": "Running", "podIPs": [{"ip": address.to_string()}]},
    })
}

/// Lets the client reach the server up to that port, or not at all.
fn policy(last: Option<u16>) -> Value {
    let from = json!([{"podSelector": {"matchLabels": {"app": "client"}}}]);
    let rule = |last| json!({"from": from, "ports": [{"protocol": "UDP", "port": 1, "endPort": last}]});
    json!({
        "metadata": {"name": "web", "namespace": "shop"},
        "spec": {"podSelector": {"matchLabels": {"app": "web"}}, "ingress": last.map(rule).into_iter().collect::<Vec<_>>()},
    })
}
