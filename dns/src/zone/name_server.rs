//! The addresses of the zone's own name server, `ns.dns`. Which records it has besides is not known here.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use weft_types::{NamespacedName, Snapshot};

use super::config::ZoneConfig;
use super::service_names::{Node, PackedNode};

/// The Services that the server stands behind, and their addresses as they are answered.
#[derive(Clone, Debug)]
pub(super) struct NameServer {
    services: Arc<BTreeMap<NamespacedName, Box<[IpAddr]>>>,
    node: Arc<PackedNode>,
}

impl NameServer {
    /// A server that stands behind no Service yet: it has the addresses that it listens on.
    pub(super) fn new(config: &ZoneConfig) -> NameServer {
        NameServer { services: Arc::default(), node: Arc::new(PackedNode::of_addresses(&config.listen)) }
    }

    /// The records of its name.
    pub(super) fn node(&self) -> Node<'_> {
        self.node.node()
    }

    /// Sees whether a Service that came, went or changed leads here.
    pub(super) fn note(&mut self, snapshot: &Snapshot, name: &NamespacedName, config: &ZoneConfig) {
        let is_ours = || {
            let mut endpoints = snapshot.slices_of(name).flat_map(|slice| &slice.endpoints);
            !config.listen.is_empty() && endpoints.any(|endpoint| config.listen.contains(&endpoint.address))
        };
        let addresses = snapshot.service(name).filter(|_| is_ours()).map(|service| service.cluster_ips());
        if addresses == self.services.get(name).map(|known| &**known) {
            return;
        }
        let services = Arc::make_mut(&mut self.services);
        match addresses {
            Some(addresses) => services.insert(name.clone(), addresses.into()),
            None => services.remove(name),
        };
        let all: Vec<IpAddr> = services.values().flatten().copied().collect();
        self.node = Arc::new(PackedNode::of_addresses(if all.is_empty() { &config.listen } else { &all }));
    }
}
