//! From changes of objects to changes of the plan.
//!
//! Changes are taken in one by one and only marked; [`Planner::commit`] works them off together. What it does
//! then is in proportion to what changed: addresses that changed answer the questions again, and only pods
//! whose policies changed, or that ask about classes that came or went, get new rows.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use hashbrown::HashMap;
use weft_types::{
    ClusterNetworkPolicy, Family, Labels, Namespace, NamespacedName, NetworkPolicy, Node, Pod, PodAddresses,
    Snapshot,
};

use super::classes::{ClassChanges, Classes, FeatureChanges};
use super::delta::replace_endpoint;
use super::features::Features;
use super::policies::{Policies, Policy, PolicyName};
use super::profile::Profile;
use super::rows::{self, MOST_ROWS};
use super::size::Size;
use super::world::{PodId, PodState, World, node_addresses};
use super::{ClassId, Delta, Direction, Endpoint, Origin, PolicyId, PolicyPlan, Side, index};

/// What a node's plan is made from, and the plan.
pub struct Planner {
    pub(crate) world: World,
    pub(crate) policies: Policies,
    features: Features,
    pub(crate) classes: [Classes; 2],
    pub(crate) locals: BTreeMap<PodId, Local>,
    /// Addresses that the plugin gave to pods of this node.
    assigned: HashMap<NamespacedName, PodAddresses>,
    /// Copied only where it changes while somebody else still holds it.
    plan: Arc<PolicyPlan>,
    pub(crate) size: Size,
    dirty_locals: BTreeSet<PodId>,
    dirty_policies: BTreeSet<PolicyId>,
}

/// A pod of this node with a network of its own.
pub(crate) struct Local {
    /// The policies that select it.
    selected: Vec<PolicyId>,
    /// The addresses that belong to it.
    addresses: Vec<IpAddr>,
    pub(crate) profiles: [Option<Profile>; 2],
}

impl Planner {
    /// A planner for the node of that name, which knows no object yet.
    pub fn new(node: impl Into<String>) -> Planner {
        Planner {
            world: World::new(node.into()),
            policies: Policies::default(),
            features: Features::default(),
            classes: Family::BOTH.map(Classes::new),
            locals: BTreeMap::new(),
            assigned: HashMap::new(),
            plan: Arc::default(),
            size: Size::default(),
            dirty_locals: BTreeSet::new(),
            dirty_policies: BTreeSet::new(),
        }
    }

    /// Takes over the numbers of classes that a table holds, by address or first address of a network. They
    /// are given to the classes that these have at the next commits, where no two of them would have the
    /// same.
    pub fn adopt(&mut self, classes: impl IntoIterator<Item = (IpAddr, ClassId)>) {
        for (address, class) in classes {
            self.classes[index(Family::of(address))].adopt(address, class);
        }
    }

    /// The plan as of the last commit.
    pub fn plan(&self) -> &Arc<PolicyPlan> {
        &self.plan
    }

    /// The name of a policy that the plan speaks of.
    pub fn policy(&self, id: PolicyId) -> Option<&PolicyName> {
        self.policies.get(id).map(|state| &state.name)
    }

    /// Whether there is a policy of that name.
    pub fn has_policy(&self, name: &PolicyName) -> bool {
        self.policies.is_there(name)
    }

    /// The pod that an address belongs to, of whatever node.
    pub fn pod_at(&self, address: IpAddr) -> Option<&NamespacedName> {
        let owner = self.classes[index(Family::of(address))].owner(address)?;
        self.world.pod(owner).map(|state| &state.pod.key)
    }

    /// Whether the plan counts an address as a local pod's: then that pod's policies hold for it.
    pub fn is_planned(&self, address: IpAddr) -> bool {
        let owner = self.classes[index(Family::of(address))].owner(address);
        owner
            .and_then(|owner| self.locals.get(&owner))
            .is_some_and(|local| local.addresses.contains(&address))
    }

    /// Takes in what differs between the objects known here and a snapshot, for the names that changed.
    pub fn apply(&mut self, snapshot: &Snapshot, changes: &weft_types::ChangeSet) {
        for name in &changes.namespaces {
            self.set_namespace(name, snapshot.of::<Namespace>().get(name));
        }
        for name in &changes.nodes {
            self.set_node(name, snapshot.of::<Node>().get(name));
        }
        for key in &changes.network_policies {
            self.set_network_policy(key, snapshot.of::<NetworkPolicy>().get(key));
        }
        for name in &changes.cluster_network_policies {
            self.set_cluster_network_policy(name, snapshot.of::<ClusterNetworkPolicy>().get(name));
        }
        for key in &changes.pods {
            self.set_pod(key, snapshot.of::<Pod>().get(key));
        }
    }

