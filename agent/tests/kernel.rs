//! Plans against the real kernel, in namespaces made for each test. Runs as root.

#![allow(clippy::unwrap_used, reason = "a test stops at the first thing that goes wrong")]

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::Duration;

use weft_agent::config::Config;
use weft_agent::masquerade::rules::{self, MasqueradeRules};
use weft_agent::plan::{NodePlan, plan};
use weft_agent::routing::plan::{NextHop, NodeRoute, RoutingPlan};
use weft_agent::routing::routes::Routes;
use weft_agent::routing::vxlan::plan::Settings;
use weft_agent::routing::wireguard::plan as wireguard;
use weft_agent::sysctls::proc;
use weft_agent::upkeep::observe::BridgeObserver;
use weft_agent::upkeep::plan::{Expected, port};
use weft_agent::uplink::observe::UplinkObserver;
use weft_agent::uplink::{Backend, LeaveBy, Tunnel, Uplink};
use weft_netlink::netns::Namespace;
use weft_netlink::sysctl::Originals;
use weft_testkit::namespace::{advertise_router, cable, end, route_by, sh};
use weft_testkit::wait::eventually;
use weft_types::{ChangeSet, IpNetwork, Node, Object, Snapshot};

/// A node with a pod, and a machine that plays everybody else: the outside and the other nodes.
struct World {
    node: Namespace,
    pod: Namespace,
    others: Namespace,
    uplink: UplinkObserver,
    routes: Routes,
    masquerade: MasqueradeRules,
}

impl World {
    fn new() -> World {
        let [node, pod, others] = [(); 3].map(|()| Namespace::temporary().unwrap());
        cable(
            &end(&node, "uplink", ["172.30.0.11/24", "fd00:30::11/64"]),
            &end(&others, "wire", ["172.30.0.1/24", "172.30.0.12/24", "172.30.0.13/24", "fd00:30::12/64"]),
        );
        cable(&end(&node, "bridge", ["10.244.1.1/24"]), &end(&pod, "eth0", ["10.244.1.2/24"]));
        sh(&node, "ip link set uplink mtu 1450");
        route_by(&pod, ["10.244.1.1"]);
        sh(&others, "ip route add 10.244.1.0/24 via 172.30.0.11");
        sh(&others, "ip link set lo up && ip addr add 10.244.2.5/32 dev lo");
        let uplink = node.run(UplinkObserver::open).unwrap().unwrap();
        let routes = node.run(Routes::open).unwrap().unwrap();
        let masquerade = node.run(MasqueradeRules::open).unwrap().unwrap();
        World { node, pod, others, uplink, routes, masquerade }
    }

    /// Applies a plan. Returns what went wrong.
    fn apply(&mut self, plan: &NodePlan) -> Vec<String> {
        for setting in &plan.sysctls {
            self.node.run(|| proc::set(setting, &Originals::default())).unwrap().unwrap();
        }
        let mut errors = self.routes.apply(&plan.routing);
        errors.extend(self.masquerade.apply(&plan.masquerade).err());
        errors.iter().map(ToString::to_string).collect()
    }

    /// Weft's own routes, as `ip route` has them.
    fn routes(&self) -> Vec<String> {
        let text = sh(&self.node, "ip -4 route show proto 119; ip -6 route show proto 119");
        text.lines().map(|line| line.split_whitespace().take(3).collect::<Vec<_>>().join(" ")).collect()
    }

    /// The address under which the pod is seen by whoever has that address.
    fn seen_as(&self, server: &str) -> IpAddr {
        let server: SocketAddr = format!("{server}:7").parse().unwrap();
        let listener = self.others.run(|| UdpSocket::bind(server)).unwrap().unwrap();
        listener.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let pod = self.pod.run(|| UdpSocket::bind("0.0.0.0:0")).unwrap().unwrap();
        pod.send_to(b"who am I?", server).unwrap();
        listener.recv_from(&mut [0; 16]).unwrap().1.ip()
    }
}

/// As without flags.
fn wireguard() -> wireguard::Settings {
    let key_file = "/var/lib/cni/networks/.wireguard-key".into();
    wireguard::Settings { port: 51820, keepalive: None, encryption: wireguard::Encryption::Strict, key_file }
}

