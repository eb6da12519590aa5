//! UPDATE: routes that come and go (RFC 4271 section 4.3, RFC 4760). What is wrong with attributes costs the
//! routes that have them, and not the session, as far as the routes can be told (RFC 7606).

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use weft_types::{Family, IpNetwork};

use super::attributes::{
    Attributes, Community, EXTENDED_LENGTH, LargeCommunity, OPTIONAL, Origin, Segment, TRANSITIVE, attribute,
    decode_path, kind, merge_paths,
};
use super::notification::Notification;
use super::prefix::{self, SAFI_UNICAST, afi, family};
use super::reader::Reader;

/// The most bytes of a message behind its header (RFC 4271 section 4).
pub(super) const LONGEST_BODY: usize = 4096 - 19;

/// How the ends of a session agreed to speak.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Dialect {
    /// AS numbers take four bytes.
    pub four_octet_as: bool,
    /// IPv4 routes may have IPv6 next hops.
    pub extended_next_hop: bool,
    /// The ends are of different systems.
    pub is_external: bool,
}

/// Routes that came and went.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Update {
    /// What is not reached this way any more. Goes before what is reached.
    pub withdrawn: Vec<IpNetwork>,
    /// What is reached, and how.
    pub reached: Vec<Reached>,
    /// What is said of all that is reached.
    pub attributes: Attributes,
    /// This is the end of all routes of that family that the sender has at first (RFC 4724 section 2).
    pub end_of_rib: Option<Family>,
    /// What was wrong with it, and not so much that the session had to end.
    pub faults: Vec<String>,
}

/// Prefixes with one next hop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reached {
    /// Where to send what is for them.
    pub next_hop: IpAddr,
    /// The same router's address on the link, where it told that too.
    pub link_local: Option<Ipv6Addr>,
    /// The prefixes, of one family.
    pub prefixes: Vec<IpNetwork>,
}

/// The bodies of the messages that announce these prefixes, all of one family, by that next hop.
pub(super) fn announce(
    next_hop: IpAddr,
    prefixes: &[IpNetwork],
    attributes: &Attributes,
    dialect: Dialect,
) -> Vec<Vec<u8>> {
    let Some(family) = prefixes.first().map(Family::of_network) else { return Vec::new() };
    if let (Family::V4, IpAddr::V4(next_hop)) = (family, next_hop) {
        let attributes = attributes.encode(Some(next_hop), dialect.four_octet_as);
        let room = LONGEST_BODY.saturating_sub(4 + attributes.len());
        return packed(prefixes, room)
            .map(|field| [&[0, 0][..], &length(&attributes), &attributes, &field].concat())
            .collect();
    }
    let attributes = attributes.encode(None, dialect.four_octet_as);
    let mut head = afi(family).to_be_bytes().to_vec();
    head.push(SAFI_UNICAST);
    match next_hop {
        IpAddr::V4(address) => head.extend([&[4][..], &address.octets(), &[0]].concat()),
        IpAddr::V6(address) => head.extend([&[16][..], &address.octets(), &[0]].concat()),
    }
    let room = LONGEST_BODY.saturating_sub(4 + attributes.len() + 4 + head.len());
    packed(prefixes, room)
        .map(|field| {
            // First of all, so that its prefixes are known whatever is wrong behind it (RFC 7606 section 5.1).
            let mut all = Vec::new();
            attribute(&mut all, OPTIONAL, kind::MP_REACH, &[&head[..], &field].concat());
            all.extend(&attributes);
            [&[0, 0][..], &length(&all), &all].concat()
        })
        .collect()
}

/// The bodies of the messages that withdraw these prefixes, all of one family.
pub(super) fn withdraw(prefixes: &[IpNetwork], dialect: Dialect) -> Vec<Vec<u8>> {
    let Some(family) = prefixes.first().map(Family::of_network) else { return Vec::new() };
    if family == Family::V4 && !dialect.extended_next_hop {
        let bodies = packed(prefixes, LONGEST_BODY - 4);
        return bodies.map(|field| [&length(&field)[..], &field, &[0, 0]].concat()).collect();
    }
    packed(prefixes, LONGEST_BODY - 4 - 4 - 3).map(|field| unreach(family, &field)).collect()
}

