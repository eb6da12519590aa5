//! The VXLAN tunnel against the real kernel: two nodes with a router between them, each with a pod. Runs as
//! root.

#![allow(clippy::unwrap_used, reason = "a test stops at the first thing that goes wrong")]

use std::net::{IpAddr, Ipv6Addr, SocketAddr, UdpSocket};
use std::process::Command;
use std::time::Duration;

use weft_agent::config::Config;
use weft_agent::plan::{NodePlan, plan};
use weft_agent::routing::probe::plan::{PathState, PathStates};
use weft_agent::routing::routes::Routes;
use weft_agent::routing::vxlan::checksum::Finding;
use weft_agent::routing::vxlan::checksum_test::test_tunnel;
use weft_agent::routing::vxlan::plan::Settings;
use weft_agent::routing::wireguard::plan as wireguard;
use weft_agent::sysctls::proc;
use weft_agent::uplink::observe::UplinkObserver;
use weft_agent::uplink::{Backend, LeaveBy, Tunnel, Uplink};
use weft_netlink::ethtool::tx_checksum;
use weft_netlink::netns::Namespace;
use weft_netlink::sysctl::Originals;
use weft_testkit::namespace::{cable, end, forward, route_by, sh};
use weft_types::{ChangeSet, Node, Object, Snapshot};

/// A node with a pod. Its number is part of all its addresses.
struct Site {
    number: u8,
    node: Namespace,
    pod: Namespace,
    uplink: UplinkObserver,
    routes: Routes,
}

/// Two nodes, and the router between them.
struct World {
    sites: [Site; 2],
    router: Namespace,
    settings: Settings,
    path_states: PathStates,
}

impl Site {
    fn new(number: u8, router: &Namespace, is_ipv4: bool) -> Site {
        let [node, pod] = [(); 2].map(|()| Namespace::temporary().unwrap());
        let families = |v4: &str, v6: &str| {
            let mut both = vec![v4.replace('N', &number.to_string()), v6.replace('N', &number.to_string())];
            both.drain(..usize::from(!is_ipv4 && v4.starts_with("172.")));
            both
        };
        cable(
            &end(&node, "uplink", families("172.30.N.10/24", "fd00:30:N::10/64")),
            &end(router, &format!("site{number}"), families("172.30.N.1/24", "fd00:30:N::1/64")),
        );
        cable(
            &end(&node, "bridge", families("10.244.N.1/24", "fd00:10:N::1/64")),
            &end(&pod, "eth0", families("10.244.N.2/24", "fd00:10:N::2/64")),
        );
        route_by(&node, families("172.30.N.1", "fd00:30:N::1"));
        route_by(&pod, families("10.244.N.1", "fd00:10:N::1"));
        let uplink = node.run(UplinkObserver::open).unwrap().unwrap();
        let routes = node.run(Routes::open).unwrap().unwrap();
        Site { number, node, pod, uplink, routes }
    }

    fn name(&self) -> String {
        format!("node{}", self.number)
    }

    fn object(&self) -> Node {
        let texts = sh(&self.node, "ip -br addr show dev uplink");
        let addresses =
            texts.split_whitespace().filter_map(|word| word.split_once('/')?.0.parse::<IpAddr>().ok());
        let is_global =
            |address: &IpAddr| !matches!(address, IpAddr::V6(address) if address.is_unicast_link_local());
        Node {
            pod_cidrs: [format!("10.244.{}.0/24", self.number), format!("fd00:10:{}::/64", self.number)]
                .map(|text| text.parse().unwrap())
                .to_vec(),
            addresses: addresses.filter(is_global).collect(),
            name: self.name(),
            ..Node::default()
        }
    }

    fn apply(&mut self, plan: &NodePlan) -> Vec<String> {
        for setting in &plan.sysctls {
            self.node.run(|| proc::set(setting, &Originals::default())).unwrap().unwrap();
        }
        self.routes.apply(&plan.routing).iter().map(ToString::to_string).collect()
    }

