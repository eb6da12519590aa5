//! Network namespaces as machines: programs run in them, cables between them.

use std::os::fd::AsFd;
use std::process::{Command, Output};

use weft_netlink::netns::Namespace;
use weft_netlink::rtnl::{RtnetlinkClient, Veth, VethEnd};

use crate::program::{printed, run};

/// A new machine, whose loopback is up and whose IPv6 addresses can be used at once: a router asks for nobody's link
/// address while it still probes its own link-local one for duplicates, and packets wait for seconds.
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

/// One end of a cable.
#[derive(Clone, Copy, Debug)]
pub struct End<'a> {
    /// Where it is.
    pub machine: &'a Namespace,
    /// The interface's name.
    pub name: &'a str,
    /// Its addresses, each with its prefix.
    pub addresses: &'a [&'a str],
}

/// An end with these addresses.
pub fn end<'a>(machine: &'a Namespace, name: &'a str, addresses: &'a [&'a str]) -> End<'a> {
    End { machine, name, addresses }
}

/// Joins two machines by a veth pair, both ends up and addressed.
pub fn cable(one: End, other: End) {
    let side = |name: &str| VethEnd { name: name.into(), mac: None, mtu: None };
    let veth =
        Veth { host: side(one.name), host_group: 0, host_up: true, master: None, peer: side(other.name) };
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

/// Lets a machine send everything that it has no route for by these gateways, one a family.
pub fn route_by(machine: &Namespace, gateways: &[&str]) {
    for gateway in gateways {
        sh(machine, &format!("ip route add default via {gateway}"));
    }
}

/// Runs a command line on a machine, which must succeed. Returns what it printed.
#[track_caller]
pub fn sh(machine: &Namespace, line: &str) -> String {
    printed(line, &sh_output(machine, line))
}

/// Runs a command line on a machine, whatever comes of it.
pub fn sh_output(machine: &Namespace, line: &str) -> Output {
    machine.run(|| Command::new("sh").args(["-ec", line]).output()).unwrap().unwrap()
}

/// Runs a program on a machine, which must succeed. Returns what it printed.
#[track_caller]
pub fn run_in(machine: &Namespace, program: &str, arguments: &[&str]) -> String {
    machine.run(|| run(program, arguments)).unwrap()
}
