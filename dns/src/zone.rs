//! The zone: every name of the cluster, compiled from a snapshot and immutable from then on. How a query is
//! answered from it is in [`crate::pipeline::classify`]; how it reaches the server is not known here.

mod absence;
mod config;
mod dashed;
mod domain;
mod name_server;
mod pods;
mod reverse;
mod service_names;
mod services;
mod stub_domains;

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use weft_types::{ChangeSet, NamespacedName, Service, Snapshot};

pub use absence::Absence;
pub use config::{Exposure, PodNames, ZoneConfig};
pub(crate) use dashed::pod_address;
pub use domain::{InvalidZone, ZoneName};
pub use pods::PodTable;
pub use reverse::{Pointer, reverse_address};
pub use service_names::{Node, ServiceNames, ServiceRecord, ServiceRecords};
pub use stub_domains::StubDomains;

use crate::wire::name::{QueryName, wire_label};
use name_server::NameServer;
use reverse::ReverseTable;
use services::Services;

/// The version of the DNS specification that the zone follows, as `dns-version` says it (S2.2).
pub const SPEC_VERSION: &str = "1.1.0";

/// The cluster's names at one moment. Cheap to derive from the zone before it: the two share all that did not
/// change.
#[derive(Clone, Debug)]
pub struct Zone {
    config: Arc<ZoneConfig>,
    serial: u32,
    synced: bool,
    /// Labels in wire form.
    namespaces: Arc<HashSet<Box<[u8]>>>,
    /// All that there is at and under each Service's name.
    services: Services,
    /// `<service>.<namespace>` in wire form, of Services that have no names -> why.
    nameless: Arc<HashMap<Box<[u8]>, Absence>>,
    reverse: ReverseTable,
    name_server: NameServer,
    pods: Arc<PodTable>,
}

impl Zone {
    /// The zone before the cluster has been listed once: it has no names yet, and says so.
    pub fn unsynced(config: Arc<ZoneConfig>) -> Zone {
        Zone {
            name_server: NameServer::new(&config),
            config,
            serial: 0,
            synced: false,
            namespaces: Arc::default(),
            services: Services::default(),
            nameless: Arc::default(),
            reverse: ReverseTable::default(),
            pods: Arc::default(),
        }
    }

    /// Compiles the whole zone. `serial` is the SOA's: seconds since 1970 at the last change.
    pub fn compile(snapshot: &Snapshot, config: Arc<ZoneConfig>, serial: u32) -> Zone {
        let mut zone = Zone::unsynced(config);
        for service in snapshot.services() {
            zone.put(snapshot, service);
            zone.name_server.note(snapshot, &service.key, &zone.config);
        }
        zone.reverse = ReverseTable::new(zone.services.iter());
        zone.namespaces = Arc::new(namespaces(snapshot, &zone.config.exposure));
        zone.pods = Arc::new(PodTable::new(snapshot));
        zone.finish(serial)
    }

    /// The zone of `snapshot` with the settings of this one, whatever this one holds.
    pub fn renewed(&self, snapshot: &Snapshot, serial: u32) -> Zone {
        Zone::compile(snapshot, self.config.clone(), serial)
    }

    /// The zone of nothing yet, with other settings. What it holds is to be compiled anew.
    pub fn with_config(&self, config: Arc<ZoneConfig>) -> Zone {
        Zone { config, ..self.clone() }
    }

    /// The zone after `changes`, which lead to `snapshot`. Equal to compiling it whole, in the time that the
    /// changes take.
    pub fn recompile(&self, snapshot: &Snapshot, changes: &ChangeSet, serial: u32) -> Zone {
        // Labels of a namespace may show or hide all that is in it.
        let hides = self.config.exposure.only_watched_namespaces && !changes.namespaces.is_empty();
        if !self.synced || hides {
            return self.renewed(snapshot, serial);
        }
        let mut zone = self.clone();
        for name in &changes.services {
            zone.replace(snapshot, name);
            zone.name_server.note(snapshot, name, &zone.config);
        }
        if !changes.namespaces.is_empty()
            || !changes.services.iter().all(|name| zone.has_right(snapshot, name))
        {
            zone.namespaces = Arc::new(namespaces(snapshot, &zone.config.exposure));
        }
        if !changes.pods.is_empty() {
            zone.pods = Arc::new(PodTable::new(snapshot));
        }
        zone.finish(serial)
    }

    /// Whether the namespace of a Service that came, went or changed is there or not as it should be, as far
    /// as can be told at once.
    fn has_right(&self, snapshot: &Snapshot, name: &NamespacedName) -> bool {
        let known = wire_label(&name.namespace).is_ok_and(|label| self.has_namespace(&label));
        known && (snapshot.has_namespace(&name.namespace) || snapshot.service(name).is_some())
    }

