//! Matches and targets of iptables (`NFTA_MATCH_*`, `NFTA_TARGET_*`), as the kernel's nft_compat runs them
//! and `iptables-nft` prints them. Each is one description of its bytes and its words; what of nft's own does
//! the same is in `native.rs`. What a structure holds is said by the headers `linux/netfilter/xt_*.h`, of
//! which the comments name the structures.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use weft_netlink::Family;
use weft_netlink::attribute::Writer;

use crate::register::expression;
use crate::value::Name;

/// Structures end on a boundary of a pointer (`XT_ALIGN`).
const ALIGNMENT: usize = 8;
/// The length of a comment, with its end (`XT_MAX_COMMENT_LEN`), and of the name of a list
/// (`XT_RECENT_NAME_LEN`).
const COMMENT: usize = 256;
const LIST_NAME: usize = 200;
/// What a probability is a part of (`xt_statistic`).
const CERTAIN: u32 = 1 << 31;
/// `RTN_LOCAL` as a bit.
const LOCAL: u16 = 1 << 2;
/// `XT_RECENT_CHECK`, `XT_RECENT_SET`, `XT_RECENT_REAP`
const CHECK: u8 = 1;
const SET: u8 = 2;
const REAP: u8 = 32;
/// `NF_NAT_RANGE_MAP_IPS | NF_NAT_RANGE_PROTO_SPECIFIED`, `NF_NAT_RANGE_PROTO_RANDOM_FULLY`
const ADDRESS_AND_PORT: u32 = 1 | 2;
const FULLY_RANDOM: u32 = 1 << 4;
/// The numbers of the transport protocols that have matches.
const TCP: u8 = 6;
const UDP: u8 = 17;
const SCTP: u8 = 132;
/// `XT_SCTP_DEST_PORTS`
const SCTP_DPORT: u32 = 2;

/// A match or a target of iptables.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Xt {
    /// A remark of at most 255 bytes: `-m comment --comment "why"`
    Comment(Name),
    /// Goes on with a probability of so many parts of 2^31: `-m statistic --mode random --probability 0.5`
    Statistic(u32),
    /// Goes on where the source is an address of this machine: `-m addrtype --src-type LOCAL`
    SourceIsLocal,
    /// The same of the destination: `-m addrtype --dst-type LOCAL`
    DestinationIsLocal,
    /// Goes on where the source was put into the list of that name within so many seconds, and clears out who
    /// was put there earlier: `-m recent --rcheck --seconds 10800 --reap --name x`
    Recent(Family, Name, u32),
    /// Puts the source into the list of that name: `-m recent --set --name x`
    Remember(Family, Name),
    /// Asks the header of a transport protocol, perhaps for its destination port: `-m sctp --dport 80`. The
    /// rule must match the protocol before.
    Transport(u8, Option<u16>),
    /// Sets the bits of the packet's mark that `mask` has to 0, and flips those of `value`: `-j MARK
    /// --set-xmark 0x4000/0x4000`
    Mark {
        /// The bits that are flipped.
        value: u32,
        /// The bits that are cleared before.
        mask: u32,
    },
    /// Gives the connection an address of the outgoing interface as its source, and a port at random:
    /// `-j MASQUERADE --random-fully`
    Masquerade(Family),
    /// Gives the connection another destination: `-j DNAT --to-destination 10.0.0.1:80`
    Dnat(SocketAddr),
    /// Tells the sender that nobody listens: `-j REJECT`
    Reject(Family),
}

impl Xt {
    /// A match that holds once in so many times, as `iptables` rounds ten digits of the fraction.
    pub fn once_in(count: usize) -> Xt {
        let ten_digits = (1e10 / count.max(1) as f64).round() / 1e10;
        Xt::Statistic((f64::from(CERTAIN) * ten_digits).round() as u32)
    }

    pub(super) fn write(&self, writer: &mut Writer<'_>) {
        let kind = if self.is_target() { "target" } else { "match" };
        let (name, revision) = self.name();
        write_info(kind, name, revision, &self.info(), writer);
    }

    /// The one of that name, revision and structure in a table of that family, where all of it is known.
    pub(super) fn read(family: Family, name: &str, revision: u32, info: &[u8]) -> Option<Xt> {
        let known = match (name, revision) {
            ("statistic", 0) => Xt::Statistic(u32_at(info, 4)?),
            ("addrtype", 1) if u16_at(info, 0)? == LOCAL => Xt::SourceIsLocal,
            ("addrtype", 1) => Xt::DestinationIsLocal,
            ("recent", 1) if *info.get(8)? & SET != 0 => Xt::Remember(family, text(info.get(10..)?)),
            ("recent", 1) => Xt::Recent(family, text(info.get(10..)?), u32_at(info, 0)?),
            ("tcp" | "udp", 0) => {
                let protocol = if name == "tcp" { TCP } else { UDP };
                let (from, to) = (u16_at(info, 4)?, u16_at(info, 6)?);
                Xt::Transport(protocol, (from == to).then_some(from))
            }
            ("sctp", 0) => Xt::Transport(SCTP, Some(u16_at(info, 0)?).filter(|port| *port != 0)),
            ("MARK", 2) => Xt::Mark { value: u32_at(info, 0)?, mask: u32_at(info, 4)? },
            ("MASQUERADE", 0) if info.len() >= 40 => Xt::Masquerade(Family::Ip6),
            ("MASQUERADE", 0) => Xt::Masquerade(Family::Ip),
            ("DNAT", 2) => destination(info)?,
            ("REJECT", 0) => {
                let is_known = |family: &Family| Xt::Reject(*family).info() == info;
                Xt::Reject(Family::BOTH.into_iter().find(is_known)?)
            }
            _ => return None,
        };
        // Whatever else it asks for is not known here.
        (known.info() == info).then_some(known)
    }

