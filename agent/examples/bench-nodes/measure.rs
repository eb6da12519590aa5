//! Throughput and latency of TCP between two namespaces.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;
use weft_bench::process::Daemon;
use weft_bench::table::median;
use weft_netlink::netns::Namespace;

/// How long each throughput is measured, in seconds, and how many round trips each latency is the median of.
const SECONDS: &str = "3";
const TRIPS: usize = 20_000;
/// How many times each thing is measured; the best counts, as other load only ever takes away.
const ROUNDS: usize = 3;

/// What is measured: from a namespace to an address of another.
pub(crate) struct Link<'a> {
    pub(crate) from: &'a Namespace,
    pub(crate) to: &'a Namespace,
    pub(crate) address: IpAddr,
}

/// TCP throughput, in Gbit/s.
pub(crate) fn throughput(Link { from, to, address }: &Link) -> f64 {
    let address = address.to_string();
    let mut server = Command::new("iperf3");
    server.args(["--server", "--bind", &address]).stdout(Stdio::null()).stderr(Stdio::null());
    let _server =
        Daemon(to.run(|| server.spawn()).unwrap().expect("iperf3 (Debian: apt-get install iperf3)"));
    let deadline = Instant::now() + Duration::from_secs(10);
    let control = SocketAddr::new(address.parse().unwrap(), 5201);
    while from.run(|| TcpStream::connect(control)).unwrap().is_err() {
        assert!(Instant::now() < deadline, "iperf3 does not listen on {control}");
        thread::sleep(Duration::from_millis(20));
    }
    let mut client = Command::new("iperf3");
    client.args(["--client", &address, "--time", SECONDS, "--json"]);
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
pub(crate) fn latency(Link { from, to, address }: &Link) -> f64 {
    let listener = to.run(|| TcpListener::bind((*address, 0))).unwrap().unwrap();
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
    median(&mut trips).as_secs_f64() * 1e6
}

pub(crate) fn best(of: impl Fn() -> f64, is_better: fn(f64, f64) -> f64) -> f64 {
    (0..ROUNDS).map(|_| of()).reduce(is_better).unwrap()
}
