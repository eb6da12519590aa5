//! Nodes with a router between them, each with a pod.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;
use tempfile::TempDir;
use weft_agent::options::Options;
use weft_agent::plan::{NodePlan, plan};
use weft_agent::routing::probe::plan::PathStates;
use weft_agent::routing::routes::Routes;
use weft_agent::routing::wireguard::plan::DEVICE;
use weft_agent::sysctls::proc;
use weft_agent::uplink::observe::UplinkObserver;
use weft_agent::uplink::{LeaveBy, Uplink};
use weft_netlink::genl::wireguard::{Device, WireGuardClient};
use weft_netlink::netns::Namespace;
use weft_netlink::packet::{Instruction, PacketSocket};
use weft_netlink::rtnl::RtnetlinkClient;
use weft_netlink::sysctl::Originals;
use weft_testkit::namespace::{bare_end, cable, end, forward, machine, route_by, sh};
use weft_types::{ChangeSet, Node, Object, Snapshot, WireGuardEnd};

/// A node with a pod. Its number is part of all its addresses.
pub(crate) struct Site {
    pub(crate) number: u8,
    /// The number of the link that it is on.
    link: u8,
    pub(crate) node: Namespace,
    pub(crate) pod: Namespace,
    /// What its Node says.
    pub(crate) end: WireGuardEnd,
    /// It has a Node.
    pub(crate) is_there: bool,
    pub(crate) key_file: PathBuf,
    is_ipv4: bool,
    uplink: UplinkObserver,
    routes: Routes,
}

/// The nodes, and the router between them.
pub(crate) struct World {
    pub(crate) sites: Vec<Site>,
    pub(crate) router: Namespace,
    pub(crate) flags: Vec<&'static str>,
    /// What is known of the direct paths.
    pub(crate) path_states: PathStates,
    _keys: TempDir,
}

/// The router's end of a link, which is a switch.
fn switch(router: &Namespace, link: u8, is_ipv4: bool) {
    sh(router, &format!("ip link add link{link} type bridge && ip link set link{link} up"));
    if is_ipv4 {
        sh(router, &format!("ip addr add 172.30.{link}.1/24 dev link{link}"));
    }
    sh(router, &format!("ip addr add fd00:30:{link}::1/64 dev link{link} nodad"));
}

impl Site {
    fn new(number: u8, link: u8, router: &Namespace, is_ipv4: bool, key_file: PathBuf) -> Site {
        let [node, pod] = [(); 2].map(|()| machine());
        let families = |v4: &str, v6: &str| {
            let numbered =
                |text: &str| text.replace('N', &number.to_string()).replace('L', &link.to_string());
            let mut both = vec![numbered(v4), numbered(v6)];
            both.drain(..usize::from(!is_ipv4 && v4.starts_with("172.")));
            both
        };
        cable(
            &end(&node, "uplink", families("172.30.L.1N/24", "fd00:30:L::1N/64")),
            &bare_end(router, &format!("site{number}")),
        );
        sh(router, &format!("ip link set site{number} master link{link}"));
        cable(
            &end(&node, "bridge", families("10.244.N.1/24", "fd00:10:N::1/64")),
            &end(&pod, "eth0", families("10.244.N.2/24", "fd00:10:N::2/64")),
        );
        route_by(&node, families("172.30.L.1", "fd00:30:L::1"));
        route_by(&pod, families("10.244.N.1", "fd00:10:N::1"));
        sh(&pod, "ip link set eth0 mtu 1420");
        let uplink = node.run(UplinkObserver::open).unwrap().unwrap();
        let routes = node.run(Routes::open).unwrap().unwrap();
        let end = WireGuardEnd::default();
        Site { number, link, node, pod, end, is_there: true, key_file, is_ipv4, uplink, routes }
    }

    fn addresses(&self) -> Vec<IpAddr> {
        let (number, link) = (self.number, self.link);
        let v6 = Ipv6Addr::new(0xfd00, 0x30, link.into(), 0, 0, 0, 0, 0x10 + u16::from(number));
        let both = [IpAddr::from([172, 30, link, 10 + number]), v6.into()];
        both.into_iter().skip(usize::from(!self.is_ipv4)).collect()
    }

    fn object(&self) -> Node {
        let number = self.number;
        let pod_cidrs = [format!("10.244.{number}.0/24"), format!("fd00:10:{number}::/64")]
            .map(|text| text.parse().unwrap());
        Node {
            name: format!("node{number}"),
            pod_cidrs: pod_cidrs.to_vec(),
            addresses: self.addresses(),
            wireguard: (self.end != WireGuardEnd::default()).then(|| Box::new(self.end.clone())),
            ..Node::default()
        }
    }

    /// The addresses of its pod.
    pub(crate) fn pod_addresses(&self) -> [IpAddr; 2] {
        let number = self.number;
        [[10, 244, number, 2].into(), Ipv6Addr::new(0xfd00, 0x10, number.into(), 0, 0, 0, 0, 2).into()]
    }

