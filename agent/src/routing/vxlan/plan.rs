//! The VXLAN tunnel to nodes that share no link with this one: the device, and what it is told of the other
//! nodes. Values only; asking the kernel is in `device`.
//!
//! Each pod CIDR's first address, which no pod gets, is its node's on the device. For another node's pod CIDR
//! there are a route via that address, a neighbour entry with the Ethernet address behind it, and a
//! forwarding entry with the node behind that. Nothing is learnt from packets. Ethernet addresses are derived
//! from the nodes' own, so that every node knows them without a word.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

use weft_types::{Family, IpNetwork, Node, fnv1a};

use crate::uplink::Uplink;

/// The device's name.
pub const DEVICE: &str = weft_types::well_known::device::VXLAN;
/// Where the node's own link has no MTU to go by, that of Ethernet.
const ETHERNET_MTU: u32 = 1500;

/// The settings that all nodes of a cluster share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The VXLAN network identifier, of 24 bits.
    pub vni: u32,
    /// The UDP port.
    pub port: u16,
}

/// An Ethernet address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct EthernetAddress(pub [u8; 6]);

/// The VXLAN device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Device {
    /// Its Ethernet address.
    pub mac: EthernetAddress,
    /// In bytes.
    pub mtu: u32,
    /// What all nodes share.
    pub settings: Settings,
    /// The address that the outer packets leave from.
    pub local: IpAddr,
}

/// The device and all that it knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Overlay {
    /// The device.
    pub device: Device,
    /// Its addresses: the first of each of this node's pod CIDRs.
    pub addresses: Vec<IpNetwork>,
    /// Further ones, which no packet has by itself: between those of two nodes direct paths are tried.
    pub probe_addresses: Vec<IpNetwork>,
    /// The other nodes behind it, by their Ethernet addresses.
    pub remotes: BTreeMap<EthernetAddress, IpAddr>,
    /// The gateways to their pods, and their Ethernet addresses.
    pub neighbours: BTreeMap<IpAddr, EthernetAddress>,
}

impl Overlay {
    /// The device of `node`, which knows of nobody yet; nothing if the node has no address.
    pub(crate) fn new(node: &Node, settings: Settings, uplink: &Uplink) -> Option<Overlay> {
        let announced = outer(node, uplink)?;
        let local = uplink.local(Family::of(announced)).unwrap_or(announced);
        let mtu = inner_mtu(local, uplink.mtu.unwrap_or(ETHERNET_MTU));
        let addresses = node.pod_cidrs.iter().map(|cidr| gateway(cidr).into()).collect();
        let device = Device { mac: mac(announced), mtu, settings, local };
        let (remotes, neighbours) = (BTreeMap::new(), BTreeMap::new());
        Some(Overlay { device, addresses, probe_addresses: Vec::new(), remotes, neighbours })
    }

    /// The same with addresses from which direct paths are tried.
    pub(crate) fn with_probe_addresses(self, node: &Node) -> Overlay {
        Overlay { probe_addresses: probe_addresses(node), ..self }
    }

    /// Notes that the pods of `cidr` are behind that node. Returns whether it has an address that a tunnel
    /// can lead to.
    pub(crate) fn add(&mut self, node: &Node, cidr: &IpNetwork) -> bool {
        let family = Family::of(self.device.local);
        let Some(remote) = node.address(family) else { return false };
        self.remotes.insert(mac(remote), remote);
        self.neighbours.insert(gateway(cidr), mac(remote));
        true
    }

    /// The family of the addresses between which the tunnel leads.
    pub(crate) fn family(&self) -> Family {
        Family::of(self.device.local)
    }
}

/// The address under which a pod CIDR's node is known inside of the tunnel.
pub(crate) fn gateway(cidr: &IpNetwork) -> IpAddr {
    cidr.network()
}

/// Another address of a pod CIDR's node, which no pod gets either: the gateway's. It is on the bridge as soon
/// as that is there.
pub(crate) fn probe_address(cidr: &IpNetwork) -> Option<IpAddr> {
    cidr.iter().nth(1)
}

