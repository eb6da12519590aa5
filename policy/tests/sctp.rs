//! SCTP by sockets. The running kernel need not have them: the pods are namespaces of a user-mode-linux,
//! whose interfaces are cables to a node of the running kernel, which judges what goes between them by the
//! ruleset.

#![allow(clippy::unwrap_used, reason = "a test stops at the first thing that goes wrong")]

use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr};
use std::thread;
use std::time::Duration;

use socket2::{Domain, Protocol as Number, SockAddr, Socket, Type};
use weft_netlink::netns::Namespace;
use weft_nftables::{Client, Observed, diff};
use weft_policy::plan::Planner;
use weft_policy::ruleset::{Denied, Ruleset};
use weft_testkit::namespace::{bare_end, cable, end, forward, machine, sh};
use weft_testkit::user_mode_linux;
use weft_types::{
    LabelSelector, Labels, Namespace as PodNamespace, NamespacedName, NetworkPolicy, Peers, Pod, PodDetails,
    PodPeer, PolicyPeer, PolicyRule, PortMatch, PortMatches, Protocol, Requirement,
};

/// The name of the test below, by which the other kernel runs it.
const THIS: &str = "policies_judge_sctp_associations";
/// What the other kernel says when all went well.
const PASSED: &str = "associations are made as the policies have it";
/// The modules that it needs, in an order in which each finds what it needs itself.
const MODULES: &str = "crc-ccitt ipv6 hmac udp_tunnel ip6_udp_tunnel sctp";
/// What tells the test that it is there.
const PODS: &str = "WEFT_SCTP_PODS";

/// The pods, by their numbers.
const NAMES: [&str; 3] = ["server", "client", "stranger"];
const SERVER: usize = 0;
const CLIENT: usize = 1;
const STRANGER: usize = 2;
/// The port that the policy allows, and one that it does not.
const ALLOWED: u16 = 9999;
const OTHER: u16 = 9998;
/// How long an association may take, and how long silence must last to count as such.
const PATIENCE: Duration = Duration::from_secs(30);
const SILENCE: Duration = Duration::from_secs(2);

/// The last address of a pod's network is the pod's, the first its node's.
fn addresses(pod: usize, last: u8) -> [IpAddr; 2] {
    [format!("10.9.{pod}.{last}"), format!("fd09:{pod}::{last}")].map(|text| text.parse().unwrap())
}

#[test]
fn policies_judge_sctp_associations() {
    if std::env::var_os(PODS).is_some() {
        return in_the_pods();
    }
    // The host's end of the cables has no address, so that its kernel answers nobody.
    let (node, pods) = (machine(), machine());
    forward(&node);
    for pod in 0..NAMES.len() {
        let [v4, v6] = addresses(pod, 1);
        cable(
            &end(&node, &format!("n{pod}"), [format!("{v4}/24"), format!("{v6}/64")]),
            &bare_end(&pods, &format!("p{pod}")),
        );
        sh(&pods, &format!("sysctl -qw net.ipv6.conf.p{pod}.disable_ipv6=1"));
    }
    let ruleset = ruleset();
    let commit = || Client::open()?.commit(&diff(ruleset.tables(), &Observed::default()));
    node.run(commit).unwrap().unwrap();

    let devices: Vec<String> =
        (0..NAMES.len()).map(|pod| format!("vec{pod}:transport=raw,ifname=p{pod},depth=64")).collect();
    let said = pods.run(|| user_mode_linux::run_test(THIS, MODULES, &setup(), &devices)).unwrap();
    assert!(said.contains(PASSED), "user-mode-linux: {said}");
}

/// Makes a namespace of each interface, as a shell does it there.
fn setup() -> String {
    let pod = |pod: usize| {
        let ([v4, v6], [gateway4, gateway6]) = (addresses(pod, 2), addresses(pod, 1));
        format!(
            "ip netns add p{pod}; ip link set vec{pod} netns p{pod}; ip -n p{pod} link set lo up; \
             ip -n p{pod} address add {v4}/24 dev vec{pod}; ip -n p{pod} address add {v6}/64 dev vec{pod} nodad; \
             ip -n p{pod} link set vec{pod} up; ip -n p{pod} route add default via {gateway4}; \
             ip -n p{pod} route add default via {gateway6}\n"
        )
    };
    (0..NAMES.len()).map(pod).collect::<String>() + &format!("export {PODS}=yes")
}