    /// The device as the kernel has it.
    pub(crate) fn device(&self) -> Device {
        let mut client = self.node.run(WireGuardClient::open).unwrap().unwrap();
        let mut device = client.device(DEVICE).unwrap();
        device.peers.sort_by_key(|peer| peer.public_key);
        device
    }

    /// The links, addresses and routes that lead to other nodes, as text.
    pub(crate) fn state(&self) -> String {
        let device = "ip -o link show dev weft-wg; ip -br addr show dev weft-wg";
        let routes = "ip route show proto 119; ip -6 route show proto 119";
        sh(&self.node, &format!("{device}; {routes}"))
    }

    /// As an agent that starts: it knows what the kernel has.
    pub(crate) fn restart(&mut self) {
        self.routes = self.node.run(Routes::open).unwrap().unwrap();
    }

    pub(crate) fn apply(&mut self, plan: &NodePlan) -> Vec<String> {
        for setting in &plan.sysctls {
            self.node.run(|| proc::set(setting, &Originals::default())).unwrap().unwrap();
        }
        self.routes.apply(&plan.routing).iter().map(ToString::to_string).collect()
    }
}

impl World {
    /// So many nodes, each on a link of its own; the outer packets are of IPv4 where there is any.
    pub(crate) fn new(count: u8, is_ipv4: bool) -> World {
        World::on_links(&(1..=count).collect::<Vec<_>>(), is_ipv4)
    }

    /// A node on each of these links, of which several may be the same one.
    pub(crate) fn on_links(links: &[u8], is_ipv4: bool) -> World {
        let (router, keys) = (machine(), tempfile::tempdir().unwrap());
        forward(&router);
        links.iter().collect::<BTreeSet<_>>().into_iter().for_each(|link| switch(&router, *link, is_ipv4));
        let site = |(number, link): (u8, &u8)| {
            Site::new(number, *link, &router, is_ipv4, keys.path().join(format!("key{number}")))
        };
        let sites = (1..).zip(links).map(site).collect();
        World {
            sites,
            router,
            flags: vec!["--backend=wireguard", "--cluster-cidr=10.244.0.0/16,fd00:10::/32"],
            path_states: PathStates::default(),
            _keys: keys,
        }
    }

    pub(crate) fn plan(&mut self, site: usize) -> NodePlan {
        let mut snapshot = Snapshot::default();
        for site in self.sites.iter().filter(|site| site.is_there) {
            snapshot.apply(Object::Node(site.object()), &mut ChangeSet::default());
        }
        let site = &mut self.sites[site];
        let key_file = format!("--wireguard-key-file={}", site.key_file.display());
        let own = ["weft-agent", &key_file];
        let config = Options::parse_from(own.into_iter().chain(self.flags.iter().copied())).config();
        let object = site.object();
        let uplink =
            site.node.run(|| site.uplink.observe(&object.addresses, &[], &LeaveBy::Node)).unwrap().unwrap();
        let (wireguard, path_states) = (site.routes.wireguard_key().unwrap(), self.path_states.clone());
        let uplink = Uplink { wireguard, path_states, ..uplink };
        plan(&snapshot, &object.name, &config, &uplink).unwrap()
    }

    /// A round of each agent.
    pub(crate) fn apply_once(&mut self) {
        for site in 0..self.sites.len() {
            let plan = self.plan(site);
            assert_eq!(self.sites[site].apply(&plan), Vec::<String>::new());
        }
    }

    /// A round of each agent, and what they say put into the Nodes, until nobody says anything new.
    pub(crate) fn settle(&mut self) {
        for _ in 0..4 {
            let mut is_quiet = true;
            for site in (0..self.sites.len()).filter(|site| self.sites[*site].is_there).collect::<Vec<_>>() {
                let plan = self.plan(site);
                assert_eq!(self.sites[site].apply(&plan), Vec::<String>::new());
                let wireguard = plan.routing.wireguard.unwrap();
                if let Some(said) = wireguard.announcement {
                    let end = &mut self.sites[site].end;
                    (end.key, end.endpoint) = (said.key.to_string(), said.endpoint());
                    is_quiet = false;
                }
                // As the agent does, which asks for another round then.
                is_quiet &= wireguard.own == self.sites[site].routes.wireguard_key().unwrap();
            }
            if is_quiet {
                return;
            }
        }
        panic!("agents go on telling something new");
    }

    /// Whether the pod of one node gets a datagram to that of another, and is seen there under its own address.
    pub(crate) fn assert_reached(&self, from: usize, to: usize) {
        let (near, far) = (&self.sites[from], &self.sites[to]);
        for (client, server) in near.pod_addresses().into_iter().zip(far.pod_addresses()) {
            let bind = |site: &Site, address: IpAddr, port| {
                site.pod.run(|| UdpSocket::bind(SocketAddr::new(address, port))).unwrap().unwrap()
            };
            let (near, far) = (bind(near, client, 0), bind(far, server, 7));
            far.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
            near.send_to(SECRET, (server, 7)).unwrap();
            assert_eq!(far.recv_from(&mut [0; 64]).unwrap().1.ip(), client, "to {server}");
        }
    }

