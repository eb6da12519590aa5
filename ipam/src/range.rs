//! Ranges of addresses and sets of them, valid by construction. Which address is taken is not known here.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;

use ipnetwork::IpNetwork;
use weft_cni_spec as cni;
use weft_types::Family;

/// A range of addresses within a subnet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Range {
    /// The subnet.
    pub subnet: IpNetwork,
    /// The first address to give.
    pub first: IpAddr,
    /// The last address to give.
    pub last: IpAddr,
    /// The gateway, which is never given.
    pub gateway: IpAddr,
}

/// Ranges of one family, without overlaps: a container gets one address out of all of them. Not empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RangeSet(Vec<Range>);

/// What is wrong with a range or a set: the field, below the range or set itself, and the reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Invalid {
    /// `[0].subnet`, or empty for the set as a whole.
    pub(crate) field: String,
    /// What is wrong with it.
    pub(crate) reason: String,
}

impl Invalid {
    fn new(field: &str, reason: impl Into<String>) -> Invalid {
        Invalid { field: field.to_owned(), reason: reason.into() }
    }
}

impl Range {
    /// A range as configured, with what it leaves out filled in as the reference does: the gateway and the
    /// first address are the subnet's first, the last is the subnet's last that is not the broadcast address.
    pub(crate) fn new(config: &cni::Range) -> Result<Range, Invalid> {
        let subnet = config.subnet;
        let (bits, network) = (Family::of_network(&subnet).bits(), subnet.network());
        if subnet.prefix() > bits - 2 {
            return Err(Invalid::new(".subnet", format!("network {subnet} is too small to allocate from")));
        }
        if subnet.ip() != network {
            let reason = format!(
                "network {subnet} has host bits set; with a prefix of {} its address is {network}",
                subnet.prefix()
            );
            return Err(Invalid::new(".subnet", reason));
        }
        let second = address(&network, number(&network) + 1);
        let range = Range {
            subnet,
            first: config.range_start.unwrap_or(second),
            last: config.range_end.unwrap_or_else(|| last(&subnet)),
            gateway: config.gateway.unwrap_or(second),
        };
        for (field, address) in [(".rangeStart", range.first), (".rangeEnd", range.last)] {
            if !subnet.contains(address) {
                return Err(Invalid::new(field, format!("{address} is not in network {subnet}")));
            }
        }
        if range.first > range.last {
            let reason = format!("{} is behind the range's end, {}", range.first, range.last);
            return Err(Invalid::new(".rangeStart", reason));
        }
        if Family::of(range.gateway) != Family::of_network(&subnet) {
            let reason = format!("{} is not of the family of network {subnet}", range.gateway);
            return Err(Invalid::new(".gateway", reason));
        }
        Ok(range)
    }

    /// Whether the address is one that the range may give (the gateway included).
    pub fn contains(&self, address: IpAddr) -> bool {
        Family::of(address) == Family::of(self.first) && (self.first..=self.last).contains(&address)
    }

    fn overlaps(&self, other: &Range) -> bool {
        self.contains(other.first) || other.contains(self.first)
    }

    /// The address with the length of the subnet's prefix.
    pub fn with_prefix(&self, address: IpAddr) -> IpNetwork {
        // The prefix is that of a network of the same family, so it fits.
        IpNetwork::new(address, self.subnet.prefix()).unwrap_or(self.subnet)
    }
}

/// `first-last`
impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.first, self.last)
    }
}

impl RangeSet {
    pub(crate) fn new(configs: &[cni::Range]) -> Result<RangeSet, Invalid> {
        let ranges: Vec<Range> = configs
            .iter()
            .enumerate()
            .map(|(index, config)| {
                Range::new(config)
                    .map_err(|invalid| Invalid { field: format!("[{index}]{}", invalid.field), ..invalid })
            })
            .collect::<Result<_, _>>()?;
        let Some(first) = ranges.first() else { return Err(Invalid::new("", "the range set is empty")) };
        for (index, range) in ranges.iter().enumerate() {
            if range.subnet.is_ipv4() != first.subnet.is_ipv4() {
                return Err(Invalid::new(&format!("[{index}]"), "mixed address families in one range set"));
            }
            if let Some(other) = ranges[..index].iter().find(|other| other.overlaps(range)) {
                let reason = format!("range {range} overlaps with {other}");
                return Err(Invalid::new(&format!("[{index}]"), reason));
            }
        }
        Ok(RangeSet(ranges))
    }

