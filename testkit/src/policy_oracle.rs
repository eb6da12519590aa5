//! What the specifications say about a packet, rule by rule: slow, without classes, and sharing no code with
//! the plan.

use std::collections::BTreeMap;
use std::net::IpAddr;

use weft_types::{
    Action, ClusterNetworkPolicy, IpBlock, LabelSelector, Labels, Namespace, NamespacedName, NetworkPolicy,
    Node, Peers, Pod, PolicyPeer, PolicyRule, PortMatch, PortMatches, Protocol, Tier,
};

/// All objects of a cluster, as one node sees them.
#[derive(Clone, Debug, Default)]
pub struct Cluster {
    /// The name of the node that looks.
    pub node: String,
    /// All pods that have not ended.
    pub pods: BTreeMap<NamespacedName, Pod>,
    /// All namespaces, with their labels.
    pub namespaces: BTreeMap<String, Namespace>,
    /// All nodes, with their labels and all addresses.
    pub nodes: BTreeMap<String, Node>,
    /// All NetworkPolicies.
    pub policies: BTreeMap<NamespacedName, NetworkPolicy>,
    /// All ClusterNetworkPolicies.
    pub cluster_policies: BTreeMap<String, ClusterNetworkPolicy>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Ingress,
    Egress,
}

impl Cluster {
    /// Whether this node lets a packet pass. It goes to that port where its protocol has any.
    pub fn allows(&self, source: IpAddr, destination: IpAddr, port: Option<(Protocol, u16)>) -> bool {
        let own = self.nodes.get(&self.node).map(|node| node.all_addresses.clone()).unwrap_or_default();
        // "A pod cannot block itself", and "traffic to and from the node where a Pod is running is always
        // allowed".
        if source == destination || own.contains(&source) || own.contains(&destination) {
            return true;
        }
        self.allows_at(source, destination, Way::Egress, destination, port)
            && self.allows_at(destination, source, Way::Ingress, destination, port)
    }

    /// The pod that an address belongs to: the newest that is not on its host's network.
    fn pod_at(&self, address: IpAddr) -> Option<&Pod> {
        let pods = self.pods.values().filter(|pod| pod.addresses.contains(&address));
        let own = pods.filter(|pod| pod.details.as_ref().is_none_or(|details| !details.host_network));
        own.max_by_key(|pod| (pod.details.as_ref().map_or(0, |details| details.created), &pod.key))
    }

    fn allows_at(
        &self,
        address: IpAddr,
        peer: IpAddr,
        way: Way,
        target: IpAddr,
        port: Option<(Protocol, u16)>,
    ) -> bool {
        let Some(pod) = self.pod_at(address) else {
            return true;
        };
        if pod.details.as_ref().and_then(|details| details.node.as_deref()) != Some(&*self.node) {
            return true;
        }
        let matches = |rule: &PolicyRule, namespace: Option<&str>| {
            self.peers_match(&rule.peers, namespace, peer) && self.ports_match(&rule.ports, target, port)
        };
        if let Some(verdict) = self.tier(Tier::Admin, pod, way, &matches) {
            return verdict;
        }
        let policies = self
            .policies
            .values()
            .filter(|policy| policy.key.namespace == pod.key.namespace && policy.pods.matches(&pod.labels));
        let lists = policies.filter_map(|policy| {
            let rules = if way == Way::Ingress { &policy.ingress } else { &policy.egress };
            rules.as_ref().map(|rules| (&policy.key.namespace, rules))
        });
        let lists: Vec<_> = lists.collect();
        if !lists.is_empty() {
            return lists.iter().any(|(own, rules)| rules.iter().any(|rule| matches(rule, Some(own))));
        }
        self.tier(Tier::Baseline, pod, way, &matches).unwrap_or(true)
    }

    /// What the ClusterNetworkPolicies of a tier decide; nothing where they leave it to the next one.
    fn tier(
        &self,
        tier: Tier,
        pod: &Pod,
        way: Way,
        matches: &dyn Fn(&PolicyRule, Option<&str>) -> bool,
    ) -> Option<bool> {
        let mut policies: Vec<&ClusterNetworkPolicy> =
            self.cluster_policies.values().filter(|policy| policy.tier == tier).collect();
        policies.sort_by_key(|policy| (policy.priority, &policy.name));
        for policy in policies {
            let selected = policy.pods.matches(&pod.labels)
                && policy.namespaces.matches(&self.namespace_labels(&pod.key.namespace));
            if !selected {
                continue;
            }
            let rules = if way == Way::Ingress { &policy.ingress } else { &policy.egress };
            if let Some(rule) = rules.iter().find(|rule| matches(&rule.traffic, None)) {
                return match rule.action {
                    Action::Accept => Some(true),
                    Action::Deny => Some(false),
                    Action::Pass => None,
                };
            }
        }
        None
    }

    fn namespace_labels(&self, name: &str) -> Labels {
        match self.namespaces.get(name) {
            Some(namespace) => namespace.labels.clone(),
            None => [("kubernetes.io/metadata.name", name)].into_iter().collect(),
        }
    }

    fn peers_match(&self, peers: &Peers, own: Option<&str>, address: IpAddr) -> bool {
        let Peers::Any(peers) = peers else {
            return true;
        };
        peers.iter().any(|peer| match peer {
            PolicyPeer::Network(block) => is_inside(block, address),
            PolicyPeer::Nodes(selector) => self.is_node(selector, address),
            PolicyPeer::Pods(peer) => self.pod_at(address).is_some_and(|pod| {
                let namespace = &pod.key.namespace;
                let in_namespace = match &peer.namespaces {
                    Some(selector) => selector.matches(&self.namespace_labels(namespace)),
                    None => own == Some(namespace),
                };
                in_namespace && peer.pods.matches(&pod.labels)
            }),
        })
    }

    fn is_node(&self, selector: &LabelSelector, address: IpAddr) -> bool {
        let mut nodes = self.nodes.values().filter(|node| selector.matches(&node.labels));
        nodes.any(|node| node.all_addresses.contains(&address))
    }

    fn ports_match(&self, ports: &PortMatches, target: IpAddr, port: Option<(Protocol, u16)>) -> bool {
        let PortMatches::Any(ports) = ports else {
            return true;
        };
        let Some((protocol, number)) = port else {
            return false;
        };
        ports.iter().any(|port| match port {
            PortMatch::Numbers { protocol: wanted, first, last } => {
                *wanted == protocol && (*first..=*last).contains(&number)
            }
            PortMatch::Named { protocol: wanted, name } => {
                let details = self.pod_at(target).and_then(|pod| pod.details.as_ref());
                wanted.is_none_or(|wanted| wanted == protocol)
                    && details.is_some_and(|details| {
                        let mut ports = details.ports.iter();
                        ports.any(|it| it.name == *name && it.protocol == protocol && it.port == number)
                    })
            }
        })
    }
}

fn is_inside(block: &IpBlock, address: IpAddr) -> bool {
    block.cidr.contains(address) && !block.except.iter().any(|except| except.contains(address))
}
