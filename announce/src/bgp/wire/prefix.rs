//! Prefixes and families on the wire (RFC 4271 section 4.3, RFC 4760 section 5).

use std::net::IpAddr;

use weft_types::{Family, IpNetwork};

use super::reader::Reader;

/// Unicast, the one kind of route that is spoken of here.
pub(super) const SAFI_UNICAST: u8 = 1;

/// The number of a family (AFI).
pub(super) fn afi(family: Family) -> u16 {
    match family {
        Family::V4 => 1,
        Family::V6 => 2,
    }
}

/// The family of that number.
pub(super) fn family(afi: u16) -> Option<Family> {
    match afi {
        1 => Some(Family::V4),
        2 => Some(Family::V6),
        _ => None,
    }
}

/// Appends a prefix: its length in bits, and as many bytes as that takes.
pub(super) fn encode(prefix: IpNetwork, bytes: &mut Vec<u8>) {
    let length = usize::from(prefix.prefix()).div_ceil(8);
    bytes.push(prefix.prefix());
    match prefix.network() {
        IpAddr::V4(address) => bytes.extend(&address.octets()[..length]),
        IpAddr::V6(address) => bytes.extend(&address.octets()[..length]),
    }
}

/// All prefixes of a field; none where it does not end with one, or a length is beyond the family's. Bits
/// beyond the length say nothing.
pub(super) fn decode(field: &[u8], family: Family) -> Option<Vec<IpNetwork>> {
    let mut reader = Reader(field);
    let mut prefixes = Vec::new();
    while !reader.is_empty() {
        let length = reader.u8().filter(|&length| length <= family.bits())?;
        let front = reader.take(usize::from(length).div_ceil(8))?;
        let address: IpAddr = match family {
            Family::V4 => padded::<4>(front).into(),
            Family::V6 => padded::<16>(front).into(),
        };
        let prefix = IpNetwork::new(address, length).ok()?;
        prefixes.push(IpNetwork::new(prefix.network(), length).ok()?);
    }
    Some(prefixes)
}

fn padded<const N: usize>(front: &[u8]) -> [u8; N] {
    let mut whole = [0; N];
    whole[..front.len()].copy_from_slice(front);
    whole
}
