//! policy.networking.k8s.io/v1alpha2 ClusterNetworkPolicy.
//!
//! A rule of which a peer or a protocol cannot be read fails closed as the API has it: an Accept rule matches
//! nothing, a Deny or Pass rule denies everything. Where nobody can tell which pods or which tier a policy is
//! for, its Deny rules hold for all pods before all else, and its other rules match nothing. Domain names are
//! not supported, nor is any field that this version of the API has not: a rule with them cannot be read.

use serde::Deserialize;
use weft_types::{
    Action, ClusterNetworkPolicy, ClusterRule, IpBlock, LabelSelector, Peers, PodPeer, PolicyPeer,
    PolicyRule, PortMatch, PortMatches, Protocol, Tier,
};

use super::address::network;
use super::metadata::Metadata;
use super::policy::{
    Budget, SelectorObject, Unknown, last_port, port_name, port_number, selector, selector_or_all,
};
use super::values::within;
use super::{ApiResource, Optional, WireObject};
use crate::field::{Fault, Faults, Field};
use crate::filter::WatchFilter;

/// The highest number of a priority.
const LAST_PRIORITY: u16 = 1000;

impl ApiResource for ClusterNetworkPolicy {
    const API_VERSION: &'static str = "policy.networking.k8s.io/v1alpha2";
    const PLURAL: &'static str = "clusternetworkpolicies";
    // Who may not see the policies must not go on as if there were none.
    const OPTIONAL: Optional = Optional::Definition;

    type Wire = ClusterNetworkPolicyObject;
}

/// policy.networking.k8s.io/v1alpha2 ClusterNetworkPolicy
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct ClusterNetworkPolicyObject {
    metadata: Field<Metadata>,
    spec: Field<Spec>,
}

/// `spec` of a ClusterNetworkPolicy.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Spec {
    tier: Field<String>,
    priority: Field<i64>,
    subject: Field<PodsObject>,
    ingress: Field<Vec<Field<RuleObject>>>,
    egress: Field<Vec<Field<RuleObject>>>,
}

/// Pods, by their namespaces or by both: the subject, and within peers.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct PodsObject {
    namespaces: Field<SelectorObject>,
    pods: Field<NamespacedPodObject>,
    #[serde(flatten)]
    unknown: Unknown,
}

/// `pods` of a subject or a peer.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct NamespacedPodObject {
    namespace_selector: Field<SelectorObject>,
    pod_selector: Field<SelectorObject>,
    #[serde(flatten)]
    unknown: Unknown,
}

/// A rule: `from` of an ingress rule, `to` of an egress rule.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct RuleObject {
    name: Field<String>,
    action: Field<String>,
    from: Field<Vec<Field<PeerObject>>>,
    to: Field<Vec<Field<PeerObject>>>,
    protocols: Field<Vec<Field<ProtocolObject>>>,
    #[serde(flatten)]
    unknown: Unknown,
}

/// A peer of a rule.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct PeerObject {
    namespaces: Field<SelectorObject>,
    pods: Field<NamespacedPodObject>,
    nodes: Field<SelectorObject>,
    networks: Field<Vec<Field<String>>>,
    #[serde(flatten)]
    unknown: Unknown,
}

/// One of `protocols` of a rule.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct ProtocolObject {
    tcp: Field<PortsObject>,
    udp: Field<PortsObject>,
    sctp: Field<PortsObject>,
    destination_named_port: Field<String>,
    #[serde(flatten)]
    unknown: Unknown,
}

/// `tcp`, `udp` or `sctp` of a protocol.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct PortsObject {
    destination_port: Field<PortObject>,
    #[serde(flatten)]
    unknown: Unknown,
}

/// `destinationPort` of a protocol.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct PortObject {
    number: Field<i64>,
    range: Field<RangeObject>,
    #[serde(flatten)]
    unknown: Unknown,
}

/// `range` of a port.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct RangeObject {
    start: Field<i64>,
    end: Field<i64>,
    #[serde(flatten)]
    unknown: Unknown,
}

impl WireObject for ClusterNetworkPolicyObject {
    type Kind = ClusterNetworkPolicy;

    fn metadata(&self) -> &Field<Metadata> {
        &self.metadata
    }

