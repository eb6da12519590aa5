//! The `weft-agent` process on a node of its own: a namespace with an API server on its loopback. Runs as
//! root.

#![allow(clippy::unwrap_used, reason = "a test stops at the first thing that goes wrong")]

use std::fs::{self, File};
use std::io::{self, Write};
use std::net::TcpStream;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::PathBuf;
use std::process::{Child, Command};

use serde_json::{Value, json};
use weft_netlink::netns::Namespace;
use weft_testkit::api_server::FakeApiServer;
use weft_testkit::namespace::sh;
use weft_testkit::rootless::Rootless;
use weft_testkit::wait::eventually_ok;
use weft_types::well_known::access::HEADER;

mod access;
mod addresses;
mod announcements;
mod bgp;
mod blocks;
/// A container runtime, as far as the agent asks it.
mod cri;
mod cuts;
mod dhcp;
mod facts;
mod fast_path;
mod flows;
mod pods;
mod policies;
mod segments;
mod ways;

const NODES: &str = "/api/v1/nodes";
const STATUS: &str = "/api/v1/nodes/node1/status";
/// A token of those who may ask, as the fake API server knows tokens.
const READER: &str = "system:serviceaccount:kube-system:weft-reader@agent.weft.internal";
/// A plugin that notes how it was called, and frees the one address.
const PLUGIN: &str = r#"#!/bin/sh
[ "$1" != repair ] || exec "$(dirname "$0")/repair"
folder=${CNI_PATH%/bin}
if [ "$CNI_COMMAND" = STATUS ]; then
    [ ! -e "$folder/refusal" ] || { cat "$folder/refusal"; exit 1; }
    grep -q '"cniVersion":"1.1.0"' || { echo '{"msg": "this version does not know STATUS"}'; exit 1; }
    exit 0
fi
printf '%s %s %s %s' "$CNI_COMMAND" "$CNI_CONTAINERID" "$CNI_IFNAME" "$(cat)" >"$folder/called"
rm "$folder/networks/weft/10.244.1.7"
"#;

/// A node, with a daemon that is started and ended at will.
struct Machine {
    namespace: Namespace,
    server: FakeApiServer,
    folder: tempfile::TempDir,
    daemon: Option<Child>,
    backend: &'static str,
    name: &'static str,
    cluster_cidr: &'static str,
    /// Where another machine's API server is, where it has none of its own.
    kubeconfig: Option<PathBuf>,
    /// Flags besides the usual ones.
    flags: &'static [&'static str],
    /// Where the daemon runs, if not as root of the whole machine.
    rootless: Option<Rootless>,
}

impl Machine {
    fn new() -> Machine {
        Machine::with(Namespace::temporary().unwrap(), None)
    }

    /// A machine where the daemon is root of a user namespace only.
    fn rootless() -> Machine {
        let rootless = Rootless::new();
        Machine::with(rootless.namespace(), Some(rootless))
    }

    fn with(namespace: Namespace, rootless: Option<Rootless>) -> Machine {
        let setup = "ip link set lo up && ip link add uplink mtu 1450 type veth peer name wire && ip link set wire up && ip link set uplink up \
                     && ip addr add 172.30.0.11/24 dev uplink";
        sh(&namespace, setup);
        let server = namespace.run(FakeApiServer::start).unwrap();
        let folder = tempfile::tempdir().unwrap();
        Machine {
            namespace,
            server,
            folder,
            daemon: None,
            backend: "host-gw",
            name: "node1",
            cluster_cidr: "10.244.0.0/16",
            kubeconfig: None,
            flags: &[],
            rootless,
        }
    }

    fn start(&mut self) {
        let log = File::options().create(true).append(true).open(self.path("log")).unwrap();
        let program = env!("CARGO_BIN_EXE_weft-agent");
        let rootless = self.rootless.as_ref().map(|rootless| rootless.command(program));
        let mut command = rootless.unwrap_or_else(|| Command::new(program));
        let kubeconfig = self.kubeconfig.as_deref().unwrap_or(self.server.kubeconfig());
        command.arg("--kubeconfig").arg(kubeconfig).args(["--hostname-override", self.name]);
        command.arg("--cni-conf-dir").arg(self.path("net.d")).arg("--cni-bin-dir").arg(self.path("bin"));
        command.args(["--cluster-cidr", self.cluster_cidr]).env_remove("RUST_LOG").stderr(log);
        command.args(["--healthz-bind-address", "127.0.0.1:10251", "--backend", self.backend]);
        command.arg("--cri-socket").arg(self.path("cri.sock")).args(["--collect-after", "1"]);
        command.arg("--cni-data-dir").arg(self.path("networks")).args(self.flags);
        self.daemon = Some(self.namespace.run(|| command.spawn()).unwrap().unwrap());
    }

