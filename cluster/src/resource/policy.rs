//! What policies of both kinds have in common: label selectors, networks, protocols.
//!
//! Policies fail closed. What cannot be read of one is told, and matches nothing where it would let traffic
//! through.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::IgnoredAny;
use weft_types::{IpBlock, LabelSelector, Peers, PolicyPeer, PolicyRule, Requirement};

use super::address::network;
use crate::field::{Fault, Field};

const LONGEST_PORT_NAME: usize = 15;

/// How many rules and selectors a policy may have in a direction. Each is asked of many pods: with more of
/// them, one policy would keep every node busy.
pub(super) const MOST_QUESTIONS: usize = 4096;

/// How many rules and selectors a policy may still have.
pub(super) struct Budget(usize);

impl Budget {
    pub(super) fn whole() -> Budget {
        Budget(MOST_QUESTIONS)
    }

    /// One more rule.
    pub(super) fn take(&mut self, rule: &PolicyRule) -> Result<(), Fault> {
        let selectors = match &rule.peers {
            Peers::All => 0,
            Peers::Any(peers) => peers.iter().filter(|it| !matches!(it, PolicyPeer::Network(_))).count(),
        };
        let left = self.0.checked_sub(1 + selectors);
        let problem =
            || format!("is too much: a policy may have {MOST_QUESTIONS} rules and selectors in a direction");
        self.0 = left.ok_or_else(|| Fault::new("", problem()))?;
        Ok(())
    }
}

/// Fields of an object that have no meaning here. A later version of the API may narrow with them what a rule
/// lets through.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(transparent)]
pub(super) struct Unknown(BTreeMap<String, IgnoredAny>);

impl Unknown {
    /// There must be none.
    pub(super) fn refuse(&self) -> Result<(), Fault> {
        let fault = |name| Err(Fault::new(name, "is not supported"));
        self.0.keys().next().map_or(Ok(()), fault)
    }
}

/// meta/v1 LabelSelector
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct SelectorObject {
    match_labels: Field<BTreeMap<String, Field<String>>>,
    match_expressions: Field<Vec<Field<ExpressionObject>>>,
    #[serde(flatten)]
    unknown: Unknown,
}

/// One of `matchExpressions` of a label selector.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct ExpressionObject {
    key: Field<String>,
    operator: Field<String>,
    values: Field<Vec<Field<String>>>,
    #[serde(flatten)]
    unknown: Unknown,
}

/// `ipBlock` of a peer.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct IpBlockObject {
    cidr: Field<String>,
    except: Field<Vec<Field<String>>>,
    #[serde(flatten)]
    unknown: Unknown,
}

/// A selector, all of whose requirements can be read. An empty one selects everything.
pub(super) fn selector(object: SelectorObject) -> Result<LabelSelector, Fault> {
    object.unknown.refuse()?;
    let mut requirements = Vec::new();
    for (key, value) in object.match_labels.or_default("matchLabels")? {
        let path = format!("matchLabels[{key}]");
        let requirement = Requirement::equals(&key, &value.required(&path)?);
        requirements.push(requirement.map_err(|error| Fault::new(path, error.to_string()))?);
    }
    for (place, expression) in
        object.match_expressions.or_default("matchExpressions")?.into_iter().enumerate()
    {
        let path = format!("matchExpressions[{place}]");
        requirements.push(requirement(expression).map_err(|fault| fault.within(path))?);
    }
    Ok(requirements.into_iter().collect())
}

fn requirement(expression: Field<ExpressionObject>) -> Result<Requirement, Fault> {
    let expression = expression.required("")?;
    expression.unknown.refuse()?;
    let (key, operator) = (expression.key.required("key")?, expression.operator.required("operator")?);
    let values = expression.values.or_default("values")?.into_iter().enumerate();
    let values = values.map(|(place, value)| value.required(&format!("values[{place}]")));
    let values = values.collect::<Result<Vec<_>, _>>()?;
    Requirement::new(&key, &operator, values).map_err(|error| Fault::new("", error.to_string()))
}

/// A selector that an object may leave out, and then means everything.
pub(super) fn selector_or_all(field: Field<SelectorObject>, path: &str) -> Result<LabelSelector, Fault> {
    let object = field.or_default(path)?;
    selector(object).map_err(|fault| fault.within(path))
}

/// A network. Where an exception cannot be read, or is none, nobody knows what was to be left of the network.
pub(super) fn ip_block(object: IpBlockObject) -> Result<IpBlock, Fault> {
    object.unknown.refuse()?;
    let cidr = network(&object.cidr.required("cidr")?, "cidr")?;
    let except = object.except.or_default("except")?.into_iter().enumerate();
    let except = except.map(|(place, text)| {
        let path = format!("except[{place}]");
        let text = text.required(&path)?;
        let except = network(&text, &path)?;
        let is_within = except.prefix() >= cidr.prefix() && cidr.contains(except.network());
        is_within.then_some(except).ok_or_else(|| Fault::new(path, format!("{text:?} is not within {cidr}")))
    });
    Ok(IpBlock { cidr, except: except.collect::<Result<_, _>>()? })
}

/// A name that a container's port can have (validation.IsValidPortName). Another one names no port, which an
/// author who quoted a number does not know.
pub(super) fn port_name(name: &str, path: &str) -> Result<(), Fault> {
    let is_part = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let has_letter = name.bytes().any(|byte| byte.is_ascii_lowercase());
    let is_name = name.len() <= LONGEST_PORT_NAME && name.bytes().all(is_part) && has_letter;
    let problem = || format!("{name:?} is no name of a port, and as a number it must not be quoted");
    is_name.then_some(()).ok_or_else(|| Fault::new(path, problem()))
}

/// A port number that traffic can have.
pub(super) fn port_number(number: i64, path: &str) -> Result<u16, Fault> {
    match u16::try_from(number) {
        Ok(port @ 1..) => Ok(port),
        _ => Err(Fault::new(path, format!("{number} is no port (1 to 65535)"))),
    }
}

/// The last port of a range.
pub(super) fn last_port(first: u16, last: i64, path: &str) -> Result<u16, Fault> {
    let last = port_number(last, path)?;
    let problem = || Fault::new(path, format!("{last} is below the first port, {first}"));
    (last >= first).then_some(last).ok_or_else(problem)
}
