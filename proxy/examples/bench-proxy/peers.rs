//! The same load in the shapes that kube-proxy 1.36 gives it, loaded by the programs that kube-proxy calls.

use std::fmt::Write as _;
use std::fs::File;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use weft_netlink::netns::Namespace;

use crate::report::{Load, Outcome, Report};
use weft_bench::cluster::{POD_NETWORK, PORT, Size, TARGET, cluster_ip, name, namespace};

/// How much longer ten times the Services may take at the very least. What would pass the limit is not begun.
const GROWTH: u32 = 10;

/// Somebody else's way to program Services.
struct Peer {
    name: &'static str,
    program: &'static str,
    arguments: &'static [&'static str],
    /// The text that its program reads.
    text: fn(Size) -> String,
}

const PEERS: [Peer; 3] = [
    Peer { name: "kube-proxy's shape, nft -f", program: "nft", arguments: &["-f", "-"], text: nftables },
    Peer {
        name: "iptables-restore (nft)",
        program: "iptables-nft-restore",
        arguments: &["--noflush"],
        text: iptables,
    },
    Peer {
        name: "iptables-restore (legacy)",
        program: "iptables-legacy-restore",
        arguments: &["--noflush"],
        text: iptables,
    },
];

pub(crate) fn measure(sizes: &[usize], limit: Duration, report: &mut Report) {
    for peer in PEERS {
        let mut last = Outcome::Took(Duration::ZERO);
        for &services in sizes {
            let size = Size { services, endpoints: 2 };
            last = match last {
                Outcome::Took(time) if time * GROWTH <= limit => load(&peer, size, limit),
                Outcome::Impossible => Outcome::Impossible,
                _ => Outcome::NotTried,
            };
            eprintln!("{}, {services} x 2: {last:?}", peer.name);
            report.loads.push(Load { contender: peer.name, services, endpoints: 2, outcome: last });
        }
    }
    if let Some(ratio) = ratio(report) {
        report.at_least("10,000 x 2: times faster than kube-proxy's shape by nft -f", ratio, 100.0, "x");
    }
}

/// How much faster Weft was at the size of the bar; at least, where the peer was stopped.
fn ratio(report: &Report) -> Option<f64> {
    let seconds = |contender: &str| {
        let load = report
            .loads
            .iter()
            .find(|load| (load.contender, load.services, load.endpoints) == (contender, 10_000, 2))?;
        match load.outcome {
            Outcome::Took(time) | Outcome::Stopped(time) => Some(time.as_secs_f64()),
            Outcome::NotTried | Outcome::Impossible => None,
        }
    };
    Some(seconds(PEERS[0].name)? / seconds("weft-proxy")?)
}

/// From the start of the program to its end, in an empty namespace.
fn load(peer: &Peer, size: Size, limit: Duration) -> Outcome {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), (peer.text)(size)).unwrap();
    let run = || {
        let input = File::open(file.path()).unwrap();
        let start = Instant::now();
        let mut command = Command::new(peer.program);
        let child =
            command.args(peer.arguments).stdin(input).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let Ok(mut child) = child else { return Outcome::Impossible };
        loop {
            match child.try_wait().unwrap() {
                Some(status) if status.success() => return Outcome::Took(start.elapsed()),
                Some(_) => return Outcome::Impossible,
                None if start.elapsed() > limit => {
                    child.kill().unwrap();
                    child.wait().unwrap();
                    return Outcome::Stopped(limit);
                }
                None => std::thread::sleep(Duration::from_millis(1)),
            }
        }
    };
    Namespace::temporary().unwrap().run(run).unwrap()
}

/// The name that kube-proxy gives what belongs to a Service: a digest, for which the number serves here.
fn chain(service: usize) -> String {
    format!("service-{service:08X}-{}/{}/tcp/http", namespace(service), name(service))
}

