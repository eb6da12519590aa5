//! `reject`: how the sender is told that a packet goes no further (`NFTA_REJECT_*`).

use std::fmt;

use weft_netlink::Family;
use weft_netlink::attribute::{Attributes, Writer};

/// `NFT_REJECT_ICMP_UNREACH`, `NFT_REJECT_TCP_RST`, `NFT_REJECT_ICMPX_UNREACH`
const ICMP: u32 = 0;
const TCP_RESET: u32 = 1;
const ICMPX: u32 = 2;
/// nft's words for the codes of ICMP, of ICMPv6, and of both at once (`NFT_REJECT_ICMPX_*`).
const ICMP_CODES: [(u8, &str); 7] = [
    (0, "net-unreachable"),
    (1, "host-unreachable"),
    (2, "prot-unreachable"),
    (3, "port-unreachable"),
    (9, "net-prohibited"),
    (10, "host-prohibited"),
    (13, "admin-prohibited"),
];
const ICMPV6_CODES: [(u8, &str); 6] = [
    (0, "no-route"),
    (1, "admin-prohibited"),
    (3, "addr-unreachable"),
    (4, "port-unreachable"),
    (5, "policy-fail"),
    (6, "reject-route"),
];
const ICMPX_CODES: [(u8, &str); 4] =
    [(0, "no-route"), (1, "port-unreachable"), (2, "host-unreachable"), (3, "admin-prohibited")];

/// An answer to the sender of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reject {
    /// A message of the family's ICMP with that code of "destination unreachable".
    Icmp(Family, u8),
    /// The same by a code that stands for one of either family (`NFT_REJECT_ICMPX_*`), in tables of both.
    Icmpx(u8),
    /// A TCP reset. The rule must match TCP before.
    TcpReset,
}

impl Reject {
    /// "Port unreachable" in the words of that family.
    pub fn port_unreachable(family: Family) -> Reject {
        match family {
            Family::Ip => Reject::Icmp(family, 3),
            Family::Ip6 => Reject::Icmp(family, 4),
        }
    }

    pub(super) fn encode(self, data: &mut Writer<'_>) {
        match self {
            Reject::Icmp(_, code) => {
                data.u32(1, ICMP);
                data.u8(2, code);
            }
            Reject::Icmpx(code) => {
                data.u32(1, ICMPX);
                data.u8(2, code);
            }
            Reject::TcpReset => data.u32(1, TCP_RESET),
        }
    }

    /// Reads one of a rule that sees packets of that family alone, or of both.
    pub(super) fn decode(family: Option<Family>, data: &Attributes<'_>) -> Option<Reject> {
        let code = || data.get(2).and_then(|bytes| bytes.first().copied());
        match data.u32(1)? {
            ICMP => Some(Reject::Icmp(family?, code()?)),
            ICMPX => Some(Reject::Icmpx(code()?)),
            TCP_RESET => Some(Reject::TcpReset),
            _ => None,
        }
    }
}

impl fmt::Display for Reject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (protocol, code, codes, usual): (_, _, &[_], _) = match *self {
            Reject::Icmp(Family::Ip, code) => ("icmp", code, &ICMP_CODES, 3),
            Reject::Icmp(Family::Ip6, code) => ("icmpv6", code, &ICMPV6_CODES, 4),
            Reject::Icmpx(code) => ("icmpx", code, &ICMPX_CODES, 1),
            Reject::TcpReset => return f.write_str("reject with tcp reset"),
        };
        if code == usual {
            return f.write_str("reject");
        }
        match codes.iter().find(|(known, _)| *known == code) {
            Some((_, word)) => write!(f, "reject with {protocol} {word}"),
            None => write!(f, "reject with {protocol} {code}"),
        }
    }
}
