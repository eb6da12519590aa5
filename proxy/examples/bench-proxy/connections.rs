//! New connections per second from a pod to a pod on the same node, through a ClusterIP among many and
//! direct, in turns: by packets, and by sockets that are led (`--ebpf`).

use std::io::Read;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::thread::available_parallelism;
use std::time::{Duration, Instant};

use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;
use weft_netlink::netns::Namespace;
use weft_proxy::config::{Config, Ebpf, EbpfScope};
use weft_proxy::services::planner::everything;
use weft_proxy::sync::Sync;

use crate::loads::config;
use crate::report::Report;
use weft_bench::cluster::{PORT, Size, TARGET, cluster_ip, set_endpoints};
use weft_bench::process::on_processor;
use weft_bench::table::thousands;
use weft_testkit::cgroup::{Bpffs, ControlGroup};

/// Rounds, each of so many connections both ways: short ones, so that what disturbs a round is in few of
/// them.
const ROUNDS: usize = 301;
const CONNECTIONS: usize = 200;
/// The two pods, and their routers on the node.
const PODS: [(&str, &str, &str); 2] =
    [("client", "10.130.1.2", "10.130.1.1"), ("server", "10.130.2.2", "10.130.2.1")];

pub(crate) fn measure(services: usize, report: &mut Report) {
    let what = format!("connections per second among {} Services", thousands(services));
    let rounds = rounds(services, config(), |work| work());
    report.note(
        format!("new {what}: direct, through a ClusterIP"),
        format!("{:.0}, {:.0}", quarter(&rounds, 2, |it| it.0.rate), quarter(&rounds, 2, |it| it.1.rate)),
    );
    let ratio = |it: &Round| it.1.rate / it.0.rate;
    let median = quarter(&rounds, 2, ratio);
    report.at_least(format!("new {what}: ratio, median of {ROUNDS} rounds"), median, 0.97, "");
    report.note(
        format!("new {what}: ratio, the middle half of the rounds"),
        format!("{:.2} to {:.2}", quarter(&rounds, 1, ratio), quarter(&rounds, 3, ratio)),
    );
    measure_sockets(services, &what, report);
}

/// The same with programs that lead the client's sockets.
fn measure_sockets(services: usize, what: &str, report: &mut Report) {
    let (group, bpffs) = (ControlGroup::new(), Bpffs::mount());
    let ebpf = Ebpf {
        scope: Some(EbpfScope::All),
        cgroup: Some(group.path().to_owned()),
        bpffs: Some(bpffs.path().to_owned()),
        ..Ebpf::default()
    };
    let rounds = rounds(services, Config { ebpf, ..config() }, |work| group.run(work));
    let ratio = |it: &Round| it.1.rate / it.0.rate;
    let cost = |it: &Round| it.1.processor / it.0.processor;
    let median = quarter(&rounds, 2, ratio);
    report.at_least(format!("new {what}, --ebpf: ratio, median of {ROUNDS} rounds"), median, 0.99, "");
    report.note(
        format!("new {what}, --ebpf: ratio, the middle half of the rounds"),
        format!("{:.2} to {:.2}", quarter(&rounds, 1, ratio), quarter(&rounds, 3, ratio)),
    );
    let name =
        format!("processor time of a connection among {} Services, --ebpf: ratio", thousands(services));
    report.at_most(name, quarter(&rounds, 2, cost), 1.03, "");
}

/// What connections were like, direct and through a ClusterIP.
type Round = (Sample, Sample);

/// How many connections there were in a second, and how many seconds of processor time each took, of client
/// and server.
#[derive(Clone, Copy, Debug)]
struct Sample {
    rate: f64,
    processor: f64,
}

