//! The tests of SCTP among network-policy-api's conformance tests of ClusterNetworkPolicy, by their short
//! names. A test there changes one policy again and again; here each state of it is a policy of its own for a
//! pod of its own, so that all are tried at once.

use std::net::SocketAddr;
use std::thread;

use weft_policy::plan::Planner;
use weft_policy::ruleset::{Denied, Ruleset};
use weft_types::{
    Action, ClusterNetworkPolicy, ClusterRule, IpBlock, LabelSelector, Namespace as PodNamespace, Node,
    Peers, PodPeer, PolicyPeer, PolicyRule, PortMatch, PortMatches, Protocol, Tier,
};

use weft_testkit::sctp::{PASSED, PATIENCE, SILENCE, addresses, ask, is_there, namespace, serve};

use crate::{pod, run_there, select};

const THIS: &str =
    "conformance::cluster_network_policies_judge_sctp_as_network_policy_api_s_conformance_tests_have_it";
/// The port of the rules, and another one.
const PORTS: [u16; 2] = [9003, 9005];

/// Those that the policies are about, behind the first interface; the last one is a node.
const PEERS: [&str; 4] = ["gryffindor", "slytherin", "hufflepuff", "node"];
const NODE: usize = 3;
/// The interfaces.
const OF_PEERS: usize = 0;
const OF_SUBJECTS: usize = 1;
/// The last number of the first address of each.
const FIRST: u8 = 2;

/// A way of traffic, seen from the pod that a policy is for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Ingress,
    Egress,
}

/// A state of a policy in a test, and whom the pod reaches, or who reaches it: each peer at both ports.
struct State {
    test: &'static str,
    tier: Tier,
    way: Way,
    rules: Vec<ClusterRule>,
    expected: Vec<(usize, [bool; 2])>,
}

fn states() -> Vec<State> {
    let mut states = Vec::new();
    for (tier, way, test) in [
        (Tier::Admin, Way::Ingress, "CNPAdminTierIngressSCTP"),
        (Tier::Admin, Way::Egress, "CNPAdminTierEgressSCTP"),
        (Tier::Baseline, Way::Ingress, "CNPBaselineTierIngressSCTP"),
        (Tier::Baseline, Way::Egress, "CNPBaselineTierEgressSCTP"),
    ] {
        // Rules that change places, and what the first two houses come to.
        let orders = [
            (None, true, false),
            (Some((0, 1)), false, false),
            (Some((0, 2)), true, false),
            (Some((3, 4)), true, true),
        ];
        // The Baseline tier has nothing to pass to.
        let orders = if tier == Tier::Admin { &orders[..] } else { &orders[..2] };
        for &(swap, gryffindor, slytherin) in orders {
            let mut rules = rules();
            swap.iter().for_each(|&(one, other)| rules.swap(one, other));
            rules.retain(|rule| tier == Tier::Admin || rule.action != Action::Pass);
            let expected = vec![(0, [gryffindor; 2]), (1, [slytherin, true]), (2, [true, false])];
            states.push(State { test, tier, way, rules, expected });
        }
    }
    for (tier, test) in
        [(Tier::Admin, "CNPAdminTierEgressNodePeers"), (Tier::Baseline, "CNPBaselineTierEgressNodePeers")]
    {
        let nodes = || PolicyPeer::Nodes(select("kubernetes.io/os", "linux"));
        let network =
            |cidr: &str| PolicyPeer::Network(IpBlock { cidr: cidr.parse().unwrap(), except: Box::default() });
        let all = || rule(Action::Deny, [nodes(), network("0.0.0.0/0"), network("::/0")].into(), None);
        let tcp = rule(Action::Accept, [nodes()].into(), Some((Protocol::Tcp, PORTS[0])));
        let expected = vec![(NODE, [false; 2]), (0, [false; 2])];
        states.push(State { test, tier, way: Way::Egress, rules: vec![tcp, all()], expected });
        let sctp = rule(Action::Accept, [nodes()].into(), Some((Protocol::Sctp, PORTS[0])));
        let expected = vec![(NODE, [true, false]), (0, [false; 2])];
        states.push(State { test, tier, way: Way::Egress, rules: vec![sctp, all()], expected });
    }
    states
}

fn rule(action: Action, peers: Box<[PolicyPeer]>, port: Option<(Protocol, u16)>) -> ClusterRule {
    let ports = port.map_or(PortMatches::All, |(protocol, port)| {
        PortMatches::Any([PortMatch::Numbers { protocol, first: port, last: port }].into())
    });
    ClusterRule { name: Box::default(), action, traffic: PolicyRule { peers: Peers::Any(peers), ports } }
}