    /// What the device is and knows, as text.
    fn state(&self) -> String {
        let device = "ip -br link show dev weft-vxlan; ip -br addr show dev weft-vxlan";
        let known = "bridge fdb show dev weft-vxlan; ip neigh show dev weft-vxlan nud permanent; ip -6 neigh show dev weft-vxlan nud permanent";
        let routes = "ip route show proto 119; ip -6 route show proto 119";
        sh(&self.node, &format!("{device}; {known}; {routes}"))
    }
}

/// As without flags.
fn wireguard() -> wireguard::Settings {
    let key_file = "/var/lib/cni/networks/.wireguard-key".into();
    wireguard::Settings { port: 51820, keepalive: None, encryption: wireguard::Encryption::Strict, key_file }
}

impl World {
    /// The outer packets are of IPv4 where there is any.
    fn new(is_ipv4: bool) -> World {
        let router = Namespace::temporary().unwrap();
        forward(&router);
        let sites = [1, 2].map(|number| Site::new(number, &router, is_ipv4));
        World { sites, router, settings: Settings { vni: 1, port: 8472 }, path_states: PathStates::default() }
    }

    /// Both nodes on one link.
    fn flat() -> World {
        let world = World::new(true);
        sh(&world.router, "ip link add br0 type bridge && ip link set br0 up");
        for Site { number, node, .. } in &world.sites {
            sh(
                &world.router,
                &format!("ip addr flush dev site{number}; ip link set site{number} master br0"),
            );
            let (v4, v6) = (format!("172.30.9.{number}/24"), format!("fd00:30:9::{number}/64"));
            sh(node, &format!("ip addr flush dev uplink scope global && ip addr add {v4} dev uplink"));
            sh(node, &format!("ip addr add {v6} dev uplink nodad"));
        }
        world
    }

    fn plan(&mut self, site: usize) -> NodePlan {
        let mut snapshot = Snapshot::default();
        for site in &self.sites {
            snapshot.apply(Object::Node(site.object()), &mut ChangeSet::default());
        }
        let config = Config {
            cluster_cidrs: Vec::new(),
            network_name: "weft".parse().unwrap(),
            bridge: "cni0".parse().unwrap(),
            data_dir: "/var/lib/cni/networks".into(),
            blocks: None,
            boot: None,
            mtu: None,
            policy_timeout: None,
            backend: Backend::Auto,
            tunnel: Tunnel::Vxlan,
            vxlan: self.settings,
            wireguard: wireguard(),
            leave_by: LeaveBy::Node,
            bgp_imports: Vec::new(),
            service_cidrs: Vec::new(),
        };
        let site = &mut self.sites[site];
        let own = site.object();
        let uplink =
            site.node.run(|| site.uplink.observe(&own.addresses, &[], &LeaveBy::Node)).unwrap().unwrap();
        plan(&snapshot, &own.name, &config, &Uplink { path_states: self.path_states.clone(), ..uplink })
            .unwrap()
    }

    fn apply(&mut self) {
        for site in 0..2 {
            let plan = self.plan(site);
            assert_eq!(self.sites[site].apply(&plan), Vec::<String>::new());
        }
    }

    /// Whether the pod of the first node reaches that of the second, and is seen there under its own address.
    fn assert_reached(&self) {
        let ends: [(IpAddr, IpAddr); 2] = [
            ([10, 244, 1, 2].into(), [10, 244, 2, 2].into()),
            (
                Ipv6Addr::new(0xfd00, 0x10, 1, 0, 0, 0, 0, 2).into(),
                Ipv6Addr::new(0xfd00, 0x10, 2, 0, 0, 0, 0, 2).into(),
            ),
        ];
        for (client, server) in ends {
            let bind = |site: &Site, address: IpAddr, port| {
                site.pod.run(|| UdpSocket::bind(SocketAddr::new(address, port))).unwrap().unwrap()
            };
            let (near, far) = (bind(&self.sites[0], client, 0), bind(&self.sites[1], server, 7));
            far.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
            near.send_to(b"hello", (server, 7)).unwrap();
            assert_eq!(far.recv_from(&mut [0; 16]).unwrap().1.ip(), client);
        }
    }
}

