//! The cluster's domain, checked: every name of a Service fits below it. Pure.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

use crate::wire::name::{labels, wire_name};

/// The longest zone, in wire form, under which every name of a Service still fits in 255 bytes:
/// three labels of 63, `svc` and the root byte come on top.
const LONGEST_ZONE: usize = 255 - 3 * 64 - 4 - 1;

/// A domain that can hold the cluster's names, such as `cluster.local`. Parses with or without its last dot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ZoneName(Box<[u8]>);

impl ZoneName {
    /// The labels in wire form.
    pub fn wire(&self) -> &[u8] {
        &self.0
    }

    /// How many labels there are; at least one.
    pub fn label_count(&self) -> usize {
        labels(&self.0).count()
    }
}

/// A text that is no domain for a cluster.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("zone {0:?} is no domain of at most 57 bytes of letters, digits, '-' and '_', such as cluster.local")]
pub struct InvalidZone(String);

impl FromStr for ZoneName {
    type Err = InvalidZone;

    fn from_str(text: &str) -> Result<ZoneName, InvalidZone> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        match wire_name(text) {
            Ok(wire) if wire.len() <= LONGEST_ZONE && text.bytes().all(plain) => Ok(ZoneName(wire)),
            _ => Err(InvalidZone(text.to_owned())),
        }
    }
}

impl fmt::Display for ZoneName {
    /// With the last dot, as CoreDNS's metrics have it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        labels(&self.0).try_for_each(|label| write!(f, "{}.", String::from_utf8_lossy(label)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_zone_prints_with_its_dot() {
        let zone: ZoneName = "Cluster.Local".parse().unwrap();
        assert_eq!((zone.to_string().as_str(), zone.label_count()), ("cluster.local.", 2));
        assert_eq!(zone, "cluster.local.".parse().unwrap());
    }

    #[test]
    fn a_zone_that_holds_no_cluster_is_refused_by_name() {
        for text in ["", ".", "a..b", "a b", &"long.".repeat(12)] {
            assert_eq!(text.parse::<ZoneName>(), Err(InvalidZone(text.to_owned())));
        }
    }
}
