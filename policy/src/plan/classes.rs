//! The classes of the addresses of one family, and how they follow changes: an address that changes moves
//! alone, and a question that splits no class renumbers nobody.

mod answers;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use hashbrown::HashMap;
use weft_types::Family;

use self::answers::ByNamespace;
use super::features::{Feature, FeatureId, Features};
use super::networks::pieces;
use super::world::{PodId, World};
use super::{ClassId, Delta, FamilyPlan};

/// The number of an address that somebody has.
pub(crate) type AddressId = u32;

/// An address that pods or nodes have.
struct AddressState {
    address: IpAddr,
    /// The pods that say that it is theirs.
    claimants: Vec<PodId>,
    /// The pod that it belongs to.
    owner: Option<PodId>,
    /// The nodes that have it.
    nodes: Vec<String>,
    class: ClassId,
    /// Its place among the members of its class.
    place: u32,
    is_dirty: bool,
}

/// Addresses that answer the same questions with yes.
struct Class {
    vector: Arc<[FeatureId]>,
    members: Vec<AddressId>,
    /// How many pieces of networks are of it.
    pieces: usize,
    /// It answers questions about networks only: then its members need not be told apart from these networks.
    is_network: bool,
}

/// The addresses of a family.
pub(crate) struct Classes {
    family: Family,
    by_address: BTreeMap<IpAddr, AddressId>,
    addresses: Vec<Option<AddressState>>,
    free: Vec<AddressId>,
    classes: BTreeMap<ClassId, Class>,
    by_vector: HashMap<Arc<[FeatureId]>, ClassId>,
    /// The number that no class had yet.
    next: u32,
    /// The numbers that the kernel has, by address or first address of a network; used for classes that are
    /// made anew.
    adopted: HashMap<IpAddr, ClassId>,
    dirty: Vec<AddressId>,
    touched: Vec<AddressId>,
    fresh: Vec<ClassId>,
}

/// The classes that came and went.
#[derive(Default)]
pub(crate) struct ClassChanges {
    pub(crate) fresh: Vec<ClassId>,
    pub(crate) dead: Vec<ClassId>,
}

/// What changed of the questions.
pub(crate) struct FeatureChanges<'a> {
    pub(crate) fresh: &'a [FeatureId],
    pub(crate) fresh_names: &'a [Box<str>],
    pub(crate) dead: &'a [FeatureId],
    /// Whether questions about networks are among them.
    pub(crate) networks: bool,
}

impl Classes {
    pub(crate) fn new(family: Family) -> Classes {
        Classes {
            family,
            by_address: BTreeMap::new(),
            addresses: Vec::new(),
            free: Vec::new(),
            classes: BTreeMap::new(),
            by_vector: HashMap::new(),
            next: 1,
            adopted: HashMap::new(),
            dirty: Vec::new(),
            touched: Vec::new(),
            fresh: Vec::new(),
        }
    }

    pub(crate) fn adopt(&mut self, address: IpAddr, class: ClassId) {
        self.next = self.next.max(class.0.saturating_add(1));
        self.adopted.insert(address, class);
    }

