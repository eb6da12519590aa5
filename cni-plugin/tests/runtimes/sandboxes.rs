//! Pods that containerd makes on the plugin, as a kubelet asks for them through the CRI socket.

use std::net::SocketAddr;

use serde_json::{Value, json};
use weft_testkit::containerd::cri::{Pod, PortMapping, TCP};
use weft_testkit::containerd::{Containerd, Place};
use weft_testkit::wait::eventually;

use crate::machine::{Machine, hear};

const DUAL_STACK: [&str; 2] = ["10.244.1.0/24", "fd00:1::/64"];

/// A machine with containerd, and the address that the machine has for others.
struct Node {
    // Dropped first: it ends what lives in the machine.
    containerd: Containerd,
    machine: Machine,
}

/// A sandbox with one container in it.
struct Running {
    sandbox: String,
    container: String,
    addresses: Vec<String>,
}

impl Node {
    fn new() -> Node {
        let machine = Machine::new();
        let folder = machine.folder().join("containerd");
        let place = Place { network: machine.namespace.path().into(), mounts: None };
        let containerd = Containerd::start(&folder, place, &machine.bin_dir(), &machine.conf_dir());
        Node { containerd, machine }
    }

    /// Writes the configuration, and waits for containerd to take notice of it.
    fn configure(&self, plugins: &[Value]) {
        self.machine.configure("1.0.0", plugins);
        eventually("containerd sees the configuration", || self.containerd.cri.network_ready().unwrap());
    }

    /// Makes a pod that says its name to whoever connects to port 8080.
    fn run(&self, pod: &Pod) -> Running {
        let cri = &self.containerd.cri;
        let sandbox = cri.run_sandbox(pod).unwrap();
        let server = ["nc", "-ll", "-p", "8080", "-e", "echo", &pod.hostname];
        let container = cri.start(pod, &sandbox, &server);
        Running { addresses: cri.addresses(&sandbox), sandbox, container }
    }

    fn remove(&self, running: Running) {
        self.containerd.cri.remove_sandbox(&running.sandbox).unwrap();
    }

    /// Who answers there, asked from the machine.
    fn hear(&self, server: &str) -> String {
        let server: SocketAddr = server.parse().unwrap();
        // The container's process may be about to listen.
        eventually(format!("{server} answers"), || hear(&self.machine.namespace, server).is_ok());
        hear(&self.machine.namespace, server).unwrap()
    }

    fn ping(&self, from: &Running, address: &str) {
        let family = if address.contains(':') { "-6" } else { "-4" };
        let ping = ["ping", family, "-c", "1", "-w", "20", address];
        self.containerd.cri.exec(&from.container, &ping).unwrap();
    }
}

#[test]
fn pods_reach_each_other_and_their_removal_leaves_nothing() {
    let node = Node::new();
    assert!(!node.containerd.cri.network_ready().unwrap(), "no configuration yet");
    node.configure(&[node.machine.plugin(&DUAL_STACK)]);
    let before = node.machine.traces();
    let pods = ["web", "db"].map(|name| node.run(&node.containerd.pod(name)));
    assert_eq!(node.machine.traces().pods(), (2, 4), "an address of each family for each");
    for (from, to) in [(0, 1), (1, 0)] {
        let reserved = node.machine.reserved();
        for address in &pods[to].addresses {
            assert!(reserved.contains(address), "{address} as containerd was told: {reserved:?}");
            node.ping(&pods[from], address);
        }
    }
    assert_eq!(node.hear(&format!("{}:8080", pods[0].addresses[0])), "web\n");
    assert_eq!(node.hear(&format!("[{}]:8080", pods[1].addresses[1])), "db\n");
    for pod in pods {
        node.remove(pod);
    }
    assert_eq!(node.machine.traces(), before);
    assert_eq!(node.containerd.pinned_namespaces(), 0);
}

#[test]
fn pods_outlive_a_restart_of_the_runtime_and_are_removed_after_it() {
    let mut node = Node::new();
    node.configure(&[node.machine.plugin(&DUAL_STACK)]);
    let before = node.machine.traces();
    let pods = ["web", "db"].map(|name| node.run(&node.containerd.pod(name)));
    node.containerd.restart();
    node.ping(&pods[0], &pods[1].addresses[0]);
    let third = node.run(&node.containerd.pod("third"));
    node.ping(&third, &pods[0].addresses[1]);
    for pod in pods {
        node.remove(pod);
    }
    node.remove(third);
    assert_eq!(node.machine.traces(), before);
}

