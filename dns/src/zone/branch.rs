//! All names at and under one Service, the unit in which the zone changes. Which Services there are, and the
//! names above them, are the zone's business.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::slice;
use std::sync::Arc;

use weft_types::{Endpoint, EndpointSlice, Protocol, Service, ServiceKind};

use super::by_family;
use super::reverse::{Named, Rank};
use crate::answer::pod_address;
use crate::name::{wire_label, wire_name};
use crate::reason::Reason;

/// The records of one name. A name without any exists all the same: it is an empty non-terminal (RFC 8020).
#[derive(Clone, Copy, Debug, Default)]
pub struct Node<'z> {
    /// A records, in order.
    pub v4: &'z [Ipv4Addr],
    /// AAAA records, in order.
    pub v6: &'z [Ipv6Addr],
    /// SRV records, in order.
    pub srv: &'z [ServiceRecord],
    /// The CNAME's target in wire form, where there is one.
    pub alias: Option<&'z [u8]>,
}

/// The same as it is kept: most names have one IPv4 address, or SRV records and no address.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Held {
    v4: Few,
    others: Option<Box<Others>>,
}

/// A few IPv4 addresses; a single one is at hand.
#[derive(Debug, Default, PartialEq, Eq)]
enum Few {
    #[default]
    None,
    One(Ipv4Addr),
    Many(Box<[Ipv4Addr]>),
}

#[derive(Debug, PartialEq, Eq)]
struct Others {
    v6: Box<[Ipv6Addr]>,
    srv: Box<[ServiceRecord]>,
    alias: Option<Box<[u8]>>,
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
    key: Arc<[u8]>,
    apex: Held,
    /// Labels left of the Service's name in wire form -> what is there. In order of the bytes.
    below: Box<[(Box<[u8]>, Held)]>,
    /// The endpoints whose names are made of their addresses, in order: the names need not be kept.
    dashed: (Box<[Ipv4Addr]>, Box<[Ipv6Addr]>),
    named: Box<[Named]>,
}

impl Held {
    /// Of addresses only.
    pub(super) fn of_addresses(addresses: &[IpAddr]) -> Held {
        let (v4, v6) = by_family(addresses.iter().copied());
        Held::new(v4, Others { v6, srv: Box::default(), alias: None })
    }

    fn new(v4: Box<[Ipv4Addr]>, others: Others) -> Held {
        let v4 = match *v4 {
            [] => Few::None,
            [one] => Few::One(one),
            _ => Few::Many(v4),
        };
        let has_others = !others.v6.is_empty() || !others.srv.is_empty() || others.alias.is_some();
        Held { v4, others: has_others.then(|| Box::new(others)) }
    }

    /// As they are answered.
    pub(super) fn node(&self) -> Node<'_> {
        let v4 = match &self.v4 {
            Few::None => &[],
            Few::One(one) => slice::from_ref(one),
            Few::Many(many) => many,
        };
        match &self.others {
            None => Node { v4, ..Node::default() },
            Some(others) => Node { v4, v6: &others.v6, srv: &others.srv, alias: others.alias.as_deref() },
        }
    }
}

impl Branch {
    /// Compiles one Service; `slices` gives its EndpointSlices.
    ///
    /// # Errors
    /// Why its name does not exist: it is a headless Service without a ready endpoint (S2.4.1), or has an external name
    /// that is no domain name.
    pub(super) fn compile<'s, S>(
        key: &Arc<[u8]>,
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
    pub fn apex(&self) -> Node<'_> {
        self.apex.node()
    }

    /// The records of a name under the Service's, by the labels left of it in wire form.
    pub fn below(&self, labels: &[u8]) -> Option<Node<'_>> {
        match self.below.binary_search_by(|(name, _)| (**name).cmp(labels)) {
            Ok(place) => Some(self.below[place].1.node()),
            Err(_) => self.dashed(labels),
        }
    }

    /// An endpoint's, where that is what the labels spell.
    fn dashed(&self, labels: &[u8]) -> Option<Node<'_>> {
        let (&length, label) = labels.split_first()?;
        let address = pod_address(label).filter(|_| label.len() == usize::from(length))?;
        let (v4, v6) = match address {
            IpAddr::V4(address) => (find(&self.dashed.0, address), &[][..]),
            IpAddr::V6(address) if spells(address, label) => (&[][..], find(&self.dashed.1, address)),
            IpAddr::V6(_) => return None,
        };
        (v4.len() + v6.len() > 0).then(|| Node { v4, v6, ..Node::default() })
    }

    /// Whether any ready endpoint stands behind the Service, as far as is known here: not where it is an alias.
    pub fn leads_anywhere(&self) -> bool {
        let has_address = |node: Node<'_>| !node.v4.is_empty() || !node.v6.is_empty();
        let (v4, v6) = &self.dashed;
        !v4.is_empty() || !v6.is_empty() || self.below.iter().any(|(_, records)| has_address(records.node()))
    }

    /// Every name under the Service's, by the labels left of it in wire form.
    pub fn names_below(&self) -> impl Iterator<Item = Cow<'_, [u8]>> {
        let (v4, v6) = &self.dashed;
        let addresses = v4.iter().copied().map(IpAddr::V4).chain(v6.iter().copied().map(IpAddr::V6));
        let kept = self.below.iter().map(|(name, _)| Cow::Borrowed(&**name));
        kept.chain(addresses.map(|address| Cow::Owned(dashed(address).into_vec())))
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
    dashed: Vec<IpAddr>,
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
            match hostname {
                true => self.below.entry(label.clone()).or_default().addresses.push(endpoint.address),
                false => self.dashed.push(endpoint.address),
            }
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

    fn finish(mut self, key: &Arc<[u8]>) -> Branch {
        // What else has such a name, or is not read back from it, is kept by its name.
        let (kept, plain): (Vec<IpAddr>, Vec<IpAddr>) = self.dashed.into_iter().partition(|&address| {
            let label = dashed(address);
            self.below.contains_key(&label) || pod_address(&label[1..]) != Some(address)
        });
        for address in kept {
            self.below.entry(dashed(address)).or_default().addresses.push(address);
        }
        Branch {
            key: key.clone(),
            apex: self.apex.finish(),
            below: self.below.into_iter().map(|(name, draft)| (name, draft.finish())).collect(),
            dashed: by_family(plain),
            named: self.named.into(),
        }
    }
}

impl Draft {
    fn finish(mut self) -> Held {
        let (v4, v6) = by_family(self.addresses);
        // An endpoint of two families stands in two slices, but is one target.
        self.srv.sort_unstable();
        self.srv.dedup();
        Held::new(v4, Others { v6, srv: self.srv.into(), alias: self.alias })
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

/// The address in a list in order, as a list.
fn find<T: Copy + Ord>(addresses: &[T], address: T) -> &[T] {
    addresses.binary_search(&address).map_or(&[], |place| slice::from_ref(&addresses[place]))
}

/// Whether a label is the one name of the address: IPv6 knows many spellings.
fn spells(address: Ipv6Addr, label: &[u8]) -> bool {
    let mut text = [0; 45];
    let mut rest = &mut text[..];
    // There is room for every address.
    let written = write!(rest, "{address}").map(|()| 45 - rest.len());
    written.is_ok_and(|length| {
        let same = |(&a, &b): (&u8, &u8)| a == b || (b == b'-' && matches!(a, b':' | b'.'));
        length == label.len() && text[..length].iter().zip(label).all(same)
    })
}