#[test]
fn pods_reach_each_other_over_a_router_in_both_families() {
    for is_ipv4 in [true, false] {
        let mut world = World::new(is_ipv4);
        world.apply();
        world.assert_reached();
        let mtu = if is_ipv4 { "mtu 1450" } else { "mtu 1430" };
        assert!(sh(&world.sites[0].node, "ip link show weft-vxlan").contains(mtu));
        let before = world.sites[0].state();
        world.apply();
        assert_eq!(world.sites[0].state(), before, "what is as planned is not touched");
    }
}

#[test]
fn the_largest_packet_of_a_pod_arrives_whole() {
    let mut world = World::new(true);
    world.apply();
    let mtu = world.plan(0).bridge_mtu().unwrap();
    let payload = mtu - 28;
    sh(&world.sites[0].pod, &format!("ping -c 1 -W 5 -M do -s {payload} 10.244.2.2"));
}

#[test]
fn a_card_that_spoils_checksums_is_found_and_worked_around() {
    let mut world = World::new(true);
    world.apply();
    let [near, far] = &world.sites;
    let gateway = ["10.244.2.0".parse().unwrap()];
    let offload = || near.node.run(|| tx_checksum("weft-vxlan")).unwrap().unwrap();
    let test = || near.node.run(|| test_tunnel(&gateway)).unwrap().unwrap();
    assert!(offload(), "as the kernel makes the device");
    assert_eq!((test(), offload()), (Finding::Fine, true));

    // Such a card: what it makes the checksums of is dropped where it arrives, as long as it makes them.
    let spoil = "nft 'add table ip card; add chain ip card input { type filter hook input priority 0; }; \
                 add rule ip card input iifname weft-vxlan meta l4proto tcp drop'";
    sh(&far.node, spoil);
    assert_eq!((test(), offload()), (Finding::Unknown, true), "nobody answers, whoever makes the checksums");
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while offload() {
                std::thread::sleep(Duration::from_millis(5));
            }
            sh(&far.node, "nft delete table ip card");
        });
        assert_eq!(test(), Finding::Spoiled);
    });
    assert_eq!((test(), offload()), (Finding::Fine, false), "and stays so");
}

#[test]
fn whatever_is_deleted_is_put_back_and_stale_entries_go() {
    let mut world = World::new(true);
    world.apply();
    let whole = world.sites[0].state();
    for damage in [
        "ip link delete weft-vxlan",
        "ip link set weft-vxlan down",
        "ip link set weft-vxlan mtu 1300 address 0e:00:00:00:00:01",
        "ip route flush proto 119",
        "ip neigh flush dev weft-vxlan nud permanent; ip -6 neigh flush dev weft-vxlan nud permanent",
        "bridge fdb show dev weft-vxlan | while read mac rest; do bridge fdb del $mac dev weft-vxlan; done",
        "ip addr flush dev weft-vxlan scope global; ip addr add 10.9.9.9/32 dev weft-vxlan",
        "bridge fdb add 0e:00:00:00:00:02 dev weft-vxlan dst 172.30.9.9; ip neigh add 10.244.9.0 lladdr 0e:00:00:00:00:02 dev weft-vxlan",
        "ip link delete weft-vxlan; ip link add weft-vxlan type vxlan id 7 dstport 4789 local 172.30.1.10",
    ] {
        sh(&world.sites[0].node, damage);
        world.apply();
        let healed = world.sites[0].state();
        let comparable = |text: &str| -> Vec<String> {
            // The link-local address comes back in its own time.
            let mut lines: Vec<String> =
                text.lines().map(|line| line.split(" fe80").next().unwrap().trim().to_owned()).collect();
            lines.sort();
            lines
        };
        assert_eq!(comparable(&healed), comparable(&whole), "after {damage}");
        world.assert_reached();
    }
}

