//! The proxy against the real kernel, with real traffic between network namespaces, and the real `nft`. Needs
//! root and the packages nftables and iproute2.

#![allow(clippy::unwrap_used, reason = "a test stops at the first thing that goes wrong")]

/// Makes a test of a function in each mode of the proxy that spreads connections over endpoints by rules, and
/// the further tests that are given.
macro_rules! in_modes_of_rules {
    ($name:ident $($further:item)*) => {
        mod $name {
            use weft_proxy::config::ProxyMode;

            #[test]
            fn nftables() {
                super::$name(ProxyMode::Nftables);
            }

            #[test]
            fn iptables() {
                super::$name(ProxyMode::Iptables);
            }

            $($further)*
        }
    };
}

/// The same in every mode.
macro_rules! in_every_mode {
    ($name:ident) => {
        in_modes_of_rules! {
            $name
            #[test]
            #[ignore = "runs on a kernel with IPVS, by debian::services_lead_as_in_the_other_modes"]
            fn ipvs() {
                super::$name(ProxyMode::Ipvs);
            }
        }
    };
}

mod affinity;
mod agreement;
mod conflicts;
mod counters;
mod debian;
mod documentation;
mod ebpf;
mod firewalls;
mod invalid;
mod invariants;
mod iptables;
mod ipvs;
mod local;
mod mode_changes;
mod policies;
mod refusals;
mod restarts;
mod sctp;
mod sources;
mod topology;
mod unallocated;

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use weft_netlink::netns::Namespace;
use weft_proxy::config::{Config, Ebpf, NodePortAddresses, ProxyMode};
use weft_proxy::dataplane;
use weft_proxy::error::Error;
use weft_proxy::services::planner::everything;
use weft_proxy::sync::{Outcome, Sync};
use weft_testkit::program::run;
use weft_testkit::world::{Connection, World, is_refused, pod_address, tcp, udp};
use weft_types::{
    ChangeSet, Endpoint, EndpointPort, EndpointSlice, Family, NamespacedName, Node, Object, ObjectKey,
    Protocol, Service, ServiceKind, ServicePort, Snapshot, TrafficPolicy,
};

const NODE_PORT: u16 = 30080;
const PROTOCOLS: [Protocol; 2] = [Protocol::Tcp, Protocol::Udp];

/// Deletes all that a proxy programmed in the calling thread's namespace.
fn clean_up() -> Result<(), Error> {
    dataplane::clean_up(&Ebpf::default())
}

/// The usual configuration in that mode.
fn of(mode: ProxyMode) -> Config {
    Config { mode, ..Config::default() }
}

/// A cluster of one node, and the proxy on it.
struct Cluster<'a> {
    world: &'a World,
    config: Config,
    snapshot: Snapshot,
    sync: Sync,
}