fn node(name: &str, pod_cidrs: &[&str], addresses: &[&str]) -> Node {
    Node {
        name: name.to_owned(),
        pod_cidrs: pod_cidrs.iter().map(|text| text.parse().unwrap()).collect(),
        addresses: addresses.iter().map(|text| text.parse().unwrap()).collect(),
        ..Node::default()
    }
}

/// The plan for node1 among these other nodes.
fn plan_among(others: &[Node]) -> NodePlan {
    plan_with(vec!["10.244.0.0/16".parse().unwrap()], others)
}

/// The same, in a cluster that pods have these networks of.
fn plan_with(cluster_cidrs: Vec<IpNetwork>, others: &[Node]) -> NodePlan {
    plan_all(cluster_cidrs, others, &Uplink::default())
}

/// The plan for node1 alone, by its uplink.
fn plan_by(uplink: &Uplink) -> NodePlan {
    plan_all(Vec::new(), &[], uplink)
}

fn plan_all(cluster_cidrs: Vec<IpNetwork>, others: &[Node], uplink: &Uplink) -> NodePlan {
    let mut snapshot = Snapshot::default();
    let own = node("node1", &["10.244.1.0/24", "fd00:10:244:1::/64"], &["172.30.0.11", "fd00:30::11"]);
    for node in others.iter().chain([&own]) {
        snapshot.apply(Object::Node(node.clone()), &mut ChangeSet::default());
    }
    let config = Config {
        cluster_cidrs,
        network_name: "weft".parse().unwrap(),
        bridge: "cni0".parse().unwrap(),
        data_dir: "/var/lib/cni/networks".into(),
        blocks: None,
        boot: None,
        mtu: None,
        policy_timeout: None,
        backend: Backend::HostGw,
        tunnel: Tunnel::Vxlan,
        vxlan: Settings { vni: 1, port: 8472 },
        wireguard: wireguard(),
        leave_by: LeaveBy::Node,
        bgp_imports: Vec::new(),
        service_cidrs: Vec::new(),
    };
    plan(&snapshot, "node1", &config, uplink).unwrap()
}

fn node2(address: &str) -> Node {
    node("node2", &["10.244.2.0/24"], &[address])
}

#[test]
fn routes_come_change_and_go_with_their_nodes() {
    let mut world = World::new();
    let dual = node("node3", &["10.244.3.0/24", "fd00:10:244:3::/64"], &["172.30.0.13", "fd00:30::12"]);
    let plan = plan_among(&[node2("172.30.0.12"), dual]);
    assert_eq!(world.apply(&plan), Vec::<String>::new());
    assert_eq!(world.apply(&plan), Vec::<String>::new(), "nothing is added twice");
    let expected = [
        "10.244.2.0/24 via 172.30.0.12",
        "10.244.3.0/24 via 172.30.0.13",
        "fd00:10:244:3::/64 via fd00:30::12",
    ];
    assert_eq!(world.routes(), expected);

    world.apply(&plan_among(&[node2("172.30.0.13")]));
    assert_eq!(world.routes(), ["10.244.2.0/24 via 172.30.0.13"]);

    world.apply(&plan_among(&[]));
    assert_eq!(world.routes(), Vec::<String>::new());
}

#[test]
fn stale_routes_of_our_own_go_and_foreign_ones_stay() {
    let mut world = World::new();
    sh(&world.node, "ip route add 10.244.9.0/24 via 172.30.0.12 proto 119");
    sh(&world.node, "ip route add 10.244.2.0/24 via 172.30.0.13 proto 119 metric 5");
    sh(&world.node, "ip route add 10.244.8.0/24 via 172.30.0.12 proto static");
    sh(&world.node, "ip route add 10.244.3.0/24 via 172.30.0.1");
    let before = sh(&world.node, "ip route show proto static; ip route show proto boot");

    let node3 = node("node3", &["10.244.3.0/24"], &["172.30.0.13"]);
    let errors = world.apply(&plan_among(&[node2("172.30.0.12"), node3]));
    assert_eq!(world.routes(), ["10.244.2.0/24 via 172.30.0.12"]);
    assert_eq!(sh(&world.node, "ip route show proto static; ip route show proto boot"), before);
    assert_eq!(errors.len(), 1);
    assert!(errors[0].contains("cannot add route 10.244.3.0/24 via 172.30.0.13: "), "{errors:?}");
    assert!(errors[0].contains("is not Weft's and stays"), "{errors:?}");
}

