//! OPEN: who somebody is and what he can do (RFC 4271 section 4.2, RFC 5492).

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use weft_types::Family;

use super::notification::Notification;
use super::prefix::{SAFI_UNICAST, afi, family};
use super::reader::Reader;

/// What stands in for an AS number of four bytes where there is room for two (RFC 6793).
pub const AS_TRANS: u16 = 23456;

/// `BGP-4`
const VERSION: u8 = 4;
/// `Capabilities` (RFC 5492 section 4)
const CAPABILITIES: u8 = 2;
/// Where length and type of the parameters say that lengths take two bytes (RFC 9072).
const EXTENDED: u8 = 255;

/// Multiprotocol (RFC 4760 section 8)
const MULTIPROTOCOL: u8 = 1;
/// Route refresh (RFC 2918)
const ROUTE_REFRESH: u8 = 2;
/// Extended next hop encoding (RFC 8950)
const EXTENDED_NEXT_HOP: u8 = 5;
/// Graceful restart (RFC 4724)
const GRACEFUL_RESTART: u8 = 64;
/// AS numbers of four bytes (RFC 6793)
const FOUR_OCTET_AS: u8 = 65;
/// Enhanced route refresh (RFC 7313)
const ENHANCED_REFRESH: u8 = 70;

/// Of the flags of graceful restart: I restarted (RFC 4724 section 3).
const RESTARTING: u16 = 0x8000;
/// Of the flags of a family: packets were forwarded all the while.
const FORWARDING: u8 = 0x80;
/// The longest restart time, in seconds: it has twelve bits.
const LONGEST_RESTART: u16 = 0x0fff;

/// The first message of each end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Open {
    /// The sender's AS number; all four bytes where it can do that.
    pub asn: u32,
    /// After how many seconds of silence the sender gives the session up; 0 for never.
    pub hold_time: u16,
    /// The sender's BGP identifier.
    pub router_id: Ipv4Addr,
    /// What the sender can do.
    pub capabilities: Capabilities,
}

/// What an end can do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Capabilities {
    /// The families of unicast routes. Without any, the sender speaks of IPv4 alone.
    pub families: BTreeSet<Family>,
    /// It sends its routes again when asked.
    pub route_refresh: bool,
    /// It tells where a refresh begins and ends.
    pub enhanced_refresh: bool,
    /// It takes IPv4 routes by IPv6 next hops.
    pub extended_next_hop: bool,
    /// It writes AS numbers in four bytes.
    pub four_octet_as: bool,
    /// Its routes may be kept while it restarts.
    pub graceful_restart: Option<GracefulRestart>,
}

/// How somebody restarts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GracefulRestart {
    /// It just did.
    pub restarting: bool,
    /// How many seconds it takes at the most, at most 4095.
    pub seconds: u16,
    /// The families whose routes are kept, and whether packets were forwarded all the while.
    pub families: BTreeMap<Family, bool>,
}

impl Open {
    /// The body of the message.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut body = vec![VERSION];
        body.extend(u16::try_from(self.asn).unwrap_or(AS_TRANS).to_be_bytes());
        body.extend(self.hold_time.to_be_bytes());
        body.extend(self.router_id.octets());
        let capabilities = self.capabilities.encode(self.asn);
        // Of all the capabilities here there are fewer than 100 bytes.
        let length = u8::try_from(capabilities.len()).unwrap_or(u8::MAX);
        match length {
            0 => body.push(0),
            length => body.extend([length + 2, CAPABILITIES, length]),
        }
        body.extend(capabilities);
        body
    }

    /// From the body of a message.
    ///
    /// # Errors
    /// What to tell the sender.
    pub(super) fn decode(body: &[u8]) -> Result<Open, Notification> {
        let mut reader = Reader(body);
        let malformed = || Notification::MALFORMED_OPEN;
        if reader.u8().ok_or_else(malformed)? != VERSION {
            return Err(Notification::bad_version());
        }
        let asn = reader.u16().ok_or_else(malformed)?;
        let hold_time = reader.u16().ok_or_else(malformed)?;
        let router_id = Ipv4Addr::from(reader.array::<4>().ok_or_else(malformed)?);
        let parameters = parameters(reader).ok_or_else(malformed)?;
        let (capabilities, long_asn) = Capabilities::decode(&parameters)?;
        let open = Open { asn: long_asn.unwrap_or(asn.into()), hold_time, router_id, capabilities };
        match open {
            // RFC 6286 section 2.2
            Open { router_id: Ipv4Addr::UNSPECIFIED, .. } => Err(Notification::BAD_IDENTIFIER),
            Open { hold_time: 1 | 2, .. } => Err(Notification::BAD_HOLD_TIME),
            // RFC 7607
            Open { asn: 0, .. } => Err(Notification::BAD_PEER_AS),
            open => Ok(open),
        }
    }
}