#[test]
fn the_tunnel_follows_other_settings_and_goes_with_its_backend() {
    let mut world = World::new(true);
    world.apply();
    world.settings = Settings { vni: 9, port: 4789 };
    world.apply();
    assert!(sh(&world.sites[0].node, "ip -d link show weft-vxlan").contains("vxlan id 9 "));
    world.assert_reached();

    let mut plan = world.plan(0);
    plan.routing.overlay = None;
    plan.routing.routes.clear();
    assert_eq!(world.sites[0].apply(&plan), Vec::<String>::new());
    assert!(!sh(&world.sites[0].node, "ip link").contains("weft-vxlan"));
}

#[test]
fn pods_change_between_the_tunnel_and_the_direct_path_and_lose_nothing() {
    let mut world = World::flat();
    world.apply();
    world.assert_reached();
    let way = |world: &World, to: &str| sh(&world.sites[0].node, &format!("ip route get {to}"));
    for (pods, gateway) in [("10.244.2.2", "10.244.2.1"), ("fd00:10:2::2", "fd00:10:2::1")] {
        assert!(way(&world, pods).contains("dev weft-vxlan"), "nothing is proved yet");
        assert!(way(&world, gateway).contains("dev uplink"), "this way it is tried");
    }
    for (pods, begin) in [("10.244.2.2", "src 10.244.1.0 "), ("fd00:10:2::2", "src fd00:10:1:: ")] {
        assert!(way(&world, pods).contains(begin), "what the node itself sends is not sent as by a probe");
    }
    for lost in ["10.244.2.0/24", "fd00:10:2::/64"] {
        sh(&world.sites[0].node, &format!("ip route del {lost} proto 119"));
        world.apply();
        world.assert_reached();
    }
    let pinging = ["10.244.2.2", "fd00:10:2::2"].map(|pod| {
        let mut ping = Command::new("ping");
        ping.args(["-q", "-i", "0.005", "-c", "400", "-W", "5", pod]).stdout(std::process::Stdio::piped());
        world.sites[0].pod.run(|| ping.spawn()).unwrap().unwrap()
    });
    for round in 0..10 {
        world.path_states =
            PathStates::assuming(if round % 2 == 0 { PathState::Works } else { PathState::Unknown });
        world.apply();
        assert_eq!(way(&world, "10.244.2.2").contains("dev uplink"), round % 2 == 0);
    }
    for ping in pinging {
        let told = String::from_utf8(ping.wait_with_output().unwrap().stdout).unwrap();
        assert!(told.contains(" 0% packet loss"), "{told}");
    }
}

#[test]
fn without_a_tunnel_to_be_had_a_way_is_used_untried() {
    let mut world = World::flat();
    sh(&world.sites[0].node, "ip link add weft-vxlan type bridge");
    let plan = world.plan(0);
    let errors = world.sites[0].apply(&plan);
    assert!(errors[0].contains("weft-vxlan that is no VXLAN device"), "{errors:?}");
    assert!(sh(&world.sites[0].node, "ip route get 10.244.2.2").contains("dev uplink"));
}

#[test]
fn what_is_in_the_way_is_named() {
    let mut world = World::new(true);
    let plan = world.plan(0);
    sh(
        &world.sites[0].node,
        "ip link add flannel.1 type vxlan id 1 dstport 8472 local 172.30.1.10 nolearning",
    );
    let errors = world.sites[0].apply(&plan);
    assert!(errors[0].contains("another VXLAN device has the same VNI and port"), "{errors:?}");
    sh(&world.sites[0].node, "ip link delete flannel.1 && ip link add weft-vxlan type bridge");
    let errors = world.sites[0].apply(&plan);
    assert!(errors[0].contains("weft-vxlan that is no VXLAN device"), "{errors:?}");
    assert!(sh(&world.router, "ip link").contains("site1"), "nobody else is touched");
}