#[test]
fn one_bad_route_does_not_keep_the_others_out() {
    let mut world = World::new();
    let far = node("a-far-away", &["10.244.7.0/24"], &["192.0.2.7"]);
    let errors = world.apply(&plan_among(&[far, node2("172.30.0.12")]));
    assert_eq!(world.routes(), ["10.244.2.0/24 via 172.30.0.12"]);
    assert_eq!(errors.len(), 1);
    assert!(errors[0].contains("10.244.7.0/24 via 192.0.2.7"), "{errors:?}");
    assert!(errors[0].contains("without a router in between"), "{errors:?}");
}

#[test]
fn pods_leave_the_cluster_as_their_node_and_stay_themselves_within() {
    let mut world = World::new();
    assert_eq!(world.apply(&plan_among(&[node2("172.30.0.12")])), Vec::<String>::new());
    assert_eq!(world.seen_as("172.30.0.1").to_string(), "172.30.0.11");
    assert_eq!(world.seen_as("10.244.2.5").to_string(), "10.244.1.2");
}

#[test]
fn the_rules_are_readable_and_are_put_back() {
    let mut world = World::new();
    let plan = plan_among(&[]);
    world.apply(&plan);
    let listed = sh(&world.node, "nft list ruleset");
    for line in [
        "table ip weft-agent {",
        "type nat hook postrouting priority srcnat; policy accept;",
        "elements = { 10.244.1.0/24 . 10.244.0.0/16 }",
        "ip saddr . ip daddr @stays-within accept",
        "ip saddr 10.244.1.0/24 masquerade fully-random",
        "table ip6 weft-agent {",
        "elements = { fd00:10:244:1::/64 . fd00:10:244:1::/64 }",
        "ip6 saddr fd00:10:244:1::/64 masquerade fully-random",
    ] {
        assert!(listed.contains(line), "{line} in {listed}");
    }
    let handles = sh(&world.node, "nft -a list ruleset");
    world.apply(&plan);
    assert_eq!(sh(&world.node, "nft -a list ruleset"), handles, "what is as planned is not touched");

    sh(
        &world.node,
        "nft add table ip other && nft delete table ip weft-agent && nft flush table ip6 weft-agent",
    );
    world.apply(&plan);
    let again = sh(&world.node, "nft list table ip weft-agent; nft list table ip6 weft-agent");
    assert_eq!(again, listed);
    assert!(sh(&world.node, "nft list tables").contains("table ip other"), "another's table stays");
}

#[test]
fn a_node_more_is_an_element_more_and_touches_no_rule() {
    let mut world = World::new();
    let plan = |others: &[Node]| plan_with(Vec::new(), others);
    world.apply(&plan(&[]));
    let chains = sh(&world.node, "nft -a list ruleset | sed -n '/chain/,/}/p'");
    world.apply(&plan(&[node2("172.30.0.12")]));
    let listed = sh(&world.node, "nft list table ip weft-agent");
    assert!(listed.contains("10.244.1.0/24 . 10.244.2.0/24"), "{listed}");
    assert_eq!(sh(&world.node, "nft -a list ruleset | sed -n '/chain/,/}/p'"), chains);
    assert_eq!(world.seen_as("10.244.2.5").to_string(), "10.244.1.2");
    world.apply(&plan(&[]));
    assert!(!sh(&world.node, "nft list ruleset").contains("10.244.2.0/24"), "the Node went, its element too");
}

#[test]
fn the_plan_prints_as_nft_takes_it() {
    let world = World::new();
    let plan = plan_among(&[]);
    let text: String = rules::tables(&plan.masquerade).iter().map(ToString::to_string).collect();
    sh(&world.node, &format!("nft -f - <<'END'\n{text}END"));
    assert_eq!(sh(&world.node, "nft list ruleset").matches("masquerade fully-random").count(), 2);
}

