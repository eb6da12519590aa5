//! Times ADD and DEL side by side in one run: the bare netlink calls for the same end state, this plugin, and the
//! reference bridge + host-local with ipMasq off and on, each on a node of its own. Run as root by `make bench-cni`.
//!
//! `bench-cni PLUGIN [ROUNDS]`, with the path of the release `weft-cni`. It calls itself as `bench-cni bare ...`.

#![allow(clippy::unwrap_used, reason = "a benchmark stops at the first thing that goes wrong")]

use std::collections::BTreeSet;
use std::env;
use std::fs;
use std::io::Write;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use weft_netlink::netns::Namespace;
use weft_netlink::route::{self, Address, Bridge, LinkChange, Route, Veth, VethEnd};

const REFERENCE: &str = "/usr/lib/cni/bridge";
const PARALLEL: usize = 100;

/// Somebody who connects pods, on a node of its own.
struct Contender {
    name: &'static str,
    program: PathBuf,
    /// None for the bare calls, which need no configuration.
    config: Option<Value>,
    node: Namespace,
    folder: tempfile::TempDir,
}

/// A pod's namespace, gone when dropped.
struct Pod {
    id: String,
    netns: PathBuf,
}

impl Drop for Pod {
    fn drop(&mut self) {
        let _ = Namespace::remove(&self.netns);
    }
}

impl Contender {
    fn new(name: &'static str, program: impl Into<PathBuf>, ip_masq: Option<bool>) -> Contender {
        let (node, folder) = (Namespace::temporary().unwrap(), tempfile::tempdir().unwrap());
        let config = ip_masq.map(|ip_masq| {
            json!({
                "cniVersion": "1.0.0", "name": "bench", "type": "bridge", "bridge": "cni0",
                "isGateway": true, "isDefaultGateway": true, "ipMasq": ip_masq,
                "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.244.0.0/22"}]], "dataDir": folder.path()},
            })
        });
        Contender { name, program: program.into(), config, node, folder }
    }

    fn pod(&self, id: &str) -> Pod {
        let netns = self.folder.path().join(format!("netns-{id}"));
        Namespace::create(&netns).unwrap();
        Pod { id: id.to_owned(), netns }
    }

    /// The command line, which `tracer` may go before.
    fn command(&self, tracer: &[&str], command: &str, pod: &Pod) -> Command {
        let words = tracer.iter().map(PathBuf::from).chain([self.program.clone()]);
        let mut words = words.collect::<Vec<_>>().into_iter();
        let mut process = Command::new(words.next().unwrap());
        process.args(words);
        if self.config.is_none() {
            process.args(["bare", command, &pod.id]).arg(&pod.netns);
        }
        let variables = [("CNI_COMMAND", command), ("CNI_CONTAINERID", &pod.id), ("CNI_IFNAME", "eth0")];
        process.env_clear().envs(variables).env("CNI_NETNS", &pod.netns);
        process.envs([("CNI_PATH", "/usr/lib/cni"), ("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")]);
        process.stdin(Stdio::piped()).stdout(Stdio::piped());
        process
    }

    /// To be called in the node's namespace.
    fn spawn(&self, tracer: &[&str], command: &str, pod: &Pod) -> Child {
        let mut child = self.command(tracer, command, pod).spawn().unwrap();
        let config = self.config.as_ref().map(Value::to_string).unwrap_or_default();
        child.stdin.take().unwrap().write_all(config.as_bytes()).unwrap();
        child
    }

    /// From the start of the program to its end, and what it printed.
    fn timed(&self, command: &str, pod: &Pod) -> Duration {
        let call = || {
            let start = Instant::now();
            finish(self.spawn(&[], command, pod));
            start.elapsed()
        };
        self.node.run(call).unwrap()
    }

    /// System calls and started programs, the contender's own included.
    fn traced(&self, command: &str, pod: &Pod) -> (usize, usize) {
        let log = self.folder.path().join("strace");
        let tracer = ["strace", "-f", "-qq", "-o", log.to_str().unwrap()];
        self.node.run(|| finish(self.spawn(&tracer, command, pod))).unwrap();
        let text = fs::read_to_string(&log).unwrap();
        let calls = text
            .lines()
            .filter(|line| !line.contains(" resumed>") && !line.contains(" +++ ") && !line.contains(" --- "));
        let execs = text.lines().filter(|line| line.contains("execve(") && !line.contains(" = -1"));
        (calls.count(), execs.count())
    }

    /// The time for all pods at once, and what each was told.
    fn parallel(&self, command: &str, pods: &[Pod]) -> (Duration, Vec<String>) {
        let call = || {
            let start = Instant::now();
            let children: Vec<Child> = pods.iter().map(|pod| self.spawn(&[], command, pod)).collect();
            let answers = children.into_iter().map(finish).collect();
            (start.elapsed(), answers)
        };
        self.node.run(call).unwrap()
    }
}

fn finish(child: Child) -> String {
    let output = child.wait_with_output().unwrap();
    let answer = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{answer}");
    answer
}

fn main() {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["bare", "ADD", id, netns] => bare_add(id, Path::new(netns)),
        ["bare", "DEL", id, _] => Route::open().unwrap().delete_link_named(&near_name(id)).unwrap(),
        [plugin] => compare(plugin, 100),
        [plugin, rounds] => compare(plugin, rounds.parse().unwrap()),
        _ => panic!("usage: bench-cni PLUGIN [ROUNDS]"),
    }
}

