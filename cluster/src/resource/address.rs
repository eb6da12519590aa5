//! Addresses and networks as Kubernetes reads them (k8s.io/utils/net, ParseIPSloppy and ParseCIDRSloppy):
//! numbers may begin with zeros and are decimal all the same. An IPv4 address in an IPv6 one (RFC 4291
//! section 2.5.5.2) is the IPv4 address.

use std::net::IpAddr;

use ipnetwork::IpNetwork;

use crate::field::Fault;

/// The bits of an IPv6 address before the IPv4 address that it stands for.
const MAPPED: u8 = 96;

pub(super) fn address(text: &str, path: &str) -> Result<IpAddr, Fault> {
    let problem = || Fault::new(path, format!("{text:?} is no IP address"));
    literal(text).map(|address| address.to_canonical()).ok_or_else(problem)
}

/// A network without host bits: as routes and sets need it.
pub(super) fn network(text: &str, path: &str) -> Result<IpNetwork, Fault> {
    let problem = || Fault::new(path, format!("{text:?} is no network such as 10.244.1.0/24"));
    let network = || {
        let (address, prefix) = text.split_once('/')?;
        let is_number = !prefix.is_empty() && prefix.bytes().all(|byte| byte.is_ascii_digit());
        let (address, prefix) = (literal(address)?, prefix.parse::<u8>().ok().filter(|_| is_number)?);
        let network = match address.to_canonical() {
            IpAddr::V4(mapped) if address.is_ipv6() => {
                IpNetwork::new(mapped.into(), prefix.checked_sub(MAPPED)?).ok()?
            }
            _ => IpNetwork::new(address, prefix).ok()?,
        };
        IpNetwork::new(network.network(), network.prefix()).ok()
    };
    network().ok_or_else(problem)
}

fn literal(text: &str) -> Option<IpAddr> {
    text.parse().or_else(|_| without_leading_zeros(text).parse()).ok()
}

fn without_leading_zeros(text: &str) -> String {
    let part = |part: &str| {
        let number = part.trim_end_matches(['.', ':']);
        let digits = number.trim_start_matches('0');
        let zero = if digits.is_empty() && !number.is_empty() { "0" } else { "" };
        format!("{zero}{digits}{}", &part[number.len()..])
    };
    text.split_inclusive(['.', ':']).map(part).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leading_zeros_do_not_count_and_a_mapped_address_is_an_ipv4_one() {
        for (text, expected) in [
            ("203.0.113.20", "203.0.113.20"),
            ("203.000.113.020", "203.0.113.20"),
            ("0010.00244.1.0", "10.244.1.0"),
            ("::ffff:192.0.2.1", "192.0.2.1"),
            ("::ffff:192.000.002.001", "192.0.2.1"),
            ("2001:00db8::00001", "2001:db8::1"),
            ("::", "::"),
        ] {
            assert_eq!(
                address(text, "").map(|address| address.to_string()),
                Ok(expected.to_owned()),
                "{text}"
            );
        }
        for text in
            ["", "0", "10.96.0", "10..0.1", "10.0.0.256", "10.0.0.0x1", "fe80::1%eth0", "[::1]", " 10.0.0.1"]
        {
            assert!(address(text, "").is_err(), "{text}");
        }
    }

    #[test]
    fn networks_lose_their_host_bits() {
        for (text, expected) in [
            ("10.244.1.0/24", "10.244.1.0/24"),
            ("10.244.001.007/024", "10.244.1.0/24"),
            ("fd00:10:244:1::7/64", "fd00:10:244:1::/64"),
            ("::ffff:10.244.1.0/120", "10.244.1.0/24"),
            ("0.0.0.0/0", "0.0.0.0/0"),
        ] {
            assert_eq!(
                network(text, "").map(|network| network.to_string()),
                Ok(expected.to_owned()),
                "{text}"
            );
        }
        for text in [
            "10.244.1.0",
            "10.244.1.0/",
            "10.244.1.0/33",
            "10.244.1.0/+8",
            "10.0.0.0/255.0.0.0",
            "::ffff:10.0.0.0/95",
        ] {
            assert!(network(text, "").is_err(), "{text}");
        }
    }
}
