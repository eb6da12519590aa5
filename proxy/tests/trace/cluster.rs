//! A cluster in a few words, and what becomes of packets on one of its nodes. IPv4 addresses stand for IPv6
//! ones, too.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use weft_proxy::config::{Config, NodePortAddresses, ProxyMode};
use weft_proxy::dataplane::iptables::DesiredRules;
use weft_proxy::dataplane::nftables::DesiredTables;
use weft_proxy::services::planner::Planner;
use weft_proxy::trace::{Memory, Outcome, Packet, Tracer};
use weft_types::{
    ChangeSet, Endpoint, EndpointPort, EndpointSlice, NamespacedName, Node, Object, Protocol, Service,
    ServiceKind, ServicePort, Snapshot,
};

pub(crate) const PROTOCOLS: [Protocol; 3] = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp];

/// The cluster of node1, which is at 172.30.0.11, and its pods in 10.244.0.0/16.
pub(crate) struct Cluster {
    pub(crate) config: Config,
    pub(crate) snapshot: Snapshot,
}

/// A packet, and what becomes of it: `rejected`, `dropped`, `untouched`, or where it may go, `masqueraded` if
/// it gets the node's address.
pub(crate) type Case<'a> = (&'a str, &'a str);

impl Cluster {
    /// The proxy knows which addresses are of pods.
    pub(crate) fn new(objects: impl IntoIterator<Item = Object>) -> Cluster {
        let cluster_cidrs = ["10.244.0.0/16", "fd00:244::/32"].map(|cidr| cidr.parse().unwrap()).to_vec();
        Cluster::with(Config { cluster_cidrs, ..Config::default() }, objects)
    }

    pub(crate) fn with(config: Config, objects: impl IntoIterator<Item = Object>) -> Cluster {
        let addresses = both(["172.30.0.11"]);
        let pod_cidrs = ["10.244.1.0/24", "fd00:244:1::/64"].map(|cidr| cidr.parse().unwrap()).to_vec();
        let node =
            Node { name: "node1".into(), addresses, pod_cidrs, zone: Some("a".into()), ..Node::default() };
        let config = Config { node: "node1".into(), ..config };
        let mut cluster = Cluster { config, snapshot: Snapshot::default() };
        cluster.put([Object::Node(node)]);
        cluster.put(objects);
        cluster
    }

    pub(crate) fn put(&mut self, objects: impl IntoIterator<Item = Object>) {
        let changes = &mut ChangeSet::default();
        objects.into_iter().for_each(|object| self.snapshot.apply(object, changes));
    }

    pub(crate) fn addresses(&self) -> Vec<IpAddr> {
        self.snapshot.node("node1").unwrap().addresses.clone()
    }

    pub(crate) fn tracer(&self) -> Tracer {
        let mut planner = Planner::new(&self.config.node);
        let tables = if self.config.mode == ProxyMode::Iptables {
            let mut rules = DesiredRules::new(&self.config);
            planner.start(&self.snapshot, &mut rules);
            rules.tables()
        } else {
            let mut tables = DesiredTables::new(&self.config);
            planner.start(&self.snapshot, &mut tables);
            tables.tables()
        };
        let pod_cidrs = &self.snapshot.node("node1").unwrap().pod_cidrs;
        Tracer::new(tables, self.addresses()).on_node(pod_cidrs)
    }

    pub(crate) fn packet(&self, text: &str) -> Packet {
        Packet::parse(text, &self.addresses()).unwrap()
    }