/// The parameters behind the fixed part, each with its type.
fn parameters(mut reader: Reader<'_>) -> Option<Vec<(u8, &[u8])>> {
    let length = reader.u8()?;
    let is_extended = length == EXTENDED && reader.0.first() == Some(&EXTENDED);
    let length = match is_extended {
        true => {
            reader.u8()?;
            reader.u16()?.into()
        }
        false => usize::from(length),
    };
    let mut list = Reader(reader.take(length)?);
    if !reader.is_empty() {
        return None;
    }
    let mut parameters = Vec::new();
    while !list.is_empty() {
        let kind = list.u8()?;
        let length = if is_extended { list.u16()?.into() } else { usize::from(list.u8()?) };
        parameters.push((kind, list.take(length)?));
    }
    Some(parameters)
}

impl Capabilities {
    fn encode(&self, asn: u32) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut add = |code: u8, value: &[u8]| {
            bytes.extend([code, u8::try_from(value.len()).unwrap_or(u8::MAX)]);
            bytes.extend(value);
        };
        for &family in &self.families {
            let [high, low] = afi(family).to_be_bytes();
            add(MULTIPROTOCOL, &[high, low, 0, SAFI_UNICAST]);
        }
        if self.route_refresh {
            add(ROUTE_REFRESH, &[]);
        }
        if self.extended_next_hop {
            // IPv4 unicast (AFI and SAFI of two bytes each) by next hops of AFI 2.
            add(EXTENDED_NEXT_HOP, &[0, 1, 0, SAFI_UNICAST, 0, 2]);
        }
        if let Some(GracefulRestart { restarting, seconds, families }) = &self.graceful_restart {
            let flags = if *restarting { RESTARTING } else { 0 };
            let mut value = (flags | (*seconds).min(LONGEST_RESTART)).to_be_bytes().to_vec();
            for (&family, &forwarding) in families {
                value.extend(afi(family).to_be_bytes());
                value.extend([SAFI_UNICAST, if forwarding { FORWARDING } else { 0 }]);
            }
            add(GRACEFUL_RESTART, &value);
        }
        if self.four_octet_as {
            add(FOUR_OCTET_AS, &asn.to_be_bytes());
        }
        if self.enhanced_refresh {
            add(ENHANCED_REFRESH, &[]);
        }
        bytes
    }

    /// Also the AS number of four bytes, where there is one. A capability that is unknown, or longer or
    /// shorter than its value, is left out (RFC 5492 section 4, RFC 7606 asks for no more).
    fn decode(parameters: &[(u8, &[u8])]) -> Result<(Capabilities, Option<u32>), Notification> {
        let mut found = Capabilities::default();
        let mut asn = None;
        for &(kind, value) in parameters {
            if kind != CAPABILITIES {
                return Err(Notification::bad_parameter());
            }
            let mut list = Reader(value);
            while !list.is_empty() {
                let (code, value) = capability(&mut list).ok_or(Notification::MALFORMED_OPEN)?;
                match (code, value.len()) {
                    (MULTIPROTOCOL, 4) => found.families.extend(unicast(value[0], value[1], value[3])),
                    (ROUTE_REFRESH, 0) => found.route_refresh = true,
                    (ENHANCED_REFRESH, 0) => found.enhanced_refresh = true,
                    (EXTENDED_NEXT_HOP, _) => {
                        found.extended_next_hop |=
                            value.chunks(6).any(|it| it == [0, 1, 0, SAFI_UNICAST, 0, 2]);
                    }
                    (FOUR_OCTET_AS, 4) => {
                        found.four_octet_as = true;
                        asn = Reader(value).u32();
                    }
                    (GRACEFUL_RESTART, _) => found.graceful_restart = graceful_restart(value),
                    _ => {}
                }
            }
        }
        Ok((found, asn))
    }
}