fn near_name(id: &str) -> String {
    format!("veth{id}")
}

/// What no plugin can do without: a veth pair at the bridge, the pod's end up with an address and a default route.
fn bare_add(id: &str, netns: &Path) {
    let mut host = Route::open().unwrap();
    let bridge = host.link("cni0").unwrap().index;
    let namespace = Namespace::open(netns).unwrap();
    let end = |name: String| VethEnd { name, mac: None, mtu: None };
    let veth =
        Veth { near: end(near_name(id)), near_up: true, master: Some(bridge), far: end("eth0".into()) };
    host.add_veth(&veth, namespace.as_fd()).unwrap();
    let inside = || {
        let mut route = Route::open().unwrap();
        let link = route.link("eth0").unwrap().index;
        route.change_link(link, &LinkChange { up: Some(true), ..LinkChange::default() }).unwrap();
        route.add_address(Address { link, address: "10.244.0.2/22".parse().unwrap() }).unwrap();
        let default = route::Path::default_via("10.244.0.1".parse().unwrap());
        route.add_path(&default).unwrap();
    };
    namespace.run(inside).unwrap();
}

/// The bridge that the bare calls find.
fn prepare_bridge(node: &Namespace) {
    let work = || {
        let mut route = Route::open().unwrap();
        route.add_bridge(&Bridge { name: "cni0".into(), mac: None, mtu: None }).unwrap();
        let link = route.link("cni0").unwrap().index;
        route.change_link(link, &LinkChange { up: Some(true), ..LinkChange::default() }).unwrap();
        route.add_address(Address { link, address: "10.244.0.1/22".parse().unwrap() }).unwrap();
    };
    node.run(work).unwrap();
}

fn compare(plugin: &str, rounds: usize) {
    let contenders = [
        Contender::new("bare netlink calls", env::current_exe().unwrap(), None),
        Contender::new("weft-cni", plugin, Some(false)),
        Contender::new("reference", REFERENCE, Some(false)),
        Contender::new("reference, ipMasq", REFERENCE, Some(true)),
    ];
    prepare_bridge(&contenders[0].node);
    let pods: Vec<Pod> = contenders.iter().map(|contender| contender.pod("c1")).collect();
    let mut times: Vec<[Vec<Duration>; 2]> = contenders.iter().map(|_| [Vec::new(), Vec::new()]).collect();
    // The first round makes the bridges and is not counted. All take turns, so that the machine's moods are shared.
    for round in 0..=rounds {
        for (index, (contender, pod)) in contenders.iter().zip(&pods).enumerate() {
            for (place, command) in ["ADD", "DEL"].into_iter().enumerate() {
                let time = contender.timed(command, pod);
                if round > 0 {
                    times[index][place].push(time);
                }
            }
        }
    }
    let medians: Vec<[f64; 2]> = times.into_iter().map(|both| both.map(median)).collect();
    println!("{rounds} rounds, wall time from start to end of the program, median in ms\n");
    println!(
        "| | ADD | x bare | DEL | x bare | ADD: system calls | programs | DEL: system calls | programs |"
    );
    println!("|---|---|---|---|---|---|---|---|---|");
    for ((contender, pod), [add, del]) in contenders.iter().zip(&pods).zip(&medians) {
        let (add_calls, del_calls) = (contender.traced("ADD", pod), contender.traced("DEL", pod));
        let (add_ratio, del_ratio) = (add / medians[0][0], del / medians[0][1]);
        println!(
            "| {} | {add:.2} | {add_ratio:.2} | {del:.2} | {del_ratio:.2} | {} | {} | {} | {} |",
            contender.name, add_calls.0, add_calls.1, del_calls.0, del_calls.1
        );
    }
    println!();
    print_parallel(&contenders[1..]);
    let size = fs::metadata(plugin).unwrap().len() as f64 / f64::from(1 << 20);
    println!("\nThe plugin's file has {size:.2} MiB.");
}

fn print_parallel(contenders: &[Contender]) {
    println!("{PARALLEL} at once, wall time until the last has ended, in ms\n");
    println!("| | ADD | per second | DEL | per second |");
    println!("|---|---|---|---|---|");
    for contender in contenders {
        let pods: Vec<Pod> = (0..PARALLEL).map(|number| contender.pod(&format!("p{number}"))).collect();
        let (add, answers) = contender.parallel("ADD", &pods);
        let address =
            |answer: &String| serde_json::from_str::<Value>(answer).unwrap()["ips"][0]["address"].to_string();
        let addresses: BTreeSet<String> = answers.iter().map(address).collect();
        assert_eq!(addresses.len(), PARALLEL, "{}: an address was given twice", contender.name);
        let (del, _) = contender.parallel("DEL", &pods);
        let [add, del] = [add, del].map(|time| time.as_secs_f64());
        let rate = |seconds: f64| PARALLEL as f64 / seconds;
        println!(
            "| {} | {:.0} | {:.0} | {:.0} | {:.0} |",
            contender.name,
            add * 1e3,
            rate(add),
            del * 1e3,
            rate(del)
        );
    }
}

/// In milliseconds.
fn median(mut times: Vec<Duration>) -> f64 {
    times.sort();
    times[times.len() / 2].as_secs_f64() * 1e3
}
