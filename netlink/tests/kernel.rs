//! The rtnetlink client against the real kernel, in namespaces made for each test. Runs as root.

#![allow(clippy::unwrap_used, reason = "a test stops at the first thing that goes wrong")]

use std::net::IpAddr;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use ipnetwork::IpNetwork;
use nix::errno::Errno;
use weft_netlink::netns::Namespace;
use weft_netlink::rtnl::{
    Address, Bridge, BridgePort, LinkChange, Mac, Neighbour, Route, RouteFilter, RtnetlinkClient, Veth,
    VethEnd,
};
use weft_netlink::{Protocol, Socket};
use weft_testkit::wait::eventually;

fn client(namespace: &Namespace) -> RtnetlinkClient {
    namespace.run(RtnetlinkClient::open).unwrap().unwrap()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn end(name: &str) -> VethEnd {
    VethEnd { name: name.into(), mac: None, mtu: None }
}

/// Two namespaces with a veth pair `near` / `far` between them, and a client for each.
struct Pair {
    near: RtnetlinkClient,
    far: RtnetlinkClient,
    near_index: u32,
    far_index: u32,
    _namespaces: [Namespace; 2],
}

impl Pair {
    fn new() -> Pair {
        let namespaces = [Namespace::temporary().unwrap(), Namespace::temporary().unwrap()];
        let (mut near, mut far) = (client(&namespaces[0]), client(&namespaces[1]));
        let veth = Veth { host: end("near"), host_group: 0, host_up: true, master: None, peer: end("far") };
        near.add_veth(&veth, namespaces[1].as_fd()).unwrap();
        let up = LinkChange { up: Some(true), ..LinkChange::default() };
        let far_link = far.link("far").unwrap();
        far.change_link(far_link.index, &up).unwrap();
        let (near_index, far_index) = (near.link("near").unwrap().index, far_link.index);
        Pair { near, far, near_index, far_index, _namespaces: namespaces }
    }
}

#[test]
fn a_bridge_is_made_as_described_and_only_once() {
    let namespace = Namespace::temporary().unwrap();
    let mut route = client(&namespace);
    let mac = Mac([0x0a, 0x58, 10, 244, 0, 1]);
    let bridge = Bridge { name: "cni0".into(), mac: Some(mac), mtu: Some(1400) };
    route.add_bridge(&bridge).unwrap();
    let link = route.link("cni0").unwrap();
    assert_eq!((link.kind.as_deref(), link.mac, link.mtu, link.up), (Some("bridge"), Some(mac), 1400, false));
    assert_eq!(route.add_bridge(&bridge).unwrap_err().errno(), Some(Errno::EEXIST));

    route.change_link(link.index, &LinkChange { up: Some(true), ..LinkChange::default() }).unwrap();
    assert!(route.link_by_index(link.index).unwrap().up);
    assert_eq!(route.links().unwrap().iter().filter(|l| l.name == "cni0").count(), 1);

    route.delete_link(link.index).unwrap();
    assert_eq!(route.find_link("cni0").unwrap(), None);
    let error = route.link("cni0").unwrap_err();
    assert!(error.is_missing() && error.to_string().starts_with("cannot find link cni0: "), "{error}");
}

#[test]
fn a_pair_deleted_early_is_gone_from_both_namespaces_and_the_client_goes_on() {
    let mut pair = Pair::new();
    let started = Instant::now();
    pair.near.delete_link_detached(pair.near_index).unwrap();
    assert_eq!((pair.near.find_link("near").unwrap(), pair.far.find_link("far").unwrap()), (None, None));
    let early = started.elapsed();
    assert!(pair.near.delete_link_detached(pair.near_index).unwrap_err().is_missing());
    // The kernel's last word, the acknowledgement, may still be to come: it must not be taken for another
    // question's.
    while started.elapsed() < Duration::from_millis(50) {
        assert_eq!(pair.near.links().unwrap().len(), 1, "lo; the pair was gone after {early:?}");
    }
}

#[test]
fn a_veth_pair_is_born_in_both_namespaces() {
    let (host, pod) = (Namespace::temporary().unwrap(), Namespace::temporary().unwrap());
    let (mut outside, mut inside) = (client(&host), client(&pod));
    outside.add_bridge(&Bridge { name: "cni0".into(), mac: None, mtu: None }).unwrap();
    let bridge = outside.link("cni0").unwrap().index;
    let mac = Mac([0x0a, 0x58, 10, 244, 0, 7]);
    let far = VethEnd { name: "eth0".into(), mac: Some(mac), mtu: Some(1400) };
    let near = VethEnd { mtu: Some(1400), ..end("veth7") };
    let veth = Veth { host: near, host_group: 0, host_up: true, master: Some(bridge), peer: far };
    outside.add_veth(&veth, pod.as_fd()).unwrap();

    let near = outside.link("veth7").unwrap();
    assert_eq!((near.master, near.mtu, near.up), (Some(bridge), 1400, true));
    let far = inside.link("eth0").unwrap();
    assert_eq!((far.mac, far.mtu, far.up, far.peer), (Some(mac), 1400, false, Some(near.index)));
    assert_eq!(outside.find_link("eth0").unwrap(), None);

    assert_eq!(outside.bridge_port(near.index).unwrap(), Some(BridgePort::default()));
    let port = BridgePort { hairpin: true, isolated: true };
    let change = LinkChange { port: Some(port), alias: Some("blue/c1/eth0".into()), ..LinkChange::default() };
    outside.change_link(near.index, &change).unwrap();
    let changed = outside.link("veth7").unwrap();
    assert_eq!((changed.alias.as_deref(), changed.up, changed.mtu), (Some("blue/c1/eth0"), true, 1400));
    assert_eq!(outside.bridge_port(near.index).unwrap(), Some(port));
    assert_eq!(outside.bridge_port(bridge).unwrap(), None);

    outside.delete_link_named("veth7").unwrap();
    assert_eq!(inside.find_link("eth0").unwrap(), None, "both ends go");
    assert!(outside.delete_link_named("veth7").unwrap_err().is_missing());
}

#[test]
fn addresses_come_and_go_and_ipv6_ones_need_no_wait() {
    let mut pair = Pair::new();
    for text in ["10.244.0.2/24", "fd00::2/64"] {
        let address = Address { link: pair.near_index, address: text.parse().unwrap() };
        pair.near.add_address(address).unwrap();
        assert_eq!(pair.near.add_address(address).unwrap_err().errno(), Some(Errno::EEXIST));
        assert!(pair.near.addresses(Some(pair.near_index)).unwrap().contains(&address));
        assert!(pair.near.addresses(None).unwrap().contains(&address));
        assert!(pair.far.addresses(None).unwrap().iter().all(|other| other.address != address.address));
        pair.near.delete_address(address).unwrap();
        assert!(!pair.near.addresses(Some(pair.near_index)).unwrap().contains(&address));
    }
}

#[test]
fn an_address_without_a_route_to_its_network() {
    let mut pair = Pair::new();
    for text in ["10.244.0.2/24", "fd00::2/64"] {
        let address = Address { link: pair.near_index, address: text.parse().unwrap() };
        pair.near.add_address_noprefixroute(address).unwrap();
        assert!(pair.near.addresses(Some(pair.near_index)).unwrap().contains(&address));
        let network = IpNetwork::new(address.address.network(), address.address.prefix()).unwrap();
        let paths = pair.near.routes(RouteFilter::default()).unwrap();
        assert!(paths.iter().all(|path| path.destination != network), "{paths:?}");
    }
}

#[test]
fn routes_are_listed_by_protocol_and_replaced_in_place() {
    let mut pair = Pair::new();
    let address = Address { link: pair.near_index, address: "172.30.0.11/24".parse().unwrap() };
    pair.near.add_address(address).unwrap();
    let destination = "10.244.2.0/24".parse().unwrap();
    let ours = RouteFilter { protocol: Some(201), ..RouteFilter::default() };
    let mut path = Route { gateway: Some(ip("172.30.0.12")), protocol: 201, ..Route::to(destination) };
    pair.near.add_route(&path).unwrap();
    assert_eq!(pair.near.add_route(&path).unwrap_err().errno(), Some(Errno::EEXIST));

    path.gateway = Some(ip("172.30.0.13"));
    pair.near.replace_route(&path).unwrap();
    let listed = pair.near.routes(ours).unwrap();
    assert_eq!(listed, [Route { link: Some(pair.near_index), ..path.clone() }]);
    let all = pair.near.routes(RouteFilter::default()).unwrap();
    assert!(
        all.iter().any(|path| path.protocol == 2 && path.destination == "172.30.0.0/24".parse().unwrap())
    );

    pair.near.delete_route(&path).unwrap();
    assert_eq!(pair.near.routes(ours).unwrap(), []);
    let error = pair.near.delete_route(&path).unwrap_err();
    assert!(error.is_missing(), "{error}");
}

#[test]
fn a_gateway_outside_every_network_needs_onlink() {
    let mut pair = Pair::new();
    for (own, gateway) in [("10.0.0.5/32", "172.30.0.12"), ("fd00::5/128", "fd01::12")] {
        let address = Address { link: pair.near_index, address: own.parse().unwrap() };
        pair.near.add_address(address).unwrap();
        let mut path = Route::default_via(ip(gateway));
        path.link = Some(pair.near_index);
        path.protocol = 201;
        assert!(pair.near.add_route(&path).is_err());
        path.onlink = true;
        path.mtu = Some(1300);
        pair.near.add_route(&path).unwrap();
        let filter =
            RouteFilter { protocol: Some(201), link: Some(pair.near_index), ..RouteFilter::default() };
        let listed = pair.near.routes(filter).unwrap();
        assert_eq!(listed.len(), 1);
        let found = &listed[0];
        assert_eq!(
            (found.gateway, found.onlink, found.mtu, found.destination.prefix()),
            (path.gateway, true, Some(1300), 0)
        );
        pair.near.delete_route(&path).unwrap();
    }
}

#[test]
fn a_direct_route_and_other_tables() {
    let mut pair = Pair::new();
    for destination in ["10.9.0.0/16", "fd09::/64"] {
        let path = Route {
            link: Some(pair.near_index),
            table: 1000,
            protocol: 201,
            ..Route::to(destination.parse().unwrap())
        };
        pair.near.add_route(&path).unwrap();
        let filter = RouteFilter { table: 1000, ..RouteFilter::default() };
        let found = pair.near.routes(filter).unwrap();
        assert_eq!(found.iter().map(|path| path.destination).collect::<Vec<_>>(), [path.destination]);
        let main = pair.near.routes(RouteFilter::default()).unwrap();
        assert!(main.iter().all(|other| other.destination != path.destination));
        pair.near.delete_route(&path).unwrap();
        assert_eq!(pair.near.routes(filter).unwrap(), []);
    }
}

#[test]
fn a_route_with_several_next_hops_is_listed_with_them_and_becomes_one_with_one() {
    let mut pair = Pair::new();
    let link = Some(pair.near_index);
    let mut near = |change: &dyn Fn(&mut RtnetlinkClient)| change(&mut pair.near);
    for (network, destination, hops) in [
        ("192.0.2.0/24", "10.9.0.0/16", ["192.0.2.8", "192.0.2.9"]),
        ("2001:db8::/64", "fd09::/64", ["2001:db8::8", "2001:db8::9"]),
    ] {
        let hops = hops.map(|hop| hop.parse::<IpAddr>().unwrap());
        let path = |hops: &[IpAddr]| Route {
            gateway: Some(hops[0]),
            further: hops[1..].to_vec(),
            protocol: 201,
            ..Route::to(destination.parse().unwrap())
        };
        let on_link = Route { link, protocol: 202, ..Route::to(network.parse().unwrap()) };
        let held = |client: &mut RtnetlinkClient| {
            let filter = RouteFilter { protocol: Some(201), ..RouteFilter::default() };
            let routes = client.routes(filter).unwrap();
            routes.iter().map(|route| (route.gateways(), route.link)).collect::<Vec<_>>()
        };
        near(&|client| {
            client.add_route(&on_link).unwrap();
            client.add_route(&path(&hops)).unwrap();
            assert_eq!(held(client), [(hops.into(), link)], "{destination}");
            client.replace_route(&path(&hops[1..])).unwrap();
            assert_eq!(held(client), [([hops[1]].into(), link)], "{destination}");
            client.replace_route(&path(&hops)).unwrap();
            assert_eq!(held(client), [(hops.into(), link)], "{destination}");
            client.delete_route(&path(&hops)).unwrap();
            assert_eq!(held(client), [], "{destination}");
        });
    }
}

#[test]
fn a_route_that_refuses_is_listed_where_asked_for_and_takes_the_place_of_another() {
    let mut pair = Pair::new();
    for destination in ["10.9.0.0/16", "fd09::/64"] {
        let to = Route { protocol: 201, ..Route::to(destination.parse().unwrap()) };
        let (direct, refusing) =
            (Route { link: Some(pair.near_index), ..to.clone() }, Route { unreachable: true, ..to });
        let all = RouteFilter { protocol: Some(201), unreachable: true, ..RouteFilter::default() };
        pair.near.add_route(&refusing).unwrap();
        assert_eq!(pair.near.routes(RouteFilter { unreachable: false, ..all }).unwrap(), []);
        let listed = pair.near.routes(all).unwrap();
        assert_eq!(
            listed.iter().map(|route| (route.unreachable, route.link)).collect::<Vec<_>>(),
            [(true, None)]
        );
        for (path, is_refusing) in [(&direct, false), (&refusing, true)] {
            pair.near.replace_route(path).unwrap();
            let listed = pair.near.routes(all).unwrap();
            assert_eq!(listed.iter().map(|route| route.unreachable).collect::<Vec<_>>(), [is_refusing]);
        }
        let held = pair.near.routes(all).unwrap().remove(0);
        pair.near.delete_route(&held).unwrap();
        assert_eq!(pair.near.routes(all).unwrap(), []);
    }
}

#[test]
fn neighbours_come_and_go() {
    let mut pair = Pair::new();
    for (address, permanent) in [("10.244.0.9", true), ("fd00::9", false)] {
        let mac = Some(Mac([0x0a, 0x58, 10, 244, 0, 9]));
        let neighbour = Neighbour { link: pair.far_index, address: ip(address), mac, permanent };
        pair.far.replace_neighbour(neighbour).unwrap();
        assert!(pair.far.neighbours(Some(pair.far_index)).unwrap().contains(&neighbour));
        assert!(pair.far.neighbours(None).unwrap().contains(&neighbour));
        pair.far.delete_neighbour(pair.far_index, ip(address)).unwrap();
        // A deleted entry may stay listed for a moment, as failed and without its Ethernet address.
        assert!(!pair.far.neighbours(None).unwrap().contains(&neighbour));
        assert!(pair.far.delete_neighbour(pair.far_index, ip("10.244.0.99")).unwrap_err().is_missing());
    }
}

#[test]
fn the_kernels_own_words_are_in_the_error() {
    let mut pair = Pair::new();
    let path = Route { gateway: Some(ip("192.0.2.1")), ..Route::to("10.1.0.0/16".parse().unwrap()) };
    let error = pair.near.add_route(&path).unwrap_err().to_string();
    assert_eq!(
        error,
        "cannot add route 10.1.0.0/16 via 192.0.2.1: Network is unreachable (Nexthop has invalid gateway)"
    );
}

#[test]
fn a_socket_whose_end_nobody_waits_for_is_closed_all_the_same() {
    let work = || {
        let read = || std::fs::read_to_string("/proc/thread-self/net/netlink").unwrap();
        let before = read().lines().count();
        let mut socket = Socket::open(Protocol::Netfilter).unwrap();
        socket.let_kernel_close();
        assert_eq!(read().lines().count(), before + 1);
        drop(socket);
        eventually("the kernel closes it", || read().lines().count() == before);
    };
    Namespace::temporary().unwrap().run(work).unwrap();
}