    /// Puts what there is of a Service in the place of what there was.
    fn replace(&mut self, snapshot: &Snapshot, name: &NamespacedName) {
        let Some(key) = service_key(name) else { return };
        if let Some(old) = self.services.take(&key) {
            self.reverse.take(&old);
        }
        if self.nameless.contains_key(&key) {
            Arc::make_mut(&mut self.nameless).remove(&key);
        }
        if let Some(new) = snapshot.service(name).and_then(|service| self.put(snapshot, service)) {
            self.reverse.put(&new);
        }
    }

    fn put(&mut self, snapshot: &Snapshot, service: &Service) -> Option<ServiceNames> {
        let key = service_key(&service.key)?;
        let exposure = &self.config.exposure;
        if !exposes(snapshot, &service.key.namespace, exposure) {
            return None;
        }
        let slices = || snapshot.slices_of(&service.key);
        match ServiceNames::compile(&key, service, exposure.only_ready_services, slices) {
            Ok(branch) => {
                self.services.put(branch.clone());
                Some(branch)
            }
            Err(reason) => {
                Arc::make_mut(&mut self.nameless).insert(key, reason);
                None
            }
        }
    }

    fn finish(self, serial: u32) -> Zone {
        Zone { serial, synced: true, ..self }
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

    /// All that there is at and under `<service>.<namespace>.svc`. `key` is the first two labels in wire
    /// form.
    pub fn service(&self, key: &[u8]) -> Option<&ServiceNames> {
        self.services.get(key)
    }

    /// How many Services have names.
    pub fn service_count(&self) -> usize {
        self.services.len()
    }

    /// Why a Service of an existing namespace has no names. `key` is the first two labels in wire form.
    pub fn missing(&self, key: &[u8]) -> Absence {
        match self.services.get(key) {
            Some(_) => Absence::NotUnderService,
            None => self.nameless.get(key).copied().unwrap_or(Absence::NoService),
        }
    }

    /// What is missing, where `name` is of the zone but does not exist.
    pub fn absence(&self, name: &QueryName) -> Absence {
        let Some(inner) = name.len().checked_sub(self.config.zone.label_count()) else {
            return Absence::NoMeaning;
        };
        match inner.checked_sub(1).map(|last| (name.label(last), last)) {
            Some((b"pod", _)) if self.config.pods == PodNames::Disabled => Absence::NoPodNames,
            Some((b"svc" | b"pod", kind @ 1..)) if !self.has_namespace(name.wire(kind - 1, kind)) => {
                Absence::NoNamespace
            }
            Some((b"svc", svc @ 2..)) => self.missing(name.wire(svc - 2, svc)),
            Some((b"pod", 2)) if pod_address(name.label(0)).is_some() => Absence::NoPod,
            Some((b"pod", 2..)) => Absence::NoAddress,
            _ => Absence::NoMeaning,
        }
    }

    /// The pods, where they are watched.
    pub fn pods(&self) -> &PodTable {
        &self.pods
    }

    /// Every Service that has names, in no order.
    pub fn services(&self) -> impl Iterator<Item = &ServiceNames> {
        self.services.iter()
    }

    /// Every namespace's label in wire form, in no order.
    pub fn namespaces(&self) -> impl Iterator<Item = &[u8]> {
        self.namespaces.iter().map(AsRef::as_ref)
    }

    /// The names that an address of the cluster has; none for a foreign address.
    pub fn pointers(&self, address: IpAddr) -> &[Pointer] {
        self.reverse.of(address)
    }

    /// Every address that has a name, each once and in order.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.reverse.addresses()
    }

    /// The node of `ns.dns`, where the zone's own name server lives.
    pub fn name_server(&self) -> Node<'_> {
        self.name_server.node()
    }
}

/// The first two labels of a Service's name in wire form; none where Kubernetes would not have taken the
/// name.
fn service_key(name: &NamespacedName) -> Option<Box<[u8]>> {
    let (service, namespace) = (wire_label(&name.name).ok()?, wire_label(&name.namespace).ok()?);
    Some([service, namespace].concat().into())
}

/// Whether what is in a namespace has names.
fn exposes(snapshot: &Snapshot, namespace: &str, exposure: &Exposure) -> bool {
    let named = exposure.namespaces.is_empty() || exposure.namespaces.contains(namespace);
    named && (!exposure.only_watched_namespaces || snapshot.has_namespace(namespace))
}

/// The labels of all namespaces. A name must not exist below one that does not (RFC 8020): where a Service is
/// seen before its namespace, the namespace exists too.
fn namespaces(snapshot: &Snapshot, exposure: &Exposure) -> HashSet<Box<[u8]>> {
    // Services come in the order of their namespaces.
    let mut names: Vec<&str> = snapshot.services().map(|service| service.key.namespace.as_str()).collect();
    names.dedup();
    names.extend(snapshot.namespaces());
    names.retain(|name| exposes(snapshot, name, exposure));
    names.into_iter().filter_map(|name| wire_label(name).ok()).collect()
}
