//! Routes, from one peer's side: what it was told of ours, and what it told of its own. Values in, values
//! out.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use weft_types::{Family, IpNetwork, is_subnet_of};

use crate::bgp::peer::Peer;
use crate::bgp::session::Session;
use crate::bgp::wire::{self, Attributes, GracefulRestart, Refresh, Segment, Update};

/// What is to be announced, and what is said of it. Of the path, the next hop and the preference, what is
/// usual is filled in.
pub type Announcements = BTreeMap<IpNetwork, Arc<Attributes>>;

/// How well a system likes a route of its own, where nobody says otherwise (RFC 4271 leaves it open; this is
/// what routers take).
pub const LOCAL_PREF: u32 = 100;
/// For how long stale routes are kept once their peer is back, until it has told all.
const STALE_TIME: Duration = Duration::from_secs(120);
/// The most next hops that one prefix has.
pub const MOST_WAYS: usize = 16;
/// The most routes that are taken from one peer.
const MOST_ROUTES: usize = 100_000;

/// What a peer was told.
#[derive(Debug, Default)]
pub struct AdjOut {
    told: BTreeMap<IpNetwork, (IpAddr, Arc<Attributes>)>,
    /// The families whose first routes all were told.
    ended: BTreeSet<Family>,
}

impl AdjOut {
    /// The bytes that bring the peer from what it was told to what is wanted. `local` is our end of the
    /// session.
    pub fn sync(&mut self, wanted: &Announcements, peer: &Peer, session: &Session, local: IpAddr) -> Vec<u8> {
        let mut groups: BTreeMap<(Family, IpAddr, Arc<Attributes>), Vec<IpNetwork>> = BTreeMap::new();
        let mut fresh = BTreeMap::new();
        let mut made: BTreeMap<&Arc<Attributes>, Arc<Attributes>> = BTreeMap::new();
        for (&prefix, attributes) in wanted {
            let family = Family::of_network(&prefix);
            let Some(next_hop) = next_hop(family, peer, session, local) else { continue };
            let full =
                made.entry(attributes).or_insert_with(|| Arc::new(completed(attributes, peer, session)));
            let route = (next_hop, full.clone());
            if self.told.get(&prefix) != Some(&route) {
                groups.entry((family, next_hop, route.1.clone())).or_default().push(prefix);
            }
            fresh.insert(prefix, route);
        }
        let gone: Vec<IpNetwork> =
            self.told.keys().filter(|prefix| !fresh.contains_key(prefix)).copied().collect();
        self.told = fresh;
        let (gone4, gone6): (Vec<_>, Vec<_>) = gone.into_iter().partition(IpNetwork::is_ipv4);
        let mut bytes: Vec<u8> =
            [gone4, gone6].iter().flat_map(|gone| wire::withdraw(gone, session.dialect)).collect();
        for ((_, next_hop, attributes), prefixes) in groups {
            bytes.extend(wire::announce(next_hop, &prefixes, &attributes, session.dialect));
        }
        if session.open.capabilities.graceful_restart.is_some() {
            for &family in &session.families {
                if self.ended.insert(family) {
                    bytes.extend(wire::end_of_rib(family));
                }
            }
        }
        bytes
    }

    /// The bytes that tell a family's routes once more, as the peer asked for them (RFC 7313 section 4).
    pub fn refresh(&self, family: Family, session: &Session) -> Vec<u8> {
        let mut groups: BTreeMap<(IpAddr, &Arc<Attributes>), Vec<IpNetwork>> = BTreeMap::new();
        for (&prefix, (next_hop, attributes)) in &self.told {
            if Family::of_network(&prefix) == family {
                groups.entry((*next_hop, attributes)).or_default().push(prefix);
            }
        }
        let is_enhanced = session.open.capabilities.enhanced_refresh;
        let frame = |refresh| if is_enhanced { wire::route_refresh(family, refresh) } else { Vec::new() };
        let mut bytes = frame(Refresh::Begin);
        for ((next_hop, attributes), prefixes) in groups {
            bytes.extend(wire::announce(next_hop, &prefixes, attributes, session.dialect));
        }
        bytes.extend(frame(Refresh::End));
        bytes
    }

    /// What the peer was told.
    pub fn routes(&self) -> impl Iterator<Item = (&IpNetwork, &IpAddr, &Attributes)> {
        self.told.iter().map(|(prefix, (next_hop, attributes))| (prefix, next_hop, &**attributes))
    }
}