    /// The ranges, in the order of the configuration.
    pub fn ranges(&self) -> &[Range] {
        &self.0
    }

    /// The range that may give this address.
    pub fn range_of(&self, address: IpAddr) -> Option<&Range> {
        self.0.iter().find(|range| range.contains(address))
    }

    /// The family of all its addresses.
    pub fn family(&self) -> Family {
        Family::of(self.0[0].first)
    }

    pub(crate) fn overlaps(&self, other: &RangeSet) -> bool {
        self.0.iter().any(|range| other.0.iter().any(|theirs| theirs.overlaps(range)))
    }

    /// How many addresses it can give.
    pub fn capacity(&self) -> u128 {
        let size = |range: &Range| {
            (number(&range.last) - number(&range.first)).saturating_add(1)
                - u128::from(range.contains(range.gateway))
        };
        self.0.iter().map(size).fold(0, u128::saturating_add)
    }

    /// Every address that may be given, once, in round robin from the one behind `last`; gateways are left
    /// out.
    pub fn round_robin(&self, last: Option<IpAddr>) -> impl Iterator<Item = (&Range, IpAddr)> {
        let at = last.and_then(|last| Some((self.0.iter().position(|range| range.contains(last))?, last)));
        let index = at.map_or(0, |(index, _)| index);
        let here = &self.0[index];
        // The rest of the range that `last` is in, all other ranges, and then that range up to `last`.
        let (behind, before) = match at.map(|(_, last)| number(&last)) {
            Some(split) => {
                let next = split.checked_add(1);
                (next.map(|next| next..=number(&here.last)), Some(number(&here.first)..=split))
            }
            None => (Some(span(here)), None),
        };
        let others = self.0[index + 1..].iter().chain(&self.0[..index]);
        std::iter::once((here, behind))
            .chain(others.map(|range| (range, Some(span(range)))))
            .chain([(here, before)])
            .flat_map(|(range, span)| {
                span.into_iter().flatten().map(move |number| (range, address(&range.first, number)))
            })
            .filter(|(range, address)| *address != range.gateway)
    }
}

/// As the reference prints it: `first-last,first-last`
impl fmt::Display for RangeSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ranges: Vec<String> = self.0.iter().map(Range::to_string).collect();
        f.write_str(&ranges.join(","))
    }
}

fn span(range: &Range) -> RangeInclusive<u128> {
    number(&range.first)..=number(&range.last)
}

fn last(subnet: &IpNetwork) -> IpAddr {
    match subnet {
        IpNetwork::V4(subnet) => Ipv4Addr::from(u32::from(subnet.broadcast()) - 1).into(),
        IpNetwork::V6(subnet) => subnet.broadcast().into(),
    }
}

fn number(address: &IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u32::from(*address).into(),
        IpAddr::V6(address) => u128::from(*address),
    }
}

