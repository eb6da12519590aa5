//! networking.k8s.io/v1 NetworkPolicy.
//!
//! A peer or port that cannot be read matches nothing; the rest of its rule holds. A policy of which nobody
//! can tell whom it selects, or which way, isolates more rather than less: with an unreadable `podSelector`
//! it isolates all pods of its namespace and lets nothing through to them itself, as its rules may be meant
//! for others.

use std::fmt;

use serde::de::{IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use weft_types::{
    LabelSelector, NamespacedName, NetworkPolicy, Peers, PodPeer, PolicyPeer, PolicyRule, PortMatch,
    PortMatches,
};

use super::metadata::Metadata;
use super::policy::{
    Budget, IpBlockObject, SelectorObject, Unknown, ip_block, last_port, port_name, port_number, selector,
    selector_or_all,
};
use super::values::{each, protocol};
use super::{ApiResource, WireObject};
use crate::field::{Fault, Faults, Field};
use crate::filter::WatchFilter;

impl ApiResource for NetworkPolicy {
    const API_VERSION: &'static str = "networking.k8s.io/v1";
    const PLURAL: &'static str = "networkpolicies";

    type Wire = NetworkPolicyObject;
}

/// networking.k8s.io/v1 NetworkPolicy
#[derive(Clone, Debug, Default)]
pub(crate) struct NetworkPolicyObject {
    metadata: Field<Metadata>,
    spec: Field<Spec>,
}

/// As it would be derived, but for a field that comes twice: that must spoil no more than the field, as a
/// policy that is not read at all would isolate nobody.
impl<'de> Deserialize<'de> for NetworkPolicyObject {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(ObjectVisitor)
    }
}

struct ObjectVisitor;

impl<'de> Visitor<'de> for ObjectVisitor {
    type Value = NetworkPolicyObject;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<NetworkPolicyObject, A::Error> {
        let mut object = NetworkPolicyObject::default();
        while let Some(key) = map.next_key::<String>()? {
            match key.as_str() {
                "metadata" => object.metadata = map.next_value()?,
                "spec" if object.spec.is_present() => {
                    map.next_value::<IgnoredAny>()?;
                    object.spec = Field::IsNot("is there twice".to_owned());
                }
                "spec" => object.spec = map.next_value()?,
                _ => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(object)
    }
}

/// `spec` of a NetworkPolicy.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Spec {
    pod_selector: Field<SelectorObject>,
    policy_types: Field<Vec<Field<String>>>,
    ingress: Field<Vec<Field<RuleObject>>>,
    egress: Field<Vec<Field<RuleObject>>>,
}

/// A rule: `from` of an ingress rule, `to` of an egress rule.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct RuleObject {
    from: Field<Vec<Field<PeerObject>>>,
    to: Field<Vec<Field<PeerObject>>>,
    ports: Field<Vec<Field<PortObject>>>,
    #[serde(flatten)]
    unknown: Unknown,
}

/// A peer of a rule.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct PeerObject {
    pod_selector: Field<SelectorObject>,
    namespace_selector: Field<SelectorObject>,
    ip_block: Field<IpBlockObject>,
    #[serde(flatten)]
    unknown: Unknown,
}

/// A port of a rule.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct PortObject {
    protocol: Field<String>,
    port: Field<NumberOrName>,
    end_port: Field<i64>,
    #[serde(flatten)]
    unknown: Unknown,
}

/// util/intstr IntOrString
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
enum NumberOrName {
    Number(i64),
    Name(String),
}

/// The way of the traffic, seen from the pod.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Ingress,
    Egress,
}

impl WireObject for NetworkPolicyObject {
    type Kind = NetworkPolicy;

    fn metadata(&self) -> &Field<Metadata> {
        &self.metadata
    }

    fn convert(
        self,
        key: NamespacedName,
        _: &WatchFilter,
        faults: &mut Faults,
    ) -> Result<Option<NetworkPolicy>, Fault> {
        Ok(Some(convert(key, self, faults)))
    }
}

fn convert(key: NamespacedName, object: NetworkPolicyObject, faults: &mut Faults) -> NetworkPolicy {
    let Some(spec) = faults.note(object.spec.or_default("spec")) else {
        return closed(key, true, true);
    };
    let (for_ingress, for_egress) = policy_types(spec.policy_types, spec.egress.by_ref(), faults);
    let Some(pods) = faults.note(selector_or_all(spec.pod_selector, "spec.podSelector")) else {
        return closed(key, for_ingress, for_egress);
    };
    let ingress = rules(spec.ingress, "spec.ingress", Way::Ingress, faults);
    let egress = rules(spec.egress, "spec.egress", Way::Egress, faults);
    NetworkPolicy { key, pods, ingress: for_ingress.then_some(ingress), egress: for_egress.then_some(egress) }
}

/// Isolates all pods of the namespace, and allows nothing.
fn closed(key: NamespacedName, ingress: bool, egress: bool) -> NetworkPolicy {
    NetworkPolicy {
        key,
        pods: LabelSelector::default(),
        ingress: ingress.then(Box::default),
        egress: egress.then(Box::default),
    }
}