/// The rounds of one cluster, with the client on a thread that is started so.
fn rounds(
    services: usize,
    config: Config,
    start: impl FnOnce(&mut (dyn FnMut() -> Vec<Round> + Send)) -> Vec<Round>,
) -> Vec<Round> {
    let (node, pods) = world();
    let sync = load(&node, services, config);
    let direct = SocketAddr::new(PODS[1].1.parse().unwrap(), TARGET);
    let through = SocketAddr::new(cluster_ip(services / 2).into(), PORT);
    serve(&pods[1], direct);
    let mut work = || {
        pin(0);
        // Who is first changes, so that neither has the better place.
        let round = |number: usize| match number % 2 {
            0 => (sample(direct), sample(through)),
            _ => {
                let through = sample(through);
                (sample(direct), through)
            }
        };
        let rounds = || {
            sample(direct);
            sample(through);
            (0..ROUNDS).map(round).collect()
        };
        pods[0].run(rounds).unwrap()
    };
    let rounds = start(&mut work);
    drop(sync);
    rounds
}

fn quarter(rounds: &[Round], quarters: usize, value: impl Fn(&Round) -> f64) -> f64 {
    let mut values: Vec<f64> = rounds.iter().map(value).collect();
    values.sort_by(f64::total_cmp);
    values[values.len() * quarters / 4]
}

/// A node and two pods behind it.
fn world() -> (Namespace, [Namespace; 2]) {
    let node = Namespace::temporary().unwrap();
    let pods = PODS.map(|(name, address, router)| {
        let pod = Namespace::temporary().unwrap();
        node.run(|| {
            ip(&format!("link add {name} type veth peer name eth0 netns {}", pod.path().display()));
            ip(&format!("address add {router}/24 dev {name}"));
            ip(&format!("link set {name} up"));
            std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").unwrap();
        })
        .unwrap();
        pod.run(|| {
            ip(&format!("address add {address}/24 dev eth0"));
            ip("link set eth0 up");
            ip(&format!("route add default via {router}"));
        })
        .unwrap();
        pod
    });
    (node, pods)
}

/// All Services; that in the middle leads to the server alone.
fn load(node: &Namespace, services: usize, config: Config) -> Sync {
    let mut snapshot = Size { services, endpoints: 2 }.snapshot();
    set_endpoints(&mut snapshot, services / 2, &[PODS[1].1.parse().unwrap()]);
    let run = || {
        let mut sync = Sync::open(config.clone()).unwrap();
        sync.apply(&snapshot, &everything(&snapshot)).unwrap();
        sync
    };
    node.run(run).unwrap()
}

/// Accepts, and waits for the client to end the connection.
fn serve(pod: &Namespace, address: SocketAddr) {
    let listener = pod.run(|| TcpListener::bind(address).unwrap()).unwrap();
    std::thread::spawn(move || {
        pin(1);
        for stream in listener.incoming() {
            // The client ends it by a reset.
            let _ = stream.unwrap().read(&mut [0]);
        }
    });
}

/// Keeps the calling thread on one processor, where there are several.
fn pin(processor: usize) {
    let mut set = CpuSet::new();
    set.set(processor % available_parallelism().unwrap()).unwrap();
    sched_setaffinity(Pid::from_raw(0), &set).unwrap();
}

/// Connections one after the other. Each ends by a reset, which leaves no port in TIME_WAIT.
fn sample(to: SocketAddr) -> Sample {
    let (before, start) = (on_processor_of_all(), Instant::now());
    for _ in 0..CONNECTIONS {
        let stream = TcpStream::connect_timeout(&to, Duration::from_secs(5)).unwrap();
        nix::sys::socket::setsockopt(
            &stream,
            nix::sys::socket::sockopt::Linger,
            &nix::libc::linger { l_onoff: 1, l_linger: 0 },
        )
        .unwrap();
    }
    let connections = CONNECTIONS as f64;
    let rate = connections / start.elapsed().as_secs_f64();
    Sample { rate, processor: (on_processor_of_all() - before).as_secs_f64() / connections }
}

/// The processor time of all threads of this process so far: those of client and server are what runs.
fn on_processor_of_all() -> Duration {
    let threads = std::fs::read_dir("/proc/self/task").unwrap();
    threads.map(|thread| on_processor(&thread.unwrap().path())).sum()
}

/// Runs `ip` in the calling thread's namespace.
fn ip(arguments: &str) {
    let output = Command::new("ip").args(arguments.split(' ')).output().unwrap();
    assert!(output.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&output.stderr));
}