/// By which address of ours routes of that family are announced; none where we have none that the peer takes.
fn next_hop(family: Family, peer: &Peer, session: &Session, local: IpAddr) -> Option<IpAddr> {
    if !session.families.contains(&family) {
        return None;
    }
    let own = peer.next_hops.get(&family).copied().unwrap_or(local);
    match (family, own) {
        (Family::V6, IpAddr::V4(_)) => None,
        (Family::V4, IpAddr::V6(_)) if !session.dialect.extended_next_hop => None,
        (_, own) => Some(own),
    }
}

/// With what the session's kind asks for (RFC 4271 sections 5.1.2 and 5.1.5).
fn completed(attributes: &Attributes, peer: &Peer, session: &Session) -> Attributes {
    let mut all = attributes.clone();
    if session.dialect.is_external {
        all.local_pref = None;
        all.as_path = vec![Segment::Sequence(vec![peer.asn])];
    } else {
        all.local_pref = Some(attributes.local_pref.unwrap_or(LOCAL_PREF));
    }
    all
}

/// What a peer told.
#[derive(Debug, Default)]
pub struct AdjIn {
    paths: BTreeMap<IpNetwork, Path>,
    /// When what is stale goes.
    stale_until: Option<Instant>,
    /// The families of which the peer told all.
    ended: BTreeSet<Family>,
    /// How many prefixes were not taken, as they are in no range of [`Peer::imports`].
    refused: u64,
}

/// A way that a peer told of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Path {
    /// Where to send what is for the prefix.
    pub next_hop: IpAddr,
    /// What is said of it.
    pub attributes: Arc<Attributes>,
    /// The peer restarts, or did and has not told of it again.
    pub is_stale: bool,
}

/// More routes than are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooMany;

impl AdjIn {
    /// Takes in what came.
    ///
    /// # Errors
    /// Where it is too much.
    pub fn update(&mut self, update: Update, peer: &Peer) -> Result<(), TooMany> {
        for prefix in &update.withdrawn {
            self.paths.remove(prefix);
        }
        let attributes = Arc::new(update.attributes);
        for reached in update.reached {
            for prefix in reached.prefixes {
                if is_taken(prefix, reached.next_hop, &attributes, peer) {
                    let next_hop = reached.next_hop;
                    let path = Path { next_hop, attributes: attributes.clone(), is_stale: false };
                    self.paths.insert(prefix, path);
                } else {
                    self.refused += 1;
                    self.paths.remove(&prefix);
                }
            }
        }
        if let Some(family) = update.end_of_rib {
            self.ended.insert(family);
            self.paths.retain(|prefix, path| !path.is_stale || Family::of_network(prefix) != family);
        }
        if self.paths.len() > MOST_ROUTES { Err(TooMany) } else { Ok(()) }
    }

    /// The session is up. What is stale is kept of those families of which the peer forwarded packets all the
    /// while (RFC 4724 section 4.2).
    pub fn up(&mut self, session: &Session, now: Instant) {
        self.ended.clear();
        let restart = session.open.capabilities.graceful_restart.as_ref();
        let is_kept = |prefix: &IpNetwork| {
            restart.is_some_and(|it| it.families.get(&Family::of_network(prefix)) == Some(&true))
        };
        self.paths.retain(|prefix, path| !path.is_stale || is_kept(prefix));
        self.stale_until = self.stale_until.map(|_| now + STALE_TIME);
    }

    /// The session is down. Where the peer restarts gracefully, its routes are kept for as long as it said,
    /// counted from the first of several restarts.
    pub fn down(&mut self, kept: Option<&GracefulRestart>, now: Instant) {
        self.ended.clear();
        let Some(restart) = kept else {
            self.paths.clear();
            self.stale_until = None;
            return;
        };
        self.paths.retain(|prefix, _| restart.families.contains_key(&Family::of_network(prefix)));
        let is_first = !self.paths.values().any(|path| path.is_stale);
        self.paths.values_mut().for_each(|path| path.is_stale = true);
        if is_first {
            self.stale_until = Some(now + Duration::from_secs(restart.seconds.into()));
        }
    }

    /// The peer tells all of a family once more: what it does not name until the end is gone (RFC 7313
    /// section 4).
    pub fn refresh_begins(&mut self, family: Family, now: Instant) {
        let of_family = |prefix: &IpNetwork| Family::of_network(prefix) == family;
        self.paths
            .iter_mut()
            .filter(|(prefix, _)| of_family(prefix))
            .for_each(|(_, path)| path.is_stale = true);
        self.stale_until.get_or_insert(now + STALE_TIME);
    }