impl<'a> Cluster<'a> {
    fn new(world: &'a World, config: Config) -> Cluster<'a> {
        Cluster::with(world, config, open)
    }

    /// One whose proxy is opened so.
    fn with(world: &'a World, config: Config, open: fn(&World, &Config) -> Sync) -> Cluster<'a> {
        let config = Config { node: "node1".into(), ..config };
        let mut snapshot = Snapshot::default();
        let addresses = vec!["172.30.0.11".parse().unwrap(), "fd00:30::11".parse().unwrap()];
        let node = Node { name: "node1".into(), addresses, ..Node::default() };
        snapshot.apply(Object::Node(node), &mut ChangeSet::default());
        let sync = open(world, &config);
        let mut cluster = Cluster { world, config, snapshot, sync };
        cluster.sync.apply(&cluster.snapshot, &everything(&cluster.snapshot)).unwrap();
        cluster
    }

    fn put(&mut self, objects: impl IntoIterator<Item = Object>) {
        assert_eq!(self.try_put(objects), Outcome::Partial);
    }

    fn try_put(&mut self, objects: impl IntoIterator<Item = Object>) -> Outcome {
        let mut changes = ChangeSet::default();
        objects.into_iter().for_each(|object| self.snapshot.apply(object, &mut changes));
        self.sync.apply(&self.snapshot, &changes).unwrap()
    }

    fn delete(&mut self, key: ObjectKey) {
        let mut changes = ChangeSet::default();
        self.snapshot.delete(&key, &mut changes);
        assert_eq!(self.sync.apply(&self.snapshot, &changes).unwrap(), Outcome::Partial);
    }

    /// Ends the proxy and starts it again, with all that it knew forgotten.
    fn restart(&mut self) {
        self.sync = open(self.world, &self.config);
        assert_eq!(self.sync.apply(&self.snapshot, &everything(&self.snapshot)).unwrap(), Outcome::Full);
    }

    /// Every line that nft prints of everything, in some order: that of the chains is that of their creation.
    fn rules(&self) -> Vec<String> {
        let mut lines: Vec<_> = self.nft(&["list", "ruleset"]).lines().map(str::to_owned).collect();
        lines.sort();
        lines
    }

    /// What nft prints, without the endpoints that packets noted and when these expire, and in the mode
    /// iptables without what rules counted.
    fn nft(&self, arguments: &[&str]) -> String {
        let printed = self.world.node.run(|| run("nft", arguments)).unwrap();
        let is_planned = |line: &&str| !line.contains("timeout 1d expires");
        let lines = printed.split_inclusive('\n').filter(is_planned);
        match self.is_nftables() {
            true => lines.collect(),
            false => lines.map(without_counts).collect(),
        }
    }

    fn is_iptables(&self) -> bool {
        self.config.mode == ProxyMode::Iptables
    }

    fn is_nftables(&self) -> bool {
        self.config.mode == ProxyMode::Nftables
    }
}

/// A rule as nft prints it, without the numbers of `counter packets 1 bytes 60`.
fn without_counts(line: &str) -> String {
    let Some((before, behind)) = line.split_once("counter packets ") else { return line.to_owned() };
    let rest = behind.split_once(" bytes ").map_or(behind, |(_, rest)| rest);
    format!("{before}counter{}", rest.trim_start_matches(|digit: char| digit.is_ascii_digit()))
}

fn open(world: &World, config: &Config) -> Sync {
    world.node.run(|| Sync::open(config.clone())).unwrap().unwrap()
}

fn cluster_ip(family: Family) -> IpAddr {
    match family {
        Family::V4 => "10.96.0.80".parse().unwrap(),
        Family::V6 => "fd00:96::80".parse().unwrap(),
    }
}

fn name() -> NamespacedName {
    NamespacedName::new("shop", "web")
}

/// A Service with port 80 of TCP and UDP, reached at a ClusterIP of each family and at a NodePort.
fn service() -> Object {
    let port = |protocol: Protocol| ServicePort {
        name: protocol.lower_case().into(),
        protocol,
        port: 80.try_into().unwrap(),
        node_port: Some(NODE_PORT.try_into().unwrap()),
    };
    let kind = ServiceKind::ClusterIp(Family::BOTH.map(cluster_ip).to_vec());
    Object::Service(Service::new(name(), kind, PROTOCOLS.map(port).to_vec()))
}

/// Addresses outside of the cluster: an external one, and one of a load balancer.
const EXTERNAL_V4: [&str; 2] = ["192.0.2.1", "192.0.2.2"];
const EXTERNAL_V6: [&str; 2] = ["2001:db8::1", "2001:db8::2"];

/// The same Service with external addresses, under that external policy.
fn external(external_policy: TrafficPolicy) -> Object {
    let Object::Service(service) = service() else { panic!("no Service") };
    let both = |index: usize| [EXTERNAL_V4, EXTERNAL_V6].map(|ips| ips[index].parse().unwrap()).to_vec();
    Object::Service(Service { external_ips: both(0), load_balancer_ips: both(1), external_policy, ..service })
}

/// The EndpointSlice of one family, with pods as if they were on these nodes.
fn on_nodes(family: Family, pods: &[(usize, &str)]) -> Object {
    let Object::EndpointSlice(mut slice) =
        slice(family, &pods.iter().map(|(pod, _)| *pod).collect::<Vec<_>>())
    else {
        panic!("no slice")
    };
    for (endpoint, (_, node)) in slice.endpoints.iter_mut().zip(pods) {
        endpoint.node = Some((*node).into());
    }
    Object::EndpointSlice(slice)
}

/// Whether the kernel keeps silent to a client: no answer comes in a time in which any other answer does.
fn is_dropped(from: &Namespace, to: SocketAddr) -> bool {
    let connect = || std::net::TcpStream::connect_timeout(&to, std::time::Duration::from_millis(300));
    from.run(connect).unwrap().is_err_and(|error| error.kind() == ErrorKind::TimedOut)
}

/// The EndpointSlice of one family, with these of the pods in it.
fn slice(family: Family, pods: &[usize]) -> Object {
    let port = |protocol: Protocol| EndpointPort {
        name: protocol.lower_case().into(),
        protocol,
        port: 8080.try_into().unwrap(),
    };
    let endpoint =
        |pod: &usize| Endpoint { node: Some("node1".into()), ..Endpoint::ready(pod_address(family, *pod)) };
    Object::EndpointSlice(EndpointSlice {
        key: NamespacedName::new("shop", format!("web-{family}").to_lowercase()),
        service: name(),
        ports: PROTOCOLS.map(port).to_vec(),
        endpoints: pods.iter().map(endpoint).collect(),
    })
}

fn slices(pods: &[usize]) -> [Object; 2] {
    Family::BOTH.map(|family| slice(family, pods))
}

/// Asks over new connections until both pods have answered; `true` if nobody else did and all clients looked
/// like one of `sources` to them.
fn both_pods_answer(ask: impl Fn() -> String, sources: &[&str]) {
    let mut pods = BTreeSet::new();
    // Two pods that share evenly: that one of them is never chosen in so many tries does not happen.
    for _ in 0..100 {
        let answer = ask();
        let (pod, source) = answer.split_once(' ').unwrap();
        assert!(sources.contains(&source), "{source} is not among {sources:?}");
        pods.insert(pod.to_owned());
        if pods.len() == 2 {
            return;
        }
    }
    panic!("only {pods:?} answered");
}

in_every_mode!(a_cluster_ip_leads_to_all_endpoints_from_pods_and_node_and_outside);

fn a_cluster_ip_leads_to_all_endpoints_from_pods_and_node_and_outside(mode: ProxyMode) {
    let world = World::new();
    world.serve(8080);
    let mut cluster = Cluster::new(&world, of(mode));
    cluster.put([service()].into_iter().chain(slices(&[1, 2])));
    let node = ["10.244.1.1", "10.244.2.1", "172.30.0.11", "fd00:244:1::1", "fd00:244:2::1", "fd00:30::11"];
    for family in Family::BOTH {
        let to = SocketAddr::new(cluster_ip(family), 80);
        for (from, sources) in [(&world.outside, &["172.30.0.1", "fd00:30::1"][..]), (&world.node, &node[..])]
        {
            both_pods_answer(|| tcp(from, to), sources);
            both_pods_answer(|| udp(from, to).unwrap(), sources);
        }
    }
}

in_every_mode!(a_pod_reaches_itself_through_its_own_service_and_others_see_its_real_address);

fn a_pod_reaches_itself_through_its_own_service_and_others_see_its_real_address(mode: ProxyMode) {
    let world = World::new();
    world.serve(8080);
    let mut cluster = Cluster::new(&world, of(mode));
    cluster.put([service()].into_iter().chain(slices(&[1])));
    for (family, hairpin, real) in
        [(Family::V4, "10.244.1.1", "10.244.2.2"), (Family::V6, "fd00:244:1::1", "fd00:244:2::2")]
    {
        let to = SocketAddr::new(cluster_ip(family), 80);
        let (own, other) = (&world.pods[0], &world.pods[1]);
        assert_eq!(tcp(own, to), format!("1 {hairpin}"));
        assert_eq!(udp(own, to).unwrap(), format!("1 {hairpin}"));
        assert_eq!(tcp(other, to), format!("1 {real}"));
        assert_eq!(udp(other, to).unwrap(), format!("1 {real}"));
    }
}

in_every_mode!(a_node_port_leads_to_all_endpoints_with_the_nodes_address_as_source);

fn a_node_port_leads_to_all_endpoints_with_the_nodes_address_as_source(mode: ProxyMode) {
    let world = World::new();
    world.serve(8080);
    for nodeport_addresses in [
        NodePortAddresses::Primary,
        NodePortAddresses::Networks(vec!["172.30.0.0/16".parse().unwrap(), "::/0".parse().unwrap()]),
    ] {
        let config = Config { nodeport_addresses, ..of(mode) };
        let mut cluster = Cluster::new(&world, config);
        cluster.put([service()].into_iter().chain(slices(&[1, 2])));
        for (node, sources) in [
            ("172.30.0.11", ["10.244.1.1", "10.244.2.1"]),
            ("fd00:30::11", ["fd00:244:1::1", "fd00:244:2::1"]),
        ] {
            let to = SocketAddr::new(node.parse().unwrap(), NODE_PORT);
            for from in [&world.outside, &world.node] {
                both_pods_answer(|| tcp(from, to), &sources);
                both_pods_answer(|| udp(from, to).unwrap(), &sources);
            }
        }
        // An address that does not serve NodePorts.
        let other = SocketAddr::new("10.244.1.1".parse().unwrap(), NODE_PORT);
        assert!(is_refused(Connection::open(&world.pods[1], other)));
    }
}

in_every_mode!(node_ports_follow_the_nodes_address);

fn node_ports_follow_the_nodes_address(mode: ProxyMode) {
    let world = World::new();
    world.serve(8080);
    let mut cluster = Cluster::new(&world, of(mode));
    cluster.put([service()].into_iter().chain(slices(&[1])));
    let addresses = vec!["10.244.1.1".parse().unwrap()];
    cluster.try_put([Object::Node(Node { name: "node1".into(), addresses, ..Node::default() })]);
    let to = |address: &str| SocketAddr::new(address.parse().unwrap(), NODE_PORT);
    assert_eq!(tcp(&world.pods[1], to("10.244.1.1")), "1 10.244.1.1");
    assert!(is_refused(Connection::open(&world.outside, to("172.30.0.11"))));
}

in_every_mode!(cluster_ip_traffic_from_outside_of_the_pod_network_is_masqueraded_where_that_is_known);

fn cluster_ip_traffic_from_outside_of_the_pod_network_is_masqueraded_where_that_is_known(mode: ProxyMode) {
    let world = World::new();
    world.serve(8080);
    let cluster_cidrs = ["10.244.0.0/16", "fd00:244::/32"].map(|cidr| cidr.parse().unwrap()).to_vec();
    let mut cluster = Cluster::new(&world, Config { cluster_cidrs, ..of(mode) });
    cluster.put([service()].into_iter().chain(slices(&[1])));
    for (family, node, pod) in
        [(Family::V4, "10.244.1.1", "10.244.2.2"), (Family::V6, "fd00:244:1::1", "fd00:244:2::2")]
    {
        let to = SocketAddr::new(cluster_ip(family), 80);
        assert_eq!(tcp(&world.outside, to), format!("1 {node}"));
        assert_eq!(tcp(&world.pods[1], to), format!("1 {pod}"));
        let unrelated = SocketAddr::new(pod_address(family, 1), 8080);
        assert_ne!(tcp(&world.outside, unrelated), format!("1 {node}"), "no Service, no masquerade");
    }
}

in_every_mode!(masquerade_all_gives_even_pods_the_nodes_address);

fn masquerade_all_gives_even_pods_the_nodes_address(mode: ProxyMode) {
    let world = World::new();
    world.serve(8080);
    let mut cluster = Cluster::new(&world, Config { masquerade_all: true, ..of(mode) });
    cluster.put([service()].into_iter().chain(slices(&[1])));
    for (family, node) in [(Family::V4, "10.244.1.1"), (Family::V6, "fd00:244:1::1")] {
        let to = SocketAddr::new(cluster_ip(family), 80);
        assert_eq!(tcp(&world.pods[0], to), format!("1 {node}"));
        assert_eq!(tcp(&world.outside, to), format!("1 {node}"));
        let unrelated = SocketAddr::new(pod_address(family, 1), 8080);
        assert_ne!(tcp(&world.pods[0], unrelated), format!("1 {node}"), "no Service, no masquerade");
    }
}

in_every_mode!(rejected_when_no_endpoints_exist_and_at_ports_that_no_service_has);

fn rejected_when_no_endpoints_exist_and_at_ports_that_no_service_has(mode: ProxyMode) {
    let world = World::new();
    world.serve(8080);
    let mut cluster = Cluster::new(&world, of(mode));
    cluster.put([service()]);
    let node = |family| match family {
        Family::V4 => "172.30.0.11".parse().unwrap(),
        Family::V6 => "fd00:30::11".parse().unwrap(),
    };
    for family in Family::BOTH {
        let ip = cluster_ip(family);
        let ports = [SocketAddr::new(ip, 80), SocketAddr::new(node(family), NODE_PORT)];
        // kube-proxy's chains leave other ports of a ClusterIP alone.
        let missing = (!cluster.is_iptables()).then_some(SocketAddr::new(ip, 81));
        for to in ports.into_iter().chain(missing) {
            // Where the kernel tells a client of a shorter way, that of a packet back to where it came from,
            // it says no more for a second, before a chain that filters may.
            let is_sent_back = cluster.is_iptables() && to.ip() == ip;
            let outside = (!is_sent_back).then_some(&world.outside);
            for from in outside.into_iter().chain([&world.pods[0]]) {
                assert!(is_refused(Connection::open(from, to)), "TCP {to}");
                assert!(is_refused(udp(from, to)), "UDP {to}");
            }
            assert!(is_refused(Connection::open(&world.node, to)), "TCP {to} from the node");
            // A datagram that is rejected on its way out fails at once, in other words.
            let error = udp(&world.node, to).unwrap_err().kind();
            assert!(matches!(error, ErrorKind::PermissionDenied | ErrorKind::ConnectionRefused), "{error}");
        }
    }
    cluster.put(slices(&[2]));
    assert!(tcp(&world.outside, SocketAddr::new(cluster_ip(Family::V4), 80)).starts_with("2 "));
}

/// That many Services with two endpoints each.
fn many(count: u32) -> Snapshot {
    let (mut snapshot, mut changes) = (Snapshot::default(), ChangeSet::default());
    for index in 0..count {
        let key = NamespacedName::new("shop", format!("service-{index}"));
        let address = std::net::Ipv4Addr::from(0x0a60_0000 + index);
        let port = |name: &str| ServicePort {
            name: name.into(),
            protocol: Protocol::Tcp,
            port: 80.try_into().unwrap(),
            node_port: None,
        };
        let endpoint = |side: u32| Endpoint {
            node: Some("node2".into()),
            ..Endpoint::ready(std::net::Ipv4Addr::from(0x0af4_0000 + 2 * index + side).into())
        };
        let kind = ServiceKind::ClusterIp(vec![address.into()]);
        let served =
            EndpointPort { name: "".into(), protocol: Protocol::Tcp, port: 8080.try_into().unwrap() };
        let slice = EndpointSlice {
            key: NamespacedName::new("shop", format!("slice-{index}")),
            service: key.clone(),
            ports: vec![served],
            endpoints: vec![endpoint(0), endpoint(1)],
        };
        snapshot.apply(Object::Service(Service::new(key, kind, vec![port("")])), &mut changes);
        snapshot.apply(Object::EndpointSlice(slice), &mut changes);
    }
    snapshot
}

#[test]
fn ten_thousand_services_need_no_more_chains_and_rules_than_one() {
    let node = Namespace::temporary().unwrap();
    let config = Config { node: "node1".into(), ..Config::default() };
    let objects = || {
        let chains = node.run(|| run("nft", &["-t", "list", "table", "ip", "weft"])).unwrap();
        chains.lines().filter(|line| !line.contains("elements")).count()
    };
    let mut counts = Vec::new();
    for count in [1, 10_000] {
        let snapshot = many(count);
        let mut sync = node.run(|| Sync::open(config.clone())).unwrap().unwrap();
        let start = Instant::now();
        assert_eq!(sync.apply(&snapshot, &everything(&snapshot)).unwrap(), Outcome::Full);
        println!("{count} Services with 2 endpoints each, planned and committed: {:?}", start.elapsed());
        counts.push(objects());
    }
    assert_eq!(counts[0], counts[1]);
    let listed = node.run(|| run("nft", &["list", "ruleset"])).unwrap();
    assert_eq!(
        (listed.matches(" . 80 : 0:2").count(), listed.matches("0:2 : goto lb-2").count()),
        (10_000, 1)
    );
}
