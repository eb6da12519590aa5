//! What is said of a route: path attributes (RFC 4271 section 5, RFC 1997, RFC 4456, RFC 6793, RFC 8092).

use std::fmt;
use std::net::Ipv4Addr;
use std::num::ParseIntError;
use std::str::FromStr;

use super::open::AS_TRANS;
use super::reader::Reader;

/// The attribute's number.
pub(super) mod kind {
    pub(crate) const ORIGIN: u8 = 1;
    pub(crate) const AS_PATH: u8 = 2;
    pub(crate) const NEXT_HOP: u8 = 3;
    pub(crate) const MED: u8 = 4;
    pub(crate) const LOCAL_PREF: u8 = 5;
    pub(crate) const ATOMIC_AGGREGATE: u8 = 6;
    pub(crate) const AGGREGATOR: u8 = 7;
    pub(crate) const COMMUNITIES: u8 = 8;
    pub(crate) const ORIGINATOR_ID: u8 = 9;
    pub(crate) const CLUSTER_LIST: u8 = 10;
    pub(crate) const MP_REACH: u8 = 14;
    pub(crate) const MP_UNREACH: u8 = 15;
    pub(crate) const AS4_PATH: u8 = 17;
    pub(crate) const AS4_AGGREGATOR: u8 = 18;
    pub(crate) const LARGE_COMMUNITIES: u8 = 32;
}

/// Of an attribute's flags: not everybody needs to know it.
pub(super) const OPTIONAL: u8 = 0x80;
/// Of an attribute's flags: it is passed on.
pub(super) const TRANSITIVE: u8 = 0x40;
/// Of an attribute's flags: its length takes two bytes.
pub(super) const EXTENDED_LENGTH: u8 = 0x10;

/// `AS_SET`
const SET: u8 = 1;
/// `AS_SEQUENCE`
const SEQUENCE: u8 = 2;
/// The most AS numbers of one segment.
const LONGEST_SEGMENT: usize = 255;

/// Where a route comes from, the best first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// From within the AS that made it.
    #[default]
    Igp,
    /// From EGP, which is no more.
    Egp,
    /// From somewhere else.
    Incomplete,
}

/// A part of the path.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Segment {
    /// These systems, the last to pass it on first.
    Sequence(Vec<u32>),
    /// These systems in no order, of which the path has but one.
    Set(Vec<u32>),
}

/// A community (RFC 1997), written as two halves: `65000:100`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Community(pub u32);

/// A large community (RFC 8092), written as its three numbers: `65000:1:2`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LargeCommunity(pub [u32; 3]);

/// What is said of a route, but for its next hop.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Attributes {
    /// Where it comes from.
    pub origin: Origin,
    /// The autonomous systems that it passed.
    pub as_path: Vec<Segment>,
    /// Which of several ways into one neighbouring system is preferred: the lowest.
    pub med: Option<u32>,
    /// Which of several ways is preferred within a system: the highest.
    pub local_pref: Option<u32>,
    /// Marks that others act upon.
    pub communities: Vec<Community>,
    /// The same, with room for systems of four bytes.
    pub large_communities: Vec<LargeCommunity>,
    /// Who brought it into the system, where a route reflector passed it on.
    pub originator_id: Option<Ipv4Addr>,
    /// The route reflectors that it passed.
    pub cluster_list: Vec<Ipv4Addr>,
}

impl Attributes {
    /// How many systems it passed (RFC 4271 section 9.1.2.2 a): a set counts as one.
    pub fn path_length(&self) -> usize {
        self.as_path.iter().map(Segment::length).sum()
    }

    /// Whether it passed that system.
    pub fn passed(&self, asn: u32) -> bool {
        self.as_path.iter().any(|segment| segment.systems().contains(&asn))
    }

