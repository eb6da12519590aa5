//! What the way between two nodes' pods costs: throughput and latency through Weft's own routes and through
//! its tunnel, beside the bare link between the nodes; the time from a new Node to the first packet to its
//! pods; the agent's memory; how soon something is known beyond a node; and what looking at flows costs. Two
//! nodes and two pods are network namespaces; the agents are the real ones. Needs root, iperf3 and nft; is given
//! the path of `weft-agent` (`make bench-nodes`), and `beyond` or `flows` for that part alone.

#![allow(clippy::unwrap_used, reason = "a benchmark stops at the first thing that goes wrong")]

mod beyond;
mod flows;
mod machine;
mod measure;

use std::env;
use std::net::UdpSocket;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use machine::{Machine, node};
use measure::{Link, best, latency, throughput};
use weft_bench::table::{Table, ms};
use weft_testkit::namespace::{cable, end};
use weft_testkit::wait::eventually;

/// How the nodes' pods reach each other.
struct Way {
    name: &'static str,
    backend: &'static str,
    fast_path: &'static str,
    /// The nodes have addresses of IPv6 alone.
    is_ipv6_only: bool,
}

const USUAL: Way = Way { name: "host-gw", backend: "host-gw", fast_path: "none", is_ipv6_only: false };
const TUNNEL: Way = Way { name: "VXLAN over IPv4", backend: "vxlan", ..USUAL };
const WAYS: [Way; 5] = [
    USUAL,
    Way { name: "host-gw, fast path", fast_path: "ebpf", ..USUAL },
    TUNNEL,
    Way { name: "VXLAN over IPv4, fast path", fast_path: "ebpf", ..TUNNEL },
    Way { name: "VXLAN over IPv6", is_ipv6_only: true, ..TUNNEL },
];
/// How often a first packet is waited for.
const FIRST: usize = 5;
/// How long a change of the cluster may go unheard before the agent has surely settled.
const SETTLED: Duration = Duration::from_secs(2);

fn main() {
    let agent = PathBuf::from(env::args().nth(1).expect("usage: bench-nodes PATH-OF-weft-agent [flows]"));
    if env::args().nth(2).as_deref() == Some("flows") {
        return flows::measure(&agent);
    }
    let machines = [1, 2].map(|number| Machine::new(number, &agent));
    let [one, two] = &machines;
    let addresses = |number: u8| [format!("172.30.0.1{number}/16"), format!("fd00:30::1{number}/64")];
    cable(&end(&one.node, "uplink", addresses(1)), &end(&two.node, "uplink", addresses(2)));
    if env::args().nth(2).is_some_and(|part| part == "beyond") {
        return beyond::measure(&machines, &agent);
    }
    println!("| | MTU | Gbit/s | of bare | round trip | of bare | first packet after the Node |");
    println!("|---|---|---|---|---|---|---|");
    let bare = [false, true].map(|is_ipv6| {
        let address = if is_ipv6 { "fd00:30::12" } else { "172.30.0.12" }.parse().unwrap();
        let seen = measured(&Link { from: &one.node, to: &two.node, address });
        println!(
            "| bare link, {} | 1500 | {:.2} | 1.00 | {:.1} us | 1.00 | |",
            family(is_ipv6),
            seen.0,
            seen.1
        );
        seen
    });
    WAYS.iter().for_each(|way| measure_way(&machines, way, &bare));
    println!();
    memory(&agent);
    println!();
    beyond::measure(&machines, &agent);
    println!();
    flows::measure(&agent);
}

fn family(is_ipv6: bool) -> &'static str {
    if is_ipv6 { "IPv6" } else { "IPv4" }
}

/// Throughput in Gbit/s and the time of a round trip in microseconds.
fn measured(link: &Link) -> (f64, f64) {
    (best(|| throughput(link), f64::max), best(|| latency(link), f64::min))
}

fn measure_way([one, two]: &[Machine; 2], way: &Way, bare: &[(f64, f64); 2]) {
    let flags = ["--backend", way.backend, "--fast-path", way.fast_path];
    let (own, other) = (node(1, way.is_ipv6_only), node(2, way.is_ipv6_only));
    let mut first = Vec::new();
    for round in 0..FIRST {
        one.hear_of(own.clone());
        [&own, &other].into_iter().for_each(|node| two.hear_of(node.clone()));
        let agents = [one.start(&flags), two.start(&flags)];
        two.await_route(1);
        first.push(first_packet(one, two, || one.hear_of(other.clone())));
        if round + 1 < FIRST {
            drop(agents);
            [one, two].into_iter().for_each(Machine::clean_up);
            continue;
        }
        one.await_route(2);
        two.await_route(1);
        std::thread::sleep(SETTLED);
        let mtu = one.pod_mtu();
        [one, two].into_iter().for_each(|machine| machine.set_pod_mtu(mtu));
        for is_ipv6 in [false, true] {
            let link = Link { from: &one.pod, to: &two.pod, address: two.pod_address(is_ipv6) };
            let ((gbit, trip), (bare_gbit, bare_trip)) = (measured(&link), bare[usize::from(is_ipv6)]);
            first.sort_unstable();
            println!(
                "| {}, pods' {} | {mtu} | {gbit:.2} | {:.2} | {trip:.1} us | {:.2} | {:.1} ms |",
                way.name,
                family(is_ipv6),
                gbit / bare_gbit,
                trip / bare_trip,
                ms(first[FIRST / 2]),
            );
        }
    }
    [one, two].into_iter().for_each(Machine::clean_up);
    [one, two].into_iter().for_each(|machine| machine.set_pod_mtu(1500));
}

/// From the moment at which the API server tells of the other Node to a datagram's arrival at its pod.
fn first_packet(one: &Machine, two: &Machine, tell: impl Fn()) -> Duration {
    let to = (two.pod_address(false), 7);
    let receiver = two.pod.run(|| UdpSocket::bind(to)).unwrap().unwrap();
    receiver.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
    let sender = one.pod.run(|| UdpSocket::bind((one.pod_address(false), 0))).unwrap().unwrap();
    let start = Instant::now();
    tell();
    loop {
        // Unreachable before the route is there.
        let _ = sender.send_to(b"first", to);
        if receiver.recv_from(&mut [0; 8]).is_ok() {
            return start.elapsed();
        }
        assert!(start.elapsed() < Duration::from_secs(10), "no packet gets through");
    }
}

/// What the agent takes in clusters of several sizes.
fn memory(agent: &Path) {
    let mut table = Table::default();
    for (nodes, services, backend) in
        [(2, 0, "host-gw"), (1000, 0, "host-gw"), (1000, 10_000, "host-gw"), (1000, 0, "vxlan")]
    {
        let machine = Machine::new(1, agent);
        machine.add_uplink();
        (1..=nodes).for_each(|number| machine.hear_of(node(number, false)));
        machine.fill_with_services(services);
        let agent = machine.start(&["--backend", backend]);
        machine.await_route(nodes);
        eventually("at rest", || {
            let before = agent.cpu();
            std::thread::sleep(SETTLED);
            agent.cpu() - before < Duration::from_millis(200)
        });
        let (now, peak) = agent.memory();
        let what = format!("{nodes} Nodes, {services} Services, {backend}");
        table.at_most(format!("{what}: resident memory"), now, 15.0, "MB");
        table.note(format!("{what}: at its highest"), format!("{peak:.1} MB"));
        table.note(format!("{what}: questions for Services"), machine.questions_for_services().to_string());
    }
    table.print();
}