#[test]
fn a_failure_reaches_the_kubelet_word_for_word() {
    let node = Node::new();
    let mut plugin = node.machine.plugin(&["10.244.1.0/30"]);
    node.configure(&[plugin.clone()]);
    let first = node.run(&node.containerd.pod("first"));
    let refused = node.containerd.cri.run_sandbox(&node.containerd.pod("second")).unwrap_err();
    let words = "plugin type=\"weft-cni\" failed (add): no IP addresses available in range set 10.244.1.1-10.244.1.2 of \
        network weft; add a range to ipam.ranges, or delete the files in ";
    assert!(refused.message().contains(words), "{}", refused.message());
    assert_eq!(node.machine.traces().pods(), (1, 1), "containerd calls DEL at once");
    node.remove(first);
    // The same for what the configuration cannot mean.
    plugin["hairpinMode"] = json!(true);
    plugin["promiscMode"] = json!(true);
    node.configure(&[plugin]);
    let impossible = "network weft: option hairpinMode: cannot be set together with promiscMode";
    eventually("containerd reads the new configuration", || {
        let cri = &node.containerd.cri;
        let answer = cri.run_sandbox(&node.containerd.pod("third"));
        answer
            .map(|made| cri.remove_sandbox(&made))
            .is_err_and(|status| status.message().contains(impossible))
    });
}

/// Runs a pod with port 8000 of the host, asks for it from everywhere, and removes the pod.
fn host_port_leads_to_its_pod_as_long_as_that_is_there(node: &Node) {
    let mut pod = node.containerd.pod("web");
    pod.port_mappings = vec![PortMapping { protocol: TCP, container_port: 8080, host_port: 8000 }];
    let web = node.run(&pod);
    assert_eq!(node.hear("10.244.1.1:8000"), "web\n");
    assert_eq!(node.hear("127.0.0.1:8000"), "web\n");
    let other = node.run(&node.containerd.pod("other"));
    let ask = ["sh", "-c", "nc 10.244.1.1 8000 </dev/null"];
    assert_eq!(node.containerd.cri.exec(&other.container, &ask).as_deref(), Ok("web\n"), "from another pod");
    assert_eq!(node.containerd.cri.exec(&web.container, &ask).as_deref(), Ok("web\n"), "from the pod itself");
    node.remove(web);
    let server = "10.244.1.1:8000".parse().unwrap();
    assert!(hear(&node.machine.namespace, server).is_err());
    node.remove(other);
}

#[test]
fn a_host_port_leads_to_its_pod_and_its_removal_leaves_nothing() {
    let node = Node::new();
    node.configure(&[node.machine.plugin(&DUAL_STACK)]);
    let before = node.machine.traces();
    host_port_leads_to_its_pod_as_long_as_that_is_there(&node);
    assert_eq!(node.machine.traces(), before);
}

#[test]
fn a_host_port_may_be_left_to_the_reference_plugin() {
    let node = Node::new();
    node.configure(&node.machine.with_portmap(&DUAL_STACK));
    host_port_leads_to_its_pod_as_long_as_that_is_there(&node);
    let traces = node.machine.traces();
    assert_eq!(traces.pods(), (0, 0));
    // Its chains stay, without a rule for the port.
    assert!(!traces.ruleset.contains("dport 8000"), "{}", traces.ruleset);
}

#[test]
fn a_pods_annotations_limit_its_bandwidth() {
    let node = Node::new();
    node.configure(&[node.machine.plugin(&DUAL_STACK)]);
    let mut pod = node.containerd.pod("web");
    let annotation = ("kubernetes.io/ingress-bandwidth".to_owned(), "10M".to_owned());
    pod.annotations = [annotation].into();
    let web = node.run(&pod);
    let disciplines = node.machine.run("tc", &["qdisc", "show"]);
    assert!(disciplines.contains("qdisc tbf") && disciplines.contains("rate 10Mbit"), "{disciplines}");
    node.remove(web);
    assert!(!node.machine.run("tc", &["qdisc", "show"]).contains("qdisc tbf"));
}
