//! Who may connect to a load balancer's addresses (`spec.loadBalancerSourceRanges`). Pure; who is kept away,
//! and how, is in `ruleset.rs`.

use std::net::IpAddr;

use weft_types::{Family, IpNetwork, Service};

/// The networks whose clients may connect to that address of a Service; none where everybody may.
///
/// Where the ranges hold one of this node's addresses, the load balancer's addresses of that family are among
/// them: a node that has such an address itself connects to it from it, and would be kept away otherwise.
pub fn sources(service: &Service, address: IpAddr, node: &[IpAddr]) -> Vec<IpNetwork> {
    let family = Family::of(address);
    let ranges = service.source_ranges.iter().filter(|range| Family::of_network(range) == family);
    let mut ranges: Vec<IpNetwork> = ranges.copied().collect();
    let is_restricted = service.load_balancer_ips.contains(&address);
    if !is_restricted || ranges.iter().any(|range| range.prefix() == 0) {
        return Vec::new();
    }
    if node.iter().any(|address| ranges.iter().any(|range| range.contains(*address))) {
        let own = service.load_balancer_ips.iter().filter(|address| Family::of(**address) == family);
        ranges.extend(own.map(|address| IpNetwork::from(*address)));
    }
    without_nested(ranges)
}

/// The kernel takes no two ranges that overlap. In this order a network comes directly before those within
/// it.
fn without_nested(mut ranges: Vec<IpNetwork>) -> Vec<IpNetwork> {
    ranges.sort_by_key(|range| (range.network(), range.prefix()));
    ranges.dedup_by(|range, wider| wider.contains(range.network()));
    ranges
}

#[cfg(test)]
mod tests {
    use weft_types::{NamespacedName, ServiceKind};

    use super::*;

    fn of(address: &str, ranges: &[&str], node: &[&str]) -> Vec<String> {
        let kind = ServiceKind::ClusterIp(vec!["10.96.0.1".parse().unwrap()]);
        let mut service = Service::new(NamespacedName::new("shop", "web"), kind, Vec::new());
        service.load_balancer_ips =
            ["192.0.2.1", "192.0.2.2", "2001:db8::1"].map(|ip| ip.parse().unwrap()).to_vec();
        service.external_ips = vec!["192.0.2.9".parse().unwrap()];
        service.source_ranges = ranges.iter().map(|range| range.parse().unwrap()).collect();
        let node: Vec<IpAddr> = node.iter().map(|address| address.parse().unwrap()).collect();
        let sources = sources(&service, address.parse().unwrap(), &node);
        sources.iter().map(IpNetwork::to_string).collect()
    }

    #[test]
    fn ranges_hold_for_a_load_balancers_addresses_of_their_family_only() {
        let ranges = ["198.51.100.0/24"];
        assert_eq!(of("192.0.2.1", &ranges, &[]), ranges);
        assert!(of("192.0.2.9", &ranges, &[]).is_empty(), "an external address");
        assert!(of("10.96.0.1", &ranges, &[]).is_empty(), "a ClusterIP");
        assert!(of("2001:db8::1", &ranges, &[]).is_empty(), "no range of its family");
    }

    #[test]
    fn a_zero_cidr_allows_all() {
        assert!(of("192.0.2.1", &["198.51.100.0/24", "0.0.0.0/0"], &[]).is_empty());
        assert!(of("2001:db8::1", &["fd00::/8", "::/0"], &[]).is_empty());
        assert_eq!(of("2001:db8::1", &["fd00::/8", "0.0.0.0/0"], &[]), ["fd00::/8"]);
    }

    #[test]
    fn a_range_with_the_nodes_address_allows_the_load_balancers_own_addresses_too() {
        let allowed = of("192.0.2.1", &["172.30.0.0/24"], &["172.30.0.11", "fd00:30::11"]);
        assert_eq!(allowed, ["172.30.0.0/24", "192.0.2.1/32", "192.0.2.2/32"]);
        assert_eq!(of("192.0.2.1", &["172.31.0.0/24"], &["172.30.0.11"]), ["172.31.0.0/24"]);
    }

    #[test]
    fn ranges_within_others_and_those_given_twice_are_left_out() {
        let ranges = ["10.1.0.0/16", "10.0.0.0/8", "10.1.2.3/32", "10.0.0.0/8", "11.0.0.0/8"];
        assert_eq!(of("192.0.2.1", &ranges, &[]), ["10.0.0.0/8", "11.0.0.0/8"]);
    }
}