    /// All classes and the questions that they answer with yes, in order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (ClassId, &[FeatureId])> {
        self.classes.iter().map(|(id, class)| (*id, &*class.vector))
    }

    /// The questions that a class answers with yes.
    pub(crate) fn vector(&self, class: ClassId) -> &[FeatureId] {
        self.classes.get(&class).map(|class| &*class.vector).unwrap_or_default()
    }

    /// The pod that an address belongs to.
    pub(crate) fn owner(&self, address: IpAddr) -> Option<PodId> {
        self.state(*self.by_address.get(&address)?)?.owner
    }

    fn state(&self, id: AddressId) -> Option<&AddressState> {
        self.addresses.get(id as usize)?.as_ref()
    }

    fn state_mut(&mut self, id: AddressId) -> Option<&mut AddressState> {
        self.addresses.get_mut(id as usize)?.as_mut()
    }

    fn entry(&mut self, address: IpAddr) -> AddressId {
        if let Some(id) = self.by_address.get(&address) {
            return *id;
        }
        let state = AddressState {
            address,
            claimants: Vec::new(),
            owner: None,
            nodes: Vec::new(),
            class: ClassId::NONE,
            place: 0,
            is_dirty: false,
        };
        let id = self.free.pop().unwrap_or_else(|| {
            self.addresses.push(None);
            (self.addresses.len() - 1) as AddressId
        });
        self.addresses[id as usize] = Some(state);
        self.by_address.insert(address, id);
        id
    }

    /// A pod says that an address is its own, or no longer.
    pub(crate) fn claim(&mut self, address: IpAddr, pod: PodId, claims: bool) {
        let id = self.entry(address);
        if let Some(state) = self.state_mut(id) {
            state.claimants.retain(|other| *other != pod);
            if claims {
                state.claimants.push(pod);
            }
        }
        self.mark(id);
    }

    /// A node has an address, or no longer.
    pub(crate) fn set_node(&mut self, address: IpAddr, node: &str, has: bool) {
        let id = self.entry(address);
        if let Some(state) = self.state_mut(id) {
            state.nodes.retain(|other| other != node);
            if has {
                state.nodes.push(node.to_owned());
            }
        }
        self.mark(id);
    }

    /// Something about an address changed: it is to answer all questions again.
    pub(crate) fn mark_address(&mut self, address: IpAddr) {
        if let Some(id) = self.by_address.get(&address) {
            self.mark(*id);
        }
    }

    fn mark(&mut self, id: AddressId) {
        if let Some(state) = self.state_mut(id)
            && !state.is_dirty
        {
            state.is_dirty = true;
            self.dirty.push(id);
        }
    }

    /// Finds whom the changed addresses belong to. Tells of each that changed hands: the old and the new
    /// owner.
    pub(crate) fn find_owners(&mut self, world: &World, mut tell: impl FnMut(Option<PodId>, Option<PodId>)) {
        for id in self.dirty.clone() {
            let Some(state) = self.state_mut(id) else {
                continue;
            };
            let owner = world.owner(state.address, &state.claimants);
            let before = std::mem::replace(&mut state.owner, owner);
            if before != owner {
                tell(before, owner);
            }
        }
    }

    /// Brings all classes up to date.
    pub(crate) fn update(
        &mut self,
        world: &World,
        features: &mut Features,
        changes: &FeatureChanges<'_>,
        plan: &mut FamilyPlan,
        delta: &mut Delta,
    ) -> ClassChanges {
        let dirty = std::mem::take(&mut self.dirty);
        dirty.iter().for_each(|id| self.detach(*id));
        if changes.networks {
            self.classes.values_mut().for_each(|class| class.pieces = 0);
        }
        if !changes.dead.is_empty() {
            self.drop_features(changes.dead, features);
        }
        for id in changes.fresh {
            if let Some(feature) = features.get(*id).cloned() {
                let matching = self.matching(&feature, world);
                self.add_feature(*id, matching, features);
            }
        }
        for name in changes.fresh_names {
            self.add_name(name, world, features);
        }
        let mut by_namespace = ByNamespace::default();
        for id in &dirty {
            let Some(state) = self.state_mut(*id) else {
                continue;
            };
            state.is_dirty = false;
            let vector = self.answers(*id, world, features, &mut by_namespace);
            let hint = self.state(*id).map(|state| state.address);
            let class = self.intern(vector, hint, features);
            self.attach(*id, class);
        }
        if changes.networks {
            self.cut_networks(features, plan, delta);
        }
        self.tell_touched(plan, delta);
        self.forget_empty()
    }

    /// Takes an address out of its class, until it has answered again.
    fn detach(&mut self, id: AddressId) {
        let Some(state) = self.addresses[id as usize].as_mut() else {
            return;
        };
        let (class, place) = (std::mem::replace(&mut state.class, ClassId::NONE), state.place);
        if let Some(class) = self.classes.get_mut(&class) {
            class.members.swap_remove(place as usize);
            if let Some(moved) = class.members.get(place as usize).copied()
                && let Some(moved) = self.state_mut(moved)
            {
                moved.place = place;
            }
        }
    }

    fn attach(&mut self, id: AddressId, class: ClassId) {
        let place = match self.classes.get_mut(&class) {
            Some(class) => {
                class.members.push(id);
                (class.members.len() - 1) as u32
            }
            None => 0,
        };
        if let Some(state) = self.state_mut(id) {
            (state.class, state.place) = (class, place);
        }
        self.touched.push(id);
    }

    /// The class that answers exactly these questions with yes; a new one gets the number that the kernel has
    /// for `hint`.
    fn intern(&mut self, vector: Vec<FeatureId>, hint: Option<IpAddr>, features: &Features) -> ClassId {
        if vector.is_empty() {
            return ClassId::NONE;
        }
        if let Some(id) = self.by_vector.get(&*vector) {
            return *id;
        }
        let adopted = hint.and_then(|hint| self.adopted.remove(&hint));
        let id = adopted.filter(|id| *id != ClassId::NONE && !self.classes.contains_key(id)).unwrap_or_else(
            || {
                self.next += 1;
                ClassId(self.next - 1)
            },
        );
        let vector: Arc<[FeatureId]> = vector.into();
        let is_network = is_network(&vector, features);
        self.by_vector.insert(vector.clone(), id);
        self.classes.insert(id, Class { vector, members: Vec::new(), pieces: 0, is_network });
        self.fresh.push(id);
        id
    }

    /// Gives all members of a class another vector: by its name where it is free, else they move.
    fn rename(&mut self, id: ClassId, vector: Vec<FeatureId>, features: &Features) {
        let Some(class) = self.classes.get_mut(&id) else {
            return;
        };
        self.by_vector.remove(&class.vector);
        if vector.is_empty() || self.by_vector.contains_key(&*vector) {
            let target = self.by_vector.get(&*vector).copied().unwrap_or(ClassId::NONE);
            let members = std::mem::take(&mut class.members);
            class.vector = Arc::default();
            class.pieces = 0;
            members.into_iter().for_each(|member| self.attach(member, target));
            return;
        }
        let vector: Arc<[FeatureId]> = vector.into();
        let was_network = std::mem::replace(&mut class.is_network, is_network(&vector, features));
        if was_network != class.is_network {
            self.touched.extend(&class.members);
        }
        class.vector = vector.clone();
        self.by_vector.insert(vector, id);
    }

    /// Questions that are not asked any more, in order.
    fn drop_features(&mut self, dead: &[FeatureId], features: &Features) {
        let is_dead = |id: &FeatureId| dead.binary_search(id).is_ok();
        let with = |(id, class): (&ClassId, &Class)| class.vector.iter().any(is_dead).then_some(*id);
        for id in self.classes.iter().filter_map(with).collect::<Vec<_>>() {
            let vector = self.vector(id).iter().copied().filter(|id| !is_dead(id)).collect();
            self.rename(id, vector, features);
        }
    }

    /// A question is asked that was not before, and these addresses answer it with yes.
    fn add_feature(&mut self, feature: FeatureId, matching: Vec<AddressId>, features: &Features) {
        let mut by_class: BTreeMap<ClassId, Vec<AddressId>> = BTreeMap::new();
        for id in matching {
            if let Some(state) = self.state(id).filter(|state| !state.is_dirty) {
                by_class.entry(state.class).or_default().push(id);
            }
        }
        for (id, members) in by_class {
            let mut vector = self.vector(id).to_vec();
            if let Err(place) = vector.binary_search(&feature) {
                vector.insert(place, feature);
            }
            match self.classes.get(&id) {
                Some(class) if class.members.len() == members.len() && class.pieces == 0 => {
                    self.rename(id, vector, features);
                }
                _ => {
                    let hint = members.first().and_then(|id| self.state(*id)).map(|state| state.address);
                    let target = self.intern(vector, hint, features);
                    for member in members {
                        self.detach(member);
                        self.attach(member, target);
                    }
                }
            }
        }
    }

    /// Egress rules use a name of ports that they did not use before.
    fn add_name(&mut self, name: &str, world: &World, features: &mut Features) {
        let mut found: BTreeMap<FeatureId, Vec<AddressId>> = BTreeMap::new();
        for (pod_id, pod) in world.pods() {
            let Some(feature) = features.ports(name, pod.ports(name, None)) else {
                continue;
            };
            let addresses = pod.addresses();
            let owned = addresses.iter().filter_map(|address| self.by_address.get(address));
            let owned = owned.filter(|id| self.state(**id).is_some_and(|state| state.owner == Some(pod_id)));
            found.entry(feature).or_default().extend(owned);
        }
        for (feature, matching) in found {
            self.add_feature(feature, matching, features);
        }
    }

    /// Cuts the networks that are asked for into pieces, each of a class.
    fn cut_networks(&mut self, features: &Features, plan: &mut FamilyPlan, delta: &mut Delta) {
        let asked = features.networks().iter().filter_map(|id| match &**features.get(*id)? {
            Feature::Networks(networks) => Some((*id, networks)),
            _ => None,
        });
        let mut networks = BTreeMap::new();
        for piece in pieces(self.family, asked) {
            let id = self.intern(piece.networks, Some(piece.first), features);
            if let Some(class) = self.classes.get_mut(&id) {
                class.pieces += 1;
            }
            networks.insert(piece.first, (piece.last, id));
        }
        let before = std::mem::replace(&mut plan.networks, networks);
        let gone = before.iter().filter(|(first, it)| plan.networks.get(*first) != Some(it));
        delta.networks.extend(gone.map(|(first, (last, _))| (*first, *last, None)));
        let new = plan.networks.iter().filter(|(first, it)| before.get(*first) != Some(it));
        delta.networks.extend(new.map(|(first, (last, class))| (*first, *last, Some(*class))));
    }

    /// Writes down the classes of all addresses that moved, and forgets those that nobody has.
    fn tell_touched(&mut self, plan: &mut FamilyPlan, delta: &mut Delta) {
        let mut touched = std::mem::take(&mut self.touched);
        touched.sort_unstable();
        touched.dedup();
        for id in touched {
            let Some(state) = self.state(id) else {
                continue;
            };
            let address = state.address;
            let class = self.classes.get(&state.class).filter(|class| !class.is_network).map(|_| state.class);
            let before = match class {
                Some(class) => plan.peers.insert(address, class),
                None => plan.peers.remove(&address),
            };
            if before != class {
                delta.peers.push((address, class));
            }
            if state.claimants.is_empty() && state.nodes.is_empty() {
                self.detach(id);
                self.addresses[id as usize] = None;
                self.by_address.remove(&address);
                self.free.push(id);
            }
        }
    }

    /// Forgets classes that nobody is of.
    fn forget_empty(&mut self) -> ClassChanges {
        let is_empty = |class: &Class| class.members.is_empty() && class.pieces == 0;
        let empty = self.classes.iter().filter(|(_, class)| is_empty(class));
        let mut dead: Vec<ClassId> = empty.map(|(id, _)| *id).collect();
        for id in &dead {
            if let Some(class) = self.classes.remove(id)
                && self.by_vector.get(&class.vector) == Some(id)
            {
                self.by_vector.remove(&class.vector);
            }
        }
        let mut fresh = std::mem::take(&mut self.fresh);
        fresh.retain(|id| self.classes.contains_key(id));
        dead.sort_unstable();
        ClassChanges { fresh, dead }
    }
}

fn is_network(vector: &[FeatureId], features: &Features) -> bool {
    vector.iter().all(|id| features.get(*id).is_some_and(|feature| feature.is_network()))
}
