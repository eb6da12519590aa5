//! Stale connections against the real kernel, with clients that go on sending from one socket. The names are
//! those of the behaviours in Kubernetes' own Conntrack suite. Needs root and the packages nftables, iproute2
//! and conntrack.

#![allow(clippy::unwrap_used, reason = "a test stops at the first thing that goes wrong")]

use std::cell::Cell;
use std::io::Write;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

use weft_cluster::{WatchFilter, manifest};
use weft_netlink::netns::Namespace;
use weft_proxy::config::Config;
use weft_proxy::conntrack::Cleaner;
use weft_proxy::conntrack::{Register, Served};
use weft_proxy::metrics::Metrics;
use weft_proxy::services::planner::everything;
use weft_proxy::sync::Sync;
use weft_testkit::program::run;
use weft_testkit::wait::eventually;
use weft_testkit::world::{Connection, World, pod_address};
use weft_types::{Family, Snapshot};

const NODE: &str = "
apiVersion: v1
kind: Node
metadata: {name: node1}
status: {addresses: [{type: InternalIP, address: 172.30.0.11}, {type: InternalIP, address: 'fd00:30::11'}]}
";
const PORT: u16 = 80;
const NODE_PORT: u16 = 30080;

/// A cluster of one node, with the proxy and its cleaner on it.
struct Cluster<'a> {
    world: &'a World,
    snapshot: Snapshot,
    sync: Sync,
    register: Register,
    cleaner: Cleaner,
    metrics: Metrics,
}

impl<'a> Cluster<'a> {
    fn new(world: &'a World, terminate_removed_tcp: bool) -> Cluster<'a> {
        let config = Config { node: "node1".into(), ..Config::default() };
        let open = || (Sync::open(config).unwrap(), Cleaner::open().unwrap());
        let (sync, cleaner) = world.node.run(open).unwrap();
        let mut cluster = Cluster {
            world,
            snapshot: Snapshot::default(),
            sync,
            register: Register::new(terminate_removed_tcp),
            cleaner,
            metrics: Metrics::default(),
        };
        cluster.put("");
        cluster
    }

    /// Makes these manifests all that there is besides the node.
    fn put(&mut self, manifests: &str) {
        let mut file = tempfile::Builder::new().suffix(".yaml").tempfile().unwrap();
        write!(file, "{NODE}{manifests}").unwrap();
        let before = std::mem::replace(
            &mut self.snapshot,
            manifest::load(&WatchFilter::service_proxy(), &[file.path().to_owned()]).unwrap(),
        );
        let mut changes = everything(&self.snapshot);
        changes.services.extend(everything(&before).services);
        self.sync.apply(&self.snapshot, &changes).unwrap();
        let (node, ownership) = (self.sync.addresses(), self.sync.ownership());
        let touched = self.register.update(&self.snapshot, &changes, ownership);
        let served = self.register.served(&touched, &self.snapshot, ownership, node);
        self.clean(served);
    }

    fn clean(&mut self, mut served: Served) {
        self.cleaner.clean(&mut served, || None, &self.metrics).unwrap();
        assert!(served.is_empty());
    }

    /// Looks at all flows, as at the start.
    fn clean_everything(&mut self) {
        let (node, ownership) = (self.sync.addresses(), self.sync.ownership());
        let everything = self.register.everything(&self.snapshot, ownership, node);
        self.clean(everything);
    }

    /// What `conntrack` lists of flows to that address.
    fn flows(&self, to: SocketAddr) -> Vec<String> {
        let family = if to.is_ipv4() { "ipv4" } else { "ipv6" };
        let list = || run("conntrack", &["-L", "-f", family]);
        let wanted = format!("dst={} ", to.ip());
        let lines = self.world.node.run(list).unwrap();
        lines.lines().filter(|line| line.contains(&wanted)).map(str::to_owned).collect()
    }
}

fn cluster_ip(family: Family) -> IpAddr {
    match family {
        Family::V4 => "10.96.0.80".parse().unwrap(),
        Family::V6 => "fd00:96::80".parse().unwrap(),
    }
}

/// The Service of both families, with more lines in its `spec`.
fn service(protocol: &str, more: &str) -> String {
    format!(
        "---
apiVersion: v1
kind: Service
metadata: {{namespace: shop, name: web}}
spec:
  type: NodePort
  clusterIP: 10.96.0.80
  clusterIPs: [10.96.0.80, 'fd00:96::80']
  ports: [{{port: {PORT}, nodePort: {NODE_PORT}, protocol: {protocol}}}]
  {more}
"
    )
}

/// The EndpointSlices of both families with these pods of the node, which listen on that port.
fn endpoints(protocol: &str, pods: &[usize], port: u16, conditions: &str) -> String {
    let slice = |family: Family| {
        let endpoint = |pod: &usize| {
            let address = pod_address(family, *pod);
            format!("{{addresses: ['{address}'], nodeName: node1, conditions: {{{conditions}}}}}")
        };
        let endpoints: Vec<_> = pods.iter().map(endpoint).collect();
        let kind = if family == Family::V4 { "IPv4" } else { "IPv6" };
        format!(
            "---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{namespace: shop, name: web-{}, labels: {{kubernetes.io/service-name: web}}}}
addressType: {kind}
ports: [{{name: '', port: {port}, protocol: {protocol}}}]
endpoints: [{}]
",
            kind.to_lowercase(),
            endpoints.join(", "),
        )
    };
    Family::BOTH.map(slice).concat()
}

fn udp(pods: &[usize]) -> String {
    service("UDP", "") + &endpoints("UDP", pods, 8080, "ready: true")
}

/// Starts a UDP server in each pod, which answers with its pod's number and what it was sent.
fn serve(world: &World) {
    for (pod, namespace) in (1..).zip(&world.pods) {
        let bind = || UdpSocket::bind(SocketAddr::new([0u16; 8].into(), 8080)).unwrap();
        let socket = namespace.run(bind).unwrap();
        thread::spawn(move || {
            let mut buffer = [0; 64];
            while let Ok((length, client)) = socket.recv_from(&mut buffer) {
                let question = String::from_utf8_lossy(&buffer[..length]);
                socket.send_to(format!("{pod} {question}").as_bytes(), client).unwrap();
            }
        });
    }
}

/// A client that sends everything from one socket.
struct Client {
    socket: UdpSocket,
    to: SocketAddr,
    questions: Cell<u32>,
}

impl Client {
    fn new(from: &Namespace, to: SocketAddr) -> Client {
        let any: IpAddr = if to.is_ipv4() { [0; 4].into() } else { [0u16; 8].into() };
        let socket = from.run(|| UdpSocket::bind((any, 0))).unwrap().unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        Client { socket, to, questions: Cell::new(0) }
    }

