//! A pool of virtual addresses of one family.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use weft_types::{Family, IpNetwork};

/// The addresses of a Service range that are taken, as offsets from the range's first address.
#[derive(Debug)]
pub(super) struct AddressPool {
    cidr: IpNetwork,
    taken: BTreeSet<u128>,
    /// Where the search for a free one begins: after the last that was given, so that a freed address is
    /// not given again at once.
    next: u128,
}

/// The most addresses of a range that are ever looked at, as the real server has it for IPv6 ranges.
const MOST: u128 = 1 << 20;

impl AddressPool {
    /// A pool with nothing taken.
    pub(super) fn new(cidr: IpNetwork) -> Self {
        let mut pool = Self { cidr, taken: BTreeSet::new(), next: 0 };
        pool.next = pool.first_dynamic();
        pool
    }

    /// The family of its addresses.
    pub(super) fn family(&self) -> Family {
        Family::of_network(&self.cidr)
    }

    /// The range.
    pub(super) fn cidr(&self) -> IpNetwork {
        self.cidr
    }

    /// May somebody ask for this address? The first and, for IPv4, the last of the range are nobody's.
    pub(super) fn contains(&self, address: IpAddr) -> bool {
        self.offset(address).is_some_and(|offset| (1..=self.last()).contains(&offset))
    }

    /// Does somebody have it?
    pub(super) fn is_taken(&self, address: IpAddr) -> bool {
        self.offset(address).is_some_and(|offset| self.taken.contains(&offset))
    }

    /// A free address, from above the band for chosen ones as long as there is one (KEP-3070).
    pub(super) fn free(&self) -> Option<IpAddr> {
        let dynamic = (self.next..=self.last()).chain(self.first_dynamic()..self.next);
        let mut all = dynamic.chain(1..self.first_dynamic());
        all.find(|offset| !self.taken.contains(offset)).map(|offset| self.address(offset))
    }

    /// Notes that an address is taken or free. One outside of the range is ignored.
    pub(super) fn mark(&mut self, address: IpAddr, is_taken: bool) {
        let Some(offset) = self.offset(address) else { return };
        if !is_taken {
            self.taken.remove(&offset);
        } else if self.taken.insert(offset) && offset >= self.first_dynamic() {
            self.next = if offset < self.last() { offset + 1 } else { self.first_dynamic() };
        }
    }

    /// The last offset that can be given.
    fn last(&self) -> u128 {
        let host_bits = u32::from(self.family().bits() - self.cidr.prefix());
        let size = 1u128.checked_shl(host_bits).unwrap_or(MOST).min(MOST);
        let broadcast = u128::from(self.family() == Family::V4);
        size.saturating_sub(1 + broadcast)
    }

    /// The first offset above the band that is left to those who choose their address: a sixteenth of the
    /// range, at least 16 and at most 256 addresses; none in a small range.
    fn first_dynamic(&self) -> u128 {
        let size = self.last();
        if size <= 16 { 1 } else { (size / 16).clamp(16, 256) + 1 }
    }

    fn offset(&self, address: IpAddr) -> Option<u128> {
        self.cidr.contains(address).then(|| bits(address) - bits(self.cidr.network()))
    }

    fn address(&self, offset: u128) -> IpAddr {
        match self.cidr.network() {
            IpAddr::V4(first) => {
                Ipv4Addr::from_bits(first.to_bits() + u32::try_from(offset).unwrap_or(0)).into()
            }
            IpAddr::V6(first) => Ipv6Addr::from_bits(first.to_bits() + offset).into(),
        }
    }
}

fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(address.to_bits()),
        IpAddr::V6(address) => address.to_bits(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(cidr: &str) -> AddressPool {
        AddressPool::new(cidr.parse().unwrap())
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn chosen_addresses_have_their_own_band() {
        let mut pool = pool("10.96.0.0/16");
        assert_eq!(pool.free(), Some(ip("10.96.1.1")));
        pool.mark(ip("10.96.0.10"), true);
        pool.mark(ip("10.96.1.1"), true);
        assert_eq!(pool.free(), Some(ip("10.96.1.2")));
        assert!(pool.is_taken(ip("10.96.0.10")));
    }

    #[test]
    fn a_freed_address_is_given_again_only_after_the_others() {
        let mut pool = pool("10.0.0.0/29");
        for _ in 1..=6 {
            let address = pool.free().unwrap();
            pool.mark(address, true);
        }
        assert_eq!(pool.free(), None);
        pool.mark(ip("10.0.0.3"), false);
        assert_eq!(pool.free(), Some(ip("10.0.0.3")));
        assert!(
            !pool.contains(ip("10.0.0.0")) && !pool.contains(ip("10.0.0.7")) && pool.contains(ip("10.0.0.6"))
        );
    }

    #[test]
    fn an_ipv6_range_is_not_walked_to_its_end() {
        let mut pool = pool("fd00:10:96::/112");
        let first = pool.free().unwrap();
        assert_eq!(first, ip("fd00:10:96::101"));
        pool.mark(first, true);
        assert_eq!(pool.free(), Some(ip("fd00:10:96::102")));
        assert!(pool.contains(ip("fd00:10:96::ffff")) && !pool.contains(ip("fd00:10:97::1")));
    }
}