    /// It told all of that family.
    pub fn refresh_ends(&mut self, family: Family) {
        self.paths.retain(|prefix, path| !path.is_stale || Family::of_network(prefix) != family);
    }

    /// Forgets what is not wanted of a peer with these settings.
    pub fn filter(&mut self, peer: &Peer) {
        self.paths.retain(|prefix, path| is_taken(*prefix, path.next_hop, &path.attributes, peer));
    }

    /// Time passed. Returns whether routes went with it.
    pub fn tick(&mut self, now: Instant) -> bool {
        if self.stale_until.is_none_or(|until| until > now) {
            return false;
        }
        self.stale_until = None;
        let before = self.paths.len();
        self.paths.retain(|_, path| !path.is_stale);
        self.paths.len() != before
    }

    /// When time must pass at the latest.
    pub fn deadline(&self) -> Option<Instant> {
        self.stale_until
    }

    /// The families of which the peer told all.
    pub fn ended(&self) -> &BTreeSet<Family> {
        &self.ended
    }

    /// How many prefixes were told of that are not wanted.
    pub fn refused(&self) -> u64 {
        self.refused
    }

    /// All that was taken.
    pub fn paths(&self) -> &BTreeMap<IpNetwork, Path> {
        &self.paths
    }
}

/// Whether a route is wanted at all: within the ranges, and not by way of ourselves.
fn is_taken(prefix: IpNetwork, next_hop: IpAddr, attributes: &Attributes, peer: &Peer) -> bool {
    let is_loop = peer.is_external() && attributes.passed(peer.asn)
        || attributes.originator_id == Some(peer.router_id)
        || peer.next_hops.values().any(|own| *own == next_hop);
    // What means IPv4 in IPv6 is no address of a router.
    let is_usable = match next_hop {
        IpAddr::V4(address) => !address.is_unspecified() && !address.is_multicast() && !address.is_loopback(),
        IpAddr::V6(address) => {
            let is_special = address.is_unspecified() || address.is_multicast() || address.is_loopback();
            !is_special && address.to_ipv4_mapped().is_none() && !address.is_unicast_link_local()
        }
    };
    !is_loop && is_usable && peer.imports.iter().any(|range| is_subnet_of(&prefix, range))
}

/// A peer, its routes, and whether it is of another system.
pub type Source<'a> = (&'a Peer, &'a AdjIn, bool);

/// The next hops to each prefix.
pub type Routes = BTreeMap<IpNetwork, BTreeSet<IpAddr>>;

/// The best ways to each prefix (RFC 4271 section 9.1.2.2): of those that are equally good the next hops of all, but
/// of no more than [`MOST_WAYS`].
pub fn best<'a>(sources: impl IntoIterator<Item = Source<'a>>) -> Routes {
    let mut best: BTreeMap<IpNetwork, (Rank, BTreeSet<IpAddr>)> = BTreeMap::new();
    for (_, routes, is_external) in sources {
        for (&prefix, path) in routes.paths() {
            let rank = rank(path, is_external);
            let (known, next_hops) = best.entry(prefix).or_insert_with(|| (rank, BTreeSet::new()));
            if rank < *known {
                (*known, *next_hops) = (rank, BTreeSet::new());
            }
            if rank == *known {
                next_hops.insert(path.next_hop);
            }
        }
    }
    // Whatever the order of arrival: the lowest addresses.
    let some = |next_hops: BTreeSet<IpAddr>| next_hops.into_iter().take(MOST_WAYS).collect();
    best.into_iter().map(|(prefix, (_, next_hops))| (prefix, some(next_hops))).collect()
}

/// The lowest is the best. MED goes before the kind of the peer, and is compared between all systems, so that
/// the order of arrival does not matter (RFC 4451). Of paths through other systems the length alone counts.
type Rank = (bool, std::cmp::Reverse<u32>, usize, wire::Origin, u32, bool);

fn rank(path: &Path, is_external: bool) -> Rank {
    let all = &path.attributes;
    (
        // One that is known to stand goes before all else.
        path.is_stale,
        std::cmp::Reverse(all.local_pref.unwrap_or(LOCAL_PREF)),
        all.path_length(),
        all.origin,
        all.med.unwrap_or_default(),
        !is_external,
    )
}

#[cfg(test)]
mod tests;
