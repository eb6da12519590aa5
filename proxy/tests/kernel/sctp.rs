//! SCTP through the data plane. The running kernel need not know SCTP for that: the packets are made here,
//! and the kernel's connection tracking, which does know it, judges and translates them.

use std::net::{IpAddr, SocketAddr, UdpSocket};

use socket2::{Domain, Socket, Type};
use weft_netlink::netns::Namespace;
use weft_proxy::config::ProxyMode;
use weft_testkit::world::{PATIENCE, World, pod_address};
use weft_types::{EndpointPort, Family, Object, Protocol, ServicePort};

use super::{Cluster, NODE_PORT, cluster_ip, service, slice};
use crate::of;

/// The number of the protocol (RFC 9260).
const SCTP: i32 = 132;
/// The types of chunks that begin an association.
const INIT: u8 = 1;
const INIT_ACK: u8 = 2;
/// The port of the clients.
const CLIENT: u16 = 40_000;
const SERVER: u16 = 8080;

/// One end of associations, all ports of it.
struct End {
    socket: UdpSocket,
    family: Family,
}

/// A packet of one chunk, and who sent it.
#[derive(Debug, PartialEq, Eq)]
struct Packet {
    from: SocketAddr,
    to_port: u16,
    tag: u32,
    chunk: u8,
}

impl End {
    fn open(namespace: &Namespace, family: Family) -> End {
        let domain = match family {
            Family::V4 => Domain::IPV4,
            Family::V6 => Domain::IPV6,
        };
        let open = || Socket::new(domain, Type::RAW, Some(SCTP.into()));
        let socket: UdpSocket = namespace.run(open).unwrap().unwrap().into();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        End { socket, family }
    }

    /// Sends a chunk of 20 bytes, which is both of the first two of an association, with a tag for the
    /// packets of the other end.
    fn send(&self, from_port: u16, to: SocketAddr, tag: u32, chunk: u8) {
        let mut packet = Vec::new();
        packet.extend(from_port.to_be_bytes());
        packet.extend(to.port().to_be_bytes());
        packet.extend(tag.to_be_bytes());
        packet.extend([0; 4]);
        packet.extend([chunk, 0, 0, 20]);
        packet.extend(u32::from(chunk).to_be_bytes());
        packet.extend([0, 1, 0, 0, 0, 1, 0, 1, 0, 0, 0, 1]);
        let checksum = crc32c(&packet);
        packet[8..12].copy_from_slice(&checksum.to_le_bytes());
        self.socket.send_to(&packet, (to.ip(), 0)).unwrap();
    }

    fn receive(&self) -> Packet {
        let mut buffer = [0; 256];
        let (length, from) = self.socket.recv_from(&mut buffer).unwrap();
        let start = match self.family {
            Family::V4 => usize::from(buffer[0] & 0xf) * 4,
            Family::V6 => 0,
        };
        let packet = &mut buffer[start..length];
        let checksum = [packet[8], packet[9], packet[10], packet[11]];
        packet[8..12].fill(0);
        assert_eq!(u32::from_le_bytes(checksum), crc32c(packet), "the checksum, after translation");
        let port = |at: usize| u16::from_be_bytes([packet[at], packet[at + 1]]);
        let tag = u32::from_be_bytes([packet[4], packet[5], packet[6], packet[7]]);
        Packet { from: SocketAddr::new(from.ip(), port(0)), to_port: port(2), tag, chunk: packet[12] }
    }
}

/// The checksum of SCTP (RFC 9260, appendix A), bit by bit.
fn crc32c(bytes: &[u8]) -> u32 {
    let bit = |sum: u32, _| if sum & 1 == 1 { (sum >> 1) ^ 0x82f6_3b78 } else { sum >> 1 };
    !bytes.iter().fold(u32::MAX, |sum, byte| (0..8).fold(sum ^ u32::from(*byte), bit))
}

/// Begins an association, and answers it in the pod. Gives the address that the pod sees as the client's.
fn associate(client: &End, pod: &End, to: SocketAddr) -> SocketAddr {
    client.send(CLIENT, to, 0, INIT);
    let init = pod.receive();
    assert_eq!((init.to_port, init.tag, init.chunk), (SERVER, 0, INIT), "{to}");
    // The answer carries the tag that the client has chosen, and connection tracking sees to that.
    pod.send(SERVER, init.from, INIT.into(), INIT_ACK);
    let expected = Packet { from: to, to_port: CLIENT, tag: INIT.into(), chunk: INIT_ACK };
    assert_eq!(client.receive(), expected, "as if the Service itself had answered");
    init.from
}

in_every_mode!(sctp_goes_to_an_endpoint_and_back_from_pods_and_outside_and_at_node_ports);

fn sctp_goes_to_an_endpoint_and_back_from_pods_and_outside_and_at_node_ports(mode: ProxyMode) {
    let world = World::new();
    let mut cluster = Cluster::new(&world, of(mode));
    let Object::Service(mut web) = service() else { panic!("no Service") };
    web.ports.push(ServicePort { name: "SCTP".into(), protocol: Protocol::Sctp, ..web.ports[0].clone() });
    cluster.put([Object::Service(web)]);
    for family in Family::BOTH {
        let Object::EndpointSlice(mut slice) = slice(family, &[1]) else { panic!("no slice") };
        let port = SERVER.try_into().unwrap();
        slice.ports.push(EndpointPort { name: "SCTP".into(), protocol: Protocol::Sctp, port });
        cluster.put([Object::EndpointSlice(slice)]);
        let (pod, other) = (End::open(&world.pods[0], family), End::open(&world.pods[1], family));
        let outside = End::open(&world.outside, family);
        let (node, gateway): (IpAddr, IpAddr) = match family {
            Family::V4 => ([172, 30, 0, 11].into(), [10, 244, 1, 1].into()),
            Family::V6 => ("fd00:30::11".parse().unwrap(), "fd00:244:1::1".parse().unwrap()),
        };
        let seen = associate(&other, &pod, SocketAddr::new(cluster_ip(family), 80));
        assert_eq!(seen, SocketAddr::new(pod_address(family, 2), CLIENT), "a pod keeps its address");
        let seen = associate(&outside, &pod, SocketAddr::new(node, NODE_PORT));
        assert_eq!(seen.ip(), gateway, "masqueraded");
    }
}