    /// Asserts what becomes of packets, whatever endpoint is chosen.
    pub(crate) fn expect(&self, cases: &[Case<'_>]) {
        let tracer = self.tracer();
        for (packet, expected) in cases {
            for (packet, expected) in variants(packet, expected) {
                let parsed = self.packet(&packet);
                let outcomes = tracer.outcomes(&parsed, &Memory::default()).unwrap();
                let words = outcomes.iter().map(|outcome| in_words(&parsed, outcome)).collect::<Vec<_>>();
                assert_eq!(words.join(", "), expected, "{packet}");
            }
        }
    }
}

/// The same packet and expectation in both families, and in all protocols where it names none.
fn variants(packet: &str, expected: &str) -> Vec<(String, String)> {
    let packets: Vec<String> = match packet.contains('/') {
        true => vec![packet.to_owned()],
        false => PROTOCOLS
            .map(|protocol| match packet.split_once(" via ") {
                Some((packet, interface)) => format!("{packet}/{protocol} via {interface}"),
                None => format!("{packet}/{protocol}"),
            })
            .to_vec(),
    };
    packets
        .into_iter()
        .flat_map(|packet| [(six_text(&packet), six_text(expected)), (packet, expected.to_owned())])
        .collect()
}

pub(crate) fn in_words(packet: &Packet, outcome: &Outcome) -> String {
    match outcome {
        Outcome::Passed { to, masqueraded: false } if *to == packet.destination => "untouched".to_owned(),
        Outcome::Passed { to, masqueraded: false } => to.to_string(),
        Outcome::Passed { to, masqueraded: true } => format!("{to} masqueraded"),
        Outcome::Rejected => "rejected".to_owned(),
        Outcome::Dropped => "dropped".to_owned(),
    }
}

/// The IPv6 address that an IPv4 address of these tests stands for.
fn six(address: Ipv4Addr) -> Ipv6Addr {
    let text = match address.octets() {
        [10, 244, node, pod] => format!("fd00:244:{node}::{pod}"),
        [10, 96, _, service] => format!("fd00:96::{service}"),
        [172, 30, net, host] => format!("fd00:30:{net}::{host}"),
        [192, 0, 2, host] => format!("2001:db8::{host}"),
        [198, 51, 100, host] => format!("2001:db8:100::{host}"),
        [127, ..] => "::1".to_owned(),
        _ => panic!("{address} stands for no IPv6 address"),
    };
    text.parse().unwrap()
}

fn six_text(text: &str) -> String {
    let word = |word: &str| {
        let (word, comma) = word.strip_suffix(',').map_or((word, ""), |word| (word, ","));
        let (address, protocol) = word.split_once('/').unwrap_or((word, ""));
        let address = match (address.parse::<IpAddr>(), address.parse::<SocketAddr>()) {
            (Ok(IpAddr::V4(address)), _) => six(address).to_string(),
            (_, Ok(SocketAddr::V4(socket))) => format!("[{}]:{}", six(*socket.ip()), socket.port()),
            _ => return format!("{word}{comma}"),
        };
        let slash = if protocol.is_empty() { "" } else { "/" };
        format!("{address}{slash}{protocol}{comma}")
    };
    text.split(' ').map(word).collect::<Vec<_>>().join(" ")
}

/// IPv4 addresses and the IPv6 ones that they stand for.
pub(crate) fn both<const N: usize>(addresses: [&str; N]) -> Vec<IpAddr> {
    let four = addresses.map(|address| address.parse::<Ipv4Addr>().unwrap());
    four.into_iter().flat_map(|address| [address.into(), six(address).into()]).collect()
}

pub(crate) fn name() -> NamespacedName {
    NamespacedName::new("shop", "web")
}

pub(crate) fn port(protocol: Protocol, number: u16, node_port: Option<u16>) -> ServicePort {
    ServicePort {
        name: format!("{protocol}-{number}").into(),
        protocol,
        port: number.try_into().unwrap(),
        node_port: node_port.map(|number| number.try_into().unwrap()),
    }
}

/// Service `shop/web` at 10.96.0.80:80, NodePort 30080, the external address 192.0.2.1 and the load
/// balancer's 192.0.2.2.
pub(crate) fn web() -> Service {
    Service {
        external_ips: both(["192.0.2.1"]),
        load_balancer_ips: both(["192.0.2.2"]),
        ..at(name(), "10.96.0.80", PROTOCOLS.map(|protocol| port(protocol, 80, Some(30080))))
    }
}

/// A Service at a ClusterIP of each family.
pub(crate) fn at<const N: usize>(key: NamespacedName, address: &str, ports: [ServicePort; N]) -> Service {
    Service::new(key, ServiceKind::ClusterIp(both([address])), ports.to_vec())
}

/// A ready endpoint of a node, in both families.
pub(crate) fn ready(address: &str, node: &str) -> [Endpoint; 2] {
    let addresses: [IpAddr; 2] = both([address]).try_into().unwrap();
    addresses.map(|address| Endpoint { node: Some(node.into()), ..Endpoint::ready(address) })
}

/// The EndpointSlices of `shop/web`, one of each family: these endpoints, which serve port 80 at 8080.
pub(crate) fn slices(endpoints: impl IntoIterator<Item = [Endpoint; 2]>) -> Vec<Object> {
    slices_at("web", 8080, endpoints)
}

pub(crate) fn slices_at(
    slice: &str,
    number: u16,
    endpoints: impl IntoIterator<Item = [Endpoint; 2]>,
) -> Vec<Object> {
    let endpoints: Vec<[Endpoint; 2]> = endpoints.into_iter().collect();
    let serves = |protocol| EndpointPort { port: number.try_into().unwrap(), ..serves(protocol, 80) };
    let slice = |index: usize| EndpointSlice {
        key: NamespacedName::new("shop", format!("{slice}-{index}")),
        service: name(),
        ports: PROTOCOLS.map(serves).to_vec(),
        endpoints: endpoints.iter().map(|both| both[index].clone()).collect(),
    };
    [0, 1].map(|index| Object::EndpointSlice(slice(index))).to_vec()
}

/// What an endpoint has for the port of a Service that [`port`] makes: the same number.
pub(crate) fn serves(protocol: Protocol, number: u16) -> EndpointPort {
    EndpointPort { name: format!("{protocol}-{number}").into(), protocol, port: number.try_into().unwrap() }
}

/// One endpoint on this node and one on another.
pub(crate) fn two() -> Vec<Object> {
    slices([ready("10.244.1.2", "node1"), ready("10.244.2.2", "node2")])
}

/// A Service and other objects.
pub(crate) fn with(service: Service, others: Vec<Object>) -> Vec<Object> {
    [vec![Object::Service(service)], others].concat()
}

/// NodePorts are served at the node's addresses in these networks.
pub(crate) fn in_networks(networks: &[&str]) -> Config {
    let networks = networks.iter().map(|network| network.parse().unwrap()).collect();
    Config { nodeport_addresses: NodePortAddresses::Networks(networks), ..Config::default() }
}
