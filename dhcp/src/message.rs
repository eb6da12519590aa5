//! DHCP messages (RFC 2131 section 2), their options (RFC 2132) as numbers and bytes. What a client needs of
//! them: broken ones are refused, whatever they hold.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

/// The part before the options, with the cookie that begins them.
const HEADER: usize = 240;
/// What marks options (RFC 2132 section 2).
const COOKIE: [u8; 4] = [99, 130, 83, 99];
/// The least that relays and servers of BOOTP take (RFC 1542 section 2.1).
const SHORTEST: usize = 300;
/// `flags`: answer by broadcast (RFC 2131 figure 2).
const BROADCAST: u16 = 0x8000;
/// Where `sname` and `file` stand, which may hold options too (RFC 2132 section 9.3).
const SNAME: std::ops::Range<usize> = 44..108;
const FILE: std::ops::Range<usize> = 108..236;

/// Options' numbers.
pub mod option {
    /// Pad.
    pub const PAD: u8 = 0;
    /// Subnet mask.
    pub const SUBNET_MASK: u8 = 1;
    /// Routers, the preferred one first.
    pub const ROUTERS: u8 = 3;
    /// The client's name.
    pub const HOST_NAME: u8 = 12;
    /// Routes to classful networks.
    pub const STATIC_ROUTES: u8 = 33;
    /// The address that the client asks for.
    pub const REQUESTED_ADDRESS: u8 = 50;
    /// For how long an address may be used, in seconds.
    pub const LEASE_TIME: u8 = 51;
    /// Which of `sname` and `file` hold options.
    pub const OVERLOAD: u8 = 52;
    /// The kind of message.
    pub const MESSAGE_TYPE: u8 = 53;
    /// The server's address.
    pub const SERVER: u8 = 54;
    /// What the client wants to be told.
    pub const PARAMETERS: u8 = 55;
    /// Why the server refuses.
    pub const MESSAGE: u8 = 56;
    /// T1: when to renew.
    pub const RENEWAL_TIME: u8 = 58;
    /// T2: when to ask any server.
    pub const REBINDING_TIME: u8 = 59;
    /// The vendor's class.
    pub const VENDOR_CLASS: u8 = 60;
    /// By what the server knows the client.
    pub const CLIENT_ID: u8 = 61;
    /// The user's class.
    pub const USER_CLASS: u8 = 77;
    /// Routes (RFC 3442).
    pub const CLASSLESS_ROUTES: u8 = 121;
    /// The end.
    pub const END: u8 = 255;
}

/// The kinds of messages that a client sends or hears (RFC 2132 section 9.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Who has an address?
    Discover = 1,
    /// I have this one.
    Offer = 2,
    /// I take it; I keep it.
    Request = 3,
    /// It is yours.
    Ack = 5,
    /// It is not.
    Nak = 6,
    /// I have done with it.
    Release = 7,
}

/// A message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Whether it is a server's.
    pub is_reply: bool,
    /// What ties answers to questions.
    pub xid: u32,
    /// For how long the client has been trying, in seconds.
    pub secs: u16,
    /// Whether the answer is to be broadcast.
    pub broadcast: bool,
    /// The client's address, where it has one.
    pub ciaddr: Ipv4Addr,
    /// The address that the server gives.
    pub yiaddr: Ipv4Addr,
    /// The client's Ethernet address.
    pub chaddr: [u8; 6],
    /// The options; one that came in several parts is one (RFC 3396).
    pub options: BTreeMap<u8, Vec<u8>>,
}

impl Default for Message {
    fn default() -> Message {
        Message {
            is_reply: false,
            xid: 0,
            secs: 0,
            broadcast: false,
            ciaddr: Ipv4Addr::UNSPECIFIED,
            yiaddr: Ipv4Addr::UNSPECIFIED,
            chaddr: [0; 6],
            options: BTreeMap::new(),
        }
    }
}

impl Message {
    /// The message's kind, where it is one of those.
    pub fn kind(&self) -> Option<Kind> {
        let [number] = self.options.get(&option::MESSAGE_TYPE)?.as_slice() else { return None };
        [Kind::Discover, Kind::Offer, Kind::Request, Kind::Ack, Kind::Nak, Kind::Release]
            .into_iter()
            .find(|kind| *kind as u8 == *number)
    }