#[test]
fn forwarding_is_set_in_this_namespace_alone() {
    let mut world = World::new();
    let read = |namespace: &Namespace| {
        sh(namespace, "cat /proc/sys/net/ipv4/ip_forward /proc/sys/net/ipv6/conf/all/forwarding")
    };
    world.apply(&plan_among(&[]));
    assert_eq!(read(&world.node), "1\n1\n");
    assert_eq!(read(&world.others), "0\n0\n");
}

fn ips(texts: &[&str]) -> Vec<IpAddr> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

impl World {
    /// What the node's own side of the network is, where it is known under these addresses.
    fn uplink(&mut self, addresses: &[&str], leave_by: &LeaveBy) -> Result<Uplink, String> {
        let others = ips(&["172.30.0.12", "fd00:30::12"]);
        let found = self.node.run(|| self.uplink.observe(&ips(addresses), &others, leave_by)).unwrap();
        found.map_err(|error| error.to_string())
    }
}

#[test]
fn a_default_route_that_a_router_advertised_outlives_forwarding() {
    let mut world = World::new();
    sh(&world.node, "sysctl -qw net.ipv6.conf.all.forwarding=0 net.ipv6.conf.uplink.accept_ra=1");
    let has_route = |world: &World| sh(&world.node, "ip -6 route show default").contains("proto ra");
    eventually("a router is heard", || {
        advertise_router(&world.others, "wire");
        has_route(&world)
    });
    let uplink = world.uplink(&["172.30.0.11", "fd00:30::11"], &LeaveBy::Node).unwrap();
    assert_eq!(uplink.advertised.iter().collect::<Vec<_>>(), ["uplink"]);
    assert_eq!(world.apply(&plan_by(&uplink)), Vec::<String>::new());
    assert!(has_route(&world), "{}", sh(&world.node, "ip -6 route"));
    let read = "cat /proc/sys/net/ipv6/conf/all/forwarding /proc/sys/net/ipv6/conf/uplink/accept_ra";
    assert_eq!(sh(&world.node, read), "1\n2\n");
}

#[test]
fn the_uplink_is_the_link_with_the_nodes_address() {
    let mut world = World::new();
    let v4 = world.uplink(&["172.30.0.11"], &LeaveBy::Node).unwrap();
    let networks = vec!["172.30.0.11/24".parse().unwrap()];
    let expected = Uplink {
        mtu: Some(1450),
        locals: ips(&["172.30.0.11"]),
        links: vec!["uplink".into()],
        networks,
        ..Uplink::default()
    };
    assert_eq!(v4, expected);
    let dual = world.uplink(&["10.244.1.1", "fd00:30::11"], &LeaveBy::Node).unwrap();
    assert_eq!((dual.mtu, dual.locals.len()), (Some(1450), 2));
}

#[test]
fn a_node_behind_a_translation_leaves_by_the_address_that_leads_to_the_others() {
    let mut world = World::new();
    let uplink = world.uplink(&["203.0.113.7", "2001:db8::7"], &LeaveBy::Node).unwrap();
    assert_eq!(uplink.foreign, ips(&["203.0.113.7", "2001:db8::7"]));
    assert_eq!(uplink.locals, ips(&["172.30.0.11", "fd00:30::11"]));

    let addresses = LeaveBy::Addresses(ips(&["10.244.1.1"]));
    let uplink = world.uplink(&["203.0.113.7"], &addresses).unwrap();
    assert_eq!((uplink.locals, uplink.foreign), (ips(&["10.244.1.1"]), vec![]), "as --node-ip says");
    let interface = LeaveBy::Interface("uplink".parse().unwrap());
    let uplink = world.uplink(&["10.244.1.1"], &interface).unwrap();
    assert_eq!(uplink.locals, ips(&["172.30.0.11", "fd00:30::11"]), "as --iface says");
    let wrong = [LeaveBy::Addresses(ips(&["192.0.2.7"])), LeaveBy::Interface("eth7".parse().unwrap())];
    for (leave_by, word) in wrong.iter().zip(["--node-ip 192.0.2.7", "--iface eth7"]) {
        let error = world.uplink(&["172.30.0.11"], leave_by).unwrap_err();
        assert!(error.starts_with(word), "{error}");
    }
}