    /// Sends a question of its own. That it is refused here and now is as good as if it got lost.
    fn send(&self) -> String {
        self.questions.set(self.questions.get() + 1);
        let question = self.questions.get().to_string();
        let _ = self.socket.send_to(question.as_bytes(), self.to);
        question
    }

    /// Asks until there is an answer, and returns which pod gave it.
    fn ask(&self) -> String {
        let start = Instant::now();
        loop {
            let (question, mut buffer) = (self.send(), [0; 64]);
            while let Ok(length) = self.socket.recv(&mut buffer) {
                let answer = String::from_utf8_lossy(&buffer[..length]);
                match answer.split_once(' ') {
                    Some((pod, answered)) if answered == question => return pod.to_owned(),
                    _ => {}
                }
            }
            assert!(start.elapsed() < Duration::from_secs(5), "no answer from {}", self.to);
        }
    }
}

/// Clients of every kind, one to each frontend that it may use.
fn clients(world: &World, family: Family) -> Vec<(&'static str, Client)> {
    let node: IpAddr = match family {
        Family::V4 => "172.30.0.11".parse().unwrap(),
        Family::V6 => "fd00:30::11".parse().unwrap(),
    };
    let (at_ip, at_node) = ((cluster_ip(family), PORT).into(), (node, NODE_PORT).into());
    vec![
        ("a pod, ClusterIP", Client::new(&world.pods[1], at_ip)),
        ("a host-network pod, ClusterIP", Client::new(&world.node, at_ip)),
        ("a machine outside, NodePort", Client::new(&world.outside, at_node)),
        ("a pod, NodePort", Client::new(&world.pods[1], at_node)),
        ("a host-network pod, NodePort", Client::new(&world.node, at_node)),
    ]
}

/// Clients of both families must be led to the second pod by `after`, once they knew the first one by
/// `before`.
fn moves(before: &str, after: &str) {
    let world = World::new();
    serve(&world);
    for family in Family::BOTH {
        let mut cluster = Cluster::new(&world, false);
        cluster.put(before);
        let clients = clients(&world, family);
        for (who, client) in &clients {
            assert_eq!(client.ask(), "1", "{who}");
        }
        cluster.put(after);
        for (who, client) in &clients {
            assert_eq!(client.ask(), "2", "{who}");
        }
    }
}

#[test]
fn udp_is_preserved_when_the_server_pod_cycles_for_a_cluster_ip_and_a_node_port() {
    moves(&udp(&[1]), &udp(&[2]));
}

#[test]
fn udp_is_preserved_when_the_server_pod_cycles_under_internal_traffic_policy_local() {
    let local =
        |pod| service("UDP", "internalTrafficPolicy: Local") + &endpoints("UDP", &[pod], 8080, "ready: true");
    moves(&local(1), &local(2));
}

#[test]
fn udp_moves_on_from_an_endpoint_that_stops_serving_and_stays_with_one_that_shuts_down() {
    let with = |conditions: &str| {
        let first = endpoints("UDP", &[1], 8080, conditions).replace("name: web-", "name: first-");
        service("UDP", "") + &first + &endpoints("UDP", &[2], 8080, "ready: true")
    };
    moves(&udp(&[1]), &with("ready: false, serving: false, terminating: true"));
    let world = World::new();
    serve(&world);
    let mut cluster = Cluster::new(&world, false);
    cluster.put(&udp(&[1]));
    let clients = clients(&world, Family::V4);
    clients.iter().for_each(|(_, client)| assert_eq!(client.ask(), "1"));
    cluster.put(&with("ready: false, serving: true, terminating: true"));
    clients.iter().for_each(|(who, client)| assert_eq!(client.ask(), "1", "{who}"));
}

#[test]
fn udp_is_preserved_when_the_target_port_changes() {
    let world = World::new();
    serve(&world);
    let at = |port| service("UDP", "") + &endpoints("UDP", &[1], port, "ready: true");
    for family in Family::BOTH {
        let mut cluster = Cluster::new(&world, false);
        cluster.put(&at(9090));
        let clients = clients(&world, family);
        // Nobody listens there, and the pod may say so.
        clients.iter().for_each(|(_, client)| drop(client.send()));
        cluster.put(&at(8080));
        clients.iter().for_each(|(who, client)| assert_eq!(client.ask(), "1", "{who}"));
    }
}

#[test]
fn udp_reaches_endpoints_that_were_unready_and_become_ready() {
    let world = World::new();
    serve(&world);
    let with = |conditions| service("UDP", "") + &endpoints("UDP", &[1], 8080, conditions);
    for family in Family::BOTH {
        let mut cluster = Cluster::new(&world, false);
        let clients = clients(&world, family);
        // Before there is any rule, datagrams go nowhere, and the kernel remembers that.
        clients.iter().for_each(|(_, client)| drop(client.send()));
        assert!(!cluster.flows(clients[0].1.to).is_empty());
        cluster.put(&with("ready: false, serving: false"));
        clients.iter().for_each(|(_, client)| drop(client.send()));
        cluster.put(&with("ready: true"));
        clients.iter().for_each(|(who, client)| assert_eq!(client.ask(), "1", "{who}"));
    }
}

#[test]
fn flows_to_endpoints_that_stay_are_left_alone() {
    let world = World::new();
    serve(&world);
    for family in Family::BOTH {
        let mut cluster = Cluster::new(&world, false);
        cluster.put(&udp(&[1, 2]));
        let vip = (cluster_ip(family), PORT).into();
        let clients: Vec<_> = (0..20).map(|_| Client::new(&world.outside, vip)).collect();
        let answers: Vec<_> = clients.iter().map(Client::ask).collect();
        assert!(answers.iter().any(|pod| pod == "1") && answers.iter().any(|pod| pod == "2"), "{answers:?}");
        cluster.put(&udp(&[2]));
        assert_eq!(cluster.flows(vip).len(), answers.iter().filter(|pod| *pod == "2").count());
        clients.iter().for_each(|client| assert_eq!(client.ask(), "2"));
    }
}

#[test]
fn flows_go_with_their_service_and_what_a_dead_proxy_left_is_found_at_the_start() {
    let world = World::new();
    serve(&world);
    for family in Family::BOTH {
        let vip = (cluster_ip(family), PORT).into();
        let client = Client::new(&world.outside, vip);
        let mut cluster = Cluster::new(&world, false);
        cluster.put(&udp(&[1]));
        assert_eq!(client.ask(), "1");
        drop(cluster);
        let mut cluster = Cluster::new(&world, false);
        cluster.put(&udp(&[2]));
        cluster.clean_everything();
        assert_eq!(client.ask(), "2");
        cluster.put("");
        assert_eq!(cluster.flows(vip), Vec::<String>::new());
    }
}

#[test]
fn tcp_connections_are_left_alone_unless_their_end_is_asked_for() {
    let world = World::new();
    world.serve(8080);
    let tcp = |pods: &[usize]| service("TCP", "") + &endpoints("TCP", pods, 8080, "ready: true");
    let mut cluster = Cluster::new(&world, false);
    cluster.put(&tcp(&[1]));
    let mut connection = Connection::open(&world.outside, (cluster_ip(Family::V4), PORT).into()).unwrap();
    assert!(connection.ask().starts_with('1'));
    cluster.put(&tcp(&[2]));
    assert!(connection.ask().starts_with('1'));
    cluster.put("");
    assert!(connection.ask().starts_with('1'));
}

fn tcp(pods: &[usize], port: u16) -> String {
    service("TCP", "") + &endpoints("TCP", pods, port, "ready: true")
}

/// Connects by all ways with SYNs that get no answer before `change` is called; they must get one from pod 2
/// soon after it.
fn connects_after(world: &World, ways: &[(&Namespace, SocketAddr)], change: impl FnOnce()) {
    let unanswered = || run("conntrack", &["-L", "-p", "tcp"]).matches("SYN_SENT").count();
    let connect = |&(from, to): &(&Namespace, SocketAddr)| {
        Connection::open_within(from, to, Duration::from_secs(20)).unwrap().ask()
    };
    thread::scope(|scope| {
        let clients: Vec<_> = ways.iter().map(|way| scope.spawn(move || connect(way))).collect();
        eventually("every SYN is tracked", || world.node.run(unanswered).unwrap() == ways.len());
        change();
        clients.into_iter().for_each(|client| assert!(client.join().unwrap().starts_with('2')));
    });
}

#[test]
fn a_syn_that_came_before_the_rules_connects_with_its_next_retry() {
    let world = World::new();
    world.serve(8080);
    let mut cluster = Cluster::new(&world, false);
    let vip = SocketAddr::new(cluster_ip(Family::V4), PORT);
    let ways = [(&world.pods[1], vip), (&world.node, vip), (&world.outside, vip)];
    connects_after(&world, &ways, || cluster.put(&tcp(&[2], 8080)));
}

#[test]
fn a_syn_under_way_to_an_endpoint_that_goes_connects_elsewhere_with_its_next_retry() {
    let world = World::new();
    world.serve(8080);
    let silent = "table ip t { chain c { type filter hook input priority 0; tcp dport 9090 drop; }; }";
    world.pods[0].run(|| run("nft", &[silent])).unwrap();
    let mut cluster = Cluster::new(&world, false);
    cluster.put(&tcp(&[1], 9090));
    let vip = SocketAddr::new(cluster_ip(Family::V4), PORT);
    let at_node = SocketAddr::new("172.30.0.11".parse().unwrap(), NODE_PORT);
    let ways = [(&world.pods[1], vip), (&world.node, vip), (&world.outside, vip), (&world.outside, at_node)];
    connects_after(&world, &ways, || cluster.put(&tcp(&[2], 8080)));
}

#[test]
fn udp_clients_of_a_service_keep_their_endpoint_when_a_node_port_of_its_ports_number_changes() {
    let world = World::new();
    serve(&world);
    let other = |text: &str| {
        text.replace("name: web", "name: other").replace("service-name: web", "service-name: other")
    };
    let other_service = format!(
        "---
apiVersion: v1
kind: Service
metadata: {{namespace: shop, name: other}}
spec: {{clusterIP: 10.96.0.81, clusterIPs: [10.96.0.81], ports: [{{port: {NODE_PORT}, protocol: UDP}}]}}
"
    ) + &other(&endpoints("UDP", &[1, 2], 8080, "ready: true"));
    let mut cluster = Cluster::new(&world, false);
    cluster.put(&(other_service.clone() + &udp(&[1])));
    let clients: Vec<_> =
        (0..20).map(|_| Client::new(&world.outside, "10.96.0.81:30080".parse().unwrap())).collect();
    let answers: Vec<_> = clients.iter().map(Client::ask).collect();
    cluster.put(&(other_service + &udp(&[2])));
    assert_eq!(clients.iter().map(Client::ask).collect::<Vec<_>>(), answers);
}
