//! What it costs to look at flows: processor time and memory of the agent while ten thousand connections begin
//! and end each second; while nobody asks, while somebody does, and while what he reads is told to him.

use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, TcpStream, UdpSocket};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use weft_bench::process::Daemon;
use weft_bench::table::Table;
use weft_netlink::conntrack::{ConntrackClient, Event, Group, Monitor};
use weft_netlink::notifications::Source;
use weft_testkit::namespace::sh;
use weft_types::well_known::access::HEADER;

use crate::machine::{Machine, node};

/// How many connections begin each second, and end.
const RATE: usize = 10_000;
/// How many of them begin at once.
const BURST: usize = 50;
/// For how long each cost is measured, and how long the load runs before that.
const SECONDS: Duration = Duration::from_secs(12);
const SETTLED: Duration = Duration::from_secs(3);
const PORT: u16 = 10251;
/// A token that the API server here takes.
const READER: &str = "system:serviceaccount:kube-system:weft-reader@agent.weft.internal";

pub(crate) fn measure(agent: &Path) {
    let machine = Machine::new(1, agent);
    machine.add_uplink();
    sh(&machine.node, "sysctl -qw net.netfilter.nf_conntrack_acct=1");
    // Nobody answers, and nobody says so.
    sh(
        &machine.pod,
        "nft 'add table ip t; add chain ip t c { type filter hook input priority 0; policy drop; }'",
    );
    machine.hear_of(node(1, false));
    machine.hear_of(node(2, false));
    let agent =
        machine.start(&["--backend", "host-gw", "--healthz-bind-address", &format!("127.0.0.1:{PORT}")]);
    machine.await_route(2);
    let ends = Arc::new(AtomicBool::new(false));
    let loads = [load(&machine, ends.clone()), unload(&machine, ends.clone())];
    let mut table = Table::default();
    settle();
    let off = cost(&agent);
    let (off_memory, _) = agent.memory();
    ask(&machine, "wait=0");
    settle();
    ask(&machine, "wait=0");
    let seen = events(&machine);
    let on = cost(&agent);
    let rate = (events(&machine) - seen) as f64 / SECONDS.as_secs_f64();
    let (on_memory, _) = agent.memory();
    let reading = AtomicBool::new(true);
    let (told, told_memory, (bytes, lost)) = thread::scope(|scope| {
        let reader = scope.spawn(|| read(&machine, &reading));
        settle();
        let told = cost(&agent);
        let (told_memory, _) = agent.memory();
        reading.store(false, Ordering::Relaxed);
        (told, told_memory, reader.join().unwrap())
    });
    ends.store(true, Ordering::Relaxed);
    loads.into_iter().for_each(|load| load.join().unwrap());
    table.note("events a second", format!("{rate:.0}"));
    table.note("lost by the kernel, times", figure(&machine, "weft_agent_flow_overruns_total").to_string());
    table.note("nobody asks: of a processor", format!("{off:.2} %"));
    table.at_most("flows are looked at: of a processor", on, 3.0, "%");
    table.note("one reader is told all: of a processor", format!("{told:.2} %"));
    table.note("that reader got, and missed", format!("{:.1} MB, {lost} events", bytes as f64 / 1e6));
    table.note("nobody asks: resident memory", format!("{off_memory:.1} MB"));
    table.at_most("flows are looked at: more memory", on_memory - off_memory, 8.0, "MB");
    table.note("one reader is told all: more memory", format!("{:.1} MB", told_memory - off_memory));
    table.print();
}

fn settle() {
    thread::sleep(SETTLED);
}

/// Of a processor, in percent.
fn cost(agent: &Daemon) -> f64 {
    let (before, start) = (agent.cpu(), Instant::now());
    thread::sleep(SECONDS);
    (agent.cpu() - before).as_secs_f64() / start.elapsed().as_secs_f64() * 100.0
}

/// Connections that begin, evenly.
fn load(machine: &Machine, ends: Arc<AtomicBool>) -> thread::JoinHandle<()> {
    let IpAddr::V4(to) = machine.pod_address(false) else { unreachable!("it was asked for IPv4") };
    let sockets: Vec<UdpSocket> = (0..8)
        .map(|_| machine.node.run(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))).unwrap().unwrap())
        .collect();
    thread::spawn(move || {
        let (start, mut sent) = (Instant::now(), 0_usize);
        while !ends.load(Ordering::Relaxed) {
            for _ in 0..BURST {
                let port = 1024 + (sent / sockets.len() % 60_000) as u16;
                // What the kernel cannot take is not counted there either.
                let _ = sockets[sent % sockets.len()].send_to(b"?", (to, port));
                sent += 1;
            }
            let due = start + Duration::from_secs_f64(sent as f64 / RATE as f64);
            thread::sleep(due.saturating_duration_since(Instant::now()));
        }
    })
}

/// Ends each connection once it has begun.
fn unload(machine: &Machine, ends: Arc<AtomicBool>) -> thread::JoinHandle<()> {
    let open = || {
        let mut monitor = Monitor::open(&[Group::New]).unwrap();
        monitor.set_receive_buffer(8 << 20).unwrap();
        (monitor, ConntrackClient::open().unwrap())
    };
    let (mut monitor, mut client) = machine.node.run(open).unwrap();
    thread::spawn(move || {
        while !ends.load(Ordering::Relaxed) {
            let begun = monitor.read().unwrap_or_default().into_iter();
            let flows: Vec<_> = begun
                .filter_map(|event| match event {
                    Event::New(flow) if flow.protocol == 17 => Some(flow),
                    _ => None,
                })
                .collect();
            client.delete(&flows).unwrap();
            thread::sleep(Duration::from_millis(5));
        }
    })
}

/// One who is told all that happens. Gives how many bytes that was, and how many events were missed.
fn read(machine: &Machine, reading: &AtomicBool) -> (usize, u64) {
    let (mut cursor, mut bytes, mut lost, mut is_first) = (String::new(), 0, 0, true);
    while reading.load(Ordering::Relaxed) {
        let body = ask(machine, &format!("wait=1&from={cursor}"));
        let page: serde_json::Value = serde_json::from_str(&body).unwrap();
        page["cursor"].as_str().unwrap().clone_into(&mut cursor);
        bytes += body.len();
        lost += if is_first { 0 } else { page["lost"].as_u64().unwrap() };
        is_first = false;
    }
    (bytes, lost)
}

fn ask(machine: &Machine, query: &str) -> String {
    machine.node.run(|| get(&format!("/flows?{query}"))).unwrap().unwrap()
}

fn get(path: &str) -> io::Result<String> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, PORT))?;
    stream.write_all(format!("GET {path} HTTP/1.0\r\n{HEADER}: {READER}\r\n\r\n").as_bytes())?;
    let answer = io::read_to_string(stream)?;
    Ok(answer.split_once("\r\n\r\n").unwrap().1.to_owned())
}

fn events(machine: &Machine) -> u64 {
    figure(machine, "weft_agent_flow_events_total")
}

/// The sum of a counter over its labels.
fn figure(machine: &Machine, name: &str) -> u64 {
    let text = machine.node.run(|| get("/metrics")).unwrap().unwrap();
    let lines = text.lines().filter(|line| line.starts_with(name));
    lines.filter_map(|line| line.rsplit_once(' ')?.1.parse::<u64>().ok()).sum()
}
