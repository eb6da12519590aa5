//! Who has which addresses. Ranges of a cluster must not overlap: a packet has one destination.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

use weft_types::{IpNetwork, Node, overlap};

/// Networks that do not overlap, with their owners, in the order of their first addresses.
#[derive(Debug, Default)]
pub(crate) struct CidrAllocations(BTreeMap<IpAddr, (IpNetwork, Owner)>);

/// Who has a range of addresses.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Owner {
    /// The pods of the Node of that name.
    Node(String),
    /// The Node of that name itself.
    Address(String),
    /// Services.
    Services,
}

/// A range that overlaps another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Conflict {
    pub(crate) range: (IpNetwork, Owner),
    pub(crate) other: (IpNetwork, Owner),
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Owner::Node(name) => write!(f, "the pod CIDR of Node {name}"),
            Owner::Address(name) => write!(f, "the address of Node {name}"),
            Owner::Services => f.write_str("the Services' range"),
        }
    }
}

impl CidrAllocations {
    /// Gives a range to somebody, unless part of it is taken.
    pub(crate) fn allocate(&mut self, range: IpNetwork, owner: Owner) -> Result<(), Conflict> {
        if let Some(other) = self.overlapping(&range) {
            return Err(Conflict { range: (range, owner), other: other.clone() });
        }
        self.0.insert(range.network(), (range, owner));
        Ok(())
    }

    /// Gives a Node its own addresses. One inside of another's range is an error for the one who looks at all
    /// of them.
    pub(crate) fn allocate_addresses(&mut self, node: &Node) -> Vec<Conflict> {
        let owner = || Owner::Address(node.name.clone());
        node.addresses.iter().filter_map(|&address| self.allocate(address.into(), owner()).err()).collect()
    }

    /// A claim to addresses of `range`. As claims do not overlap, it can only be the last one that begins
    /// before the end of `range`.
    fn overlapping(&self, range: &IpNetwork) -> Option<&(IpNetwork, Owner)> {
        let (_, claim) = self.0.range(..=range.broadcast()).next_back()?;
        overlap(&claim.0, range).then_some(claim)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_to_claim_keeps_it() {
        let mut allocations = CidrAllocations::default();
        let mut claim = |text: &str, name: &str| {
            let conflict = allocations.allocate(text.parse().unwrap(), Owner::Node(name.to_owned())).err()?;
            Some(conflict.other.1)
        };
        assert_eq!(claim("10.244.1.0/24", "a"), None);
        assert_eq!(claim("10.244.3.0/24", "c"), None);
        for inside in ["10.244.1.7/32", "10.244.0.0/23", "10.244.1.128/25"] {
            assert_eq!(claim(inside, "b"), Some(Owner::Node("a".to_owned())), "{inside}");
        }
        assert!(claim("0.0.0.0/0", "b").is_some());
        assert_eq!(claim("10.244.2.0/24", "b"), None);
    }
}