    /// Puts a Pod in, replaces it, or takes it out. Pods that ended must not be put in.
    pub fn set_pod(&mut self, key: &NamespacedName, pod: Option<&Pod>) {
        let known = self.world.pod_id(key);
        match (pod, known.and_then(|id| self.world.pod(id))) {
            (Some(pod), Some(known)) if known.pod == *pod => return,
            (None, None) => return,
            _ => {}
        }
        let assigned = self.assigned.get(key).copied().unwrap_or_default();
        self.replace_pod(known, pod.cloned(), assigned);
    }

    /// The plugin gave a pod of this node these addresses: they count before the API server has them, and
    /// instead of what it has. None takes that back.
    pub fn assign(&mut self, key: &NamespacedName, addresses: &[IpAddr]) {
        let addresses = PodAddresses::from(addresses);
        match addresses.is_empty() {
            true => self.assigned.remove(key),
            false => self.assigned.insert(key.clone(), addresses),
        };
        let known = self.world.pod_id(key);
        if let Some(state) = known.and_then(|id| self.world.pod(id)).filter(|it| it.assigned != addresses) {
            let pod = state.pod.clone();
            self.replace_pod(known, Some(pod), addresses);
        }
    }

    fn replace_pod(&mut self, known: Option<PodId>, pod: Option<Pod>, assigned: PodAddresses) {
        let before = known.and_then(|id| self.world.pod(id)).map(PodState::addresses).unwrap_or_default();
        for address in before.iter() {
            if let Some(id) = known {
                self.classes[index(Family::of(*address))].claim(*address, id, false);
            }
        }
        let id = match (pod, known) {
            (Some(pod), _) => self.world.put_pod(pod, assigned),
            (None, Some(id)) => {
                self.world.take_pod(id);
                id
            }
            (None, None) => return,
        };
        let after = self.world.pod(id).map(PodState::addresses).unwrap_or_default();
        for address in after.iter() {
            self.classes[index(Family::of(*address))].claim(*address, id, true);
        }
        if self.locals.contains_key(&id) || self.is_local(id) {
            self.dirty_locals.insert(id);
        }
    }

    fn is_local(&self, id: PodId) -> bool {
        let local = |pod: &PodState| pod.is_on(&self.world.node) || !pod.assigned.is_empty();
        self.world.pod(id).is_some_and(|pod| local(pod) && !pod.on_host_network())
    }

    /// Puts a Namespace in, replaces it, or takes it out.
    pub fn set_namespace(&mut self, name: &str, namespace: Option<&Namespace>) {
        let labels: Option<Labels> = namespace.map(|namespace| namespace.labels.clone());
        for id in self.world.set_namespace(name, labels) {
            let addresses = self.world.pod(id).map(PodState::addresses).unwrap_or_default();
            for address in addresses.iter() {
                self.classes[index(Family::of(*address))].mark_address(*address);
            }
            if self.locals.contains_key(&id) {
                self.dirty_locals.insert(id);
            }
        }
    }

    /// Puts a Node in, replaces it, or takes it out.
    pub fn set_node(&mut self, name: &str, node: Option<&Node>) {
        let before = match node {
            Some(node) => self.world.put_node(node.clone()),
            None => self.world.take_node(name),
        };
        let same = |one: &Node, other: &Node| {
            one.labels == other.labels && node_addresses(one) == node_addresses(other)
        };
        if let (Some(before), Some(node)) = (&before, node)
            && same(before, node)
        {
            return;
        }
        for address in before.iter().flat_map(node_addresses) {
            self.classes[index(Family::of(*address))].set_node(*address, name, false);
        }
        for address in node.into_iter().flat_map(node_addresses) {
            self.classes[index(Family::of(*address))].set_node(*address, name, true);
        }
        if name == self.world.node {
            Arc::make_mut(&mut self.plan).own_addresses =
                node.into_iter().flat_map(node_addresses).copied().collect();
        }
    }