/// Ingress always, and egress where there are rules for it, unless the policy says which
/// (SetDefaults_NetworkPolicy). What cannot be read may have been either.
fn policy_types(
    field: Field<Vec<Field<String>>>,
    egress: Field<&Vec<Field<RuleObject>>>,
    faults: &mut Faults,
) -> (bool, bool) {
    let way = |text: String, _: &mut Faults| match text.as_str() {
        "Ingress" => Ok(Way::Ingress),
        "Egress" => Ok(Way::Egress),
        _ => Err(Fault::new("", format!("{text:?} is none of Ingress, Egress"))),
    };
    let given = match &field {
        Field::Absent => 0,
        Field::Is(list) => list.len(),
        Field::IsNot(_) => 1,
    };
    let ways = each(field, "spec.policyTypes", faults, way);
    let has_egress_rules = match egress {
        Field::Absent => false,
        Field::Is(list) => !list.is_empty(),
        Field::IsNot(_) => true,
    };
    match given {
        0 => (true, has_egress_rules),
        given if given > ways.len() => (true, true),
        _ => (ways.contains(&Way::Ingress), ways.contains(&Way::Egress)),
    }
}

/// All rules, each in its place: one that cannot be read matches nothing.
fn rules(
    field: Field<Vec<Field<RuleObject>>>,
    path: &str,
    way: Way,
    faults: &mut Faults,
) -> Box<[PolicyRule]> {
    let list = faults.note(field.or_default(path)).unwrap_or_default();
    let mut budget = Budget::whole();
    let in_place = |(place, field): (usize, Field<RuleObject>)| {
        let mut inner = Faults::default();
        let rule = rule(field, way, &mut inner);
        let rule = rule.and_then(|rule| inner.note(budget.take(&rule)).map(|()| rule));
        if !inner.is_empty() {
            faults.add_within(format_args!("{path}[{place}]"), inner);
        }
        rule.unwrap_or_else(PolicyRule::nothing)
    };
    list.into_iter().enumerate().map(in_place).collect()
}

fn rule(field: Field<RuleObject>, way: Way, faults: &mut Faults) -> Option<PolicyRule> {
    let object = faults.note(field.required(""))?;
    faults.note(object.unknown.refuse())?;
    let (peers, path) = match way {
        Way::Ingress => (object.from, "from"),
        Way::Egress => (object.to, "to"),
    };
    let peers = match is_empty(&peers) {
        true => Peers::All,
        false => Peers::Any(each(peers, path, faults, |object, _| peer(object)).into()),
    };
    let ports = match is_empty(&object.ports) {
        true => PortMatches::All,
        false => PortMatches::Any(each(object.ports, "ports", faults, |object, _| port(object)).into()),
    };
    Some(PolicyRule { peers, ports })
}

/// Whether a list is left out or has no elements: for peers and ports, that means all.
fn is_empty<T>(list: &Field<Vec<T>>) -> bool {
    match list {
        Field::Absent => true,
        Field::Is(list) => list.is_empty(),
        Field::IsNot(_) => false,
    }
}

fn peer(object: PeerObject) -> Result<PolicyPeer, Fault> {
    object.unknown.refuse()?;
    let pods = object.pod_selector.optional("podSelector")?;
    let namespaces = object.namespace_selector.optional("namespaceSelector")?;
    let block = object.ip_block.optional("ipBlock")?;
    if let Some(block) = block {
        if pods.is_some() || namespaces.is_some() {
            return Err(Fault::new("ipBlock", "stands beside a selector; each needs a peer of its own"));
        }
        return Ok(PolicyPeer::Network(ip_block(block).map_err(|fault| fault.within("ipBlock"))?));
    }
    if pods.is_none() && namespaces.is_none() {
        let problem = "has none of podSelector, namespaceSelector, ipBlock, so it matches nothing";
        return Err(Fault::new("", problem));
    }
    let namespaces =
        namespaces.map(selector).transpose().map_err(|fault| fault.within("namespaceSelector"))?;
    let pods = selector(pods.unwrap_or_default()).map_err(|fault| fault.within("podSelector"))?;
    Ok(PolicyPeer::Pods(PodPeer { namespaces, pods }))
}

fn port(object: PortObject) -> Result<PortMatch, Fault> {
    object.unknown.refuse()?;
    if matches!(&object.protocol, Field::Is(text) if text.is_empty()) {
        return Err(Fault::new("protocol", "is empty; leave it out for TCP"));
    }
    let protocol = protocol(object.protocol)?;
    let last = object.end_port.optional("endPort")?;
    match (object.port.optional("port")?, last) {
        (None, None) => Ok(PortMatch::protocol(protocol)),
        (None, Some(_)) => Err(Fault::new("endPort", "needs a port, the first of the range")),
        (Some(NumberOrName::Number(first)), last) => {
            let first = port_number(first, "port")?;
            let last = last.map_or(Ok(first), |last| last_port(first, last, "endPort"))?;
            Ok(PortMatch::Numbers { protocol, first, last })
        }
        (Some(NumberOrName::Name(name)), None) => {
            port_name(&name, "port")?;
            Ok(PortMatch::Named { protocol: Some(protocol), name: name.into() })
        }
        (Some(NumberOrName::Name(name)), Some(_)) => {
            Err(Fault::new("endPort", format!("cannot follow the port name {name:?}; it needs a number")))
        }
    }
}

#[cfg(test)]
mod tests;
