//! What the way between two nodes' pods costs: throughput and latency through Weft's own routes and through its tunnel,
//! beside the bare link between the nodes; and the time from a new Node to the first packet to its pods. Two nodes and
//! two pods are network namespaces; plans are the agent's own, applied as it does. Needs root and iperf3 (`make
//! bench-nodes`).

#![allow(clippy::unwrap_used, reason = "a benchmark stops at the first thing that goes wrong")]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;
use weft_agent::backend::Backend;
use weft_agent::kernel::Kernel;
use weft_agent::overlay::Settings;
use weft_agent::plan::{Config, plan};
use weft_netlink::netns::Namespace;
use weft_netlink::route::{Route, Veth, VethEnd};
use weft_types::{ChangeSet, Node, Object, Snapshot};

/// How long each throughput is measured, in seconds, and how many round trips each latency is the median of.
const SECONDS: &str = "4";
const TRIPS: usize = 20_000;
/// How many times each thing is measured; the best counts, as other load only ever takes away.
const ROUNDS: usize = 3;

/// A node, its one pod, and the agent's hand on its kernel.
struct Machine {
    node: Namespace,
    pod: Namespace,
    kernel: Kernel,
    number: u8,
}

fn sh(namespace: &Namespace, line: &str) {
    let output = namespace.run(|| Command::new("sh").args(["-ec", line]).output()).unwrap().unwrap();
    assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
}

fn cable(one: (&Namespace, &str), other: (&Namespace, &str)) {
    let end = |name: &str| VethEnd { name: name.into(), mac: None, mtu: None };
    let veth = Veth { near: end(one.1), near_group: 0, near_up: true, master: None, far: end(other.1) };
    one.0.run(Route::open).unwrap().unwrap().add_veth(&veth, other.0.as_fd()).unwrap();
    sh(other.0, &format!("ip link set {} up", other.1));
}

impl Machine {
    fn new(number: u8) -> Machine {
        let [node, pod] = [(); 2].map(|()| Namespace::temporary().unwrap());
        cable((&node, "pod"), (&pod, "eth0"));
        sh(&node, &format!("sysctl -qw net.ipv4.ip_forward=1; ip addr add 10.244.{number}.1/24 dev pod"));
        sh(
            &pod,
            &format!("ip addr add 10.244.{number}.2/24 dev eth0; ip route add default via 10.244.{number}.1"),
        );
        let kernel = node.run(Kernel::open).unwrap().unwrap();
        Machine { node, pod, kernel, number }
    }

    fn object(number: u8) -> Node {
        Node {
            name: format!("node{number}"),
            pod_cidrs: vec![format!("10.244.{number}.0/24").parse().unwrap()],
            addresses: vec![format!("172.30.0.1{number}").parse().unwrap()],
            ..Node::default()
        }
    }

    /// Does what the agent does when these are the Nodes. Gives the pods' MTU.
    fn bring_about(&mut self, backend: Backend, nodes: &[u8]) -> u32 {
        let mut snapshot = Snapshot::default();
        for &number in nodes {
            snapshot.apply(Object::Node(Machine::object(number)), &mut ChangeSet::default());
        }
        let own = Machine::object(self.number);
        let uplink = self.kernel.uplink(&own.addresses).unwrap();
        let plan = plan(&snapshot, &own.name, &config(backend), &uplink).unwrap();
        let errors = self.kernel.apply_routes(&plan);
        assert!(errors.is_empty(), "{errors:?}");
        plan.bridge_mtu().unwrap_or(1500)
    }
}

fn config(backend: Backend) -> Config {
    Config {
        cluster_cidrs: vec!["10.244.0.0/16".parse().unwrap()],
        network_name: "weft".parse().unwrap(),
        bridge: "cni0".parse().unwrap(),
        data_dir: "/var/lib/cni/networks".into(),
        boot: None,
        mtu: None,
        backend,
        vxlan: Settings { vni: 1, port: 8472 },
        service_cidrs: Vec::new(),
    }
}

/// Ends a server when the measurement is over.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// TCP throughput to an address, in Gbit/s.
fn throughput(from: &Namespace, to: &Namespace, address: &str) -> f64 {
    let mut server = Command::new("iperf3");
    server.args(["--server", "--bind", address]).stdout(Stdio::null()).stderr(Stdio::null());
    let _server =
        Server(to.run(|| server.spawn()).unwrap().expect("iperf3 (Debian: apt-get install iperf3)"));
    let deadline = Instant::now() + Duration::from_secs(10);
    let control: SocketAddr = format!("{address}:5201").parse().unwrap();
    while from.run(|| TcpStream::connect(control)).unwrap().is_err() {
        assert!(Instant::now() < deadline, "iperf3 does not listen on {control}");
        thread::sleep(Duration::from_millis(20));
    }
    let mut client = Command::new("iperf3");
    client.args(["--client", address, "--time", SECONDS, "--json"]);
    loop {
        let output = from.run(|| client.output()).unwrap().unwrap();
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        // It takes one client at a time, and the look above was one.
        match report["end"]["sum_received"]["bits_per_second"].as_f64() {
            Some(bits) => return bits / 1e9,
            None => assert!(Instant::now() < deadline, "{report}"),
        }
    }
}

