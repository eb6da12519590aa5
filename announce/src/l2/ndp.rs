//! Neighbor Discovery for IPv6 over Ethernet (RFC 4861): solicitations in, advertisements out, each with its
//! whole IPv6 header.

use std::net::Ipv6Addr;

use weft_netlink::rtnl::Mac;

use super::arp::is_station;

/// The length of an IPv6 header.
pub const HEADER: usize = 40;
/// The length of a solicitation or an advertisement without options.
const BODY: usize = 24;
const ICMPV6: u8 = 58;
/// Whoever is not on the link cannot send this (RFC 4861, section 3.1).
const HOP_LIMIT: u8 = 255;
const SOLICITATION: u8 = 135;
const ADVERTISEMENT: u8 = 136;
/// The options with Ethernet addresses (section 4.6.1).
const SOURCE_LINK_ADDRESS: u8 = 1;
const TARGET_LINK_ADDRESS: u8 = 2;
const SOLICITED: u8 = 0x40;
const OVERRIDE: u8 = 0x20;
/// All nodes of the link (RFC 4291, section 2.7.1).
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

/// Somebody asks who has an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Solicitation {
    /// Who asks; unspecified where that one only looks whether an address is in use.
    pub source: Ipv6Addr,
    /// The address that is asked for.
    pub target: Ipv6Addr,
    /// The Ethernet address of who asks, where it tells.
    pub link_address: Option<Mac>,
}

/// Somebody says to have an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Advertisement {
    /// The address.
    pub target: Ipv6Addr,
    /// The Ethernet address of who has it, where it tells.
    pub link_address: Option<Mac>,
}

/// What a packet says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message {
    /// A question.
    Solicitation(Solicitation),
    /// An answer, or an announcement.
    Advertisement(Advertisement),
}

/// Reads an IPv6 packet. Nothing for all but valid solicitations and advertisements (RFC 4861, sections 7.1.1
/// and 7.1.2). The ones behind extension headers are not looked at: no neighbour sends them.
pub fn decode(packet: &[u8]) -> Option<Message> {
    let header: &[u8; HEADER] = packet.first_chunk()?;
    let length = usize::from(u16::from_be_bytes([header[4], header[5]]));
    let is_ours = header[0] >> 4 == 6 && header[6] == ICMPV6 && header[7] == HOP_LIMIT;
    let body = packet[HEADER..].get(..length).filter(|_| is_ours && length >= BODY)?;
    let address = |at: usize| packet[at..].first_chunk().copied().map(|it: [u8; 16]| Ipv6Addr::from(it));
    let (source, destination, target) = (address(8)?, address(24)?, address(HEADER + 8)?);
    if body[1] != 0 || target.is_multicast() || checksum(source, destination, body) != 0 {
        return None;
    }
    let options = options(&body[BODY..])?;
    let link_address = |kind: u8| {
        let option = options.iter().find(|(of, _)| *of == kind)?;
        option.1.first_chunk().copied().map(Mac).filter(|mac| is_station(*mac))
    };
    match body[0] {
        SOLICITATION => {
            let link_address = link_address(SOURCE_LINK_ADDRESS);
            let is_sound = source != Ipv6Addr::UNSPECIFIED
                || link_address.is_none() && destination == solicited_node(target);
            is_sound.then_some(Message::Solicitation(Solicitation { source, target, link_address }))
        }
        ADVERTISEMENT => {
            let link_address = link_address(TARGET_LINK_ADDRESS);
            Some(Message::Advertisement(Advertisement { target, link_address }))
        }
        _ => None,
    }
}

/// The options, each with what follows its length; nothing where one has none, or reaches beyond the end.
fn options(mut bytes: &[u8]) -> Option<Vec<(u8, &[u8])>> {
    let mut found = Vec::new();
    while !bytes.is_empty() {
        let length = usize::from(*bytes.get(1)?) * 8;
        let option = bytes.get(..length).filter(|option| !option.is_empty())?;
        found.push((option[0], &option[2..]));
        bytes = &bytes[length..];
    }
    Some(found)
}

