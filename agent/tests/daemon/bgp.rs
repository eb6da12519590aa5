//! Routes by BGP: what routers are told of load balancers, and the ways to other nodes' pods. The other end is
//! Debian's BIRD.

use std::fs::{self, File};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use weft_netlink::netns::Namespace;
use weft_testkit::namespace::{machine, sh, sh_output};
use weft_testkit::wait::eventually_ok;

use crate::blocks::{BLOCKS, bare, block};
use crate::{Machine, NODES, node};

/// The other end of the node's wire, with a BIRD.
struct Router {
    namespace: Namespace,
    folder: tempfile::TempDir,
    daemon: Child,
}

impl Router {
    /// Beside the node, of that AS. `exports` are what it has of its own.
    fn new(node: &Machine, asn: u32, remote: u32, exports: &[&str]) -> Router {
        Router::with(node, asn, remote, exports, "")
    }

    /// One whose session has these settings besides.
    fn with(node: &Machine, asn: u32, remote: u32, exports: &[&str], settings: &str) -> Router {
        let namespace = machine();
        node.hand_over("wire", &namespace);
        sh(&namespace, "ip link set wire up && ip addr add 172.30.0.12/24 dev wire");
        let folder = tempfile::tempdir().unwrap();
        let exports: String = exports.iter().map(|prefix| format!("route {prefix} blackhole; ")).collect();
        let config = format!(
            "log stderr all; router id 172.30.0.12;
             protocol device {{}}
             protocol bfd {{ interface \"*\" {{ interval 100 ms; multiplier 3; }}; }}
             protocol static {{ ipv4; {exports} }}
             protocol bgp node {{ local 172.30.0.12 as {asn}; neighbor 172.30.0.11 as {remote}; connect retry time 1;
                 error wait time 1, 2; bfd on; {settings} graceful restart on; ipv4 {{ import all; export all; next hop self; }}; }}"
        );
        let file = folder.path().join("bird.conf");
        fs::write(&file, config).unwrap();
        let log = File::create(folder.path().join("log")).unwrap();
        let mut command = Command::new("/usr/sbin/bird");
        command.arg("-f").arg("-c").arg(&file).arg("-s").arg(folder.path().join("ctl"));
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        let daemon = namespace.run(|| command.spawn()).unwrap().unwrap();
        Router { namespace, folder, daemon }
    }

    /// Waits until it holds all of these routes of the node and none of those.
    #[track_caller]
    fn holds(&self, machine: &Machine, all: &[&str], none: &[&str]) {
        let line =
            format!("/usr/sbin/birdc -s {}/ctl show route protocol node", self.folder.path().display());
        eventually_ok(format!("{all:?} but not {none:?}"), || {
            let text = String::from_utf8(sh_output(&self.namespace, &line).stdout).unwrap();
            let holds = |prefix: &&&str| text.contains(**prefix);
            let is_so = all.iter().all(|it| holds(&it)) && !none.iter().any(|it| holds(&it));
            if is_so { Ok(()) } else { Err(format!("{text}\n{}", machine.log())) }
        });
    }
}

impl Drop for Router {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.daemon.kill();
        let _ = self.daemon.wait();
    }
}

const SERVICES: &str = "/api/v1/services";
const SLICES: &str = "/apis/discovery.k8s.io/v1/endpointslices";

fn service(name: &str, address: &str, policy: &str) -> Value {
    json!({
        "metadata": {"name": name, "namespace": "shop"},
        "spec": {"type": "LoadBalancer", "clusterIP": "10.96.0.7", "clusterIPs": ["10.96.0.7"],
                 "externalTrafficPolicy": policy, "ports": [{"port": 80}]},
        "status": {"loadBalancer": {"ingress": [{"ip": address}]}},
    })
}

fn slice(service: &str, node: &str) -> Value {
    json!({
        "metadata": {"name": service, "namespace": "shop", "labels": {"kubernetes.io/service-name": service}},
        "addressType": "IPv4", "ports": [{"port": 80}],
        "endpoints": [{"addresses": ["10.244.1.7"], "nodeName": node, "conditions": {"ready": true}}],
    })
}

fn machine_with(backend: &'static str, flags: &'static [&'static str]) -> Machine {
    let mut machine = Machine::new();
    machine.backend = backend;
    machine.flags = flags;
    machine.install_plugin();
    machine.server.put(NODES, node(1));
    machine
}

fn answers(machine: &Machine) -> bool {
    machine.namespace.run(|| TcpStream::connect("127.0.0.1:10251").is_ok()).unwrap()
}

#[test]
fn routers_are_told_of_load_balancers_that_this_node_serves() {
    let flags = &["--bgp-peer=172.30.0.12:65000", "--bgp-community=65000:100"];
    let mut machine = machine_with("host-gw", flags);
    machine.server.put(SERVICES, service("web", "192.0.2.10", "Cluster"));
    machine.server.put(SERVICES, service("here", "192.0.2.11", "Local"));
    machine.server.put(SERVICES, service("there", "192.0.2.12", "Local"));
    machine.server.put(SLICES, slice("here", "node1"));
    machine.server.put(SLICES, slice("there", "node2"));
    let router = Router::new(&machine, 65000, 64512, &["198.51.100.0/24"]);
    machine.start();
    router.holds(&machine, &["192.0.2.10/32", "192.0.2.11/32"], &["192.0.2.12/32", "10.244.1.0/24"]);
    let told: Value = serde_json::from_str(&machine.ask("/bgp").1).unwrap();
    let peer = &told["peers"][0];
    assert_eq!((&peer["state"], &peer["remote"]), (&"Established".into(), &"AS 65000".into()));
    assert_eq!(peer["announced"][0]["communities"], json!(["65000:100"]));
    assert!(machine.sh("ip route").lines().all(|line| !line.contains("198.51.100.0")), "nothing is taken");
    let told_of_two =
        |machine: &Machine| machine.ask("/metrics").1.contains("weft_agent_bgp_announced_prefixes 2");
    machine.until("the figures", told_of_two);
    // The endpoint moves, a Service goes.
    machine.server.put(SLICES, slice("here", "node2"));
    machine.server.put(SLICES, slice("there", "node1"));
    machine.server.delete(SERVICES, "web");
    router.holds(&machine, &["192.0.2.12/32"], &["192.0.2.10/32", "192.0.2.11/32"]);
    // A restart is graceful, whatever changed meanwhile.
    machine.kill();
    router.holds(&machine, &["192.0.2.12/32"], &[]);
    machine.server.put(SERVICES, service("new", "192.0.2.13", "Cluster"));
    machine.start();
    router.holds(&machine, &["192.0.2.12/32", "192.0.2.13/32"], &[]);
}

#[test]
fn a_session_that_does_not_come_up_is_a_problem_that_names_the_peer_and_keeps_no_pod_from_starting() {
    let mut machine = machine_with("host-gw", &["--bgp-peer=172.30.0.12:65000"]);
    let _router = Router::new(&machine, 65009, 64512, &[]);
    machine.start();
    machine.until("it answers", answers);
    let why = "no BGP session with peer 172.30.0.12: it is of AS 65009, not of AS 65000";
    machine.until("the problem", |machine| machine.ask("/healthz").1.contains(why));
    machine.until("ready all the same", |machine| machine.ask("/readyz").0 == "200");
}

#[test]
fn a_router_with_a_bfd_profile_is_left_at_once_when_it_is_silent() {
    let mut machine = machine_with("host-gw", &["--bgp-crds"]);
    let metadata = |name: &str| json!({"name": name, "namespace": "metallb-system"});
    let spec = json!({"myASN": 64512, "peerASN": 65000, "peerAddress": "172.30.0.12", "bfdProfile": "fast",
                      "holdTime": "240s"});
    machine
        .server
        .put("/apis/metallb.io/v1beta2/bgppeers", json!({"metadata": metadata("tor"), "spec": spec}));
    let router = Router::new(&machine, 65000, 64512, &[]);
    machine.start();
    let nothing = "BGPPeer metallb-system/tor: spec.bfdProfile fast: there is none of that name";
    machine.until("it answers", answers);
    machine.until("a word about the profile", |machine| machine.ask("/healthz").1.contains(nothing));
    let spec = json!({"receiveInterval": 100, "transmitInterval": 100});
    machine
        .server
        .put("/apis/metallb.io/v1beta1/bfdprofiles", json!({"metadata": metadata("fast"), "spec": spec}));
    machine.until("BFD", |machine| machine.log().contains("BFD: the peer is up"));
    machine.until("a session", |machine| machine.ask("/metrics").1.contains("bgp_sessions_established 1"));
    let process = Pid::from_raw(router.daemon.id().cast_signed());
    kill(process, Signal::SIGSTOP).unwrap();
    machine.until("the session's end", |machine| {
        machine
            .ask("/healthz")
            .1
            .contains("no BGP session with peer tor (172.30.0.12): it was told: cease: BFD down")
    });
    kill(process, Signal::SIGCONT).unwrap();
    machine.until("a session again", |machine| {
        machine.ask("/metrics").1.contains("bgp_sessions_established 1")
            && machine.ask("/healthz").1 == "ok\n"
    });
}

#[test]
fn ways_to_other_nodes_pods_are_learned_and_kept_over_a_restart() {
    let mut machine = machine_with("bgp", &["--bgp-restart-time=60"]);
    machine.server.put(NODES, node(2));
    // As node2, and as one that tells of too much.
    let told = ["10.244.2.0/24", "0.0.0.0/0", "198.51.100.0/24", "10.244.1.0/25"];
    let router = Router::new(&machine, 64512, 64512, &told);
    machine.start();
    let routes = |machine: &Machine| machine.sh("ip -4 route show proto bgp");
    machine.until("the way to node2's pods", |machine| {
        routes(machine).trim() == "10.244.2.0/24 via 172.30.0.12 dev uplink"
    });
    router.holds(&machine, &["10.244.1.0/24"], &[]);
    machine.kill();
    assert!(routes(&machine).contains("10.244.2.0/24"));
    // While node2 cannot tell anything, its pods are reached as before.
    sh(&router.namespace, "ip link set wire down");
    machine.start();
    machine.until("it answers", answers);
    machine.until("no session", |machine| {
        machine.ask("/healthz").1.contains("no BGP session with peer node node2")
    });
    assert!(routes(&machine).contains("10.244.2.0/24"), "{}", machine.log());
    sh(&router.namespace, "ip link set wire up");
    machine.until("a session", |machine| machine.ask("/metrics").1.contains("bgp_sessions_established 1"));
    // A node that is gone is forgotten.
    machine.server.delete(NODES, "node2");
    machine.until("no way any more", |machine| routes(machine).is_empty());
}

#[test]
fn with_blocks_nodes_tell_each_other_the_ways_to_these() {
    let mut machine = machine_with("bgp", &["--ipam=blocks", "--block-mask-size-ipv4=29"]);
    [1, 2].into_iter().for_each(|number| machine.server.put(NODES, bare(number)));
    machine.server.put(BLOCKS, block("theirs", "10.244.9.0/29", "node2"));
    let router = Router::new(&machine, 64512, 64512, &["10.244.9.0/29", "10.244.8.0/24"]);
    machine.start();
    machine.until("the way to node2's block", |machine| {
        machine.sh("ip -4 route show proto bgp").contains("10.244.9.0/29 via 172.30.0.12 dev uplink")
    });
    machine.until("a block", |machine| machine.ask("/ipam").1.contains("\"usable\":5"));
    let known: Value = serde_json::from_str(&machine.ask("/ipam").1).unwrap();
    router.holds(&machine, &[known["blocks"][0]["cidr"].as_str().unwrap()], &[]);
}

#[test]
fn the_password_of_a_session_may_stand_in_a_secret() {
    const SECRETS: &str = "/api/v1/namespaces/metallb-system/secrets";
    let mut machine = machine_with("host-gw", &["--bgp-crds"]);
    let metadata = |name: &str| json!({"name": name, "namespace": "metallb-system"});
    let secret =
        |kind: &str| json!({"metadata": metadata("tor"), "type": kind, "data": {"password": "c3dvcmRmaXNo"}});
    let spec = json!({"myASN": 64512, "peerASN": 65000, "peerAddress": "172.30.0.12",
                      "passwordSecret": {"name": "tor"}});
    let peer = json!({"metadata": metadata("tor"), "spec": spec});
    machine.server.put("/apis/metallb.io/v1beta2/bgppeers", peer);
    let _router = Router::with(&machine, 65000, 64512, &[], "password \"swordfish\";");
    machine.start();
    machine.until("it answers", answers);
    let says = |words: &'static str| move |machine: &Machine| machine.ask("/healthz").1.contains(words);
    machine.until("a word about the Secret", says("there is no Secret metallb-system/tor"));
    let events = "/apis/events.k8s.io/v1/namespaces/metallb-system/events";
    machine.until("an event", |machine| !machine.server.queries(events, false).is_empty());
    machine.server.put(SECRETS, secret("Opaque"));
    machine
        .until("a word about its type", says("it is of type \"Opaque\", and not kubernetes.io/basic-auth"));
    machine.server.put(SECRETS, secret("kubernetes.io/basic-auth"));
    machine.until("a session", |machine| machine.ask("/metrics").1.contains("bgp_sessions_established 1"));
    // Without the Secret the session goes on, and somebody hears of it.
    machine.server.delete(SECRETS, "tor");
    machine.until("a word about the Secret", says("there is no Secret metallb-system/tor"));
    assert!(machine.ask("/metrics").1.contains("bgp_sessions_established 1"));
    assert!(!machine.log().contains("swordfish"));
}
