//! A host, a network with DHCP servers, containers, for the tests beside.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::runtime::Runtime;
use weft_dhcp::daemon::{Daemon, Settings};
use weft_netlink::netns::Namespace;
use weft_testkit::namespace::{bare_end, cable, end, machine, sh};
use weft_testkit::wait::eventually;

/// A host, whose interface `eth0` has no address, and the machine that serves the network there.
pub(crate) struct Network {
    pub(crate) host: Namespace,
    pub(crate) server: Namespace,
    folder: tempfile::TempDir,
    agent: Option<(Runtime, Daemon)>,
    /// How long servers are asked for a first address.
    pub(crate) patience: Duration,
}

/// A container: a namespace with a file, as a runtime makes it.
pub(crate) struct Pod {
    id: &'static str,
    netns: PathBuf,
    pub(crate) namespace: Option<Namespace>,
}

/// A server that runs.
pub(crate) struct Server {
    child: Child,
    leases: PathBuf,
    log: PathBuf,
}

impl Network {
    /// With a daemon that runs, and no server.
    pub(crate) fn new() -> Network {
        let (host, server) = (machine(), machine());
        cable(&bare_end(&host, "eth0"), &end(&server, "lan0", ["10.7.0.1/24", "10.7.0.2/24"]));
        let folder = tempfile::tempdir().unwrap();
        let mut network = Network { host, server, folder, agent: None, patience: Duration::from_secs(30) };
        network.start();
        network
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn settings(&self) -> Settings {
        Settings { socket: self.path("dhcp.sock"), folder: self.path("leases"), patience: self.patience }
    }

    /// Starts the daemon.
    pub(crate) fn start(&mut self) {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let settings = self.settings();
        let daemon = {
            let _runtime = runtime.enter();
            self.host.run(|| Daemon::start(settings, || {})).unwrap().unwrap()
        };
        self.agent = Some((runtime, daemon));
    }

    /// Ends it where it stands.
    pub(crate) fn kill(&mut self) {
        let (runtime, daemon) = self.agent.take().unwrap();
        runtime.shutdown_timeout(Duration::from_secs(10));
        drop(daemon);
    }

    pub(crate) fn daemon(&self) -> &Daemon {
        &self.agent.as_ref().unwrap().1
    }

    pub(crate) fn pod(&self, id: &'static str) -> Pod {
        let netns = self.path(&format!("netns-{id}"));
        Pod { id, namespace: Some(Namespace::create(&netns).unwrap()), netns }
    }

    /// A network's configuration: macvlan on the host's interface.
    pub(crate) fn config(&self) -> Value {
        json!({
            "cniVersion": "1.0.0", "name": "lan", "type": "macvlan", "master": "eth0",
            "ipam": {
                "type": "dhcp", "daemonSocketPath": self.path("dhcp.sock"),
                "provide": [{"option": "host-name", "fromArg": "K8S_POD_NAME"}],
            },
        })
    }

    /// Calls a plugin of Debian's; what it prints, as `Ok` where it succeeds.
    pub(crate) fn call(&self, command: &str, pod: &Pod, config: &Value) -> Result<Value, Value> {
        let program = format!("/usr/lib/cni/{}", config["type"].as_str().unwrap());
        let mut process = Command::new(program);
        process
            .env_clear()
            .env("CNI_COMMAND", command)
            .env("CNI_CONTAINERID", pod.id)
            .env("CNI_IFNAME", "eth0");
        process.env("CNI_NETNS", &pod.netns).env("CNI_PATH", "/usr/lib/cni");
        process.env("CNI_ARGS", "IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web");
        process.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = self.host.run(|| process.spawn()).unwrap().unwrap();
        child.stdin.take().unwrap().write_all(config.to_string().as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        let answer = match output.stdout.as_slice() {
            [] => Value::Null,
            text => serde_json::from_slice(text).unwrap(),
        };
        if output.status.success() { Ok(answer) } else { Err(answer) }
    }

    pub(crate) fn add(&self, pod: &Pod) -> Value {
        self.call("ADD", pod, &self.config()).unwrap_or_else(|error| panic!("ADD: {error}"))
    }

    pub(crate) fn del(&self, pod: &Pod) {
        assert_eq!(self.call("DEL", pod, &self.config()), Ok(Value::Null), "DEL");
    }

    /// The names of the files of leases.
    pub(crate) fn files(&self) -> Vec<String> {
        let entries = fs::read_dir(self.path("leases")).into_iter().flatten();
        let mut names: Vec<String> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    /// dnsmasq at an address of the server's, with these options besides.
    pub(crate) fn dnsmasq(&self, address: &str, options: &[&str]) -> Server {
        let name = format!("dnsmasq-{address}");
        let (leases, log) = (self.path(&format!("{name}-leases")), self.path(&name));
        let mut command = Command::new("/usr/sbin/dnsmasq");
        command.args([
            "--keep-in-foreground",
            "--port=0",
            "--conf-file=/dev/null",
            "--pid-file=",
            "--user=root",
        ]);
        command.args([
            "--bind-interfaces",
            "--log-dhcp",
            "--no-ping",
            "--dhcp-authoritative",
            "--log-facility=-",
        ]);
        command
            .arg(format!("--listen-address={address}"))
            .arg(format!("--dhcp-leasefile={}", leases.display()));
        command
            .arg("--dhcp-range=10.7.0.50,10.7.0.99,2m")
            .arg(format!("--dhcp-option=54,{address}"))
            .args(options);
        self.serve(command, leases, log, "DHCP, IP range")
    }

    /// busybox's server, whose leases last that many seconds.
    pub(crate) fn udhcpd(&self, seconds: u32) -> Server {
        let (leases, log, config) =
            (self.path("udhcpd-leases"), self.path("udhcpd"), self.path("udhcpd.conf"));
        File::create(&leases).unwrap();
        let text = format!(
            "start 10.7.0.100\nend 10.7.0.149\ninterface lan0\nlease_file {}\nauto_time 1\nmin_lease 1\n\
             option subnet 255.255.255.0\noption router 10.7.0.1\noption lease {seconds}\n",
            leases.display()
        );
        fs::write(&config, text).unwrap();
        let mut command = Command::new("/usr/sbin/udhcpd");
        command.arg("-f").arg(&config);
        self.serve(command, leases, log, "started")
    }

    fn serve(&self, mut command: Command, leases: PathBuf, log: PathBuf, sign: &str) -> Server {
        let output = File::create(&log).unwrap();
        command.stdin(Stdio::null()).stdout(output.try_clone().unwrap()).stderr(output);
        let child = self.server.run(|| command.spawn()).unwrap().unwrap();
        let server = Server { child, leases, log };
        eventually("the DHCP server runs", || server.log().contains(sign));
        server
    }
}

impl Pod {
    /// The addresses of its interface.
    pub(crate) fn addresses(&self) -> String {
        sh(self.namespace.as_ref().unwrap(), "ip -4 -o address show dev eth0")
    }

    pub(crate) fn routes(&self) -> String {
        sh(self.namespace.as_ref().unwrap(), "ip -4 route")
    }

    /// What a runtime does that does not call DEL.
    pub(crate) fn vanish(&mut self) {
        self.namespace = None;
        Namespace::remove(&self.netns).unwrap();
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        if self.namespace.take().is_some() {
            let _ = Namespace::remove(&self.netns);
        }
    }
}

impl Server {
    pub(crate) fn log(&self) -> String {
        text(&self.log)
    }

    /// dnsmasq's leases: when they end, Ethernet address, address, name, client.
    pub(crate) fn leases(&self) -> String {
        text(&self.leases)
    }

    /// How often it said that.
    pub(crate) fn said(&self, what: &str) -> usize {
        self.log().matches(what).count()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn text(path: &Path) -> String {
    String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).into_owned()
}
