//! Sockets led by programs. Beside them, unless a test needs one, is a data plane that does nothing: what
//! answers was reached by the programs alone.

use std::collections::BTreeSet;
use std::fs;
use std::io::{ErrorKind, Read};
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use nix::unistd::gettid;
use weft_netlink::netns::Namespace;
use weft_proxy::config::{Config, Ebpf, EbpfScope, ProxyMode, StaleSockets};
use weft_proxy::dataplane::ebpf::EbpfDataplane;
use weft_proxy::services::planner::{Planner, everything};
use weft_proxy::sync::Sync;
use weft_testkit::cgroup::{Bpffs, ControlGroup};
use weft_testkit::dataplane::{MemoryDataplane, MemoryKernel};
use weft_testkit::program::run;
use weft_testkit::wait::eventually;
use weft_testkit::world::{Connection, PATIENCE, World, is_refused, pod_address, tcp};
use weft_types::{Family, Object, ObjectKey, Service};

use super::{Cluster, cluster_ip, name, service, slices};

/// A node whose clients are in a cgroup.
struct Node<'a> {
    cluster: Cluster<'a>,
    group: ControlGroup,
    bpffs: Bpffs,
}

impl<'a> Node<'a> {
    /// One with programs alone.
    fn new(world: &'a World, ebpf: Ebpf) -> Node<'a> {
        let mut node = Node::beside(world, ProxyMode::Nftables, ebpf, open_alone);
        node.cluster.put([service()].into_iter().chain(slices(&[1, 2])));
        node
    }

    fn beside(world: &'a World, mode: ProxyMode, ebpf: Ebpf, open: fn(&World, &Config) -> Sync) -> Node<'a> {
        let (group, bpffs) = (ControlGroup::new(), Bpffs::mount());
        let cgroup = Some(group.path().to_owned());
        let ebpf = Ebpf { cgroup, bpffs: Some(bpffs.path().to_owned()), ..ebpf };
        let cluster = Cluster::with(world, Config { ebpf, mode, ..Config::default() }, open);
        Node { cluster, group, bpffs }
    }

    /// The proxy as it would be started now.
    fn restart(&mut self) {
        let Cluster { world, config, snapshot, sync } = &mut self.cluster;
        *sync = open_alone(world, config);
        sync.apply(snapshot, &everything(snapshot)).unwrap();
    }

    /// Asks from the cgroup and a namespace.
    fn in_group<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        self.group.run(work)
    }

    fn tcp(&self, from: &Namespace, to: SocketAddr) -> String {
        self.in_group(|| tcp(from, to))
    }

    /// A socket of the node, and in the cgroup.
    fn udp_socket(&self, family: Family) -> UdpSocket {
        let any: IpAddr = match family {
            Family::V4 => [0; 4].into(),
            Family::V6 => [0u16; 8].into(),
        };
        let node = &self.cluster.world.node;
        let socket = self.in_group(|| node.run(|| UdpSocket::bind((any, 0))).unwrap()).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket
    }

    /// All that is pinned.
    fn pins(&self) -> Vec<PathBuf> {
        let mut pins = Vec::new();
        for folder in fs::read_dir(self.bpffs.path().join("weft-proxy")).into_iter().flatten().flatten() {
            pins.extend(fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path()));
        }
        pins.sort();
        pins
    }
}

/// The proxy with a data plane that leads no packets.
fn open_alone(world: &World, config: &Config) -> Sync {
    let beside = Box::new(MemoryDataplane::new(&MemoryKernel::default()));
    let dataplane = world.node.run(|| EbpfDataplane::before(beside, &config.ebpf)).unwrap();
    Sync::new(Planner::new("node1"), dataplane)
}

fn host() -> Ebpf {
    Ebpf { scope: Some(EbpfScope::Host), ..Ebpf::default() }
}

fn at(family: Family) -> SocketAddr {
    SocketAddr::new(cluster_ip(family), 80)
}

