//! ClusterNetworkPolicies: what administrators decide before and after the NetworkPolicies of namespaces.

use std::collections::BTreeSet;

use crate::{LabelSelector, PolicyRule, Resource};

/// A ClusterNetworkPolicy (policy.networking.k8s.io/v1alpha2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterNetworkPolicy {
    /// Its name.
    pub name: String,
    /// Whether it comes before or after the NetworkPolicies.
    pub tier: Tier,
    /// Its place in the tier: lower ones come first.
    pub priority: u16,
    /// The labels of the namespaces whose pods it applies to.
    pub namespaces: LabelSelector,
    /// The labels of these pods.
    pub pods: LabelSelector,
    /// Rules about what reaches these pods, the first match counts.
    pub ingress: Box<[ClusterRule]>,
    /// Rules about what these pods reach, the first match counts.
    pub egress: Box<[ClusterRule]>,
}

/// The place of a ClusterNetworkPolicy among all policies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Tier {
    /// Before the NetworkPolicies.
    Admin,
    /// After the NetworkPolicies, for pods that none of them isolates.
    Baseline,
}

/// A rule of a ClusterNetworkPolicy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterRule {
    /// Its name, for people; may be empty.
    pub name: Box<str>,
    /// What happens to traffic that it matches.
    pub action: Action,
    /// The traffic that it matches.
    pub traffic: PolicyRule,
}

/// What a ClusterNetworkPolicy does with traffic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Action {
    /// Let it through, whatever later rules and tiers say.
    Accept,
    /// Drop it, whatever later rules and tiers say.
    Deny,
    /// Leave it to the next tier.
    Pass,
}

impl Resource for ClusterNetworkPolicy {
    const NAME: &'static str = "ClusterNetworkPolicy";

    type Key = str;
    type Stored = Box<ClusterNetworkPolicy>;
    type Index = ();
    type Changes = BTreeSet<String>;

    fn key(&self) -> &str {
        &self.name
    }
}
