//! A node after an uninstall is the node of before: rules, links, addresses, routes, settings and files, with
//! those of others beside them. In labs of their own, one for each way in which Services get into the kernel.
//! What the pod of `weft uninstall` runs on a node is run there.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;

use nix::sys::signal::Signal;
use serde_json::json;
use weft_lab::daemons::LOAD_BALANCER_CLASS;

use crate::case::{Case, echo};
use crate::daemons::restart;
use crate::lab::{Lab, Outcome, equal, holds, poll};
use crate::probe::{BOTH, Via, served};
use crate::real_runtime::install;
use crate::upgrade::{Version, clean_up, in_its_boot};

const NODE: &str = "node1";
const DAEMONS: [&str; 3] = ["weft-agent", "weft-proxy", "weft-dns"];

/// A lab: its name, how it is started, and what its agents do besides.
struct Site {
    name: &'static str,
    flags: &'static [&'static str],
    agent: &'static str,
}

const SITES: [Site; 3] = [
    Site { name: "e2e-found", flags: &[], agent: "--backend vxlan --dhcp true --fast-path ebpf" },
    Site { name: "e2e-found-ipt", flags: &["--proxy-mode=iptables"], agent: "--lb-l2 true --policy-log" },
    Site { name: "e2e-found-ebpf", flags: &["--ebpf", "--ipam=blocks"], agent: "--backend bgp" },
];

/// What others have on the node: tables, chains of iptables, links, routes, rules and settings.
const OTHERS: &str = "
nft add table inet theirs
nft add chain inet theirs input '{ type filter hook input priority 10; policy accept; }'
nft add set inet theirs known '{ type ipv4_addr; }'
nft add element inet theirs known '{ 192.0.2.1, 192.0.2.2 }'
nft add rule inet theirs input ip saddr @known counter accept
iptables -t nat -N THEIRS
iptables -t nat -A PREROUTING -m addrtype --dst-type LOCAL -j THEIRS
iptables -t nat -A THEIRS -p tcp --dport 9 -j REDIRECT --to-ports 10
iptables -A FORWARD -s 192.0.2.0/24 -m comment --comment theirs -j ACCEPT
ip6tables -A INPUT -s 2001:db8::/32 -j ACCEPT
ip link add br-theirs type bridge
ip link add theirs0 type veth peer name theirs1
ip link set theirs0 master br-theirs up
ip link set theirs1 up
ip link set br-theirs up
ip address add 192.0.2.1/24 dev br-theirs
ip address add 2001:db8::1/64 dev br-theirs nodad
ip route add 198.51.100.0/24 via 192.0.2.9 dev br-theirs
ip -6 route add 2001:db8:1::/48 via 2001:db8::9 dev br-theirs
ip rule add from 192.0.2.0/24 table 77
ip route add blackhole default table 77
sysctl -q -w net.netfilter.nf_conntrack_tcp_timeout_close_wait=7
sysctl -q -w net.ipv4.conf.all.send_redirects=1
sysctl -q -w net.ipv6.conf.br-theirs.accept_ra=2
";

/// What of a node is looked at: a name, and what shows it.
const LOOKS: [(&str, &str); 8] = [
    ("rules", "nft -s list ruleset"),
    ("links", "ip -o link"),
    ("addresses", "ip -o address"),
    ("routes", "ip route show table all"),
    ("routes of IPv6", "ip -6 route show table all"),
    ("policy rules", "ip rule && ip -6 rule"),
    ("queueing disciplines", "tc qdisc show"),
    ("settings", "grep -rs '' /proc/sys/net || true"),
];
/// Counters among the settings, and what follows from the number of interfaces that there ever were.
const COUNTERS: [&str; 3] = ["nf_conntrack_count", "netdev_rss_key", "/nf_log"];

pub(crate) fn a_node_is_as_it_was_found(_lab: &Lab) -> Outcome {
    std::thread::scope(|scope| {
        let running: Vec<_> = SITES.iter().map(|site| scope.spawn(move || is_as_found(site))).collect();
        running.into_iter().zip(&SITES).try_for_each(|(thread, site)| {
            let outcome = thread.join().unwrap_or_else(|_| Err("panicked".to_owned()));
            outcome.map_err(|error| format!("{}: {error}", site.name))
        })
    })
}

