//! One endpoint of a UDP Service changes on a node that tracks very many flows: how long a client that goes
//! on sending is stuck, and what it costs the daemon.

use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use weft_bench::process::Daemon;
use weft_bench::table::thousands;
use weft_netlink::netns::Namespace;
use weft_testkit::api_server::FakeApiServer;

use crate::report::Report;

const FLOWS: usize = 240_000;
/// How many of them one address and port can have.
const PORTS: usize = 60_000;
const CLUSTER_IP: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 10);
const PODS: [Ipv4Addr; 2] = [Ipv4Addr::new(10, 244, 1, 2), Ipv4Addr::new(10, 244, 1, 3)];
const PORT: u16 = 53;
const SERVICES: &str = "/api/v1/services";
const SLICES: &str = "/apis/discovery.k8s.io/v1/endpointslices";
const PATIENCE: Duration = Duration::from_secs(60);

/// Where the flows go.
#[derive(Clone, Copy, PartialEq, Eq)]
enum To {
    /// To whatever.
    Elsewhere,
    /// To the Service itself: half of them become stale.
    Service,
}

pub(crate) fn measure(program: &Path, report: &mut Report) {
    let flows = thousands(FLOWS);
    let (stuck, taken, cpu) = run(program, To::Elsewhere);
    let what = format!("{flows} UDP flows, an endpoint changes");
    report.at_most(format!("{what}: its client is stuck for"), stuck.as_secs_f64(), 0.5, "s");
    report.at_most(format!("{what}: memory more at its highest"), taken, 4.0, "MB");
    report.note(format!("{what}: processor time"), format!("{:.2} s", cpu.as_secs_f64()));
    let (stuck, taken, cpu) = run(program, To::Service);
    let what = format!("{flows} UDP flows of the Service, half of them stale");
    report.at_most(format!("{what}: one client is stuck for"), stuck.as_secs_f64(), 2.0, "s");
    report.at_most(format!("{what}: memory more at its highest"), taken, 4.0, "MB");
    report.note(format!("{what}: processor time"), format!("{:.2} s", cpu.as_secs_f64()));
}

fn run(program: &Path, to: To) -> (Duration, f64, Duration) {
    let machine = Namespace::temporary().unwrap();
    let server = machine.run(prepare).unwrap();
    server.put(SERVICES, service());
    server.put(SLICES, slice(&PODS[..1]));
    let log = tempfile::NamedTempFile::new().unwrap();
    let mut command = Command::new(program);
    command.arg("--kubeconfig").arg(server.kubeconfig()).args(["--hostname-override", "node1"]);
    command.env_remove("RUST_LOG").stderr(File::create(log.path()).unwrap());
    let daemon = Daemon(machine.run(|| command.spawn()).unwrap().unwrap());
    let start = Instant::now();
    while !fs::read_to_string(log.path()).unwrap().contains("in step with the cluster") {
        assert!(start.elapsed() < PATIENCE, "the daemon does not come up");
        thread::sleep(Duration::from_millis(1));
    }
    let client = machine.run(|| UdpSocket::bind("127.0.0.1:0")).unwrap().unwrap();
    client.set_read_timeout(Some(Duration::from_millis(2))).unwrap();
    until_answered_by(&client, 0);
    if to == To::Service {
        server.put(SLICES, slice(&PODS));
        thread::sleep(Duration::from_millis(200));
    }
    machine.run(|| send(to)).unwrap();
    // Its highest memory counts from now on.
    let process = Path::new("/proc").join(daemon.0.id().to_string());
    fs::write(process.join("clear_refs"), "5").unwrap();
    let ((before, _), cpu) = (daemon.memory(), daemon.cpu());
    let start = Instant::now();
    server.put(SLICES, slice(&PODS[1..]));
    until_answered_by(&client, 1);
    let stuck = start.elapsed();
    thread::sleep(Duration::from_secs(1));
    (stuck, daemon.memory().1 - before, daemon.cpu() - cpu)
}

/// A machine that reaches itself at the pods' addresses.
fn prepare() -> FakeApiServer {
    ip("link set lo up");
    PODS.iter().for_each(|pod| ip(&format!("address add {pod}/32 dev lo")));
    ip("route add 10.0.0.0/8 dev lo");
    // Sockets without a name of their own take one of these.
    fs::write("/proc/sys/net/ipv4/ip_local_port_range", "1024 65535").unwrap();
    for (number, pod) in PODS.iter().enumerate() {
        let socket = UdpSocket::bind((*pod, PORT)).unwrap();
        thread::spawn(move || {
            let mut buffer = [0; 8];
            while let Ok((_, client)) = socket.recv_from(&mut buffer) {
                // Those who only make a flow are gone.
                let _ = socket.send_to(&[number as u8], client);
            }
        });
    }
    FakeApiServer::start()
}

/// Makes the kernel track all the flows.
fn send(to: To) {
    let setting = |name: &str| format!("/proc/sys/net/netfilter/nf_conntrack_{name}");
    fs::write(setting("udp_timeout"), "600").unwrap();
    match to {
        To::Elsewhere => {
            let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
            for flow in 0..FLOWS {
                let address = Ipv4Addr::new(10, 1, 1, (flow / PORTS) as u8);
                socket.send_to(b"?", (address, (flow % PORTS) as u16 + 1)).unwrap();
            }
        }
        To::Service => {
            for flow in 0..FLOWS {
                let address = Ipv4Addr::new(127, 0, 1, (flow / PORTS) as u8);
                let socket = UdpSocket::bind((address, (flow % PORTS) as u16 + 1024)).unwrap();
                socket.send_to(b"?", (CLUSTER_IP, PORT)).unwrap();
            }
        }
    }
    let count: usize = fs::read_to_string(setting("count")).unwrap().trim().parse().unwrap();
    assert!(count >= FLOWS * 99 / 100, "{count} flows are tracked; raise net.netfilter.nf_conntrack_max");
}

/// Sends from one socket until that pod answers.
fn until_answered_by(client: &UdpSocket, pod: u8) {
    let (start, mut buffer) = (Instant::now(), [0]);
    let to: SocketAddr = (CLUSTER_IP, PORT).into();
    loop {
        // A refusal is as good as silence.
        let _ = client.send_to(b"?", to);
        if client.recv_from(&mut buffer).is_ok() && buffer[0] == pod {
            return;
        }
        assert!(start.elapsed() < PATIENCE, "no answer from pod {pod}");
    }
}

fn service() -> Value {
    json!({
        "metadata": {"name": "dns", "namespace": "shop"},
        "spec": {
            "clusterIP": CLUSTER_IP, "clusterIPs": [CLUSTER_IP],
            "ports": [{"port": PORT, "protocol": "UDP"}],
        },
    })
}

fn slice(pods: &[Ipv4Addr]) -> Value {
    let endpoints: Vec<_> = pods.iter().map(|pod| json!({"addresses": [pod]})).collect();
    json!({
        "metadata": {"name": "dns-1", "namespace": "shop", "labels": {"kubernetes.io/service-name": "dns"}},
        "addressType": "IPv4",
        "ports": [{"name": "", "port": PORT, "protocol": "UDP"}],
        "endpoints": endpoints,
    })
}

/// Runs `ip` in the calling thread's namespace.
fn ip(arguments: &str) {
    let output = Command::new("ip").args(arguments.split(' ')).output().unwrap();
    assert!(output.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&output.stderr));
}
