//! The zone: every name of the cluster, compiled from a snapshot and immutable from then on. How a question is
//! answered from it is in [`crate::answer`]; how it reaches the server is not known here.

mod branch;
mod config;
mod pods;
mod reverse;

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use weft_types::{ChangeSet, NamespacedName, Service, Snapshot};

use branch::Held;
pub use branch::{Branch, Node, ServiceRecord};
pub use config::{InvalidZone, PodNames, ZoneConfig, ZoneName};
pub use pods::PodTable;
pub use reverse::{Pointer, reverse_address};

use crate::name::wire_label;
use crate::reason::Reason;
use reverse::ReverseTable;

/// The version of the DNS specification that the zone follows, as `dns-version` says it (S2.2).
pub const SPEC_VERSION: &str = "1.1.0";

/// The cluster's names at one moment. Cheap to derive from the zone before it: unchanged Services are shared.
#[derive(Debug)]
pub struct Zone {
    config: Arc<ZoneConfig>,
    serial: u32,
    synced: bool,
    /// Labels in wire form.
    namespaces: HashSet<Box<[u8]>>,
    /// `<service>.<namespace>` in wire form -> all that there is at and under that Service's name.
    services: HashMap<Arc<[u8]>, Arc<Branch>>,
    /// The same for Services that have no names -> why.
    nameless: HashMap<Arc<[u8]>, Reason>,
    reverse: ReverseTable,
    name_server: Held,
    pods: Arc<PodTable>,
}

impl Zone {
    /// The zone before the cluster has been listed once: it has no names yet, and says so.
    pub fn unsynced(config: Arc<ZoneConfig>) -> Zone {
        Zone {
            config,
            serial: 0,
            synced: false,
            namespaces: HashSet::new(),
            services: HashMap::new(),
            nameless: HashMap::new(),
            reverse: ReverseTable::default(),
            name_server: Held::default(),
            pods: Arc::default(),
        }
    }

    /// Compiles the whole zone. `serial` is the SOA's: seconds since 1970 at the last change.
    pub fn compile(snapshot: &Snapshot, config: Arc<ZoneConfig>, serial: u32) -> Zone {
        let mut zone = Zone::unsynced(config);
        zone.services.reserve(snapshot.services().count());
        for service in snapshot.services() {
            zone.put(snapshot, service);
        }
        zone.pods = Arc::new(PodTable::new(snapshot));
        zone.finish(snapshot, serial)
    }

    /// The zone of `snapshot` with the settings of this one, whatever this one holds.
    pub fn renewed(&self, snapshot: &Snapshot, serial: u32) -> Zone {
        Zone::compile(snapshot, self.config.clone(), serial)
    }

    /// The zone after `changes`, which lead to `snapshot`. Equal to compiling it whole.
    pub fn recompile(&self, snapshot: &Snapshot, changes: &ChangeSet, serial: u32) -> Zone {
        if !self.synced {
            return self.renewed(snapshot, serial);
        }
        let mut zone = Zone::unsynced(self.config.clone());
        (zone.services, zone.nameless) = (self.services.clone(), self.nameless.clone());
        for name in &changes.services {
            if let Some(key) = service_key(name) {
                zone.services.remove(&*key);
                zone.nameless.remove(&*key);
            }
            if let Some(service) = snapshot.service(name) {
                zone.put(snapshot, service);
            }
        }
        let same = changes.pods.is_empty();
        zone.pods = if same { self.pods.clone() } else { Arc::new(PodTable::new(snapshot)) };
        zone.finish(snapshot, serial)
    }

    fn put(&mut self, snapshot: &Snapshot, service: &Service) {
        let Some(key) = service_key(&service.key) else { return };
        match Branch::compile(&key, service, || snapshot.slices_of(&service.key)) {
            Ok(branch) => {
                self.services.insert(key, Arc::new(branch));
            }
            Err(reason) => {
                self.nameless.insert(key, reason);
            }
        }
    }

