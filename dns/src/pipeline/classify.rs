//! Query -> answer, as a pure function over the zone: the seam at which every lane of the server meets. An
//! answer borrows from the zone and allocates nothing. How it is written into a message is in
//! [`crate::pipeline::encode`]; an alias is followed in [`crate::pipeline::cname_chain`].

use std::net::IpAddr;

use hickory_proto::rr::RecordType;

use crate::wire::name::QueryName;
use crate::zone::{
    Node, PodNames, Pointer, ServiceNames, ServiceRecords, Zone, pod_address, reverse_address,
};

/// What the zone says to a query.
#[derive(Clone, Copy, Debug)]
pub enum Answer<'z> {
    /// These records.
    Found(Records<'z>),
    /// The name is an alias of this one (wire form); the query goes on there (RFC 1034 section 3.6.2).
    Alias(&'z [u8]),
    /// The name exists, but has no record of the type (RFC 2308 section 2.2).
    NoData(Authority),
    /// The name does not exist, nor does any below it (RFC 2308 section 2.1, RFC 8020).
    NxDomain,
    /// The name belongs to the zone, but the cluster has not been listed yet: nothing can be said.
    NotReady,
    /// The name belongs to somebody else.
    NotInZone,
}

/// Whose SOA vouches for a negative answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Authority {
    /// The zone's.
    Zone,
    /// That of `in-addr.arpa`.
    InAddrArpa,
    /// That of `ip6.arpa`.
    Ip6Arpa,
}

/// The records of one name and type.
#[derive(Clone, Copy, Debug)]
pub enum Records<'z> {
    /// A records.
    A(&'z [[u8; 4]]),
    /// AAAA records.
    Aaaa(&'z [[u8; 16]]),
    /// The A or AAAA record of a pod, read from its name.
    Pod(IpAddr),
    /// The alias itself, which was asked for.
    Cname(&'z [u8]),
    /// SRV records of a Service.
    Srv(&'z ServiceNames, ServiceRecords<'z>),
    /// PTR records.
    Ptr(&'z [Pointer]),
    /// The TXT record of `dns-version`.
    Version,
    /// The zone's SOA.
    Soa,
    /// The zone's NS.
    Ns,
    /// The stand-in for "all records" (RFC 8482 section 4.2).
    Any,
}

/// Answers one query of class IN from the zone.
pub fn classify<'z>(zone: &'z Zone, name: &QueryName, record_type: RecordType) -> Answer<'z> {
    match of_cluster(zone, name, record_type) {
        Answer::NxDomain if zone.config().exposure.falls_through(name) => Answer::NotInZone,
        answer => answer,
    }
}

/// What the cluster has.
fn of_cluster<'z>(zone: &'z Zone, name: &QueryName, record_type: RecordType) -> Answer<'z> {
    let suffix = &zone.config().zone;
    let Some(inner) = name.len().checked_sub(suffix.label_count()) else {
        return outside(zone, name, record_type);
    };
    if name.wire(inner, name.len()) != suffix.wire() {
        return outside(zone, name, record_type);
    }
    if zone.config().stub_domains.covers(name, inner) {
        return Answer::NotInZone;
    }
    if !zone.is_synced() {
        return Answer::NotReady;
    }
    match inner.checked_sub(1).map(|last| name.label(last)) {
        None => apex(record_type),
        Some(b"svc") => service(zone, name, inner - 1, record_type),
        Some(b"pod") => pod(zone, name, inner - 1, record_type),
        Some(b"dns") => name_server(zone, name, inner - 1, record_type),
        Some(b"dns-version") if inner == 1 => version(record_type),
        Some(_) => Answer::NxDomain,
    }
}

/// Names that are not in the zone: those of the cluster's addresses, and everybody else's.
fn outside<'z>(zone: &'z Zone, name: &QueryName, record_type: RecordType) -> Answer<'z> {
    let exposure = &zone.config().exposure;
    let own_zones = exposure.reverse.is_some();
    if own_zones && !exposure.has_address_zone(name) {
        return Answer::NotInZone;
    }
    let Some(address) = reverse_address(name) else {
        // Above addresses there is nothing of the cluster.
        return if own_zones { Answer::NxDomain } else { Answer::NotInZone };
    };
    let pointers = zone.pointers(address);
    match record_type {
        _ if pointers.is_empty() && own_zones && !zone.is_synced() => Answer::NotReady,
        _ if pointers.is_empty() && own_zones => Answer::NxDomain,
        _ if pointers.is_empty() && !zone.is_synced() && is_private(address) => Answer::NotReady,
        _ if pointers.is_empty() => Answer::NotInZone,
        RecordType::PTR => Answer::Found(Records::Ptr(pointers)),
        _ if address.is_ipv4() => empty(record_type, Authority::InAddrArpa),
        _ => empty(record_type, Authority::Ip6Arpa),
    }
}