/// Which pod answers to a datagram, and from where.
fn answer(socket: &UdpSocket) -> (String, SocketAddr) {
    let mut buffer = [0; 64];
    let (length, from) = socket.recv_from(&mut buffer).unwrap();
    (String::from_utf8_lossy(&buffer[..1.min(length)]).into_owned(), from)
}

#[test]
fn connections_of_the_node_are_led_to_all_endpoints_and_know_the_cluster_ip_as_their_peer() {
    let world = World::new();
    world.serve(8080);
    let node = Node::new(&world, host());
    for family in Family::BOTH {
        let pods: BTreeSet<String> =
            (0..60).map(|_| node.tcp(&world.node, at(family))[..1].to_owned()).collect();
        assert_eq!(pods.len(), 2, "{pods:?}");
        let connect = || TcpStream::connect_timeout(&at(family), PATIENCE);
        let stream = node.in_group(|| world.node.run(connect).unwrap()).unwrap();
        assert_eq!(stream.peer_addr().unwrap(), at(family));
        // The packets themselves go to the pod, without translation.
        assert_eq!(world.node.run(|| connections_of_tcp(at(family).ip())).unwrap(), 0);
    }
}

/// How many sockets have that address as their peer, for the kernel.
fn connections_of_tcp(peer: IpAddr) -> usize {
    let mut sockets = weft_netlink::sock_diag::SocketDiag::open().unwrap();
    sockets.connected(6).unwrap().iter().filter(|socket| socket.peer.ip() == peer).count()
}

#[test]
fn datagrams_of_one_socket_are_led_to_all_endpoints_and_answers_come_from_the_cluster_ip() {
    let world = World::new();
    world.serve(8080);
    let node = Node::new(&world, host());
    for family in Family::BOTH {
        let socket = node.udp_socket(family);
        let mut pods = BTreeSet::new();
        for _ in 0..60 {
            socket.send_to(b"?", at(family)).unwrap();
            let (pod, from) = answer(&socket);
            assert_eq!(from, at(family));
            pods.insert(pod);
        }
        assert_eq!(pods.len(), 2, "{pods:?}");
        // What was sent to a pod by its own address is answered from there.
        let direct = SocketAddr::new(pod_address(family, 1), 8080);
        let socket = node.udp_socket(family);
        socket.send_to(b"?", direct).unwrap();
        assert_eq!(answer(&socket), ("1".to_owned(), direct));
    }
}

#[test]
fn a_connected_udp_socket_has_one_endpoint_and_knows_the_cluster_ip_as_its_peer() {
    let world = World::new();
    world.serve(8080);
    let node = Node::new(&world, host());
    for family in Family::BOTH {
        let socket = node.udp_socket(family);
        socket.connect(at(family)).unwrap();
        assert_eq!(socket.peer_addr().unwrap(), at(family));
        let answers: BTreeSet<_> = (0..20)
            .map(|_| {
                socket.send(b"?").unwrap();
                answer(&socket)
            })
            .collect();
        assert_eq!(answers.len(), 1, "{answers:?}");
        assert_eq!(answers.first().unwrap().1, at(family));
    }
}

#[test]
fn sockets_for_both_families_are_led_by_addresses_of_ipv4_in_ipv6() {
    let world = World::new();
    world.serve(8080);
    let node = Node::new(&world, host());
    let IpAddr::V4(address) = cluster_ip(Family::V4) else { panic!("no IPv4") };
    let mapped = SocketAddr::new(address.to_ipv6_mapped().into(), 80);
    let connect = || TcpStream::connect_timeout(&mapped, PATIENCE);
    let stream = node.in_group(|| world.node.run(connect).unwrap()).unwrap();
    assert_eq!(stream.peer_addr().unwrap(), mapped);
    let socket = node.udp_socket(Family::V6);
    socket.send_to(b"?", mapped).unwrap();
    assert_eq!(answer(&socket).1, mapped);
    socket.connect(mapped).unwrap();
    socket.send(b"?").unwrap();
    assert_eq!((answer(&socket).1, socket.peer_addr().unwrap()), (mapped, mapped));
}

