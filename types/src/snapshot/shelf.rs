//! Objects in the order of their names, each name held once: by the object itself. A cluster has hundreds of thousands of
//! them, so what is kept beside each counts. What they are is not of concern here.

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::sync::Arc;

use crate::{EndpointSlice, NamespacedName, Pod, Service};

/// Something that stands on a shelf under a name of its own.
pub(super) trait Labelled {
    fn label(&self) -> &NamespacedName;
}

impl Labelled for Box<Service> {
    fn label(&self) -> &NamespacedName {
        &self.key
    }
}

impl Labelled for Arc<EndpointSlice> {
    fn label(&self) -> &NamespacedName {
        &self.key
    }
}

impl Labelled for Box<Pod> {
    fn label(&self) -> &NamespacedName {
        &self.key
    }
}

/// The EndpointSlices of one Service, in the order of their names; at least one.
#[derive(Clone, Debug)]
pub(super) struct OfService(Box<[Arc<EndpointSlice>]>);

impl OfService {
    pub(super) fn slices(&self) -> &[Arc<EndpointSlice>] {
        &self.0
    }
}

impl Labelled for OfService {
    fn label(&self) -> &NamespacedName {
        &self.0[0].service
    }
}

/// Compares by name alone.
#[derive(Clone, Debug)]
struct Item<T>(T);

impl<T: Labelled> Borrow<NamespacedName> for Item<T> {
    fn borrow(&self) -> &NamespacedName {
        self.0.label()
    }
}

impl<T: Labelled> Ord for Item<T> {
    fn cmp(&self, other: &Item<T>) -> Ordering {
        self.0.label().cmp(other.0.label())
    }
}

impl<T: Labelled> PartialOrd for Item<T> {
    fn partial_cmp(&self, other: &Item<T>) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<T: Labelled> PartialEq for Item<T> {
    fn eq(&self, other: &Item<T>) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl<T: Labelled> Eq for Item<T> {}

/// Objects in the order of their names.
#[derive(Clone, Debug)]
pub(super) struct Shelf<T>(BTreeSet<Item<T>>);

impl<T: Labelled> Default for Shelf<T> {
    fn default() -> Self {
        Shelf(BTreeSet::new())
    }
}

impl<T: Labelled> Shelf<T> {
    pub(super) fn get(&self, name: &NamespacedName) -> Option<&T> {
        self.0.get(name).map(|item| &item.0)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &T> {
        self.0.iter().map(|item| &item.0)
    }

    /// Puts one in, in the place of the one of its name.
    pub(super) fn put(&mut self, object: T) {
        self.0.replace(Item(object));
    }

    pub(super) fn take(&mut self, name: &NamespacedName) -> Option<T> {
        self.0.take(name).map(|item| item.0)
    }
}

impl Shelf<OfService> {
    /// The EndpointSlices of a Service.
    pub(super) fn slices(&self, service: &NamespacedName) -> &[Arc<EndpointSlice>] {
        self.get(service).map(OfService::slices).unwrap_or_default()
    }

    /// Adds one to those of its Service, among which it must not be.
    pub(super) fn add(&mut self, slice: Arc<EndpointSlice>) {
        let mut slices = self.take_slices(&slice.service);
        let place = slices.partition_point(|other| other.key < slice.key);
        slices.insert(place, slice);
        self.put(OfService(slices.into()));
    }

    /// Takes one out of those of its Service.
    pub(super) fn remove(&mut self, slice: &EndpointSlice) {
        let mut slices = self.take_slices(&slice.service);
        slices.retain(|other| other.key != slice.key);
        if !slices.is_empty() {
            self.put(OfService(slices.into()));
        }
    }

    fn take_slices(&mut self, service: &NamespacedName) -> Vec<Arc<EndpointSlice>> {
        let mut slices = self.take(service).map(|slices| slices.0.into_vec()).unwrap_or_default();
        slices.reserve_exact(1);
        slices
    }
}