    /// Whether pods reach each other on these ways, and nobody between the nodes sees who they are.
    pub(crate) fn assert_encrypted(&self, ways: &[(usize, usize)]) {
        let wire = self.watch(0);
        ways.iter().for_each(|&(from, to)| self.assert_reached(from, to));
        wire.passed().assert_encrypted();
    }

    /// Looks at all that passes the router by the link of that site.
    pub(crate) fn watch(&self, site: usize) -> Wire<'_> {
        let name = format!("site{}", self.sites[site].number);
        let open = || {
            let index = RtnetlinkClient::open().unwrap().link(&name).unwrap().index;
            PacketSocket::open(index, EVERYTHING, &[PASS]).unwrap()
        };
        Wire { world: self, site, socket: self.router.run(open).unwrap() }
    }
}

/// What pods tell each other.
const SECRET: &[u8] = b"what pods tell each other";
/// What a node says for all to hear.
const MARK: &[u8] = b"that is all";
/// `ETH_P_ALL`
const EVERYTHING: u16 = 3;
/// `BPF_RET | BPF_K`, with as many bytes as there are.
const PASS: Instruction = Instruction { code: 6, if_true: 0, if_false: 0, number: u32::MAX };
const UDP: u8 = 17;

/// The link between a node and the router.
pub(crate) struct Wire<'a> {
    world: &'a World,
    site: usize,
    socket: PacketSocket,
}

/// What passed there.
#[derive(Debug, Default)]
pub(crate) struct Passed {
    /// The ports that UDP went to.
    pub(crate) ports: BTreeSet<u16>,
    /// Addresses of pods in outer headers.
    pub(crate) pods: BTreeSet<IpAddr>,
    /// What pods said could be read.
    pub(crate) is_readable: bool,
}

impl Wire<'_> {
    /// All that passed so far: up to what the node says now.
    pub(crate) fn passed(self) -> Passed {
        let site = &self.world.sites[self.site];
        let link = site.link;
        let router = match site.addresses()[0] {
            IpAddr::V4(_) => IpAddr::from([172, 30, link, 1]),
            IpAddr::V6(_) => Ipv6Addr::new(0xfd00, 0x30, link.into(), 0, 0, 0, 0, 1).into(),
        };
        let any = SocketAddr::new(
            if router.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() },
            0,
        );
        let node = site.node.run(|| UdpSocket::bind(any)).unwrap().unwrap();
        node.send_to(MARK, (router, 9)).unwrap();
        let (mut passed, mut buffer) = (Passed::default(), vec![0; 1 << 16]);
        loop {
            let mut length = 0;
            weft_testkit::wait::eventually("what the node says comes by", || {
                self.socket.receive(&mut buffer).map(|received| length = received.length).is_ok()
            });
            let packet = &buffer[..length];
            if packet.ends_with(MARK) {
                return passed;
            }
            passed.take(packet);
        }
    }
}

impl Passed {
    fn take(&mut self, packet: &[u8]) {
        let v4 = |at: usize| IpAddr::from(<[u8; 4]>::try_from(&packet[at..at + 4]).unwrap());
        let v6 = |at: usize| IpAddr::from(<[u8; 16]>::try_from(&packet[at..at + 16]).unwrap());
        let (ends, protocol, header) = match packet[0] >> 4 {
            4 => ([v4(12), v4(16)], packet[9], usize::from(packet[0] & 15) * 4),
            6 => ([v6(8), v6(24)], packet[6], 40),
            // ARP.
            _ => return,
        };
        let is_pod = |address: &IpAddr| match address {
            IpAddr::V4(address) => address.octets().starts_with(&[10, 244]),
            IpAddr::V6(address) => address.octets().starts_with(&[0xfd, 0, 0, 0x10]),
        };
        self.pods.extend(ends.iter().filter(|end| is_pod(end)));
        if protocol == UDP {
            self.ports.insert(u16::from_be_bytes([packet[header + 2], packet[header + 3]]));
        }
        self.is_readable |= packet.windows(SECRET.len()).any(|window| window == SECRET);
    }

    /// Whether it was the encrypted tunnel's alone.
    pub(crate) fn assert_encrypted(&self) {
        assert_eq!(self.ports, [51820].into(), "{self:?}");
        assert!(self.pods.is_empty() && !self.is_readable, "{self:?}");
    }

    /// Whether it was pods' own packets alone.
    pub(crate) fn assert_direct(&self, pods: &[IpAddr]) {
        assert_eq!(self.ports, [7].into(), "{self:?}");
        assert!(self.is_readable && self.pods == pods.iter().copied().collect(), "{self:?}");
    }

    /// Whether nothing of pods left.
    pub(crate) fn assert_nothing(&self) {
        assert!(self.ports.is_empty() && self.pods.is_empty() && !self.is_readable, "{self:?}");
    }
}
