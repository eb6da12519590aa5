//! Networks that overlap, cut into pieces that do not.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnetwork::IpNetwork;
use weft_types::{Family, IpBlock};

use super::index;

/// Addresses of both families, as intervals with both ends included. They are in order, and neither overlap
/// nor touch.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Networks([Box<[(u128, u128)]>; 2]);

impl Networks {
    /// All addresses of some blocks.
    pub(crate) fn of<'a>(blocks: impl Iterator<Item = &'a IpBlock> + Clone) -> Networks {
        Networks(Family::BOTH.map(|family| {
            let of_family = blocks.clone().filter(|block| Family::of_network(&block.cidr) == family);
            let mut all: Vec<(u128, u128)> = of_family.flat_map(intervals).collect();
            all.sort_unstable();
            all.dedup_by(|next, before| {
                let joins = before.1.checked_add(1).is_none_or(|after| next.0 <= after);
                if joins {
                    before.1 = before.1.max(next.1);
                }
                joins
            });
            all.into()
        }))
    }

    /// Those of a family.
    pub(crate) fn intervals(&self, family: Family) -> &[(u128, u128)] {
        &self.0[index(family)]
    }

    /// Whether an address is one of them.
    pub(crate) fn contains(&self, address: IpAddr) -> bool {
        let (intervals, number) = (self.intervals(Family::of(address)), number(address));
        let before = intervals.partition_point(|(first, _)| *first <= number);
        before.checked_sub(1).is_some_and(|place| number <= intervals[place].1)
    }
}

/// A piece of the address space of a family, and the networks that it is part of, by their numbers in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Piece<I> {
    pub(crate) first: IpAddr,
    pub(crate) last: IpAddr,
    pub(crate) networks: Vec<I>,
}

/// The pieces that networks cut the address space into, in order, without those that are part of none.
pub(crate) fn pieces<'a, I: Copy + Ord>(
    family: Family,
    networks: impl Iterator<Item = (I, &'a Networks)>,
) -> Vec<Piece<I>> {
    // Where they begin, and where they are over.
    let mut borders: Vec<(u128, bool, I)> = Vec::new();
    for (id, networks) in networks {
        for (first, last) in networks.intervals(family) {
            borders.push((*first, true, id));
            borders.extend(last.checked_add(1).map(|after| (after, false, id)));
        }
    }
    borders.sort_unstable();
    let (mut pieces, mut inside) = (Vec::<Piece<I>>::new(), BTreeSet::new());
    let mut rest = borders.as_slice();
    while let Some(&(at, ..)) = rest.first() {
        let here = rest.iter().take_while(|border| border.0 == at).count();
        for (_, begins, id) in &rest[..here] {
            match begins {
                true => inside.insert(*id),
                false => inside.remove(id),
            };
        }
        rest = &rest[here..];
        let last = rest.first().map_or(most(family), |next| next.0 - 1);
        if !inside.is_empty() && at <= last {
            let networks: Vec<I> = inside.iter().copied().collect();
            match pieces.last_mut() {
                Some(before) if before.networks == networks && number(before.last) + 1 == at => {
                    before.last = address(family, last);
                }
                _ => pieces.push(Piece { first: address(family, at), last: address(family, last), networks }),
            }
        }
    }
    pieces
}

/// What is left of a network without its exceptions.
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

/// The first and the last address of a network.
fn ends(network: &IpNetwork) -> (u128, u128) {
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
        let networks: Vec<Networks> = blocks.iter().map(|block| Networks::of([block].into_iter())).collect();
        let pieces = pieces(family, networks.iter().enumerate());
        pieces.iter().map(|it| format!("{}-{} {:?}", it.first, it.last, it.networks)).collect()
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
    fn networks_that_overlap_and_touch_are_one() {
        let blocks = [
            block("10.0.1.0/24", &[]),
            block("10.0.0.0/24", &["10.0.0.0/25"]),
            block("10.0.0.192/26", &[]),
            block("255.255.255.255/32", &[]),
            block("255.255.255.0/24", &["255.255.255.0/25"]),
            block("fd00::/64", &[]),
        ];
        let networks = Networks::of(blocks.iter());
        let found: Vec<_> = networks
            .intervals(Family::V4)
            .iter()
            .map(|(first, last)| {
                let at = |number| address(Family::V4, number);
                format!("{}-{}", at(*first), at(*last))
            })
            .collect();
        assert_eq!(found, ["10.0.0.128-10.0.1.255", "255.255.255.128-255.255.255.255"]);
        for (text, expected) in [
            ("10.0.0.127", false),
            ("10.0.0.128", true),
            ("10.0.1.255", true),
            ("10.0.2.0", false),
            ("0.0.0.0", false),
            ("255.255.255.255", true),
            ("255.255.255.127", false),
            ("fd00::ffff", true),
            ("fd00:0:0:1::", false),
        ] {
            assert_eq!(networks.contains(text.parse().unwrap()), expected, "{text}");
        }
        assert_eq!(Networks::of(blocks.iter().rev()), networks);
    }

    #[test]
    fn exceptions_that_touch_leave_nothing_between() {
        let blocks = [block("10.0.0.0/30", &["10.0.0.1/32", "10.0.0.2/32"])];
        assert_eq!(cut(Family::V4, &blocks), ["10.0.0.0-10.0.0.0 [0]", "10.0.0.3-10.0.0.3 [0]"]);
    }
}
