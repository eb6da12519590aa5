//! What policies ask of peers: each question once, however many rules ask it.

use std::mem::Discriminant;
use std::sync::Arc;

use hashbrown::{HashMap, HashSet};
use weft_types::{LabelSelector, Protocol};

use super::networks::Networks;

/// The number of a question.
pub(crate) type FeatureId = u32;

/// The ports of a pod that have one name, in order.
pub(crate) type NamedPorts = Box<[(Protocol, u16)]>;

/// A question that an address answers with yes or no.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Feature {
    /// A pod of that namespace with such labels.
    Own { namespace: Box<str>, pods: LabelSelector },
    /// A pod with such labels, of a namespace with such labels.
    Everywhere { namespaces: LabelSelector, pods: LabelSelector },
    /// Part of any of some networks: those of a rule are told apart by nobody.
    Networks(Networks),
    /// An address of a Node with such labels.
    Nodes(LabelSelector),
    /// A pod that has exactly these ports of that name.
    Ports { name: Box<str>, ports: NamedPorts },
}

impl Feature {
    /// What tells the list of questions that it belongs to.
    fn place(&self) -> (Discriminant<Feature>, &str) {
        let namespace = match self {
            Feature::Own { namespace, .. } => namespace,
            _ => "",
        };
        (std::mem::discriminant(self), namespace)
    }

    /// Whether it says something of addresses that nobody is known to have.
    pub(crate) fn is_network(&self) -> bool {
        matches!(self, Feature::Networks(_))
    }
}

struct Slot {
    feature: Arc<Feature>,
    users: u32,
}

/// A name of ports that egress rules use, and the different ports that pods have of it.
#[derive(Default)]
struct PortName {
    users: u32,
    found: HashMap<NamedPorts, FeatureId>,
}

/// All questions that policies of this node's pods ask.
#[derive(Default)]
pub(crate) struct Features {
    slots: Vec<Option<Slot>>,
    free: Vec<FeatureId>,
    by_feature: HashMap<Arc<Feature>, FeatureId>,
    own: HashMap<Box<str>, Vec<FeatureId>>,
    everywhere: Vec<FeatureId>,
    networks: Vec<FeatureId>,
    nodes: Vec<FeatureId>,
    port_names: HashMap<Box<str>, PortName>,
    fresh: Vec<FeatureId>,
    fresh_names: Vec<Box<str>>,
    /// Those that had no user at some time since the last sweep.
    unused: Vec<FeatureId>,
    unused_names: Vec<Box<str>>,
}

impl Features {
    /// The number of a question, for one more user of it.
    pub(crate) fn acquire(&mut self, feature: Feature) -> FeatureId {
        let id = self.intern(feature);
        if let Some(slot) = &mut self.slots[id as usize] {
            slot.users += 1;
        }
        id
    }

