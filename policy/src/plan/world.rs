//! The pods, namespaces and nodes of the cluster, as far as policies ask about them.

use std::collections::BTreeSet;
use std::net::IpAddr;

use hashbrown::HashMap;
use weft_types::{LabelSelector, Labels, NamespacedName, Node, Pod, PodAddresses, Protocol};

use super::features::{Feature, NamedPorts};

/// The number of a pod.
pub(crate) type PodId = u32;

/// The label that the API server gives to every namespace.
const NAMESPACE_NAME: &str = "kubernetes.io/metadata.name";

/// A pod, and the addresses that the plugin gave it on this node, which the API server may not have yet.
pub(crate) struct PodState {
    pub(crate) pod: Pod,
    pub(crate) assigned: PodAddresses,
}

impl PodState {
    /// Its addresses; none on the host's network, where they are the node's.
    pub(crate) fn addresses(&self) -> PodAddresses {
        match (self.on_host_network(), self.assigned.is_empty()) {
            (true, _) => PodAddresses::default(),
            (false, true) => self.pod.addresses,
            (false, false) => self.assigned,
        }
    }

    pub(crate) fn on_host_network(&self) -> bool {
        self.pod.details.as_ref().is_some_and(|details| details.host_network)
    }

    pub(crate) fn is_on(&self, node: &str) -> bool {
        self.pod.details.as_ref().is_some_and(|details| details.node.as_deref() == Some(node))
    }

    /// Of the pods with one address, the one with the highest rank has it: those that the plugin gave it to,
    /// then the newest.
    fn rank(&self, address: IpAddr) -> (bool, i64, &NamespacedName) {
        let created = self.pod.details.as_ref().map_or(0, |details| details.created);
        (self.assigned.contains(&address), created, &self.pod.key)
    }

    /// The ports of that name, in order.
    pub(crate) fn ports(&self, name: &str, protocol: Option<Protocol>) -> NamedPorts {
        let ports = self.pod.details.iter().flat_map(|details| &details.ports);
        let ports = ports.filter(|it| *it.name == *name && protocol.is_none_or(|only| only == it.protocol));
        let ports: BTreeSet<_> = ports.map(|it| (it.protocol, it.port)).collect();
        ports.into_iter().collect()
    }
}

/// A namespace, which may have pods before it is known itself.
#[derive(Default)]
pub(crate) struct NamespaceState {
    /// Its labels; nothing while the namespace is not known.
    labels: Option<Labels>,
    pub(crate) pods: BTreeSet<PodId>,
}

/// The objects that are not policies.
pub(crate) struct World {
    /// The name of this node.
    pub(crate) node: String,
    pods: Vec<Option<PodState>>,
    free: Vec<PodId>,
    by_key: HashMap<NamespacedName, PodId>,
    namespaces: HashMap<Box<str>, NamespaceState>,
    nodes: HashMap<String, Node>,
}

impl World {
    pub(crate) fn new(node: String) -> World {
        World {
            node,
            pods: Vec::new(),
            free: Vec::new(),
            by_key: HashMap::new(),
            namespaces: HashMap::new(),
            nodes: HashMap::new(),
        }
    }

    pub(crate) fn pod(&self, id: PodId) -> Option<&PodState> {
        self.pods.get(id as usize)?.as_ref()
    }

    pub(crate) fn pod_id(&self, key: &NamespacedName) -> Option<PodId> {
        self.by_key.get(key).copied()
    }

    pub(crate) fn pods(&self) -> impl Iterator<Item = (PodId, &PodState)> {
        let numbered = self.pods.iter().enumerate();
        numbered.filter_map(|(id, pod)| Some((id as PodId, pod.as_ref()?)))
    }

    /// Puts a pod in, or replaces the one of its name.
    pub(crate) fn put_pod(&mut self, pod: Pod, assigned: PodAddresses) -> PodId {
        let state = PodState { pod, assigned };
        if let Some(id) = self.pod_id(&state.pod.key) {
            self.pods[id as usize] = Some(state);
            return id;
        }
        let id = self.free.pop().unwrap_or_else(|| {
            self.pods.push(None);
            (self.pods.len() - 1) as PodId
        });
        self.by_key.insert(state.pod.key.clone(), id);
        self.namespaces.entry_ref(state.pod.key.namespace.as_str()).or_default().pods.insert(id);
        self.pods[id as usize] = Some(state);
        id
    }