/// The rules of the tests, in their order.
fn rules() -> Vec<ClusterRule> {
    let about = |action, house: &str, port: Option<u16>| {
        let namespaces = Some(select("kubernetes.io/metadata.name", house));
        let peer = PolicyPeer::Pods(PodPeer { namespaces, pods: LabelSelector::default() });
        rule(action, [peer].into(), port.map(|port| (Protocol::Sctp, port)))
    };
    let port = Some(PORTS[0]);
    vec![
        about(Action::Accept, PEERS[0], None),
        about(Action::Deny, PEERS[0], None),
        about(Action::Pass, PEERS[0], None),
        about(Action::Deny, PEERS[1], port),
        about(Action::Pass, PEERS[1], port),
        about(Action::Accept, PEERS[2], port),
        about(Action::Deny, PEERS[2], None),
    ]
}

fn last(place: usize) -> u8 {
    FIRST + u8::try_from(place).unwrap()
}

#[test]
fn cluster_network_policies_judge_sctp_as_network_policy_api_s_conformance_tests_have_it() {
    if is_there() {
        return in_the_pods();
    }
    let states = states();
    let interfaces = [FIRST..last(PEERS.len()), FIRST..last(states.len())];
    run_there(THIS, &interfaces, &ruleset(&states));
}

fn ruleset(states: &[State]) -> Ruleset {
    let mut planner = Planner::new("node");
    for (place, name) in PEERS.into_iter().enumerate() {
        let addresses = addresses(OF_PEERS, last(place));
        if place == NODE {
            let labels = [("kubernetes.io/os", "linux")].into_iter().collect();
            let node =
                Node { name: name.to_owned(), labels, all_addresses: addresses.into(), ..Node::default() };
            planner.set_node(name, Some(&node));
            continue;
        }
        let labels = [("kubernetes.io/metadata.name", name)].into_iter().collect();
        planner.set_namespace(name, Some(&PodNamespace { labels, ..PodNamespace::new(name) }));
        let pod = pod(name, "pod", "there", addresses, ("app", name));
        planner.set_pod(&pod.key, Some(&pod));
    }
    for (place, state) in states.iter().enumerate() {
        let name = format!("subject-{place}");
        let pod = pod("ravenclaw", &name, "node", addresses(OF_SUBJECTS, last(place)), ("app", &name));
        planner.set_pod(&pod.key, Some(&pod));
        let rules = |way| if state.way == way { state.rules.clone().into() } else { Box::default() };
        let policy = ClusterNetworkPolicy {
            name: name.clone(),
            tier: state.tier,
            priority: 8,
            namespaces: LabelSelector::default(),
            pods: select("app", &name),
            ingress: rules(Way::Ingress),
            egress: rules(Way::Egress),
        };
        planner.set_cluster_network_policy(&name, Some(&policy));
    }
    let mut ruleset = Ruleset::new(Denied::default());
    ruleset.apply(&planner.commit());
    ruleset
}

/// Everything in the other kernel.
fn in_the_pods() {
    let states = states();
    let namespaces = [OF_PEERS, OF_SUBJECTS].map(namespace);
    for (interface, count) in [(OF_PEERS, PEERS.len()), (OF_SUBJECTS, states.len())] {
        for ip in (0..count).flat_map(|place| addresses(interface, last(place))) {
            PORTS
                .into_iter()
                .for_each(|port| serve(&namespaces[interface], SocketAddr::new(ip, port), "here"));
        }
    }
    let wrong: Vec<String> = thread::scope(|scope| {
        let attempts = states.iter().enumerate().flat_map(|(subject, state)| {
            let at = move |(peer, expected): &(usize, [bool; 2])| (subject, state, *peer, *expected);
            state.expected.iter().map(at)
        });
        let mut running = Vec::new();
        for (subject, state, peer, expected) in attempts {
            for (port, expected) in PORTS.into_iter().zip(expected) {
                for family in 0..2 {
                    let subject = (OF_SUBJECTS, addresses(OF_SUBJECTS, last(subject))[family]);
                    let other = (OF_PEERS, addresses(OF_PEERS, last(peer))[family]);
                    let (from, to) =
                        if state.way == Way::Egress { (subject, other) } else { (other, subject) };
                    let (source, target) = (SocketAddr::new(from.1, 0), SocketAddr::new(to.1, port));
                    let client = &namespaces[from.0];
                    running.push(scope.spawn(move || {
                        let patience = if expected { PATIENCE } else { SILENCE };
                        let seen = ask(client, source, target, patience);
                        let told =
                            format!("{}: {} from {} to {target}: {seen:?}", state.test, PEERS[peer], from.1);
                        (seen.is_ok() != expected).then_some(told)
                    }));
                }
            }
        }
        running.into_iter().filter_map(|attempt| attempt.join().unwrap()).collect()
    });
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    println!("{PASSED}");
}