/// Those of all of a node's pod CIDRs.
pub(crate) fn probe_addresses(node: &Node) -> Vec<IpNetwork> {
    node.pod_cidrs.iter().filter_map(probe_address).map(IpNetwork::from).collect()
}

/// The largest packet that fits into the tunnel of a link with that MTU: Ethernet, VXLAN and UDP headers and
/// the outer IP header are added (RFC 7348 section 5).
fn inner_mtu(local: IpAddr, link: u32) -> u32 {
    let overhead = 14 + 8 + 8 + if local.is_ipv4() { 20 } else { 40 };
    link.saturating_sub(overhead)
}

/// The address under which the others' tunnels reach this node: IPv4 where the node has it. This end may have
/// another, behind an address translation; the Ethernet address follows from the one that all know.
fn outer(node: &Node, uplink: &Uplink) -> Option<IpAddr> {
    let is_held = |family: &Family| uplink.local(*family).is_some();
    let announced = |family| node.address(family);
    let held = Family::BOTH.into_iter().filter(is_held).find_map(announced);
    held.or_else(|| Family::BOTH.into_iter().find_map(announced))
}

/// The Ethernet address of a node's device: five bytes of the FNV-1a hash of the node's address behind a byte
/// that says locally administered, unicast.
fn mac(address: IpAddr) -> EthernetAddress {
    let hash = match address {
        IpAddr::V4(address) => fnv1a(address.octets()),
        IpAddr::V6(address) => fnv1a(address.octets()),
    };
    let [_, _, _, a, b, c, d, e] = (hash ^ hash >> 32).to_be_bytes();
    EthernetAddress([0x0e, a, b, c, d, e])
}

impl fmt::Display for EthernetAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

/// As commands that add them to a device, so that no packet has them by itself.
pub(crate) fn write_probe_addresses(
    f: &mut fmt::Formatter<'_>,
    addresses: &[IpNetwork],
    device: &str,
) -> fmt::Result {
    addresses.iter().try_for_each(|address| {
        let kept = if address.is_ipv4() { "scope link" } else { "preferred_lft 0" };
        writeln!(f, "ip address add {address} dev {device} {kept}")
    })
}

/// As commands that would bring it about.
impl fmt::Display for Overlay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Device { mac, mtu, settings: Settings { vni, port }, local } = self.device;
        writeln!(
            f,
            "ip link add {DEVICE} address {mac} mtu {mtu} type vxlan id {vni} dstport {port} local {local} nolearning"
        )?;
        for address in &self.addresses {
            writeln!(f, "ip address add {address} dev {DEVICE}")?;
        }
        write_probe_addresses(f, &self.probe_addresses, DEVICE)?;
        writeln!(f, "ip link set {DEVICE} up")?;
        for (mac, remote) in &self.remotes {
            writeln!(f, "bridge fdb replace {mac} dev {DEVICE} dst {remote} self permanent")?;
        }
        for (gateway, mac) in &self.neighbours {
            writeln!(f, "ip neighbour replace {gateway} lladdr {mac} dev {DEVICE} nud permanent")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ethernet_addresses_are_local_unicast_and_differ() {
        let addresses: Vec<IpAddr> = (0..=255u8)
            .flat_map(|last| {
                [IpAddr::from([172, 30, 0, last]), IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, u16::from(last)])]
            })
            .collect();
        let macs: std::collections::BTreeSet<EthernetAddress> =
            addresses.iter().map(|&address| mac(address)).collect();
        assert_eq!(macs.len(), addresses.len());
        assert!(macs.iter().all(|mac| mac.0[0] & 0b11 == 0b10));
    }

    #[test]
    fn the_headers_of_both_families_fit() {
        assert_eq!(inner_mtu("172.30.0.11".parse().unwrap(), 1500), 1450);
        assert_eq!(inner_mtu("fd00:30::11".parse().unwrap(), 1500), 1430);
    }
}
