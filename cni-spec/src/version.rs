//! Versions of the CNI protocol.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

/// A version of the protocol. Ordered as released.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Version {
    /// 0.1.0, which a configuration without `cniVersion` means.
    V0_1_0,
    /// 0.2.0: VERSION.
    V0_2_0,
    /// 0.3.0: chains and `prevResult`, results with interfaces.
    V0_3_0,
    /// 0.3.1: `ips` instead of `ip`.
    V0_3_1,
    /// 0.4.0: CHECK, and `prevResult` on DEL.
    V0_4_0,
    /// 1.0.0: results without `ips[].version`.
    V1_0_0,
    /// 1.1.0: GC and STATUS.
    V1_1_0,
}

/// A text that is no version of the protocol that Weft knows.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("cniVersion {0:?} is not supported; supported are 0.1.0 to 0.4.0, 1.0.0 and 1.1.0")]
pub struct UnknownVersion(pub String);

impl Version {
    /// All versions, oldest first.
    pub const ALL: [Version; 7] = [
        Version::V0_1_0,
        Version::V0_2_0,
        Version::V0_3_0,
        Version::V0_3_1,
        Version::V0_4_0,
        Version::V1_0_0,
        Version::V1_1_0,
    ];

    /// The newest version.
    pub const NEWEST: Version = Version::V1_1_0;

    /// The version as it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Version::V0_1_0 => "0.1.0",
            Version::V0_2_0 => "0.2.0",
            Version::V0_3_0 => "0.3.0",
            Version::V0_3_1 => "0.3.1",
            Version::V0_4_0 => "0.4.0",
            Version::V1_0_0 => "1.0.0",
            Version::V1_1_0 => "1.1.0",
        }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Version {
    type Err = UnknownVersion;

    fn from_str(text: &str) -> Result<Self, UnknownVersion> {
        let known = Version::ALL.into_iter().find(|version| version.as_str() == text);
        known.ok_or_else(|| UnknownVersion(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_prints_as_it_parses_and_they_are_in_order() {
        for version in Version::ALL {
            assert_eq!(version.to_string().parse(), Ok(version));
        }
        assert!(Version::ALL.is_sorted());
        assert_eq!(Version::ALL.last(), Some(&Version::NEWEST));
    }

    #[test]
    fn others_are_refused_by_name() {
        for text in ["", "0.5.0", "1.1", "v1.0.0", "2.0.0"] {
            assert_eq!(text.parse::<Version>(), Err(UnknownVersion(text.to_owned())));
        }
    }
}
