//! Namespaces.

use std::collections::BTreeSet;

use crate::{Labels, Resource};

/// A Namespace (v1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Namespace {
    /// Its name.
    pub name: Box<str>,
    /// Its labels; none unless they were asked for.
    pub labels: Labels,
}

impl Namespace {
    /// A Namespace without labels.
    pub fn new(name: impl Into<Box<str>>) -> Namespace {
        Namespace { name: name.into(), labels: Labels::default() }
    }
}

impl Resource for Namespace {
    const NAME: &'static str = "Namespace";

    type Key = str;
    type Stored = Namespace;
    type Index = ();
    type Changes = BTreeSet<String>;

    fn key(&self) -> &str {
        &self.name
    }
}