/// The address of that number, of the family of `like`.
fn address(like: &IpAddr, number: u128) -> IpAddr {
    match like {
        IpAddr::V4(_) => Ipv4Addr::from(number as u32).into(),
        IpAddr::V6(_) => Ipv6Addr::from(number).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(subnet: &str) -> cni::Range {
        cni::Range::of(subnet.parse().unwrap())
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn set(subnets: &[&str]) -> RangeSet {
        RangeSet::new(&subnets.iter().map(|subnet| config(subnet)).collect::<Vec<_>>()).unwrap()
    }

    fn order(set: &RangeSet, last: Option<&str>) -> Vec<String> {
        set.round_robin(last.map(ip)).map(|(_, address)| address.to_string()).collect()
    }

    #[test]
    fn what_is_left_out_is_filled_in() {
        let range = Range::new(&config("10.1.2.0/24")).unwrap();
        assert_eq!(
            (range.first, range.last, range.gateway),
            (ip("10.1.2.1"), ip("10.1.2.254"), ip("10.1.2.1"))
        );
        let range = Range::new(&config("fd00::/126")).unwrap();
        assert_eq!((range.first, range.last, range.gateway), (ip("fd00::1"), ip("fd00::3"), ip("fd00::1")));
        assert_eq!(range.to_string(), "fd00::1-fd00::3");
    }

    #[test]
    fn invalid_ranges_name_the_field() {
        let with = |start: Option<&str>, end: Option<&str>, gateway: Option<&str>| cni::Range {
            range_start: start.map(ip),
            range_end: end.map(ip),
            gateway: gateway.map(ip),
            ..config("10.1.2.0/24")
        };
        let cases = [
            (config("10.1.2.0/31"), ".subnet", "too small"),
            (config("fd00::/127"), ".subnet", "too small"),
            (config("10.1.2.3/24"), ".subnet", "host bits set; with a prefix of 24 its address is 10.1.2.0"),
            (with(Some("10.1.3.5"), None, None), ".rangeStart", "10.1.3.5 is not in network 10.1.2.0/24"),
            (with(None, Some("fd00::1"), None), ".rangeEnd", "fd00::1 is not in network 10.1.2.0/24"),
            (with(Some("10.1.2.9"), Some("10.1.2.8"), None), ".rangeStart", "behind the range's end"),
            (with(None, None, Some("fd00::1")), ".gateway", "not of the family"),
        ];
        for (config, field, reason) in cases {
            let invalid = Range::new(&config).unwrap_err();
            assert_eq!(invalid.field, field);
            assert!(invalid.reason.contains(reason), "{invalid:?}");
        }
        assert!(Range::new(&with(None, None, Some("192.168.0.1"))).is_ok(), "a gateway outside the subnet");
    }

    #[test]
    fn invalid_sets_name_the_range() {
        let invalid = |subnets: &[&str]| {
            let configs: Vec<_> = subnets.iter().map(|subnet| config(subnet)).collect();
            let invalid = RangeSet::new(&configs).unwrap_err();
            format!("{}: {}", invalid.field, invalid.reason)
        };
        assert_eq!(invalid(&[]), ": the range set is empty");
        assert_eq!(invalid(&["10.1.0.0/24", "fd00::/64"]), "[1]: mixed address families in one range set");
        assert_eq!(
            invalid(&["10.1.0.0/24", "10.2.0.0/24", "10.1.0.0/16"]),
            "[2]: range 10.1.0.1-10.1.255.254 overlaps with 10.1.0.1-10.1.0.254"
        );
        assert_eq!(
            invalid(&["10.1.0.0/24", "10.2.0.0/31"]),
            "[1].subnet: network 10.2.0.0/31 is too small to allocate from"
        );
    }

    #[test]
    fn round_robin_starts_behind_the_last_and_ends_with_it() {
        let small = set(&["10.0.0.0/29"]);
        let all = ["10.0.0.2", "10.0.0.3", "10.0.0.4", "10.0.0.5", "10.0.0.6"];
        assert_eq!(order(&small, None), all);
        assert_eq!(
            order(&small, Some("10.0.0.4")),
            ["10.0.0.5", "10.0.0.6", "10.0.0.2", "10.0.0.3", "10.0.0.4"]
        );
        assert_eq!(order(&small, Some("10.0.0.6")), all, "the last of the range");
        assert_eq!(order(&small, Some("10.9.9.9")), all, "one that is in no range");
        assert_eq!(order(&small, Some("fd00::1")), all, "one of the other family");
    }

    #[test]
    fn round_robin_goes_on_with_the_next_range() {
        let two = set(&["10.0.0.0/30", "10.1.0.0/30"]);
        assert_eq!(order(&two, None), ["10.0.0.2", "10.1.0.2"]);
        assert_eq!(order(&two, Some("10.0.0.2")), ["10.1.0.2", "10.0.0.2"]);
        assert_eq!(order(&two, Some("10.1.0.2")), ["10.0.0.2", "10.1.0.2"]);
    }

    #[test]
    fn the_capacity_is_the_number_of_addresses_in_a_round() {
        for subnets in [&["10.0.0.0/29"][..], &["10.0.0.0/24", "10.1.0.0/30"], &["fd00::/120"]] {
            let set = set(subnets);
            assert_eq!(set.capacity(), set.round_robin(None).count() as u128, "{subnets:?}");
        }
        assert_eq!(set(&["::/0"]).capacity(), u128::MAX - 1);
    }
}