/// The body of the message that ends the first routes of a family (RFC 4724 section 2).
pub(super) fn end_of_rib(family: Family) -> Vec<u8> {
    match family {
        Family::V4 => vec![0; 4],
        Family::V6 => unreach(family, &[]),
    }
}

fn unreach(family: Family, field: &[u8]) -> Vec<u8> {
    let [high, low] = afi(family).to_be_bytes();
    let mut all = Vec::new();
    attribute(&mut all, OPTIONAL, kind::MP_UNREACH, &[&[high, low, SAFI_UNICAST][..], field].concat());
    [&[0, 0][..], &length(&all), &all].concat()
}

fn length(bytes: &[u8]) -> [u8; 2] {
    u16::try_from(bytes.len()).unwrap_or(u16::MAX).to_be_bytes()
}

/// Fields of as many prefixes each as there is room for. None where one does not fit: such attributes are
/// refused where they are configured.
fn packed(prefixes: &[IpNetwork], room: usize) -> impl Iterator<Item = Vec<u8>> {
    let mut rest = prefixes;
    std::iter::from_fn(move || {
        let mut field = Vec::new();
        while let Some((&first, behind)) = rest.split_first() {
            let before = field.len();
            prefix::encode(first, &mut field);
            if field.len() > room {
                field.truncate(before);
                break;
            }
            rest = behind;
        }
        (!field.is_empty()).then_some(field)
    })
}

impl Update {
    /// From the body of a message.
    ///
    /// # Errors
    /// What to tell the sender, where it cannot be known which routes it is about.
    pub(super) fn decode(body: &[u8], dialect: Dialect) -> Result<Update, Notification> {
        let mut reader = Reader(body);
        let mut field = || {
            let length = reader.u16()?;
            reader.take(length.into())
        };
        let fields = field().and_then(|withdrawn| Some((withdrawn, field()?)));
        let (withdrawn, attributes) = fields.ok_or(Notification::MALFORMED_ATTRIBUTES)?;
        let prefixes = |field| prefix::decode(field, Family::V4).ok_or(Notification::INVALID_NETWORK);
        let (withdrawn, reached) = (prefixes(withdrawn)?, prefixes(reader.rest())?);
        let mut found = Found { dialect, ..Found::default() };
        found.read(attributes)?;
        found.update(withdrawn, reached)
    }
}

/// What attributes say, as far as they were read.
#[derive(Debug, Default)]
struct Found {
    dialect: Dialect,
    attributes: Attributes,
    seen: BTreeSet<u8>,
    next_hop: Option<Ipv4Addr>,
    long_path: Option<Vec<Segment>>,
    reached: Option<Reached>,
    unreached: Option<(Family, Vec<IpNetwork>)>,
    /// The routes of this message are withdrawn.
    is_bad: bool,
    faults: Vec<String>,
}

impl Found {
    fn read(&mut self, field: &[u8]) -> Result<(), Notification> {
        let mut reader = Reader(field);
        while !reader.is_empty() {
            let whole = reader.0;
            let Some((flags, kind, value)) = next(&mut reader) else {
                // RFC 7606 section 4
                self.bad("an attribute is longer than there is room for".to_owned());
                break;
            };
            if !self.seen.insert(kind) {
                // RFC 7606 section 3 (g)
                if matches!(kind, kind::MP_REACH | kind::MP_UNREACH) {
                    return Err(Notification::MALFORMED_ATTRIBUTES);
                }
                continue;
            }
            if let Some(expected) = flags_of(kind)
                && flags & (OPTIONAL | TRANSITIVE) != expected
            {
                self.bad(format!("attribute {kind} has the flags {flags:#04x}"));
                if !matches!(kind, kind::MP_REACH | kind::MP_UNREACH) {
                    continue;
                }
            }
            match kind {
                kind::MP_REACH => self.reached = self.reach(value)?,
                kind::MP_UNREACH => self.unreached = unreached(value)?,
                _ if flags_of(kind).is_some() => self.attribute(kind, value),
                _ if flags & OPTIONAL == 0 => {
                    let length = whole.len() - reader.0.len();
                    return Err(Notification::unrecognized_attribute(&whole[..length]));
                }
                // Somebody else's, which concerns nobody here.
                _ => {}
            }
        }
        Ok(())
    }