/// Whether the cluster may turn out to have that address, while it is not known yet.
fn is_private(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_private(),
        IpAddr::V6(address) => address.is_unique_local(),
    }
}

fn apex<'z>(record_type: RecordType) -> Answer<'z> {
    match record_type {
        RecordType::SOA => Answer::Found(Records::Soa),
        RecordType::NS => Answer::Found(Records::Ns),
        _ => empty(record_type, Authority::Zone),
    }
}

/// S2.2
fn version<'z>(record_type: RecordType) -> Answer<'z> {
    match record_type {
        RecordType::TXT => Answer::Found(Records::Version),
        _ => empty(record_type, Authority::Zone),
    }
}

fn name_server<'z>(zone: &'z Zone, name: &QueryName, dns: usize, record_type: RecordType) -> Answer<'z> {
    match dns {
        0 => empty(record_type, Authority::Zone),
        1 if name.label(0) == b"ns" => node(zone.name_server(), record_type),
        _ => Answer::NxDomain,
    }
}

/// `[[name.]service.]namespace.svc`, where `svc` is label number `svc`.
fn service<'z>(zone: &'z Zone, name: &QueryName, svc: usize, record_type: RecordType) -> Answer<'z> {
    match svc {
        0 => empty(record_type, Authority::Zone),
        1 => namespace(zone, name.wire(0, 1), record_type),
        _ => match zone.service(name.wire(svc - 2, svc)) {
            None => Answer::NxDomain,
            Some(branch) if svc == 2 => records(branch, branch.apex(), record_type),
            Some(branch) => match branch.below(name.wire(0, svc - 2)) {
                None => Answer::NxDomain,
                Some(node) => records(branch, node, record_type),
            },
        },
    }
}

fn namespace<'z>(zone: &Zone, label: &[u8], record_type: RecordType) -> Answer<'z> {
    if zone.has_namespace(label) { empty(record_type, Authority::Zone) } else { Answer::NxDomain }
}

/// `[[address.]namespace.]pod`, where `pod` is label number `pod`. The namespace must exist.
fn pod<'z>(zone: &'z Zone, name: &QueryName, pod: usize, record_type: RecordType) -> Answer<'z> {
    match pod {
        _ if zone.config().pods == PodNames::Disabled => Answer::NxDomain,
        0 => empty(record_type, Authority::Zone),
        1 => namespace(zone, name.wire(0, 1), record_type),
        2 if zone.has_namespace(name.wire(1, 2)) => match (pod_address(name.label(0)), record_type) {
            (None, _) => Answer::NxDomain,
            (Some(address), _) if !is_pod(zone, address, name.wire(1, 2)) => Answer::NxDomain,
            (Some(address @ IpAddr::V4(_)), RecordType::A) => Answer::Found(Records::Pod(address)),
            (Some(address @ IpAddr::V6(_)), RecordType::AAAA) => Answer::Found(Records::Pod(address)),
            (Some(_), _) => empty(record_type, Authority::Zone),
        },
        _ => Answer::NxDomain,
    }
}

/// Whether an address is a pod's of that namespace, as far as anybody asked to know that.
fn is_pod(zone: &Zone, address: IpAddr, namespace: &[u8]) -> bool {
    zone.config().pods != PodNames::Verified || zone.pods().has(address, namespace)
}

fn records<'z>(branch: &'z ServiceNames, node: Node<'z>, record_type: RecordType) -> Answer<'z> {
    match record_type {
        RecordType::SRV if !node.srv.is_empty() => Answer::Found(Records::Srv(branch, node.srv)),
        _ => self::node(node, record_type),
    }
}

fn node<'z>(node: Node<'z>, record_type: RecordType) -> Answer<'z> {
    match (record_type, node.alias) {
        // RFC 8482 section 4.2: nothing stands in for all records of an alias but the alias.
        (RecordType::CNAME | RecordType::ANY, Some(target)) => Answer::Found(Records::Cname(target)),
        // RFC 1034 section 3.6.2: whatever else is asked for is asked of its target.
        (_, Some(target)) => Answer::Alias(target),
        (RecordType::A, None) if !node.v4.is_empty() => Answer::Found(Records::A(node.v4)),
        (RecordType::AAAA, None) if !node.v6.is_empty() => Answer::Found(Records::Aaaa(node.v6)),
        _ => empty(record_type, Authority::Zone),
    }
}

/// The answer of a name that exists, but has nothing of the type.
fn empty<'z>(record_type: RecordType, authority: Authority) -> Answer<'z> {
    match record_type {
        RecordType::ANY => Answer::Found(Records::Any),
        _ => Answer::NoData(authority),
    }
}
