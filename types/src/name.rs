//! Names of Kubernetes objects.

use std::fmt;
use std::str::FromStr;

use smol_str::SmolStr;
use thiserror::Error;

/// The namespace and name of a namespaced object. Prints and parses as `namespace/name`.
///
/// A cluster has so many of them that a text of its own on the heap for each counts: parts of up to 23 bytes,
/// as nearly all are, are held in place.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NamespacedName {
    /// The object's namespace.
    pub namespace: SmolStr,
    /// The object's name.
    pub name: SmolStr,
}

impl NamespacedName {
    /// A name from its two parts.
    pub fn new(namespace: impl Into<SmolStr>, name: impl Into<SmolStr>) -> Self {
        NamespacedName { namespace: namespace.into(), name: name.into() }
    }
}

impl fmt::Display for NamespacedName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// A text that is not `namespace/name`.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("{0:?} is not of the form namespace/name")]
pub struct InvalidName(pub String);

impl FromStr for NamespacedName {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        match text.split_once('/') {
            Some((namespace, name)) if is_dns_label(namespace) && !name.is_empty() && !name.contains('/') => {
                Ok(NamespacedName::new(namespace, name))
            }
            _ => Err(InvalidName(text.to_owned())),
        }
    }
}

/// Whether `text` is a DNS label as Kubernetes has it: 1 to 63 of `a-z`, `0-9` and `-`, no `-` at either end
/// (RFC 1123 section 2.1).
pub fn is_dns_label(text: &str) -> bool {
    let inside = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=63).contains(&text.len())
        && text.bytes().all(inside)
        && !text.starts_with('-')
        && !text.ends_with('-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_prints_as_it_parses() {
        let name: NamespacedName = "shop/backend".parse().unwrap();
        assert_eq!(name, NamespacedName::new("shop", "backend"));
        assert_eq!(name.to_string(), "shop/backend");
    }

    #[test]
    fn other_texts_are_refused_by_name() {
        for text in ["backend", "a/b/c", "/b", "a/", "A/b", "-a/b"] {
            assert_eq!(text.parse::<NamespacedName>(), Err(InvalidName(text.to_owned())));
        }
    }

    #[test]
    fn dns_labels() {
        for good in ["a", "0db", "a-b", &"x".repeat(63)] {
            assert!(is_dns_label(good), "{good}");
        }
        for bad in ["", "-a", "a-", "A", "a.b", "a_b", &"x".repeat(64)] {
            assert!(!is_dns_label(bad), "{bad}");
        }
    }
}
