//! A node, its pods and their traffic, for the tests beside.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use weft_netlink::netns::Namespace;
use weft_netlink::rtnl::{Link, RouteFilter, RtnetlinkClient};
use weft_testkit::namespace::run_in;

/// How long a connection may take before it counts as impossible.
const PATIENCE: Duration = Duration::from_secs(5);

/// A machine: a network namespace, and a folder for reservations and pods' namespaces.
pub(crate) struct Node {
    pub(crate) namespace: Namespace,
    pub(crate) folder: tempfile::TempDir,
}

/// A pod: a namespace with a file, as a runtime makes it. Gone when dropped.
pub(crate) struct Pod {
    pub(crate) id: String,
    pub(crate) netns: PathBuf,
    pub(crate) namespace: Option<Namespace>,
}

impl Node {
    pub(crate) fn new() -> Node {
        Node { namespace: Namespace::temporary().unwrap(), folder: tempfile::tempdir().unwrap() }
    }

    /// The configuration that Weft's agent writes, for these ranges.
    pub(crate) fn config(&self, subnets: &[&str]) -> Value {
        let ranges: Vec<Value> = subnets.iter().map(|subnet| json!([{ "subnet": subnet }])).collect();
        json!({
            "cniVersion": "1.1.0", "name": "weft", "type": "weft-cni", "bridge": "cni0",
            "isGateway": true, "isDefaultGateway": true, "forceAddress": true, "portIsolation": true,
            "ipam": {"type": "weft-ipam", "ranges": ranges, "dataDir": self.folder.path().join("data")},
        })
    }

    pub(crate) fn pod(&self, id: &str) -> Pod {
        let netns = self.folder.path().join(format!("netns-{id}"));
        let namespace = Namespace::create(&netns).unwrap();
        Pod { id: id.to_owned(), netns, namespace: Some(namespace) }
    }

    /// Starts the plugin in the node's namespace.
    pub(crate) fn spawn(&self, command: &str, pod: &Pod, config: &Value) -> Child {
        let program = env!("CARGO_BIN_EXE_weft-cni");
        self.spawn_program(program, command, &pod.id, &pod.netns.to_string_lossy(), config)
    }

    pub(crate) fn spawn_program(
        &self,
        program: &str,
        command: &str,
        id: &str,
        netns: &str,
        config: &Value,
    ) -> Child {
        let variables = [
            ("CNI_COMMAND", command),
            ("CNI_CONTAINERID", id),
            ("CNI_IFNAME", "eth0"),
            ("CNI_NETNS", netns),
            ("CNI_PATH", "/usr/lib/cni"),
            ("CNI_ARGS", "IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=web"),
        ];
        self.spawn_in(program, &variables, config.to_string().as_bytes())
    }

    /// Starts a program in the node's namespace, with this environment and no other.
    pub(crate) fn spawn_in<K, V>(&self, program: &str, variables: &[(K, V)], stdin: &[u8]) -> Child
    where
        K: AsRef<OsStr>,
        V: AsRef<OsStr>,
    {
        let mut process = Command::new(program);
        process.env_clear().envs(variables.iter().map(|(name, value)| (name, value)));
        process.current_dir(self.folder.path());
        process.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = self.namespace.run(|| process.spawn()).unwrap().unwrap();
        // A command without a configuration does not read it.
        let _ = child.stdin.take().unwrap().write_all(stdin);
        child
    }

    /// Calls the plugin; what it prints, as `Ok` where it exits with 0. Nothing is `Null`.
    pub(crate) fn call(&self, command: &str, pod: &Pod, config: &Value) -> Result<Value, Value> {
        answer(self.spawn(command, pod, config))
    }

    pub(crate) fn add(&self, pod: &Pod, config: &Value) -> Value {
        self.call("ADD", pod, config).unwrap_or_else(|error| panic!("ADD {}: {error}", pod.id))
    }

    pub(crate) fn del(&self, pod: &Pod, config: &Value) {
        assert_eq!(self.call("DEL", pod, config), Ok(Value::Null), "DEL {}", pod.id);
    }

    pub(crate) fn route(&self) -> RtnetlinkClient {
        self.namespace.run(RtnetlinkClient::open).unwrap().unwrap()
    }

