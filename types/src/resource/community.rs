//! Communities: names for BGP communities.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use thiserror::Error;

use crate::{NamespacedName, Resource};

/// A Community (metallb.io/v1beta1): names that BGPAdvertisements may use for values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Community {
    /// Namespace and name.
    pub key: NamespacedName,
    /// The names and what they stand for, in the order of the object.
    pub aliases: Box<[(Box<str>, CommunityValue)]>,
}

/// The value of a BGP community. Prints as it parses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CommunityValue {
    /// RFC 1997: `64512:100`.
    Standard(u16, u16),
    /// RFC 8092: `large:64512:1:2`.
    Large(u32, u32, u32),
}

/// A text that is no value of a community.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("{0:?} is no BGP community such as 64512:100 or large:64512:1:2")]
pub struct InvalidCommunity(pub String);

impl FromStr for CommunityValue {
    type Err = InvalidCommunity;

    fn from_str(text: &str) -> Result<CommunityValue, InvalidCommunity> {
        fn number<N: FromStr>(text: &str) -> Option<N> {
            text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
        }
        let value = match text.split(':').collect::<Vec<_>>()[..] {
            [asn, value] => {
                number(asn).zip(number(value)).map(|(asn, value)| CommunityValue::Standard(asn, value))
            }
            ["large", global, one, two] => number(global)
                .zip(number(one).zip(number(two)))
                .map(|(global, (one, two))| CommunityValue::Large(global, one, two)),
            _ => None,
        };
        value.ok_or_else(|| InvalidCommunity(text.to_owned()))
    }
}

impl fmt::Display for CommunityValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CommunityValue::Standard(asn, value) => write!(f, "{asn}:{value}"),
            CommunityValue::Large(global, one, two) => write!(f, "large:{global}:{one}:{two}"),
        }
    }
}

impl Resource for Community {
    const NAME: &'static str = "Community";

    type Key = NamespacedName;
    type Stored = Box<Community>;
    type Index = ();
    type Changes = BTreeSet<NamespacedName>;

    fn key(&self) -> &NamespacedName {
        &self.key
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn communities_print_as_they_parse_and_others_are_refused() {
        for text in ["64512:100", "0:0", "65535:65535", "large:4294967295:1:2"] {
            assert_eq!(text.parse::<CommunityValue>().map(|value| value.to_string()), Ok(text.to_owned()));
        }
        for text in ["", "64512", "64512:65536", "65536:1", "large:1:2", "small:1:2:3", "+1:2", "1:", "a:b"] {
            assert_eq!(text.parse::<CommunityValue>(), Err(InvalidCommunity(text.to_owned())));
        }
    }
}