/// The median time of a round trip of one byte over a TCP connection, in microseconds.
fn latency(from: &Namespace, to: &Namespace, address: &str) -> f64 {
    let listener = to.run(|| TcpListener::bind((address, 0))).unwrap().unwrap();
    let address = listener.local_addr().unwrap();
    let echo = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.set_nodelay(true).unwrap();
        let mut byte = [0];
        while stream.read_exact(&mut byte).is_ok() {
            stream.write_all(&byte).unwrap();
        }
    });
    let mut stream = from.run(|| TcpStream::connect(address)).unwrap().unwrap();
    stream.set_nodelay(true).unwrap();
    let mut trip = || {
        let start = Instant::now();
        stream.write_all(&[1]).unwrap();
        stream.read_exact(&mut [0]).unwrap();
        start.elapsed()
    };
    let mut trips: Vec<Duration> = (0..TRIPS).map(|_| trip()).collect();
    drop(stream);
    echo.join().unwrap();
    trips.sort_unstable();
    trips[TRIPS / 2].as_secs_f64() * 1e6
}

/// From the moment at which the other Node is known to a datagram's arrival at its pod.
fn first_packet(backend: Backend, one: &mut Machine, other: &mut Machine) -> Duration {
    one.bring_about(backend, &[one.number]);
    other.bring_about(backend, &[1, 2]);
    let receiver = other.pod.run(|| UdpSocket::bind("10.244.2.2:7")).unwrap().unwrap();
    receiver.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
    let sender = one.pod.run(|| UdpSocket::bind("10.244.1.2:0")).unwrap().unwrap();
    let start = Instant::now();
    one.bring_about(backend, &[1, 2]);
    loop {
        // Unreachable before the route is there.
        let _ = sender.send_to(b"first", "10.244.2.2:7");
        if receiver.recv_from(&mut [0; 8]).is_ok() {
            return start.elapsed();
        }
        assert!(start.elapsed() < Duration::from_secs(10), "no packet gets through");
    }
}

fn best(of: impl Fn() -> f64, is_better: fn(f64, f64) -> f64) -> f64 {
    (0..ROUNDS).map(|_| of()).reduce(is_better).unwrap()
}

fn main() {
    let (mut one, mut other) = (Machine::new(1), Machine::new(2));
    cable((&one.node, "uplink"), (&other.node, "uplink"));
    for machine in [&one, &other] {
        sh(
            &machine.node,
            &format!("ip link set lo up; ip addr add 172.30.0.1{}/24 dev uplink", machine.number),
        );
    }
    let bare_gbit = best(|| throughput(&one.node, &other.node, "172.30.0.12"), f64::max);
    let bare_trip = best(|| latency(&one.node, &other.node, "172.30.0.12"), f64::min);
    println!(
        "{:<28} {:>6} {:>10} {:>8} {:>12} {:>8}",
        "way", "MTU", "Gbit/s", "of bare", "round trip", "of bare"
    );
    println!(
        "{:<28} {:>6} {bare_gbit:>10.2} {:>8} {bare_trip:>9.1} us {:>8}",
        "node to node, bare link", 1500, "1.00", "1.00"
    );
    for (name, backend) in [("pod to pod, host-gw", Backend::HostGw), ("pod to pod, VXLAN", Backend::Vxlan)] {
        let first = first_packet(backend, &mut one, &mut other);
        let mtu = one.bring_about(backend, &[1, 2]);
        for machine in [&one, &other] {
            sh(&machine.node, &format!("ip link set pod mtu {mtu}"));
            sh(&machine.pod, &format!("ip link set eth0 mtu {mtu}"));
        }
        let gbit = best(|| throughput(&one.pod, &other.pod, "10.244.2.2"), f64::max);
        let trip = best(|| latency(&one.pod, &other.pod, "10.244.2.2"), f64::min);
        println!(
            "{name:<28} {mtu:>6} {gbit:>10.2} {:>8.2} {trip:>9.1} us {:>8.2}   first packet {:.1} ms after the Node",
            gbit / bare_gbit,
            trip / bare_trip,
            first.as_secs_f64() * 1e3,
        );
    }
}
