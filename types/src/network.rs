//! How two networks lie to each other, of either family. Networks are written as prefixes, so that of two
//! that meet one holds the other.

use ipnetwork::IpNetwork;

/// Whether two networks have an address in common.
pub fn overlap(one: &IpNetwork, other: &IpNetwork) -> bool {
    one.contains(other.ip()) || other.contains(one.ip())
}

/// Whether every address of `inner` is one of `outer`.
pub fn is_subnet_of(inner: &IpNetwork, outer: &IpNetwork) -> bool {
    outer.prefix() <= inner.prefix() && outer.contains(inner.ip())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_meet_where_one_holds_the_other() {
        let network = |text: &str| text.parse::<IpNetwork>().unwrap();
        let (wide, narrow) = (network("10.244.7.1/16"), network("10.244.1.0/24"));
        assert!(overlap(&wide, &narrow) && overlap(&narrow, &wide) && overlap(&wide, &wide));
        assert!(is_subnet_of(&narrow, &wide) && !is_subnet_of(&wide, &narrow) && is_subnet_of(&wide, &wide));
        for other in ["10.245.0.0/16", "fd00::/8"].map(network) {
            assert!(!overlap(&wide, &other) && !is_subnet_of(&other, &wide));
        }
        assert!(overlap(&network("fd00:1::/64"), &network("fd00::/8")));
    }
}
