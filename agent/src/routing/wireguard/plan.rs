//! The WireGuard device of a node, its peers, and what its Node says of it. Values only; asking the kernel is in
//! `device`.
//!
//! One device leads to all nodes. A route to another node's pods leads into it, whether that node has a key or
//! not: the device sends nothing for whom it has no peer. So nothing leaves unencrypted meanwhile. What no
//! Node has of the cluster's ranges is refused, as it might be a pod's all the same.
//!
//! Each pod CIDR's first address, which no pod gets, is its node's on the device, as in the VXLAN tunnel: what a
//! node itself sends to another one's pods comes from it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use clap::ValueEnum;
use weft_types::well_known::annotation::{WIREGUARD_ENDPOINT, WIREGUARD_KEY};
use weft_types::well_known::device;
use weft_types::{Family, IpNetwork, Node, Snapshot, WireGuardEnd};

use crate::config::Config;
use crate::notice::Notice;
use crate::routing::vxlan::plan::{gateway, probe_addresses, write_probe_addresses};
use crate::routing::wireguard::key::PublicKey;
use crate::uplink::{Backend, LeaveBy, Uplink};

/// The device's name.
pub const DEVICE: &str = device::WIREGUARD;
/// What a packet grows by: an outer header of 40 bytes (IPv6), UDP's of 8, and 32 of WireGuard's own.
pub const OVERHEAD: u32 = 80;
/// Where the node's own link has no MTU to go by, that of Ethernet.
const ETHERNET_MTU: u32 = 1500;

/// What becomes of packets to the pods of a node that has no key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Encryption {
    /// They are held until it has one.
    #[default]
    Strict,
    /// They go through the VXLAN tunnel, unencrypted.
    Prefer,
}

/// The settings of the encrypted tunnel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The UDP port at which this node listens.
    pub port: u16,
    /// After how many seconds without a packet one is sent to each peer, where that is asked for.
    pub keepalive: Option<u16>,
    /// What becomes of packets to nodes without a key.
    pub encryption: Encryption,
    /// Where the node's private key is.
    pub key_file: PathBuf,
}

/// The device, and what is told of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WireGuard {
    /// This node's name.
    pub node: String,
    /// In bytes.
    pub mtu: u32,
    /// What the agent was started with.
    pub settings: Settings,
    /// The device's addresses: the first of each of this node's pod CIDRs.
    pub addresses: Vec<IpNetwork>,
    /// Further ones, which no packet has by itself: between those of two nodes direct paths are tried.
    pub probe_addresses: Vec<IpNetwork>,
    /// The other nodes that have a key, by their names.
    pub peers: BTreeMap<String, Peer>,
    /// The device's public key, as far as it is known.
    pub own: Option<PublicKey>,
    /// The device must not have this key any more.
    pub retired: Option<PublicKey>,
    /// What the Node is to say of this end, where it says something else.
    pub announcement: Option<Announcement>,
}

/// Another node behind the device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its public key.
    pub key: PublicKey,
    /// Where packets get to it; none where that is not known, so that it has to speak first.
    pub endpoint: Option<SocketAddr>,
    /// Its pod CIDRs.
    pub allowed: BTreeSet<IpNetwork>,
}

/// What a Node says of its end of the tunnel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Announcement {
    /// Its public key.
    pub key: PublicKey,
    /// Where packets get to it, one of each family.
    pub endpoints: Vec<SocketAddr>,
}

impl WireGuard {
    /// The device of `own`, with all peers that have a key, and no networks of theirs yet.
    pub(crate) fn new(
        snapshot: &Snapshot,
        own: &Node,
        config: &Config,
        uplink: &Uplink,
    ) -> (WireGuard, Vec<Notice>) {
        let (settings, key) = (config.wireguard.clone(), uplink.wireguard);
        let mut peers = Peers {
            is_held: settings.encryption == Encryption::Strict,
            families: Family::BOTH
                .into_iter()
                .filter(|family| own.address(*family).is_some() || uplink.local(*family).is_some())
                .collect(),
            own: &own.pod_cidrs,
            holders: key.iter().map(|key| (*key, own.name.as_str())).collect(),
            found: BTreeMap::new(),
            notices: Vec::new(),
        };
        for node in snapshot.nodes().filter(|node| node.name != own.name && !node.pod_cidrs.is_empty()) {
            if let Err(notice) = peers.add(node) {
                peers.notices.push(notice);
            }
        }
        let plan = WireGuard {
            node: own.name.clone(),
            mtu: uplink.mtu.unwrap_or(ETHERNET_MTU).saturating_sub(OVERHEAD),
            announcement: key.and_then(|key| announcement(key, settings.port, own, config, uplink)),
            settings,
            addresses: own.pod_cidrs.iter().map(|cidr| gateway(cidr).into()).collect(),
            probe_addresses: if config.backend == Backend::Auto { probe_addresses(own) } else { Vec::new() },
            peers: peers.found,
            own: key,
            retired: own.wireguard.as_deref().and_then(|end| end.retired_key.parse().ok()),
        };
        (plan, peers.notices)
    }

    /// Notes that a node has pods of that range. Returns whether packets to them are encrypted.
    pub(crate) fn add(&mut self, node: &str, cidr: IpNetwork) -> bool {
        // As long as this end has no key, the others cannot take it for one that has.
        let is_ready = self.own.is_some() || self.settings.encryption == Encryption::Strict;
        self.peers.get_mut(node).filter(|_| is_ready).is_some_and(|peer| peer.allowed.insert(cidr))
    }

