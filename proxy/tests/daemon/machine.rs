//! A node with an API server on its loopback, and a daemon that is started and ended at will.

use std::fs::{self, File};
use std::io::{self, Write};
use std::net::TcpStream;
use std::process::{Child, Command};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use weft_netlink::netns::Namespace;
use weft_testkit::api_server::FakeApiServer;
use weft_testkit::namespace::run_in;
use weft_testkit::rootless::Rootless;
use weft_testkit::wait::eventually_ok;

pub(crate) const NODES: &str = "/api/v1/nodes";
pub(crate) const SERVICES: &str = "/api/v1/services";
pub(crate) const SLICES: &str = "/apis/discovery.k8s.io/v1/endpointslices";

/// A node, with a daemon that is started and ended at will.
pub(crate) struct Machine {
    pub(crate) namespace: Namespace,
    pub(crate) server: FakeApiServer,
    pub(crate) log: tempfile::NamedTempFile,
    pub(crate) daemon: Option<Child>,
    /// Where the daemon runs, if not as root of the whole machine.
    rootless: Option<Rootless>,
}

impl Machine {
    pub(crate) fn new() -> Machine {
        let namespace = Namespace::temporary().unwrap();
        run_in(&namespace, "ip", &["link", "set", "lo", "up"]);
        Machine::with(namespace, None)
    }

    /// A machine where the daemon is root of a user namespace only.
    pub(crate) fn rootless() -> Machine {
        let rootless = Rootless::new();
        Machine::with(rootless.namespace(), Some(rootless))
    }

    fn with(namespace: Namespace, rootless: Option<Rootless>) -> Machine {
        let server = namespace.run(FakeApiServer::start).unwrap();
        server.put(NODES, node("172.30.0.11"));
        Machine { namespace, server, log: tempfile::NamedTempFile::new().unwrap(), daemon: None, rootless }
    }

    pub(crate) fn start(&mut self) {
        let kubeconfig = self.server.kubeconfig().to_str().unwrap().to_owned();
        self.start_with(&["--kubeconfig", &kubeconfig, "--hostname-override", "node1"]);
    }

    pub(crate) fn start_with(&mut self, flags: &[&str]) {
        let log = File::options().append(true).open(self.log.path()).unwrap();
        let program = env!("CARGO_BIN_EXE_weft-proxy");
        let rootless = self.rootless.as_ref().map(|rootless| rootless.command(program));
        let mut command = rootless.unwrap_or_else(|| Command::new(program));
        command.args(flags).env_remove("RUST_LOG").stderr(log);
        self.daemon = Some(self.namespace.run(|| command.spawn()).unwrap().unwrap());
    }

    pub(crate) fn stop(&mut self, signal: Signal) {
        let mut daemon = self.daemon.take().unwrap();
        kill(Pid::from_raw(daemon.id() as i32), signal).unwrap();
        daemon.wait().unwrap();
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.log.path()).unwrap()
    }

    /// One of the node's settings of connection tracking.
    pub(crate) fn setting(&self, name: &str) -> String {
        run_in(&self.namespace, "cat", &[&format!("/proc/sys/net/netfilter/{name}")]).trim().to_owned()
    }

    pub(crate) fn rules(&self) -> String {
        run_in(&self.namespace, "nft", &["list", "ruleset"])
    }

    /// What one of the daemon's ports answers: the status line and all else.
    pub(crate) fn get(&self, port: u16, path: &str) -> io::Result<String> {
        self.get_at("127.0.0.1", port, path)
    }

    /// The same at another of the machine's addresses.
    pub(crate) fn get_at(&self, address: &str, port: u16, path: &str) -> io::Result<String> {
        let ask = || {
            let mut stream = TcpStream::connect((address, port))?;
            write!(stream, "GET {path} HTTP/1.0\r\n\r\n")?;
            io::read_to_string(stream)
        };
        self.namespace.run(ask).unwrap()
    }

    /// Waits, but not for ever.
    pub(crate) fn until(&self, what: &str, is_so: impl Fn(&Machine) -> bool) {
        eventually_ok(what, || if is_so(self) { Ok(()) } else { Err(self.log() + &self.rules()) });
    }

    pub(crate) fn until_rules_have(&self, text: &str) {
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

pub(crate) fn node(address: &str) -> Value {
    json!({
        "metadata": {"name": "node1"},
        "status": {"addresses": [{"type": "InternalIP", "address": address}]},
    })
}

pub(crate) fn service() -> Value {
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

pub(crate) fn slice(pods: &[&str]) -> Value {
    let endpoints: Vec<_> = pods.iter().map(|pod| json!({"addresses": [pod], "nodeName": "node2"})).collect();
    json!({
        "metadata": {"name": "web-1", "namespace": "shop", "labels": {"kubernetes.io/service-name": "web"}},
        "addressType": "IPv4",
        "ports": [{"name": "", "port": 8080, "protocol": "TCP"}],
        "endpoints": endpoints,
    })
}

/// A machine with a daemon that has programmed one Service with two endpoints.
pub(crate) fn programmed() -> Machine {
    let mut machine = Machine::new();
    machine.server.put(SERVICES, service());
    machine.server.put(SLICES, slice(&["10.244.2.2", "10.244.2.3"]));
    machine.start();
    machine.until_rules_have("10.96.0.80 . tcp . 80 : 0:2");
    machine
}
