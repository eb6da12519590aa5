//! What the kernel would do with a packet, which sockets wait for it, and in which namespace a veth's other
//! end is. Runs as root.

#![allow(clippy::unwrap_used, reason = "a test stops at the first thing that goes wrong")]

use std::net::{IpAddr, TcpListener, UdpSocket};
use std::os::fd::AsFd;

use nix::errno::Errno;
use weft_netlink::netns::Namespace;
use weft_netlink::rtnl::{Address, LinkChange, Route, RouteKind, RouteQuery, RtnetlinkClient, Veth, VethEnd};
use weft_netlink::sock_diag::SocketDiag;
use weft_netlink::sysctl;

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn end(name: &str) -> VethEnd {
    VethEnd { name: name.into(), mac: None, mtu: None }
}

/// A machine with `eth0`, behind which is a pod's namespace.
fn machine() -> (RtnetlinkClient, u32, Namespace, Namespace) {
    let [host, pod] = [Namespace::temporary().unwrap(), Namespace::temporary().unwrap()];
    let mut client = host.run(RtnetlinkClient::open).unwrap().unwrap();
    let veth = Veth { host: end("eth0"), host_group: 0, host_up: true, master: None, peer: end("peer") };
    client.add_veth(&veth, pod.as_fd()).unwrap();
    pod.run(|| {
        let mut inside = RtnetlinkClient::open().unwrap();
        let peer = inside.link("peer").unwrap().index;
        inside.change_link(peer, &LinkChange { up: Some(true), ..LinkChange::default() }).unwrap();
    })
    .unwrap();
    let link = client.link("eth0").unwrap().index;
    for address in ["192.0.2.1/24", "2001:db8::1/64"] {
        client.add_address(Address { link, address: address.parse().unwrap() }).unwrap();
    }
    (client, link, host, pod)
}

#[test]
fn the_kernel_says_which_way_a_packet_takes() {
    let (mut client, link, host, _pod) = machine();
    let route = Route {
        gateway: Some(ip("192.0.2.9")),
        mtu: Some(1400),
        ..Route::to("198.51.100.0/24".parse().unwrap())
    };
    client.add_route(&route).unwrap();
    let query = |to: &str| RouteQuery { destination: ip(to), source: None, input: None, mark: 0 };
    let found = client.look_up(&query("198.51.100.7")).unwrap();
    assert_eq!(
        (found.kind, found.gateway, found.link, found.source, found.mtu),
        (RouteKind::Unicast, Some(ip("192.0.2.9")), Some(link), Some(ip("192.0.2.1")), Some(1400))
    );
    let six = client.look_up(&query("2001:db8::7")).unwrap();
    assert_eq!((six.kind, six.gateway, six.link), (RouteKind::Unicast, None, Some(link)));
    assert_eq!(client.look_up(&query("192.0.2.1")).unwrap().kind, RouteKind::Local);
    let refused = client.look_up(&query("203.0.113.1")).unwrap_err();
    assert_eq!(refused.errno(), Some(Errno::ENETUNREACH));

    // What comes in is forwarded where that is on, and taken only where its source may come from there.
    let came = RouteQuery { source: Some(ip("192.0.2.5")), input: Some(link), ..query("198.51.100.7") };
    assert_eq!(client.look_up(&came).unwrap_err().errno(), Some(Errno::EHOSTUNREACH), "it does not forward");
    host.run(|| {
        sysctl::write("net/ipv4/ip_forward", "1").unwrap();
        sysctl::write("net/ipv4/conf/eth0/rp_filter", "1").unwrap();
    })
    .unwrap();
    assert_eq!(client.look_up(&came).unwrap().kind, RouteKind::Unicast);
    let spoofed = RouteQuery { source: Some(ip("203.0.113.1")), ..came };
    let errno = client.look_up(&spoofed).unwrap_err().errno();
    assert!(matches!(errno, Some(Errno::EXDEV | Errno::EINVAL)), "{errno:?}");
}

#[test]
fn sockets_that_wait_are_found_with_what_they_take() {
    let host = Namespace::temporary().unwrap();
    let work = || {
        let mut client = RtnetlinkClient::open().unwrap();
        let lo = client.link("lo").unwrap().index;
        client.change_link(lo, &LinkChange { up: Some(true), ..LinkChange::default() }).unwrap();
        let all = TcpListener::bind("[::]:8080").unwrap();
        let one = TcpListener::bind("127.0.0.1:8081").unwrap();
        let udp = UdpSocket::bind("0.0.0.0:5353").unwrap();
        let mut sockets = SocketDiag::open().unwrap();
        let found = [6, 17].map(|protocol| sockets.listeners(protocol).unwrap().unwrap());
        drop((all, one, udp));
        (found, sockets.listeners(1).unwrap())
    };
    let ([tcp, udp], other) = host.run(work).unwrap();
    let takes = |list: &[weft_netlink::sock_diag::Listener], to: &str| {
        list.iter().any(|listener| listener.takes(to.parse().unwrap()))
    };
    assert!(takes(&tcp, "10.0.0.1:8080") && takes(&tcp, "[fd00::1]:8080"), "{tcp:?}");
    assert!(takes(&tcp, "127.0.0.1:8081") && !takes(&tcp, "10.0.0.1:8081"), "{tcp:?}");
    assert!(takes(&udp, "10.0.0.1:5353") && !takes(&udp, "[fd00::1]:5353"), "{udp:?}");
    assert!(!takes(&tcp, "10.0.0.1:5353") && other.is_none());
}

#[test]
fn the_namespace_of_a_veth_s_other_end_is_told_from_others() {
    let (mut client, link, _host, pod) = machine();
    let number = client.peer_namespace(link).unwrap();
    assert!(number.is_some());
    assert_eq!(client.namespace_number(&pod).unwrap(), number);
    assert_ne!(client.namespace_number(&Namespace::temporary().unwrap()).unwrap(), number);
}
