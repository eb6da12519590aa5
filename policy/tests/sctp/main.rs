//! SCTP by sockets. The running kernel need not have them: the pods are namespaces of a user-mode-linux,
//! whose interfaces are cables to a node of the running kernel, which judges what goes between them by the
//! ruleset.

#![allow(clippy::unwrap_used, reason = "a test stops at the first thing that goes wrong")]

mod conformance;

use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr};
use std::ops::Range;
use std::thread;
use std::time::Duration;

use socket2::{Domain, Protocol as Number, SockAddr, Socket, Type};
use weft_netlink::netns::Namespace;
use weft_nftables::{Client, KnownTable, Observed, diff};
use weft_policy::plan::{Packet, Planner};
use weft_policy::report::{Finding, Report};
use weft_policy::ruleset::{Denied, Ruleset};
use weft_testkit::namespace::{bare_end, cable, end, forward, machine, sh};
use weft_testkit::user_mode_linux;
use weft_types::{
    LabelSelector, Labels, Namespace as PodNamespace, NamespacedName, NetworkPolicy, Peers, Pod, PodDetails,
    PodPeer, PolicyPeer, PolicyRule, PortMatch, PortMatches, Protocol, Requirement,
};

/// What the other kernel says when all went well.
const PASSED: &str = "associations are made as the policies have it";
/// The modules that it needs, in an order in which each finds what it needs itself.
const MODULES: &str = "crc-ccitt ipv6 hmac udp_tunnel ip6_udp_tunnel sctp";
/// What tells a test that it is there.
const PODS: &str = "WEFT_SCTP_PODS";
/// How long an association may take, and how long silence must last to count as such.
const PATIENCE: Duration = Duration::from_secs(30);
const SILENCE: Duration = Duration::from_secs(2);

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

/// The addresses behind an interface. The first of its networks is the node's.
fn addresses(interface: usize, last: u8) -> [IpAddr; 2] {
    [format!("10.9.{interface}.{last}"), format!("fd09:{interface}::{last}")]
        .map(|text| text.parse().unwrap())
}

/// Whether this is the other kernel.
fn is_there() -> bool {
    std::env::var_os(PODS).is_some()
}

/// Runs a test once more in the other kernel, whose interfaces have these pods, by the last numbers of their
/// addresses, and are connected to a node with that ruleset.
fn run_there(test: &str, interfaces: &[Range<u8>], ruleset: &Ruleset) {
    // The host's end of the cables has no address, so that its kernel answers nobody.
    let (node, pods) = (machine(), machine());
    forward(&node);
    for interface in 0..interfaces.len() {
        let [v4, v6] = addresses(interface, 1);
        cable(
            &end(&node, &format!("n{interface}"), [format!("{v4}/24"), format!("{v6}/64")]),
            &bare_end(&pods, &format!("p{interface}")),
        );
        sh(&pods, &format!("sysctl -qw net.ipv6.conf.p{interface}.disable_ipv6=1"));
    }
    let commit = || Client::open()?.commit(&diff(ruleset.tables(), &Observed::default()));
    node.run(commit).unwrap().unwrap();
    let device = |interface| format!("vec{interface}:transport=raw,ifname=p{interface},depth=64");
    let devices: Vec<String> = (0..interfaces.len()).map(device).collect();
    let setup = setup(interfaces);
    let said = pods.run(|| user_mode_linux::run_test(test, MODULES, &setup, &devices)).unwrap();
    assert!(said.contains(PASSED), "user-mode-linux: {said}");
}

/// Makes a namespace of each interface, as a shell does it there.
fn setup(interfaces: &[Range<u8>]) -> String {
    let pods = |(interface, pods): (usize, &Range<u8>)| {
        let [gateway4, gateway6] = addresses(interface, 1);
        let mut lines = format!(
            "ip netns add p{interface}; ip link set vec{interface} netns p{interface}; \
             ip -n p{interface} link set lo up; ip -n p{interface} link set vec{interface} up\n"
        );
        for [v4, v6] in pods.clone().map(|last| addresses(interface, last)) {
            lines += &format!(
                "ip -n p{interface} address add {v4}/24 dev vec{interface}; \
                 ip -n p{interface} address add {v6}/64 dev vec{interface} nodad\n"
            );
        }
        lines
            + &format!(
                "ip -n p{interface} route add default via {gateway4}; ip -n p{interface} route add default via {gateway6}\n"
            )
    };
    interfaces.iter().enumerate().map(pods).collect::<String>() + &format!("export {PODS}=yes")
}

fn namespace(interface: usize) -> Namespace {
    Namespace::open(format!("/run/netns/p{interface}")).unwrap()
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

/// A socket of one address alone: an association would have all of those that its end has.
fn socket(address: SocketAddr) -> io::Result<Socket> {
    /// `IPPROTO_SCTP`
    const SCTP: i32 = 132;
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Number::from(SCTP)))?;
    socket.bind(&SockAddr::from(address))?;
    Ok(socket)
}

/// Tells everybody the pod's name.
fn serve(namespace: &Namespace, address: SocketAddr, name: &'static str) {
    let open = || {
        let socket = socket(address)?;
        socket.listen(64)?;
        io::Result::Ok(socket)
    };
    let listener = namespace.run(open).unwrap().unwrap();
    thread::spawn(move || {
        while let Ok((mut association, _)) = listener.accept() {
            // Who is asked for the name is read by who asked.
            let _ = association.write_all(name.as_bytes());
        }
    });
}

fn ask(namespace: &Namespace, from: SocketAddr, to: SocketAddr, patience: Duration) -> io::Result<String> {
    namespace
        .run(|| {
            let mut association = socket(from)?;
            association.connect_timeout(&SockAddr::from(to), patience)?;
            association.set_read_timeout(Some(patience))?;
            let mut name = String::new();
            association.read_to_string(&mut name)?;
            Ok(name)
        })
        .unwrap()
}
