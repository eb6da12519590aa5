//! The addresses of every lab. They exist only inside a lab's own namespaces, so that all labs use the same ones
//! and none can collide with the host's. Pure.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};

use ipnetwork::Ipv4Network;

/// The network between the nodes: 172.30.0.0/24.
pub const UNDERLAY_PREFIX: u8 = 24;
/// The nodes' gateway. The API server and all that is "outside" the cluster listens here.
pub const GATEWAY: Ipv4Addr = Ipv4Addr::new(172, 30, 0, 1);
/// The API server's port on [`GATEWAY`], plain HTTP.
pub const API_PORT: u16 = 6443;
/// The port of the HTTP and UDP echo outside the cluster, on [`GATEWAY`].
pub const OUTSIDE_ECHO_PORT: u16 = 8080;
/// The ClusterIP of the Service kube-dns.
pub const CLUSTER_DNS: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 10);
/// Where pods get their addresses from, a /24 for each node.
pub const CLUSTER_CIDR: &str = "10.244.0.0/16";
/// The DNS zone of the cluster.
pub const CLUSTER_DOMAIN: &str = "cluster.local";
/// The most nodes that a lab can have: their addresses end in 11 to 210.
pub const MOST_NODES: u8 = 200;

/// The address of the node with that number, counted from 1: `172.30.0.(10 + number)`.
pub fn node_address(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(172, 30, 0, 10 + number.min(MOST_NODES))
}

/// An underlay address with the underlay's prefix length.
pub fn on_underlay(address: Ipv4Addr) -> Ipv4Network {
    Ipv4Network::new_checked(address, UNDERLAY_PREFIX).unwrap_or_else(|| Ipv4Network::from(address))
}

/// The API server as nodes reach it.
pub fn api_server() -> SocketAddr {
    SocketAddr::V4(SocketAddrV4::new(GATEWAY, API_PORT))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_node_has_its_own_address_on_the_underlay() {
        let mut seen = std::collections::BTreeSet::from([GATEWAY]);
        for number in 1..=MOST_NODES {
            let address = node_address(number);
            assert!(on_underlay(GATEWAY).contains(address), "{address}");
            assert!(seen.insert(address), "{address} twice");
        }
        assert_eq!(node_address(1).to_string(), "172.30.0.11");
    }

    #[test]
    fn an_underlay_address_keeps_its_host_part() {
        assert_eq!(on_underlay(node_address(3)).to_string(), "172.30.0.13/24");
    }
}
