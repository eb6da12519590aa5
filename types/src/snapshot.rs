//! The cluster at one moment, and what changed since the moment before.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::SystemTime;

use ipnetwork::IpNetwork;

use crate::{EndpointSlice, NamespacedName, Node, Pod, Service};

mod shelf;

use shelf::{Labelled, OfService, Shelf};

/// Everything that a daemon knows of the cluster at one moment. Maps are ordered, so that plans made from equal
/// snapshots are equal too.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    services: Shelf<Box<Service>>,
    endpoint_slices: Shelf<Arc<EndpointSlice>>,
    /// The same ones by their Services, which are of the same namespace.
    slices_by_service: Shelf<OfService>,
    nodes: BTreeMap<String, Node>,
    namespaces: BTreeSet<String>,
    service_cidrs: BTreeMap<String, Vec<IpNetwork>>,
    pods: Shelf<Box<Pod>>,
    config_maps: BTreeMap<NamespacedName, BTreeMap<String, String>>,
}

/// The kinds of object that a snapshot holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// v1 Service
    Service,
    /// discovery.k8s.io/v1 EndpointSlice
    EndpointSlice,
    /// v1 Node
    Node,
    /// v1 Namespace
    Namespace,
    /// networking.k8s.io/v1 ServiceCIDR
    ServiceCidr,
    /// v1 Pod
    Pod,
    /// v1 ConfigMap
    ConfigMap,
}

/// One object of a snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Object {
    /// A Service.
    Service(Service),
    /// An EndpointSlice.
    EndpointSlice(EndpointSlice),
    /// A Node.
    Node(Node),
    /// A Namespace, of which only the name counts.
    Namespace(String),
    /// A ServiceCIDR: its name, and the networks that ClusterIPs are taken from.
    ServiceCidr(String, Vec<IpNetwork>),
    /// A Pod.
    Pod(Pod),
    /// A ConfigMap: its name and its data.
    ConfigMap(NamespacedName, BTreeMap<String, String>),
}

/// The name of one object of a snapshot.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ObjectKey {
    /// A Service's.
    Service(NamespacedName),
    /// An EndpointSlice's own, not its Service's.
    EndpointSlice(NamespacedName),
    /// A Node's.
    Node(String),
    /// A Namespace's.
    Namespace(String),
    /// A ServiceCIDR's.
    ServiceCidr(String),
    /// A Pod's.
    Pod(NamespacedName),
    /// A ConfigMap's.
    ConfigMap(NamespacedName),
}

/// The names of what differs between two moments. A Service counts as changed when one of its EndpointSlices did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ChangeSet {
    /// Services that came, went or changed, or whose endpoints did.
    pub services: BTreeSet<NamespacedName>,
    /// Nodes that came, went or changed.
    pub nodes: BTreeSet<String>,
    /// Namespaces that came or went.
    pub namespaces: BTreeSet<String>,
    /// ServiceCIDRs that came, went or changed.
    pub service_cidrs: BTreeSet<String>,
    /// Pods that came, went or changed.
    pub pods: BTreeSet<NamespacedName>,
    /// ConfigMaps that came, went or changed.
    pub config_maps: BTreeSet<NamespacedName>,
    /// How many times an EndpointSlice came, went or changed.
    pub endpoint_slices: usize,
    /// When that happened in the cluster that made EndpointSlices change, where the cluster says so.
    pub triggered: Vec<SystemTime>,
    /// Objects that cannot be used as they are, each once for its faults.
    pub left_out: Vec<LeftOut>,
}

/// An object that cannot be used, and so is not in the snapshot, or is there without what cannot be used of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeftOut {
    /// Its kind and name, where it has a usable name.
    pub key: Option<ObjectKey>,
    /// What is wrong, in one line that names the field.
    pub fault: String,
}

impl ChangeSet {
    /// Whether nothing changed.
    pub fn is_empty(&self) -> bool {
        self.services.is_empty()
            && self.nodes.is_empty()
            && self.namespaces.is_empty()
            && self.service_cidrs.is_empty()
            && self.pods.is_empty()
            && self.config_maps.is_empty()
            && self.left_out.is_empty()
    }
}

