//! ServiceCIDRs: what ClusterIPs are taken from.

use std::collections::BTreeSet;

use ipnetwork::IpNetwork;

use crate::Resource;

/// A ServiceCIDR (networking.k8s.io/v1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceCidr {
    /// Its name.
    pub name: String,
    /// The networks that ClusterIPs are taken from (`spec.cidrs`).
    pub cidrs: Vec<IpNetwork>,
}

impl Resource for ServiceCidr {
    const NAME: &'static str = "ServiceCIDR";

    type Key = str;
    type Stored = ServiceCidr;
    type Index = ();
    type Changes = BTreeSet<String>;

    fn key(&self) -> &str {
        &self.name
    }
}