#[test]
fn a_client_stays_at_its_endpoint_where_the_service_has_affinity() {
    let world = World::new();
    world.serve(8080);
    let mut node = Node::new(&world, host());
    let Object::Service(web) = service() else { panic!("no Service") };
    let affinity = Some(Duration::from_secs(10_800));
    node.cluster.put([Object::Service(Service { affinity, ..web.clone() })]);
    let once = |node: &Node| -> BTreeSet<String> {
        (0..20).map(|_| node.tcp(&world.node, at(Family::V4))[..1].to_owned()).collect()
    };
    let first = once(&node);
    assert_eq!(first.len(), 1, "{first:?}");
    let gone: usize = first.first().unwrap().parse().unwrap();
    let other = 3 - gone;
    node.cluster.put(slices(&[other]));
    assert_eq!(once(&node), BTreeSet::from([other.to_string()]), "its endpoint is gone");
    node.cluster.put(slices(&[1, 2]));
    assert_eq!(once(&node), BTreeSet::from([other.to_string()]), "it stays at the new one");
    // For a second only.
    let affinity = Some(Duration::from_secs(1));
    node.cluster.put([Object::Service(Service { affinity, ..web })]);
    eventually("another endpoint after the affinity has ended", || {
        thread::sleep(Duration::from_millis(1100));
        once(&node) != BTreeSet::from([other.to_string()])
    });
}

#[test]
fn new_connections_never_fail_while_endpoints_change_and_never_go_to_one_that_is_gone() {
    let world = World::new();
    world.serve(8080);
    let mut node = Node::beside(&world, ProxyMode::Nftables, host(), super::open);
    node.cluster.put([service()].into_iter().chain(slices(&[1, 2])));
    let group = node.group.path().to_owned();
    while_connecting(&world, &group, Family::V4, |count| {
        for pods in [&[1][..], &[1, 2], &[2], &[2, 1]].into_iter().cycle() {
            node.cluster.put(slices(pods));
            if count.load(Ordering::Relaxed) > 100 {
                break;
            }
        }
    });
    node.cluster.put(slices(&[2]));
    assert!((0..40).all(|_| node.tcp(&world.node, at(Family::V6)).starts_with('2')));
}

/// Connects from a cgroup of the node again and again, which never fails, while something else happens; that
/// is told how often it was.
fn while_connecting(world: &World, group: &Path, family: Family, mut happens: impl FnMut(&AtomicUsize)) {
    let (ends, count) = (AtomicBool::new(false), AtomicUsize::new(0));
    thread::scope(|scope| {
        let client = scope.spawn(|| {
            fs::write(group.join("cgroup.threads"), gettid().to_string()).unwrap();
            while !ends.load(Ordering::Relaxed) {
                drop(Connection::open(&world.node, at(family)).unwrap());
                count.fetch_add(1, Ordering::Relaxed);
            }
        });
        happens(&count);
        ends.store(true, Ordering::Relaxed);
        client.join().unwrap();
    });
}

