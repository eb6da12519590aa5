//! What IPVS forwards, on a kernel that has it: Debian's, in a virtual machine, with real packets. IPVS takes
//! a packet where the node receives it, and sends it on by the hook `output`.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::thread;
use std::time::Duration;

use weft_netlink::netns::Namespace;
use weft_nftables::{Change, Client, Data, Observed, Transaction, Tuple, Value, diff};
use weft_policy::plan::Planner;
use weft_policy::ruleset::{Denied, PENDING, Ruleset};
use weft_testkit::namespace::sh;
use weft_testkit::virtual_machine::Machine;
use weft_testkit::world::{Connection, PATIENCE, World, pod_address, tcp, udp_within};
use weft_types::{Family, NamespacedName, NetworkPolicy, Pod, PodDetails, Protocol};

use super::{pods, rule, select};

/// What the test needs of the kernel.
const MACHINE: Machine<'static> = Machine {
    modules: &[
        "ip_vs",
        "ip_vs_rr",
        "veth",
        "nf_conntrack_netlink",
        "nf_tables",
        "nft_ct",
        "nft_fib_ipv4",
        "nft_fib_ipv6",
        "nft_reject_ipv4",
        "nft_reject_ipv6",
    ],
    programs: &["sh", "ip", "ipvsadm", "conntrack"],
    ..Machine::BARE
};
/// After so long without an answer there is none.
const SILENCE: Duration = Duration::from_millis(1500);

#[test]
fn policies_judge_what_ipvs_leads_to_pods_of_the_same_node() {
    let said = MACHINE.run("--ignored --exact ipvs::connections_by_ipvs_are_judged_like_all_others");
    assert!(said.contains("test result: ok. 1 passed") && said.contains("ended with 0"), "{said}");
}

/// Pod 1 is `web`, and answers at the virtual servers; pod 2 is `ui`.
fn planner() -> Planner {
    let mut planner = Planner::new("here");
    for (number, name) in [(1, "web"), (2, "ui")] {
        let key = NamespacedName::new("shop", name);
        let details = PodDetails { node: Some("here".into()), ..PodDetails::default() };
        let pod = Pod {
            key: key.clone(),
            addresses: Family::BOTH.map(|family| pod_address(family, number)).into_iter().collect(),
            searches: true,
            labels: [("app", name)].into_iter().collect(),
            details: Some(Box::new(details)),
        };
        planner.set_pod(&key, Some(&pod));
    }
    planner
}

fn virtual_server(family: Family) -> SocketAddr {
    let address: IpAddr = match family {
        Family::V4 => "10.96.0.80".parse().unwrap(),
        Family::V6 => "fd00:96::80".parse().unwrap(),
    };
    SocketAddr::new(address, 80)
}

/// A node with virtual servers of both protocols and families, and policies that follow the planner.
struct Node {
    world: World,
    planner: Planner,
    ruleset: Ruleset,
    client: Client,
}

impl Node {
    fn new() -> Node {
        let world = World::new();
        world.serve(8080);
        for family in Family::BOTH {
            let (server, to) = (virtual_server(family), SocketAddr::new(pod_address(family, 1), 8080));
            sh(&world.node, &format!("ip address add {} dev lo", server.ip()));
            for protocol in ["-t", "-u"] {
                sh(&world.node, &format!("ipvsadm -A {protocol} {server} -s rr"));
                sh(&world.node, &format!("ipvsadm -a {protocol} {server} -r {to} -m"));
            }
        }
        sh(&world.node, "sysctl -qw net.ipv4.vs.conntrack=1");
        let mut client = world.node.run(Client::open).unwrap().unwrap();
        let ruleset = Ruleset::new(Denied::default());
        client.commit(&diff(ruleset.tables(), &Observed::default())).unwrap();
        let mut node = Node { world, planner: planner(), ruleset, client };
        node.commit();
        node
    }

    fn commit(&mut self) {
        self.client.commit(&self.ruleset.apply(&self.planner.commit())).unwrap();
    }

    fn put(&mut self, policy: &NetworkPolicy) {
        self.planner.set_network_policy(&policy.key, Some(policy));
        self.commit();
    }

