//! On which interfaces of this node an address is answered.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use weft_netlink::rtnl::Mac;
use weft_types::{Family, IpNetwork};

/// An interface that can speak for addresses: Ethernet, up, with a carrier.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    /// Its name.
    pub name: String,
    /// Its Ethernet address.
    pub mac: Mac,
    /// Its own addresses, with their networks.
    pub networks: Vec<IpNetwork>,
    /// It is a port of a bridge or bond, which speaks in its place.
    pub has_master: bool,
}

/// The interfaces for an address, by their index. Those that are named are meant; else it is those whose
/// network the address is of; else, as for an address that routers send to this link, those by which the
/// other nodes know this one.
pub fn place(
    address: IpAddr,
    ports: &BTreeMap<u32, Port>,
    named: Option<&BTreeSet<String>>,
    node_addresses: &[IpAddr],
) -> BTreeSet<u32> {
    let chosen = |is_it: &dyn Fn(&Port) -> bool| -> BTreeSet<u32> {
        ports.iter().filter(|(_, port)| is_it(port)).map(|(index, _)| *index).collect()
    };
    if let Some(named) = named {
        return chosen(&|port| named.contains(&port.name));
    }
    let is_of = |network: &IpNetwork| network.prefix() > 0 && network.contains(address);
    let of_network = chosen(&|port| !port.has_master && port.networks.iter().any(is_of));
    if !of_network.is_empty() {
        return of_network;
    }
    let is_of_node = |network: &IpNetwork| {
        Family::of(network.ip()) == Family::of(address) && node_addresses.contains(&network.ip())
    };
    chosen(&|port| !port.has_master && port.networks.iter().any(is_of_node))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ports() -> BTreeMap<u32, Port> {
        let port = |name: &str, networks: &[&str], has_master| Port {
            name: name.to_owned(),
            mac: Mac([2; 6]),
            networks: networks.iter().map(|text| text.parse().unwrap()).collect(),
            has_master,
        };
        [
            (2, port("eth0", &["172.30.0.11/24", "fd00:30::11/64", "fe80::1/64"], false)),
            (3, port("eth1", &["192.0.2.1/24"], false)),
            (4, port("eth2", &["192.0.2.2/24"], true)),
            (5, port("cni0", &["10.244.1.1/24"], false)),
        ]
        .into()
    }

    fn placed(address: &str, named: Option<&[&str]>) -> Vec<u32> {
        let named = named.map(|names| names.iter().map(|name| (*name).to_owned()).collect());
        let own = ["172.30.0.11", "fd00:30::11"].map(|text| text.parse().unwrap());
        place(address.parse().unwrap(), &ports(), named.as_ref(), &own).into_iter().collect()
    }

    #[test]
    fn an_address_is_answered_where_its_network_is_and_not_by_a_port_for_its_master() {
        assert_eq!(placed("192.0.2.10", None), [3]);
        assert_eq!(placed("fd00:30::99", None), [2]);
    }

    #[test]
    fn an_address_of_no_network_is_answered_where_the_node_is_known() {
        assert_eq!(placed("198.51.100.1", None), [2]);
        assert_eq!(placed("2001:db8::1", None), [2]);
    }

    #[test]
    fn named_interfaces_are_meant_and_no_others() {
        assert_eq!(placed("192.0.2.10", Some(&["eth0", "eth9"])), [2]);
        assert_eq!(placed("192.0.2.10", Some(&["eth2"])), [4]);
        assert_eq!(placed("192.0.2.10", Some(&["eth9"])), [0; 0]);
    }
}
