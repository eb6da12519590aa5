//! The `weft-proxy` process on a node of its own: a namespace with an API server on its loopback. Needs root and nft.

#![allow(clippy::unwrap_used, reason = "a test stops at the first thing that goes wrong")]

use std::fs::{self, File};
use std::io::{self, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command};
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use server::Server;
use weft_netlink::netns::Namespace;

// The same small API server as that of the watch's own tests.
#[allow(dead_code, reason = "not everything that it can do is needed here")]
#[path = "../../cluster/tests/watch/server.rs"]
mod server;

const NODES: &str = "/api/v1/nodes";
const SERVICES: &str = "/api/v1/services";
const SLICES: &str = "/apis/discovery.k8s.io/v1/endpointslices";

/// A node, with a daemon that is started and ended at will.
struct Machine {
    namespace: Namespace,
    server: Server,
    log: tempfile::NamedTempFile,
    daemon: Option<Child>,
}

impl Machine {
    fn new() -> Machine {
        let namespace = Namespace::temporary().unwrap();
        run(&namespace, "ip", &["link", "set", "lo", "up"]);
        let server = namespace.run(Server::start).unwrap();
        server.put(NODES, node("172.30.0.11"));
        Machine { namespace, server, log: tempfile::NamedTempFile::new().unwrap(), daemon: None }
    }

    fn start(&mut self) {
        let kubeconfig = self.server.kubeconfig().to_str().unwrap().to_owned();
        self.start_with(&["--kubeconfig", &kubeconfig, "--hostname-override", "node1"]);
    }

    fn start_with(&mut self, flags: &[&str]) {
        let log = File::options().append(true).open(self.log.path()).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_weft-proxy"));
        command.args(flags).env_remove("RUST_LOG").stderr(log);
        self.daemon = Some(self.namespace.run(|| command.spawn()).unwrap().unwrap());
    }

    fn stop(&mut self, signal: Signal) {
        let mut daemon = self.daemon.take().unwrap();
        kill(Pid::from_raw(daemon.id() as i32), signal).unwrap();
        daemon.wait().unwrap();
    }

    fn log(&self) -> String {
        fs::read_to_string(self.log.path()).unwrap()
    }

    /// One of the node's settings of connection tracking.
    fn setting(&self, name: &str) -> String {
        run(&self.namespace, "cat", &[&format!("/proc/sys/net/netfilter/{name}")]).trim().to_owned()
    }

    fn rules(&self) -> String {
        run(&self.namespace, "nft", &["list", "ruleset"])
    }

    /// What one of the daemon's ports answers: the status line and all else.
    fn get(&self, port: u16, path: &str) -> io::Result<String> {
        let ask = || {
            let mut stream = TcpStream::connect(("127.0.0.1", port))?;
            write!(stream, "GET {path} HTTP/1.0\r\n\r\n")?;
            io::read_to_string(stream)
        };
        self.namespace.run(ask).unwrap()
    }

    /// Waits, but not for ever.
    fn until(&self, what: &str, is_so: impl Fn(&Machine) -> bool) {
        let start = Instant::now();
        while !is_so(self) {
            let (log, rules) = (self.log(), self.rules());
            assert!(start.elapsed() < Duration::from_secs(60), "never so: {what}; the log: {log}\n{rules}");
            sleep(Duration::from_millis(5));
        }
    }

    fn until_rules_have(&self, text: &str) {
        self.until(text, |machine| machine.rules().contains(text));
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if self.daemon.is_some() {
            self.stop(Signal::SIGKILL);
        }
    }
}