    /// Whether TCP passes from there to the virtual server, and whether UDP does.
    fn passes(&self, from: &Namespace, family: Family) -> [bool; 2] {
        let to = virtual_server(family);
        let silent = |error: std::io::Error| match error.kind() {
            ErrorKind::TimedOut | ErrorKind::WouldBlock => false,
            _ => panic!("{to}: {error}"),
        };
        // Beside each other, as silence is waited for.
        let results = thread::scope(|scope| {
            let by_tcp = scope.spawn(|| Connection::open_within(from, to, SILENCE).map(drop));
            let by_udp = udp_within(from, to, SILENCE).map(drop);
            [by_tcp.join().unwrap(), by_udp]
        });
        results.map(|result| result.map_or_else(silent, |()| true))
    }
}

/// What `ui` or others may do.
fn policy(pod: &str) -> NetworkPolicy {
    NetworkPolicy {
        key: NamespacedName::new("shop", pod),
        pods: select(&format!("app={pod}")),
        ingress: None,
        egress: None,
    }
}

#[test]
#[ignore = "runs on a kernel with IPVS"]
fn connections_by_ipvs_are_judged_like_all_others() {
    let mut node = Node::new();
    let all = |node: &Node, family| {
        let World { node: own, pods, outside } = &node.world;
        thread::scope(|scope| {
            let asking = [own, &pods[1], outside].map(|from| scope.spawn(move || node.passes(from, family)));
            asking.map(|thread| thread.join().unwrap())
        })
    };
    for family in Family::BOTH {
        assert_eq!(all(&node, family), [[true; 2]; 3], "no policy, {family:?}");
    }
    let only_ui = rule(&[pods("app=ui")], &[(Protocol::Tcp, 8080, 8080)]);
    node.put(&NetworkPolicy { ingress: Some([only_ui].into()), ..policy("web") });
    for family in Family::BOTH {
        let expected = [[true; 2], [true, false], [false; 2]];
        assert_eq!(all(&node, family), expected, "from the node, ui and outside, {family:?}");
    }
    let mut open = Family::BOTH.map(|family| connect(&node.world.pods[1], virtual_server(family)));
    let udp_alone = rule(&[], &[(Protocol::Udp, 8080, 8080)]);
    node.put(&NetworkPolicy { egress: Some([udp_alone].into()), ..policy("ui") });
    for family in Family::BOTH {
        assert_eq!(
            node.passes(&node.world.pods[1], family),
            [false; 2],
            "neither end allows both: {family:?}"
        );
    }
    // What was there goes on until nobody knows it any more; then it is refused, by its virtual server.
    open.iter_mut().for_each(|stream| ask(stream).unwrap());
    sh(&node.world.node, "conntrack -F");
    for stream in &mut open {
        assert_eq!(ask(stream).unwrap_err().kind(), ErrorKind::ConnectionReset);
    }
    // Pods that wait are closed, but for their own node.
    node.planner.set_network_policy(&policy("ui").key, None);
    node.commit();
    for (table, family) in [(0, Family::V4), (1, Family::V6)] {
        assert_eq!(node.passes(&node.world.pods[1], family), [true, false]);
        let set = node.ruleset.tables()[table].sets[PENDING].declaration.clone();
        let waiting = (Tuple::new(&[Value::Address(pod_address(family, 1))]), Data::None);
        let transaction = Transaction { changes: vec![Change::AddElements(set, vec![waiting])] };
        node.client.commit(&transaction).unwrap();
        assert_eq!(all(&node, family), [[true; 2], [false; 2], [false; 2]], "{family:?}");
        assert!(tcp(&node.world.node, virtual_server(family)).starts_with("1 "));
    }
}

fn connect(from: &Namespace, to: SocketAddr) -> TcpStream {
    let stream = from.run(|| TcpStream::connect_timeout(&to, PATIENCE)).unwrap().unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// Has a server answer once.
fn ask(stream: &mut TcpStream) -> std::io::Result<()> {
    stream.write_all(b"?")?;
    let mut length = [0];
    stream.read_exact(&mut length)?;
    let mut text = vec![0; length[0].into()];
    stream.read_exact(&mut text)
}