    fn convert(
        self,
        name: String,
        _: &WatchFilter,
        faults: &mut Faults,
    ) -> Result<Option<ClusterNetworkPolicy>, Fault> {
        // Without a spec there is no Deny rule that could hold.
        let spec = self.spec.required("spec")?;
        let head = head(spec.tier, spec.priority, spec.subject);
        let ingress = rules(spec.ingress, "spec.ingress", faults);
        let egress = rules(spec.egress, "spec.egress", faults);
        let mut policy = ClusterNetworkPolicy {
            name,
            tier: Tier::Admin,
            priority: 0,
            namespaces: LabelSelector::default(),
            pods: LabelSelector::default(),
            ingress,
            egress,
        };
        match faults.note(head) {
            Some((tier, priority, subject)) => {
                (policy.tier, policy.priority) = (tier, priority);
                (policy.namespaces, policy.pods) = (subject.namespaces.unwrap_or_default(), subject.pods);
            }
            None => {
                let rules = policy.ingress.iter_mut().chain(&mut policy.egress);
                rules.filter(|rule| rule.action != Action::Deny).for_each(|rule| {
                    rule.traffic = PolicyRule::nothing();
                });
            }
        }
        Ok(Some(policy))
    }
}

/// Where the policy stands among the others, and whom it is for.
fn head(
    tier: Field<String>,
    priority: Field<i64>,
    subject: Field<PodsObject>,
) -> Result<(Tier, u16, PodPeer), Fault> {
    let tier = match tier.required("spec.tier")?.as_str() {
        "Admin" => Tier::Admin,
        "Baseline" => Tier::Baseline,
        other => return Err(Fault::new("spec.tier", format!("{other:?} is none of Admin, Baseline"))),
    };
    let number = priority.required("spec.priority")?;
    let priority = within(number, 0..=LAST_PRIORITY, "spec.priority")?;
    let subject = pods(subject.required("spec.subject")?).map_err(|fault| fault.within("spec.subject"))?;
    Ok((tier, priority, subject))
}

/// Exactly one of the two.
fn pods(object: PodsObject) -> Result<PodPeer, Fault> {
    object.unknown.refuse()?;
    match (object.namespaces.optional("namespaces")?, object.pods.optional("pods")?) {
        (Some(namespaces), None) => {
            let namespaces = selector(namespaces).map_err(|fault| fault.within("namespaces"))?;
            Ok(PodPeer { namespaces: Some(namespaces), pods: LabelSelector::default() })
        }
        (None, Some(pods)) => {
            pods.unknown.refuse().map_err(|fault| fault.within("pods"))?;
            let namespaces = selector_or_all(pods.namespace_selector, "pods.namespaceSelector")?;
            let pods = selector_or_all(pods.pod_selector, "pods.podSelector")?;
            Ok(PodPeer { namespaces: Some(namespaces), pods })
        }
        (None, None) => Err(Fault::new("", "has no field that is known here; it needs one")),
        (Some(_), Some(_)) => Err(Fault::new("", "has both namespaces and pods; it needs one of them")),
    }
}

/// All rules, each in its place.
fn rules(field: Field<Vec<Field<RuleObject>>>, path: &str, faults: &mut Faults) -> Box<[ClusterRule]> {
    let deny_all = || ClusterRule { name: Box::default(), action: Action::Deny, traffic: PolicyRule::ALL };
    let Some(list) = faults.note(field.or_default(path)) else { return Box::new([deny_all()]) };
    let mut budget = Budget::whole();
    let rule = |(place, field): (usize, Field<RuleObject>)| {
        let mut inner = Faults::default();
        let rule = inner.note(field.required("")).map(|object| rule(object, &mut inner));
        let rule = rule.map(|rule| match inner.note(budget.take(&rule.traffic)) {
            Some(()) => rule,
            None if rule.action == Action::Accept => ClusterRule { traffic: PolicyRule::nothing(), ..rule },
            None => deny_all(),
        });
        if !inner.is_empty() {
            faults.add_within(format_args!("{path}[{place}]"), inner);
        }
        rule.unwrap_or_else(deny_all)
    };
    list.into_iter().enumerate().map(rule).collect()
}

fn rule(object: RuleObject, faults: &mut Faults) -> ClusterRule {
    let name = faults.note(object.name.or_default("name")).unwrap_or_default().into();
    let action = object.action.required("action").and_then(|text| match text.as_str() {
        "Accept" => Ok(Action::Accept),
        "Deny" => Ok(Action::Deny),
        "Pass" => Ok(Action::Pass),
        _ => Err(Fault::new("action", format!("{text:?} is none of Accept, Deny, Pass"))),
    });
    let action = faults.note(action);
    let known = object.unknown.refuse();
    let (peers, path) = if object.from.is_present() { (object.from, "from") } else { (object.to, "to") };
    let traffic = known.and_then(|()| traffic(peers, path, object.protocols));
    match (faults.note(traffic), action) {
        (Some(traffic), Some(action)) => ClusterRule { name, action, traffic },
        (None, Some(Action::Accept)) => {
            ClusterRule { name, action: Action::Accept, traffic: PolicyRule::nothing() }
        }
        _ => ClusterRule { name, action: Action::Deny, traffic: PolicyRule::ALL },
    }
}