    /// Once in how many times it goes on.
    pub(crate) fn once_in_how_many(&self) -> u32 {
        match self {
            Xt::Statistic(probability) => {
                (f64::from(CERTAIN) / f64::from((*probability).max(1))).round() as u32
            }
            _ => 1,
        }
    }

    /// The protocol that a rule must name to the kernel besides matching it (`NFTA_RULE_COMPAT_PROTO`).
    pub(crate) fn protocol(&self) -> Option<u8> {
        match self {
            Xt::Transport(protocol, _) => Some(*protocol),
            _ => None,
        }
    }

    fn is_target(&self) -> bool {
        matches!(self, Xt::Mark { .. } | Xt::Masquerade(_) | Xt::Dnat(_) | Xt::Reject(_))
    }

    fn name(&self) -> (&'static str, u32) {
        match self {
            Xt::Comment(_) => ("comment", 0),
            Xt::Statistic(_) => ("statistic", 0),
            Xt::SourceIsLocal | Xt::DestinationIsLocal => ("addrtype", 1),
            Xt::Recent(..) | Xt::Remember(..) => ("recent", 1),
            Xt::Transport(TCP, _) => ("tcp", 0),
            Xt::Transport(UDP, _) => ("udp", 0),
            Xt::Transport(..) => ("sctp", 0),
            Xt::Mark { .. } => ("MARK", 2),
            Xt::Masquerade(_) => ("MASQUERADE", 0),
            Xt::Dnat(_) => ("DNAT", 2),
            Xt::Reject(_) => ("REJECT", 0),
        }
    }

    fn info(&self) -> Vec<u8> {
        let mut info = Info(Vec::new());
        match self {
            // struct xt_comment_info
            Xt::Comment(comment) => info.text(comment, COMMENT),
            // struct xt_statistic_info: mode, flags, probability, two more numbers, a pointer
            Xt::Statistic(probability) => info.u32(0).u32(*probability).zero(16),
            // struct xt_addrtype_info_v1: source, destination, flags
            Xt::SourceIsLocal => info.u16(LOCAL).u16(0).u32(0),
            Xt::DestinationIsLocal => info.u16(0).u16(LOCAL).u32(0),
            Xt::Recent(_, list, seconds) => info.recent(*seconds, CHECK | REAP, list),
            Xt::Remember(_, list) => info.recent(0, SET, list),
            Xt::Transport(SCTP, port) => info.sctp(*port),
            Xt::Transport(protocol, port) => info.ports(*protocol, *port),
            // struct xt_mark_tginfo2
            Xt::Mark { value, mask } => info.u32(*value).u32(*mask),
            // struct nf_nat_ipv4_multi_range_compat: how many, flags, addresses, ports
            Xt::Masquerade(Family::Ip) => info.u32(1).u32(FULLY_RANDOM).zero(12),
            // struct nf_nat_range: flags, addresses, ports
            Xt::Masquerade(Family::Ip6) => info.u32(FULLY_RANDOM).zero(36),
            Xt::Dnat(to) => info.destination(*to),
            // IPT_ICMP_PORT_UNREACHABLE, IP6T_ICMP6_PORT_UNREACH
            Xt::Reject(Family::Ip) => info.u32(3),
            Xt::Reject(Family::Ip6) => info.u32(4),
        };
        info.0.resize(info.0.len().next_multiple_of(ALIGNMENT), 0);
        info.0
    }
}

/// One match or target, with its structure.
pub(super) fn write_info(kind: &str, name: &str, revision: u32, info: &[u8], writer: &mut Writer<'_>) {
    expression(kind, writer, |data| {
        data.string(1, name);
        data.u32(2, revision);
        data.bytes(3, info);
    });
}

/// A structure that is being filled, in the machine's byte order.
struct Info(Vec<u8>);

impl Info {
    fn u8(&mut self, number: u8) -> &mut Info {
        self.0.push(number);
        self
    }

    fn u16(&mut self, number: u16) -> &mut Info {
        self.0.extend(number.to_ne_bytes());
        self
    }

    fn u32(&mut self, number: u32) -> &mut Info {
        self.0.extend(number.to_ne_bytes());
        self
    }

    fn zero(&mut self, bytes: usize) -> &mut Info {
        self.0.resize(self.0.len() + bytes, 0);
        self
    }

