//! All names at and under one Service, the unit in which the zone changes. Which Services there are, and the
//! names above them, are the zone's business.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use weft_types::{Endpoint, EndpointSlice, Protocol, Service, ServiceKind};

use super::by_family;
use super::reverse::{Named, Rank};
use crate::name::{wire_label, wire_name};
use crate::reason::Reason;

/// The records of one name. A name without any exists all the same: it is an empty non-terminal (RFC 8020).
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Node {
    /// A records, in order.
    pub v4: Box<[Ipv4Addr]>,
    /// AAAA records, in order.
    pub v6: Box<[Ipv6Addr]>,
    /// SRV records, in order.
    pub srv: Box<[ServiceRecord]>,
    /// The CNAME's target in wire form, where there is one.
    pub alias: Option<Box<[u8]>>,
}

/// What varies among the SRV records of a Service.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ServiceRecord {
    /// The port that the target serves.
    pub port: u16,
    /// The target's labels left of the Service's name, in wire form; none where it is the Service itself.
    pub target: Box<[u8]>,
}

/// All that there is at and under `<service>.<namespace>.svc.<zone>`.
#[derive(Debug, PartialEq, Eq)]
pub struct Branch {
    key: Box<[u8]>,
    apex: Node,
    /// Labels left of the Service's name in wire form -> what is there. In order of the bytes.
    below: Box<[(Box<[u8]>, Node)]>,
    named: Box<[Named]>,
}

impl Node {
    /// A node that holds addresses only.
    pub(super) fn of_addresses(addresses: &[IpAddr]) -> Node {
        let (v4, v6) = by_family(addresses.iter().copied());
        Node { v4, v6, ..Node::default() }
    }
}

impl Branch {
    /// Compiles one Service; `slices` gives its EndpointSlices.
    ///
    /// # Errors
    /// Why its name does not exist: it is a headless Service without a ready endpoint (S2.4.1), or has an external name
    /// that is no domain name.
    pub(super) fn compile<'s, S>(
        key: &[u8],
        service: &Service,
        slices: impl Fn() -> S,
    ) -> Result<Branch, Reason>
    where
        S: Iterator<Item = &'s EndpointSlice>,
    {
        let mut names = Names::default();
        match &service.kind {
            ServiceKind::ExternalName(target) => {
                names.apex.alias = Some(external_name(target).ok_or(Reason::BadTarget)?);
            }
            ServiceKind::ClusterIp(addresses) => {
                names.cluster_ips(service, addresses);
                slices().for_each(|slice| names.endpoints(slice, false));
            }
            ServiceKind::Headless => {
                slices().for_each(|slice| names.endpoints(slice, true));
                if names.apex.addresses.is_empty() {
                    let any = slices().any(|slice| !slice.endpoints.is_empty());
                    return Err(if any { Reason::NotReady } else { Reason::NoEndpoints });
                }
            }
        }
        Ok(names.finish(key))
    }

    /// `<service>.<namespace>` in wire form.
    pub fn key(&self) -> &[u8] {
        &self.key
    }

    /// The records of the Service's own name.
    pub fn apex(&self) -> &Node {
        &self.apex
    }

    /// The records of a name under the Service's, by the labels left of it in wire form.
    pub fn below(&self, labels: &[u8]) -> Option<&Node> {
        let place = self.below.binary_search_by(|(name, _)| (**name).cmp(labels)).ok()?;
        Some(&self.below[place].1)
    }

    /// Whether any ready endpoint stands behind the Service, as far as is known here: not where it is an alias.
    pub fn leads_anywhere(&self) -> bool {
        let has_address = |node: &Node| !node.v4.is_empty() || !node.v6.is_empty();
        self.below.iter().any(|(_, node)| has_address(node))
    }

    /// Every name under the Service's, by the labels left of it in wire form.
    pub fn names_below(&self) -> impl Iterator<Item = &[u8]> {
        self.below.iter().map(|(name, _)| name.as_ref())
    }

    /// The addresses that have a name in this branch.
    pub(super) fn named(&self) -> &[Named] {
        &self.named
    }
}