    /// What the agent says at a path to those who may ask: the status and the body.
    fn ask(&self, path: &str) -> (String, String) {
        // Whoever asks too much is told to ask later.
        let answered = || Some(self.ask_as(Some(READER), path)).filter(|(head, _)| !head.contains(" 429 "));
        let (head, body) = eventually_ok(path, || answered().ok_or("it answers others"));
        (head.split(' ').nth(1).unwrap().to_owned(), body)
    }

    /// What it says to whoever shows that token: the head of the answer, and the body.
    fn ask_as(&self, token: Option<&str>, path: &str) -> (String, String) {
        let shown = token.map(|token| format!("{HEADER}: {token}\r\n")).unwrap_or_default();
        let ask = || -> io::Result<String> {
            let mut stream = TcpStream::connect("127.0.0.1:10251")?;
            stream.write_all(format!("GET {path} HTTP/1.0\r\n{shown}\r\n").as_bytes())?;
            io::read_to_string(stream)
        };
        // One that was started a moment ago does not listen yet.
        let answer = eventually_ok(path, || self.namespace.run(ask).unwrap());
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.to_owned(), body.to_owned())
    }

    /// Ends the daemon without any warning.
    fn kill(&mut self) {
        let mut daemon = self.daemon.take().unwrap();
        daemon.kill().unwrap();
        daemon.wait().unwrap();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn conflist(&self) -> PathBuf {
        self.path("net.d/10-weft.conflist")
    }

    /// Puts down that a container has an address, as the plugin does.
    fn reserve(&self, address: &str, container: &str) {
        fs::create_dir_all(self.path("networks/weft")).unwrap();
        fs::write(self.path("networks/weft").join(address), format!("{container}\r\neth0")).unwrap();
    }

    fn log(&self) -> String {
        fs::read_to_string(self.path("log")).unwrap()
    }

    fn install_plugin(&self) {
        fs::create_dir_all(self.path("bin")).unwrap();
        fs::write(self.path("bin/weft-cni"), PLUGIN).unwrap();
        fs::set_permissions(self.path("bin/weft-cni"), fs::Permissions::from_mode(0o755)).unwrap();
    }

    fn sh(&self, line: &str) -> String {
        sh(&self.namespace, line)
    }

    /// The destinations and gateways of Weft's own routes.
    fn routes(&self) -> Vec<String> {
        let text = self.sh("ip route show proto 119");
        text.lines().map(|line| line.split_whitespace().take(3).collect::<Vec<_>>().join(" ")).collect()
    }

    /// Gives a link to another namespace.
    fn hand_over(&self, link: &str, to: &Namespace) {
        let holder = to.run(|| Command::new("sleep").arg("60").spawn()).unwrap();
        let mut holder = holder.unwrap();
        self.sh(&format!("ip link set {link} netns {}", holder.id()));
        holder.kill().unwrap();
        holder.wait().unwrap();
    }

    /// Waits, but not for ever.
    fn until(&self, what: &str, is_so: impl Fn(&Machine) -> bool) {
        eventually_ok(what, || if is_so(self) { Ok(()) } else { Err(self.log()) });
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if self.daemon.is_some() {
            self.kill();
        }
    }
}

/// Two nodes on one link.
fn joined() -> [Machine; 2] {
    let mut machines = [Machine::new(), Machine::new()];
    machines[1].sh("ip link del uplink");
    machines[0].hand_over("wire", &machines[1].namespace);
    machines[1]
        .sh("ip link set wire name uplink && ip link set uplink up && ip addr add 172.30.0.12/24 dev uplink");
    machines[1].name = "node2";
    machines
}

fn node(number: u8) -> Value {
    json!({
        "metadata": {"name": format!("node{number}")},
        "spec": {"podCIDR": format!("10.244.{number}.0/24")},
        "status": {"addresses": [{"type": "InternalIP", "address": format!("172.30.0.1{number}")}]},
    })
}

const TO_NODE2: &str = "10.244.2.0/24 via 172.30.0.12";
const TO_NODE3: &str = "10.244.3.0/24 via 172.30.0.13";