impl Object {
    /// The object's kind and name.
    pub fn key(&self) -> ObjectKey {
        match self {
            Object::Service(service) => ObjectKey::Service(service.key.clone()),
            Object::EndpointSlice(slice) => ObjectKey::EndpointSlice(slice.key.clone()),
            Object::Node(node) => ObjectKey::Node(node.name.clone()),
            Object::Namespace(name) => ObjectKey::Namespace(name.clone()),
            Object::ServiceCidr(name, _) => ObjectKey::ServiceCidr(name.clone()),
            Object::Pod(pod) => ObjectKey::Pod(pod.key.clone()),
            Object::ConfigMap(key, _) => ObjectKey::ConfigMap(key.clone()),
        }
    }
}

impl PartialEq for Snapshot {
    fn eq(&self, other: &Snapshot) -> bool {
        self.services.iter().eq(other.services.iter())
            && self.endpoint_slices.iter().eq(other.endpoint_slices.iter())
            && self.nodes == other.nodes
            && self.namespaces == other.namespaces
            && self.service_cidrs == other.service_cidrs
            && self.pods.iter().eq(other.pods.iter())
            && self.config_maps == other.config_maps
    }
}

impl Eq for Snapshot {}

impl Snapshot {
    /// All Services, in the order of their names.
    pub fn services(&self) -> impl Iterator<Item = &Service> {
        self.services.iter().map(|service| &**service)
    }

    /// One Service.
    pub fn service(&self, key: &NamespacedName) -> Option<&Service> {
        self.services.get(key).map(|service| &**service)
    }

    /// The EndpointSlices of a Service, in the order of their names. The Service need not exist.
    pub fn slices_of(&self, service: &NamespacedName) -> impl Iterator<Item = &EndpointSlice> {
        self.slices_by_service.slices(service).iter().map(|slice| &**slice)
    }

    /// All Services, in the order of their names, each with its EndpointSlices in the order of theirs.
    pub fn services_with_slices(&self) -> impl Iterator<Item = (&Service, &[Arc<EndpointSlice>])> {
        let mut rest = self.slices_by_service.iter().peekable();
        self.services().map(move |service| {
            // Both are in the order of the Services' names. Some slices' Service is not there.
            while rest.next_if(|slices| slices.label() < &service.key).is_some() {}
            let slices = rest.next_if(|slices| *slices.label() == service.key);
            (service, slices.map(OfService::slices).unwrap_or_default())
        })
    }

    /// All Nodes, in the order of their names.
    pub fn nodes(&self) -> impl Iterator<Item = &Node> {
        self.nodes.values()
    }

    /// One Node.
    pub fn node(&self, name: &str) -> Option<&Node> {
        self.nodes.get(name)
    }

    /// Whether a Namespace exists.
    pub fn has_namespace(&self, name: &str) -> bool {
        self.namespaces.contains(name)
    }

    /// The names of all Namespaces, in order.
    pub fn namespaces(&self) -> impl Iterator<Item = &str> {
        self.namespaces.iter().map(String::as_str)
    }

    /// The networks that ClusterIPs are taken from, by the name of their ServiceCIDR.
    pub fn service_cidrs(&self) -> impl Iterator<Item = (&str, &[IpNetwork])> {
        self.service_cidrs.iter().map(|(name, cidrs)| (name.as_str(), cidrs.as_slice()))
    }

    /// All Pods, in the order of their names.
    pub fn pods(&self) -> impl Iterator<Item = &Pod> {
        self.pods.iter().map(|pod| &**pod)
    }

    /// The data of a ConfigMap; none where there is no such ConfigMap.
    pub fn config_map(&self, key: &NamespacedName) -> Option<&BTreeMap<String, String>> {
        self.config_maps.get(key)
    }

