//! The IPv4 and UDP headers around a message (RFC 791, RFC 768), and the filter that lets nothing else
//! through: a client sends and hears before its interface has an address.

use std::net::Ipv4Addr;

use weft_netlink::packet::Instruction;

/// Ports of DHCP (RFC 2131 section 4.1).
const CLIENT: u16 = 68;
const SERVER: u16 = 67;
/// UDP's number.
const UDP: u8 = 17;
/// How long the headers are.
const IP_HEADER: usize = 20;
const UDP_HEADER: usize = 8;
/// Bits of the fragment's place in its packet (RFC 791 section 3.1).
const PLACE: u16 = 0x1fff;

/// A packet to a server.
pub(crate) fn wrap(from: Ipv4Addr, to: Ipv4Addr, payload: &[u8]) -> Vec<u8> {
    let udp_length = (UDP_HEADER + payload.len()) as u16;
    let mut udp = Vec::with_capacity(udp_length.into());
    for number in [CLIENT, SERVER, udp_length, 0] {
        udp.extend(number.to_be_bytes());
    }
    udp.extend(payload);
    let mut pseudo: Vec<u8> = [from.octets(), to.octets()].concat();
    pseudo.extend([0, UDP]);
    pseudo.extend(udp_length.to_be_bytes());
    // A sum of 0 is none.
    let sum = match checksum(&[pseudo, udp.clone()].concat()) {
        0 => 0xffff,
        sum => sum,
    };
    udp[6..8].copy_from_slice(&sum.to_be_bytes());
    // Version 4, five words; low delay, as servers and clients have it; 64 hops.
    let mut packet = vec![0x45, 0x10];
    packet.extend((IP_HEADER as u16 + udp_length).to_be_bytes());
    packet.extend([0, 0, 0, 0, 64, UDP, 0, 0]);
    packet.extend(from.octets());
    packet.extend(to.octets());
    let sum = checksum(&packet);
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    packet.extend(udp);
    packet
}

/// What a server's packet holds; none where it is another's. The checksum of UDP is not looked at: of a server
/// on the same machine it is not there yet.
pub(crate) fn unwrap(packet: &[u8]) -> Option<&[u8]> {
    let half = |at: usize| Some(u16::from_be_bytes(*packet.get(at..)?.first_chunk()?));
    let first = *packet.first()?;
    let header = usize::from(first & 0xf) * 4;
    let length = usize::from(half(2)?);
    let is_whole = first >> 4 == 4 && header >= IP_HEADER && half(6)? & (PLACE | 0x2000) == 0;
    if !is_whole || packet.get(9) != Some(&UDP) || half(header + 2)? != CLIENT {
        return None;
    }
    let udp = packet.get(header..length)?;
    let udp_length = usize::from(u16::from_be_bytes(*udp.get(4..)?.first_chunk()?));
    udp.get(UDP_HEADER..udp_length)
}

/// Lets through UDP to the client's port, over IPv4's header (`BPF_LDX | BPF_MSH`).
pub(crate) fn filter() -> Vec<Instruction> {
    let step = |code, number| Instruction { code, if_true: 0, if_false: 0, number };
    let test = |code, number, if_true, if_false| Instruction { code, if_true, if_false, number };
    vec![
        step(0x30, 9),
        test(0x15, UDP.into(), 0, 6),
        step(0x28, 6),
        test(0x45, PLACE.into(), 4, 0),
        step(0xb1, 0),
        step(0x48, 2),
        test(0x15, CLIENT.into(), 0, 1),
        step(0x06, 0x4_0000),
        step(0x06, 0),
    ]
}

/// The internet checksum (RFC 1071).
fn checksum(bytes: &[u8]) -> u16 {
    let words =
        bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0)));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The same packet, as if a server had sent it.
    fn answer(payload: &[u8]) -> Vec<u8> {
        let mut packet = wrap([192, 0, 2, 1].into(), [192, 0, 2, 50].into(), payload);
        packet[20..24].copy_from_slice(&[0, 67, 0, 68]);
        packet
    }

    #[test]
    fn headers_are_as_the_standards_have_them() {
        let packet = wrap(Ipv4Addr::UNSPECIFIED, Ipv4Addr::BROADCAST, b"abc");
        let expected = [
            0x45, 0x10, 0, 31, 0, 0, 0, 0, 64, 17, 0x7a, 0xbf, 0, 0, 0, 0, 255, 255, 255, 255, 0, 68, 0, 67,
            0, 11,
        ];
        assert_eq!(packet[..26], expected);
        assert_eq!(checksum(&packet[..20]), 0, "with its own sum in it");
        assert_eq!(unwrap(&packet), None, "it is for a server");
        assert_eq!(unwrap(&answer(b"abc")), Some(&b"abc"[..]));
    }

    #[test]
    fn what_comes_behind_the_packet_is_no_part_of_it() {
        let mut packet = answer(b"abc");
        packet.extend([0; 15]);
        assert_eq!(unwrap(&packet), Some(&b"abc"[..]));
        packet[6] = 0x20;
        assert_eq!(unwrap(&packet), None, "a fragment");
    }

    proptest! {
        #[test]
        fn no_bytes_break_the_reader(changes in prop::collection::vec((0..40usize, any::<u8>()), 0..6), cut in 0..44usize) {
            let mut packet = answer(b"some payload");
            for (at, byte) in changes {
                packet[at] = byte;
            }
            packet.truncate(cut);
            if let Some(payload) = unwrap(&packet) {
                prop_assert!(payload.len() <= packet.len());
            }
        }
    }
}