    /// Whether packets to pods must not leave unencrypted.
    pub(crate) fn is_strict(&self) -> bool {
        self.settings.encryption == Encryption::Strict
    }
}

/// The other nodes, one after the other.
struct Peers<'a> {
    /// Packets to those without a key are held.
    is_held: bool,
    /// The families of this node's addresses.
    families: Vec<Family>,
    /// This node's pod CIDRs, in which no endpoint can be.
    own: &'a [IpNetwork],
    /// Who has which key.
    holders: BTreeMap<PublicKey, &'a str>,
    found: BTreeMap<String, Peer>,
    notices: Vec<Notice>,
}

impl<'a> Peers<'a> {
    /// Takes a node for a peer. Of nodes with the same key, the first by name has it, and this one before all.
    fn add(&mut self, node: &'a Node) -> Result<(), Notice> {
        let (name, is_held) = (node.name.clone(), self.is_held);
        let end = node.wireguard.as_deref().filter(|end| !end.key.is_empty());
        let Some(end) = end else { return Err(Notice::NoWireGuardKey { node: name, is_held }) };
        let key: PublicKey = match end.key.parse() {
            Ok(key) => key,
            Err(problem) => return Err(Notice::NotAWireGuardKey { node: name, problem, is_held }),
        };
        if let Some(holder) = self.holders.get(&key) {
            return Err(Notice::SharedWireGuardKey { node: name, other: (*holder).to_owned(), is_held });
        }
        self.holders.insert(key, &node.name);
        let endpoint = self.endpoint(node, end);
        self.found.insert(name.clone(), Peer { key, endpoint, allowed: BTreeSet::new() });
        endpoint.map(drop).ok_or(Notice::NoWireGuardEndpoint { node: name })
    }

    /// Where packets get to a node from this one: by IPv4 where both have it.
    fn endpoint(&self, node: &Node, end: &WireGuardEnd) -> Option<SocketAddr> {
        let is_of_pods =
            |address| self.own.iter().chain(&node.pod_cidrs).any(|range| range.contains(address));
        let read = end.endpoint.split(',').filter_map(|text| text.trim().parse().ok());
        let usable: Vec<SocketAddr> =
            read.filter(|endpoint| is_somewhere(endpoint) && !is_of_pods(endpoint.ip())).collect();
        let of = |family| usable.iter().copied().find(|endpoint| Family::of(endpoint.ip()) == family);
        self.families.iter().copied().find_map(of)
    }
}

/// What this node's Node should say, unless it does.
fn announcement(
    key: PublicKey,
    port: u16,
    own: &Node,
    config: &Config,
    uplink: &Uplink,
) -> Option<Announcement> {
    let address = |family| match config.leave_by {
        LeaveBy::Node => own.address(family),
        LeaveBy::Addresses(_) | LeaveBy::Interface(_) => uplink.local(family),
    };
    let endpoints = Family::BOTH.into_iter().filter_map(address);
    let endpoints = endpoints.map(|address| SocketAddr::new(address, port)).collect();
    let wanted = Announcement { key, endpoints };
    let said = own.wireguard.as_deref().map(|end| (end.key.as_str(), end.endpoint.as_str()));
    (said != Some((&key.to_string(), &wanted.endpoint()))).then_some(wanted)
}

impl Announcement {
    /// The endpoints as the annotation has them.
    pub fn endpoint(&self) -> String {
        self.endpoints.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
    }
}

/// Whether a packet can be sent there, to one other machine.
fn is_somewhere(endpoint: &SocketAddr) -> bool {
    let is_broadcast = endpoint.ip() == IpAddr::from([255; 4]);
    let address = endpoint.ip();
    let is_mapped = matches!(address, IpAddr::V6(address) if address.to_ipv4_mapped().is_some());
    endpoint.port() != 0
        && !(address.is_unspecified() || address.is_loopback() || address.is_multicast())
        && !(is_broadcast || is_mapped)
}

/// As commands that would bring it about, and what the Node is to say.
impl fmt::Display for WireGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Settings { port, keepalive, key_file, .. } = &self.settings;
        writeln!(f, "ip link add {DEVICE} mtu {} type wireguard", self.mtu)?;
        writeln!(f, "wg set {DEVICE} listen-port {port} private-key {}", key_file.display())?;
        for (name, Peer { key, endpoint, allowed }) in &self.peers {
            write!(f, "wg set {DEVICE} peer {key}")?;
            if let Some(endpoint) = endpoint {
                write!(f, " endpoint {endpoint}")?;
            }
            if let Some(keepalive) = keepalive {
                write!(f, " persistent-keepalive {keepalive}")?;
            }
            let allowed: Vec<String> = allowed.iter().map(ToString::to_string).collect();
            writeln!(f, " allowed-ips {} # {name}", allowed.join(","))?;
        }
        for address in &self.addresses {
            writeln!(f, "ip address add {address} dev {DEVICE}")?;
        }
        write_probe_addresses(f, &self.probe_addresses, DEVICE)?;
        writeln!(f, "ip link set {DEVICE} up")?;
        if let Some(announcement) = &self.announcement {
            let (key, endpoint) = (WIREGUARD_KEY, WIREGUARD_ENDPOINT);
            let Announcement { key: own, .. } = announcement;
            writeln!(
                f,
                "kubectl annotate node --overwrite {} {key}={own} {endpoint}={}",
                self.node,
                announcement.endpoint()
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