/// A branch as it grows.
#[derive(Default)]
struct Names {
    apex: Draft,
    below: BTreeMap<Box<[u8]>, Draft>,
    named: Vec<Named>,
}

#[derive(Default)]
struct Draft {
    addresses: Vec<IpAddr>,
    srv: Vec<ServiceRecord>,
    alias: Option<Box<[u8]>>,
}

impl Names {
    /// S2.3.1 and S2.3.2: the virtual addresses, and one SRV record for each port.
    fn cluster_ips(&mut self, service: &Service, addresses: &[IpAddr]) {
        self.apex.addresses.extend_from_slice(addresses);
        for &address in addresses {
            self.named.push(Named { address, rank: Rank::ClusterIp, label: Box::default() });
        }
        for port in &service.ports {
            let record = ServiceRecord { port: port.port.get(), target: Box::default() };
            self.service_record(&port.name, port.protocol, record);
        }
    }

    /// S2.4.1 to S2.4.3: the ready endpoints of one slice. Under a ClusterIP Service they have names too, but
    /// are no records of the Service itself.
    fn endpoints(&mut self, slice: &EndpointSlice, headless: bool) {
        for endpoint in slice.endpoints.iter().filter(|endpoint| endpoint.ready) {
            let (label, hostname) = endpoint_label(endpoint);
            self.below.entry(label.clone()).or_default().addresses.push(endpoint.address);
            if headless || hostname {
                let rank = if hostname { Rank::Hostname } else { Rank::Dashed };
                self.named.push(Named { address: endpoint.address, rank, label: label.clone() });
            }
            if headless {
                self.apex.addresses.push(endpoint.address);
                for port in &slice.ports {
                    let record = ServiceRecord { port: port.port.get(), target: label.clone() };
                    self.service_record(&port.name, port.protocol, record);
                }
            }
        }
    }

    /// Puts one SRV record under `_port._protocol`, if the port has a name (S2.3.2), and under the Service's own
    /// name, where peer finders ask for all ports.
    fn service_record(&mut self, port: &str, protocol: Protocol, record: ServiceRecord) {
        self.apex.srv.push(record.clone());
        let protocol = wire_label(&format!("_{protocol}"));
        let port = (!port.is_empty()).then(|| wire_label(&format!("_{port}")));
        if let (Some(Ok(port)), Ok(protocol)) = (port, protocol) {
            self.below.entry([&*port, &*protocol].concat().into()).or_default().srv.push(record);
            self.below.entry(protocol).or_default();
        }
    }

    fn finish(self, key: &[u8]) -> Branch {
        Branch {
            key: key.into(),
            apex: self.apex.finish(),
            below: self.below.into_iter().map(|(name, draft)| (name, draft.finish())).collect(),
            named: self.named.into(),
        }
    }
}

impl Draft {
    fn finish(mut self) -> Node {
        let (v4, v6) = by_family(self.addresses);
        // An endpoint of two families stands in two slices, but is one target.
        self.srv.sort_unstable();
        self.srv.dedup();
        Node { v4, v6, srv: self.srv.into(), alias: self.alias }
    }
}

/// The label of an endpoint in wire form, and whether it is the endpoint's own hostname rather than its address.
fn endpoint_label(endpoint: &Endpoint) -> (Box<[u8]>, bool) {
    let hostname = endpoint.hostname.as_deref().filter(|name| !name.contains('.'));
    match hostname.map(wire_label) {
        Some(Ok(label)) => (label, true),
        _ => (dashed(endpoint.address), false),
    }
}

/// An address as a label: `172-0-0-2`, `5678-abcd--1` (at most 39 bytes).
fn dashed(address: IpAddr) -> Box<[u8]> {
    let text = address.to_string().replace(['.', ':'], "-");
    let mut wire = vec![text.len() as u8];
    wire.extend(text.bytes());
    wire.into()
}

/// The target of an ExternalName in wire form (S2.5); none where it is an address or no domain name.
fn external_name(target: &str) -> Option<Box<[u8]>> {
    let target = target.trim_end_matches('.');
    if target.parse::<IpAddr>().is_ok() {
        return None;
    }
    wire_name(target).ok()
}
