//! Network namespaces as machines: programs run in them, cables between them.

use std::fmt::Display;
use std::net::{Ipv6Addr, SocketAddr, SocketAddrV6};
use std::os::fd::AsFd;
use std::process::{Command, Output};

use socket2::{Domain, Protocol, Socket, Type};
pub use weft_netlink::netns::Namespace;
use weft_netlink::rtnl::{RtnetlinkClient, Veth, VethEnd};

use crate::program::{printed, run};

/// A new machine, whose loopback is up and whose IPv6 addresses can be used at once: a router asks for
/// nobody's link address while it still probes its own link-local one for duplicates, and packets wait for
/// seconds.
pub fn machine() -> Namespace {
    let machine = Namespace::temporary().unwrap();
    machine
        .run(|| {
            for devices in ["all", "default"] {
                std::fs::write(format!("/proc/sys/net/ipv6/conf/{devices}/accept_dad"), "0").unwrap();
            }
        })
        .unwrap();
    sh(&machine, "ip link set lo up");
    machine
}

/// Lets a machine forward packets of both families.
pub fn forward(machine: &Namespace) {
    sh(machine, "sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1");
}

/// One end of a cable: where it is, the interface's name, and its addresses with their prefixes.
#[derive(Clone, Debug)]
pub struct End<'a> {
    machine: &'a Namespace,
    name: String,
    addresses: Vec<String>,
}

/// An end with these addresses.
pub fn end<'a, A: ToString>(
    machine: &'a Namespace,
    name: &str,
    addresses: impl IntoIterator<Item = A>,
) -> End<'a> {
    let addresses = addresses.into_iter().map(|address| address.to_string()).collect();
    End { machine, name: name.to_owned(), addresses }
}

/// An end without an address of its own, but for a link-local one.
pub fn bare_end<'a>(machine: &'a Namespace, name: &str) -> End<'a> {
    End { machine, name: name.to_owned(), addresses: Vec::new() }
}

/// Joins two machines by a veth pair, both ends up and addressed. IPv6 addresses can be used at once.
pub fn cable(one: &End, other: &End) {
    let side = |end: &End| VethEnd { name: end.name.clone(), mac: None, mtu: None };
    let veth = Veth { host: side(one), host_group: 0, host_up: true, master: None, peer: side(other) };
    one.machine.run(RtnetlinkClient::open).unwrap().unwrap().add_veth(&veth, other.machine.as_fd()).unwrap();
    for End { machine, name, addresses } in [one, other] {
        let mut lines = vec![format!("ip link set {name} up")];
        lines.extend(addresses.iter().map(|address| {
            let at_once = if address.contains(':') { " nodad" } else { "" };
            format!("ip address add {address} dev {name}{at_once}")
        }));
        sh(machine, &lines.join(" && "));
    }
}

/// Lets a machine send what it has no route for by these gateways, one a family.
pub fn route_by<G: Display>(machine: &Namespace, gateways: impl IntoIterator<Item = G>) {
    for gateway in gateways {
        sh(machine, &format!("ip route add default via {gateway}"));
    }
}

/// Runs a shell's command line on a machine, which must succeed. Returns what it printed.
#[track_caller]
pub fn sh(machine: &Namespace, line: &str) -> String {
    printed(line, &sh_output(machine, line))
}

/// Runs a command line on a machine, whatever comes of it.
pub fn sh_output(machine: &Namespace, line: &str) -> Output {
    machine.run(|| Command::new("sh").args(["-c", line]).output()).unwrap().unwrap()
}

/// Runs a program on a machine, which must succeed. Returns what it printed.
#[track_caller]
pub fn run_in(machine: &Namespace, program: &str, arguments: &[&str]) -> String {
    machine.run(|| run(program, arguments)).unwrap()
}

/// Sends what a router sends that offers itself as the default one (RFC 4861 section 4.2), by the link of
/// that name. Nobody hears it while the link is not ready.
pub fn advertise_router(router: &Namespace, link: &str) {
    let index = router.run(|| RtnetlinkClient::open().unwrap().link(link).unwrap().index).unwrap();
    let socket =
        router.run(|| Socket::new(Domain::IPV6, Type::RAW, Some(Protocol::ICMPV6))).unwrap().unwrap();
    socket.set_multicast_hops_v6(255).unwrap();
    let all_nodes = SocketAddrV6::new(Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1), 0, 0, index);
    let advertisement = [134, 0, 0, 0, 64, 0, 0x07, 0x08, 0, 0, 0, 0, 0, 0, 0, 0];
    // The caller tries again.
    let _ = socket.send_to(&advertisement, &SocketAddr::V6(all_nodes).into());
}
