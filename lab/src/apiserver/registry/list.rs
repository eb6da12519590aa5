//! Reading many objects: selections, and lists in pieces.

use std::sync::Arc;

use serde_json::Value;

use super::{Registry, Target};
use crate::apiserver::error::{ApiError, Result};
use crate::apiserver::field_selector::FieldSelector;
use crate::apiserver::object::{self, Key};
use crate::apiserver::selector::LabelSelector;

/// Which objects of a collection a request is about.
#[derive(Clone, Debug, Default)]
pub(crate) struct Selection {
    /// The namespace; empty for all.
    pub(crate) namespace: String,
    /// What their labels must be like.
    pub(crate) labels: LabelSelector,
    /// What their fields must be.
    pub(crate) fields: FieldSelector,
}

impl Selection {
    /// Is the object one of them?
    pub(crate) fn takes(&self, object: &Value) -> bool {
        (self.namespace.is_empty() || self.namespace == object::namespace(object))
            && self.labels.matches(object)
            && self.fields.matches(object)
    }
}

/// How to list.
#[derive(Clone, Debug, Default)]
pub(crate) struct ListOptions {
    /// Which objects.
    pub(crate) selection: Selection,
    /// The most objects to answer; 0 for all.
    pub(crate) limit: usize,
    /// Where the last piece ended; empty for the first one.
    pub(crate) continue_token: String,
}

/// A list, or a piece of one.
#[derive(Clone, Debug)]
pub(crate) struct List {
    /// The objects, by namespace and name.
    pub(crate) items: Vec<Arc<Value>>,
    /// The version of the store when the list began: a watch from here misses nothing.
    pub(crate) version: u64,
    /// What asks for the next piece, where there is one.
    pub(crate) continue_token: Option<String>,
    /// How many objects follow in later pieces.
    pub(crate) remaining: usize,
}

impl Registry {
    /// Lists the objects of a collection. Every piece of a list carries the version of the first one, so
    /// that a watch that follows repeats what changed between the pieces.
    pub(crate) fn list(&self, target: &Target, options: &ListOptions) -> Result<List> {
        let plural = target.resource.plural;
        let (version, after) = match options.continue_token.as_str() {
            "" => (self.store.version(), None),
            token => self.resume(plural, token)?,
        };
        let selection = &options.selection;
        let mut matching = self
            .store
            .list(plural, &selection.namespace, after.as_ref())
            .filter(|object| selection.takes(object));
        let limit = if options.limit == 0 { usize::MAX } else { options.limit };
        let items: Vec<_> = matching.by_ref().take(limit).cloned().collect();
        let remaining = matching.count();
        let continue_token = (remaining > 0).then(|| items.last().map(|last| token(version, last))).flatten();
        Ok(List { items, version, continue_token, remaining })
    }

    fn resume(&self, plural: &'static str, token: &str) -> Result<(u64, Option<Key>)> {
        let unreadable = || ApiError::BadRequest(format!("continue key is not valid: {token:?}"));
        let mut parts = token.splitn(3, '/');
        let version = parts.next().and_then(|version| version.parse().ok()).ok_or_else(unreadable)?;
        let (Some(namespace), Some(name)) = (parts.next(), parts.next()) else { return Err(unreadable()) };
        if self.store.events_since(version).is_none() {
            let message = "The provided continue parameter is too old to display a consistent list result. \
                           You must start a new list without the continue parameter.";
            return Err(ApiError::Expired(message.to_owned()));
        }
        Ok((version, Some(Key::new(plural, namespace, name))))
    }
}

fn token(version: u64, last: &Value) -> String {
    format!("{version}/{}/{}", object::namespace(last), object::name(last))
}