    /// The number of a question; its users are not counted yet.
    fn intern(&mut self, feature: Feature) -> FeatureId {
        if let Some(id) = self.by_feature.get(&feature) {
            return *id;
        }
        let feature = Arc::new(feature);
        let id = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            (self.slots.len() - 1) as FeatureId
        });
        self.slots[id as usize] = Some(Slot { feature: feature.clone(), users: 0 });
        if let Some(list) = self.list(&feature) {
            list.push(id);
        }
        self.by_feature.insert(feature, id);
        self.fresh.push(id);
        id
    }

    /// The list of questions that such a one belongs to.
    fn list(&mut self, feature: &Feature) -> Option<&mut Vec<FeatureId>> {
        match feature {
            Feature::Own { namespace, .. } => Some(self.own.entry(namespace.clone()).or_default()),
            Feature::Everywhere { .. } => Some(&mut self.everywhere),
            Feature::Networks(_) => Some(&mut self.networks),
            Feature::Nodes(_) => Some(&mut self.nodes),
            Feature::Ports { .. } => None,
        }
    }

    /// One user less.
    pub(crate) fn release(&mut self, id: FeatureId) {
        if let Some(slot) = &mut self.slots[id as usize] {
            slot.users -= 1;
            if slot.users == 0 {
                self.unused.push(id);
            }
        }
    }

    /// One more user of a port name.
    pub(crate) fn acquire_name(&mut self, name: &str) {
        if !self.port_names.contains_key(name) {
            self.port_names.insert(name.into(), PortName::default());
            self.fresh_names.push(name.into());
        }
        if let Some(it) = self.port_names.get_mut(name) {
            it.users += 1;
        }
    }

    /// One user of a port name less.
    pub(crate) fn release_name(&mut self, name: &str) {
        if let Some(it) = self.port_names.get_mut(name) {
            it.users -= 1;
            if it.users == 0 {
                self.unused_names.push(name.into());
            }
        }
    }

    /// The question whether a pod has exactly these ports of a name that is in use; nothing for no ports.
    pub(crate) fn ports(&mut self, name: &str, ports: NamedPorts) -> Option<FeatureId> {
        let known = self.port_names.get(name).filter(|_| !ports.is_empty())?.found.get(&ports);
        if let Some(id) = known {
            return Some(*id);
        }
        let id = self.acquire(Feature::Ports { name: name.into(), ports: ports.clone() });
        self.port_names.get_mut(name)?.found.insert(ports, id);
        Some(id)
    }

    /// The names of ports that are in use.
    pub(crate) fn port_names(&self) -> impl Iterator<Item = &str> {
        self.port_names.keys().map(|name| &**name)
    }

    /// Takes out what nobody uses any more and returns it. The numbers are not given again before
    /// [`Features::forget`].
    pub(crate) fn sweep(&mut self) -> Vec<FeatureId> {
        for name in std::mem::take(&mut self.unused_names) {
            if self.port_names.get(&name).is_some_and(|it| it.users == 0) {
                let gone = self.port_names.remove(&name);
                gone.into_iter().flat_map(|it| it.found.into_values()).for_each(|id| self.release(id));
            }
        }
        let mut dead = std::mem::take(&mut self.unused);
        dead.sort_unstable();
        dead.dedup();
        dead.retain(|id| self.slots[*id as usize].as_ref().is_some_and(|slot| slot.users == 0));
        let gone = dead.iter().filter_map(|id| self.slots[*id as usize].as_ref());
        let gone: Vec<Arc<Feature>> = gone.map(|slot| slot.feature.clone()).collect();
        // Each list once, however many of it are gone.
        let mut tidied = HashSet::new();
        for feature in &gone {
            self.by_feature.remove(feature);
            if tidied.insert(feature.place())
                && let Some(list) = self.list(feature)
            {
                list.retain(|id| dead.binary_search(id).is_err());
            }
        }
        self.own.retain(|_, list| !list.is_empty());
        dead
    }

    /// Gives the numbers of what was swept free.
    pub(crate) fn forget(&mut self, dead: &[FeatureId]) {
        for id in dead {
            self.slots[*id as usize] = None;
            self.free.push(*id);
        }
    }

    /// The questions that are new since the last call, and the names of ports.
    pub(crate) fn take_fresh(&mut self) -> (Vec<FeatureId>, Vec<Box<str>>) {
        (std::mem::take(&mut self.fresh), std::mem::take(&mut self.fresh_names))
    }

    /// A question.
    pub(crate) fn get(&self, id: FeatureId) -> Option<&Arc<Feature>> {
        self.slots.get(id as usize)?.as_ref().map(|slot| &slot.feature)
    }

    /// All questions about pods of that namespace in particular.
    pub(crate) fn own(&self, namespace: &str) -> &[FeatureId] {
        self.own.get(namespace).map(Vec::as_slice).unwrap_or_default()
    }

    /// All questions about pods of all namespaces.
    pub(crate) fn everywhere(&self) -> &[FeatureId] {
        &self.everywhere
    }

    /// All questions about networks.
    pub(crate) fn networks(&self) -> &[FeatureId] {
        &self.networks
    }

    /// All questions about Nodes.
    pub(crate) fn nodes(&self) -> &[FeatureId] {
        &self.nodes
    }
}