/// As with a data folder that is read-only, or IPv6 switched off on a node with ranges of both families.
#[test]
fn a_node_whose_plugin_could_start_no_pod_is_not_ready_and_says_why() {
    let mut machine = Machine::new();
    machine.server.put(NODES, node(1));
    machine.install_plugin();
    let refusal = r#"{"code": 50, "msg": "cannot write to /var/lib/cni/networks", "details": "read-only"}"#;
    fs::write(machine.path("refusal"), refusal).unwrap();
    machine.start();
    machine.until("the configuration", |machine| machine.conflist().exists());
    let why = "not ready\nno pod can start on this node: cannot write to /var/lib/cni/networks: read-only\n";
    machine.until("the reason", |machine| machine.ask("/readyz") == ("503".to_owned(), why.to_owned()));
    // Runtimes ask the plugin themselves, and can still delete pods.
    assert!(!fs::read_to_string(machine.conflist()).unwrap().contains("unavailable"));
    fs::remove_file(machine.path("refusal")).unwrap();
    machine.until("readiness", |machine| machine.ask("/readyz").0 == "200");
}

#[test]
fn the_configuration_waits_for_the_pod_cidr_and_the_plugin() {
    let mut machine = Machine::new();
    let mut bare = node(1);
    bare["spec"] = json!({});
    machine.server.put(NODES, bare);
    machine.server.put(NODES, node(2));
    machine.start();
    machine.until("a route to node2", |machine| machine.routes() == [TO_NODE2]);
    machine
        .until("a word about the pod CIDR", |machine| machine.log().contains("Node node1 has no pod CIDR"));

    machine.server.put(NODES, node(1));
    machine.until("a word about the plugin", |machine| machine.log().contains("bin/weft-cni is missing"));
    assert!(!machine.conflist().exists());
    let (status, body) = machine.ask("/readyz");
    assert!(status == "503" && body.starts_with("not ready\nthe CNI plugin "), "{status} {body}");
    let (status, body) = machine.ask("/healthz");
    assert!(status == "200" && body.starts_with("ok\nthe CNI plugin "), "{status} {body}");
    assert!(machine.ask("/metrics").1.contains("weft_agent_ready 0\n"));
    assert!(machine.server.queries(STATUS, false).is_empty(), "nobody is told too early");

    machine.install_plugin();
    machine.until("the configuration", |machine| machine.conflist().exists());
    machine.until("readiness", |machine| machine.ask("/readyz") == ("200".to_owned(), "ok\n".to_owned()));
    assert!(machine.ask("/metrics").1.contains("weft_agent_ready 1\n"));
    machine.until("a word to the Node", |machine| !machine.server.queries(STATUS, false).is_empty());
    let conflist: Value = serde_json::from_slice(&fs::read(machine.conflist()).unwrap()).unwrap();
    assert_eq!(conflist["plugins"][0]["mtu"], 1450);
    assert_eq!(conflist["plugins"][0]["ipam"]["ranges"], json!([[{"subnet": "10.244.1.0/24"}]]));
    assert_eq!(machine.sh("cat /proc/sys/net/ipv4/ip_forward"), "1\n");
    assert!(machine.sh("nft list ruleset").contains("ip saddr 10.244.1.0/24 masquerade"));
    assert_eq!(machine.log().matches("has no pod CIDR").count(), 2, "told once, and once that it is over");
}

#[test]
fn the_plugin_says_that_no_pod_can_start_while_the_node_is_not_ready() {
    let mut machine = Machine::new();
    machine.install_plugin();
    machine.server.put(NODES, node(1));
    machine.start();
    machine.until("the configuration", |machine| machine.conflist().exists());
    let plugin = |machine: &Machine| {
        let conflist: Value = serde_json::from_slice(&fs::read(machine.conflist()).unwrap()).unwrap();
        conflist["plugins"][0].clone()
    };
    let ready = plugin(&machine);
    assert_eq!(ready.get("unavailable"), None);
    assert!(ready["boot"].is_string(), "after a reboot, what the file relies on is gone: {ready}");

    let mut bare = node(1);
    bare["spec"] = json!({});
    machine.server.put(NODES, bare);
    machine.until("a word to the plugin", |machine| plugin(machine)["unavailable"].is_string());
    assert_eq!(machine.ask("/readyz").0, "503");
    machine.server.put(NODES, node(1));
    machine.until("the file as it was", |machine| plugin(machine) == ready);
}

