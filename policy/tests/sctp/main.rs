//! SCTP by sockets. The running kernel need not have them: the pods are namespaces of a virtual machine, whose
//! network cards are links of a node of the running kernel, which judges what goes between them by the ruleset.

#![allow(clippy::unwrap_used, reason = "a test stops at the first thing that goes wrong")]

mod conformance;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::ops::Range;

use weft_nftables::{Client, KnownTable, Observed};
use weft_policy::plan::{Packet, Planner};
use weft_policy::report::{Finding, Report};
use weft_policy::ruleset::{Denied, Ruleset};
use weft_testkit::namespace::{forward, machine};
use weft_testkit::sctp::{PASSED, PATIENCE, SILENCE, addresses, ask, is_there, namespace, serve};
use weft_types::{
    LabelSelector, Labels, Namespace as PodNamespace, NamespacedName, NetworkPolicy, Peers, Pod, PodDetails,
    PodPeer, PolicyPeer, PolicyRule, PortMatch, PortMatches, Protocol, Requirement,
};

/// The pods, by their numbers; each has an interface of its own.
const NAMES: [&str; 3] = ["server", "client", "stranger"];
const SERVER: usize = 0;
const CLIENT: usize = 1;
const STRANGER: usize = 2;
/// The port that the policy allows, and one that it does not.
const ALLOWED: u16 = 9999;
const OTHER: u16 = 9998;
/// The last number of a pod's addresses, where it is the only one of its interface.
const ONLY: u8 = 2;

/// Runs a test once more in the other kernel, whose pods are connected to a node with that ruleset.
fn run_there(test: &str, interfaces: &[Range<u8>], ruleset: &Ruleset) {
    let node = machine();
    forward(&node);
    let commit = || Client::open()?.commit(&ruleset.bring(&Observed::default()));
    node.run(commit).unwrap().unwrap();
    weft_testkit::sctp::run_there(test, &node, interfaces);
}

/// A pod of the node that judges, or of another one.
fn pod(namespace: &str, name: &str, node: &str, addresses: [IpAddr; 2], label: (&str, &str)) -> Pod {
    let details = PodDetails { node: Some(node.into()), ..PodDetails::default() };
    Pod {
        key: NamespacedName::new(namespace, name),
        addresses: addresses.into_iter().collect(),
        searches: true,
        labels: [label].into_iter().collect::<Labels>(),
        details: Some(Box::new(details)),
    }
}

fn select(key: &str, value: &str) -> LabelSelector {
    [Requirement::equals(key, value).unwrap()].into_iter().collect()
}

#[test]
fn policies_judge_sctp_associations() {
    if is_there() {
        return in_the_pods();
    }
    let planner = planner();
    let mut ruleset = Ruleset::new(Denied::default());
    ruleset.apply(&planner.plan().whole());
    run_there("policies_judge_sctp_associations", &[(); NAMES.len()].map(|()| ONLY..ONLY + 1), &ruleset);

    // What was seen is what is said of it.
    let tables: Vec<KnownTable> = ruleset.tables().iter().map(KnownTable::from).collect();
    let says = |from: usize, to: usize, port: u16| {
        let [source, destination] = [from, to].map(|pod| addresses(pod, ONLY)[0]);
        let packet = Packet { source, destination, port: Some((Protocol::Sctp, port)) };
        Report::new("node", &planner.explain(&packet), &tables, &packet).finding()
    };
    assert_eq!(says(CLIENT, SERVER, ALLOWED), Finding::Allowed);
    for (from, port) in [(CLIENT, OTHER), (STRANGER, ALLOWED), (STRANGER, OTHER)] {
        assert_eq!(says(from, SERVER, port), Finding::Denied);
    }
    assert_eq!(says(SERVER, CLIENT, OTHER), Finding::Allowed);
}

/// The client may reach the server's one port by SCTP; nobody else may reach it.
fn planner() -> Planner {
    let mut planner = Planner::new("node");
    planner.set_namespace("shop", Some(&PodNamespace::new("shop")));
    for (number, name) in NAMES.into_iter().enumerate() {
        let pod = pod("shop", name, "node", addresses(number, ONLY), ("app", name));
        planner.set_pod(&pod.key, Some(&pod));
    }
    let client = PolicyPeer::Pods(PodPeer { namespaces: None, pods: select("app", "client") });
    let port = PortMatch::Numbers { protocol: Protocol::Sctp, first: ALLOWED, last: ALLOWED };
    let rule = PolicyRule { peers: Peers::Any([client].into()), ports: PortMatches::Any([port].into()) };
    let key = NamespacedName::new("shop", "server");
    let policy = NetworkPolicy {
        key: key.clone(),
        pods: select("app", "server"),
        ingress: Some([rule].into()),
        egress: None,
    };
    planner.set_network_policy(&key, Some(&policy));
    planner.commit();
    planner
}

/// Everything in the other kernel.
fn in_the_pods() {
    let pods = [SERVER, CLIENT, STRANGER].map(namespace);
    for pod in [SERVER, CLIENT] {
        for port in [ALLOWED, OTHER] {
            addresses(pod, ONLY)
                .into_iter()
                .for_each(|ip| serve(&pods[pod], SocketAddr::new(ip, port), NAMES[pod]));
        }
    }
    for family in 0..2 {
        let at = |pod: usize, port: u16| SocketAddr::new(addresses(pod, ONLY)[family], port);
        let ask = |from: usize, to: SocketAddr, patience| ask(&pods[from], at(from, 0), to, patience);
        let (server, other) = (at(SERVER, ALLOWED), at(SERVER, OTHER));
        assert_eq!(ask(CLIENT, server, PATIENCE).unwrap(), "server");
        for (from, to) in [(CLIENT, other), (STRANGER, server), (STRANGER, other)] {
            let error = ask(from, to, SILENCE).expect_err("a policy denies it");
            assert_eq!(error.kind(), io::ErrorKind::TimedOut, "{from} to {to}: {error}");
        }
        // Nothing isolates the client, and the server may leave.
        for from in [SERVER, STRANGER] {
            assert_eq!(ask(from, at(CLIENT, OTHER), PATIENCE).unwrap(), "client");
        }
    }
    println!("{PASSED}");
}