    /// Puts an object in, or replaces the one of its name, and notes the change. An equal object is no change.
    pub fn apply(&mut self, object: Object, changes: &mut ChangeSet) {
        match object {
            Object::Service(mut service) => {
                if self.service(&service.key) != Some(&service) {
                    changes.services.insert(service.key.clone());
                    service.shrink();
                    self.services.put(Box::new(service));
                }
            }
            Object::EndpointSlice(slice) => self.apply_slice(slice, changes),
            Object::Node(node) => {
                if self.nodes.get(&node.name) != Some(&node) {
                    changes.nodes.insert(node.name.clone());
                    self.nodes.insert(node.name.clone(), node);
                }
            }
            Object::Namespace(name) => {
                if self.namespaces.insert(name.clone()) {
                    changes.namespaces.insert(name);
                }
            }
            Object::ServiceCidr(name, cidrs) => {
                if self.service_cidrs.get(&name) != Some(&cidrs) {
                    changes.service_cidrs.insert(name.clone());
                    self.service_cidrs.insert(name, cidrs);
                }
            }
            Object::Pod(pod) => {
                if self.pods.get(&pod.key).is_none_or(|known| **known != pod) {
                    changes.pods.insert(pod.key.clone());
                    self.pods.put(Box::new(pod));
                }
            }
            Object::ConfigMap(key, data) => {
                if self.config_maps.get(&key) != Some(&data) {
                    changes.config_maps.insert(key.clone());
                    self.config_maps.insert(key, data);
                }
            }
        }
    }

    /// Takes an object out and notes the change. An unknown object is no change.
    pub fn delete(&mut self, key: &ObjectKey, changes: &mut ChangeSet) {
        match key {
            ObjectKey::Service(key) => {
                changes.services.extend(self.services.take(key).map(|service| service.key));
            }
            ObjectKey::EndpointSlice(key) => {
                changes.endpoint_slices += usize::from(self.delete_slice(key, changes));
            }
            ObjectKey::Node(name) => {
                changes.nodes.extend(self.nodes.remove(name).map(|node| node.name));
            }
            ObjectKey::Namespace(name) => {
                changes.namespaces.extend(self.namespaces.take(name));
            }
            ObjectKey::ServiceCidr(name) => {
                let gone = self.service_cidrs.remove_entry(name);
                changes.service_cidrs.extend(gone.map(|(name, _)| name));
            }
            ObjectKey::Pod(key) => changes.pods.extend(self.pods.take(key).map(|pod| pod.key)),
            ObjectKey::ConfigMap(key) => {
                changes.config_maps.extend(self.config_maps.remove_entry(key).map(|(key, _)| key));
            }
        }
    }

    /// Makes `objects` all that there is of `kind`, as after a list: those not among them are deleted.
    pub fn replace(&mut self, kind: Kind, objects: Vec<Object>, changes: &mut ChangeSet) {
        let known = self.keys(kind);
        if !known.is_empty() {
            let listed: BTreeSet<ObjectKey> = objects.iter().map(Object::key).collect();
            known.iter().filter(|known| !listed.contains(known)).for_each(|gone| self.delete(gone, changes));
        }
        for object in objects {
            self.apply(object, changes);
        }
    }

    fn keys(&self, kind: Kind) -> Vec<ObjectKey> {
        match kind {
            Kind::Service => {
                self.services.iter().map(|service| ObjectKey::Service(service.key.clone())).collect()
            }
            Kind::EndpointSlice => {
                let key = |slice: &Arc<EndpointSlice>| ObjectKey::EndpointSlice(slice.key.clone());
                self.endpoint_slices.iter().map(key).collect()
            }
            Kind::Node => self.nodes.keys().cloned().map(ObjectKey::Node).collect(),
            Kind::Namespace => self.namespaces.iter().cloned().map(ObjectKey::Namespace).collect(),
            Kind::ServiceCidr => self.service_cidrs.keys().cloned().map(ObjectKey::ServiceCidr).collect(),
            Kind::Pod => self.pods().map(|pod| ObjectKey::Pod(pod.key.clone())).collect(),
            Kind::ConfigMap => self.config_maps.keys().cloned().map(ObjectKey::ConfigMap).collect(),
        }
    }

    fn apply_slice(&mut self, mut slice: EndpointSlice, changes: &mut ChangeSet) {
        if self.endpoint_slices.get(&slice.key).is_some_and(|known| **known == slice) {
            return;
        }
        // The slice may have been another Service's until now: that Service changes too.
        self.delete_slice(&slice.key, changes);
        changes.endpoint_slices += 1;
        changes.services.insert(slice.service.clone());
        slice.shrink();
        let slice = Arc::new(slice);
        self.slices_by_service.add(slice.clone());
        self.endpoint_slices.put(slice);
    }