/// kube-proxy's nftables mode: a chain and an anonymous map for each Service, and a verdict map that leads to
/// them.
fn nftables(size: Size) -> String {
    let mut text = String::from(
        "add table ip kube-proxy\n\
         add chain ip kube-proxy mark-for-masquerade\n\
         add rule ip kube-proxy mark-for-masquerade mark set mark or 0x4000\n\
         add set ip kube-proxy cluster-ips { type ipv4_addr; }\n\
         add map ip kube-proxy service-ips { type ipv4_addr . inet_proto . inet_service : verdict; }\n\
         add chain ip kube-proxy services\n\
         add rule ip kube-proxy services ip daddr . meta l4proto . th dport vmap @service-ips\n\
         add chain ip kube-proxy nat-prerouting { type nat hook prerouting priority dstnat; }\n\
         add rule ip kube-proxy nat-prerouting jump services\n\
         add chain ip kube-proxy nat-output { type nat hook output priority -100; }\n\
         add rule ip kube-proxy nat-output jump services\n\
         add chain ip kube-proxy nat-postrouting { type nat hook postrouting priority srcnat; }\n\
         add rule ip kube-proxy nat-postrouting mark and 0x4000 != 0 masquerade fully-random\n",
    );
    for service in 0..size.services {
        let (chain, ip) = (chain(service), cluster_ip(service));
        let pods = size.endpoints_of(service);
        let backends: Vec<String> =
            pods.iter().enumerate().map(|(slot, pod)| format!("{slot} : {pod} . {TARGET}")).collect();
        let _ = write!(
            text,
            "add chain ip kube-proxy {chain}\n\
             add rule ip kube-proxy {chain} ip daddr {ip} tcp dport {PORT} ip saddr != {POD_NETWORK} jump mark-for-masquerade\n\
             add rule ip kube-proxy {chain} meta l4proto tcp dnat ip addr . port to numgen random mod {} map {{ {} }}\n\
             add element ip kube-proxy cluster-ips {{ {ip} }}\n\
             add element ip kube-proxy service-ips {{ {ip} . tcp . {PORT} : goto {chain} }}\n",
            pods.len(),
            backends.join(", "),
        );
    }
    text
}

/// kube-proxy's iptables mode: a chain for each Service and one for each endpoint.
fn iptables(size: Size) -> String {
    let mut chains = String::from("*nat\n:KUBE-SERVICES - [0:0]\n:KUBE-MARK-MASQ - [0:0]\n");
    let mut rules = String::from(
        "-A PREROUTING -j KUBE-SERVICES\n-A OUTPUT -j KUBE-SERVICES\n\
         -A KUBE-MARK-MASQ -j MARK --or-mark 0x4000\n\
         -A POSTROUTING -m mark --mark 0x4000/0x4000 -j MASQUERADE --random-fully\n",
    );
    for service in 0..size.services {
        let (ip, pods) = (cluster_ip(service), size.endpoints_of(service));
        let (chain, comment) =
            (format!("KUBE-SVC-{service:016X}"), format!("{}/{}:http", namespace(service), name(service)));
        let _ = write!(
            rules,
            "-A KUBE-SERVICES -d {ip}/32 -p tcp -m comment --comment \"{comment} cluster IP\" -m tcp --dport {PORT} -j {chain}\n\
             -A {chain} ! -s {POD_NETWORK} -d {ip}/32 -p tcp -m comment --comment \"{comment} cluster IP\" -m tcp --dport {PORT} -j KUBE-MARK-MASQ\n"
        );
        let _ = writeln!(chains, ":{chain} - [0:0]");
        for (slot, pod) in pods.iter().enumerate() {
            let endpoint = format!("KUBE-SEP-{:016X}", service * pods.len() + slot);
            let share = match pods.len() - slot {
                1 => String::new(),
                left => format!(" -m statistic --mode random --probability {:.10}", 1.0 / left as f64),
            };
            let _ = writeln!(chains, ":{endpoint} - [0:0]");
            let _ = write!(
                rules,
                "-A {chain} -m comment --comment \"{comment} -> {pod}:{TARGET}\"{share} -j {endpoint}\n\
                 -A {endpoint} -s {pod}/32 -m comment --comment \"{comment}\" -j KUBE-MARK-MASQ\n\
                 -A {endpoint} -p tcp -m comment --comment \"{comment}\" -m tcp -j DNAT --to-destination {pod}:{TARGET}\n"
            );
        }
    }
    format!("{chains}{rules}COMMIT\n")
}
