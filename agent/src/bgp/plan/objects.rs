//! BGPPeers, BGPAdvertisements and Communities (metallb.io), as a node acts upon them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use weft_announce::bfd::session::Timing;
use weft_announce::bfd::sessions::{Peer as Watched, Wanted as Watch};
use weft_announce::bgp::peer::{Distance, Password, Peer, RESTART_TIME, RemoteAs};
use weft_announce::bgp::rib::Announcements;
use weft_announce::bgp::wire::{Attributes, Community, LargeCommunity};
use weft_types::{
    BfdProfile, BgpAdvertisement, BgpPeer, CommunityValue, Family, IpAddressPool, IpNetwork, LabelSelector,
    Labels, NamespacedName, Node, PeerAsn, PeerEndpoint, PeerPassword, Service, Snapshot,
};

use super::passwords::{Passwords, secret_of};
use super::{Told, router_id, uplink_address};
use crate::uplink::Uplink;

/// The farthest that a peer may be away.
const ANYWHERE: u8 = 255;

/// What there is in the cluster, each kind listed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Objects<'a> {
    /// BGPPeers.
    pub(crate) peers: &'a Snapshot,
    /// BGPAdvertisements.
    pub(crate) advertisements: &'a Snapshot,
    /// Communities.
    pub(crate) communities: &'a Snapshot,
    /// IPAddressPools.
    pub(crate) pools: &'a Snapshot,
    /// BFDProfiles; none as long as no peer has one, or they are not listed.
    pub(crate) profiles: Option<&'a Snapshot>,
    /// What is known of the Secrets that peers take passwords from.
    pub(crate) passwords: &'a Passwords,
    /// Services.
    pub(crate) services: &'a Snapshot,
    /// The load balancer addresses that may be on this node.
    pub(crate) here: &'a BTreeSet<IpAddr>,
}

/// The peers that this node has by objects.
#[derive(Debug, Default)]
pub(crate) struct Peers {
    /// What each is told.
    pub(crate) told: Vec<Told>,
    /// Those that BFD is to watch, and how.
    pub(crate) watched: BTreeMap<Watched, Watch>,
    /// What is wrong with the objects.
    pub(crate) problems: BTreeSet<String>,
    /// The BGPPeers whose password is not known, or not any more, and why.
    pub(crate) without_password: BTreeMap<NamespacedName, String>,
}

/// Whether some peer is to be watched by BFD.
pub(crate) fn needs_profiles(peers: &Snapshot) -> bool {
    peers.of::<BgpPeer>().iter().any(|peer| peer.bfd_profile.is_some())
}

/// The peers that this node has by objects.
pub(crate) fn peers(own: &Node, objects: Objects<'_>, uplink: &Uplink) -> Peers {
    let mut peers = Peers::default();
    let routes = routes(own, objects, &mut peers.problems);
    for object in objects.peers.of::<BgpPeer>().iter() {
        if !LabelSelector::any_matches(&object.node_selectors, &own.labels) {
            continue;
        }
        let secret = secret_of(object).and_then(|secret| objects.passwords.get(&secret));
        if let Some(problem) = secret.and_then(|known| known.problem.as_ref()) {
            peers.without_password.insert(object.key.clone(), problem.clone());
            peers.problems.insert(format!("BGPPeer {}: spec.passwordSecret: {problem}", object.key));
        }
        let password = secret.and_then(|known| known.password.clone());
        if password.is_none() && secret_of(object).is_some() {
            continue;
        }
        let mut peer = match peer(own, object, password, uplink) {
            Ok(peer) => peer,
            Err(problem) => {
                peers.problems.insert(format!("BGPPeer {}: {problem}", object.key));
                continue;
            }
        };
        if let Some(name) = &object.bfd_profile {
            let profiles = objects.profiles.map(|profiles| profiles.of::<BfdProfile>());
            match profiles.and_then(|all| all.iter().find(|profile| *profile.key.name == **name)) {
                Some(profile) => {
                    peer.is_watched = true;
                    peers
                        .watched
                        .insert(Watched { address: peer.address, interface: None }, watch(&peer, profile));
                }
                None => {
                    let problem =
                        "there is none of that name, so that a dead peer is left after the hold time";
                    peers
                        .problems
                        .insert(format!("BGPPeer {}: spec.bfdProfile {name}: {problem}", object.key));
                }
            }
        }
        peers.told.push((peer, Arc::new(announcements(object, &routes))));
    }
    peers
}

/// How BFD is to watch a peer.
fn watch(peer: &Peer, profile: &BfdProfile) -> Watch {
    let timing = Timing {
        transmit: profile.transmit_interval,
        receive: profile.receive_interval,
        multiplier: profile.detect_multiplier,
        is_passive: profile.passive,
    };
    Watch { local: peer.source, is_multihop: peer.is_multihop(), timing }
}

