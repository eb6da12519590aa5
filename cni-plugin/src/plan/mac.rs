//! Which Ethernet addresses the plugin gives: all of them follow from something that comes again, and all are
//! locally administered. An address that is in use is never changed.

use std::net::IpAddr;

use crate::interface::Mac;
use weft_cni_spec::Attachment;
use weft_types::fnv1a;

use super::names::hash;

/// Of a container's end. It follows from the IP address: whoever gets that next has the same Ethernet
/// address, so that no neighbour's table is out of date.
pub(crate) fn of_container(address: IpAddr) -> Mac {
    match address {
        IpAddr::V4(address) => with_four([0x0a, 0x58], address.octets()),
        // All of it counts: networks that share a bridge give the same last octets to different containers.
        IpAddr::V6(address) => hashed(0x0e, fnv1a(address.octets())),
    }
}

/// Of a bridge, or of a VLAN's gateway.
pub(crate) fn of_gateway(address: IpAddr) -> Mac {
    let last_four = match address {
        IpAddr::V4(address) => address.octets(),
        IpAddr::V6(address) => (u128::from(address) as u32).to_be_bytes(),
    };
    with_four([0x0a, 0x58], last_four)
}

/// Of a container's end that has no IP address from which one could follow.
pub(crate) fn of_attachment(attachment: &Attachment) -> Mac {
    let [.., a, b, c, d] = hash(attachment).to_be_bytes();
    with_four([0x0a, 0x59], [a, b, c, d])
}

/// Of a host's end: higher than that of any machine.
pub(crate) fn of_port(attachment: &Attachment) -> Mac {
    hashed(0xfe, hash(attachment))
}

fn with_four([first, second]: [u8; 2], [a, b, c, d]: [u8; 4]) -> Mac {
    Mac([first, second, a, b, c, d])
}

/// With 40 bits of a hash: of a thousand containers on one bridge, two have the same with one chance in two
/// million.
fn hashed(first: u8, hash: u64) -> Mac {
    let [a, b, c, d, e, ..] = hash.to_be_bytes();
    Mac([first, a, b, c, d, e])
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn an_ipv4_address_can_be_read_from_it() {
        let mac = of_container("10.244.1.5".parse().unwrap());
        assert_eq!(mac.to_string(), "0a:58:0a:f4:01:05");
        assert_eq!(of_gateway("10.244.1.1".parse().unwrap()).to_string(), "0a:58:0a:f4:01:01");
    }

    #[test]
    fn containers_of_ipv6_networks_on_one_bridge_have_ethernet_addresses_of_their_own() {
        let addresses = (1..=64).flat_map(|network| (1..=256).map(move |host| (network, host)));
        let macs: BTreeSet<Mac> = addresses
            .flat_map(|(network, host)| {
                [format!("fd00:{network:x}::{host:x}"), format!("fd00::{network:x}:0:{host:x}")]
            })
            .map(|address| of_container(address.parse().unwrap()))
            .collect();
        assert_eq!(macs.len(), 2 * 64 * 256);
        assert!(macs.iter().all(|mac| mac.0[0] & 3 == 2), "of one station, locally administered");
    }

    #[test]
    fn whoever_gets_an_address_next_has_the_same() {
        let address = "fd00:1::5".parse().unwrap();
        assert_eq!(of_container(address), of_container(address));
        assert_eq!(
            of_container(address).to_string(),
            "0e:53:ba:b8:19:05",
            "in every version of this program"
        );
    }
}
