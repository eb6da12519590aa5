//! The next free block of a range. Values only.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use weft_types::{IpNetwork, overlap};

/// The first block of `range` with that prefix that overlaps none of `taken`, in a round from the block of
/// the number `start` on. Nodes that start at different ones seldom want the same. None where all are taken.
pub(crate) fn next_free(
    range: &IpNetwork,
    prefix: u8,
    start: u64,
    taken: impl Iterator<Item = IpNetwork>,
) -> Option<IpNetwork> {
    let bits: u8 = if range.is_ipv4() { 32 } else { 128 };
    if prefix < range.prefix() || prefix > bits {
        return None;
    }
    let (index_bits, step) = (prefix - range.prefix(), u32::from(bits - prefix));
    // More than that nobody claims, and their numbers need not be counted.
    let last = u128::MAX.checked_shr(128 - u32::from(index_bits)).unwrap_or(0);
    let block = |index: u128| {
        let offset = index.checked_shl(step).unwrap_or(0);
        let network = match range.network() {
            IpAddr::V4(first) => Ipv4Addr::from(u32::from(first) + offset as u32).into(),
            IpAddr::V6(first) => Ipv6Addr::from(u128::from(first) + offset).into(),
        };
        IpNetwork::new(network, prefix).ok()
    };
    let taken: Vec<IpNetwork> = taken.filter(|taken| overlap(taken, range)).collect();
    let start = u128::from(start) & last;
    // The number of the last block that something overlaps, of those that overlap this one.
    let behind = |found: &IpNetwork| {
        let others = taken.iter().filter(|taken| overlap(taken, found));
        others.map(|taken| (number(taken.broadcast()) - number(range.network())) >> step).max()
    };
    let mut index = start;
    let mut has_wrapped = false;
    loop {
        let candidate = block(index)?;
        let Some(end) = behind(&candidate) else { return Some(candidate) };
        let next = end.min(last);
        if next >= last {
            if has_wrapped {
                return None;
            }
            (index, has_wrapped) = (0, true);
        } else {
            index = next + 1;
        }
        if has_wrapped && index >= start && start > 0 {
            return None;
        }
    }
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u32::from(address).into(),
        IpAddr::V6(address) => address.into(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn network(text: &str) -> IpNetwork {
        text.parse().unwrap()
    }

    fn next(range: &str, prefix: u8, start: u64, taken: &[&str]) -> Option<String> {
        let taken = taken.iter().map(|text| network(text));
        next_free(&network(range), prefix, start, taken).map(|block| block.to_string())
    }

    #[test]
    fn a_round_that_begins_anywhere() {
        let expected = |text: &str| Some(text.to_owned());
        assert_eq!(next("10.0.0.0/24", 26, 0, &[]), expected("10.0.0.0/26"));
        assert_eq!(next("10.0.0.0/24", 26, 7, &[]), expected("10.0.0.192/26"));
        assert_eq!(next("10.0.0.0/24", 26, 3, &["10.0.0.192/26"]), expected("10.0.0.0/26"));
        assert_eq!(next("10.0.0.0/24", 26, 0, &["10.0.0.0/25", "10.0.0.130/32"]), expected("10.0.0.192/26"));
        assert_eq!(next("10.0.0.0/24", 26, 2, &["10.0.0.0/8"]), None);
        assert_eq!(next("10.0.0.0/24", 23, 0, &[]), None, "blocks are no larger than the range");
        assert_eq!(next("10.0.0.0/24", 24, 5, &[]), expected("10.0.0.0/24"));
        assert_eq!(next("255.255.255.0/24", 26, 3, &["255.255.255.192/26"]), expected("255.255.255.0/26"));
    }

    #[test]
    fn a_range_of_more_blocks_than_anybody_counts() {
        let found = next("fd00::/16", 122, u64::MAX, &[]).unwrap();
        assert_eq!(found, next("fd00::/16", 122, u64::MAX, &["fd00:1::/122"]).unwrap());
        assert!(next("::/0", 128, 1, &["::1/128"]).is_some());
        assert_eq!(next("fd00::/120", 122, 1, &["fd00::40/122"]), Some("fd00::80/122".to_owned()));
    }

    proptest! {
        #[test]
        fn a_block_is_found_if_there_is_one_and_overlaps_nothing(
            start: u64, taken in prop::collection::vec((0u32..256, 24u8..=32), 0..12)
        ) {
            let range = network("10.0.0.0/24");
            let taken: Vec<IpNetwork> = taken.into_iter().map(|(host, prefix)| {
                let address = Ipv4Addr::from(0x0a00_0000 | host);
                let network = IpNetwork::new(address.into(), prefix).unwrap();
                IpNetwork::new(network.network(), prefix).unwrap()
            }).collect();
            let is_free = |block: &IpNetwork| !taken.iter().any(|taken| overlap(taken, block));
            let all = (0u32..8).map(|index| network(&format!("10.0.0.{}/27", index * 32)));
            let found = next_free(&range, 27, start, taken.iter().copied());
            prop_assert_eq!(found.is_some(), all.into_iter().any(|block| is_free(&block)));
            prop_assert!(found.is_none_or(|block| is_free(&block) && block.prefix() == 27));
        }
    }
}