    /// Returns whether there was one.
    fn delete_slice(&mut self, key: &NamespacedName, changes: &mut ChangeSet) -> bool {
        let Some(slice) = self.endpoint_slices.take(key) else { return false };
        self.slices_by_service.remove(&slice);
        changes.services.insert(slice.service.clone());
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ServiceKind;

    fn name(name: &str) -> NamespacedName {
        NamespacedName::new("shop", name)
    }

    fn service(key: &str) -> Object {
        Object::Service(Service::new(name(key), ServiceKind::Headless, Vec::new()))
    }

    fn slice(key: &str, service: &str) -> Object {
        Object::EndpointSlice(EndpointSlice {
            key: name(key),
            service: name(service),
            ports: Vec::new(),
            endpoints: Vec::new(),
        })
    }

    fn slices(snapshot: &Snapshot, service: &str) -> Vec<String> {
        snapshot.slices_of(&name(service)).map(|slice| slice.key.name.clone()).collect()
    }

    #[test]
    fn an_equal_object_is_no_change() {
        let (mut snapshot, mut changes) = (Snapshot::default(), ChangeSet::default());
        snapshot.apply(service("db"), &mut changes);
        snapshot.apply(slice("db-1", "db"), &mut changes);
        assert!(!changes.is_empty());
        let mut again = ChangeSet::default();
        snapshot.apply(service("db"), &mut again);
        snapshot.apply(slice("db-1", "db"), &mut again);
        assert!(again.is_empty());
    }

    #[test]
    fn a_slice_that_moves_changes_both_services() {
        let (mut snapshot, mut changes) = (Snapshot::default(), ChangeSet::default());
        snapshot.apply(slice("s", "old"), &mut ChangeSet::default());
        snapshot.apply(slice("s", "new"), &mut changes);
        assert_eq!(changes.services, BTreeSet::from([name("old"), name("new")]));
        assert_eq!(changes.endpoint_slices, 1);
        assert_eq!((slices(&snapshot, "old"), slices(&snapshot, "new")), (vec![], vec!["s".to_owned()]));
    }

    #[test]
    fn a_list_deletes_what_it_does_not_hold() {
        let mut snapshot = Snapshot::default();
        snapshot.apply(service("stays"), &mut ChangeSet::default());
        snapshot.apply(service("goes"), &mut ChangeSet::default());
        snapshot.apply(slice("goes-1", "goes"), &mut ChangeSet::default());
        let mut changes = ChangeSet::default();
        snapshot.replace(Kind::Service, vec![service("stays"), service("comes")], &mut changes);
        assert_eq!(changes.services, BTreeSet::from([name("goes"), name("comes")]));
        assert_eq!(slices(&snapshot, "goes"), ["goes-1"], "another kind's objects stay");
    }

    #[test]
    fn services_come_with_their_own_slices() {
        let mut snapshot = Snapshot::default();
        let services = ["a", "c", "d", "f"].map(service);
        let slices = [("c-1", "c"), ("b-1", "b"), ("f-1", "f"), ("c-2", "c"), ("e-1", "e"), ("g-1", "g")];
        let slices = slices.map(|(key, service)| slice(key, service));
        services.into_iter().chain(slices).for_each(|it| snapshot.apply(it, &mut ChangeSet::default()));
        for (service, slices) in snapshot.services_with_slices() {
            assert!(
                slices.iter().map(|slice| &**slice).eq(snapshot.slices_of(&service.key)),
                "{}",
                service.key
            );
        }
        let counts: Vec<usize> = snapshot.services_with_slices().map(|(_, slices)| slices.len()).collect();
        assert_eq!(counts, [0, 2, 0, 1]);
    }

    #[test]
    fn deleting_the_last_slice_changes_its_service() {
        let mut snapshot = Snapshot::default();
        snapshot.apply(slice("db-1", "db"), &mut ChangeSet::default());
        let mut changes = ChangeSet::default();
        snapshot.delete(&ObjectKey::EndpointSlice(name("db-1")), &mut changes);
        snapshot.delete(&ObjectKey::EndpointSlice(name("db-1")), &mut changes);
        assert_eq!((changes.services, changes.endpoint_slices), (BTreeSet::from([name("db")]), 1));
        assert_eq!(snapshot, Snapshot::default());
    }
}
