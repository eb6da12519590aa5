//! Made-up clusters, policies, changes and packets: few names and numbers, so that things meet.

use std::net::IpAddr;

use proptest::collection::vec;
use proptest::option::{self, weighted};
use proptest::prelude::*;
use proptest::sample::select;
use weft_policy::plan::Packet;
use weft_types::{
    Action, ClusterNetworkPolicy, ClusterRule, ContainerPort, IpBlock, LabelSelector, Labels, Namespace,
    NamespacedName, NetworkPolicy, Node, Peers, Pod, PodAddresses, PodDetails, PodPeer, PolicyPeer,
    PolicyRule, PortMatch, PortMatches, Protocol, Requirement, Tier,
};

pub(crate) const NODES: [&str; 3] = ["here", "there", "away"];
const NAMESPACES: [&str; 3] = ["a", "b", "c"];
const NETWORKS: [&str; 14] = [
    "0.0.0.0/0",
    "::/0",
    "10.0.0.0/28",
    "10.0.0.0/29",
    "10.0.0.4/30",
    "10.0.0.5/32",
    "192.0.2.0/24",
    "192.0.2.128/25",
    "192.0.2.200/32",
    "172.16.0.0/16",
    "fd00::/124",
    "fd00::4/126",
    "2001:db8::/32",
    "255.255.255.255/32",
];

/// Something that changes in the cluster.
#[derive(Clone, Debug)]
pub(crate) enum Change {
    Pod(NamespacedName, Option<Pod>),
    Namespace(String, Option<Namespace>),
    Node(String, Option<Node>),
    Policy(NamespacedName, Option<NetworkPolicy>),
    ClusterPolicy(String, Option<ClusterNetworkPolicy>),
}

pub(crate) fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        8 => (key(8), weighted(0.9, any_pod())).prop_map(|(key, pod)| {
            let pod = pod.map(|pod| Pod { key: key.clone(), ..pod });
            Change::Pod(key, pod)
        }),
        2 => (select(&NAMESPACES[..]), weighted(0.9, labels())).prop_map(|(name, labels)| {
            let namespace = labels.map(|labels| Namespace { labels, ..Namespace::new(name) });
            Change::Namespace(name.to_owned(), namespace)
        }),
        1 => (select(&NODES[..]), weighted(0.9, (labels(), vec(node_address(), 0..3)))).prop_map(|(name, node)| {
            let node = node.map(|(labels, all_addresses)| {
                Node { name: name.to_owned(), labels, all_addresses, ..Node::default() }
            });
            Change::Node(name.to_owned(), node)
        }),
        5 => (key(4), weighted(0.85, policy())).prop_map(|(key, policy)| {
            let policy = policy.map(|policy| NetworkPolicy { key: key.clone(), ..policy });
            Change::Policy(key, policy)
        }),
        3 => (0..4, weighted(0.85, cluster_policy())).prop_map(|(number, policy)| {
            let name = format!("guard-{number}");
            let policy = policy.map(|policy| ClusterNetworkPolicy { name: name.clone(), ..policy });
            Change::ClusterPolicy(name, policy)
        }),
    ]
}

pub(crate) fn packet() -> impl Strategy<Value = Packet> {
    let port = || option::weighted(0.85, (protocol(), port_number()));
    prop_oneof![
        5 => (v4(), v4(), port()),
        2 => (v6(), v6(), port()),
    ]
    .prop_map(|(source, destination, port)| Packet { source, destination, port })
}

fn key(most: u32) -> impl Strategy<Value = NamespacedName> {
    (select(&NAMESPACES[..]), 0..most)
        .prop_map(|(namespace, number)| NamespacedName::new(namespace, format!("n{number}")))
}

fn address(text: String) -> IpAddr {
    text.parse().unwrap()
}

fn pod_v4() -> impl Strategy<Value = IpAddr> {
    (1..12_u8).prop_map(|last| address(format!("10.0.0.{last}")))
}

fn pod_v6() -> impl Strategy<Value = IpAddr> {
    (1..8_u8).prop_map(|last| address(format!("fd00::{last}")))
}

fn node_address() -> impl Strategy<Value = IpAddr> {
    let v4 = (1..4_u8).prop_map(|last| address(format!("172.16.0.{last}")));
    prop_oneof![v4, (1..4_u8).prop_map(|last| address(format!("fd01::{last}")))]
}

fn v4() -> impl Strategy<Value = IpAddr> {
    let outside =
        select(vec!["192.0.2.1", "192.0.2.130", "192.0.2.200", "8.8.8.8", "255.255.255.255", "0.0.0.0"]);
    let node = (1..4_u8).prop_map(|last| address(format!("172.16.0.{last}")));
    prop_oneof![8 => pod_v4(), 2 => outside.prop_map(|text| address(text.to_owned())), 1 => node]
}

fn v6() -> impl Strategy<Value = IpAddr> {
    let outside = select(vec!["2001:db8::1", "::1", "ffff::1"]).prop_map(|text| address(text.to_owned()));
    let node = (1..4_u8).prop_map(|last| address(format!("fd01::{last}")));
    prop_oneof![8 => pod_v6(), 2 => outside, 1 => node]
}

fn labels() -> impl Strategy<Value = Labels> {
    let label =
        |key: &'static str| option::weighted(0.7, select(vec!["x", "y", "z"])).prop_map(move |it| (key, it));
    (label("app"), label("tier")).prop_map(|pair| {
        [pair.0, pair.1].into_iter().filter_map(|(key, value)| Some((key, value?))).collect()
    })
}

