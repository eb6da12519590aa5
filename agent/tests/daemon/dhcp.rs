//! `ipam.type: dhcp` of another network, served by the agent: Debian's plugins and dnsmasq.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};
use weft_netlink::netns::Namespace;
use weft_testkit::namespace::{cable, end, machine};
use weft_testkit::wait::eventually;

use crate::{Machine, NODES, node};

/// A server beside the machine.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn serve(server: &Namespace, leases: &Path) -> Server {
    let mut command = Command::new("/usr/sbin/dnsmasq");
    command.args(["--keep-in-foreground", "--port=0", "--conf-file=/dev/null", "--pid-file=", "--user=root"]);
    command.args([
        "--bind-interfaces",
        "--listen-address=10.7.0.1",
        "--no-ping",
        "--dhcp-range=10.7.0.50,10.7.0.99,2m",
    ]);
    command.arg(format!("--dhcp-leasefile={}", leases.display())).stderr(Stdio::null());
    Server(server.run(|| command.spawn()).unwrap().unwrap())
}

/// As `weft uninstall` does on each node.
fn clean_up(machine: &Machine) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_weft-agent"));
    command.arg("--cleanup").arg("--cni-conf-dir").arg(machine.path("net.d"));
    command.arg("--cni-data-dir").arg(machine.path("networks"));
    command.arg(format!("--dhcp-socket={}", machine.path("dhcp.sock").display()));
    assert!(machine.namespace.run(|| command.status()).unwrap().unwrap().success());
}

fn call(machine: &Machine, command: &str, netns: &Path) -> Result<Value, Value> {
    call_of(machine, command, "c1", netns)
}

fn call_of(machine: &Machine, command: &str, container: &str, netns: &Path) -> Result<Value, Value> {
    let config = json!({
        "cniVersion": "1.0.0", "name": "lan", "type": "macvlan", "master": "lan0",
        "ipam": {"type": "dhcp", "daemonSocketPath": machine.path("dhcp.sock")},
    });
    let mut process = Command::new("/usr/lib/cni/macvlan");
    process.env("CNI_COMMAND", command).env("CNI_CONTAINERID", container).env("CNI_IFNAME", "eth0");
    process
        .env("CNI_NETNS", netns)
        .env("CNI_PATH", "/usr/lib/cni")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    let mut child = machine.namespace.run(|| process.spawn()).unwrap().unwrap();
    child.stdin.take().unwrap().write_all(config.to_string().as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let answer = serde_json::from_slice(&output.stdout).unwrap_or_default();
    if output.status.success() { Ok(answer) } else { Err(answer) }
}

#[test]
fn containers_of_another_network_have_leases_that_outlive_the_agent() {
    let mut node1 = Machine::new();
    let socket = format!("--dhcp-socket={}", node1.path("dhcp.sock").display());
    node1.flags = Vec::leak(vec!["--dhcp=true", String::leak(socket)]);
    node1.server.put(NODES, node(1));
    node1.install_plugin();
    let network = machine();
    // By its own address the machine gives back leases of containers that are gone.
    cable(&end(&node1.namespace, "lan0", ["10.7.0.2/24"]), &end(&network, "lan0", ["10.7.0.1/24"]));
    let leases = node1.path("leases");
    let _server = serve(&network, &leases);
    let held = || fs::read_to_string(&leases).unwrap_or_default().lines().count();
    node1.start();
    node1.until("the socket", |machine| machine.path("dhcp.sock").exists());
    let netns = node1.path("netns");
    let _pod = Namespace::create(&netns).unwrap();
    let result = call(&node1, "ADD", &netns).unwrap_or_else(|error| panic!("{error}: {}", node1.log()));
    assert_eq!(result["ips"][0]["gateway"], "10.7.0.1", "{result}");
    node1.until("the count", |machine| machine.ask("/metrics").1.contains("weft_agent_dhcp_leases 1\n"));
    assert_eq!(held(), 1);
    node1.kill();
    assert!(node1.path("networks/.dhcp/lan:c1:eth0").exists());
    node1.start();
    node1.until("the lease of before", |machine| machine.log().contains("resuming a DHCP lease"));
    node1.until("readiness", |machine| machine.ask("/readyz").0 == "200");
    // Cleaning up leaves what a container uses, and gives back what none does.
    let other = node1.path("other");
    let _gone = Namespace::create(&other).unwrap();
    let ended = |name: &str| call_of(&node1, "ADD", name, &other).unwrap_or_else(|error| panic!("{error}"));
    ended("c2");
    assert_eq!(held(), 2);
    node1.kill();
    Namespace::remove(&other).unwrap();
    clean_up(&node1);
    assert!(!node1.path("dhcp.sock").exists());
    assert!(node1.path("networks/.dhcp/lan:c1:eth0").exists());
    assert!(!node1.path("networks/.dhcp/lan:c2:eth0").exists());
    node1.start();
    node1.until("the lease once more", |machine| machine.path("dhcp.sock").exists());
    assert_eq!(call(&node1, "DEL", &netns), Ok(Value::Null));
    eventually("the server has the address back", || held() == 0);
    assert!(!node1.path("networks/.dhcp/lan:c1:eth0").exists());
    node1.kill();
    clean_up(&node1);
    assert!(!node1.path("networks/.dhcp").exists() && !node1.path("dhcp.sock").exists());
    Namespace::remove(&netns).unwrap();
}