    pub(crate) fn links(&self) -> Vec<Link> {
        self.route().links().unwrap()
    }

    /// The host's ends of pods' interfaces.
    pub(crate) fn veths(&self) -> BTreeSet<String> {
        let links = self.links().into_iter();
        links.filter(|link| link.kind.as_deref() == Some("veth")).map(|link| link.name).collect()
    }

    /// The addresses that are reserved.
    pub(crate) fn reserved(&self) -> BTreeSet<IpAddr> {
        let Ok(entries) = fs::read_dir(self.folder.path().join("data/weft")) else { return BTreeSet::new() };
        entries.filter_map(|entry| entry.unwrap().file_name().to_str()?.parse().ok()).collect()
    }

    /// Runs a program in the node's namespace, which must succeed.
    pub(crate) fn run(&self, program: &str, arguments: &[&str]) -> String {
        run_in(&self.namespace, program, arguments)
    }
}

impl Pod {
    pub(crate) fn namespace(&self) -> &Namespace {
        self.namespace.as_ref().unwrap()
    }

    /// What a runtime does before or after it calls DEL: the namespace is gone.
    pub(crate) fn vanish(&mut self) {
        self.namespace = None;
        Namespace::remove(&self.netns).unwrap();
    }

    pub(crate) fn route(&self) -> RtnetlinkClient {
        self.namespace().run(RtnetlinkClient::open).unwrap().unwrap()
    }

    pub(crate) fn link(&self) -> Option<Link> {
        self.route().find_link("eth0").unwrap()
    }

    /// The destinations of its default routes' gateways.
    pub(crate) fn gateways(&self) -> Vec<IpAddr> {
        let paths = self.route().routes(RouteFilter::default()).unwrap();
        paths.iter().filter(|path| path.destination.prefix() == 0).filter_map(|path| path.gateway).collect()
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        if self.namespace.take().is_some() {
            let _ = Namespace::remove(&self.netns);
        }
    }
}

pub(crate) fn answer(child: Child) -> Result<Value, Value> {
    let output = child.wait_with_output().unwrap();
    let answer = match output.stdout.as_slice() {
        [] => Value::Null,
        text => serde_json::from_slice(text).unwrap(),
    };
    if output.status.success() { Ok(answer) } else { Err(answer) }
}

/// The address of a result's `ips` at that place, without its prefix.
pub(crate) fn address(result: &Value, place: usize) -> IpAddr {
    let text = result["ips"][place]["address"].as_str().unwrap();
    text.split('/').next().unwrap().parse().unwrap()
}

/// An echo server inside a namespace, for one connection after the other. It tells the client's address
/// first.
pub(crate) fn serve(namespace: &Namespace, address: SocketAddr) {
    let listener = namespace.run(|| TcpListener::bind(address)).unwrap().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let _ = stream.set_read_timeout(Some(PATIENCE));
            let greeting =
                format!("{}\n", stream.peer_addr().map_or(String::new(), |peer| peer.ip().to_string()));
            let _ = stream.write_all(greeting.as_bytes());
            let mut buffer = [0; 4096];
            while let Ok(length @ 1..) = stream.read(&mut buffer) {
                if stream.write_all(&buffer[..length]).is_err() {
                    break;
                }
            }
        }
    });
}

/// Connects from a namespace and talks for a while. Returns the address that the server saw the client under.
pub(crate) fn talk(namespace: &Namespace, server: SocketAddr) -> Result<IpAddr, std::io::Error> {
    namespace
        .run(|| {
            let mut stream = TcpStream::connect_timeout(&server, PATIENCE)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            let mut seen = Vec::new();
            let mut byte = [0];
            while stream.read(&mut byte)? == 1 && byte != *b"\n" {
                seen.push(byte[0]);
            }
            // More than one packet each way: a redirect takes effect from the second on.
            for round in 0..20u8 {
                let (sent, mut received) = ([round; 3000], [0; 3000]);
                stream.write_all(&sent)?;
                stream.read_exact(&mut received)?;
                assert_eq!(sent, received);
            }
            Ok(String::from_utf8(seen).unwrap().parse().unwrap())
        })
        .unwrap()
}