    /// All attributes on the wire, in the order of their numbers. `next_hop` is the one of IPv4 routes that
    /// stand at the end of the message.
    pub(super) fn encode(&self, next_hop: Option<Ipv4Addr>, four_octet_as: bool) -> Vec<u8> {
        let mut bytes = Vec::new();
        attribute(&mut bytes, TRANSITIVE, kind::ORIGIN, &[self.origin as u8]);
        let path = encode_path(&self.as_path, four_octet_as);
        attribute(&mut bytes, TRANSITIVE, kind::AS_PATH, &path);
        if let Some(next_hop) = next_hop {
            attribute(&mut bytes, TRANSITIVE, kind::NEXT_HOP, &next_hop.octets());
        }
        if let Some(med) = self.med {
            attribute(&mut bytes, OPTIONAL, kind::MED, &med.to_be_bytes());
        }
        if let Some(local_pref) = self.local_pref {
            attribute(&mut bytes, TRANSITIVE, kind::LOCAL_PREF, &local_pref.to_be_bytes());
        }
        if !self.communities.is_empty() {
            let value: Vec<u8> = self.communities.iter().flat_map(|it| it.0.to_be_bytes()).collect();
            attribute(&mut bytes, OPTIONAL | TRANSITIVE, kind::COMMUNITIES, &value);
        }
        if let Some(originator) = self.originator_id {
            attribute(&mut bytes, OPTIONAL, kind::ORIGINATOR_ID, &originator.octets());
        }
        if !self.cluster_list.is_empty() {
            let value: Vec<u8> = self.cluster_list.iter().flat_map(Ipv4Addr::octets).collect();
            attribute(&mut bytes, OPTIONAL, kind::CLUSTER_LIST, &value);
        }
        let is_long = |segment: &Segment| segment.systems().iter().any(|&asn| u16::try_from(asn).is_err());
        if !four_octet_as && self.as_path.iter().any(is_long) {
            let value = encode_path(&self.as_path, true);
            attribute(&mut bytes, OPTIONAL | TRANSITIVE, kind::AS4_PATH, &value);
        }
        if !self.large_communities.is_empty() {
            let numbers = self.large_communities.iter().flat_map(|it| it.0);
            let value: Vec<u8> = numbers.flat_map(u32::to_be_bytes).collect();
            attribute(&mut bytes, OPTIONAL | TRANSITIVE, kind::LARGE_COMMUNITIES, &value);
        }
        bytes
    }
}

/// Appends an attribute.
pub(super) fn attribute(bytes: &mut Vec<u8>, flags: u8, kind: u8, value: &[u8]) {
    match u8::try_from(value.len()) {
        Ok(length) => bytes.extend([flags, kind, length]),
        Err(_) => {
            bytes.extend([flags | EXTENDED_LENGTH, kind]);
            bytes.extend(u16::try_from(value.len()).unwrap_or(u16::MAX).to_be_bytes());
        }
    }
    bytes.extend(value);
}

impl Segment {
    /// The systems of it.
    pub fn systems(&self) -> &[u32] {
        match self {
            Segment::Sequence(systems) | Segment::Set(systems) => systems,
        }
    }

    fn length(&self) -> usize {
        match self {
            Segment::Sequence(systems) => systems.len(),
            Segment::Set(_) => 1,
        }
    }
}

fn encode_path(path: &[Segment], four_octet_as: bool) -> Vec<u8> {
    let mut bytes = Vec::new();
    for segment in path {
        let kind = if matches!(segment, Segment::Set(_)) { SET } else { SEQUENCE };
        for systems in segment.systems().chunks(LONGEST_SEGMENT) {
            bytes.extend([kind, u8::try_from(systems.len()).unwrap_or(u8::MAX)]);
            for &asn in systems {
                match four_octet_as {
                    true => bytes.extend(asn.to_be_bytes()),
                    false => bytes.extend(u16::try_from(asn).unwrap_or(AS_TRANS).to_be_bytes()),
                }
            }
        }
    }
    bytes
}

/// The segments of a path; none where a segment is of an unknown kind, empty, or longer than the attribute
/// (RFC 7606 section 7.2).
pub(super) fn decode_path(value: &[u8], four_octet_as: bool) -> Option<Vec<Segment>> {
    let mut reader = Reader(value);
    let mut path = Vec::new();
    while !reader.is_empty() {
        let (kind, length) = (reader.u8()?, reader.u8().filter(|&length| length > 0)?);
        let systems: Option<Vec<u32>> = (0..length)
            .map(|_| if four_octet_as { reader.u32() } else { reader.u16().map(u32::from) })
            .collect();
        path.push(match kind {
            SET => Segment::Set(systems?),
            SEQUENCE => Segment::Sequence(systems?),
            // Those of confederations do not leave one (RFC 5065 section 5).
            _ => return None,
        });
    }
    Some(path)
}

