//! Networks that overlap, cut into pieces that do not.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnetwork::IpNetwork;
use weft_types::{Family, IpBlock};

use super::features::FeatureId;

/// A piece of the address space of a family, and the blocks that it is part of, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Piece {
    pub(crate) first: IpAddr,
    pub(crate) last: IpAddr,
    pub(crate) blocks: Vec<FeatureId>,
}

/// The pieces that the blocks cut the address space into, in order, without those that are part of none.
pub(crate) fn pieces<'a>(
    family: Family,
    blocks: impl Iterator<Item = (FeatureId, &'a IpBlock)>,
) -> Vec<Piece> {
    // Where blocks begin, and where they are over.
    let mut borders: Vec<(u128, bool, FeatureId)> = Vec::new();
    for (block, it) in blocks.filter(|(_, block)| Family::of_network(&block.cidr) == family) {
        for (first, last) in intervals(it) {
            borders.push((first, true, block));
            borders.extend(last.checked_add(1).map(|after| (after, false, block)));
        }
    }
    borders.sort_unstable();
    let (mut pieces, mut inside) = (Vec::<Piece>::new(), BTreeSet::new());
    let mut rest = borders.as_slice();
    while let Some(&(at, ..)) = rest.first() {
        let here = rest.iter().take_while(|border| border.0 == at).count();
        for (_, begins, block) in &rest[..here] {
            match begins {
                true => inside.insert(*block),
                false => inside.remove(block),
            };
        }
        rest = &rest[here..];
        let last = rest.first().map_or(most(family), |next| next.0 - 1);
        if !inside.is_empty() && at <= last {
            let blocks: Vec<FeatureId> = inside.iter().copied().collect();
            match pieces.last_mut() {
                Some(before) if before.blocks == blocks && number(before.last) + 1 == at => {
                    before.last = address(family, last);
                }
                _ => pieces.push(Piece { first: address(family, at), last: address(family, last), blocks }),
            }
        }
    }
    pieces
}

/// What is left of a network without its exceptions, in order. Intervals of one block neither overlap nor
/// touch, as a border at which it ends and begins would make it end.
fn intervals(block: &IpBlock) -> Vec<(u128, u128)> {
    let family = Family::of_network(&block.cidr);
    let (first, last) = ends(&block.cidr);
    let mut except: Vec<(u128, u128)> =
        block.except.iter().filter(|it| Family::of_network(it) == family).map(ends).collect();
    except.sort_unstable();
    let (mut left, mut at) = (Vec::new(), first);
    for (begin, end) in except {
        if begin > last {
            break;
        }
        if begin > at {
            left.push((at, begin - 1));
        }
        match end.checked_add(1) {
            Some(after) => at = at.max(after),
            None => return left,
        }
    }
    if at <= last {
        left.push((at, last));
    }
    left
}

/// Whether an address is part of a block.
pub(crate) fn contains(block: &IpBlock, address: IpAddr) -> bool {
    block.cidr.contains(address) && !block.except.iter().any(|except| except.contains(address))
}

/// The first and the last address of a network.
pub(crate) fn ends(network: &IpNetwork) -> (u128, u128) {
    let family = Family::of_network(network);
    let first = number(network.network());
    let host_bits = family.bits() - network.prefix();
    let hosts = if host_bits == 128 { u128::MAX } else { (1 << host_bits) - 1 };
    (first, first | hosts)
}

fn most(family: Family) -> u128 {
    match family {
        Family::V4 => u32::MAX.into(),
        Family::V6 => u128::MAX,
    }
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => address.to_bits().into(),
        IpAddr::V6(address) => address.to_bits(),
    }
}

pub(crate) fn address(family: Family, number: u128) -> IpAddr {
    match family {
        Family::V4 => Ipv4Addr::from_bits(number as u32).into(),
        Family::V6 => Ipv6Addr::from_bits(number).into(),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test stops at the first thing that goes wrong")]
mod tests {
    use super::*;

    fn block(cidr: &str, except: &[&str]) -> IpBlock {
        let network = |text: &&str| text.parse().unwrap();
        IpBlock { cidr: network(&cidr), except: except.iter().map(network).collect() }
    }

    fn cut(family: Family, blocks: &[IpBlock]) -> Vec<String> {
        let blocks = blocks.iter().enumerate().map(|(place, block)| (place as FeatureId, block));
        let pieces = pieces(family, blocks);
        pieces.iter().map(|it| format!("{}-{} {:?}", it.first, it.last, it.blocks)).collect()
    }

    #[test]
    fn overlaps_and_exceptions_vanish() {
        let blocks = [
            block("10.0.0.0/8", &["10.1.0.0/16", "10.1.2.0/24", "192.0.2.0/24"]),
            block("10.1.0.0/24", &[]),
            block("0.0.0.0/0", &["0.0.0.0/1"]),
        ];
        let expected = [
            "10.0.0.0-10.0.255.255 [0]",
            "10.1.0.0-10.1.0.255 [1]",
            "10.2.0.0-10.255.255.255 [0]",
            "128.0.0.0-255.255.255.255 [2]",
        ];
        assert_eq!(cut(Family::V4, &blocks), expected);
    }

    #[test]
    fn the_ends_of_the_address_space_are_part_of_it() {
        let blocks = [block("::/0", &[]), block("8000::/1", &["ffff::/16"])];
        let expected = [
            "::-7fff:ffff:ffff:ffff:ffff:ffff:ffff:ffff [0]",
            "8000::-fffe:ffff:ffff:ffff:ffff:ffff:ffff:ffff [0, 1]",
            "ffff::-ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff [0]",
        ];
        assert_eq!(cut(Family::V6, &blocks), expected);
        assert_eq!(cut(Family::V4, &blocks), [""; 0]);
        assert_eq!(cut(Family::V4, &[block("0.0.0.0/0", &["0.0.0.0/0"])]), [""; 0]);
    }

    #[test]
    fn exceptions_that_touch_leave_nothing_between() {
        let blocks = [block("10.0.0.0/30", &["10.0.0.1/32", "10.0.0.2/32"])];
        assert_eq!(cut(Family::V4, &blocks), ["10.0.0.0-10.0.0.0 [0]", "10.0.0.3-10.0.0.3 [0]"]);
    }
}