    /// An option that is one address.
    pub fn address(&self, option: u8) -> Option<Ipv4Addr> {
        let bytes: [u8; 4] = self.options.get(&option)?.as_slice().try_into().ok()?;
        Some(bytes.into())
    }

    /// An option that is a number of 32 bits.
    pub fn number(&self, option: u8) -> Option<u32> {
        self.address(option).map(u32::from)
    }

    /// As it goes over the wire.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![0; HEADER];
        let op = if self.is_reply { 2 } else { 1 };
        // Ethernet, whose addresses have six bytes (RFC 2131 figure 1, RFC 1700).
        bytes[..3].copy_from_slice(&[op, 1, 6]);
        bytes[4..8].copy_from_slice(&self.xid.to_be_bytes());
        bytes[8..10].copy_from_slice(&self.secs.to_be_bytes());
        bytes[10..12].copy_from_slice(&if self.broadcast { BROADCAST } else { 0 }.to_be_bytes());
        bytes[12..16].copy_from_slice(&self.ciaddr.octets());
        bytes[16..20].copy_from_slice(&self.yiaddr.octets());
        bytes[28..34].copy_from_slice(&self.chaddr);
        bytes[236..240].copy_from_slice(&COOKIE);
        // Servers look for the kind first.
        let first = self.options.get_key_value(&option::MESSAGE_TYPE).into_iter();
        let others = self.options.iter().filter(|(number, _)| **number != option::MESSAGE_TYPE);
        for (number, value) in first.chain(others) {
            // An option without a value is one too. A long one comes in parts (RFC 3396 section 5).
            let parts = if value.is_empty() { vec![&value[..]] } else { value.chunks(255).collect() };
            for part in parts {
                bytes.extend([*number, part.len() as u8]);
                bytes.extend(part);
            }
        }
        bytes.push(option::END);
        if bytes.len() < SHORTEST {
            bytes.resize(SHORTEST, option::PAD);
        }
        bytes
    }

    /// Reads one; none where it is broken, or of another kind of link.
    pub fn decode(bytes: &[u8]) -> Option<Message> {
        let header: &[u8; HEADER] = bytes.first_chunk()?;
        let is_reply = match header[..3] {
            [op @ (1 | 2), 1, 6] => op == 2,
            _ => return None,
        };
        if header[236..240] != COOKIE {
            return None;
        }
        let word = |at: usize| Some(u32::from_be_bytes(*header[at..].first_chunk()?));
        let half = |at: usize| Some(u16::from_be_bytes(*header[at..].first_chunk()?));
        let mut options = BTreeMap::new();
        read_options(&bytes[HEADER..], &mut options)?;
        let overload = match options.get(&option::OVERLOAD).map(Vec::as_slice) {
            None => 0,
            Some([number]) => *number,
            Some(_) => return None,
        };
        // `file` before `sname` (RFC 3396 section 5).
        for (bit, place) in [(1, FILE), (2, SNAME)] {
            if overload & bit != 0 {
                read_options(&header[place], &mut options)?;
            }
        }
        Some(Message {
            is_reply,
            xid: word(4)?,
            secs: half(8)?,
            broadcast: half(10)? & BROADCAST != 0,
            ciaddr: word(12)?.into(),
            yiaddr: word(16)?.into(),
            chaddr: *header[28..].first_chunk()?,
            options,
        })
    }
}

