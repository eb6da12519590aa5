//! Packets that rules log to a group of nflog (`linux/netfilter/nfnetlink_log.h`): of each, what its headers
//! say.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsFd, BorrowedFd};

use crate::attribute::{Attributes, Writer};
use crate::notifications::Source;
use crate::{Frame, Protocol, Request, Result, Socket};

/// `NFNL_SUBSYS_ULOG`
const SUBSYSTEM: u16 = 4;
/// `NFULNL_MSG_PACKET`
const PACKET: u16 = 0;
/// `NFULNL_MSG_CONFIG`
const CONFIG: u16 = 1;
/// The length of `struct nfgenmsg`.
const GENERIC_HEADER: usize = 4;

const NFULA_PAYLOAD: u16 = 9;
const NFULA_PREFIX: u16 = 10;
const NFULA_CFG_CMD: u16 = 1;
const NFULA_CFG_MODE: u16 = 2;
const NFULA_CFG_TIMEOUT: u16 = 4;
/// `NFULNL_CFG_CMD_BIND`
const BIND: u8 = 1;
/// `NFULNL_COPY_PACKET`
const COPY_PACKET: u8 = 2;

/// As much of a packet as is copied: an IPv4 header of the greatest length, and the ports behind it.
const HEADERS: u32 = 64;
/// After how many hundredths of a second the kernel sends what it gathered.
const GATHER: u32 = 10;
/// The same where what a packet carries is told too, and its place among other events matters.
const GATHER_BRIEFLY: u32 = 1;

/// The protocols whose headers begin with two ports: TCP, UDP, DCCP, SCTP, UDP-Lite.
const WITH_PORTS: [u8; 5] = [6, 17, 33, 132, 136];
/// `IPPROTO_UDP`
const UDP: u8 = 17;
/// `IPPROTO_FRAGMENT`
const FRAGMENT: u8 = 44;
/// IPv6 headers that stand before that of the protocol and tell their own length in eight bytes: hop-by-hop
/// options, routing, destination options (RFC 8200, section 4).
const EXTENSIONS: [u8; 3] = [0, 43, 60];

/// A packet that was logged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet {
    /// What the rule has to say of it.
    pub prefix: String,
    /// Who sent it.
    pub source: IpAddr,
    /// Whom it is for.
    pub destination: IpAddr,
    /// The number of its protocol.
    pub protocol: u8,
    /// The ports of both, where the protocol has ports and this is not a later fragment.
    pub ports: Option<(u16, u16)>,
    /// What a datagram of UDP carries, as far as that was copied; empty by [`Monitor::open`].
    pub payload: Vec<u8>,
}

/// The reader of a group. A group has one in a network namespace, and is free again when that is dropped.
#[derive(Debug)]
pub struct Monitor {
    socket: Socket,
    keeps_payload: bool,
}

impl Monitor {
    /// Becomes the reader of that group in the calling thread's network namespace.
    ///
    /// # Errors
    /// [`Error::Refused`](crate::Error::Refused) with EPERM where it has one.
    pub fn open(group: u16) -> Result<Monitor> {
        Monitor::copying(group, HEADERS, false)
    }

    /// The same; of datagrams of UDP, that many bytes of what they carry are told too.
    ///
    /// # Errors
    /// As of [`Monitor::open`].
    pub fn with_payload(group: u16, bytes: u32) -> Result<Monitor> {
        Monitor::copying(group, HEADERS + bytes, true)
    }

    fn copying(group: u16, bytes: u32, keeps_payload: bool) -> Result<Monitor> {
        let mut socket = Socket::open(Protocol::Netfilter)?;
        socket.request(config(group, |data| data.u8(NFULA_CFG_CMD, BIND)))?;
        let mut mode = bytes.to_be_bytes().to_vec();
        mode.extend([COPY_PACKET, 0]);
        socket.request(config(group, |data| {
            data.bytes(NFULA_CFG_MODE, &mode);
            data.u32(NFULA_CFG_TIMEOUT, if keeps_payload { GATHER_BRIEFLY } else { GATHER });
        }))?;
        Ok(Monitor { socket, keeps_payload })
    }

