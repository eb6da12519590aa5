//! What has to be done about a WireGuard device, from how it is to how it is planned. Pure.
//!
//! Nothing is set that is as planned: sessions go on, and a restart of the agent changes nothing. A peer's
//! endpoint is left as the kernel has learned it while packets come from there; it is told another one where
//! the other node has told of another one, or has been silent for longer than a session lasts.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use weft_netlink::genl::wireguard::{self as kernel, Device, Key, PeerChange, Settings};
use weft_types::IpNetwork;

use crate::routing::wireguard::key::PublicKey;
use crate::routing::wireguard::plan::{Peer, WireGuard};

/// After so long without a handshake a session is over (`REJECT_AFTER_TIME`).
pub(crate) const SESSION: Duration = Duration::from_secs(180);

/// The endpoints that were set, by peers.
pub type Endpoints = BTreeMap<PublicKey, Option<SocketAddr>>;

/// What is to be set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Of the device.
    pub settings: Settings,
    /// Of its peers, in this order.
    pub peers: Vec<PeerChange>,
}

/// The changes from a device as it is. `private_key` is the one that it must have, `set` what was set as
/// endpoints before.
pub fn changes(
    plan: &WireGuard,
    private_key: &Key,
    held: &Device,
    set: &Endpoints,
    now: SystemTime,
) -> Changes {
    let settings = Settings {
        private_key: (held.private_key != Some(*private_key)).then_some(*private_key),
        port: (held.port != plan.settings.port).then_some(plan.settings.port),
    };
    let mut stale: BTreeMap<Key, &kernel::Peer> =
        held.peers.iter().map(|peer| (peer.public_key, peer)).collect();
    let mut peers = Vec::new();
    for planned in plan.peers.values() {
        let keepalive = plan.settings.keepalive;
        let change = match stale.remove(&planned.key.0) {
            None => PeerChange {
                endpoint: planned.endpoint,
                keepalive,
                allowed: planned.allowed.iter().copied().collect(),
                ..PeerChange::default()
            },
            Some(held) => {
                let is_known = set.get(&planned.key).is_none_or(|endpoint| *endpoint == planned.endpoint);
                change(planned, held, keepalive, is_known, now)
            }
        };
        let is_new = !held.peers.iter().any(|held| held.public_key == planned.key.0);
        if is_new || change != PeerChange::default() {
            peers.push(PeerChange { public_key: planned.key.0, ..change });
        }
    }
    // Last, as their networks may have gone to others by now, without a moment in between.
    let gone = stale.into_keys();
    peers.extend(gone.map(|public_key| PeerChange { public_key, remove: true, ..PeerChange::default() }));
    Changes { settings, peers }
}

/// What to change of a peer that is there. `is_known` is whether the other node says no other endpoint than when
/// one was set last.
fn change(
    planned: &Peer,
    held: &kernel::Peer,
    keepalive: Option<u16>,
    is_known: bool,
    now: SystemTime,
) -> PeerChange {
    let allowed: BTreeSet<IpNetwork> = held.allowed.iter().copied().collect();
    let replace_allowed = !allowed.is_subset(&planned.allowed);
    let missing = planned.allowed.iter().filter(|range| replace_allowed || !allowed.contains(range));
    let is_alive = held.silence(now).is_some_and(|silence| silence < SESSION);
    let is_other = held.endpoint != planned.endpoint && !(is_known && is_alive);
    PeerChange {
        endpoint: planned.endpoint.filter(|_| is_other),
        keepalive: (held.keepalive != keepalive).then_some(keepalive.unwrap_or(0)),
        replace_allowed,
        allowed: missing.copied().collect(),
        ..PeerChange::default()
    }
}

#[cfg(test)]
mod tests;
