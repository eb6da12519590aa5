//! Packets that the real kernel logs to a group of nflog. Runs as root.

#![allow(clippy::unwrap_used, reason = "a test stops at the first thing that goes wrong")]

use std::net::{SocketAddr, UdpSocket};

use nix::errno::Errno;
use weft_netlink::netns::Namespace;
use weft_netlink::nflog::{Monitor, Packet};
use weft_netlink::notifications::Source;
use weft_testkit::namespace::sh;
use weft_testkit::wait::eventually_ok;

const RULES: &str = "add table inet t; add chain inet t c { type filter hook output priority 0; }; \
                     add rule inet t c udp dport 5000 log prefix \"said \" group 9";

#[test]
fn the_headers_of_logged_packets_are_told_to_the_one_reader_of_a_group() {
    let machine = Namespace::temporary().unwrap();
    sh(&machine, &format!("ip link set lo up && nft '{RULES}'"));
    let open = || machine.run(|| Monitor::open(9)).unwrap();
    let mut monitor = open().unwrap();
    assert_eq!(open().unwrap_err().errno(), Some(Errno::EPERM), "it has a reader");
    let mut expected = Vec::new();
    for address in ["127.0.0.1", "::1"] {
        let address = address.parse().unwrap();
        let socket = machine.run(|| UdpSocket::bind(SocketAddr::new(address, 0))).unwrap().unwrap();
        socket.send_to(&[7; 1000], (address, 5000)).unwrap();
        let ports = Some((socket.local_addr().unwrap().port(), 5000));
        let prefix = "said ".to_owned();
        let (source, destination, payload) = (address, address, Vec::new());
        expected.push(Packet { prefix, source, destination, protocol: 17, ports, payload });
    }
    let mut seen = Vec::new();
    eventually_ok("both packets", || {
        seen.extend(monitor.read().map_err(|error| error.to_string())?);
        if seen.len() == 2 { Ok(()) } else { Err(format!("{seen:?}")) }
    });
    assert_eq!(seen, expected);
    drop(monitor);
    open().unwrap();
}