    /// Makes room for that many bytes of notifications that are not read yet.
    ///
    /// # Errors
    /// What the operating system refused.
    pub fn set_receive_buffer(&mut self, bytes: usize) -> Result<()> {
        self.socket.set_receive_buffer(bytes)
    }

    /// Shows all packets that have come, one by one, without waiting.
    ///
    /// # Errors
    /// [`Error::Overrun`](crate::Error::Overrun) where some were lost; the next call reads on.
    pub fn for_each(&mut self, mut show: impl FnMut(Packet)) -> Result<()> {
        let keeps_payload = self.keeps_payload;
        self.socket.for_each_notification(|frame| {
            packet(frame, keeps_payload).into_iter().for_each(&mut show);
            Ok(())
        })
    }
}

impl Source for Monitor {
    type Event = Packet;

    fn read(&mut self) -> Result<Vec<Packet>> {
        let mut packets = Vec::new();
        self.for_each(|packet| packets.push(packet))?;
        Ok(packets)
    }
}

impl AsFd for Monitor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn config(group: u16, fill: impl FnOnce(&mut Writer<'_>)) -> Request {
    // Any family, version 0, and the group where other subsystems have nothing.
    let mut payload = vec![0, 0];
    payload.extend(group.to_be_bytes());
    fill(&mut Writer(&mut payload));
    Request { kind: SUBSYSTEM << 8 | CONFIG, flags: 0, payload }
}

/// Nothing where it is no IP packet, or not whole as far as its addresses.
fn packet(frame: Frame<'_>, keeps_payload: bool) -> Option<Packet> {
    if frame.kind != SUBSYSTEM << 8 | PACKET {
        return None;
    }
    let attributes = Attributes(frame.payload.get(GENERIC_HEADER..)?);
    let prefix = attributes.string(NFULA_PREFIX).unwrap_or_default().to_owned();
    headers(attributes.get(NFULA_PAYLOAD)?, prefix, keeps_payload)
}

fn headers(bytes: &[u8], prefix: String, keeps_payload: bool) -> Option<Packet> {
    // What stands behind the ports of UDP: length and checksum, then what it carries.
    let payload = |protocol: u8, rest: Option<&[u8]>| match rest.and_then(|rest| rest.get(8..)) {
        Some(payload) if keeps_payload && protocol == UDP => payload.to_vec(),
        _ => Vec::new(),
    };
    match bytes.first()? >> 4 {
        4 => {
            let header = bytes.first_chunk::<20>()?;
            let address =
                |at: usize| Ipv4Addr::new(header[at], header[at + 1], header[at + 2], header[at + 3]).into();
            // The lower 13 bits are the place within the whole packet (RFC 791, section 3.1).
            let is_first = u16::from_be_bytes([header[6], header[7]]) & 0x1fff == 0;
            let rest = bytes.get(usize::from(header[0] & 0x0f) * 4..).filter(|_| is_first);
            let protocol = header[9];
            let (ports, payload) = (rest.and_then(|rest| ports(protocol, rest)), payload(protocol, rest));
            Some(Packet { prefix, source: address(12), destination: address(16), protocol, ports, payload })
        }
        6 => {
            let header = bytes.first_chunk::<40>()?;
            let (source, destination) = (header[8..].first_chunk::<16>()?, header[24..].first_chunk::<16>()?);
            let (protocol, rest) = behind_extensions(header[6], &bytes[40..]);
            let (ports, payload) = (rest.and_then(|rest| ports(protocol, rest)), payload(protocol, rest));
            let address = |bytes: &[u8; 16]| Ipv6Addr::from(*bytes).into();
            let (source, destination) = (address(source), address(destination));
            Some(Packet { prefix, source, destination, protocol, ports, payload })
        }
        _ => None,
    }
}

/// The protocol behind the extension headers and what begins with its header, as far as that was copied.
fn behind_extensions(mut next: u8, mut bytes: &[u8]) -> (u8, Option<&[u8]>) {
    loop {
        let header = bytes.first_chunk::<4>();
        let length = match (next, header) {
            (FRAGMENT, Some(header)) => {
                let is_first = u16::from_be_bytes([header[2], header[3]]) & !7 == 0;
                if !is_first {
                    return (header[0], None);
                }
                8
            }
            (_, Some(header)) if EXTENSIONS.contains(&next) => (usize::from(header[1]) + 1) * 8,
            _ => return (next, Some(bytes)),
        };
        next = header.map_or(next, |header| header[0]);
        bytes = bytes.get(length..).unwrap_or_default();
    }
}

fn ports(protocol: u8, header: &[u8]) -> Option<(u16, u16)> {
    let &[a, b, c, d] = header.first_chunk::<4>().filter(|_| WITH_PORTS.contains(&protocol))?;
    Some((u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d])))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TCP: u8 = 6;

    /// A packet of IPv6 from fd00::1 to fd00::2.
    fn v6(next: u8, rest: &[u8]) -> Vec<u8> {
        let address = |last: u8| [&[0xfd][..], &[0; 14], &[last]].concat();
        [&[0x60, 0, 0, 0, 0, 0, next, 64][..], &address(1), &address(2), rest].concat()
    }

    fn v4(options: usize, offset: u16, protocol: u8, rest: &[u8]) -> Vec<u8> {
        let mut header = vec![0x45 + options as u8, 0, 0, 0, 0, 0];
        header.extend(offset.to_be_bytes());
        header.extend([64, protocol, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
        header.extend(vec![0; options * 4]);
        [&header[..], rest].concat()
    }

    fn seen(bytes: &[u8]) -> Option<(u8, Option<(u16, u16)>)> {
        headers(bytes, String::new(), true).map(|packet| (packet.protocol, packet.ports))
    }

    #[test]
    fn ports_are_found_behind_options_and_extension_headers() {
        let ports = [0x10, 0, 0, 80];
        assert_eq!(seen(&v4(0, 0, TCP, &ports)), Some((TCP, Some((4096, 80)))));
        assert_eq!(seen(&v4(10, 0x4000, TCP, &ports)), Some((TCP, Some((4096, 80)))));
        assert_eq!(seen(&v6(TCP, &ports)), Some((TCP, Some((4096, 80)))));
        let hop_by_hop = [&[FRAGMENT, 0, 0, 0, 0, 0, 0, 0][..], &[TCP, 0, 0, 1, 0, 0, 0, 0], &ports].concat();
        assert_eq!(seen(&v6(0, &hop_by_hop)), Some((TCP, Some((4096, 80)))));
        let packet = headers(&v6(TCP, &ports), "x".into(), true).unwrap();
        assert_eq!(
            (packet.source.to_string(), packet.destination.to_string()),
            ("fd00::1".into(), "fd00::2".into())
        );
    }

    #[test]
    fn what_has_no_ports_is_told_without_and_what_is_cut_short_harms_nobody() {
        let ports = [0x10, 0, 0, 80];
        assert_eq!(seen(&v4(0, 0x0004, TCP, &ports)), Some((TCP, None)), "a later fragment");
        assert_eq!(seen(&v6(FRAGMENT, &[TCP, 0, 0, 8, 0, 0, 0, 0, 1, 2, 3, 4])), Some((TCP, None)));
        assert_eq!(seen(&v4(0, 0, 1, &ports)), Some((1, None)), "ICMP");
        let long = v6(0, &[TCP, 30, 0, 0, 0, 0, 0, 0]);
        assert_eq!(seen(&long), Some((TCP, None)), "the extension header ends behind what was copied");
        for whole in [v4(2, 0, TCP, &ports), v6(0, &[FRAGMENT, 0, 0, 0, 0, 0, 0, 0, TCP, 0, 0, 0])] {
            for length in 0..whole.len() {
                let _ = seen(&whole[..length]);
            }
        }
        assert_eq!(seen(&[0x50; 64]), None);
    }
}
