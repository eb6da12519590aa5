//! What policies cost the packets: new connections and throughput between two pods of the node, side by side
//! on nodes that differ in nothing but their rules.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::thread::{self, available_parallelism};
use std::time::{Duration, Instant};

use nix::sched::{CpuSet, sched_setaffinity};
use nix::sys::socket::{setsockopt, sockopt};
use nix::unistd::Pid;
use weft_bench::table::Table;
use weft_netlink::netns::Namespace;
use weft_policy::plan::{Direction, Packet, Planner, Verdict};
use weft_testkit::namespace::sh;
use weft_types::{Family, Protocol};

/// Rounds, each of so many connections or of so long a stream on every node: short ones, so that what
/// disturbs a round is in few.
const ROUNDS: usize = 201;
const CONNECTIONS: usize = 100;
const STREAMS: usize = 61;
const STREAM: Duration = Duration::from_millis(150);
/// What is written at a time.
const CHUNK: usize = 128 * 1024;

/// Two pods of the node, and a port at which the second one's policies let the first one in.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pair {
    client: IpAddr,
    server: IpAddr,
    port: u16,
}

impl Pair {
    /// The policies of both have something to say, where there are such pods.
    pub(crate) fn find(planner: &Planner) -> Pair {
        let endpoints = &planner.plan().family(Family::V4).endpoints;
        let isolated = |address: &IpAddr, direction| endpoints[address].side(direction).is_some();
        let is_allowed = |pair: &Pair| {
            let port = Some((Protocol::Tcp, pair.port));
            let packet = Packet { source: pair.client, destination: pair.server, port };
            planner.plan().verdict(&packet) == Verdict::Accept
        };
        let pairs =
            endpoints.keys().flat_map(|client| endpoints.keys().map(move |server| (*client, *server)));
        let pairs = pairs.filter(|(client, server)| client != server && isolated(server, Direction::Ingress));
        let pairs =
            pairs.flat_map(|(client, server)| (8080..8090).map(move |port| Pair { client, server, port }));
        let mut allowed: Vec<Pair> = pairs.filter(is_allowed).collect();
        allowed.sort_by_key(|pair| !isolated(&pair.client, Direction::Egress));
        *allowed.first().expect("no pod of the node may reach another one")
    }
}

/// A node with both pods.
pub(crate) struct World {
    pub(crate) name: String,
    pub(crate) node: Namespace,
    client: Namespace,
    _server: Namespace,
    to: SocketAddr,
}

impl World {
    /// Without rules, but that connections are tracked, as on every node with Services.
    pub(crate) fn new(name: &str, pair: Pair) -> World {
        let node = Namespace::temporary().unwrap();
        sh(
            &node,
            "nft 'add table inet services { chain tracked { type filter hook prerouting priority 0; ct state new accept; }; }'",
        );
        let [client, server] = [("client", pair.client), ("server", pair.server)].map(|(name, address)| {
            let pod = Namespace::temporary().unwrap();
            let path = pod.path().display();
            sh(&node, &format!(
                "ip link add {name} type veth peer name eth0 netns {path} && ip address add 169.254.1.1/32 dev {name} && \
                 ip link set {name} up && ip route add {address}/32 dev {name} && echo 1 >/proc/sys/net/ipv4/ip_forward"
            ));
            sh(&pod, &format!(
                "ip address add {address}/32 dev eth0 && ip link set eth0 up && ip route add 169.254.1.1 dev eth0 && \
                 ip route add default via 169.254.1.1"
            ));
            pod
        });
        let to = SocketAddr::new(pair.server, pair.port);
        serve(server.run(|| TcpListener::bind(to)).unwrap().unwrap());
        World { name: name.to_owned(), node, client, _server: server, to }
    }

    /// New connections per second, one after the other. Each ends by a reset, which leaves no port in
    /// TIME_WAIT.
    fn connections(&self) -> f64 {
        let work = || {
            let start = Instant::now();
            for _ in 0..CONNECTIONS {
                let stream = TcpStream::connect_timeout(&self.to, Duration::from_secs(5)).unwrap();
                setsockopt(&stream, sockopt::Linger, &nix::libc::linger { l_onoff: 1, l_linger: 0 }).unwrap();
            }
            CONNECTIONS as f64 / start.elapsed().as_secs_f64()
        };
        self.client.run(work).unwrap()
    }

