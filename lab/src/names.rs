//! The lab's name, and the names of the network namespaces that belong to it. Pure: nothing is looked up
//! here.

use std::fmt;
use std::str::FromStr;

use crate::error::Error;

/// The name of a lab. All its namespaces begin with it, so labs of different names can stand side by side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LabName(String);

/// The longest lab name: namespaces are files, and terminals are narrow.
const LONGEST: usize = 20;

impl FromStr for LabName {
    type Err = Error;

    fn from_str(text: &str) -> Result<LabName, Error> {
        let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        let fits = !text.is_empty() && text.len() <= LONGEST && text.bytes().all(allowed);
        if fits && !text.starts_with('-') && !text.ends_with('-') {
            return Ok(LabName(text.to_owned()));
        }
        let reason = format!("must be 1 to {LONGEST} of a-z, 0-9 and -, with no - at either end");
        Err(Error::Invalid { what: "lab name", value: text.to_owned(), reason })
    }
}

impl fmt::Display for LabName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl LabName {
    /// The namespace that stands for the network between the nodes and all that is outside.
    pub fn underlay(&self) -> String {
        format!("{self}-underlay")
    }

    /// The namespace of a node, by the Node's name (`node1`).
    pub fn node(&self, node: &str) -> String {
        format!("{self}-{node}")
    }

    /// The namespace of a pod, by the first eight characters of its UID.
    pub fn pod(&self, uid: &str) -> String {
        format!("{self}-pod-{}", short_uid(uid))
    }

    /// Whether a namespace of that name is this lab's, and not one of a lab whose name merely begins alike.
    pub fn owns(&self, namespace: &str) -> bool {
        let Some(rest) = namespace.strip_prefix(&self.0).and_then(|rest| rest.strip_prefix('-')) else {
            return false;
        };
        rest == "underlay"
            || rest.strip_prefix("node").is_some_and(is_number)
            || rest.strip_prefix("pod-").is_some_and(is_short_uid)
    }
}

/// The first eight characters of a UID, which name a pod's namespace.
pub fn short_uid(uid: &str) -> &str {
    uid.get(..8).unwrap_or(uid)
}

/// The name of the node with that number, counted from 1.
pub fn node_name(number: u8) -> String {
    format!("node{number}")
}

/// The number of the node with that name; 0 when it has none.
pub fn node_number(name: &str) -> u8 {
    name.trim_start_matches(char::is_alphabetic).parse().unwrap_or_default()
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

fn is_short_uid(text: &str) -> bool {
    text.len() == 8 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lab(name: &str) -> LabName {
        name.parse().unwrap()
    }

    #[test]
    fn a_lab_owns_what_it_names() {
        let weft = lab("weft");
        for namespace in
            [weft.underlay(), weft.node(&node_name(12)), weft.pod("0a1b2c3d-1111-2222-3333-444455556666")]
        {
            assert!(weft.owns(&namespace), "{namespace}");
        }
    }

    #[test]
    fn a_lab_owns_nothing_of_another_whose_name_begins_alike() {
        let (other, strange) = (lab("weft-pod"), lab("weft-two"));
        for namespace in [
            other.underlay(),
            other.node("node1"),
            other.pod("0a1b2c3d-1111"),
            strange.underlay(),
            "weftnode1".to_owned(),
            "weft-node".to_owned(),
            "weft-nodes".to_owned(),
        ] {
            assert!(!lab("weft").owns(&namespace), "{namespace}");
        }
    }

    #[test]
    fn names_that_are_no_file_name_or_too_long_are_refused() {
        for bad in ["", "-a", "a-", "../a", "a/b", "A", "a b", &"x".repeat(21)] {
            assert!(bad.parse::<LabName>().is_err(), "{bad}");
        }
    }
}