#[test]
fn the_agent_works_as_root_of_a_user_namespace() {
    let mut machine = Machine::rootless();
    machine.install_plugin();
    (1..=2).for_each(|number| machine.server.put(NODES, node(number)));
    machine.start();
    machine.until("a route to node2", |machine| machine.routes() == [TO_NODE2]);
    machine.until("the configuration", |machine| machine.conflist().exists());
    machine.until("ready", |machine| machine.ask("/readyz").0 == "200");
    assert!(machine.sh("nft list ruleset").contains("ip saddr 10.244.1.0/24 masquerade"));
    // There is no container runtime here.
    let log = machine.log();
    let complaints = log.lines().filter(|line| line.contains("WARN") || line.contains("ERROR"));
    assert!(complaints.into_iter().all(|line| line.contains("container runtime")), "{log}");
}

#[test]
fn routes_follow_the_nodes_and_are_put_back() {
    let mut machine = Machine::new();
    machine.install_plugin();
    (1..=2).for_each(|number| machine.server.put(NODES, node(number)));
    machine.start();
    machine.until("a route to node2", |machine| machine.routes() == [TO_NODE2]);
    machine.server.put(NODES, node(3));
    machine.until("a route to node3", |machine| machine.routes() == [TO_NODE2, TO_NODE3]);

    machine.sh("ip route del 10.244.2.0/24");
    machine.until("the route put back", |machine| machine.routes() == [TO_NODE2, TO_NODE3]);
    machine.sh("ip link set uplink down && ip link set uplink up");
    machine.until("both routes put back", |machine| machine.routes() == [TO_NODE2, TO_NODE3]);
    machine.sh("nft flush ruleset");
    machine.until("the rules put back", |machine| machine.sh("nft list ruleset").contains("masquerade"));

    machine.server.delete(NODES, "node2");
    machine.until("only a route to node3", |machine| machine.routes() == [TO_NODE3]);
}

#[test]
fn a_killed_agent_leaves_everything_and_comes_back_to_it() {
    let mut machine = Machine::new();
    machine.install_plugin();
    (1..=2).for_each(|number| machine.server.put(NODES, node(number)));
    machine.start();
    machine.until("the configuration", |machine| machine.conflist().exists());
    let file = fs::metadata(machine.conflist()).unwrap();
    let rules = machine.sh("nft -a list ruleset");
    machine.kill();
    assert_eq!(machine.routes(), [TO_NODE2]);

    // Meanwhile the cluster goes on.
    machine.server.delete(NODES, "node2");
    machine.server.put(NODES, node(3));
    machine.start();
    machine.until("a route to node3 alone", |machine| machine.routes() == [TO_NODE3]);
    assert_eq!(machine.sh("nft -a list ruleset"), rules);
    let same = fs::metadata(machine.conflist()).unwrap();
    assert_eq!((file.ino(), file.mtime_nsec()), (same.ino(), same.mtime_nsec()), "not written again");
}

#[test]
fn an_asked_agent_ends_well_and_leaves_everything() {
    let mut machine = Machine::new();
    machine.install_plugin();
    (1..=2).for_each(|number| machine.server.put(NODES, node(number)));
    machine.start();
    machine.until("the configuration", |machine| machine.conflist().exists());
    let mut daemon = machine.daemon.take().unwrap();
    machine.sh(&format!("kill -TERM {}", daemon.id()));
    assert!(daemon.wait().unwrap().success());
    assert_eq!(machine.routes(), [TO_NODE2]);
    assert!(machine.conflist().exists() && machine.sh("nft list ruleset").contains("masquerade"));
}

#[test]
fn what_is_kept_for_containers_that_the_runtime_lost_is_freed() {
    let mut machine = Machine::new();
    machine.install_plugin();
    machine.reserve("10.244.1.7", "lost");
    machine.reserve("10.244.1.8", "kept");
    machine.server.put(NODES, node(1));
    machine.start();
    machine.until("the configuration", |machine| machine.conflist().exists());
    machine
        .until("a word about the runtime", |machine| machine.log().contains("does not list its sandboxes"));
    assert!(!machine.path("called").exists(), "a runtime that is away has not lost anything");

    let _runtime = cri::Runtime::serve(&machine.path("cri.sock"), &["kept"]);
    machine.until("the address freed", |machine| machine.log().contains("freed what was kept"));
    let called = fs::read_to_string(machine.path("called")).unwrap();
    let config = called.strip_prefix("DEL lost eth0 ").unwrap_or_else(|| panic!("{called}"));
    let config: Value = serde_json::from_str(config).unwrap();
    assert_eq!((&config["name"], &config["type"]), (&json!("weft"), &json!("weft-cni")));
    assert!(machine.path("networks/weft/10.244.1.8").exists());
    assert!(machine.ask("/metrics").1.contains("weft_agent_collected_attachments_total 1\n"));
}