fn is_as_found(site: &Site) -> Outcome {
    let lab = Lab::new(site.name)?;
    let version = Version::of(&lab, None)?;
    let folder = version.folder.display().to_string();
    lab.run(&[&["--bin-dir", &folder, "up", "--nodes", "2"], site.flags].concat())?;
    make_a_stranger_s_node(&lab, &version)?;
    let before = snapshot(&lab)?;

    // Installed.
    for daemon in DAEMONS {
        let flags = if daemon == "weft-agent" { site.agent } else { "" };
        let socket = lab.state.path().join("run/$NODE_NAME/cni/dhcp.sock");
        let flags = flags.replace("--dhcp true", &format!("--dhcp true --dhcp-socket {}", socket.display()));
        let built = version.built.join(daemon);
        version.replace(daemon, &format!("exec {} \"$@\" {flags}", built.display()))?;
    }
    install(&lab, &lab.dir.node(NODE).cni_bin())?;
    init(&lab, &version.built)?;
    DAEMONS.iter().try_for_each(|daemon| restart(&lab, NODE, daemon, Signal::SIGKILL))?;
    // The way between nodes is the same on all.
    restart(&lab, "node2", "weft-agent", Signal::SIGTERM)?;
    let conflist = lab.dir.node(NODE).cni_conf().join("10-weft.conflist");
    poll("the CNI configuration", || equal("whether it is there", conflist.exists(), true))?;
    let case = Case::new(&lab, "visitor")?;
    works(&lab, &case)?;
    let busy = snapshot(&lab)?;
    let all_differ = LOOKS.iter().all(|(name, _)| busy[*name] != before[*name] || *name == "policy rules");
    equal("whether Weft is seen in everything that is looked at", all_differ, true)?;

    // Uninstalled, while a pod is there, and again when it is gone.
    version.withdraw(&DAEMONS)?;
    DAEMONS.iter().try_for_each(|daemon| restart(&lab, NODE, daemon, Signal::SIGTERM))?;
    clean_up(&lab, NODE, &version.built)?;
    let plugin = lab.dir.node(NODE).cni_bin().join("weft-cni");
    equal("whether the pod has the plugin by which it can be deleted", plugin.is_file(), true)?;
    let links = lab.on_node(NODE, &["ip", "-o", "link"])?;
    holds("the links of a node with a pod", &links, "cni0")?;
    case.delete("pods", "server")?;
    poll("no pod", || equal("pods of the node", lab.pod_ips_on(NODE)?.len(), 0))?;
    clean_up(&lab, NODE, &version.built)?;
    poll("the node as it was found", || same(&before, &snapshot(&lab)?))
}

/// Switched off and on without Weft, and with what others have.
fn make_a_stranger_s_node(lab: &Lab, version: &Version) -> Outcome {
    version.withdraw(&DAEMONS)?;
    lab.run(&["stop", NODE])?;
    let dir = lab.dir.node(NODE);
    let failed = |error: std::io::Error| format!("the files of {NODE}: {error}");
    for folder in [dir.cni_bin(), dir.cni_conf(), dir.cni_data(), dir.cni_results()] {
        fs::remove_dir_all(&folder).and_then(|()| fs::create_dir_all(&folder)).map_err(failed)?;
    }
    lab.run(&["start", NODE])?;
    poll("the node's daemons", || {
        let records = dir.daemons().map_err(|error| error.to_string())?;
        equal("those that run", records.iter().filter(|record| record.pid.is_some()).count(), DAEMONS.len())
    })?;
    // What the lab put there for its own.
    fs::remove_dir_all(dir.cni_bin()).and_then(|()| fs::create_dir_all(dir.cni_bin())).map_err(failed)?;
    for (path, text) in [
        (dir.cni_bin().join("bridge"), "theirs"),
        (dir.cni_bin().join("loopback"), "theirs"),
        (dir.cni_conf().join("99-theirs.conflist"), "{}"),
        (dir.cni_data().join("theirs/192.0.2.7"), "a container"),
        (dir.cni_data().join(".asked/theirs/veth1"), "{}"),
    ] {
        path.parent()
            .map_or(Ok(()), fs::create_dir_all)
            .and_then(|()| fs::write(&path, text))
            .map_err(failed)?;
    }
    // As containerd has it, whose plugins are served there.
    fs::create_dir_all(run_dir(lab).join("cni")).map_err(failed)?;
    lab.on_node(NODE, &["sh", "-ec", OTHERS])?;
    poll("addresses that are nobody else's", || {
        let addresses = lab.on_node(NODE, &["ip", "-o", "address"])?;
        equal("whether some are tentative", addresses.contains("tentative"), false)
    })
}