/// `secret` is the password that its Secret says.
fn peer(own: &Node, object: &BgpPeer, secret: Option<Password>, uplink: &Uplink) -> Result<Peer, String> {
    let PeerEndpoint::Address(address) = object.endpoint else {
        return Err(
            "spec.interface: sessions without addresses are not spoken; give spec.peerAddress".to_owned()
        );
    };
    if object.vrf.is_some() {
        return Err("spec.vrf: there is no session in a VRF".to_owned());
    }
    let password = match &object.password {
        PeerPassword::None | PeerPassword::Secret(_) => secret,
        PeerPassword::Here(password) => Some(Password(password.0.to_string())),
    };
    let asn = object.local_asn.unwrap_or(object.my_asn);
    let remote = match object.peer_asn {
        PeerAsn::Number(number) => RemoteAs::Number(number),
        PeerAsn::Internal => RemoteAs::Internal,
        PeerAsn::External => RemoteAs::External,
    };
    let seconds = |time: std::time::Duration| u16::try_from(time.as_secs()).unwrap_or(u16::MAX);
    let usual = Peer::new(address, remote, asn, object.router_id.unwrap_or_else(|| router_id(own)));
    let families = if object.dual_stack { Family::BOTH.to_vec() } else { vec![Family::of(address)] };
    let next_hop = |family| Some((family, uplink_address(own, uplink, family)?));
    Ok(Peer {
        name: object.key.name.to_string(),
        port: object.port.get(),
        hold_time: object.hold_time.map_or(usual.hold_time, seconds),
        keepalive: object.keepalive_time.map(seconds),
        connect_retry: object.connect_time.unwrap_or(usual.connect_retry),
        source: object.source_address,
        password,
        distance: if object.ebgp_multi_hop { Distance::Hops(ANYWHERE) } else { Distance::Usual },
        restart_time: object.graceful_restart.then_some(RESTART_TIME),
        next_hops: families.into_iter().filter_map(next_hop).collect(),
        ..usual
    })
}

/// A route, and the names of the peers that are told of it; all where there are none.
type Route<'a> = (IpNetwork, Attributes, &'a [Box<str>]);

/// What advertisements make of the addresses that this node serves.
fn routes<'a>(own: &Node, objects: Objects<'a>, problems: &mut BTreeSet<String>) -> Vec<Route<'a>> {
    let names = aliases(objects.communities);
    let mut routes = Vec::new();
    for advertisement in objects.advertisements.of::<BgpAdvertisement>().iter() {
        if !LabelSelector::any_matches(&advertisement.node_selectors, &own.labels) {
            continue;
        }
        let attributes = attributes(advertisement, &names, problems);
        for service in objects.services.services().filter(|it| is_of(advertisement, it)) {
            let here = service.load_balancer_ips.iter().filter(|it| objects.here.contains(it));
            for &address in here.filter(|it| is_advertised(advertisement, **it, objects.pools)) {
                let prefix = aggregated(advertisement, address);
                routes.extend(prefix.map(|prefix| (prefix, attributes.clone(), &*advertisement.peers)));
            }
        }
    }
    routes
}

fn is_of(advertisement: &BgpAdvertisement, service: &Service) -> bool {
    let labels = service.load_balancer.as_ref().map(|it| &it.labels);
    LabelSelector::any_matches(&advertisement.service_selectors, labels.unwrap_or(&Labels::default()))
}

fn is_advertised(advertisement: &BgpAdvertisement, address: IpAddr, pools: &Snapshot) -> bool {
    pools.of::<IpAddressPool>().iter().any(|pool| {
        pool.ranges.iter().any(|range| range.contains(address))
            && advertisement.pools.selects(&pool.key.name, &pool.labels)
    })
}

fn aggregated(advertisement: &BgpAdvertisement, address: IpAddr) -> Option<IpNetwork> {
    let length = match Family::of(address) {
        Family::V4 => advertisement.aggregation_length,
        Family::V6 => advertisement.aggregation_length_v6,
    };
    let network = IpNetwork::new(address, length).ok()?;
    IpNetwork::new(network.network(), length).ok()
}

/// Names of communities, and what they stand for.
fn aliases(communities: &Snapshot) -> BTreeMap<&str, CommunityValue> {
    let objects = communities.of::<weft_types::Community>().iter();
    objects.flat_map(|object| object.aliases.iter().map(|(name, value)| (&**name, *value))).collect()
}

fn attributes(
    advertisement: &BgpAdvertisement,
    names: &BTreeMap<&str, CommunityValue>,
    problems: &mut BTreeSet<String>,
) -> Attributes {
    let mut attributes = Attributes { local_pref: advertisement.local_pref, ..Attributes::default() };
    for text in &advertisement.communities {
        match names.get(&**text).copied().map_or_else(|| text.parse(), Ok) {
            Ok(CommunityValue::Standard(one, two)) => {
                attributes.communities.push(Community(u32::from(one) << 16 | u32::from(two)));
            }
            Ok(CommunityValue::Large(one, two, three)) => {
                attributes.large_communities.push(LargeCommunity([one, two, three]));
            }
            Err(error) => {
                let key = &advertisement.key;
                problems
                    .insert(format!("BGPAdvertisement {key}: {error}, nor the name of one in a Community"));
            }
        }
    }
    attributes
}

/// What a peer is told: of two advertisements of one prefix it hears the communities of both, and the higher
/// preference.
fn announcements(peer: &BgpPeer, routes: &[Route<'_>]) -> Announcements {
    let mut all: BTreeMap<IpNetwork, Attributes> = BTreeMap::new();
    for (prefix, attributes, names) in routes {
        if !names.is_empty() && !names.iter().any(|name| **name == *peer.key.name) {
            continue;
        }
        let whole = all.entry(*prefix).or_default();
        whole.local_pref = whole.local_pref.max(attributes.local_pref);
        whole.communities.extend(&attributes.communities);
        whole.communities.sort_unstable();
        whole.communities.dedup();
        whole.large_communities.extend(&attributes.large_communities);
        whole.large_communities.sort_unstable();
        whole.large_communities.dedup();
    }
    all.into_iter().map(|(prefix, attributes)| (prefix, Arc::new(attributes))).collect()
}

#[cfg(test)]
mod tests;