fn capability<'a>(list: &mut Reader<'a>) -> Option<(u8, &'a [u8])> {
    let (code, length) = (list.u8()?, list.u8()?);
    Some((code, list.take(length.into())?))
}

fn unicast(high: u8, low: u8, safi: u8) -> Option<Family> {
    family(u16::from_be_bytes([high, low])).filter(|_| safi == SAFI_UNICAST)
}

fn graceful_restart(value: &[u8]) -> Option<GracefulRestart> {
    let mut reader = Reader(value);
    let first = reader.u16()?;
    let families = reader.0.chunks_exact(4).filter_map(|it| {
        let family = unicast(it[0], it[1], it[2])?;
        Some((family, it[3] & FORWARDING != 0))
    });
    Some(GracefulRestart {
        restarting: first & RESTARTING != 0,
        seconds: first & LONGEST_RESTART,
        families: families.collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_capabilities_come_back() {
        let both: BTreeSet<Family> = Family::BOTH.into();
        let restart = GracefulRestart {
            restarting: true,
            seconds: 120,
            families: [(Family::V4, true), (Family::V6, false)].into(),
        };
        let capabilities = Capabilities {
            families: both,
            route_refresh: true,
            enhanced_refresh: true,
            extended_next_hop: true,
            four_octet_as: true,
            graceful_restart: Some(restart),
        };
        let router_id = Ipv4Addr::new(10, 0, 0, 1);
        let open = Open { asn: 4_200_000_001, hold_time: 90, router_id, capabilities };
        let body = open.encode();
        assert_eq!(body[1..3], AS_TRANS.to_be_bytes());
        assert_eq!(Open::decode(&body), Ok(open));
    }

    #[test]
    fn an_open_that_cannot_be_accepted_is_answered_by_its_reason() {
        let open = |version: u8, asn: u16, hold: u16, id: [u8; 4], rest: &[u8]| {
            let body = [&[version][..], &asn.to_be_bytes(), &hold.to_be_bytes(), &id, rest].concat();
            Open::decode(&body).map_err(|why| (why.code, why.subcode))
        };
        let id = [10, 0, 0, 1];
        assert!(open(4, 65000, 90, id, &[0]).is_ok());
        assert_eq!(open(3, 65000, 90, id, &[0]), Err((2, 1)));
        assert_eq!(open(4, 0, 90, id, &[0]), Err((2, 2)));
        assert_eq!(open(4, 65000, 90, [0; 4], &[0]), Err((2, 3)));
        assert_eq!(open(4, 65000, 90, id, &[3, 1, 1, 0]), Err((2, 4)), "authentication is no more");
        assert_eq!(open(4, 65000, 2, id, &[0]), Err((2, 6)));
        assert_eq!(open(4, 65000, 90, id, &[5, 2, 1]), Err((2, 0)), "a length beyond the end");
        assert_eq!(open(4, 65000, 90, id, &[0, 7]), Err((2, 0)), "bytes behind the end");
        let unknown = open(4, 65000, 90, id, &[6, 2, 4, 199, 2, 1, 2]).unwrap();
        assert_eq!(unknown.capabilities, Capabilities::default(), "what is unknown is left out");
        let extended = [255, 255, 0, 9, 2, 0, 6, 65, 4, 0, 1, 0, 0];
        assert_eq!(open(4, 65000, 90, id, &extended).unwrap().asn, 65536, "RFC 9072");
    }
}