/// The answer to a question, and the Ethernet address that it goes to; `source` is that of the frame with the
/// question. Nothing where nobody can be answered.
pub fn answer(asked: &Solicitation, source: Option<Mac>, mac: Mac) -> Option<(Vec<u8>, Mac)> {
    if asked.source == Ipv6Addr::UNSPECIFIED {
        // Somebody wants the address for itself: all are told that it is taken (section 7.2.4).
        return Some((advertisement(asked.target, ALL_NODES, 0, mac), group_mac(ALL_NODES)));
    }
    let to = asked.link_address.or(source.filter(|mac| is_station(*mac)))?;
    Some((advertisement(asked.target, asked.source, SOLICITED, mac), to))
}

/// What tells all nodes of the link, unasked, that an address is here now (section 7.2.6), and where it goes.
pub fn announcement(address: Ipv6Addr, mac: Mac) -> (Vec<u8>, Mac) {
    (advertisement(address, ALL_NODES, 0, mac), group_mac(ALL_NODES))
}

/// The group in which a node asks for an address (RFC 4291, section 2.7.1).
pub fn solicited_node(address: Ipv6Addr) -> Ipv6Addr {
    let [.., a, b, c] = address.octets();
    Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00 | u16::from(a), u16::from_be_bytes([b, c]))
}

/// The Ethernet address of a group (RFC 2464, section 7).
fn group_mac(group: Ipv6Addr) -> Mac {
    let [.., a, b, c, d] = group.octets();
    Mac([0x33, 0x33, a, b, c, d])
}

/// Sent from the address itself, as a node that has it sends it.
fn advertisement(address: Ipv6Addr, to: Ipv6Addr, flags: u8, mac: Mac) -> Vec<u8> {
    let mut body = vec![ADVERTISEMENT, 0, 0, 0, flags | OVERRIDE, 0, 0, 0];
    body.extend(address.octets());
    body.extend([TARGET_LINK_ADDRESS, 1]);
    body.extend(mac.0);
    let sum = checksum(address, to, &body);
    body[2..4].copy_from_slice(&sum.to_be_bytes());
    let mut packet = vec![0x60, 0, 0, 0, 0, body.len() as u8, ICMPV6, HOP_LIMIT];
    packet.extend(address.octets());
    packet.extend(to.octets());
    packet.extend(body);
    packet
}

