//! Label selectors (meta/v1 LabelSelector), which match what `LabelSelectorAsSelector` of k8s.io/apimachinery
//! matches.

use std::collections::BTreeSet;
use std::fmt;

use thiserror::Error;

use crate::Labels;

/// The longest name of a label's key, and the longest value, in bytes (k8s.io/apimachinery, IsQualifiedName
/// and IsValidLabelValue).
const LONGEST_NAME: usize = 63;
/// The longest prefix of a label's key, in bytes.
const LONGEST_PREFIX: usize = 253;

/// Requirements that labels meet all together. One without requirements matches everything. A selector that
/// an object leaves out is none of these: what it means, the field says.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LabelSelector(BTreeSet<Requirement>);

/// What a selector demands of one label.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Requirement {
    key: Box<str>,
    test: Test,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Test {
    In(BTreeSet<Box<str>>),
    NotIn(BTreeSet<Box<str>>),
    Exists,
    DoesNotExist,
}

/// A requirement that the API server would refuse.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum InvalidSelector {
    /// The key cannot be a label's.
    #[error("{0:?} is no label key (an optional DNS name and /, then 1 to 63 of A-Z, a-z, 0-9, -, _ and .)")]
    Key(String),
    /// The value cannot be a label's.
    #[error("{0:?} is no label value (up to 63 of A-Z, a-z, 0-9, -, _ and .)")]
    Value(String),
    /// There is no such operator.
    #[error("operator {0:?} is none of In, NotIn, Exists, DoesNotExist")]
    Operator(String),
    /// `In` or `NotIn` of nothing.
    #[error("operator {0} needs values")]
    NoValues(&'static str),
    /// `Exists` or `DoesNotExist` with values.
    #[error("operator {0} takes no values")]
    Values(&'static str),
}

impl Requirement {
    /// One of `matchExpressions`. Operators are written as in the API; values that are given twice count
    /// once.
    ///
    /// # Errors
    /// What the API server would refuse.
    pub fn new<V: AsRef<str>>(
        key: &str,
        operator: &str,
        values: impl IntoIterator<Item = V>,
    ) -> Result<Requirement, InvalidSelector> {
        if !is_label_key(key) {
            return Err(InvalidSelector::Key(key.to_owned()));
        }
        let mut set = BTreeSet::new();
        for value in values {
            let value = value.as_ref();
            if !is_label_value(value) {
                return Err(InvalidSelector::Value(value.to_owned()));
            }
            set.insert(value.into());
        }
        let test = match (operator, set.is_empty()) {
            ("In", false) => Test::In(set),
            ("NotIn", false) => Test::NotIn(set),
            ("Exists", true) => Test::Exists,
            ("DoesNotExist", true) => Test::DoesNotExist,
            ("In", true) => return Err(InvalidSelector::NoValues("In")),
            ("NotIn", true) => return Err(InvalidSelector::NoValues("NotIn")),
            ("Exists", false) => return Err(InvalidSelector::Values("Exists")),
            ("DoesNotExist", false) => return Err(InvalidSelector::Values("DoesNotExist")),
            _ => return Err(InvalidSelector::Operator(operator.to_owned())),
        };
        Ok(Requirement { key: key.into(), test })
    }

    /// One of `matchLabels`: the label is there, with this value.
    ///
    /// # Errors
    /// What the API server would refuse.
    pub fn equals(key: &str, value: &str) -> Result<Requirement, InvalidSelector> {
        Requirement::new(key, "In", [value])
    }

    /// Whether labels meet it. A label that is not there has no value, so it is in no set.
    pub fn matches(&self, labels: &Labels) -> bool {
        match (&self.test, labels.get(&self.key)) {
            (Test::In(values), Some(value)) => values.contains(value),
            (Test::NotIn(values), Some(value)) => !values.contains(value),
            (Test::Exists, found) => found.is_some(),
            (Test::DoesNotExist, found) => found.is_none(),
            (Test::In(_), None) => false,
            (Test::NotIn(_), None) => true,
        }
    }
}

impl FromIterator<Requirement> for LabelSelector {
    fn from_iter<I: IntoIterator<Item = Requirement>>(requirements: I) -> Self {
        LabelSelector(requirements.into_iter().collect())
    }
}

impl LabelSelector {
    /// Whether labels meet all requirements.
    pub fn matches(&self, labels: &Labels) -> bool {
        self.0.iter().all(|requirement| requirement.matches(labels))
    }

    /// Whether one of these selectors matches. Where there are none, everything is selected.
    pub fn any_matches(selectors: &[LabelSelector], labels: &Labels) -> bool {
        selectors.is_empty() || selectors.iter().any(|selector| selector.matches(labels))
    }

    /// Whether there is no requirement, so that it matches everything.
    pub fn is_everything(&self) -> bool {
        self.0.is_empty()
    }
}

/// Prints as `kubectl get -l` takes it.
impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = &self.key;
        let list =
            |values: &BTreeSet<Box<str>>| values.iter().map(|value| &**value).collect::<Vec<_>>().join(",");
        match &self.test {
            Test::In(values) if values.len() == 1 => write!(f, "{key}={}", list(values)),
            Test::In(values) => write!(f, "{key} in ({})", list(values)),
            Test::NotIn(values) => write!(f, "{key} notin ({})", list(values)),
            Test::Exists => write!(f, "{key}"),
            Test::DoesNotExist => write!(f, "!{key}"),
        }
    }
}

/// Prints as `kubectl get -l` takes it.
impl fmt::Display for LabelSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, requirement) in self.0.iter().enumerate() {
            write!(f, "{}{requirement}", if place == 0 { "" } else { "," })?;
        }
        Ok(())
    }
}

/// A name, or a DNS name, `/`, and a name (IsQualifiedName).
fn is_label_key(key: &str) -> bool {
    match key.split_once('/') {
        Some((prefix, name)) => is_dns_name(prefix) && is_name(name),
        None => is_name(key),
    }
}

fn is_label_value(value: &str) -> bool {
    value.is_empty() || is_name(value)
}

fn is_name(text: &str) -> bool {
    let inside = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    let at_end = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    let bytes = text.as_bytes();
    text.len() <= LONGEST_NAME
        && at_end(bytes.first())
        && at_end(bytes.last())
        && bytes.iter().all(|&byte| inside(byte))
}

/// IsDNS1123Subdomain, which bounds the whole, but not its labels.
fn is_dns_name(text: &str) -> bool {
    let inside = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let is_label = |label: &str| {
        !label.is_empty() && !label.starts_with('-') && !label.ends_with('-') && label.bytes().all(inside)
    };
    text.len() <= LONGEST_PREFIX && text.split('.').all(is_label)
}

#[cfg(test)]
mod tests;
