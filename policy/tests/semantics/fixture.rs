//! A small cluster in few words. `here` is the node whose plan is asked.

use std::net::IpAddr;

use weft_policy::plan::{Packet, Planner, Verdict};
use weft_types::{
    Action, ClusterNetworkPolicy, ClusterRule, ContainerPort, IpBlock, LabelSelector, Labels, Namespace,
    NamespacedName, NetworkPolicy, Node, Peers, Pod, PodDetails, PodPeer, PolicyPeer, PolicyRule, PortMatch,
    PortMatches, Protocol, Requirement, Tier,
};

pub(crate) use weft_types::Protocol::{Sctp, Tcp, Udp};

pub(crate) struct Cluster(pub(crate) Planner);

/// `a=b,c=d`, as labels.
fn pairs(text: &str) -> impl Iterator<Item = (&str, &str)> {
    text.split(',').filter_map(|pair| pair.split_once('='))
}

pub(crate) fn labels(text: &str) -> Labels {
    pairs(text).collect()
}

pub(crate) fn select(text: &str) -> LabelSelector {
    pairs(text).map(|(key, value)| Requirement::equals(key, value).unwrap()).collect()
}

/// Pods of the policy's namespace.
pub(crate) fn pods(text: &str) -> PolicyPeer {
    PolicyPeer::Pods(PodPeer { namespaces: None, pods: select(text) })
}

/// Pods of namespaces.
pub(crate) fn pods_in(namespaces: &str, text: &str) -> PolicyPeer {
    PolicyPeer::Pods(PodPeer { namespaces: Some(select(namespaces)), pods: select(text) })
}

pub(crate) fn network(cidr: &str, except: &[&str]) -> PolicyPeer {
    let except = except.iter().map(|text| text.parse().unwrap()).collect();
    PolicyPeer::Network(IpBlock { cidr: cidr.parse().unwrap(), except })
}

pub(crate) fn nodes(text: &str) -> PolicyPeer {
    PolicyPeer::Nodes(select(text))
}

pub(crate) fn port(protocol: Protocol, first: u16, last: u16) -> PortMatch {
    PortMatch::Numbers { protocol, first, last }
}

pub(crate) fn named(name: &str) -> PortMatch {
    PortMatch::Named { protocol: Some(Tcp), name: name.into() }
}

/// A rule for peers and ports; no list means all.
pub(crate) fn rule(peers: Option<&[PolicyPeer]>, ports: Option<&[PortMatch]>) -> PolicyRule {
    PolicyRule {
        peers: peers.map_or(Peers::All, |peers| Peers::Any(peers.into())),
        ports: ports.map_or(PortMatches::All, |ports| PortMatches::Any(ports.into())),
    }
}

pub(crate) fn decide(action: Action, traffic: PolicyRule) -> ClusterRule {
    ClusterRule { name: format!("{action:?}").to_lowercase().into(), action, traffic }
}

pub(crate) fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

pub(crate) fn key(text: &str) -> NamespacedName {
    text.parse().unwrap()
}

/// A pod on a node; its name is `namespace/name`.
pub(crate) fn pod(name: &str, node: &str, addresses: &[&str], text: &str) -> Pod {
    Pod {
        key: key(name),
        addresses: addresses.iter().map(|text| ip(text)).collect(),
        searches: true,
        labels: labels(text),
        details: Some(Box::new(PodDetails { node: Some(node.into()), ..PodDetails::default() })),
    }
}

pub(crate) fn with_port(mut pod: Pod, name: &str, port: u16) -> Pod {
    let details = pod.details.as_mut().unwrap();
    let mut ports = details.ports.to_vec();
    ports.push(ContainerPort { name: name.into(), protocol: Tcp, port });
    details.ports = ports.into();
    pod
}

impl Cluster {
    /// Nodes `here` and `there`, namespaces `shop` and `bank`, and in each a pod `web` on `here` and a pod
    /// `db` on `there`.
    pub(crate) fn new() -> Cluster {
        let mut planner = Planner::new("here");
        for (name, address) in [("here", "172.16.0.1"), ("there", "172.16.0.2")] {
            let all_addresses = vec![ip(address), ip(&address.replace("172.16.0.", "fd01::"))];
            let node = Node {
                name: name.to_owned(),
                labels: labels(&format!("name={name}")),
                all_addresses,
                ..Node::default()
            };
            planner.set_node(name, Some(&node));
        }
        let mut cluster = Cluster(planner);
        for (number, namespace) in [(1, "shop"), (2, "bank")] {
            let labels = labels(&format!("name={namespace}"));
            cluster.0.set_namespace(namespace, Some(&Namespace { labels, ..Namespace::new(namespace) }));
            for (last, name, node) in [(1, "web", "here"), (2, "db", "there")] {
                let addresses = [format!("10.0.{number}.{last}"), format!("fd00::{number}:{last}")];
                let addresses = addresses.each_ref().map(String::as_str);
                cluster.add(&pod(&format!("{namespace}/{name}"), node, &addresses, &format!("app={name}")));
            }
        }
        cluster
    }

    pub(crate) fn add(&mut self, pod: &Pod) {
        self.0.set_pod(&pod.key, Some(pod));
    }

    /// A NetworkPolicy; no list means that it does not isolate for that direction.
    pub(crate) fn isolate(
        &mut self,
        name: &str,
        pods: &str,
        ingress: Option<&[PolicyRule]>,
        egress: Option<&[PolicyRule]>,
    ) {
        let policy = NetworkPolicy {
            key: key(name),
            pods: select(pods),
            ingress: ingress.map(Into::into),
            egress: egress.map(Into::into),
        };
        self.0.set_network_policy(&policy.key, Some(&policy));
    }

    /// A ClusterNetworkPolicy about all pods.
    pub(crate) fn guard(
        &mut self,
        name: &str,
        (tier, priority): (Tier, u16),
        ingress: &[ClusterRule],
        egress: &[ClusterRule],
    ) {
        let policy = ClusterNetworkPolicy {
            name: name.to_owned(),
            tier,
            priority,
            namespaces: LabelSelector::default(),
            pods: LabelSelector::default(),
            ingress: ingress.into(),
            egress: egress.into(),
        };
        self.0.set_cluster_network_policy(name, Some(&policy));
    }

    /// Whether a packet passes: by the plan and by the explanation.
    pub(crate) fn passes(
        &mut self,
        source: &str,
        destination: &str,
        port: impl Into<Option<(Protocol, u16)>>,
    ) -> bool {
        self.0.commit();
        let packet = packet(source, destination, port.into());
        let verdict = self.0.plan().verdict(&packet);
        let explanation = self.0.explain(&packet);
        assert_eq!(verdict, explanation.verdict, "{packet:?}: {explanation}");
        verdict == Verdict::Accept
    }

    pub(crate) fn why(&mut self, source: &str, destination: &str, port: Option<(Protocol, u16)>) -> String {
        self.0.commit();
        self.0.explain(&packet(source, destination, port)).to_string()
    }
}

pub(crate) fn packet(source: &str, destination: &str, port: Option<(Protocol, u16)>) -> Packet {
    Packet { source: ip(source), destination: ip(destination), port }
}
