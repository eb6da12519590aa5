//! ARP for IPv4 over Ethernet (RFC 826; RFC 5227).

use std::net::Ipv4Addr;

use weft_netlink::rtnl::Mac;

/// The length of a packet.
pub const LENGTH: usize = 28;
/// Hardware type Ethernet, protocol IPv4, and the lengths of their addresses.
const HEAD: [u8; 6] = [0, 1, 8, 0, 6, 4];

/// What a packet does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// It asks who has an address.
    Request,
    /// It says who has one.
    Reply,
}

/// A packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ArpPacket {
    /// What it does.
    pub operation: Operation,
    /// The Ethernet address of who sent it.
    pub sender_mac: Mac,
    /// The address of who sent it; unspecified where that one only probes whether an address is in use.
    pub sender: Ipv4Addr,
    /// Whose Ethernet address this is; of no meaning in a request.
    pub target_mac: Mac,
    /// The address that is asked for.
    pub target: Ipv4Addr,
}

impl ArpPacket {
    /// The packet's bytes.
    pub fn encode(&self) -> [u8; LENGTH] {
        let mut bytes = [0; LENGTH];
        bytes[..6].copy_from_slice(&HEAD);
        bytes[7] = match self.operation {
            Operation::Request => 1,
            Operation::Reply => 2,
        };
        bytes[8..14].copy_from_slice(&self.sender_mac.0);
        bytes[14..18].copy_from_slice(&self.sender.octets());
        bytes[18..24].copy_from_slice(&self.target_mac.0);
        bytes[24..].copy_from_slice(&self.target.octets());
        bytes
    }

    /// Reads a packet, behind which a frame may be padded. Nothing for what is neither request nor reply for
    /// IPv4 over Ethernet, and for what no station can have sent.
    pub fn decode(bytes: &[u8]) -> Option<ArpPacket> {
        let bytes: &[u8; LENGTH] = bytes.first_chunk()?;
        let operation = match (bytes[..6] == HEAD, bytes[6], bytes[7]) {
            (true, 0, 1) => Operation::Request,
            (true, 0, 2) => Operation::Reply,
            _ => return None,
        };
        let mac = |at: usize| bytes[at..].first_chunk().copied().map(Mac);
        let address = |at: usize| bytes[at..].first_chunk().copied().map(|it: [u8; 4]| Ipv4Addr::from(it));
        let packet = ArpPacket {
            operation,
            sender_mac: mac(8)?,
            sender: address(14)?,
            target_mac: mac(18)?,
            target: address(24)?,
        };
        is_station(packet.sender_mac).then_some(packet)
    }

    /// The answer to a request: that the address which it asks for is there.
    pub fn answer(&self, mac: Mac) -> ArpPacket {
        ArpPacket {
            operation: Operation::Reply,
            sender_mac: mac,
            sender: self.target,
            target_mac: self.sender_mac,
            target: self.sender,
        }
    }

    /// Both ways in which stations tell all others that they have an address, unasked: as a request (RFC
    /// 5227, section 3) and as a reply. Some neighbours take notice of one alone.
    pub fn announcements(address: Ipv4Addr, mac: Mac) -> [ArpPacket; 2] {
        let of = |operation, target_mac| ArpPacket {
            operation,
            sender_mac: mac,
            sender: address,
            target_mac,
            target: address,
        };
        [of(Operation::Request, Mac([0; 6])), of(Operation::Reply, mac)]
    }
}

/// Whether an Ethernet address may be that of one station: neither a group nor nobody.
pub(super) fn is_station(mac: Mac) -> bool {
    mac.0[0] & 1 == 0 && mac.0 != [0; 6]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ASKS: [u8; LENGTH] =
        [0, 1, 8, 0, 6, 4, 0, 1, 2, 0, 0, 0, 0, 7, 192, 0, 2, 1, 0, 0, 0, 0, 0, 0, 192, 0, 2, 10];

    #[test]
    fn who_asks_is_answered_alone() {
        let asked = ArpPacket::decode(&ASKS).unwrap();
        assert_eq!(asked.encode(), ASKS);
        let ours = Mac([2, 0, 0, 0, 0, 1]);
        let answer = asked.answer(ours);
        assert_eq!(
            (answer.operation, answer.sender_mac, answer.target_mac),
            (Operation::Reply, ours, asked.sender_mac)
        );
        assert_eq!((answer.sender, answer.target), (asked.target, asked.sender));
    }

    #[test]
    fn an_address_is_announced_to_all_in_both_ways() {
        let address = Ipv4Addr::new(192, 0, 2, 10);
        let both = ArpPacket::announcements(address, Mac([2, 0, 0, 0, 0, 1]));
        assert_eq!(both.map(|packet| packet.operation), [Operation::Request, Operation::Reply]);
        assert!(both.iter().all(|packet| packet.sender == address && packet.target == address));
    }

    #[test]
    fn what_is_no_arp_for_ipv4_over_ethernet_is_not_read() {
        for (at, value) in [(1, 6), (2, 0x86), (4, 8), (5, 16), (6, 1), (7, 3), (8, 1)] {
            let mut bytes = ASKS;
            bytes[at] = value;
            assert_eq!(ArpPacket::decode(&bytes), None, "byte {at}");
        }
        assert_eq!(ArpPacket::decode(&ASKS[..27]), None);
        assert!(ArpPacket::decode(&[&ASKS[..], &[0; 18]].concat()).is_some(), "frames are padded");
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..64), head in any::<bool>()) {
            let bytes = if head { [&ASKS[..8], &bytes].concat() } else { bytes };
            if let Some(packet) = ArpPacket::decode(&bytes) {
                prop_assert_eq!(&packet.encode()[..], &bytes[..LENGTH]);
            }
        }
    }
}