#[test]
fn sockets_that_are_connected_to_an_endpoint_that_is_gone_are_destroyed_where_that_is_asked_for() {
    let world = World::new();
    world.serve(8080);
    for (stale_sockets, udp_ends, tcp_ends) in [
        (StaleSockets::None, false, false),
        (StaleSockets::Udp, true, false),
        (StaleSockets::All, true, true),
    ] {
        let mut node = Node::new(&world, Ebpf { stale_sockets, ..host() });
        node.cluster.put(slices(&[1]));
        let socket = node.udp_socket(Family::V6);
        socket.connect(at(Family::V6)).unwrap();
        let connect = || TcpStream::connect_timeout(&at(Family::V4), PATIENCE);
        let stream = node.in_group(|| world.node.run(connect).unwrap()).unwrap();
        // It went to the pod without asking for the Service.
        let direct = node.udp_socket(Family::V6);
        direct.connect(SocketAddr::new(pod_address(Family::V6, 1), 8080)).unwrap();
        node.cluster.put(slices(&[2]));
        let has_ended = |error: std::io::Error| error.kind() == ErrorKind::ConnectionAborted;
        stream.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
        let read = || (&stream).read(&mut [0]).is_err_and(has_ended);
        let send = || socket.send(b"?").is_err_and(|error| error.kind() != ErrorKind::WouldBlock);
        if udp_ends {
            eventually("the UDP socket is destroyed", send);
        }
        if tcp_ends {
            eventually("the TCP socket is destroyed", read);
        }
        assert_eq!((udp_ends || send(), tcp_ends || read()), (udp_ends, tcp_ends), "{stale_sockets:?}");
        direct.send(b"?").unwrap();
        assert_eq!(answer(&direct).0, "1");
    }
}

#[test]
fn a_restart_takes_everything_over_and_no_connection_is_lost_meanwhile() {
    let world = World::new();
    world.serve(8080);
    let mut node = Node::new(&world, host());
    let pins = node.pins();
    assert_eq!(pins.len(), 13, "five maps and eight links: {pins:?}");
    let connect = || TcpStream::connect_timeout(&at(Family::V4), PATIENCE);
    let stream = node.in_group(|| world.node.run(connect).unwrap()).unwrap();
    let unconnected = node.udp_socket(Family::V4);
    unconnected.send_to(b"?", at(Family::V4)).unwrap();
    let group = node.group.path().to_owned();
    while_connecting(&world, &group, Family::V6, |count| {
        for restarts in 1.. {
            node.restart();
            if restarts >= 5 && count.load(Ordering::Relaxed) > 100 {
                break;
            }
        }
    });
    assert_eq!(node.pins(), pins);
    assert_eq!(stream.peer_addr().unwrap(), at(Family::V4));
    assert_eq!(answer(&unconnected).1, at(Family::V4), "the answer to what was sent before");
    // What changed while no proxy ran.
    let Cluster { snapshot, .. } = &mut node.cluster;
    slices(&[2]).into_iter().for_each(|slice| snapshot.apply(slice, &mut Default::default()));
    node.restart();
    assert!((0..40).all(|_| node.tcp(&world.node, at(Family::V4)).starts_with('2')));
}

#[test]
fn pods_are_led_where_all_are_and_left_alone_where_the_node_is_meant() {
    let world = World::new();
    world.serve(8080);
    let from_pod = |node: &Node| {
        node.in_group(|| {
            Connection::open_within(&world.pods[0], at(Family::V4), Duration::from_millis(500)).map(drop)
        })
    };
    let mut node = Node::new(&world, host());
    assert!(from_pod(&node).is_err());
    // The same programs, for others.
    node.cluster.config.ebpf.scope = Some(EbpfScope::All);
    node.restart();
    from_pod(&node).unwrap();
    // To itself, too: there is no hairpin where there is no way.
    node.cluster.put(slices(&[1]));
    assert_eq!(node.tcp(&world.pods[0], at(Family::V4)), "1 10.244.1.2");
    node.cluster.config.ebpf.scope = Some(EbpfScope::Host);
    node.restart();
    assert!(from_pod(&node).is_err());
}

in_every_mode!(what_programs_do_not_see_or_do_not_lead_is_led_by_packets);

