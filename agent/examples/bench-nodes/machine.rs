//! A node with its one pod: network namespaces, the real `weft-agent`, and an API server of its own that
//! shows it the cluster's Nodes. What is measured between two of them is in `measure`.

use std::fs::{self, File, Permissions};
use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use weft_bench::process::Daemon;
use weft_netlink::netns::Namespace;
use weft_testkit::api_server::FakeApiServer;
use weft_testkit::namespace::{bare_end, cable, end, route_by, sh, sh_output};
use weft_testkit::wait::eventually;

const NODES: &str = "/api/v1/nodes";
const SERVICES: &str = "/api/v1/services";

/// A node, its one pod, and its agent while that runs.
pub(crate) struct Machine {
    pub(crate) node: Namespace,
    pub(crate) pod: Namespace,
    number: u16,
    server: FakeApiServer,
    folder: tempfile::TempDir,
    agent: PathBuf,
}

impl Machine {
    pub(crate) fn new(number: u16, agent: &Path) -> Machine {
        let [node, pod] = [(); 2].map(|()| Namespace::temporary().unwrap());
        sh(&node, "ip link set lo up");
        let (v4, v6) = (format!("10.244.{number}"), format!("fd00:10:244:{number}:"));
        let addresses = [format!("{v4}.2"), format!("{v6}:2")];
        cable(
            &bare_end(&node, "pod"),
            &end(&pod, "eth0", [format!("{}/24", addresses[0]), format!("{}/64", addresses[1])]),
        );
        // As the plugin leaves it on a host without br_netfilter.
        sh(
            &node,
            "for it in iptables ip6tables; do sysctl -qw net.bridge.bridge-nf-call-$it=0 || true; done",
        );
        sh(&node, "ip link add cni0 type bridge && ip link set pod alias weft/pod/eth0 master cni0");
        sh(&node, "bridge link set dev pod isolated on && ip link set cni0 up");
        sh(&node, &format!("ip addr add {v4}.1/24 dev cni0 && ip addr add {v6}:1/64 dev cni0 nodad"));
        route_by(&pod, [format!("{v4}.1"), format!("{v6}:1")]);
        let server = node.run(FakeApiServer::start).unwrap();
        let folder = tempfile::tempdir().unwrap();
        // The agent asks the plugin whether all is well.
        fs::create_dir(folder.path().join("bin")).unwrap();
        fs::write(folder.path().join("bin/weft-cni"), "#!/bin/sh\necho '{\"done\": [], \"problems\": []}'\n")
            .unwrap();
        fs::set_permissions(folder.path().join("bin/weft-cni"), Permissions::from_mode(0o755)).unwrap();
        let leases = folder.path().join("networks/weft");
        fs::create_dir_all(&leases).unwrap();
        for address in addresses {
            fs::write(leases.join(address), "pod\r\neth0").unwrap();
        }
        Machine { node, pod, number, server, folder, agent: agent.to_owned() }
    }

    /// Its pod's address.
    pub(crate) fn pod_address(&self, is_ipv6: bool) -> IpAddr {
        let number = self.number;
        let text = if is_ipv6 { format!("fd00:10:244:{number}::2") } else { format!("10.244.{number}.2") };
        text.parse().unwrap()
    }

    /// Starts the agent and waits until pods could start.
    pub(crate) fn start(&self, flags: &[&str]) -> Daemon {
        let path = |name: &str| self.folder.path().join(name);
        let log = File::options().create(true).append(true).open(path("log")).unwrap();
        let mut command = Command::new(&self.agent);
        command.arg("--kubeconfig").arg(self.server.kubeconfig());
        command.args(["--hostname-override", &format!("node{}", self.number)]);
        command.arg("--cni-conf-dir").arg(path("net.d")).arg("--cni-bin-dir").arg(path("bin"));
        command.arg("--cni-data-dir").arg(path("networks"));
        command.args(["--cluster-cidr", "10.244.0.0/16,fd00:10:244::/48"]).args(flags).stderr(log);
        let daemon = Daemon(self.node.run(|| command.spawn()).unwrap().unwrap());
        eventually("the agent is ready", || path("net.d/10-weft.conflist").exists());
        daemon
    }

    /// Takes away all that the agent has set up, and what it knows of the cluster.
    pub(crate) fn clean_up(&self) {
        let mut command = Command::new(&self.agent);
        let path = |name: &str| self.folder.path().join(name);
        command.arg("--cleanup").arg("--cni-conf-dir").arg(path("net.d"));
        command.arg("--cni-data-dir").arg(path("networks"));
        command.env("RUST_LOG", "warn");
        assert!(self.node.run(|| command.status()).unwrap().unwrap().success());
        for node in self.server.objects(NODES) {
            self.server.delete(NODES, node["metadata"]["name"].as_str().unwrap());
        }
    }