#[test]
fn a_cleaned_up_node_has_nothing_of_the_agent_and_keeps_the_rest() {
    let mut machine = Machine::new();
    machine.install_plugin();
    (1..=2).for_each(|number| machine.server.put(NODES, node(number)));
    machine.sh("ip route add 10.9.0.0/16 via 172.30.0.9 && nft add table ip other");
    machine.start();
    machine.until("the configuration", |machine| machine.conflist().exists());
    machine.until("a route to node2", |machine| machine.routes() == [TO_NODE2]);
    machine.kill();
    for _ in 0..2 {
        let mut command = Command::new(env!("CARGO_BIN_EXE_weft-agent"));
        command.arg("--cleanup").arg("--cni-conf-dir").arg(machine.path("net.d"));
        assert!(machine.namespace.run(|| command.status()).unwrap().unwrap().success());
        assert_eq!(machine.routes(), Vec::<String>::new());
        assert!(!machine.conflist().exists());
        assert_eq!(machine.sh("nft list tables"), "table ip other\n");
        assert!(machine.sh("ip route").contains("10.9.0.0/16 via 172.30.0.9"));
    }
}

#[test]
fn a_node_that_registers_anew_keeps_what_its_pods_need() {
    let mut machine = Machine::new();
    machine.install_plugin();
    (1..=2).for_each(|number| machine.server.put(NODES, node(number)));
    machine.start();
    machine.until("the configuration", |machine| machine.conflist().exists());
    let is_whole = |machine: &Machine| {
        machine.conflist().exists()
            && machine.routes() == [TO_NODE2]
            && machine.sh("nft list ruleset").contains("ip saddr 10.244.1.0/24 masquerade")
    };
    machine.server.delete(NODES, "node1");
    machine.until("a word about the Node", |machine| machine.log().contains("there is no usable Node node1"));
    assert!(is_whole(&machine));
    let mut bare = node(1);
    bare["spec"] = json!({});
    machine.server.put(NODES, bare);
    machine
        .until("a word about the pod CIDR", |machine| machine.log().contains("Node node1 has no pod CIDR"));
    assert!(is_whole(&machine));
}

#[test]
fn without_its_node_the_agent_changes_nothing() {
    let mut machine = Machine::new();
    machine.install_plugin();
    machine.sh("ip route add 10.244.9.0/24 via 172.30.0.19 proto 119");
    machine.server.put(NODES, node(2));
    machine.start();
    machine.until("a word about the Node", |machine| machine.log().contains("there is no usable Node node1"));
    assert_eq!(machine.routes(), ["10.244.9.0/24 via 172.30.0.19"]);
    assert!(!machine.conflist().exists());

    machine.server.put(NODES, node(1));
    machine.until("the stale route gone", |machine| machine.routes() == [TO_NODE2]);
}

#[test]
fn a_configuration_that_goes_before_ours_is_told() {
    let mut machine = Machine::new();
    machine.install_plugin();
    machine.server.put(NODES, node(1));
    machine.start();
    machine.until("the configuration", |machine| machine.conflist().exists());
    machine.until("readiness", |machine| machine.ask("/readyz") == ("200".to_owned(), "ok\n".to_owned()));
    fs::write(machine.path("net.d/05-theirs.conflist"), "{}").unwrap();
    let told =
        |machine: &Machine| machine.ask("/readyz").1.contains("net.d/05-theirs.conflist is sorted before");
    machine.until("a word about it", told);
    fs::remove_file(machine.path("net.d/05-theirs.conflist")).unwrap();
    machine.until("no word about it", |machine| !told(machine));
}

#[test]
fn nodes_are_reached_by_an_external_address_alone_and_in_spite_of_a_faulty_element() {
    let mut machine = Machine::new();
    machine.install_plugin();
    let (mut external, mut faulty) = (node(2), node(3));
    external["status"]["addresses"][0]["type"] = json!("ExternalIP");
    faulty["spec"]["podCIDRs"] = json!(["nowhere", "10.244.003.0/24"]);
    [node(1), external, faulty].into_iter().for_each(|node| machine.server.put(NODES, node));
    machine.start();
    machine.until("ways to both", |machine| machine.routes() == [TO_NODE2, TO_NODE3]);
    let log = machine.log();
    assert!(log.contains("left out of Node node3: spec.podCIDRs[0]: \"nowhere\" is no network"), "{log}");
}
