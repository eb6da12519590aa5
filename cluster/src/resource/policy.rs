//! What policies of both kinds have in common: label selectors, networks, protocols.
//!
//! Policies fail closed. What cannot be read of one is told, and matches nothing where it would let traffic
//! through.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::IgnoredAny;
use weft_types::{IpBlock, LabelSelector, Requirement};

use super::address::network;
use crate::field::{Fault, Field};

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

/// A network. Where an exception cannot be read, nobody knows what is left of the network.
pub(super) fn ip_block(object: IpBlockObject) -> Result<IpBlock, Fault> {
    object.unknown.refuse()?;
    let cidr = network(&object.cidr.required("cidr")?, "cidr")?;
    let except = object.except.or_default("except")?.into_iter().enumerate();
    let except = except.map(|(place, text)| {
        let path = format!("except[{place}]");
        network(&text.required(&path)?, &path)
    });
    Ok(IpBlock { cidr, except: except.collect::<Result<_, _>>()? })
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