    fn finish(mut self, snapshot: &Snapshot, serial: u32) -> Zone {
        // A name must not exist below one that does not (RFC 8020): where a Service is seen before its
        // namespace, the namespace exists too. Services come in the order of their namespaces.
        let mut names: Vec<&str> =
            snapshot.services().map(|service| service.key.namespace.as_str()).collect();
        names.dedup();
        names.extend(snapshot.namespaces());
        self.namespaces = names.into_iter().filter_map(|name| wire_label(name).ok()).collect();
        self.reverse = ReverseTable::new(self.services.values());
        self.name_server = name_server(snapshot, &self.config);
        self.serial = serial;
        self.synced = true;
        self
    }

    /// What the zone was compiled with.
    pub fn config(&self) -> &ZoneConfig {
        &self.config
    }

    /// The SOA's serial number.
    pub fn serial(&self) -> u32 {
        self.serial
    }

    /// Whether the cluster is known, be it from a former time: before that, absence means nothing.
    pub fn is_synced(&self) -> bool {
        self.synced
    }

    /// Whether a namespace exists. `label` is in wire form.
    pub fn has_namespace(&self, label: &[u8]) -> bool {
        self.namespaces.contains(label)
    }

    /// All that there is at and under `<service>.<namespace>.svc`. `key` is the first two labels in wire form.
    pub fn service(&self, key: &[u8]) -> Option<&Branch> {
        self.services.get(key).map(Arc::as_ref)
    }

    /// Why there is no branch for a Service of an existing namespace. `key` is the first two labels in wire form.
    pub fn missing(&self, key: &[u8]) -> Reason {
        match self.services.contains_key(key) {
            true => Reason::NotUnderService,
            false => self.nameless.get(key).copied().unwrap_or(Reason::NoService),
        }
    }

    /// The pods, where they are watched.
    pub fn pods(&self) -> &PodTable {
        &self.pods
    }

    /// Every Service that has names, in no order.
    pub fn services(&self) -> impl Iterator<Item = &Branch> {
        self.services.values().map(Arc::as_ref)
    }

    /// Every namespace's label in wire form, in no order.
    pub fn namespaces(&self) -> impl Iterator<Item = &[u8]> {
        self.namespaces.iter().map(AsRef::as_ref)
    }

    /// The names that an address of the cluster has; none for a foreign address.
    pub fn pointers(&self, address: IpAddr) -> &[Pointer] {
        self.reverse.of(address)
    }

    /// Every address that has a name, in order.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.reverse.addresses()
    }

    /// The node of `ns.dns`, where the zone's own name server lives.
    pub fn name_server(&self) -> Node<'_> {
        self.name_server.node()
    }
}

/// The first two labels of a Service's name in wire form; none where Kubernetes would not have taken the name.
fn service_key(name: &NamespacedName) -> Option<Arc<[u8]>> {
    let (service, namespace) = (wire_label(&name.name).ok()?, wire_label(&name.namespace).ok()?);
    Some([service, namespace].concat().into())
}

/// The server's own addresses: the ClusterIPs of a Service that it stands behind, or else those it listens on.
fn name_server(snapshot: &Snapshot, config: &ZoneConfig) -> Held {
    let is_ours = |service: &&Service| {
        let mut endpoints = snapshot.slices_of(&service.key).flat_map(|slice| &slice.endpoints);
        !config.listen.is_empty() && endpoints.any(|endpoint| config.listen.contains(&endpoint.address))
    };
    let through: Vec<IpAddr> = snapshot
        .services()
        .filter(is_ours)
        .flat_map(|service| service.cluster_ips().iter().copied())
        .collect();
    Held::of_addresses(if through.is_empty() { &config.listen } else { &through })
}

/// Sorts addresses into the two families, each in order and once.
fn by_family(addresses: impl IntoIterator<Item = IpAddr>) -> (Box<[Ipv4Addr]>, Box<[Ipv6Addr]>) {
    let (mut v4, mut v6) = (Vec::new(), Vec::new());
    for address in addresses {
        match address {
            IpAddr::V4(address) => v4.push(address),
            IpAddr::V6(address) => v6.push(address),
        }
    }
    v4.sort_unstable();
    v4.dedup();
    v6.sort_unstable();
    v6.dedup();
    (v4.into(), v6.into())
}
