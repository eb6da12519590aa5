//! The policies, in the order in which they count, and the questions that they ask.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use hashbrown::HashMap;
use weft_types::{
    Action, ClusterNetworkPolicy, NamespacedName, NetworkPolicy, Peers, PolicyPeer, PolicyRule, PortMatch,
    PortMatches, Tier,
};

use super::features::{Feature, FeatureId, Features};
use super::networks::Networks;
use super::world::{PodState, World};
use super::{Direction, PolicyId};

/// The kind and name of a policy.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PolicyName {
    /// A NetworkPolicy.
    Network(NamespacedName),
    /// A ClusterNetworkPolicy.
    Cluster(String),
}

/// Prints as `NetworkPolicy shop/web`.
impl fmt::Display for PolicyName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PolicyName::Network(key) => write!(f, "NetworkPolicy {key}"),
            PolicyName::Cluster(name) => write!(f, "ClusterNetworkPolicy {name}"),
        }
    }
}

/// A policy as it was read.
#[derive(Clone)]
pub(crate) enum Policy {
    Network(Arc<NetworkPolicy>),
    Cluster(Arc<ClusterNetworkPolicy>),
}

/// What its rules ask, while it selects pods of this node: for each rule the peers, nothing where it is about
/// all.
pub(crate) struct Compiled {
    pub(crate) rules: [Vec<Option<Arc<[FeatureId]>>>; 2],
    /// The policy that this was made of.
    pub(crate) policy: Policy,
    /// The names of ports that egress rules use.
    names: BTreeSet<Box<str>>,
}

/// A policy, and who uses it.
pub(crate) struct PolicyState {
    pub(crate) name: PolicyName,
    /// Nothing once the policy is gone.
    pub(crate) policy: Option<Policy>,
    /// How many of this node's pods it selects.
    pub(crate) users: usize,
    pub(crate) compiled: Option<Compiled>,
}

/// All policies.
#[derive(Default)]
pub(crate) struct Policies {
    next: u32,
    states: BTreeMap<PolicyId, PolicyState>,
    by_name: HashMap<PolicyName, PolicyId>,
    by_namespace: HashMap<String, BTreeSet<PolicyId>>,
    cluster: BTreeSet<PolicyId>,
}

impl Policy {
    /// Its rules for a direction; nothing where it does not isolate for it. Those of a ClusterNetworkPolicy
    /// never do.
    pub(crate) fn rules(&self, direction: Direction) -> Option<Vec<(Action, &PolicyRule)>> {
        match self {
            Policy::Network(policy) => {
                let rules = match direction {
                    Direction::Ingress => policy.ingress.as_ref(),
                    Direction::Egress => policy.egress.as_ref(),
                };
                rules.map(|rules| rules.iter().map(|rule| (Action::Accept, rule)).collect())
            }
            Policy::Cluster(policy) => {
                let rules = match direction {
                    Direction::Ingress => &policy.ingress,
                    Direction::Egress => &policy.egress,
                };
                Some(rules.iter().map(|rule| (rule.action, &rule.traffic)).collect())
            }
        }
    }

    /// Its place among the policies of a tier: the lower comes first. Those of equal priority go by their
    /// names.
    pub(crate) fn place(&self) -> (Option<Tier>, u16, &str) {
        match self {
            Policy::Network(policy) => (None, 0, &policy.key.name),
            Policy::Cluster(policy) => (Some(policy.tier), policy.priority, &policy.name),
        }
    }

    /// Whether it selects a pod.
    pub(crate) fn selects(&self, pod: &PodState, world: &World) -> bool {
        let key = &pod.pod.key;
        match self {
            Policy::Network(policy) => {
                policy.key.namespace == key.namespace && policy.pods.matches(&pod.pod.labels)
            }
            Policy::Cluster(policy) => {
                policy.pods.matches(&pod.pod.labels)
                    && world.namespace_matches(&policy.namespaces, &key.namespace)
            }
        }
    }
}

impl Policies {
    /// Puts a policy in, replaces the one of its name, or takes it out. Returns its number where there is
    /// one.
    pub(crate) fn set(&mut self, name: PolicyName, policy: Option<Policy>) -> Option<PolicyId> {
        if let Some(id) = self.by_name.get(&name) {
            if let Some(state) = self.states.get_mut(id) {
                state.policy = policy;
            }
            return Some(*id);
        }
        policy.as_ref()?;
        self.next += 1;
        let id = PolicyId(self.next);
        match &name {
            PolicyName::Network(key) => {
                self.by_namespace.entry_ref(key.namespace.as_str()).or_default().insert(id);
            }
            PolicyName::Cluster(_) => {
                self.cluster.insert(id);
            }
        }
        self.by_name.insert(name.clone(), id);
        self.states.insert(id, PolicyState { name, policy, users: 0, compiled: None });
        Some(id)
    }

    /// Whether there is a policy of that name.
    pub(crate) fn is_there(&self, name: &PolicyName) -> bool {
        let state = self.by_name.get(name).and_then(|id| self.get(*id));
        state.is_some_and(|state| state.policy.is_some())
    }