/// The node's /run.
fn run_dir(lab: &Lab) -> std::path::PathBuf {
    lab.state.path().join("run").join(NODE)
}

/// What the init container of the proxy runs.
fn init(lab: &Lab, built: &Path) -> Outcome {
    let settings = lab.dir.node(NODE).cni_data().join(".settings");
    let line = [
        built.join("weft-proxy").display().to_string(),
        "--init-only".to_owned(),
        format!("--settings-dir={}", settings.display()),
        "--conntrack-tcp-be-liberal=true".to_owned(),
    ];
    in_its_boot(lab, NODE, &line)
}

/// Everything that pods and Services may have of a node.
fn works(lab: &Lab, case: &Case<'_>) -> Outcome {
    let closed = json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": "closed"},
        "spec": {"podSelector": {}, "policyTypes": ["Ingress"], "ingress": [{"ports": [{"port": 8080}, {"port": 8080, "protocol": "UDP"}]}]}});
    case.api.create("/apis/networking.k8s.io/v1/namespaces/visitor/networkpolicies", &closed)?;
    let service =
        case.service("web", json!({"type": "LoadBalancer", "loadBalancerClass": LOAD_BALANCER_CLASS}))?;
    let mapped = json!([{"containerPort": 8080, "hostPort": 24999}]);
    let [_, other, client] = case.run([
        echo("server").on(NODE),
        echo("mapped").app("mapped").on(NODE).ports(mapped),
        echo("client").app("client").on("node2"),
    ])?;
    for server in service.at(80) {
        for from in [&other.netns, &client.netns] {
            BOTH.into_iter().try_for_each(|via| served(from, via, server, &["server"]))?;
        }
    }
    for server in lab.node_at(1, service.node_port(0)) {
        served(&lab.outside(), Via::Http, server, &["server"])?;
    }
    served(&client.netns, Via::Http, SocketAddr::new(lab.node_at(1, 0)[0].ip(), 24999), &["mapped"])?;
    // All but one, whose deletion comes later.
    case.delete("pods", "mapped")?;
    poll("one pod left", || equal("pods of the node", lab.pod_ips_on(NODE)?.len(), 2))
}

type Snapshot = BTreeMap<String, Vec<String>>;

fn snapshot(lab: &Lab) -> Result<Snapshot, String> {
    let mut snapshot = Snapshot::new();
    for (name, command) in LOOKS {
        let text = lab.on_node(NODE, &["sh", "-c", command])?;
        let is_lasting = |line: &&str| !COUNTERS.iter().any(|counter| line.contains(counter));
        let mut lines: Vec<String> = text.lines().filter(is_lasting).map(lasting).collect();
        lines.sort();
        snapshot.insert(name.to_owned(), lines);
    }
    let dir = lab.dir.node(NODE);
    let mut files = Vec::new();
    for folder in
        [dir.cni_bin(), dir.cni_conf(), dir.cni_data(), dir.cni_results(), run_dir(lab), lab.dir.bpffs()]
    {
        walk(&folder, &mut files).map_err(|error| format!("{}: {error}", folder.display()))?;
    }
    files.sort();
    snapshot.insert("files".to_owned(), files);
    Ok(snapshot)
}

/// A line without the numbers of interfaces, which the kernel counts on.
fn lasting(line: &str) -> String {
    let without = line.split_once(": ").filter(|(number, _)| number.parse::<u32>().is_ok());
    without.map_or(line, |(_, rest)| rest).split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Every file and folder, with what it holds.
fn walk(folder: &Path, files: &mut Vec<String>) -> std::io::Result<()> {
    if !folder.exists() {
        return Ok(());
    }
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let kind = fs::symlink_metadata(&path)?.file_type();
        let held = if kind.is_file() { fs::read(&path).unwrap_or_default() } else { Vec::new() };
        files.push(format!("{} {:016x}", path.display(), weft_types::fnv1a(&held)));
        if kind.is_dir() {
            walk(&path, files)?;
        }
    }
    Ok(())
}

fn same(before: &Snapshot, after: &Snapshot) -> Outcome {
    let mut text = String::new();
    for (name, before) in before {
        let after = &after[name];
        let left: Vec<&String> = after.iter().filter(|line| !before.contains(line)).collect();
        let lost: Vec<&String> = before.iter().filter(|line| !after.contains(line)).collect();
        if !left.is_empty() || !lost.is_empty() {
            text += &format!("{name}: left behind {left:#?}, lost {lost:#?}\n");
        }
    }
    if text.is_empty() { Ok(()) } else { Err(text) }
}