#[test]
fn nobody_is_near_by_an_interface_that_finds_no_neighbours() {
    let mut world = World::new();
    sh(&world.node, "ip link set uplink arp off");
    let uplink = world.uplink(&["172.30.0.11"], &LeaveBy::Node).unwrap();
    assert_eq!((uplink.networks, uplink.mtu), (vec![], Some(1450)), "as by WireGuard");
}

#[test]
fn what_is_missed_is_what_the_kernel_lacks() {
    let world = World::new();
    let addresses = "ip addr add 10.244.1.1/24 dev cni0 && ip addr add fd00:10:244:1::1/64 dev cni0 nodad";
    sh(&world.node, &format!("ip link add cni0 type bridge && {addresses} && ip link set cni0 up"));
    for (port, alias) in [("pod", "weft/a/eth0"), ("foreign", "theirs")] {
        sh(&world.node, &format!("ip link add {port} type veth peer name {port}-far"));
        sh(&world.node, &format!("ip link set {port} up master cni0 alias {alias}"));
        sh(&world.node, &format!("bridge link set dev {port} isolated on hairpin off"));
    }
    let list = plan_among(&[]).cni_config.unwrap();
    let held: Vec<IpAddr> = ["10.244.1.2", "fd00:10:244:1::2"].map(|text| text.parse().unwrap()).into();
    let ranges = ["10.244.1.0/24", "fd00:10:244:1::/64"].map(|text| text.parse().unwrap());
    let mut bridge = world.node.run(BridgeObserver::open).unwrap().unwrap();
    let mut missing = |bridge_netfilter| -> Vec<String> {
        let expected = Expected::by(&list, &ranges, &held, port(bridge_netfilter)).unwrap();
        let found = bridge.observe("cni0").unwrap();
        expected.defects(&found).iter().map(|defect| defect.text().to_owned()).collect()
    };
    assert_eq!(missing(false), Vec::<String>::new());
    assert_eq!(
        missing(true),
        ["pod has other bridge port settings (hairpin, isolated) than a pod's port"],
        "as Docker turned it on"
    );
    sh(&world.node, "ip link set pod nomaster && ip addr flush dev cni0");
    let expected = [
        "the bridge cni0 lacks the address 10.244.1.1/24",
        "the bridge cni0 lacks the address fd00:10:244:1::1/64",
        "pod is no port of the bridge cni0",
    ];
    assert_eq!(missing(false), expected);
}

#[test]
fn a_way_that_was_learned_by_several_next_hops_leads_by_all_of_them_and_is_found_again() {
    let mut world = World::new();
    let both =
        |last: &[u8]| last.iter().map(|last| IpAddr::from([172, 30, 0, *last])).collect::<BTreeSet<_>>();
    let planned = |hops: BTreeSet<IpAddr>| RoutingPlan {
        routes: vec![NodeRoute {
            destination: "10.244.2.0/24".parse().unwrap(),
            next_hop: NextHop::Learned(*hops.first().unwrap()),
            further: hops.iter().skip(1).copied().collect(),
            fallback: None,
        }],
        ..RoutingPlan::default()
    };
    for hops in [both(&[12, 13]), both(&[13]), both(&[12, 13, 14])] {
        let problems = world.routes.apply(&planned(hops.clone()));
        assert!(problems.is_empty(), "{problems:?}");
        let text = sh(&world.node, "ip route show proto bgp");
        assert_eq!(text.matches("via ").count(), hops.len(), "{text}");
        assert!(hops.iter().all(|hop| text.contains(&format!("via {hop} "))), "{text}");
    }
    let text = sh(&world.node, "ip route show proto bgp");
    let problems = world.routes.apply(&planned(both(&[12, 13, 14])));
    assert!(problems.is_empty() && sh(&world.node, "ip route show proto bgp") == text);
}
