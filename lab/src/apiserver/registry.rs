//! What a write means: the rules between a request and the store, the same for every kind. The rules of one
//! kind alone are in `defaults`, `validation` and `allocation`.

mod bind;
mod create;
mod delete;
mod list;
mod namespaces;
mod update;

use std::sync::Arc;

use serde_json::Value;

pub(crate) use delete::{DeleteOptions, Deleted, FOREGROUND, Propagation};
pub(crate) use list::{List, ListOptions, Selection};
pub(crate) use update::Preconditions;

use super::allocation::Allocations;
use super::error::{ApiError, Result};
use super::object::Key;
use super::resource::Resource;
use super::store::Store;

/// The store with the rules for changing it.
#[derive(Debug)]
pub(crate) struct Registry {
    pub(crate) store: Store,
    allocations: Allocations,
}

/// An object, or a collection when the name is empty, that a request is about.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    /// The kind.
    pub(crate) resource: &'static Resource,
    /// The namespace; empty for cluster scope, and for lists over all namespaces.
    pub(crate) namespace: String,
    /// The object's name; empty for a collection.
    pub(crate) name: String,
}

impl Target {
    /// The key of the object.
    pub(crate) fn key(&self) -> Key {
        Key::new(self.resource.plural, &self.namespace, &self.name)
    }

    /// The target of a stored object's key.
    pub(crate) fn of(key: &Key) -> Self {
        let resource = super::resource::named(key.plural);
        Self { resource, namespace: key.namespace.clone(), name: key.name.clone() }
    }

    fn not_found(&self) -> ApiError {
        ApiError::not_found(self.resource, &self.name)
    }
}

/// How a write is meant.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Write {
    /// Only say what would be written.
    pub(crate) dry_run: bool,
    /// Refuse fields that the kind does not have, instead of ignoring them.
    pub(crate) strict: bool,
}

/// Which half of an object an update may change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// Everything but the status.
    Main,
    /// The status alone.
    Status,
}

impl Registry {
    /// Rules over an existing store, handing out from those allocations.
    pub(crate) fn new(store: Store, allocations: Allocations) -> Self {
        Self { store, allocations }
    }

    /// Reads one object.
    pub(crate) fn get(&self, target: &Target) -> Result<&Arc<Value>> {
        self.store.get(&target.key()).ok_or_else(|| target.not_found())
    }

    /// Writes an object and keeps account of what it holds. A dry run answers what would have been written.
    fn commit(&mut self, key: Key, object: Value, dry_run: bool) -> Arc<Value> {
        if dry_run {
            return Arc::new(object);
        }
        let old = self.store.get(&key).cloned();
        let new = self.store.put(key, object);
        self.allocations.observe(old.as_deref(), Some(&new));
        new
    }

    /// Takes an object away and frees what it held.
    fn remove(&mut self, key: &Key) -> Option<Arc<Value>> {
        let last = self.store.remove(key)?;
        self.allocations.observe(Some(&last), None);
        Some(last)
    }
}

#[cfg(test)]
mod tests;
