//! Ranges of addresses, as pools of load balancer addresses are written: a network, two addresses with a dash
//! between, or one address.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use ipnetwork::IpNetwork;
use thiserror::Error;

use crate::Family;

/// Addresses of one family, from the first to the last: at least one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AddressRange {
    first: IpAddr,
    last: IpAddr,
}

/// A text that is no range of addresses.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum InvalidRange {
    /// It is neither a network nor a range nor an address.
    #[error("{0:?} is no range of addresses such as 192.0.2.10-192.0.2.20, 192.0.2.0/28 or 192.0.2.10")]
    Form(String),
    /// The ends are of two families.
    #[error("{0:?} begins with an address of one family and ends with one of the other")]
    Families(String),
    /// The end comes before the beginning.
    #[error("{0:?} ends before it begins; give the lower address first")]
    Order(String),
}

impl AddressRange {
    /// The first address.
    pub fn first(&self) -> IpAddr {
        self.first
    }

    /// The last address.
    pub fn last(&self) -> IpAddr {
        self.last
    }

    /// The family of all its addresses.
    pub fn family(&self) -> Family {
        Family::of(self.first)
    }

    /// Whether an address is one of the range.
    pub fn contains(&self, address: IpAddr) -> bool {
        Family::of(address) == self.family() && (self.first..=self.last).contains(&address)
    }

    /// Whether two ranges have an address in common.
    pub fn overlaps(&self, other: &AddressRange) -> bool {
        self.family() == other.family() && self.first <= other.last && other.first <= self.last
    }

    /// How many addresses there are; the largest number where there are more.
    pub fn count(&self) -> u128 {
        (number(self.last) - number(self.first)).saturating_add(1)
    }

    /// The address that comes so many after the first; none where the range ends before.
    pub fn nth(&self, place: u128) -> Option<IpAddr> {
        let number = number(self.first).checked_add(place)?;
        (number <= self::number(self.last)).then(|| match self.family() {
            Family::V4 => IpAddr::V4(Ipv4Addr::from_bits(u32::try_from(number).unwrap_or(u32::MAX))),
            Family::V6 => IpAddr::V6(Ipv6Addr::from_bits(number)),
        })
    }
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => address.to_bits().into(),
        IpAddr::V6(address) => address.to_bits(),
    }
}

impl From<IpNetwork> for AddressRange {
    fn from(network: IpNetwork) -> AddressRange {
        AddressRange { first: network.network(), last: network.broadcast() }
    }
}

impl FromStr for AddressRange {
    type Err = InvalidRange;

    fn from_str(text: &str) -> Result<AddressRange, InvalidRange> {
        let form = || InvalidRange::Form(text.to_owned());
        let address = |text: &str| text.trim().parse::<IpAddr>().map_err(|_| form());
        let (first, last) = match text.split_once('-') {
            Some((first, last)) => (address(first)?, address(last)?),
            // A network without a prefix is one address.
            None => return text.trim().parse::<IpNetwork>().map(AddressRange::from).map_err(|_| form()),
        };
        match (Family::of(first) == Family::of(last), first <= last) {
            (false, _) => Err(InvalidRange::Families(text.to_owned())),
            (true, false) => Err(InvalidRange::Order(text.to_owned())),
            (true, true) => Ok(AddressRange { first, last }),
        }
    }
}

/// Prints as it parses: a range of one address as that address.
impl fmt::Display for AddressRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.first == self.last {
            true => write!(f, "{}", self.first),
            false => write!(f, "{}-{}", self.first, self.last),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(text: &str) -> AddressRange {
        text.parse().unwrap()
    }

    #[test]
    fn networks_ranges_and_addresses_are_ranges() {
        for (text, expected, count) in [
            ("192.0.2.10-192.0.2.20", "192.0.2.10-192.0.2.20", 11),
            (" 192.0.2.10 - 192.0.2.20 ", "192.0.2.10-192.0.2.20", 11),
            ("192.0.2.17/28", "192.0.2.16-192.0.2.31", 16),
            ("192.0.2.10", "192.0.2.10", 1),
            ("2001:db8::/126", "2001:db8::-2001:db8::3", 4),
            ("::/0", "::-ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", u128::MAX),
        ] {
            assert_eq!((range(text).to_string(), range(text).count()), (expected.to_owned(), count));
            assert_eq!(range(&range(text).to_string()), range(text));
        }
    }

    #[test]
    fn other_texts_are_refused_with_the_reason() {
        for text in
            ["", "-", "192.0.2.10-", "192.0.2.0/33", "192.0.2.256", "a-b", "192.0.2.1-192.0.2.2-192.0.2.3"]
        {
            assert_eq!(text.parse::<AddressRange>(), Err(InvalidRange::Form(text.to_owned())));
        }
        let text = "192.0.2.20-192.0.2.10".to_owned();
        assert_eq!(text.parse::<AddressRange>(), Err(InvalidRange::Order(text)));
        let text = "192.0.2.1-2001:db8::1".to_owned();
        assert_eq!(text.parse::<AddressRange>(), Err(InvalidRange::Families(text)));
    }

    #[test]
    fn addresses_are_counted_from_the_first() {
        let small = range("192.0.2.254-192.0.3.1");
        let all: Vec<String> = (0..5).filter_map(|place| small.nth(place)).map(|it| it.to_string()).collect();
        assert_eq!(all, ["192.0.2.254", "192.0.2.255", "192.0.3.0", "192.0.3.1"]);
        assert_eq!(range("2001:db8::/64").nth(1 << 64), None);
        assert_eq!(range("::/0").nth(u128::MAX), Some(range("::/0").last()));
        assert!(
            small.contains("192.0.3.0".parse().unwrap()) && !small.contains("192.0.3.2".parse().unwrap())
        );
        assert!(!range("0.0.0.0/0").contains("::1".parse().unwrap()));
        assert!(small.overlaps(&range("192.0.3.0/24")) && !small.overlaps(&range("192.0.3.2-192.0.3.9")));
        assert!(!range("0.0.0.0/0").overlaps(&range("::/0")));
    }
}
