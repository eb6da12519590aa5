//! The same policies in other shapes, for the pods of the node: a chain for each pod and each policy, in
//! iptables with sets of ipset as kube-router has it, and in nf_tables.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::net::IpAddr;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use weft_bench::table::quantile;
use weft_netlink::netns::Namespace;
use weft_types::{
    Namespace as ClusterNamespace, NamespacedName, NetworkPolicy, Peers, Pod, PolicyPeer, PolicyRule,
    PortMatch, PortMatches, Protocol, Snapshot,
};

use crate::cluster::NODE;

/// How often everything is loaded, and changed; the best load and the median change count.
const LOADS: usize = 3;
const CHANGES: usize = 9;

/// Another way to program policies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    /// Chains of iptables for pods and policies, and sets of ipset. Every change is a new load of all.
    KubeRouter { program: &'static str },
    /// The same by nf_tables alone. A change of a policy is one of its chain.
    ChainPerPod,
}

pub(crate) const SHAPES: [Shape; 3] = [
    Shape::KubeRouter { program: "iptables-nft-restore" },
    Shape::KubeRouter { program: "iptables-legacy-restore" },
    Shape::ChainPerPod,
];

/// A pod of the node, and the numbers of the policies that isolate it in each direction.
struct Local {
    address: IpAddr,
    policies: [Vec<usize>; 2],
}

/// All that a shape is made of.
pub(crate) struct Rules {
    locals: Vec<Local>,
    policies: Vec<NetworkPolicy>,
    /// The peers of each policy's rules, by direction; nothing for all.
    peers: Vec<[Vec<Option<Vec<IpAddr>>>; 2]>,
}

impl Shape {
    pub(crate) fn name(self) -> String {
        match self {
            Shape::KubeRouter { program } => {
                let mode = if program.contains("nft") { "nft" } else { "legacy" };
                format!("kube-router's shape: ipset, iptables ({mode})")
            }
            Shape::ChainPerPod => "a chain for each pod, nft".to_owned(),
        }
    }

    /// Loads all rules into the calling thread's namespace. Returns how long the programs took.
    pub(crate) fn load(self, rules: &Rules) -> Duration {
        match self {
            Shape::KubeRouter { program } => {
                let (sets, chains) = (rules.ipset(), rules.iptables());
                timed("ipset", &["restore", "-exist"], &sets) + timed(program, &["--noflush"], &chains)
            }
            Shape::ChainPerPod => timed("nft", &["-f", "-"], &rules.nftables()),
        }
    }

    /// Writes what a change of one policy comes to.
    fn change(self, rules: &Rules, round: usize) -> Duration {
        match self {
            Shape::KubeRouter { .. } => self.load(rules),
            Shape::ChainPerPod => {
                let used: BTreeSet<usize> = rules.used().collect();
                let number = *used.iter().nth(round % used.len()).unwrap();
                let text = format!("flush chain ip per-pod policy-{number}-0\n{}", rules.chain(number, 0));
                timed("nft", &["-f", "-"], &text)
            }
        }
    }

    /// The time of a first load and of a change of one policy.
    pub(crate) fn times(self, rules: &Rules) -> [Duration; 2] {
        let load = || Namespace::temporary().unwrap().run(|| self.load(rules)).unwrap();
        let best = (0..LOADS).map(|_| load()).min().unwrap();
        let changes = || {
            self.load(rules);
            let mut times: Vec<Duration> = (0..CHANGES).map(|round| self.change(rules, round)).collect();
            quantile(&mut times, 0.5)
        };
        [best, Namespace::temporary().unwrap().run(changes).unwrap()]
    }
}

/// From the start of a program to its end.
fn timed(program: &str, arguments: &[&str], input: &str) -> Duration {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), input).unwrap();
    let start = Instant::now();
    let mut command = Command::new(program);
    command.args(arguments).stdin(file.reopen().unwrap()).stdout(Stdio::null());
    let output = command.output().unwrap_or_else(|error| panic!("{program}: {error}"));
    assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
    start.elapsed()
}

fn rules_of(policy: &NetworkPolicy, direction: usize) -> Option<&[PolicyRule]> {
    [&policy.ingress, &policy.egress][direction].as_deref()
}

