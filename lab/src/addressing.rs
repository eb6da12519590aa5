//! The addresses of every lab. They exist only inside a lab's own namespaces, so that all labs use the same
//! ones and none can collide with the host's. Pure.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use weft_types::{Family, IpNetwork, Ipv4Network, Ipv6Network};

/// The API server's port on the gateway, plain HTTP.
pub const API_PORT: u16 = 6443;
/// The port of the HTTP and UDP echo outside the cluster, on the gateway.
pub const OUTSIDE_ECHO_PORT: u16 = 8080;
/// The DNS zone of the cluster.
pub const CLUSTER_DOMAIN: &str = "cluster.local";
/// The most nodes that a lab can have: their IPv4 addresses end in 11 to 210.
pub const MOST_NODES: u8 = 200;

/// The address families of a lab, as kind's `ipFamily` names them. In a dual-stack lab IPv4 comes first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum IpFamily {
    /// IPv4 and IPv6
    #[default]
    Dual,
    /// IPv4 alone
    Ipv4,
    /// IPv6 alone
    Ipv6,
}

/// Where pods get their addresses from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Ipam {
    /// From the pod CIDR that their Node is given
    #[default]
    NodeCidr,
    /// From small blocks that nodes claim: /29 and /125, given up after 3 seconds
    Blocks,
}

impl Ipam {
    /// As on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Ipam::NodeCidr => "node-cidr",
            Ipam::Blocks => "blocks",
        }
    }
}

impl IpFamily {
    /// The families, the primary one first.
    pub fn families(self) -> &'static [Family] {
        match self {
            IpFamily::Dual => &[Family::V4, Family::V6],
            IpFamily::Ipv4 => &[Family::V4],
            IpFamily::Ipv6 => &[Family::V6],
        }
    }

    /// The addresses for LoadBalancer Services, on the nodes' own network, as the agent's flag has them.
    pub fn load_balancer_pool(self) -> String {
        let ranges = self.families().iter().map(|family| match family {
            Family::V4 => "172.30.0.220-172.30.0.239",
            Family::V6 => "fd00:30::220-fd00:30::239",
        });
        ranges.collect::<Vec<_>>().join(",")
    }

    /// Does the lab have IPv6?
    pub fn has_ipv6(self) -> bool {
        self.families().contains(&Family::V6)
    }

    /// As on the command line.
    pub fn name(self) -> &'static str {
        match self {
            IpFamily::Dual => "dual",
            IpFamily::Ipv4 => "ipv4",
            IpFamily::Ipv6 => "ipv6",
        }
    }

    fn each<T>(self, of: impl Fn(Family) -> T) -> Vec<T> {
        self.families().iter().map(|&family| of(family)).collect()
    }

    /// The nodes' gateways. The API server and all that is "outside" the cluster listens there.
    pub fn gateways(self) -> Vec<IpAddr> {
        self.each(gateway)
    }

    /// The gateway of the primary family.
    pub fn primary_gateway(self) -> IpAddr {
        gateway(self.families()[0])
    }

    /// The addresses of the node with that number, counted from 1.
    pub fn node(self, number: u8) -> Vec<IpAddr> {
        self.each(|family| node_address(family, number))
    }

    /// The ClusterIPs of the Service kube-dns.
    pub fn cluster_dns(self) -> Vec<IpAddr> {
        self.each(|family| match family {
            Family::V4 => Ipv4Addr::new(10, 96, 0, 10).into(),
            Family::V6 => Ipv6Addr::new(0xfd00, 0x10, 0x96, 0, 0, 0, 0, 0xa).into(),
        })
    }

    /// Where pods get their addresses from: 10.244.0.0/16 with a /24 for each node, fd00:10:244::/56 with a
    /// /64.
    pub fn cluster_cidrs(self) -> Vec<IpNetwork> {
        self.each(|family| match family {
            Family::V4 => ipv4(Ipv4Addr::new(10, 244, 0, 0), 16),
            Family::V6 => ipv6(Ipv6Addr::new(0xfd00, 0x10, 0x244, 0, 0, 0, 0, 0), 56),
        })
    }

    /// Where Services get their ClusterIPs from: 10.96.0.0/16 and fd00:10:96::/112.
    pub fn service_cidrs(self) -> Vec<IpNetwork> {
        self.each(|family| match family {
            Family::V4 => ipv4(Ipv4Addr::new(10, 96, 0, 0), 16),
            Family::V6 => ipv6(Ipv6Addr::new(0xfd00, 0x10, 0x96, 0, 0, 0, 0, 0), 112),
        })
    }

    /// The cluster's ranges as the daemons' flag `--cluster-cidr` takes them.
    pub fn cluster_cidr_flag(self) -> String {
        self.cluster_cidrs().iter().map(IpNetwork::to_string).collect::<Vec<_>>().join(",")
    }

    /// The API server as nodes reach it.
    pub fn api_server(self) -> SocketAddr {
        SocketAddr::new(self.primary_gateway(), API_PORT)
    }
}