    /// Takes a pod out. Its number may be another's from now on.
    pub(crate) fn take_pod(&mut self, id: PodId) -> Option<PodState> {
        let gone = self.pods.get_mut(id as usize)?.take()?;
        self.by_key.remove(&gone.pod.key);
        self.free.push(id);
        let namespace = gone.pod.key.namespace.as_str();
        if let Some(state) = self.namespaces.get_mut(namespace) {
            state.pods.remove(&id);
            if state.pods.is_empty() && state.labels.is_none() {
                self.namespaces.remove(namespace);
            }
        }
        Some(gone)
    }

    /// Sets or takes away the labels of a namespace. Returns its pods, where that is a change.
    pub(crate) fn set_namespace(&mut self, name: &str, labels: Option<Labels>) -> Vec<PodId> {
        let state = self.namespaces.entry_ref(name).or_default();
        let pods = match state.labels == labels {
            true => Vec::new(),
            false => state.pods.iter().copied().collect(),
        };
        state.labels = labels;
        if state.pods.is_empty() && state.labels.is_none() {
            self.namespaces.remove(name);
        }
        pods
    }

    pub(crate) fn pods_of(&self, namespace: &str) -> impl Iterator<Item = PodId> {
        self.namespaces.get(namespace).into_iter().flat_map(|state| state.pods.iter().copied())
    }

    /// The labels of a namespace. One that is not known has the label that all have.
    pub(crate) fn namespace_matches(&self, selector: &LabelSelector, name: &str) -> bool {
        if selector.is_everything() {
            return true;
        }
        match self.namespaces.get(name).and_then(|state| state.labels.as_ref()) {
            Some(labels) => selector.matches(labels),
            None => selector.matches(&[(NAMESPACE_NAME, name)].into_iter().collect()),
        }
    }

    pub(crate) fn put_node(&mut self, node: Node) -> Option<Node> {
        self.nodes.insert(node.name.clone(), node)
    }

    pub(crate) fn take_node(&mut self, name: &str) -> Option<Node> {
        self.nodes.remove(name)
    }

    pub(crate) fn node(&self, name: &str) -> Option<&Node> {
        self.nodes.get(name)
    }

    pub(crate) fn nodes(&self) -> impl Iterator<Item = &Node> {
        self.nodes.values()
    }

    /// Whether a pod is one of those that a question is about.
    pub(crate) fn pod_answers(&self, pod: &PodState, feature: &Feature) -> bool {
        let key = &pod.pod.key;
        match feature {
            Feature::Own { namespace, pods } => {
                **namespace == *key.namespace && pods.matches(&pod.pod.labels)
            }
            Feature::Everywhere { namespaces, pods } => {
                pods.matches(&pod.pod.labels) && self.namespace_matches(namespaces, &key.namespace)
            }
            Feature::Ports { name, ports } => pod.ports(name, None) == *ports,
            Feature::Networks(_) | Feature::Nodes(_) => false,
        }
    }

    /// The pods that a question is about.
    pub(crate) fn pods_that_answer(&self, feature: &Feature) -> Vec<PodId> {
        let answers = |id: &PodId| self.pod(*id).is_some_and(|pod| self.pod_answers(pod, feature));
        match feature {
            Feature::Own { namespace, .. } => self.pods_of(namespace).filter(answers).collect(),
            Feature::Everywhere { namespaces, pods } => {
                let matching =
                    self.namespaces.iter().filter(|(name, _)| self.namespace_matches(namespaces, name));
                let of_these = matching.flat_map(|(_, state)| state.pods.iter().copied());
                let has_labels = |id: &PodId| self.pod(*id).is_some_and(|pod| pods.matches(&pod.pod.labels));
                of_these.filter(has_labels).collect()
            }
            Feature::Ports { .. } => self.pods().map(|(id, _)| id).filter(answers).collect(),
            Feature::Networks(_) | Feature::Nodes(_) => Vec::new(),
        }
    }

    /// Which of some pods an address belongs to.
    pub(crate) fn owner(&self, address: IpAddr, claimants: &[PodId]) -> Option<PodId> {
        let rank = |id: &&PodId| self.pod(**id).map(|pod| pod.rank(address));
        claimants.iter().max_by(|one, other| rank(one).cmp(&rank(other))).copied()
    }
}

/// All addresses of a node: those of its status, or at least those under which others reach it.
pub(crate) fn node_addresses(node: &Node) -> &[IpAddr] {
    if node.all_addresses.is_empty() { &node.addresses } else { &node.all_addresses }
}