/// Up to the end's mark, which some leave out where the message ends.
fn read_options(mut bytes: &[u8], options: &mut BTreeMap<u8, Vec<u8>>) -> Option<()> {
    loop {
        match bytes {
            [] | [option::END, ..] => return Some(()),
            [option::PAD, rest @ ..] => bytes = rest,
            [number, length, rest @ ..] => {
                let (value, rest) = rest.split_at_checked(usize::from(*length))?;
                options.entry(*number).or_default().extend(value);
                bytes = rest;
            }
            [_] => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use dhcproto::{Decodable, Encodable, v4};
    use proptest::prelude::*;

    use super::*;

    fn any_message() -> impl Strategy<Value = Message> {
        let options = prop::collection::btree_map(1..255u8, prop::collection::vec(any::<u8>(), 0..600), 0..8);
        let head = (any::<bool>(), any::<u32>(), any::<u16>(), any::<bool>(), any::<[u8; 6]>());
        (head, any::<u32>(), any::<u32>(), options).prop_map(|(head, ciaddr, yiaddr, mut options)| {
            options.remove(&option::OVERLOAD);
            Message {
                is_reply: head.0,
                xid: head.1,
                secs: head.2,
                broadcast: head.3,
                chaddr: head.4,
                ciaddr: ciaddr.into(),
                yiaddr: yiaddr.into(),
                options,
            }
        })
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(message in any_message()) {
            prop_assert_eq!(Message::decode(&message.encode()), Some(message));
        }

        #[test]
        fn no_bytes_break_the_reader(bytes in prop::collection::vec(any::<u8>(), 0..700)) {
            let mut bytes = bytes;
            let _ = Message::decode(&bytes);
            if bytes.len() >= HEADER {
                bytes[..3].copy_from_slice(&[2, 1, 6]);
                bytes[236..240].copy_from_slice(&COOKIE);
                let _ = Message::decode(&bytes);
            }
        }
    }

    #[test]
    fn another_codec_reads_the_same() {
        let options = [
            (option::MESSAGE_TYPE, vec![Kind::Request as u8]),
            (option::REQUESTED_ADDRESS, vec![192, 0, 2, 7]),
            (option::SERVER, vec![192, 0, 2, 1]),
            (option::CLIENT_ID, b"\0c1/lan/eth0".to_vec()),
            (option::HOST_NAME, b"web".to_vec()),
        ];
        let message = Message {
            xid: 0x1234_5678,
            broadcast: true,
            chaddr: [2, 0, 0, 0, 0, 9],
            options: options.into(),
            ..Message::default()
        };
        let theirs = v4::Message::from_bytes(&message.encode()).unwrap();
        assert_eq!(theirs.xid(), message.xid);
        assert_eq!(theirs.chaddr(), message.chaddr);
        assert!(theirs.flags().broadcast());
        let opts = theirs.opts();
        assert_eq!(opts.msg_type(), Some(v4::MessageType::Request));
        let address = opts.get(v4::OptionCode::RequestedIpAddress);
        assert_eq!(address, Some(&v4::DhcpOption::RequestedIpAddress([192, 0, 2, 7].into())));
        let id = opts.get(v4::OptionCode::ClientIdentifier);
        assert_eq!(id, Some(&v4::DhcpOption::ClientIdentifier(b"\0c1/lan/eth0".to_vec())));
        assert_eq!(Message::decode(&theirs.to_vec().unwrap()), Some(message));
    }

    #[test]
    fn options_may_stand_in_the_names_fields_and_in_parts() {
        let mut bytes = Message { is_reply: true, ..Message::default() }.encode();
        let overload = [option::OVERLOAD, 1, 3, option::MESSAGE, 2, b'a', b'b', option::END];
        bytes[HEADER..HEADER + overload.len()].copy_from_slice(&overload);
        bytes[FILE.start..FILE.start + 4].copy_from_slice(&[option::MESSAGE, 1, b'c', option::END]);
        bytes[SNAME.start..SNAME.start + 4].copy_from_slice(&[option::MESSAGE, 1, b'd', option::END]);
        assert_eq!(Message::decode(&bytes).unwrap().options[&option::MESSAGE], b"abcd");
    }

    #[test]
    fn an_option_that_is_cut_short_spoils_the_message() {
        let mut bytes = Message { is_reply: true, ..Message::default() }.encode();
        bytes.truncate(HEADER);
        assert!(Message::decode(&bytes).is_some(), "some leave out the end");
        bytes.extend([option::SERVER, 4, 192]);
        assert_eq!(Message::decode(&bytes), None);
        assert_eq!(Message::decode(&bytes[..HEADER - 1]), None);
    }
}