/// The path of somebody who writes AS numbers in two bytes, with what AS4_PATH knows of its far end
/// (RFC 6793 section 4.2.3).
pub(super) fn merge_paths(path: Vec<Segment>, long: Vec<Segment>) -> Vec<Segment> {
    let length = |path: &[Segment]| path.iter().map(Segment::length).sum::<usize>();
    let Some(mut lead) = length(&path).checked_sub(length(&long)) else { return path };
    let mut merged = Vec::new();
    for segment in path {
        if lead == 0 {
            break;
        }
        match segment {
            Segment::Sequence(mut systems) => {
                systems.truncate(lead);
                lead -= systems.len();
                merged.push(Segment::Sequence(systems));
            }
            set => {
                lead -= 1;
                merged.push(set);
            }
        }
    }
    for segment in long {
        match (merged.last_mut(), segment) {
            (Some(Segment::Sequence(front)), Segment::Sequence(rest)) => front.extend(rest),
            (_, segment) => merged.push(segment),
        }
    }
    merged
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Origin::Igp => "IGP",
            Origin::Egp => "EGP",
            Origin::Incomplete => "incomplete",
        })
    }
}

impl fmt::Display for Segment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text: Vec<String> = self.systems().iter().map(u32::to_string).collect();
        match self {
            Segment::Sequence(_) => f.write_str(&text.join(" ")),
            Segment::Set(_) => write!(f, "{{{}}}", text.join(",")),
        }
    }
}

impl fmt::Display for Community {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.0 >> 16, self.0 & 0xffff)
    }
}

impl fmt::Display for LargeCommunity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [administrator, one, two] = self.0;
        write!(f, "{administrator}:{one}:{two}")
    }
}

impl FromStr for Community {
    type Err = String;

    fn from_str(text: &str) -> Result<Community, String> {
        // The well-known ones (RFC 1997, RFC 3765).
        match text {
            "no-export" => return Ok(Community(0xffff_ff01)),
            "no-advertise" => return Ok(Community(0xffff_ff02)),
            "no-export-subconfed" => return Ok(Community(0xffff_ff03)),
            "no-peer" => return Ok(Community(0xffff_ff04)),
            _ => {}
        }
        let numbers: Result<Vec<u16>, ParseIntError> = text.split(':').map(str::parse).collect();
        match numbers.as_deref() {
            Ok(&[one, two]) => Ok(Community(u32::from(one) << 16 | u32::from(two))),
            _ => Err(format!("{text:?} is no community: two numbers up to 65535, as in 65000:100")),
        }
    }
}

impl FromStr for LargeCommunity {
    type Err = String;

    fn from_str(text: &str) -> Result<LargeCommunity, String> {
        let numbers: Result<Vec<u32>, ParseIntError> = text.split(':').map(str::parse).collect();
        match numbers.as_deref() {
            Ok(&[one, two, three]) => Ok(LargeCommunity([one, two, three])),
            _ => Err(format!("{text:?} is no large community: three numbers, as in 65000:1:2")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn communities_are_read_as_they_are_written() {
        for text in ["65000:100", "0:0", "65535:65281"] {
            assert_eq!(text.parse::<Community>().unwrap().to_string(), text);
        }
        assert_eq!("no-export".parse::<Community>().unwrap().to_string(), "65535:65281");
        assert_eq!("4200000000:1:2".parse::<LargeCommunity>().unwrap().to_string(), "4200000000:1:2");
        for text in ["65000", "65536:1", "1:2:3", "a:b", ""] {
            assert!(text.parse::<Community>().unwrap_err().contains("is no community"), "{text}");
        }
        assert!("1:2".parse::<LargeCommunity>().is_err());
    }

    #[test]
    fn a_path_of_short_numbers_gets_its_long_ones_back() {
        let sequence = |systems: &[u32]| vec![Segment::Sequence(systems.to_vec())];
        let trans = AS_TRANS.into();
        let path = sequence(&[65001, 65002, trans, 65003]);
        let merged = merge_paths(path.clone(), sequence(&[4_200_000_001, 65003]));
        assert_eq!(merged, sequence(&[65001, 65002, 4_200_000_001, 65003]));
        let longer = sequence(&[1, 2, 3, 4, 5]);
        assert_eq!(merge_paths(path.clone(), longer), path, "one that cannot be of this path is ignored");
    }
}
