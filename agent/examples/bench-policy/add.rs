//! What policies add to the start of a pod: ADD of a pod whose namespace has policies, which the agent
//! answers, beside one of a node without policies and one of a container that is no pod.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::json;
use weft_bench::table::{Table, median, ms};
use weft_netlink::netns::Namespace;
use weft_policy::pending::GuardedNamespaces;

use crate::cluster;
use crate::daemon::{Machine, PODS_PATH};

/// Each is of another pod, as each pod starts once.
const ROUNDS: usize = 150;

/// Where pods are added to.
struct Node<'a> {
    machine: &'a Machine,
    plugin: &'a Path,
    /// Whether the plugin is told which pod it is.
    names_pods: bool,
}

impl Node<'_> {
    /// The time of ADD; DEL follows.
    fn add(&self, round: usize) -> Duration {
        let pod = Namespace::temporary().unwrap();
        let took = self.call("ADD", round, &pod);
        self.call("DEL", round, &pod);
        took
    }

    fn call(&self, command: &str, round: usize, pod: &Namespace) -> Duration {
        let config = json!({
            "cniVersion": "1.0.0", "name": "bench", "type": "bridge", "bridge": "cni0", "isGateway": true,
            "isDefaultGateway": true, "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.200.0.0/22"}]],
            "dataDir": self.machine.path("networks")},
        });
        let name = new_pod(round);
        let arguments = match self.names_pods {
            true => format!(
                "IgnoreUnknown=1;K8S_POD_NAMESPACE=ns0;K8S_POD_NAME={name};K8S_POD_UID={}",
                uid(&name)
            ),
            false => String::new(),
        };
        let mut process = Command::new(self.plugin);
        process.env_clear().envs([
            ("CNI_COMMAND", command),
            ("CNI_IFNAME", "eth0"),
            ("CNI_PATH", "/usr/lib/cni"),
        ]);
        process
            .env("CNI_CONTAINERID", format!("c{round}"))
            .env("CNI_NETNS", pod.path())
            .env("CNI_ARGS", arguments);
        process.stdin(input(&config.to_string())).stdout(Stdio::null());
        let run = || {
            let start = Instant::now();
            let status = process.status().unwrap();
            assert!(status.success(), "{command} failed: {status}");
            start.elapsed()
        };
        self.machine.node.run(run).unwrap()
    }
}

/// The configuration is in the pipe before the program starts, so that it waits for nobody.
fn input(text: &str) -> std::io::PipeReader {
    use std::io::Write;
    let (input, mut end) = std::io::pipe().unwrap();
    end.write_all(text.as_bytes()).unwrap();
    input
}

fn new_pod(round: usize) -> String {
    format!("new-{round}")
}

fn uid(pod: &str) -> String {
    format!("6fbf5a1e-0c1d-4d2b-9d0e-{pod:0>12}")
}

pub(crate) fn measure(agent: &Path, plugin: &Path, table: &mut Table) {
    let machines = [false, true].map(|has_policies| Machine::new(agent, has_policies));
    for machine in &machines {
        let new = (0..ROUNDS).map(|number| cluster::new_pod(&new_pod(number), 0, 1, 0));
        new.for_each(|pod| machine.server.put(PODS_PATH, pod));
    }
    let _agents = machines.each_ref().map(Machine::start);
    let [without, with] = &machines;
    let starts_closed = |machine: &Machine| {
        let path = GuardedNamespaces::path(&machine.path("networks"));
        GuardedNamespaces::read(&path).unwrap().contains("ns0")
    };
    assert!(!starts_closed(without) && starts_closed(with));
    let node = |machine, names_pods| Node { machine, plugin, names_pods };
    let nodes = [node(without, false), node(without, true), node(with, true)];
    let mut times: [Vec<Duration>; 3] = Default::default();
    for round in 0..ROUNDS {
        for turn in 0..nodes.len() {
            let place = (round + turn) % nodes.len();
            times[place].push(nodes[place].add(round));
        }
    }
    let [plain, without, with] = times.each_mut().map(|times| ms(median(times)));
    table.note("ADD of a container that is no pod, p50", format!("{plain:.2} ms"));
    table.at_most("ADD without policies, p50, longer by", without - plain, 0.05, "ms");
    table.at_most("ADD with policies, p50, longer by", with - without, 2.0, "ms");
}
