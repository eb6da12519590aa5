//! IPAMBlocks: ranges of the cluster's addresses that nodes have claimed for their pods.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnetwork::IpNetwork;

use crate::Resource;

/// An IPAMBlock (weft.internal/v1). That it exists is the claim: the API server takes a name once.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct IpamBlock {
    /// Its name, which follows from the range.
    pub name: String,
    /// The range.
    pub cidr: IpNetwork,
    /// The Node that claimed it.
    pub node: String,
    /// The uid of that Node: one that registers anew under the same name has another.
    pub node_uid: String,
    /// The agent that vouches for it, anew at each of its starts: no request of an earlier one counts.
    pub claim: String,
    /// The object's own uid.
    pub uid: String,
    /// The object's version.
    pub version: String,
}

impl IpamBlock {
    /// The name of the object for a range: two nodes that claim one range claim one name. Names are DNS
    /// subdomains (RFC 1123), and colons are none of their letters.
    pub fn name_of(cidr: &IpNetwork) -> String {
        let prefix = cidr.prefix();
        match cidr.network() {
            IpAddr::V4(address) => format!("{address}-{prefix}"),
            IpAddr::V6(address) => {
                let parts: Vec<String> = address.segments().iter().map(|part| format!("{part:x}")).collect();
                format!("{}-{prefix}", parts.join("-"))
            }
        }
    }
}

impl Resource for IpamBlock {
    const NAME: &'static str = "IPAMBlock";

    type Key = str;
    type Stored = IpamBlock;
    type Index = ();
    type Changes = BTreeSet<String>;

    fn key(&self) -> &str {
        &self.name
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_has_one_name_that_the_api_server_takes() {
        let name = |text: &str| IpamBlock::name_of(&text.parse().unwrap());
        assert_eq!(name("10.244.1.64/26"), "10.244.1.64-26");
        assert_eq!(name("fd00:10:244::40/122"), "fd00-10-244-0-0-0-0-40-122");
        assert_eq!(name("::/122"), "0-0-0-0-0-0-0-0-122");
    }
}
