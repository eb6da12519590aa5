//! What a zone is compiled with, besides the cluster. No flags are read here.

use std::net::IpAddr;
use std::sync::Arc;

use clap::ValueEnum;

use super::{StubDomains, ZoneName};

/// Which names of pods there are, such as `10-244-1-7.shop.pod`. CoreDNS's words.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum PodNames {
    /// None.
    Disabled,
    /// Those of every address, whether a pod has it or not: the address is read from the name.
    #[default]
    Insecure,
    /// Those of addresses that a pod of the namespace has.
    Verified,
}

/// The settings of a zone.
#[derive(Clone, Debug)]
pub struct ZoneConfig {
    /// The cluster's domain.
    pub zone: ZoneName,
    /// The time to live of every record, and of negative answers, in seconds.
    pub ttl: u32,
    /// Which names of pods there are.
    pub pods: PodNames,
    /// Whether the search list of a pod's resolver is walked here.
    pub complete_search: bool,
    /// The concrete addresses that the server listens on, for the glue of its NS record.
    pub listen: Vec<IpAddr>,
    /// The stub domains below the cluster's domain, as they are at any moment.
    pub stub_domains: Arc<StubDomains>,
}