    /// An attribute that stands for itself.
    fn attribute(&mut self, kind: u8, value: &[u8]) {
        let four = self.dialect.four_octet_as;
        let all = &mut self.attributes;
        let is_fine = match kind {
            kind::ORIGIN => origin(value).map(|origin| all.origin = origin),
            kind::AS_PATH => decode_path(value, four).map(|path| all.as_path = path),
            kind::NEXT_HOP => address(value).map(|address| self.next_hop = Some(address)),
            kind::MED => number(value).map(|number| all.med = Some(number)),
            // From another system these three say nothing (RFC 7606 sections 7.5, 7.9 and 7.10).
            kind::LOCAL_PREF | kind::ORIGINATOR_ID | kind::CLUSTER_LIST if self.dialect.is_external => {
                Some(())
            }
            kind::LOCAL_PREF => number(value).map(|number| all.local_pref = Some(number)),
            kind::ORIGINATOR_ID => address(value).map(|address| all.originator_id = Some(address)),
            kind::CLUSTER_LIST => {
                words(value).map(|ids| all.cluster_list = ids.map(Ipv4Addr::from).collect())
            }
            kind::COMMUNITIES => words(value).map(|list| all.communities = list.map(Community).collect()),
            kind::LARGE_COMMUNITIES => large(value).map(|list| all.large_communities = list),
            // Only of somebody who writes AS numbers in two bytes; where it is malformed it is left out
            // (RFC 6793 section 6).
            kind::AS4_PATH if !four => {
                self.long_path = decode_path(value, true);
                Some(())
            }
            // Nobody here asks who aggregated a route; where it is malformed it is left out (RFC 7606
            // sections 7.6 and 7.7).
            _ => Some(()),
        };
        if is_fine.is_none() {
            self.bad(format!("attribute {kind} is malformed"));
        }
    }

    fn bad(&mut self, fault: String) {
        self.is_bad = true;
        self.faults.push(fault);
    }

    /// `MP_REACH_NLRI` (RFC 4760 section 3, RFC 2545 section 3, RFC 8950). Nothing of a family that nobody
    /// here speaks of.
    fn reach(&self, value: &[u8]) -> Result<Option<Reached>, Notification> {
        let mut reader = Reader(value);
        let malformed = || Notification::MALFORMED_OPTIONAL;
        let number = reader.u16().ok_or_else(malformed)?;
        let safi = reader.u8().ok_or_else(malformed)?;
        let length = reader.u8().ok_or_else(malformed)?;
        let hop = reader.take(length.into()).ok_or_else(malformed)?;
        let reserved = reader.u8();
        let Some(family) = family(number).filter(|_| safi == SAFI_UNICAST) else { return Ok(None) };
        reserved.ok_or_else(malformed)?;
        let hop_length = hop.len();
        let mut hop = Reader(hop);
        let (next_hop, link_local) = match (family, hop_length) {
            (Family::V4, 4) => (hop.array::<4>().map(IpAddr::from), None),
            (Family::V4, 16 | 32) if !self.dialect.extended_next_hop => return Err(malformed()),
            (_, 16 | 32) => (hop.array::<16>().map(IpAddr::from), hop.array::<16>().map(Ipv6Addr::from)),
            _ => return Err(malformed()),
        };
        let prefixes = prefix::decode(reader.rest(), family).ok_or_else(malformed)?;
        Ok(next_hop.map(|next_hop| Reached { next_hop, link_local, prefixes }))
    }