fn traffic(
    peers: Field<Vec<Field<PeerObject>>>,
    path: &str,
    protocols: Field<Vec<Field<ProtocolObject>>>,
) -> Result<PolicyRule, Fault> {
    let list = peers.required(path)?;
    if list.is_empty() {
        return Err(Fault::new(path, "has no elements; it needs one at least"));
    }
    let mut peers = Vec::new();
    for (place, field) in list.into_iter().enumerate() {
        let read = field.required("").and_then(|object| peer(object, &mut peers));
        read.map_err(|fault| fault.within(format_args!("{path}[{place}]")))?;
    }
    // A Go client cannot tell a list without elements from none.
    let list = protocols.or_default("protocols")?;
    let ports = list.into_iter().enumerate().map(|(place, field)| {
        let read = field.required("").and_then(protocol);
        read.map_err(|fault| fault.within(format_args!("protocols[{place}]")))
    });
    let ports = ports.collect::<Result<Box<[_]>, _>>()?;
    let ports = if ports.is_empty() { PortMatches::All } else { PortMatches::Any(ports) };
    Ok(PolicyRule { peers: Peers::Any(peers.into()), ports })
}

fn peer(object: PeerObject, peers: &mut Vec<PolicyPeer>) -> Result<(), Fault> {
    object.unknown.refuse()?;
    let nodes = object.nodes.optional("nodes")?;
    let networks = object.networks.optional("networks")?;
    let has_pods = object.namespaces.is_present() || object.pods.is_present();
    if usize::from(nodes.is_some()) + usize::from(networks.is_some()) + usize::from(has_pods) > 1 {
        return Err(Fault::new("", "has more than one kind of peer; each needs an element of its own"));
    }
    if let Some(nodes) = nodes {
        peers.push(PolicyPeer::Nodes(selector(nodes).map_err(|fault| fault.within("nodes"))?));
    } else if let Some(networks) = networks {
        if networks.is_empty() {
            return Err(Fault::new("networks", "has no elements; it needs one at least"));
        }
        for (place, text) in networks.into_iter().enumerate() {
            let path = format!("networks[{place}]");
            let cidr = network(&text.required(&path)?, &path)?;
            peers.push(PolicyPeer::Network(IpBlock { cidr, except: Box::default() }));
        }
    } else {
        let object = PodsObject { namespaces: object.namespaces, pods: object.pods, unknown: object.unknown };
        peers.push(PolicyPeer::Pods(pods(object)?));
    }
    Ok(())
}

/// Exactly one field of it.
fn protocol(object: ProtocolObject) -> Result<PortMatch, Fault> {
    object.unknown.refuse()?;
    let numbered = [(object.tcp, Protocol::Tcp), (object.udp, Protocol::Udp), (object.sctp, Protocol::Sctp)];
    let name = object.destination_named_port.or_default("destinationNamedPort")?;
    let mut found = Vec::new();
    if !name.is_empty() {
        port_name(&name, "destinationNamedPort")?;
        found.push(PortMatch::Named { protocol: None, name: name.into() });
    }
    for (field, protocol) in numbered {
        let path = protocol.lower_case();
        if let Some(object) = field.optional(path)? {
            found.push(ports(object, protocol).map_err(|fault| fault.within(path))?);
        }
    }
    match (found.pop(), found.is_empty()) {
        (Some(only), true) => Ok(only),
        (None, _) => Err(Fault::new("", "has no field that is known here; it needs one")),
        (Some(_), false) => Err(Fault::new("", "has more than one field; it needs one")),
    }
}

fn ports(object: PortsObject, protocol: Protocol) -> Result<PortMatch, Fault> {
    object.unknown.refuse()?;
    let Some(port) = object.destination_port.optional("destinationPort")? else {
        return Ok(PortMatch::protocol(protocol));
    };
    port.unknown.refuse().map_err(|fault| fault.within("destinationPort"))?;
    let number = port.number.optional("destinationPort.number")?.filter(|number| *number != 0);
    match (number, port.range.optional("destinationPort.range")?) {
        (Some(number), None) => {
            let first = port_number(number, "destinationPort.number")?;
            Ok(PortMatch::Numbers { protocol, first, last: first })
        }
        (None, Some(range)) => {
            range.unknown.refuse().map_err(|fault| fault.within("destinationPort.range"))?;
            let (start, end) = ("destinationPort.range.start", "destinationPort.range.end");
            let first = port_number(range.start.required(start)?, start)?;
            Ok(PortMatch::Numbers { protocol, first, last: last_port(first, range.end.required(end)?, end)? })
        }
        _ => Err(Fault::new("destinationPort", "needs either a number or a range")),
    }
}

#[cfg(test)]
mod tests;