    /// Forgets a policy that is gone and that nobody uses.
    pub(crate) fn forget(&mut self, id: PolicyId) {
        let Some(state) = self.states.remove(&id) else {
            return;
        };
        self.by_name.remove(&state.name);
        match &state.name {
            PolicyName::Network(key) => {
                if let Some(list) = self.by_namespace.get_mut(&*key.namespace) {
                    list.remove(&id);
                    if list.is_empty() {
                        self.by_namespace.remove(&*key.namespace);
                    }
                }
            }
            PolicyName::Cluster(_) => {
                self.cluster.remove(&id);
            }
        }
    }

    pub(crate) fn get(&self, id: PolicyId) -> Option<&PolicyState> {
        self.states.get(&id)
    }

    pub(crate) fn get_mut(&mut self, id: PolicyId) -> Option<&mut PolicyState> {
        self.states.get_mut(&id)
    }

    /// The policies that select a pod, in order of their numbers.
    pub(crate) fn selecting(&self, pod: &PodState, world: &World) -> Vec<PolicyId> {
        let own = self.by_namespace.get(&*pod.pod.key.namespace);
        let candidates = own.into_iter().flatten().chain(&self.cluster);
        let selects = |id: &&PolicyId| self.selects(**id, pod, world);
        let mut found: Vec<PolicyId> = candidates.filter(selects).copied().collect();
        found.sort_unstable();
        found
    }

    /// Whether a policy selects a pod, as it is now.
    pub(crate) fn selects(&self, id: PolicyId, pod: &PodState, world: &World) -> bool {
        let policy = self.get(id).and_then(|state| state.policy.as_ref());
        policy.is_some_and(|policy| policy.selects(pod, world))
    }

    /// Asks the questions of a policy that selects pods, and no longer those of one that changed or selects
    /// none.
    pub(crate) fn compile(&mut self, id: PolicyId, changed: bool, features: &mut Features) {
        let Some(state) = self.states.get_mut(&id) else {
            return;
        };
        let wanted = state.policy.as_ref().filter(|_| state.users > 0);
        if !changed && wanted.is_some() == state.compiled.is_some() {
            return;
        }
        // First the new ones, so that questions that stay are never without a user.
        let new = wanted.map(|policy| Compiled::new(&state.name, policy, features));
        if let Some(old) = std::mem::replace(&mut state.compiled, new) {
            old.release(features);
        }
    }
}

impl Compiled {
    fn new(name: &PolicyName, policy: &Policy, features: &mut Features) -> Compiled {
        let mut names = BTreeSet::new();
        let rules = Direction::BOTH.map(|direction| {
            let rules = policy.rules(direction).unwrap_or_default();
            let peers = |(_, rule): (Action, &PolicyRule)| match &rule.peers {
                Peers::All => None,
                Peers::Any(peers) => {
                    Some(questions(name, peers).map(|question| features.acquire(question)).collect())
                }
            };
            if direction == Direction::Egress {
                names.extend(rules.iter().flat_map(|(_, rule)| port_names(rule)).map(Box::from));
            }
            rules.into_iter().map(peers).collect()
        });
        names.iter().for_each(|name| features.acquire_name(name));
        Compiled { rules, policy: policy.clone(), names }
    }

    fn release(self, features: &mut Features) {
        let peers = self.rules.iter().flatten().flatten();
        peers.flat_map(|ids| ids.iter()).for_each(|id| features.release(*id));
        self.names.iter().for_each(|name| features.release_name(name));
    }
}

fn port_names(rule: &PolicyRule) -> impl Iterator<Item = &str> {
    let ports: &[PortMatch] = match &rule.ports {
        PortMatches::All => &[],
        PortMatches::Any(ports) => ports,
    };
    ports.iter().filter_map(|port| match port {
        PortMatch::Named { name, .. } => Some(&**name),
        PortMatch::Numbers { .. } => None,
    })
}

/// What a rule asks of its peers, of which any must be so.
fn questions(name: &PolicyName, peers: &[PolicyPeer]) -> impl Iterator<Item = Feature> {
    let blocks = peers.iter().filter_map(|peer| match peer {
        PolicyPeer::Network(block) => Some(block),
        PolicyPeer::Pods(_) | PolicyPeer::Nodes(_) => None,
    });
    let networks = blocks.clone().next().map(|_| Feature::Networks(Networks::of(blocks)));
    networks.into_iter().chain(peers.iter().filter_map(|peer| question(name, peer)))
}

/// Networks are asked for together.
fn question(name: &PolicyName, peer: &PolicyPeer) -> Option<Feature> {
    Some(match peer {
        PolicyPeer::Network(_) => return None,
        PolicyPeer::Nodes(selector) => Feature::Nodes(selector.clone()),
        PolicyPeer::Pods(peer) => match (&peer.namespaces, name) {
            (None, PolicyName::Network(key)) => {
                Feature::Own { namespace: key.namespace.as_str().into(), pods: peer.pods.clone() }
            }
            // The subject's own namespace is no peer of ClusterNetworkPolicies; their reader always has a
            // selector.
            (namespaces, _) => Feature::Everywhere {
                namespaces: namespaces.clone().unwrap_or_default(),
                pods: peer.pods.clone(),
            },
        },
    })
}