    /// Puts a NetworkPolicy in, replaces it, or takes it out.
    pub fn set_network_policy(&mut self, key: &NamespacedName, policy: Option<&NetworkPolicy>) {
        let policy = policy.map(|policy| Policy::Network(Arc::new(policy.clone())));
        self.dirty_policies.extend(self.policies.set(PolicyName::Network(key.clone()), policy));
    }

    /// Puts a ClusterNetworkPolicy in, replaces it, or takes it out.
    pub fn set_cluster_network_policy(&mut self, name: &str, policy: Option<&ClusterNetworkPolicy>) {
        let policy = policy.map(|policy| Policy::Cluster(Arc::new(policy.clone())));
        self.dirty_policies.extend(self.policies.set(PolicyName::Cluster(name.to_owned()), policy));
    }

    /// Brings the plan up to date, and returns what changed of it.
    pub fn commit(&mut self) -> Delta {
        let mut delta = Delta::default();
        let changed = std::mem::take(&mut self.dirty_policies);
        self.find_dirty_locals(&changed);
        let dirty = std::mem::take(&mut self.dirty_locals);
        let left = self.select(&dirty, &changed);
        let changes = self.classify(&mut delta);
        self.plan_locals(&dirty, left, &mut delta);
        for (family, changes) in Family::BOTH.into_iter().zip(&changes) {
            self.follow_classes(family, changes, &dirty, &mut delta);
        }
        delta
    }

    /// Pods whose addresses changed hands, and those that changed policies select or selected.
    fn find_dirty_locals(&mut self, changed: &BTreeSet<PolicyId>) {
        let dirty = &mut self.dirty_locals;
        for classes in &mut self.classes {
            classes.find_owners(&self.world, |before, after| dirty.extend(before.into_iter().chain(after)));
        }
        for (id, local) in &self.locals {
            let Some(pod) = self.world.pod(*id) else {
                continue;
            };
            let concerns = |policy: &PolicyId| {
                local.selected.binary_search(policy).is_ok()
                    || self.policies.selects(*policy, pod, &self.world)
            };
            if !dirty.contains(id) && changed.iter().any(concerns) {
                dirty.insert(*id);
            }
        }
    }

    /// Finds the policies of pods anew, and asks the questions of those that select some. Returns the
    /// addresses that these pods had before.
    fn select(&mut self, dirty: &BTreeSet<PodId>, changed: &BTreeSet<PolicyId>) -> BTreeSet<IpAddr> {
        let (mut left, mut counted) = (BTreeSet::new(), changed.clone());
        for id in dirty {
            if let Some(local) = self.locals.remove(id) {
                left.extend(local.addresses);
                counted.extend(&local.selected);
                for policy in local.selected {
                    if let Some(state) = self.policies.get_mut(policy) {
                        state.users -= 1;
                    }
                }
            }
            let Some(pod) = self.world.pod(*id).filter(|_| self.is_local(*id)) else {
                continue;
            };
            let owned =
                |address: &IpAddr| self.classes[index(Family::of(*address))].owner(*address) == Some(*id);
            let addresses: Vec<IpAddr> = pod.addresses().iter().copied().filter(owned).collect();
            let selected = match addresses.is_empty() {
                true => Vec::new(),
                false => self.policies.selecting(pod, &self.world),
            };
            counted.extend(&selected);
            for policy in &selected {
                if let Some(state) = self.policies.get_mut(*policy) {
                    state.users += 1;
                }
            }
            self.locals.insert(*id, Local { selected, addresses, profiles: [None, None] });
        }
        for policy in counted {
            self.policies.compile(policy, changed.contains(&policy), &mut self.features);
            if self.policies.get(policy).is_some_and(|state| state.policy.is_none() && state.users == 0) {
                self.policies.forget(policy);
            }
        }
        left
    }

    fn classify(&mut self, delta: &mut Delta) -> [ClassChanges; 2] {
        let features = &mut self.features;
        let (mut fresh, fresh_names) = features.take_fresh();
        let dead = features.sweep();
        fresh.retain(|id| dead.binary_search(id).is_err());
        let is_network = |id: &u32| features.get(*id).is_some_and(|feature| feature.is_network());
        let networks = fresh.iter().chain(&dead).any(is_network);
        let changes = FeatureChanges { fresh: &fresh, fresh_names: &fresh_names, dead: &dead, networks };
        let classes = Family::BOTH.map(|family| {
            let plan = Arc::make_mut(&mut self.plan).family_mut(family);
            self.classes[index(family)].update(&self.world, features, &changes, plan, delta)
        });
        // What pods' ports added meanwhile, these pods have answered.
        features.take_fresh();
        features.forget(&dead);
        classes
    }

