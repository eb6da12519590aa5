//! What a zone is compiled with, besides the cluster. No flags are read here.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use clap::ValueEnum;

use super::{StubDomains, ZoneName};
use crate::wire::name::QueryName;

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
    /// What of the cluster has names.
    pub exposure: Exposure,
}

/// What of the cluster has names, where it is not all: what `kubernetes` of a Corefile sets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Exposure {
    /// The zones of addresses, in wire form, whose names are the cluster's alone, but for those that fall
    /// through. Where there is no such list, each address of the cluster has its names, and all others are
    /// looked for elsewhere.
    pub reverse: Option<Vec<Box<[u8]>>>,
    /// Names below these domains, in wire form, are looked for elsewhere where the cluster has none.
    pub fall: Vec<Box<[u8]>>,
    /// Only these namespaces; all where there is none.
    pub namespaces: BTreeSet<Box<str>>,
    /// Only namespaces that are watched: others may be hidden by their labels.
    pub only_watched_namespaces: bool,
    /// Services without a ready endpoint have no name.
    pub only_ready_services: bool,
}

impl Exposure {
    /// Whether a name that the cluster does not have is looked for elsewhere.
    pub(crate) fn falls_through(&self, name: &QueryName) -> bool {
        self.fall.iter().any(|domain| is_below(name, domain))
    }

    /// Whether a name is of an address, and of a zone that the cluster has.
    pub(crate) fn has_address_zone(&self, name: &QueryName) -> bool {
        let is_reverse = name.len() > 1 && name.label(name.len() - 1) == b"arpa";
        is_reverse && self.reverse.iter().flatten().any(|domain| is_below(name, domain))
    }
}

/// Whether a name is the domain or below it.
fn is_below(name: &QueryName, domain: &[u8]) -> bool {
    (0..=name.len()).any(|start| name.wire(start, name.len()) == domain)
}
