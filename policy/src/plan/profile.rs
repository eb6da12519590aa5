//! The rules that hold for one pod in one direction, in the order in which they count.

use std::collections::BTreeSet;
use std::sync::Arc;

use weft_types::{Action, PortMatch, PortMatches, Protocol, Tier};

use super::features::{Feature, FeatureId, Features};
use super::policies::{Compiled, Policies, Policy};
use super::traffic::{Deciding, Part, Traffic};
use super::world::PodState;
use super::{Direction, Origin, PolicyId, Verdict};

/// One rule.
struct Entry {
    origin: Origin,
    action: Action,
    /// Any of these, or all peers.
    peers: Option<Arc<[FeatureId]>>,
    /// Its ports, those of names at this pod included.
    part: Part,
    /// Names of ports that are looked up at the peer.
    names: Box<[(Box<str>, Option<Protocol>)]>,
}

/// All rules for a pod in a direction.
pub(crate) struct Profile {
    admin: Vec<Entry>,
    network: Vec<Entry>,
    baseline: Vec<Entry>,
    /// The NetworkPolicies that isolate the pod.
    pub(crate) isolating: Vec<PolicyId>,
    /// All questions that the rules ask, in order.
    features: Vec<FeatureId>,
    names: BTreeSet<Box<str>>,
    /// What happens to peers that answer no question with yes.
    pub(crate) strangers: Traffic,
}

impl Profile {
    /// The rules of the policies that select a pod; nothing where none says anything about that direction.
    pub(crate) fn new(
        pod: &PodState,
        selected: &[PolicyId],
        policies: &Policies,
        direction: Direction,
        features: &Features,
    ) -> Option<Profile> {
        let compiled = selected.iter().filter_map(|id| Some((*id, policies.get(*id)?.compiled.as_ref()?)));
        let mut compiled: Vec<(PolicyId, &Compiled)> = compiled.collect();
        compiled.sort_by(|(_, one), (_, other)| one.policy.place().cmp(&other.policy.place()));
        let mut profile = Profile {
            admin: Vec::new(),
            network: Vec::new(),
            baseline: Vec::new(),
            isolating: Vec::new(),
            features: Vec::new(),
            names: BTreeSet::new(),
            strangers: Deciding::new().finish(Verdict::Accept, Origin::Unselected),
        };
        for (id, compiled) in compiled {
            let Some(rules) = compiled.policy.rules(direction) else {
                continue;
            };
            let tier = match &compiled.policy {
                Policy::Network(_) => {
                    profile.isolating.push(id);
                    &mut profile.network
                }
                Policy::Cluster(policy) if policy.tier == Tier::Admin => &mut profile.admin,
                Policy::Cluster(_) => &mut profile.baseline,
            };
            for (place, ((action, rule), peers)) in
                rules.into_iter().zip(&compiled.rules[direction.index()]).enumerate()
            {
                let entry = Entry::new(id, place, action, &rule.ports, peers.clone(), pod, direction);
                profile.features.extend(entry.peers.iter().flat_map(|peers| peers.iter().copied()));
                profile.names.extend(entry.names.iter().map(|(name, _)| name.clone()));
                tier.push(entry);
            }
        }
        if profile.isolating.is_empty() && profile.admin.is_empty() && profile.baseline.is_empty() {
            return None;
        }
        profile.features.sort_unstable();
        profile.features.dedup();
        profile.strangers = profile.traffic(&[], features).joined();
        Some(profile)
    }

    /// Whether a rule asks something that such peers answer with yes.
    pub(crate) fn concerns(&self, vector: &[FeatureId], features: &Features) -> bool {
        let is_named = |id: &FeatureId| match features.get(*id).map(|feature| &**feature) {
            Some(Feature::Ports { name, .. }) => self.names.contains(name),
            _ => false,
        };
        vector.iter().any(|id| self.features.binary_search(id).is_ok())
            || (!self.names.is_empty() && vector.iter().any(is_named))
    }

    /// What happens to traffic with peers that answer these questions with yes.
    pub(crate) fn traffic(&self, vector: &[FeatureId], features: &Features) -> Traffic {
        let mut deciding = Deciding::new();
        for entry in self.admin.iter().filter(|entry| entry.matches(vector)) {
            entry.apply(vector, features, &mut deciding);
            if deciding.is_done() {
                break;
            }
        }
        deciding.next_tier();
        let last = if self.isolating.is_empty() { &self.baseline } else { &self.network };
        for entry in last.iter().filter(|entry| entry.matches(vector)) {
            if deciding.is_done() {
                break;
            }
            entry.apply(vector, features, &mut deciding);
        }
        match self.isolating.first() {
            Some(first) => deciding.finish(Verdict::Deny, Origin::Isolated(*first)),
            None => deciding.finish(Verdict::Accept, Origin::Unselected),
        }
    }

    /// The policy with the most ports.
    pub(crate) fn largest(&self) -> Option<PolicyId> {
        let entries = self.admin.iter().chain(&self.network).chain(&self.baseline);
        let sizes = entries.filter_map(|entry| match entry.origin {
            Origin::Rule { policy, .. } => Some((entry.part.size(), policy)),
            _ => None,
        });
        sizes.max().map(|(_, policy)| policy)
    }
}

impl Entry {
    fn new(
        policy: PolicyId,
        place: usize,
        action: Action,
        ports: &PortMatches,
        peers: Option<Arc<[FeatureId]>>,
        pod: &PodState,
        direction: Direction,
    ) -> Entry {
        let part = Part::new(ports, |name, protocol| match direction {
            Direction::Ingress => pod.ports(name, protocol).into(),
            Direction::Egress => Vec::new(),
        });
        let names = match (ports, direction) {
            (PortMatches::Any(ports), Direction::Egress) => {
                let names = ports.iter().filter_map(|port| match port {
                    PortMatch::Named { protocol, name } => Some((name.clone(), *protocol)),
                    PortMatch::Numbers { .. } => None,
                });
                names.collect()
            }
            _ => Box::default(),
        };
        Entry { origin: Origin::Rule { policy, rule: place as u32 }, action, peers, part, names }
    }

    fn matches(&self, vector: &[FeatureId]) -> bool {
        self.peers.as_ref().is_none_or(|peers| peers.iter().any(|id| vector.binary_search(id).is_ok()))
    }

    fn apply(&self, vector: &[FeatureId], features: &Features, deciding: &mut Deciding) {
        if self.names.is_empty() {
            return self.apply_part(&self.part, deciding);
        }
        let mut part = self.part.clone();
        for id in vector {
            let Some(Feature::Ports { name, ports }) = features.get(*id).map(|feature| &**feature) else {
                continue;
            };
            for (_, only) in self.names.iter().filter(|(wanted, _)| wanted == name) {
                let ports = ports.iter().filter(|(protocol, _)| only.is_none_or(|only| only == *protocol));
                ports.for_each(|(protocol, port)| part.add(*protocol, *port, *port));
            }
        }
        part.tidy();
        self.apply_part(&part, deciding);
    }

    fn apply_part(&self, part: &Part, deciding: &mut Deciding) {
        match self.action {
            Action::Accept => deciding.decide(part, Verdict::Accept, self.origin),
            Action::Deny => deciding.decide(part, Verdict::Deny, self.origin),
            Action::Pass => deciding.pass(part),
        }
    }
}