    /// Tells the agent of a Node.
    pub(crate) fn hear_of(&self, node: Value) {
        self.server.put(NODES, node);
    }

    /// Gives the first node a link to other nodes, on which there are none.
    pub(crate) fn add_uplink(&self) {
        let wire =
            "ip link add uplink type veth peer name wire && ip link set wire up && ip link set uplink up";
        let addresses =
            "ip addr add 172.30.0.11/16 dev uplink && ip addr add fd00:30::11/64 dev uplink nodad";
        sh(&self.node, &format!("{wire} && {addresses}"));
    }

    /// Waits until there is a way to the pods of that node.
    pub(crate) fn await_route(&self, number: u16) {
        let (high, low) = (244 + number / 200, number % 200);
        let way = format!("ip route get 10.{high}.{low}.2 && ip route get fd00:10:244:{number:x}::2");
        eventually("routes", || sh_output(&self.node, &way).status.success());
    }

    /// What the agent says that pods' MTU is.
    pub(crate) fn pod_mtu(&self) -> u64 {
        let text = fs::read(self.folder.path().join("net.d/10-weft.conflist")).unwrap();
        let conflist: Value = serde_json::from_slice(&text).unwrap();
        conflist["plugins"][0]["mtu"].as_u64().unwrap()
    }

    /// Gives its pod that MTU.
    pub(crate) fn set_pod_mtu(&self, mtu: u64) {
        sh(&self.node, &format!("ip link set pod mtu {mtu} && ip link set cni0 mtu {mtu}"));
        sh(&self.pod, &format!("ip link set eth0 mtu {mtu}"));
    }

    /// Puts Services into the cluster, and tells how often the agent has asked for any.
    pub(crate) fn fill_with_services(&self, count: usize) {
        for number in 0..count {
            let spec = json!({"clusterIP": "10.96.0.1", "ports": [{"port": 80}]});
            let name = format!("service-{number}");
            self.server.put(SERVICES, json!({"metadata": {"name": name, "namespace": "a"}, "spec": spec}));
        }
    }

    /// Puts a Service of the type LoadBalancer into the cluster, with that address or as one that waits.
    pub(crate) fn add_load_balancer(&self, number: usize, address: Option<Ipv4Addr>) {
        let (high, low) = (number / 250, number % 250 + 1);
        let cluster_ip = format!("10.96.{high}.{low}");
        let spec = json!({
            "type": "LoadBalancer", "clusterIP": cluster_ip, "clusterIPs": [cluster_ip],
            "ipFamilies": ["IPv4"], "ports": [{"port": 80}],
        });
        let ingress: Vec<Value> = address.iter().map(|address| json!({"ip": address})).collect();
        let name = format!("balanced-{number}");
        self.server.put(
            SERVICES,
            json!({
                "metadata": {"name": name, "namespace": "a", "uid": name}, "spec": spec,
                "status": {"loadBalancer": {"ingress": ingress}},
            }),
        );
    }

    /// How many of these have an address.
    pub(crate) fn load_balancers_served(&self) -> usize {
        let all = self.server.objects(SERVICES).into_iter();
        all.filter(|service| !service["status"]["loadBalancer"]["ingress"][0].is_null()).count()
    }

    /// How often the agent has asked for Services.
    pub(crate) fn questions_for_services(&self) -> usize {
        [false, true].map(|watches| self.server.queries(SERVICES, watches).len()).iter().sum()
    }
}

/// A Node as its kubelet shows it, with the names of fifty images; of IPv6 alone between the nodes, or of
/// both.
pub(crate) fn node(number: u16, is_ipv6_only: bool) -> Value {
    let (high, low) = (number / 200, number % 200);
    let mut addresses = vec![format!("172.30.{high}.{}", low + 10), format!("fd00:30::{:x}", number + 0x10)];
    addresses.drain(..usize::from(is_ipv6_only));
    let internal = addresses.iter().map(|address| json!({"type": "InternalIP", "address": address}));
    let images = (0..50).map(|image| {
        let names = [
            format!("registry.example/team/program-{image}@sha256:{image:064x}"),
            format!("registry.example/team/program-{image}:1.0"),
        ];
        json!({"names": names, "sizeBytes": 123_456_789})
    });
    json!({
        "metadata": {"name": format!("node{number}"), "labels": {"kubernetes.io/os": "linux"}},
        "spec": {"podCIDRs": [format!("10.{}.{low}.0/24", 244 + high), format!("fd00:10:244:{number:x}::/64")]},
        "status": {"addresses": internal.collect::<Vec<_>>(), "images": images.collect::<Vec<_>>()},
    })
}
