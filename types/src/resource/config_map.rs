//! ConfigMaps: settings of programs.

use std::collections::{BTreeMap, BTreeSet};

use crate::{NamespacedName, Resource};

/// A ConfigMap (v1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigMap {
    /// Namespace and name.
    pub key: NamespacedName,
    /// Its data (`data`).
    pub data: BTreeMap<String, String>,
}

impl Resource for ConfigMap {
    const NAME: &'static str = "ConfigMap";

    type Key = NamespacedName;
    type Stored = ConfigMap;
    type Index = ();
    type Changes = BTreeSet<NamespacedName>;

    fn key(&self) -> &NamespacedName {
        &self.key
    }
}
