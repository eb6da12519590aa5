//! The WireGuard device in the kernel: made, told of the other nodes, and taken away, each as planned in `plan`.

use std::time::{Instant, SystemTime};

use nix::errno::Errno;
use tracing::info;
use weft_netlink::genl::wireguard::{Device, Settings, WireGuardClient};
use weft_netlink::rtnl::{Link, LinkChange, RtnetlinkClient};

use crate::routing::addresses;
use crate::routing::wireguard::changes::{Endpoints, changes};
use crate::routing::wireguard::key::PublicKey;
use crate::routing::wireguard::key_file;
use crate::routing::wireguard::metrics::Handshakes;
use crate::routing::wireguard::plan::{DEVICE, WireGuard};
use crate::routing::wireguard::silence::Silences;
use crate::{Error, Result};

/// The kind of the device, as the kernel names it.
const KIND: &str = "wireguard";

/// The device, in the network namespace in which this was opened, and what it was told.
#[derive(Debug)]
pub(crate) struct WireGuardDevice {
    client: WireGuardClient,
    endpoints: Endpoints,
    silences: Silences,
    handshakes: Handshakes,
}

impl WireGuardDevice {
    /// In the calling thread's network namespace.
    pub(crate) fn new() -> Result<WireGuardDevice> {
        let (endpoints, silences) = (Endpoints::new(), Silences::default());
        let handshakes = Handshakes::new();
        Ok(WireGuardDevice { client: WireGuardClient::open()?, endpoints, silences, handshakes })
    }

    /// The device's public key, where it is there and has one.
    pub(crate) fn key(&mut self, route: &mut RtnetlinkClient) -> Result<Option<PublicKey>> {
        if route.find_link(DEVICE)?.filter(is_ours).is_none() {
            return Ok(None);
        }
        Ok(self.client.device(DEVICE)?.public_key.map(PublicKey))
    }

    /// Makes the device as planned. Returns its index.
    pub(crate) fn make(
        &mut self,
        route: &mut RtnetlinkClient,
        planned: Option<&WireGuard>,
    ) -> Result<Option<u32>> {
        let Some(plan) = planned else { return Ok(None) };
        let link = match route.find_link(DEVICE)? {
            Some(link) if is_ours(&link) => link,
            Some(link) => return Err(Error::ForeignDevice { name: link.name, kind: "WireGuard" }),
            None => {
                route.add_wireguard(DEVICE, plan.mtu).map_err(refused)?;
                info!("made the device {DEVICE}");
                route.link(DEVICE)?
            }
        };
        self.bring(plan)?;
        let change = LinkChange {
            up: (!link.up).then_some(true),
            mtu: (link.mtu != plan.mtu).then_some(plan.mtu),
            ..LinkChange::default()
        };
        if change != LinkChange::default() {
            route.change_link(link.index, &change).map_err(|problem| self::port(plan, problem))?;
        }
        addresses::add(route, link.index, &plan.addresses, &plan.probe_addresses)?;
        Ok(Some(link.index))
    }

    /// Takes away what is not planned any more: last of all.
    pub(crate) fn prune(&mut self, route: &mut RtnetlinkClient, planned: Option<&WireGuard>) -> Result<()> {
        // Somebody else's by that name stays.
        let Some(link) = route.find_link(DEVICE)?.filter(is_ours) else { return Ok(()) };
        match planned {
            Some(plan) => addresses::delete_others(route, link.index, &plan.addresses, &plan.probe_addresses),
            None => {
                route.delete_link(link.index)?;
                self.endpoints.clear();
                info!("deleted the device {DEVICE}");
                Ok(())
            }
        }
    }

    /// When each node was heard last, by the last look ([`WireGuardDevice::silent`]).
    pub(crate) fn handshakes(&self) -> &Handshakes {
        &self.handshakes
    }

    /// The nodes to which packets go and that do not answer.
    pub(crate) fn silent(&mut self, planned: Option<&WireGuard>) -> Result<Vec<Error>> {
        self.handshakes.clear();
        let Some(plan) = planned else { return Ok(Vec::new()) };
        let device = self.client.device(DEVICE)?;
        let last = |key| device.peers.iter().find(|held| held.public_key == key)?.last_handshake;
        self.handshakes = plan.peers.iter().map(|(node, peer)| (node.clone(), last(peer.key.0))).collect();
        let silent = self.silences.look(&device, Instant::now(), SystemTime::now());
        let peers = plan.peers.iter().filter(|(_, peer)| silent.contains(&peer.key.0));
        Ok(peers
            .map(|(node, peer)| Error::WireGuardSilence { node: node.clone(), endpoint: peer.endpoint })
            .collect())
    }

    /// Gives the device its key, its port and its peers.
    fn bring(&mut self, plan: &WireGuard) -> Result<()> {
        let held = self.client.device(DEVICE)?;
        let mut key = key_file::read_or_make(&plan.settings.key_file)?;
        let is_retired = plan.retired.is_some() && plan.retired == held.public_key.map(PublicKey);
        if is_retired && held.private_key == Some(key) {
            key = key_file::make(&plan.settings.key_file)?;
        }
        let changes = changes(plan, &key, &held, &self.endpoints, SystemTime::now());
        let result = self.client.set(DEVICE, &changes.settings, &changes.peers);
        result.map_err(|problem| port(plan, problem))?;
        tell(plan, &held, &changes.settings);
        self.endpoints = plan.peers.values().map(|peer| (peer.key, peer.endpoint)).collect();
        Ok(())
    }
}

fn is_ours(link: &Link) -> bool {
    link.kind.as_deref() == Some(KIND)
}

fn refused(problem: weft_netlink::Error) -> Error {
    match problem.errno() {
        Some(Errno::EOPNOTSUPP) => Error::NoWireGuard { problem },
        _ => problem.into(),
    }
}

/// The kernel opens the port when the device is set up, and when an open one gets another.
fn port(plan: &WireGuard, problem: weft_netlink::Error) -> Error {
    match problem.errno() {
        Some(Errno::EADDRINUSE) => Error::WireGuardPort { port: plan.settings.port, problem },
        _ => problem.into(),
    }
}

fn tell(plan: &WireGuard, held: &Device, settings: &Settings) {
    if settings.private_key.is_some() {
        info!(port = plan.settings.port, "gave the device {DEVICE} its key");
    }
    let had = |key: &PublicKey| held.peers.iter().any(|peer| peer.public_key == key.0);
    for (node, peer) in plan.peers.iter().filter(|(_, peer)| !had(&peer.key)) {
        info!(node, key = %peer.key, "packets to the pods of a node are encrypted");
    }
    let has = |key: &PublicKey| plan.peers.values().any(|peer| peer.key == *key);
    for key in held.peers.iter().map(|peer| PublicKey(peer.public_key)).filter(|key| !has(key)) {
        info!(%key, "took away a WireGuard peer that is no node's any more");
    }
}
