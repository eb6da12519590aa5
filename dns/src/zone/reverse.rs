//! From an address to its names (S2.3.3, S2.4.3), and from a name under `in-addr.arpa` or `ip6.arpa` to the
//! address that it asks for.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use super::Branch;
use crate::name::QueryName;

/// How good a name is for an address. Only the best ones are answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Rank {
    /// The Service's own address.
    ClusterIp,
    /// The hostname that the endpoint's pod asked for.
    Hostname,
    /// The name made of the endpoint's address.
    Dashed,
}

/// An address that has a name in a branch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Named {
    pub(super) address: IpAddr,
    pub(super) rank: Rank,
    /// The labels left of the Service's name, in wire form; none for the Service itself.
    pub(super) label: Box<[u8]>,
}

/// One name of an address.
#[derive(Debug)]
pub struct Pointer {
    address: IpAddr,
    rank: Rank,
    branch: Arc<Branch>,
    place: u32,
}

impl Pointer {
    /// The name without `svc.<zone>`: the labels left of the Service's name, and `<service>.<namespace>`.
    pub fn name(&self) -> [&[u8]; 2] {
        [&self.branch.named()[self.place as usize].label, self.branch.key()]
    }
}

/// All addresses with names, in their order.
#[derive(Debug, Default)]
pub(super) struct ReverseTable(Box<[Pointer]>);

impl ReverseTable {
    pub(super) fn new<'b>(branches: impl Iterator<Item = &'b Arc<Branch>>) -> ReverseTable {
        let mut pointers: Vec<Pointer> = branches.flat_map(pointers_of).collect();
        pointers.sort_unstable_by(|a, b| {
            (a.address, a.rank).cmp(&(b.address, b.rank)).then_with(|| a.name().cmp(&b.name()))
        });
        let mut best: Option<(IpAddr, Rank)> = None;
        pointers.retain(|pointer| {
            let (address, rank) = *best.get_or_insert((pointer.address, pointer.rank));
            if address != pointer.address {
                best = Some((pointer.address, pointer.rank));
                return true;
            }
            rank == pointer.rank
        });
        pointers.dedup_by(|a, b| a.address == b.address && a.name() == b.name());
        ReverseTable(pointers.into())
    }

    pub(super) fn of(&self, address: IpAddr) -> &[Pointer] {
        let start = self.0.partition_point(|pointer| pointer.address < address);
        let count = self.0[start..].iter().take_while(|pointer| pointer.address == address).count();
        &self.0[start..start + count]
    }

    pub(super) fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.0.iter().map(|pointer| pointer.address)
    }
}

fn pointers_of(branch: &Arc<Branch>) -> impl Iterator<Item = Pointer> {
    branch.named().iter().zip(0..).map(|(named, place)| Pointer {
        address: named.address,
        rank: named.rank,
        branch: branch.clone(),
        place,
    })
}

/// The address that a name under `in-addr.arpa` (RFC 1035 section 3.5) or `ip6.arpa` (RFC 3596 section 2.5) asks
/// for; none for other names, and for those of a whole network.
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
    use crate::name::wire_name;

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