/// The gateway of a family: 172.30.0.1, fd00:30::1.
fn gateway(family: Family) -> IpAddr {
    match family {
        Family::V4 => Ipv4Addr::new(172, 30, 0, 1).into(),
        Family::V6 => underlay_v6(1).into(),
    }
}

/// A node's address: `172.30.0.(10 + number)`, and `fd00:30::(0x10 + number)`, so that the first nine look
/// alike.
fn node_address(family: Family, number: u8) -> IpAddr {
    let number = number.min(MOST_NODES);
    match family {
        Family::V4 => Ipv4Addr::new(172, 30, 0, 10 + number).into(),
        Family::V6 => underlay_v6(0x10 + u16::from(number)).into(),
    }
}

fn underlay_v6(host: u16) -> Ipv6Addr {
    Ipv6Addr::new(0xfd00, 0x30, 0, 0, 0, 0, 0, host)
}

/// An underlay address with the underlay's prefix length: 172.30.0.0/24 and fd00:30::/64.
pub fn on_underlay(address: IpAddr) -> IpNetwork {
    match address {
        IpAddr::V4(address) => ipv4(address, 24),
        IpAddr::V6(address) => ipv6(address, 64),
    }
}

fn ipv4(address: Ipv4Addr, prefix: u8) -> IpNetwork {
    IpNetwork::V4(Ipv4Network::new_checked(address, prefix).unwrap_or_else(|| address.into()))
}

fn ipv6(address: Ipv6Addr, prefix: u8) -> IpNetwork {
    IpNetwork::V6(Ipv6Network::new_checked(address, prefix).unwrap_or_else(|| address.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_node_has_its_own_addresses_on_the_underlay() {
        let gateways = IpFamily::Dual.gateways();
        let mut seen: std::collections::BTreeSet<IpAddr> = gateways.iter().copied().collect();
        for number in 1..=MOST_NODES {
            for (address, gateway) in IpFamily::Dual.node(number).into_iter().zip(&gateways) {
                assert!(on_underlay(*gateway).contains(address), "{address}");
                assert!(seen.insert(address), "{address} twice");
            }
        }
        let texts: Vec<String> = IpFamily::Dual.node(1).iter().map(IpAddr::to_string).collect();
        assert_eq!(texts, ["172.30.0.11", "fd00:30::11"]);
    }

    #[test]
    fn an_underlay_address_keeps_its_host_part() {
        assert_eq!(on_underlay(IpFamily::Ipv4.node(3)[0]).to_string(), "172.30.0.13/24");
        assert_eq!(on_underlay(IpFamily::Ipv6.node(3)[0]).to_string(), "fd00:30::13/64");
    }

    #[test]
    fn a_lab_of_one_family_has_nothing_of_the_other() {
        assert_eq!(IpFamily::Dual.cluster_cidr_flag(), "10.244.0.0/16,fd00:10:244::/56");
        assert_eq!(IpFamily::Ipv4.cluster_cidr_flag(), "10.244.0.0/16");
        assert_eq!(IpFamily::Ipv6.api_server().to_string(), "[fd00:30::1]:6443");
        assert!(IpFamily::Ipv6.service_cidrs()[0].contains(IpFamily::Ipv6.cluster_dns()[0]));
    }
}