    /// Bytes a second that the server gets.
    fn throughput(&self) -> f64 {
        let mut stream = self.client.run(|| TcpStream::connect(self.to)).unwrap().unwrap();
        let (chunk, start) = (vec![1; CHUNK], Instant::now());
        while start.elapsed() < STREAM {
            stream.write_all(&chunk).unwrap();
        }
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let mut received = [0; 8];
        stream.read_exact(&mut received).unwrap();
        u64::from_ne_bytes(received) as f64 / start.elapsed().as_secs_f64()
    }
}

/// Reads what comes on each connection, and says at its end how much that was.
fn serve(listener: TcpListener) {
    thread::spawn(move || {
        pin(1);
        let mut buffer = vec![0; CHUNK];
        for stream in listener.incoming() {
            let (mut stream, mut received) = (stream.unwrap(), 0u64);
            // A connection that is only opened ends by a reset.
            while let Ok(length) = stream.read(&mut buffer) {
                if length == 0 {
                    let _ = stream.write_all(&received.to_ne_bytes());
                    break;
                }
                received += length as u64;
            }
        }
    });
}

/// Keeps the calling thread on one processor, where there are several.
fn pin(processor: usize) {
    let mut set = CpuSet::new();
    set.set(processor % available_parallelism().unwrap()).unwrap();
    sched_setaffinity(Pid::from_raw(0), &set).unwrap();
}

/// All nodes in turns, of which the first one has no policies and the second one Weft's.
pub(crate) fn measure(worlds: &[World], table: &mut Table) {
    let all = thread::scope(|scope| {
        let turns = scope.spawn(|| {
            pin(0);
            [rounds(worlds, ROUNDS, World::connections), rounds(worlds, STREAMS, World::throughput)]
        });
        turns.join().unwrap()
    });
    let [connections, streams] = &all;
    let rates = connections.iter().map(|rates| format!("{:.0}", quarter(rates.clone(), 2)));
    table.note(
        "new connections a second: without policies, with Weft's, with the others'",
        rates.collect::<Vec<_>>().join(", "),
    );
    row("new connections, of the same without policies", connections, 0.95, table);
    let rates = streams.iter().map(|rates| format!("{:.1}", quarter(rates.clone(), 2) * 8.0 / 1e9));
    table.note(
        "throughput in Gbit/s: without policies, with Weft's, with the others'",
        rates.collect::<Vec<_>>().join(", "),
    );
    row("throughput, of the same without policies", streams, 0.98, table);
    for (world, of_world) in worlds.iter().zip(connections).skip(2) {
        let share = quarter(ratios(&connections[0], of_world), 2);
        table.note(
            format!("{}: new connections, of the same without policies", world.name),
            format!("{share:.2}"),
        );
    }
}

fn row(what: &str, values: &[Vec<f64>], bar: f64, table: &mut Table) {
    let shares = ratios(&values[0], &values[1]);
    table.at_least(format!("{what}, median of {} rounds", shares.len()), quarter(shares.clone(), 2), bar, "");
    let best = |values: &Vec<f64>| quantile(values.clone(), 0.95);
    table.note(
        format!("{what}, the best rounds of each"),
        format!("{:.2}", best(&values[1]) / best(&values[0])),
    );
    let [low, high] = [1, 3].map(|quarters| quarter(shares.clone(), quarters));
    table.note(format!("{what}, the middle half of the rounds"), format!("{low:.2} to {high:.2}"));
}

/// The values of each world, round by round. Who is first changes, so that nobody has the better place.
fn rounds(worlds: &[World], count: usize, measure: fn(&World) -> f64) -> Vec<Vec<f64>> {
    let mut values = vec![Vec::new(); worlds.len()];
    for world in worlds {
        measure(world);
    }
    for round in 0..count {
        for turn in 0..worlds.len() {
            let place = (round + turn) % worlds.len();
            values[place].push(measure(&worlds[place]));
        }
    }
    values
}

fn ratios(of: &[f64], values: &[f64]) -> Vec<f64> {
    values.iter().zip(of).map(|(value, of)| value / of).collect()
}

/// The value below which so many quarters of the values lie.
fn quarter(values: Vec<f64>, quarters: usize) -> f64 {
    quantile(values, quarters as f64 / 4.0)
}

fn quantile(mut values: Vec<f64>, share: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    values[((values.len() - 1) as f64 * share) as usize]
}