    /// Plans pods anew.
    fn plan_locals(&mut self, dirty: &BTreeSet<PodId>, mut left: BTreeSet<IpAddr>, delta: &mut Delta) {
        let mut planned = Vec::new();
        for id in dirty {
            let (Some(local), Some(pod)) = (self.locals.get(id), self.world.pod(*id)) else {
                continue;
            };
            let profiles = Direction::BOTH.map(|direction| {
                Profile::new(pod, &local.selected, &self.policies, direction, &self.features)
            });
            for address in &local.addresses {
                let sides = Direction::BOTH.map(|direction| {
                    let profile = profiles[direction.index()].as_ref()?;
                    Some(self.side(profile, Family::of(*address)))
                });
                let endpoint = Endpoint { pod: pod.pod.key.clone(), sides };
                planned.push((*address, endpoint.sides.iter().any(Option::is_some).then_some(endpoint)));
                left.remove(address);
            }
            if let Some(local) = self.locals.get_mut(id) {
                local.profiles = profiles;
            }
        }
        for (address, endpoint) in left.into_iter().map(|address| (address, None)).chain(planned) {
            let plan = Arc::make_mut(&mut self.plan);
            let before = replace_endpoint(plan, address, endpoint, delta);
            let after = plan.family(Family::of(address)).endpoints.get(&address);
            self.size.note(address, before.map_or(0, |endpoint| endpoint.rows()), after);
        }
    }

    fn side(&self, profile: &Profile, family: Family) -> Side {
        let classes = self.classes[index(family)].iter();
        rows::side(profile, classes, &self.features).unwrap_or_else(rows::closed)
    }

    /// Gives the other pods the rows of new classes, and takes those of gone ones.
    fn follow_classes(
        &mut self,
        family: Family,
        changes: &ClassChanges,
        planned: &BTreeSet<PodId>,
        delta: &mut Delta,
    ) {
        if changes.fresh.is_empty() && changes.dead.is_empty() {
            return;
        }
        let mut plan = std::mem::take(Arc::make_mut(&mut self.plan).family_mut(family));
        let mut size = std::mem::take(&mut self.size);
        for (id, local) in self.locals.iter().filter(|(id, _)| !planned.contains(id)) {
            debug_assert!(self.world.pod(*id).is_some());
            for address in local.addresses.iter().filter(|address| Family::of(**address) == family) {
                let Some(endpoint) = plan.endpoints.get_mut(address) else {
                    continue;
                };
                let before = endpoint.rows();
                for direction in Direction::BOTH {
                    let side = endpoint.sides[direction.index()].as_mut();
                    let (Some(side), Some(profile)) = (side, &local.profiles[direction.index()]) else {
                        continue;
                    };
                    self.follow(side, profile, (family, *address, direction), changes, delta);
                }
                size.note(*address, before, Some(endpoint));
            }
        }
        *Arc::make_mut(&mut self.plan).family_mut(family) = plan;
        self.size = size;
    }

    fn follow(
        &self,
        side: &mut Side,
        profile: &Profile,
        (family, address, direction): (Family, IpAddr, Direction),
        changes: &ClassChanges,
        delta: &mut Delta,
    ) {
        let classes = &self.classes[index(family)];
        let rows_of = |class: &ClassId| {
            let rows = rows::class_rows(profile, classes.vector(*class), &self.features)?;
            Some((*class, rows))
        };
        let new: Vec<_> = changes.fresh.iter().filter_map(rows_of).collect();
        let more: usize = new.iter().map(|(_, rows)| rows.len()).sum();
        let is_closed = matches!(side.base.origin, Origin::TooLarge(_));
        if is_closed || (more > 0 && side.count + more > MOST_ROWS) {
            let after = self.side(profile, family);
            delta.side(direction, address, Some(side), Some(&after));
            *side = after;
            return;
        }
        for class in &changes.dead {
            if let Some(gone) = side.rows.remove(class) {
                side.count -= gone.len();
                delta.rows(direction, address, *class, &gone, &[]);
            }
        }
        for (class, rows) in new {
            side.count += rows.len();
            delta.rows(direction, address, class, &[], &rows);
            side.rows.insert(class, rows);
        }
    }

    pub(crate) fn features(&self) -> &Features {
        &self.features
    }
}
