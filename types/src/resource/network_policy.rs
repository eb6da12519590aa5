//! NetworkPolicies of namespaces.

use std::collections::BTreeSet;

use crate::{LabelSelector, NamespacedName, PolicyRule, Resource};

/// A NetworkPolicy (networking.k8s.io/v1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkPolicy {
    /// Its namespace, whose pods it selects from, and its name.
    pub key: NamespacedName,
    /// The labels of the pods that it isolates.
    pub pods: LabelSelector,
    /// What may reach these pods; `None` where it does not isolate them for ingress.
    pub ingress: Option<Box<[PolicyRule]>>,
    /// What these pods may reach; `None` where it does not isolate them for egress.
    pub egress: Option<Box<[PolicyRule]>>,
}

impl Resource for NetworkPolicy {
    const NAME: &'static str = "NetworkPolicy";

    type Key = NamespacedName;
    type Stored = Box<NetworkPolicy>;
    type Index = ();
    type Changes = BTreeSet<NamespacedName>;

    fn key(&self) -> &NamespacedName {
        &self.key
    }
}