    fn update(
        mut self,
        mut withdrawn: Vec<IpNetwork>,
        ahead: Vec<IpNetwork>,
    ) -> Result<Update, Notification> {
        let end_of_rib = match (&self.unreached, self.seen.len()) {
            (Some((family, gone)), 1) if gone.is_empty() && withdrawn.is_empty() && ahead.is_empty() => {
                Some(*family)
            }
            (None, 0) if withdrawn.is_empty() && ahead.is_empty() => Some(Family::V4),
            _ => None,
        };
        withdrawn.extend(self.unreached.take().into_iter().flat_map(|(_, gone)| gone));
        let mut reached: Vec<Reached> = self.reached.take().into_iter().collect();
        if !ahead.is_empty() || !reached.is_empty() {
            // RFC 7606 section 3 (d)
            for needed in [kind::ORIGIN, kind::AS_PATH] {
                if !self.seen.contains(&needed) {
                    self.bad(format!("attribute {needed} is missing"));
                }
            }
        }
        match self.next_hop {
            _ if ahead.is_empty() => {}
            Some(next_hop) => {
                reached.push(Reached { next_hop: next_hop.into(), link_local: None, prefixes: ahead });
            }
            None => {
                if !self.seen.contains(&kind::NEXT_HOP) {
                    self.bad(format!("attribute {} is missing", kind::NEXT_HOP));
                }
                withdrawn.extend(ahead);
            }
        }
        if self.is_bad && withdrawn.is_empty() && reached.iter().all(|some| some.prefixes.is_empty()) {
            // RFC 7606 section 5.2: nobody knows which routes it was about.
            return Err(Notification::MALFORMED_ATTRIBUTES);
        }
        if self.is_bad {
            withdrawn.extend(reached.drain(..).flat_map(|some| some.prefixes));
            self.attributes = Attributes::default();
        }
        if let Some(long) = self.long_path.take() {
            self.attributes.as_path = merge_paths(std::mem::take(&mut self.attributes.as_path), long);
        }
        Ok(Update { withdrawn, reached, attributes: self.attributes, end_of_rib, faults: self.faults })
    }
}

/// The next attribute: flags, kind, value.
fn next<'a>(reader: &mut Reader<'a>) -> Option<(u8, u8, &'a [u8])> {
    let (flags, kind) = (reader.u8()?, reader.u8()?);
    let length = match flags & EXTENDED_LENGTH {
        0 => usize::from(reader.u8()?),
        _ => reader.u16()?.into(),
    };
    Some((flags, kind, reader.take(length)?))
}

/// Which flags an attribute must have; none where nobody here knows it.
fn flags_of(kind: u8) -> Option<u8> {
    match kind {
        kind::ORIGIN | kind::AS_PATH | kind::NEXT_HOP | kind::LOCAL_PREF | kind::ATOMIC_AGGREGATE => {
            Some(TRANSITIVE)
        }
        kind::MED | kind::ORIGINATOR_ID | kind::CLUSTER_LIST | kind::MP_REACH | kind::MP_UNREACH => {
            Some(OPTIONAL)
        }
        kind::AGGREGATOR
        | kind::COMMUNITIES
        | kind::AS4_PATH
        | kind::AS4_AGGREGATOR
        | kind::LARGE_COMMUNITIES => Some(OPTIONAL | TRANSITIVE),
        _ => None,
    }
}

fn unreached(value: &[u8]) -> Result<Option<(Family, Vec<IpNetwork>)>, Notification> {
    let mut reader = Reader(value);
    let malformed = || Notification::MALFORMED_OPTIONAL;
    let number = reader.u16().ok_or_else(malformed)?;
    let safi = reader.u8().ok_or_else(malformed)?;
    let Some(family) = family(number).filter(|_| safi == SAFI_UNICAST) else { return Ok(None) };
    let prefixes = prefix::decode(reader.rest(), family).ok_or_else(malformed)?;
    Ok(Some((family, prefixes)))
}

fn origin(value: &[u8]) -> Option<Origin> {
    match value {
        [0] => Some(Origin::Igp),
        [1] => Some(Origin::Egp),
        [2] => Some(Origin::Incomplete),
        _ => None,
    }
}

fn number(value: &[u8]) -> Option<u32> {
    value.try_into().ok().map(u32::from_be_bytes)
}

fn address(value: &[u8]) -> Option<Ipv4Addr> {
    number(value).map(Ipv4Addr::from)
}

fn words(value: &[u8]) -> Option<impl Iterator<Item = u32>> {
    let is_whole = !value.is_empty() && value.len().is_multiple_of(4);
    is_whole.then(|| value.chunks_exact(4).filter_map(number))
}

fn large(value: &[u8]) -> Option<Vec<LargeCommunity>> {
    let is_whole = !value.is_empty() && value.len().is_multiple_of(12);
    is_whole.then(|| {
        let triples = value.chunks_exact(12).filter_map(|it| {
            let mut reader = Reader(it);
            Some(LargeCommunity([reader.u32()?, reader.u32()?, reader.u32()?]))
        });
        triples.collect()
    })
}