fn run(namespace: &Namespace, program: &str, arguments: &[&str]) -> String {
    let output = namespace.run(|| Command::new(program).args(arguments).output()).unwrap().unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn node(address: &str) -> Value {
    json!({
        "metadata": {"name": "node1"},
        "status": {"addresses": [{"type": "InternalIP", "address": address}]},
    })
}

fn service() -> Value {
    json!({
        "metadata": {"name": "web", "namespace": "shop"},
        "spec": {
            "type": "NodePort",
            "clusterIP": "10.96.0.80",
            "clusterIPs": ["10.96.0.80"],
            "ports": [{"port": 80, "nodePort": 30080}],
        },
    })
}

fn slice(pods: &[&str]) -> Value {
    let endpoints: Vec<_> = pods.iter().map(|pod| json!({"addresses": [pod], "nodeName": "node2"})).collect();
    json!({
        "metadata": {"name": "web-1", "namespace": "shop", "labels": {"kubernetes.io/service-name": "web"}},
        "addressType": "IPv4",
        "ports": [{"name": "", "port": 8080, "protocol": "TCP"}],
        "endpoints": endpoints,
    })
}

/// A machine with a daemon that has programmed one Service with two endpoints.
fn programmed() -> Machine {
    let mut machine = Machine::new();
    machine.server.put(SERVICES, service());
    machine.server.put(SLICES, slice(&["10.244.2.2", "10.244.2.3"]));
    machine.start();
    machine.until_rules_have("10.96.0.80 . tcp . 80 : goto pick-2");
    machine
}

#[test]
fn changes_reach_the_kernel_and_nothing_stays_of_what_is_deleted() {
    let machine = programmed();
    machine.until_rules_have("elements = { 172.30.0.11 }");
    machine.server.put(NODES, node("172.30.0.12"));
    machine.until_rules_have("elements = { 172.30.0.12 }");
    machine.server.put(SLICES, slice(&["10.244.2.3", "10.244.2.4"]));
    machine.until_rules_have("10.96.0.80 . tcp . 80 . 0 : 10.244.2.4 . 8080");
    machine.server.delete(SLICES, "web-1");
    machine.until_rules_have("10.96.0.80 . tcp . 80 : goto no-endpoints");
    machine.server.delete(SERVICES, "web");
    machine.until("no Service", |machine| !machine.rules().contains("10.96.0.80"));
    assert!(!machine.rules().contains("pick-"));
    assert!(!machine.log().contains("WARN") && !machine.log().contains("ERROR"), "{}", machine.log());
}

#[test]
fn nothing_is_programmed_before_services_and_endpoint_slices_are_listed() {
    let mut machine = programmed();
    let rules = machine.rules();
    machine.stop(Signal::SIGKILL);
    // A proxy that took an unlisted kind for an empty one would reject everything now.
    machine.server.stop();
    machine.start();
    machine.until("the probe's port", |machine| machine.get(10256, "/healthz").is_ok());
    assert_eq!(machine.rules(), rules);
    let Machine { namespace, server, .. } = &mut machine;
    namespace.run(|| server.restart()).unwrap();
    machine.until("in step", |machine| machine.log().matches("in step with the cluster").count() == 2);
    assert_eq!(machine.rules(), rules);
}

#[test]
fn a_killed_proxy_leaves_its_rules_and_adopts_them_and_cleanup_removes_them() {
    let mut machine = programmed();
    let handles = |machine: &Machine| run(&machine.namespace, "nft", &["-a", "list", "ruleset"]);
    let rules = handles(&machine);
    for signal in [Signal::SIGKILL, Signal::SIGTERM] {
        machine.stop(signal);
        assert_eq!(handles(&machine), rules);
        let starts = machine.log().matches("in step with the cluster").count();
        machine.start();
        machine.until("in step again", |machine| {
            machine.log().matches("in step with the cluster").count() == starts + 1
        });
        assert_eq!(handles(&machine), rules);
    }
    machine.stop(Signal::SIGTERM);
    run(&machine.namespace, env!("CARGO_BIN_EXE_weft-proxy"), &["--cleanup"]);
    assert_eq!(machine.rules(), "");
}

#[test]
fn what_another_program_destroys_is_put_back_at_once() {
    let machine = programmed();
    let lines = |machine: &Machine| {
        let mut lines: Vec<_> = machine.rules().lines().map(str::to_owned).collect();
        lines.sort();
        lines
    };
    let rules = lines(&machine);
    for damage in [
        "flush ruleset",
        "delete element ip weft endpoints { 10.96.0.80 . tcp . 80 . 0 }",
        "delete table ip6 weft",
        "add rule ip weft services drop",
        "flush chain ip weft pick-2",
    ] {
        run(&machine.namespace, "nft", &[damage]);
        let start = Instant::now();
        machine.until(damage, |machine| lines(machine) == rules);
        println!("{damage}: put right after {:?}", start.elapsed());
    }
    let warnings = machine.log().matches("another program changed the rules").count();
    machine.server.put(SLICES, slice(&["10.244.2.2"]));
    machine.until_rules_have("goto pick-1");
    run(&machine.namespace, "nft", &["add table ip other"]);
    machine.server.put(SLICES, slice(&["10.244.2.2", "10.244.2.3"]));
    machine.until_rules_have("goto pick-2");
    let log = machine.log();
    assert_eq!(
        log.matches("another program changed the rules").count(),
        warnings,
        "own changes are none: {log}"
    );
}

#[test]
fn probes_and_scrapers_are_answered() {
    let machine = programmed();
    for (port, path, text) in [
        (10256, "/healthz", "ok"),
        (10256, "/livez", "ok"),
        (10249, "/proxyMode", "nftables"),
        (10249, "/metrics", "kubeproxy_sync_proxy_rules_duration_seconds_count 1"),
    ] {
        let answer = machine.get(port, path).unwrap();
        assert!(answer.starts_with("HTTP/1.0 200") && answer.contains(text), "{path}: {answer}");
    }
}

#[test]
fn load_balancers_are_told_how_many_endpoints_the_node_has() {
    let machine = programmed();
    let balanced = |port: u16| {
        let mut service = service();
        service["metadata"]["name"] = "balanced".into();
        service["spec"]["clusterIP"] = "10.96.0.81".into();
        service["spec"]["clusterIPs"] = json!(["10.96.0.81"]);
        service["spec"]["ports"][0]["nodePort"] = 30081.into();
        service["spec"]["type"] = "LoadBalancer".into();
        service["spec"]["externalTrafficPolicy"] = "Local".into();
        service["spec"]["healthCheckNodePort"] = port.into();
        service
    };
    let endpoints = |nodes: &[&str]| {
        let mut slice = slice(&["10.244.1.2", "10.244.1.3", "10.244.2.2"][..nodes.len()]);
        slice["metadata"] = json!({
            "name": "balanced-1", "namespace": "shop", "labels": {"kubernetes.io/service-name": "balanced"},
        });
        (0..).zip(nodes).for_each(|(at, node)| slice["endpoints"][at as usize]["nodeName"] = (*node).into());
        slice
    };
    let answers = |port, status: &'static str, text: &'static str| {
        machine.until(text, |machine| {
            let answer = machine.get(port, "/").unwrap_or_default().to_lowercase();
            answer.starts_with(&format!("http/1.0 {status}")) && answer.contains(text)
        });
    };
    machine.server.put(SERVICES, balanced(32080));
    machine.server.put(SLICES, endpoints(&["node1", "node1", "node2"]));
    answers(32080, "200", "x-load-balancing-endpoint-weight: 2");
    answers(32080, "200", r#""localendpoints":2"#);
    machine.server.put(SLICES, endpoints(&["node2", "node2"]));
    answers(32080, "503", "x-load-balancing-endpoint-weight: 0");

    // A port that somebody else has is told once, and had when it is free.
    let taken = machine.namespace.run(|| TcpListener::bind("[::]:32081")).unwrap().unwrap();
    machine.server.put(SERVICES, balanced(32081));
    machine.until("told", |machine| {
        machine.log().contains("health checks of Service shop/balanced at port 32081")
    });
    machine.until("the old port closed", |machine| machine.get(32080, "/").is_err());
    machine.server.put(SLICES, endpoints(&["node1", "node2"]));
    drop(taken);
    answers(32081, "200", "x-load-balancing-endpoint-weight: 1");
    assert_eq!(machine.log().matches("at port 32081").count(), 1, "{}", machine.log());
    machine.server.delete(SERVICES, "balanced");
    machine.until("closed", |machine| machine.get(32081, "/").is_err());
}

#[test]
fn load_balancers_are_sent_away_from_a_node_that_leaves_while_its_proxy_lives() {
    let machine = programmed();
    let answers =
        |path, status: &str| machine.get(10256, path).unwrap().starts_with(&format!("HTTP/1.0 {status}"));
    assert!(answers("/healthz", "200"));
    let mut leaving = node("172.30.0.11");
    leaving["spec"] = json!({"taints": [{"key": "ToBeDeletedByClusterAutoscaler", "effect": "NoSchedule"}]});
    machine.server.put(NODES, leaving);
    machine.until("told", |_| answers("/healthz", "503"));
    assert!(answers("/livez", "200"));
    machine.server.put(NODES, node("172.30.0.11"));
    machine.until("well again", |_| answers("/healthz", "200"));
}

#[test]
fn what_is_wrong_at_the_start_is_said_in_one_line() {
    let output = Command::new(env!("CARGO_BIN_EXE_weft-proxy"))
        .args(["--kubeconfig", "/does/not/exist", "--healthz-bind-address", "127.0.0.1:0"])
        .args(["--metrics-bind-address", "127.0.0.1:0"])
        .env("RUST_LOG", "off")
        .output()
        .unwrap();
    let errors = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success());
    assert!(errors.starts_with("weft-proxy: ") && errors.contains("/does/not/exist"), "{errors}");
    assert_eq!(errors.lines().count(), 1, "{errors}");
}

#[test]
fn a_configuration_file_of_kube_proxy_is_followed() {
    let mut machine = Machine::new();
    let config = tempfile::NamedTempFile::new().unwrap();
    let text = include_str!("manifests/kubeadm-config.yaml")
        .replace("/var/lib/kube-proxy/kubeconfig.conf", machine.server.kubeconfig().to_str().unwrap())
        .replace("hostnameOverride: \"\"", "hostnameOverride: node1")
        .replace("oomScoreAdj: null", "oomScoreAdj: -999")
        .replace("udpStreamTimeout: 0s\n  udpTimeout: 0s", "udpTimeout: 17s");
    fs::write(config.path(), text).unwrap();
    machine.start_with(&["--config", config.path().to_str().unwrap()]);
    machine.until_rules_have("ip saddr != 10.244.0.0/16 jump outside");
    machine.until_rules_have("elements = { 172.30.0.11 }");
    assert_eq!(machine.log().matches("oomScoreAdj has no effect").count(), 1, "{}", machine.log());
    assert_eq!(machine.log().matches("WARN").count(), 1, "{}", machine.log());
    assert_eq!(machine.setting("nf_conntrack_udp_timeout"), "17");
    let shown = machine.get(10249, "/configz").unwrap();
    let shown: Value = serde_json::from_str(shown.split_once("\r\n\r\n").unwrap().1).unwrap();
    assert_eq!(shown["kubeproxy.config.k8s.io"]["clusterCIDR"], "10.244.0.0/16");
}

#[test]
fn close_wait_connections_are_kept_as_long_as_kube_proxy_keeps_them() {
    let mut machine = Machine::new();
    let proxy = |machine: &Machine, flags: &[&str]| {
        machine
            .namespace
            .run(|| Command::new(env!("CARGO_BIN_EXE_weft-proxy")).args(flags).output())
            .unwrap()
            .unwrap()
    };
    assert_eq!(machine.setting("nf_conntrack_tcp_timeout_close_wait"), "60", "the kernel's default");
    // The size of the table is the whole machine's, and cannot be set from here.
    let only = ["--init-only", "--conntrack-max-per-core=0"];
    assert!(proxy(&machine, &only).status.success());
    assert_eq!(machine.setting("nf_conntrack_tcp_timeout_close_wait"), "3600");
    assert!(proxy(&machine, &[only[0], only[1], "--conntrack-tcp-timeout-close-wait=50s"]).status.success());
    assert_eq!(machine.setting("nf_conntrack_tcp_timeout_close_wait"), "50", "asked for");
    let refused = proxy(&machine, &["--init-only", "--conntrack-min=2000000000"]);
    let errors = String::from_utf8(refused.stderr).unwrap();
    assert!(!refused.status.success() && errors.contains("nf_conntrack_max to 2000000000"), "{errors}");

    machine.start();
    machine.until("set", |machine| machine.setting("nf_conntrack_tcp_timeout_close_wait") == "3600");
    assert!(!machine.log().contains("WARN"), "{}", machine.log());
}

#[test]
fn a_malformed_service_gets_one_event_and_harms_no_other() {
    let machine = programmed();
    let mut bad = service();
    bad["metadata"]["name"] = "bad".into();
    bad["spec"]["ports"][0]["port"] = 99_999_999.into();
    machine.server.put(SERVICES, bad.clone());
    let events = |machine: &Machine| machine.server.objects("/apis/events.k8s.io/v1/namespaces/shop/events");
    machine.until("told", |machine| events(machine).len() == 1);
    let event = &events(&machine)[0];
    assert_eq!((&event["reason"], &event["regarding"]["name"]), (&json!("Malformed"), &json!("bad")));
    assert!(event["note"].as_str().unwrap().contains("spec.ports[0].port"), "{event}");
    bad["metadata"]["labels"] = json!({"another": "one"});
    machine.server.put(SERVICES, bad);
    machine.server.put(SLICES, slice(&["10.244.2.2"]));
    machine.until_rules_have("goto pick-1");
    assert_eq!((events(&machine).len(), machine.log().matches("left out: Service shop/bad").count()), (1, 1));
}