/// The client may reach the server's one port by SCTP; nobody else may reach it.
fn ruleset() -> Ruleset {
    let app =
        |name: &str| -> LabelSelector { [Requirement::equals("app", name).unwrap()].into_iter().collect() };
    let mut planner = Planner::new("node");
    planner.set_namespace("shop", Some(&PodNamespace::new("shop")));
    for (number, name) in NAMES.into_iter().enumerate() {
        let labels: Labels = [("app", name)].into_iter().collect();
        let key = NamespacedName::new("shop", name);
        let details = PodDetails { node: Some("node".into()), ..PodDetails::default() };
        let addresses = addresses(number, 2).into_iter().collect();
        let pod =
            Pod { key: key.clone(), addresses, searches: true, labels, details: Some(Box::new(details)) };
        planner.set_pod(&key, Some(&pod));
    }
    let client = PolicyPeer::Pods(PodPeer { namespaces: None, pods: app("client") });
    let port = PortMatch::Numbers { protocol: Protocol::Sctp, first: ALLOWED, last: ALLOWED };
    let rule = PolicyRule { peers: Peers::Any([client].into()), ports: PortMatches::Any([port].into()) };
    let key = NamespacedName::new("shop", "server");
    let policy =
        NetworkPolicy { key: key.clone(), pods: app("server"), ingress: Some([rule].into()), egress: None };
    planner.set_network_policy(&key, Some(&policy));
    let mut ruleset = Ruleset::new(Denied::default());
    ruleset.apply(&planner.commit());
    ruleset
}

/// Everything in the other kernel.
fn in_the_pods() {
    let pods = [SERVER, CLIENT, STRANGER].map(|pod| Namespace::open(format!("/run/netns/p{pod}")).unwrap());
    for pod in [SERVER, CLIENT] {
        for port in [ALLOWED, OTHER] {
            serve(&pods[pod], pod, port);
        }
    }
    for family in 0..2 {
        let at = |pod: usize, port: u16| SocketAddr::new(addresses(pod, 2)[family], port);
        let (server, other) = (at(SERVER, ALLOWED), at(SERVER, OTHER));
        assert_eq!(ask(&pods[CLIENT], server, PATIENCE).unwrap(), "server");
        for (from, to) in [(CLIENT, other), (STRANGER, server), (STRANGER, other)] {
            let error = ask(&pods[from], to, SILENCE).expect_err("a policy denies it");
            assert_eq!(error.kind(), io::ErrorKind::TimedOut, "{from} to {to}: {error}");
        }
        // Nothing isolates the client, and the server may leave.
        for from in [SERVER, STRANGER] {
            assert_eq!(ask(&pods[from], at(CLIENT, OTHER), PATIENCE).unwrap(), "client");
        }
    }
    println!("{PASSED}");
}

fn socket(address: SocketAddr) -> io::Result<Socket> {
    /// `IPPROTO_SCTP`
    const SCTP: i32 = 132;
    Socket::new(Domain::for_address(address), Type::STREAM, Some(Number::from(SCTP)))
}

/// Tells everybody the pod's name.
fn serve(namespace: &Namespace, pod: usize, port: u16) {
    for address in addresses(pod, 2) {
        let address = SocketAddr::new(address, port);
        let open = || {
            let socket = socket(address)?;
            socket.bind(&SockAddr::from(address))?;
            socket.listen(8)?;
            io::Result::Ok(socket)
        };
        let listener = namespace.run(open).unwrap().unwrap();
        thread::spawn(move || {
            while let Ok((mut association, _)) = listener.accept() {
                // Who is asked for the name is read by who asked.
                let _ = association.write_all(NAMES[pod].as_bytes());
            }
        });
    }
}

fn ask(from: &Namespace, to: SocketAddr, patience: Duration) -> io::Result<String> {
    from.run(|| {
        let mut association = socket(to)?;
        association.connect_timeout(&SockAddr::from(to), patience)?;
        association.set_read_timeout(Some(patience))?;
        let mut name = String::new();
        association.read_to_string(&mut name)?;
        Ok(name)
    })
    .unwrap()
}