impl Rules {
    /// What the policies come to on the node.
    pub(crate) fn new(snapshot: &Snapshot) -> Rules {
        let pods: Vec<&Pod> = snapshot.of::<Pod>().iter().collect();
        let policies: Vec<NetworkPolicy> = snapshot.of::<NetworkPolicy>().iter().cloned().collect();
        let here =
            |pod: &&&Pod| pod.details.as_ref().is_some_and(|details| details.node.as_deref() == Some(NODE));
        let selects = |policy: &NetworkPolicy, pod: &Pod| {
            policy.key.namespace == pod.key.namespace && policy.pods.matches(&pod.labels)
        };
        let isolating = |pod: &Pod, direction: usize| -> Vec<usize> {
            let all = policies.iter().enumerate();
            let isolates =
                |policy: &NetworkPolicy| rules_of(policy, direction).is_some() && selects(policy, pod);
            all.filter(|(_, policy)| isolates(policy)).map(|(number, _)| number).collect()
        };
        let local = |pod: &&Pod| Local {
            address: pod.addresses[0],
            policies: [isolating(pod, 0), isolating(pod, 1)],
        };
        let locals: Vec<Local> = pods.iter().filter(here).map(local).collect();
        let used: BTreeSet<usize> = locals.iter().flat_map(|local| local.policies.concat()).collect();
        let peers = policies.iter().enumerate().map(|(number, policy)| match used.contains(&number) {
            true => [0, 1].map(|direction| {
                let rules = rules_of(policy, direction).unwrap_or_default();
                rules.iter().map(|rule| peers(rule, &policy.key, &pods, snapshot)).collect()
            }),
            false => Default::default(),
        });
        let peers = peers.collect();
        Rules { locals, policies, peers }
    }

    /// The numbers of the policies that isolate pods of the node for ingress.
    fn used(&self) -> impl Iterator<Item = usize> {
        self.locals.iter().flat_map(|local| local.policies[0].iter().copied())
    }

    /// The policies that isolate some pod of the node, each with a direction in which it does.
    fn isolating(&self) -> BTreeSet<(usize, usize)> {
        let of = |local: &Local| {
            let both = [0, 1].map(|direction| {
                local.policies[direction].iter().map(move |number| (*number, direction)).collect()
            });
            <[Vec<_>; 2] as IntoIterator>::into_iter(both).flatten().collect::<Vec<_>>()
        };
        self.locals.iter().flat_map(of).collect()
    }

    /// The set of a rule's peers.
    fn sets(&self) -> impl Iterator<Item = (String, &[IpAddr])> {
        self.isolating().into_iter().flat_map(move |(number, direction)| {
            let rules = self.peers[number][direction].iter().enumerate();
            rules.filter_map(move |(place, peers)| Some((set(number, direction, place), peers.as_deref()?)))
        })
    }

    fn ipset(&self) -> String {
        let mut text = String::new();
        for (set, peers) in self.sets() {
            let _ = writeln!(text, "create {set} hash:ip family inet maxelem 65536");
            for peer in peers {
                let _ = writeln!(text, "add {set} {peer}");
            }
        }
        text
    }

    fn iptables(&self) -> String {
        let mut chains = String::from("*filter\n:KUBE-ROUTER-FORWARD - [0:0]\n");
        let mut rules = String::from("-A FORWARD -j KUBE-ROUTER-FORWARD\n");
        let mut pods = String::new();
        for (number, local) in self.locals.iter().enumerate() {
            let (chain, address) = (format!("KUBE-POD-FW-{number:016X}"), local.address);
            let _ = writeln!(chains, ":{chain} - [0:0]");
            let _ = write!(
                rules,
                "-A KUBE-ROUTER-FORWARD -d {address}/32 -j {chain}\n-A KUBE-ROUTER-FORWARD -s {address}/32 -j {chain}\n"
            );
            let _ = writeln!(pods, "-A {chain} -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT");
            for (direction, way) in ["-d", "-s"].into_iter().enumerate() {
                let policies = &local.policies[direction];
                for policy in policies {
                    let _ = writeln!(pods, "-A {chain} {way} {address}/32 -j {}", nwplcy(*policy, direction));
                }
                if policies.is_empty() {
                    let _ = writeln!(pods, "-A {chain} {way} {address}/32 -j MARK --or-mark 0x10000");
                }
            }
            let _ = write!(
                pods,
                "-A {chain} -m mark ! --mark 0x10000/0x10000 -j REJECT\n-A {chain} -j MARK --set-xmark 0x0/0x10000\n\
                 -A {chain} -j MARK --or-mark 0x20000\n"
            );
        }
        rules.push_str("-A KUBE-ROUTER-FORWARD -m mark --mark 0x20000/0x20000 -j ACCEPT\n");
        for (number, direction) in self.isolating() {
            let chain = nwplcy(number, direction);
            let _ = writeln!(chains, ":{chain} - [0:0]");
            for (place, rule) in
                rules_of(&self.policies[number], direction).unwrap_or_default().iter().enumerate()
            {
                let peer = match &self.peers[number][direction][place] {
                    Some(_) => format!(
                        " -m set --match-set {} {}",
                        set(number, direction, place),
                        ["src", "dst"][direction]
                    ),
                    None => String::new(),
                };
                for port in ports(rule, ":") {
                    let port = port
                        .map(|(protocol, port)| format!(" -p {protocol} --dport {port}"))
                        .unwrap_or_default();
                    let _ = write!(
                        pods,
                        "-A {chain}{peer}{port} -j MARK --or-mark 0x10000\n-A {chain}{peer}{port} -m mark --mark 0x10000/0x10000 -j RETURN\n"
                    );
                }
            }
        }
        format!("{chains}{rules}{pods}COMMIT\n")
    }