    /// A string in a field of that length, which holds its end too.
    fn text(&mut self, text: &str, length: usize) -> &mut Info {
        let end = self.0.len() + length;
        self.0.extend(text.bytes().take(length - 1));
        self.0.resize(end, 0);
        self
    }

    /// `struct xt_recent_mtinfo_v1`: seconds, hits, what to do, inverted, the list, which address, its mask.
    fn recent(&mut self, seconds: u32, what: u8, list: &str) -> &mut Info {
        self.u32(seconds).u32(0).u8(what).u8(0).text(list, LIST_NAME).u16(0);
        self.0.resize(self.0.len() + 16, 0xff);
        self
    }

    /// `struct xt_tcp` and `struct xt_udp`: source ports, destination ports, options.
    fn ports(&mut self, protocol: u8, port: Option<u16>) -> &mut Info {
        let (from, to) = port.map_or((0, u16::MAX), |port| (port, port));
        self.u16(0).u16(u16::MAX).u16(from).u16(to).zero(if protocol == TCP { 4 } else { 2 })
    }

    /// `struct xt_sctp_info`: destination ports, source ports, chunks, flags of four chunks, how many, what
    /// is asked for.
    fn sctp(&mut self, port: Option<u16>) -> &mut Info {
        let number = port.unwrap_or_default();
        self.u16(number).u16(number).u32(0).zero(260);
        for _ in 0..4 {
            self.u8(u8::MAX).zero(2);
        }
        self.u32(0).u32(if port.is_some() { SCTP_DPORT } else { 0 }).u32(0)
    }

    /// `struct nf_nat_range2`: flags, addresses from and to, ports from and to and base.
    fn destination(&mut self, to: SocketAddr) -> &mut Info {
        self.u32(ADDRESS_AND_PORT);
        let mut address = match to.ip() {
            IpAddr::V4(address) => address.octets().to_vec(),
            IpAddr::V6(address) => address.octets().to_vec(),
        };
        address.resize(16, 0);
        let port = to.port().to_be_bytes();
        self.0.extend([&address[..], &address, &port, &port].concat());
        self.zero(2)
    }
}

fn u16_at(info: &[u8], at: usize) -> Option<u16> {
    info.get(at..)?.first_chunk().map(|bytes| u16::from_ne_bytes(*bytes))
}

fn u32_at(info: &[u8], at: usize) -> Option<u32> {
    info.get(at..)?.first_chunk().map(|bytes| u32::from_ne_bytes(*bytes))
}

/// The string at the beginning of a field.
pub(super) fn text(field: &[u8]) -> Name {
    String::from_utf8_lossy(field.split(|byte| *byte == 0).next().unwrap_or_default()).into()
}

/// Which family's address it is the structure does not say; one of IPv4 leaves the rest of its field empty.
fn destination(info: &[u8]) -> Option<Xt> {
    let port = u16::from_be_bytes(*info.get(36..)?.first_chunk()?);
    let octets: [u8; 16] = *info.get(4..)?.first_chunk()?;
    let address = match octets {
        [a, b, c, d, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0] => IpAddr::from([a, b, c, d]),
        octets => IpAddr::from(octets),
    };
    Some(Xt::Dnat(SocketAddr::new(address, port)))
}

/// As `iptables -S` prints it.
impl fmt::Display for Xt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let recent = |f: &mut fmt::Formatter<'_>, what: &str, family: &Family, list: &Name| {
            let mask: IpAddr = match family {
                Family::Ip => Ipv4Addr::BROADCAST.into(),
                Family::Ip6 => Ipv6Addr::from([u8::MAX; 16]).into(),
            };
            write!(f, "-m recent {what} --name {list} --mask {mask} --rsource")
        };
        match self {
            Xt::Comment(comment) => write!(f, "-m comment --comment \"{comment}\""),
            Xt::Statistic(probability) => {
                let part = f64::from(*probability) / f64::from(CERTAIN);
                write!(f, "-m statistic --mode random --probability {part:.11}")
            }
            Xt::SourceIsLocal => f.write_str("-m addrtype --src-type LOCAL"),
            Xt::DestinationIsLocal => f.write_str("-m addrtype --dst-type LOCAL"),
            Xt::Recent(family, list, seconds) => {
                recent(f, &format!("--rcheck --seconds {seconds} --reap"), family, list)
            }
            Xt::Remember(family, list) => recent(f, "--set", family, list),
            Xt::Transport(_, None) => write!(f, "-m {}", self.name().0),
            Xt::Transport(_, Some(port)) => write!(f, "-m {} --dport {port}", self.name().0),
            Xt::Mark { value, mask } => write!(f, "-j MARK --set-xmark {value:#x}/{mask:#x}"),
            Xt::Masquerade(_) => f.write_str("-j MASQUERADE --random-fully"),
            Xt::Dnat(to) => write!(f, "-j DNAT --to-destination {to}"),
            Xt::Reject(Family::Ip) => f.write_str("-j REJECT --reject-with icmp-port-unreachable"),
            Xt::Reject(Family::Ip6) => f.write_str("-j REJECT --reject-with icmp6-port-unreachable"),
        }
    }
}
