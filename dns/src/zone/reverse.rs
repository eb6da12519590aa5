//! From an address to its names (S2.3.3, S2.4.3), and from a name under `in-addr.arpa` or `ip6.arpa` to the
//! address that it asks for.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use super::service_names::{Named, Rank, ServiceNames};
use crate::wire::name::QueryName;

/// One name of an address.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Pointer {
    address: IpAddr,
    rank: Rank,
    label: Box<[u8]>,
    branch: ServiceNames,
}

impl Pointer {
    fn new(Named { address, rank, label }: Named, branch: &ServiceNames) -> Pointer {
        Pointer { address, rank, label, branch: branch.clone() }
    }

    /// The name without `svc.<zone>`: the labels left of the Service's name, and `<service>.<namespace>`.
    pub fn name(&self) -> [&[u8]; 2] {
        [&self.label, self.branch.key()]
    }
}

/// How many parts the table has, of which a change copies those of its addresses.
const PARTS: usize = 256;

/// All addresses with names. A clone shares all parts, each of which is in order.
#[derive(Clone, Debug)]
pub(super) struct ReverseTable(Box<[Arc<Vec<Pointer>>]>);

impl Default for ReverseTable {
    fn default() -> ReverseTable {
        ReverseTable(vec![Arc::default(); PARTS].into())
    }
}

impl ReverseTable {
    pub(super) fn new<'b>(branches: impl Iterator<Item = &'b ServiceNames>) -> ReverseTable {
        let mut parts = vec![Vec::new(); PARTS];
        for branch in branches {
            branch.named().for_each(|named| parts[part(named.address)].push(Pointer::new(named, branch)));
        }
        let ordered = parts.into_iter().map(|mut pointers| {
            pointers.sort_unstable();
            pointers.dedup();
            pointers.shrink_to_fit();
            Arc::new(pointers)
        });
        ReverseTable(ordered.collect())
    }

    /// Forgets the names of a Service.
    pub(super) fn take(&mut self, branch: &ServiceNames) {
        for named in branch.named() {
            let (pointers, pointer) = (self.part(named.address), Pointer::new(named, branch));
            if let Ok(place) = pointers.binary_search(&pointer) {
                pointers.remove(place);
            }
        }
    }

    /// Learns the names of a Service.
    pub(super) fn put(&mut self, branch: &ServiceNames) {
        for named in branch.named() {
            let (pointers, pointer) = (self.part(named.address), Pointer::new(named, branch));
            if let Err(place) = pointers.binary_search(&pointer) {
                pointers.insert(place, pointer);
            }
        }
    }

    fn part(&mut self, address: IpAddr) -> &mut Vec<Pointer> {
        Arc::make_mut(&mut self.0[part(address)])
    }

    /// The best of the names of an address.
    pub(super) fn of(&self, address: IpAddr) -> &[Pointer] {
        let pointers = &self.0[part(address)];
        let start = pointers.partition_point(|pointer| pointer.address < address);
        let Some(best) = pointers.get(start).filter(|best| best.address == address) else { return &[] };
        let like = |pointer: &&Pointer| (pointer.address, pointer.rank) == (address, best.rank);
        let count = pointers[start..].iter().take_while(like).count();
        &pointers[start..start + count]
    }

    pub(super) fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        let all = self.0.iter().flat_map(|part| part.iter()).map(|pointer| pointer.address);
        all.collect::<BTreeSet<IpAddr>>().into_iter()
    }
}

/// The part of an address: neighbours are in different ones.
fn part(address: IpAddr) -> usize {
    let bits = match address {
        IpAddr::V4(address) => u64::from(address.to_bits()),
        IpAddr::V6(address) => (address.to_bits() >> 64) as u64 ^ address.to_bits() as u64,
    };
    // The golden ratio spreads the lowest bits over the highest.
    (bits.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as usize % PARTS
}

/// The address that a name under `in-addr.arpa` (RFC 1035 section 3.5) or `ip6.arpa` (RFC 3596 section 2.5)
/// asks for; none for other names, and for those of a whole network.
pub fn reverse_address(name: &QueryName) -> Option<IpAddr> {
    let count = name.len();
    if count < 2 || name.label(count - 1) != b"arpa" {
        return None;
    }
    match (name.label(count - 2), count - 2) {
        (b"in-addr", 4) => v4_address(name),
        (b"ip6", 32) => v6_address(name),
        _ => None,
    }
}

fn v4_address(name: &QueryName) -> Option<IpAddr> {
    let mut octets = [0; 4];
    for (place, octet) in octets.iter_mut().rev().enumerate() {
        *octet = decimal(name.label(place))?;
    }
    Some(Ipv4Addr::from(octets).into())
}

/// A number as `in-addr.arpa` has it: without leading zeros, so that each address has one name.
fn decimal(label: &[u8]) -> Option<u8> {
    let text = std::str::from_utf8(label).ok()?;
    let plain = text.bytes().all(|byte| byte.is_ascii_digit()) && (text.len() == 1 || !text.starts_with('0'));
    if plain { text.parse().ok() } else { None }
}

fn v6_address(name: &QueryName) -> Option<IpAddr> {
    let mut bits: u128 = 0;
    for place in (0..32).rev() {
        let &[nibble] = name.label(place) else { return None };
        bits = bits << 4 | u128::from(char::from(nibble).to_digit(16)?);
    }
    Some(Ipv6Addr::from(bits).into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::name::wire_name;

    fn address(name: &str) -> Option<IpAddr> {
        reverse_address(&QueryName::from_wire(&wire_name(name).unwrap()).unwrap())
    }

    #[test]
    fn reverse_names_are_read() {
        assert_eq!(address("10.0.96.10.in-addr.arpa"), Some("10.96.0.10".parse().unwrap()));
        let nibbles = "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.d.c.b.a.8.7.6.5.ip6.arpa";
        assert_eq!(address(nibbles), Some("5678:abcd::1".parse().unwrap()));
    }

    #[test]
    fn other_names_are_no_addresses() {
        let odd = [
            "0.96.10.in-addr.arpa",
            "1.10.0.96.10.in-addr.arpa",
            "010.0.96.10.in-addr.arpa",
            "+1.0.0.0.in-addr.arpa",
            "256.0.0.1.in-addr.arpa",
            "1.ip6.arpa",
            "arpa",
            "10.0.96.10.in-addr.example",
        ];
        for name in odd {
            assert_eq!(address(name), None, "{name}");
        }
    }
}