    fn nftables(&self) -> String {
        let mut text = String::from("add table ip per-pod\n");
        for (set, peers) in self.sets() {
            let _ = writeln!(text, "add set ip per-pod {set} {{ type ipv4_addr; }}");
            for some in peers.chunks(500) {
                let list: Vec<String> = some.iter().map(ToString::to_string).collect();
                let _ = writeln!(text, "add element ip per-pod {set} {{ {} }}", list.join(", "));
            }
        }
        for (number, direction) in self.isolating() {
            let _ = write!(
                text,
                "add chain ip per-pod policy-{number}-{direction}\n{}",
                self.chain(number, direction)
            );
        }
        let mut elements = [Vec::new(), Vec::new()];
        for (number, local) in self.locals.iter().enumerate() {
            for (direction, policies) in
                local.policies.iter().enumerate().filter(|(_, policies)| !policies.is_empty())
            {
                let chain = format!("pod-{number}-{direction}");
                let _ = writeln!(text, "add chain ip per-pod {chain}");
                for policy in policies {
                    let _ = writeln!(text, "add rule ip per-pod {chain} jump policy-{policy}-{direction}");
                }
                let _ = writeln!(text, "add rule ip per-pod {chain} drop");
                elements[direction].push(format!("{} : goto {chain}", local.address));
            }
        }
        for (direction, (map, end)) in [("ingress", "daddr"), ("egress", "saddr")].into_iter().enumerate() {
            // What leaves a pod is judged before what enters one.
            let priority = 1 - direction;
            let _ = write!(
                text,
                "add map ip per-pod {map} {{ type ipv4_addr : verdict; elements = {{ {} }}; }}\n\
                 add chain ip per-pod {map} {{ type filter hook forward priority {priority}; }}\n\
                 add rule ip per-pod {map} ct state established,related accept\n\
                 add rule ip per-pod {map} ip {end} vmap @{map}\n",
                elements[direction].join(", ")
            );
        }
        text
    }

    /// The rules of a policy's chain.
    fn chain(&self, number: usize, direction: usize) -> String {
        let mut text = String::new();
        for (place, rule) in
            rules_of(&self.policies[number], direction).unwrap_or_default().iter().enumerate()
        {
            let peer = match &self.peers[number][direction][place] {
                Some(_) => {
                    format!(" ip {} @{}", ["saddr", "daddr"][direction], set(number, direction, place))
                }
                None => String::new(),
            };
            for port in ports(rule, "-") {
                let port =
                    port.map(|(protocol, port)| format!(" {protocol} dport {port}")).unwrap_or_default();
                let _ = writeln!(text, "add rule ip per-pod policy-{number}-{direction}{peer}{port} accept");
            }
        }
        text
    }
}

fn set(policy: usize, direction: usize, rule: usize) -> String {
    format!("{}-{policy:08X}-{rule}", ["KUBE-SRC", "KUBE-DST"][direction])
}

fn nwplcy(policy: usize, direction: usize) -> String {
    format!("KUBE-NWPLCY-{direction}-{policy:012X}")
}

/// Each of a rule's ports with its protocol; once nothing where there are all.
fn ports(rule: &PolicyRule, between: &str) -> Vec<Option<(&'static str, String)>> {
    let PortMatches::Any(ports) = &rule.ports else { return vec![None] };
    let port = |port: &PortMatch| match port {
        PortMatch::Numbers { protocol, first, last } => {
            let name = if *protocol == Protocol::Udp { "udp" } else { "tcp" };
            let text = if first == last { first.to_string() } else { format!("{first}{between}{last}") };
            Some((name, text))
        }
        PortMatch::Named { .. } => None,
    };
    ports.iter().map(port).collect()
}

/// The addresses of all pods that a rule is about; nothing where it is about everybody.
fn peers(
    rule: &PolicyRule,
    policy: &NamespacedName,
    pods: &[&Pod],
    snapshot: &Snapshot,
) -> Option<Vec<IpAddr>> {
    let Peers::Any(peers) = &rule.peers else { return None };
    let matches = |pod: &&&Pod| {
        peers.iter().any(|peer| {
            let PolicyPeer::Pods(peer) = peer else { return false };
            let is_there = match &peer.namespaces {
                None => pod.key.namespace == policy.namespace,
                Some(selector) => {
                    let namespace = snapshot.of::<ClusterNamespace>().get(&pod.key.namespace);
                    namespace.is_some_and(|namespace| selector.matches(&namespace.labels))
                }
            };
            is_there && peer.pods.matches(&pod.labels)
        })
    };
    Some(pods.iter().filter(matches).map(|pod| pod.addresses[0]).collect())
}