/// The checksum of ICMPv6 (RFC 4443, section 2.3); 0 over what holds its own.
fn checksum(source: Ipv6Addr, destination: Ipv6Addr, body: &[u8]) -> u16 {
    let words = |bytes: &[u8]| -> u32 {
        bytes
            .chunks(2)
            .map(|pair| u32::from(pair[0]) << 8 | pair.get(1).map_or(0, |low| u32::from(*low)))
            .sum()
    };
    let pseudo = body.len() as u32 + u32::from(ICMPV6);
    let mut sum = words(&source.octets()) + words(&destination.octets()) + words(body) + pseudo;
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const OURS: Mac = Mac([2, 0, 0, 0, 0, 1]);
    const THEIRS: Mac = Mac([2, 0, 0, 0, 0, 7]);

    fn vip() -> Ipv6Addr {
        "2001:db8::a:b:c10".parse().unwrap()
    }

    fn client() -> Ipv6Addr {
        "fe80::7".parse().unwrap()
    }

    /// A solicitation; the last step may break it before the checksum is made.
    fn solicitation(source: Ipv6Addr, option: &[u8], change: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
        let to = solicited_node(vip());
        let mut body = vec![SOLICITATION, 0, 0, 0, 0, 0, 0, 0];
        body.extend(vip().octets());
        body.extend(option);
        let mut packet = vec![0x60, 0, 0, 0, 0, body.len() as u8, ICMPV6, HOP_LIMIT];
        packet.extend(source.octets());
        packet.extend(to.octets());
        packet.extend(body);
        change(&mut packet);
        let sum = checksum(source, to, &packet[HEADER..]);
        packet[HEADER + 2..HEADER + 4].copy_from_slice(&sum.to_be_bytes());
        packet
    }

    const OPTION: [u8; 8] = [1, 1, 2, 0, 0, 0, 0, 7];

    #[test]
    fn who_asks_is_answered_from_the_address_itself() {
        let Some(Message::Solicitation(asked)) = decode(&solicitation(client(), &OPTION, |_| {})) else {
            panic!()
        };
        assert_eq!(asked, Solicitation { source: client(), target: vip(), link_address: Some(THEIRS) });
        let (packet, to) = answer(&asked, None, OURS).unwrap();
        assert_eq!((to, packet[7], packet[HEADER + 4]), (THEIRS, 255, SOLICITED | OVERRIDE));
        assert_eq!(packet[8..24], vip().octets());
        let told = Message::Advertisement(Advertisement { target: vip(), link_address: Some(OURS) });
        assert_eq!(decode(&packet), Some(told));
    }

    #[test]
    fn without_an_option_the_frame_tells_where_the_answer_goes() {
        let Some(Message::Solicitation(asked)) = decode(&solicitation(client(), &[], |_| {})) else {
            panic!()
        };
        assert_eq!(answer(&asked, Some(THEIRS), OURS).unwrap().1, THEIRS);
        assert_eq!(answer(&asked, Some(Mac([0x33; 6])), OURS), None, "never to a group");
    }

    #[test]
    fn who_wants_the_address_for_itself_is_told_before_all_that_it_is_taken() {
        let Some(Message::Solicitation(asked)) = decode(&solicitation(Ipv6Addr::UNSPECIFIED, &[], |_| {}))
        else {
            panic!()
        };
        let (packet, to) = answer(&asked, Some(THEIRS), OURS).unwrap();
        assert_eq!((to, packet[HEADER + 4]), (Mac([0x33, 0x33, 0, 0, 0, 1]), OVERRIDE));
        assert_eq!(packet[24..40], ALL_NODES.octets());
    }

    #[test]
    fn all_nodes_are_told_of_an_address_unasked() {
        let (packet, to) = announcement(vip(), OURS);
        assert_eq!((to.to_string(), packet[HEADER + 4]), ("33:33:00:00:00:01".to_owned(), OVERRIDE));
        assert!(matches!(decode(&packet), Some(Message::Advertisement(_))));
        assert_eq!(solicited_node(vip()).to_string(), "ff02::1:ff0b:c10");
    }

    #[test]
    fn what_no_neighbour_can_have_sent_is_not_read() {
        let sound = solicitation(client(), &OPTION, |_| {});
        for (at, value) in [(0, 0x40), (6, 17), (7, 254), (HEADER + 2, 0xff), (5, 40), (5, 20)] {
            let mut packet = sound.clone();
            packet[at] = value;
            assert_eq!(decode(&packet), None, "byte {at}");
        }
        let refused =
            |source, option: &[u8], change: fn(&mut Vec<u8>)| decode(&solicitation(source, option, change));
        assert_eq!(refused(client(), &OPTION, |packet| packet[HEADER + 1] = 1), None, "a code");
        assert_eq!(refused(client(), &OPTION, |packet| packet[HEADER + 8] = 0xff), None, "for a group");
        assert_eq!(refused(client(), &[1, 0, 2, 0, 0, 0, 0, 7], |_| {}), None, "an option without length");
        assert_eq!(refused(client(), &[1, 2, 2, 0, 0, 0, 0, 7], |_| {}), None, "an option beyond the end");
        assert_eq!(refused(Ipv6Addr::UNSPECIFIED, &OPTION, |_| {}), None, "nobody has no link address");
        (0..sound.len()).for_each(|length| assert_eq!(decode(&sound[..length]), None));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(
            bytes in prop::collection::vec(any::<u8>(), 0..128), options in prop::collection::vec(any::<u8>(), 0..40),
        ) {
            decode(&bytes);
            decode(&solicitation(client(), &options, |_| {}));
        }
    }
}