fn selector() -> impl Strategy<Value = LabelSelector> {
    let value = || select(vec!["x", "y", "z"]);
    let requirement =
        (select(vec!["app", "tier"]), 0..4, vec(value(), 1..3)).prop_map(|(key, operator, values)| {
            let (operator, values) = match operator {
                0 => ("In", values),
                1 => ("NotIn", values),
                2 => ("Exists", vec![]),
                _ => ("DoesNotExist", vec![]),
            };
            Requirement::new(key, operator, values).unwrap()
        });
    prop_oneof![
        2 => Just(LabelSelector::default()),
        3 => vec(requirement, 1..3).prop_map(|requirements| requirements.into_iter().collect()),
    ]
}

fn any_pod() -> impl Strategy<Value = Pod> {
    let addresses = (weighted(0.9, pod_v4()), weighted(0.5, pod_v6()));
    let node = weighted(0.95, prop_oneof![3 => Just("here"), 1 => Just("there")]);
    let ports = vec((select(vec!["http", "dns"]), protocol(), port_number()), 0..3);
    let details = (node, weighted(0.1, Just(())), 0..4_i64, ports);
    (addresses, labels(), details).prop_map(|((v4, v6), labels, (node, on_host, created, ports))| Pod {
        key: NamespacedName::new("", ""),
        addresses: v4.into_iter().chain(v6).collect::<PodAddresses>(),
        searches: true,
        labels,
        details: Some(Box::new(PodDetails {
            node: node.map(Into::into),
            host_network: on_host.is_some(),
            uid: Box::default(),
            created,
            ports: ports
                .into_iter()
                .map(|(name, protocol, port)| ContainerPort { name: name.into(), protocol, port })
                .collect(),
        })),
    })
}

fn protocol() -> impl Strategy<Value = Protocol> {
    prop_oneof![4 => Just(Protocol::Tcp), 2 => Just(Protocol::Udp), 1 => Just(Protocol::Sctp)]
}

fn port_number() -> impl Strategy<Value = u16> {
    prop_oneof![8 => 1..20_u16, 1 => Just(0_u16), 1 => Just(u16::MAX)]
}

fn port_match(any_protocol: bool) -> impl Strategy<Value = PortMatch> {
    let numbers = |protocol, first: u16, last: u16| PortMatch::Numbers {
        protocol,
        first: first.min(last),
        last: first.max(last),
    };
    prop_oneof![
        4 => (protocol(), port_number()).prop_map(move |(protocol, port)| numbers(protocol, port, port)),
        2 => (protocol(), port_number(), port_number()).prop_map(move |(it, one, other)| numbers(it, one, other)),
        1 => protocol().prop_map(PortMatch::protocol),
        2 => (protocol(), select(vec!["http", "dns"])).prop_map(move |(protocol, name)| PortMatch::Named {
            protocol: (!any_protocol).then_some(protocol),
            name: name.into(),
        }),
    ]
}

fn ports(any_protocol: bool) -> impl Strategy<Value = PortMatches> {
    prop_oneof![
        1 => Just(PortMatches::All),
        3 => vec(port_match(any_protocol), 0..4).prop_map(|list| PortMatches::Any(list.into())),
    ]
}

fn network() -> impl Strategy<Value = IpBlock> {
    let network = || select(&NETWORKS[..]).prop_map(|text| text.parse().unwrap());
    (network(), vec(network(), 0..3)).prop_map(|(cidr, except)| IpBlock { cidr, except: except.into() })
}

fn peer(of_cluster: bool) -> impl Strategy<Value = PolicyPeer> {
    let namespaces = (any::<bool>(), selector()).prop_map(move |(any, it)| (any || of_cluster).then_some(it));
    let pods = (namespaces, selector())
        .prop_map(|(namespaces, pods)| PolicyPeer::Pods(PodPeer { namespaces, pods }));
    prop_oneof![4 => pods, 3 => network().prop_map(PolicyPeer::Network), 1 => selector().prop_map(PolicyPeer::Nodes)]
}

fn rule(of_cluster: bool) -> impl Strategy<Value = PolicyRule> {
    let peers = prop_oneof![
        1 => Just(Peers::All),
        3 => vec(peer(of_cluster), 0..3).prop_map(|peers| Peers::Any(peers.into())),
    ];
    (peers, ports(of_cluster)).prop_map(|(peers, ports)| PolicyRule { peers, ports })
}

fn policy() -> impl Strategy<Value = NetworkPolicy> {
    let rules = || weighted(0.7, vec(rule(false), 0..3).prop_map(Into::into));
    (selector(), rules(), rules()).prop_map(|(pods, ingress, egress)| NetworkPolicy {
        key: NamespacedName::new("", ""),
        pods,
        ingress,
        egress,
    })
}

fn cluster_policy() -> impl Strategy<Value = ClusterNetworkPolicy> {
    let tier = select(vec![Tier::Admin, Tier::Baseline]);
    let action = || select(vec![Action::Accept, Action::Deny, Action::Pass]);
    let rules = move || {
        let rule = (action(), rule(true));
        vec(rule, 0..4).prop_map(|rules| {
            let rule = |(action, traffic)| ClusterRule { name: "".into(), action, traffic };
            rules.into_iter().map(rule).collect::<Box<[_]>>()
        })
    };
    (tier, 0..4_u16, selector(), selector(), rules(), rules()).prop_map(
        |(tier, priority, namespaces, pods, ingress, egress)| ClusterNetworkPolicy {
            name: String::new(),
            tier,
            priority,
            namespaces,
            pods,
            ingress,
            egress,
        },
    )
}
