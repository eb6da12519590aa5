//! Whom a node speaks BGP with, and what it tells each: from values alone.

pub(crate) mod objects;
pub(crate) mod passwords;

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use weft_announce::bgp::peer::{Distance, Password, Peer, RemoteAs};
use weft_announce::bgp::rib::Announcements;
use weft_announce::bgp::wire::{Attributes, Community};
use weft_types::{Family, IpNetwork, Node, Snapshot, fnv1a_32};

use crate::uplink::Uplink;

/// The longest pause between two tries to reach another node.
const MESH_RETRY: Duration = Duration::from_secs(5);

/// What the flags say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Settings {
    /// The nodes' AS number.
    pub(crate) asn: u32,
    /// Routers, with their AS numbers.
    pub(crate) routers: Vec<(IpAddr, u32)>,
    /// What they are told of.
    pub(crate) announce: BTreeSet<Kind>,
    /// Communities of what they are told of.
    pub(crate) communities: Vec<Community>,
    /// What is taken from them.
    pub(crate) imports: Vec<IpNetwork>,
    /// The password of all sessions.
    pub(crate) password: Option<Password>,
    /// How far away routers of other systems may be.
    pub(crate) hops: Option<u8>,
    /// After how many seconds of silence sessions end.
    pub(crate) hold_time: u16,
    /// For how many seconds peers keep routes while the agent restarts.
    pub(crate) restart_time: Option<u16>,
    /// Where peers may connect to.
    pub(crate) port: Option<u16>,
    /// MetalLB's objects name peers, too.
    pub(crate) reads_objects: bool,
    /// All other nodes are peers.
    pub(crate) is_mesh: bool,
    /// The ways to other nodes' pods come by BGP.
    pub(crate) is_backend: bool,
}

/// A kind of address that routers are told of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Load balancers' addresses (`status.loadBalancer` of Services).
    LoadBalancers,
    /// The pods of this node.
    PodCidrs,
}

/// A peer, and what it is told.
pub(crate) type Told = (Peer, Arc<Announcements>);

impl Settings {
    /// Whether Services need to be known.
    pub(crate) fn needs_services(&self) -> bool {
        self.reads_objects || !self.routers.is_empty() && self.announce.contains(&Kind::LoadBalancers)
    }
}

/// The other nodes as peers, where they are to be. They are told of this node's pods.
pub(crate) fn mesh(own: &Node, cluster: &Snapshot, uplink: &Uplink, settings: &Settings) -> Vec<Told> {
    if !settings.is_mesh {
        return Vec::new();
    }
    let told = Arc::new(pod_cidrs(own, &[]));
    let others = cluster.nodes().filter(|node| node.name != own.name);
    let peers = others.filter_map(|node| {
        let common = |family: &Family| uplink_address(own, uplink, *family).is_some();
        let family = Family::BOTH.into_iter().filter(common).find(|&it| node.address(it).is_some())?;
        let peer = Peer {
            name: format!("node {}", node.name),
            source: uplink_address(own, uplink, family),
            connect_retry: MESH_RETRY,
            // What of it is used is the business of the route plan, which knows the cluster's ranges.
            imports: everything(),
            ..peer(own, uplink, settings, node.address(family)?, settings.asn)
        };
        Some((peer, told.clone()))
    });
    peers.collect()
}

/// The routers that flags name, as peers. They are told of these load balancer addresses.
pub(crate) fn routers(
    own: &Node,
    addresses: &BTreeSet<IpAddr>,
    uplink: &Uplink,
    settings: &Settings,
) -> Vec<Told> {
    let mut told = Announcements::new();
    if settings.announce.contains(&Kind::PodCidrs) || settings.is_backend {
        told.extend(pod_cidrs(own, &settings.communities));
    }
    if settings.announce.contains(&Kind::LoadBalancers) {
        let attributes = attributes(&settings.communities);
        told.extend(addresses.iter().map(|address| (IpNetwork::from(*address), attributes.clone())));
    }
    let told = Arc::new(told);
    let peers = settings.routers.iter().map(|&(address, asn)| {
        let mut peer = peer(own, uplink, settings, address, asn);
        peer.imports = match settings.is_backend && asn == settings.asn {
            // Route reflectors: as if the other nodes themselves told it.
            true => everything(),
            false => settings.imports.clone(),
        };
        if let Some(hops) = settings.hops {
            peer.distance = Distance::Hops(hops);
        }
        (peer, told.clone())
    });
    peers.collect()
}

fn peer(own: &Node, uplink: &Uplink, settings: &Settings, address: IpAddr, asn: u32) -> Peer {
    let next_hop = |family| Some((family, uplink_address(own, uplink, family)?));
    Peer {
        hold_time: settings.hold_time,
        restart_time: settings.restart_time,
        password: settings.password.clone(),
        next_hops: Family::BOTH.into_iter().filter_map(next_hop).collect(),
        ..Peer::new(address, RemoteAs::Number(asn), settings.asn, router_id(own))
    }
}

/// The address by which other machines reach this one.
fn uplink_address(own: &Node, uplink: &Uplink, family: Family) -> Option<IpAddr> {
    uplink.local(family).or_else(|| own.address(family))
}

/// The node's IPv4 address; where it has none, a number made of its name.
fn router_id(own: &Node) -> Ipv4Addr {
    match own.address(Family::V4) {
        Some(IpAddr::V4(address)) => address,
        // Not zero, and of no network that anybody has (RFC 1112 section 4: class E).
        _ => Ipv4Addr::from(0xf000_0000 | fnv1a_32(own.name.as_bytes()) >> 4),
    }
}

fn everything() -> Vec<IpNetwork> {
    ["0.0.0.0/0", "::/0"].iter().filter_map(|text| text.parse().ok()).collect()
}

fn attributes(communities: &[Community]) -> Arc<Attributes> {
    Arc::new(Attributes { communities: communities.to_vec(), ..Attributes::default() })
}

fn pod_cidrs(own: &Node, communities: &[Community]) -> Announcements {
    let attributes = attributes(communities);
    own.pod_cidrs.iter().map(|cidr| (*cidr, attributes.clone())).collect()
}

#[cfg(test)]
mod tests;
