//! Names that the CNI protocol restricts: containers, networks, interfaces.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

/// A name that the protocol does not allow.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("{what} {text:?} {rule}")]
pub struct InvalidCniName {
    /// What is named: `container id`, `network name`, `interface name`.
    pub what: &'static str,
    /// The text in question.
    pub text: String,
    /// What is wrong with it.
    pub rule: &'static str,
}

/// A container's id: a letter or digit, then letters, digits, `_`, `.` and `-` (SPEC section 2,
/// CNI_CONTAINERID).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ContainerId(String);

/// A network's name, of the same alphabet (SPEC section 1, `name`). It serves as a folder's name on disk.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NetworkName(String);

/// The name of a network interface, as Linux allows it (SPEC section 2, CNI_IFNAME).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InterfaceName(String);

impl FromStr for ContainerId {
    type Err = InvalidCniName;

    fn from_str(text: &str) -> Result<Self, InvalidCniName> {
        alphabet("container id", text).map(ContainerId)
    }
}

impl FromStr for NetworkName {
    type Err = InvalidCniName;

    fn from_str(text: &str) -> Result<Self, InvalidCniName> {
        alphabet("network name", text).map(NetworkName)
    }
}

impl FromStr for InterfaceName {
    type Err = InvalidCniName;

    fn from_str(text: &str) -> Result<Self, InvalidCniName> {
        let rule = match text {
            "" => "is empty",
            "." | ".." => "is reserved",
            _ if text.len() > 15 => "is longer than 15 bytes",
            _ if text.contains(|c: char| c == '/' || c == ':' || c.is_whitespace()) => {
                "holds '/', ':' or white space"
            }
            // Linux would put a number in its place.
            _ if text.contains('%') => "holds '%'",
            _ => return Ok(InterfaceName(text.to_owned())),
        };
        Err(InvalidCniName { what: "interface name", text: text.to_owned(), rule })
    }
}

fn alphabet(what: &'static str, text: &str) -> Result<String, InvalidCniName> {
    let first = |byte: u8| byte.is_ascii_alphanumeric();
    let later = |byte: u8| first(byte) || b"_.-".contains(&byte);
    let rule = match text.as_bytes() {
        [] => "is empty",
        [head, ..] if !first(*head) => "does not begin with a letter or digit",
        [_, tail @ ..] if !tail.iter().all(|&byte| later(byte)) => {
            "holds other characters than letters, digits, '_', '.' and '-'"
        }
        _ => return Ok(text.to_owned()),
    };
    Err(InvalidCniName { what, text: text.to_owned(), rule })
}

macro_rules! as_text {
    ($($name:ident)*) => {$(
        impl $name {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    )*};
}

as_text!(ContainerId NetworkName InterfaceName);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn container_ids_and_network_names() {
        for good in ["a", "0", "pod-1.x_Y", &"f".repeat(64)] {
            assert_eq!(good.parse::<ContainerId>().unwrap().as_str(), good);
            assert_eq!(good.parse::<NetworkName>().unwrap().to_string(), good);
        }
        for bad in ["", "-a", ".", "..", "_a", "a/b", "a b", "a\n", "ä"] {
            assert!(bad.parse::<ContainerId>().is_err(), "{bad:?}");
            assert!(bad.parse::<NetworkName>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn interface_names() {
        for good in ["eth0", "a", "fifteen-bytes-l", "-x", "@"] {
            assert_eq!(good.parse::<InterfaceName>().unwrap().as_str(), good);
        }
        for bad in ["", ".", "..", "a/b", "a:b", "a b", "a\tb", "sixteen-bytes-lo", "eth%d", "a%"] {
            assert!(bad.parse::<InterfaceName>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn the_error_says_what_and_why() {
        let error = "a/b".parse::<InterfaceName>().unwrap_err();
        assert_eq!(error.to_string(), "interface name \"a/b\" holds '/', ':' or white space");
    }
}
