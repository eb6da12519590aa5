//! The cluster at one moment, and what changed since the moment before.

use std::borrow::Borrow;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use ipnetwork::IpNetwork;

use crate::resource::*;
use crate::store::{KeyOf, Name};
use crate::{Changes, NamespacedName, Resource, Store};

/// A kind in the list of `resource.rs`.
pub trait Known: Resource<Key: ToOwned> + Into<Object> {
    /// The kind.
    const KIND: Kind;

    /// One of its names, among those of all kinds.
    fn object_key(key: KeyOf<Self>) -> ObjectKey;

    /// The objects of this kind.
    fn store(snapshot: &Snapshot) -> &Store<Self>;

    #[doc(hidden)]
    fn store_mut(snapshot: &mut Snapshot) -> &mut Store<Self>;

    /// What changed of this kind.
    fn changes(changes: &ChangeSet) -> &Self::Changes;

    #[doc(hidden)]
    fn changes_mut(changes: &mut ChangeSet) -> &mut Self::Changes;
}

macro_rules! snapshot {
    ($($(#[$doc:meta])* $field:ident: $kind:ident,)*) => {
        /// Everything that a daemon knows of the cluster at one moment. Objects are in the order of their
        /// names, so that plans made from equal snapshots are equal too.
        #[derive(Clone, Debug, Default, PartialEq, Eq)]
        pub struct Snapshot {
            $($field: Store<$kind>,)*
        }

        /// The kinds of object that a snapshot holds.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[allow(missing_docs, reason = "each is the kind of the object of its name")]
        pub enum Kind {
            $($kind,)*
        }

        /// One object of a snapshot.
        #[derive(Clone, Debug, PartialEq, Eq)]
        #[allow(missing_docs, reason = "each is the kind of its name")]
        pub enum Object {
            $($kind($kind),)*
        }

        /// The kind and name of one object of a snapshot.
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[allow(missing_docs, reason = "each is the name of an object of that kind")]
        pub enum ObjectKey {
            $($kind(KeyOf<$kind>),)*
        }

        /// What differs between two moments. A Service counts as changed when one of its EndpointSlices did.
        #[derive(Clone, Debug, Default, PartialEq, Eq)]
        pub struct ChangeSet {
            $($(#[$doc])* pub $field: <$kind as Resource>::Changes,)*
            /// When that happened in the cluster that made EndpointSlices change, where the cluster says so.
            pub triggered: Vec<SystemTime>,
            /// Objects that cannot be used as they are, each once for its faults.
            pub invalid: Vec<InvalidObject>,
        }

        impl ChangeSet {
            /// Whether nothing changed.
            pub fn is_empty(&self) -> bool {
                $(Changes::<$kind>::is_empty(&self.$field) &&)* self.invalid.is_empty()
            }
        }

        impl Kind {
            /// The kind, as the API spells it.
            pub fn name(self) -> &'static str {
                match self {
                    $(Kind::$kind => $kind::NAME,)*
                }
            }
        }

        impl Object {
            /// The object's kind and name.
            pub fn key(&self) -> ObjectKey {
                match self {
                    $(Object::$kind(object) => ObjectKey::$kind(Resource::key(object).to_owned()),)*
                }
            }
        }

        impl ObjectKey {
            /// The object's kind.
            pub fn kind(&self) -> Kind {
                match self {
                    $(ObjectKey::$kind(_) => Kind::$kind,)*
                }
            }

            /// The object's namespace, where its kind has one, and its name within it.
            pub fn parts(&self) -> (Option<&str>, &str) {
                match self {
                    $(ObjectKey::$kind(key) => Borrow::<<$kind as Resource>::Key>::borrow(key).parts(),)*
                }
            }
        }

        impl Snapshot {
            /// Puts an object in, or replaces the one of its name, and notes the change. An equal object is
            /// no change.
            pub fn apply(&mut self, object: impl Into<Object>, changes: &mut ChangeSet) {
                match object.into() {
                    $(Object::$kind(object) => self.put(object, changes),)*
                }
            }

            /// Takes an object out and notes the change. An unknown object is no change.
            pub fn delete(&mut self, key: &ObjectKey, changes: &mut ChangeSet) {
                match key {
                    $(ObjectKey::$kind(key) => self.take::<$kind>(key.borrow(), changes),)*
                }
            }

            /// The names of all objects of a kind, in order.
            pub fn keys(&self, kind: Kind) -> Vec<ObjectKey> {
                match kind {
                    $(Kind::$kind => {
                        let keys = self.$field.iter().map(|object| Resource::key(object).to_owned());
                        keys.map(ObjectKey::$kind).collect()
                    })*
                }
            }
        }

        $(
            impl From<$kind> for Object {
                fn from(object: $kind) -> Object {
                    Object::$kind(object)
                }
            }

            impl Known for $kind {
                const KIND: Kind = Kind::$kind;

                fn object_key(key: KeyOf<$kind>) -> ObjectKey {
                    ObjectKey::$kind(key)
                }

                fn store(snapshot: &Snapshot) -> &Store<$kind> {
                    &snapshot.$field
                }

                fn store_mut(snapshot: &mut Snapshot) -> &mut Store<$kind> {
                    &mut snapshot.$field
                }

                fn changes(changes: &ChangeSet) -> &<$kind as Resource>::Changes {
                    &changes.$field
                }

                fn changes_mut(changes: &mut ChangeSet) -> &mut <$kind as Resource>::Changes {
                    &mut changes.$field
                }
            }
        )*
    };
}

crate::for_each_kind!(snapshot);

/// An object that cannot be used, and so is not in the snapshot, or is there without what cannot be used of
/// it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidObject {
    /// Its kind and name, where it has a usable name.
    pub key: Option<ObjectKey>,
    /// What is wrong, in one line that names the field.
    pub fault: String,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Prints as `Service shop/web`.
impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.parts() {
            (Some(namespace), name) => write!(f, "{} {namespace}/{name}", self.kind()),
            (None, name) => write!(f, "{} {name}", self.kind()),
        }
    }
}

impl ChangeSet {
    /// What changed of one kind.
    pub fn of<K: Known>(&self) -> &K::Changes {
        K::changes(self)
    }
}

impl Snapshot {
    /// All objects of one kind.
    pub fn of<K: Known>(&self) -> &Store<K> {
        K::store(self)
    }

    /// All Services, in the order of their names.
    pub fn services(&self) -> impl Iterator<Item = &Service> {
        self.services.iter()
    }

    /// One Service.
    pub fn service(&self, key: &NamespacedName) -> Option<&Service> {
        self.services.get(key)
    }

    /// The EndpointSlices of a Service, in the order of their names. The Service need not exist.
    pub fn slices_of(&self, service: &NamespacedName) -> impl Iterator<Item = &EndpointSlice> {
        self.endpoint_slices.index().slices(service).iter().map(|slice| &**slice)
    }

    /// All Services, in the order of their names, each with its EndpointSlices in the order of theirs.
    pub fn services_with_slices(&self) -> impl Iterator<Item = (&Service, &[Arc<EndpointSlice>])> {
        let mut rest = self.endpoint_slices.index().iter().peekable();
        self.services().map(move |service| {
            // Both are in the order of the Services' names. Some slices' Service is not there.
            while rest.next_if(|(of, _)| **of < service.key).is_some() {}
            let slices = rest.next_if(|(of, _)| **of == service.key);
            (service, slices.map(|(_, slices)| slices).unwrap_or_default())
        })
    }

    /// All Nodes, in the order of their names.
    pub fn nodes(&self) -> impl Iterator<Item = &Node> {
        self.nodes.iter()
    }

    /// One Node.
    pub fn node(&self, name: &str) -> Option<&Node> {
        self.nodes.get(name)
    }

    /// All IPAMBlocks, in the order of their names.
    pub fn ipam_blocks(&self) -> impl Iterator<Item = &IpamBlock> {
        self.ipam_blocks.iter()
    }

    /// Whether a Namespace exists.
    pub fn has_namespace(&self, name: &str) -> bool {
        self.namespaces.get(name).is_some()
    }

    /// The names of all Namespaces, in order.
    pub fn namespaces(&self) -> impl Iterator<Item = &str> {
        self.namespaces.iter().map(|namespace| &*namespace.name)
    }

    /// The networks that ClusterIPs are taken from, by the name of their ServiceCIDR.
    pub fn service_cidrs(&self) -> impl Iterator<Item = (&str, &[IpNetwork])> {
        self.service_cidrs.iter().map(|service_cidr| (&*service_cidr.name, &*service_cidr.cidrs))
    }

    /// All Pods, in the order of their names.
    pub fn pods(&self) -> impl Iterator<Item = &Pod> {
        self.pods.iter()
    }

    /// The data of a ConfigMap; none where there is no such ConfigMap.
    pub fn config_map(&self, key: &NamespacedName) -> Option<&BTreeMap<String, String>> {
        self.config_maps.get(key).map(|config_map| &config_map.data)
    }

    fn put<K: Known>(&mut self, object: K, changes: &mut ChangeSet) {
        let store = K::store_mut(self);
        match store.get(object.key()) {
            Some(known) if *known == object => return,
            // It may have been a part of another Service than it is now.
            Some(known) => changes.services.extend(known.part_of().cloned()),
            None => {}
        }
        changes.services.extend(object.part_of().cloned());
        K::changes_mut(changes).note(&object);
        store.put(object);
    }

    fn take<K: Known>(&mut self, key: &K::Key, changes: &mut ChangeSet) {
        if let Some(gone) = K::store_mut(self).take(key) {
            changes.services.extend(gone.borrow().part_of().cloned());
            K::changes_mut(changes).note(gone.borrow());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

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
        snapshot.slices_of(&name(service)).map(|slice| slice.key.name.to_string()).collect()
    }

    /// Lists on their way are of objects of any kind, and there are thousands of Services.
    #[test]
    fn no_object_takes_more_room_than_a_service() {
        assert!(size_of::<Object>() <= size_of::<Service>() + size_of::<usize>(), "{}", size_of::<Object>());
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