fn what_programs_do_not_see_or_do_not_lead_is_led_by_packets(mode: ProxyMode) {
    let world = World::new();
    world.serve(8080);
    let mut node = Node::beside(&world, mode, host(), super::open);
    node.cluster.put([service()].into_iter().chain(slices(&[1, 2])));
    for family in Family::BOTH {
        tcp(&world.node, at(family));
        tcp(&world.outside, at(family));
        node.tcp(&world.pods[1], at(family));
        world.node.run(|| run("conntrack", &["-F"])).unwrap();
        node.tcp(&world.node, at(family));
        let (family_name, to) = (family.to_string().to_lowercase(), at(family).ip().to_string());
        let list = || run("conntrack", &["-L", "-f", &family_name, "--orig-dst", &to]);
        assert_eq!(world.node.run(list).unwrap(), "", "it is led by a program");
    }
    let node_port = SocketAddr::new("172.30.0.11".parse().unwrap(), super::NODE_PORT);
    node.tcp(&world.node, node_port);
    // Nobody is there: refused as without programs.
    node.cluster.put(slices(&[]));
    for family in Family::BOTH {
        assert!(is_refused(node.in_group(|| Connection::open(&world.node, at(family)))));
    }
    // A socket that was connected then is led as soon as somebody is there.
    let socket = node.udp_socket(Family::V4);
    socket.connect(at(Family::V4)).unwrap();
    node.cluster.put(slices(&[1]));
    eventually("an answer", || {
        socket.send(b"?").is_ok()
            && socket.set_read_timeout(Some(Duration::from_millis(300))).is_ok()
            && socket.recv(&mut [0; 64]).is_ok()
    });
    node.cluster.delete(ObjectKey::Service(name()));
    assert!(!world.node.run(|| run("nft", &["list", "ruleset"])).unwrap().contains("10.96.0.80"));
}

#[test]
fn nothing_is_left_after_cleanup_or_when_they_are_turned_off() {
    let world = World::new();
    world.serve(8080);
    let mut node = Node::new(&world, host());
    let fails = |node: &Node| {
        let connect = || Connection::open_within(&world.node, at(Family::V4), Duration::from_millis(300));
        node.in_group(connect).is_err()
    };
    node.cluster.config.ebpf.scope = None;
    node.restart();
    assert!(node.pins().is_empty() && fails(&node));
    node.cluster.config.ebpf.scope = Some(EbpfScope::Host);
    node.restart();
    assert!(!node.pins().is_empty() && !fails(&node));
    let config =
        Config { ebpf: Ebpf { scope: None, ..node.cluster.config.ebpf.clone() }, ..Config::default() };
    world.node.run(|| weft_proxy::dataplane::offline(&config).clean_up()).unwrap().unwrap();
    assert!(node.pins().is_empty() && fails(&node));
    assert!(!node.bpffs.path().join("weft-proxy").exists());
}

#[test]
fn pins_of_another_version_and_links_to_a_cgroup_that_is_gone_are_replaced() {
    let world = World::new();
    world.serve(8080);
    let mut node = Node::new(&world, host());
    let pins = node.pins();
    let folder = pins[0].parent().unwrap();
    fs::rename(folder.join("services-1"), folder.join("services-0")).unwrap();
    fs::rename(folder.join("connect4"), folder.join("connect9")).unwrap();
    node.restart();
    assert_eq!(node.pins(), pins);
    node.tcp(&world.node, at(Family::V4));
    // As when the cgroup is made again by that name.
    let again = ControlGroup::new();
    node.cluster.config.ebpf.cgroup = Some(again.path().to_owned());
    node.restart();
    assert_eq!(node.pins(), pins);
    again.run(|| tcp(&world.node, at(Family::V4)));
}

#[test]
fn where_programs_cannot_be_used_packets_are_led_all_the_same() {
    let world = World::new();
    world.serve(8080);
    let folder = tempfile::tempdir().unwrap();
    let ebpf = Ebpf { bpffs: Some(folder.path().to_owned()), ..host() };
    let mut cluster = Cluster::new(&world, Config { ebpf, ..Config::default() });
    cluster.put([service()].into_iter().chain(slices(&[1, 2])));
    tcp(&world.node, at(Family::V4));
}
